//! The latest snapshot of every cell: lock-free reads, change subscription, look-up by any alias.
//!
//! A reader takes an `Arc` of the whole map of cells and works on immutable data from then on; a writer builds the next
//! [`CellView`] beside it and swaps one pointer. Nothing a reader does can hold up a writer or another reader, and what
//! is costly (the index of names, what changed since the last epoch) is done once by the writer, not by each reader.
//!
//! What is *not* in a snapshot lives here: whether it is stale (a matter of the reader's clock, which is an argument),
//! whether the kill switch is thrown (it must work with no engine alive), and what changed since an epoch (a matter of
//! what this reader has seen).
#![forbid(unsafe_code)]

mod changes;
mod model;
mod names;
mod rollup;
mod view;

pub use changes::{HISTORY_SECONDS, REMOVALS_MAX, Removal};
pub use model::{Applied, Found, LAG_SECONDS, Lookup, ReadModel, RestoreError};
pub use names::{NameMatch, Names};
pub use rollup::{ClassShare, Rollup};
pub use view::CellView;
