//! The OTLP role over real sockets, with the sample log in memory.

mod access;
mod answers;
mod bounds;
mod support;
