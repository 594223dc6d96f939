//! The decoder against prost, and the small parts by themselves.
#![allow(clippy::unwrap_used)]

mod answers;
mod columns;
mod counters;
mod decompression;
mod fixtures;
mod generate;
mod identity;
mod json;
mod limits;
mod oracle;
mod protobuf;
mod scramble;
mod splitting;
