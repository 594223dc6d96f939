//! The vocabulary of Headroom: plain data and Arrow schemas, no behaviour that needs a clock or a socket.
#![forbid(unsafe_code)]
