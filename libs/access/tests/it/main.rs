//! Who is let in, over files on disk and real handshakes.

mod admission;
mod callers;
mod handshakes;
mod support;
