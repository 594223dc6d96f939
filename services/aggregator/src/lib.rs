//! The aggregator role: sample log in, engine, snapshot log out.
#![forbid(unsafe_code)]
