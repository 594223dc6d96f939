//! The OTLP role: listeners in, sample log out.
#![forbid(unsafe_code)]
