//! OTLP: the protobuf walk, its JSON form, and what both share.

pub mod wire;

pub(crate) mod attributes;
pub(crate) mod histogram;
pub(crate) mod json;
pub(crate) mod lookup;
pub(crate) mod number;
pub(crate) mod proto_writer;
pub(crate) mod summary;
pub(crate) mod walk;
