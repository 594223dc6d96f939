//! Samples as Arrow IPC streams: a row a sample, in columns that `schemas/samples-arrow.md` documents.
//!
//! The bytes come from anybody, and the usual reader trusts offsets enough to panic on them. So only the metadata is
//! read by `arrow-ipc`, whose flatbuffers are verified; lengths, offsets, indices and texts of the body are looked at
//! here, where each access is checked and a bad one is an error that names the column. That is also the faster way:
//! rows are made from the buffers where they lie, and servers and series are looked up once per combination, not per row.

mod column;
mod groups;
mod rows;
mod stream;

pub use rows::ArrowDecoder;

use crate::decoder::DecodeError;

/// An error with the column or message that it is about.
#[cold]
fn wrong(what: impl AsRef<str>) -> DecodeError {
    DecodeError::arrow(what.as_ref())
}
