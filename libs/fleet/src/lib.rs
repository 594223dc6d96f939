//! A simulated fleet of servers that reports as real senders do, for the demo, load tests and tests.
#![forbid(unsafe_code)]
