//! The health-api role: snapshot log in, HTTP out.
#![forbid(unsafe_code)]
