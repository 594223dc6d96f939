//! Event time, counter resets, histograms and lateness: samples in, one Arrow batch per cell and tick out.
//!
//! A [`WindowStore`] keeps, for every sub-series that an input of the policy reads, its recent samples in a small set
//! sorted by time, and at a tick evaluates the windows `[tick - length, tick)` from them. *Panes hold samples, not
//! sums*: at one sample per pane that is smaller than an accumulator, and it makes order, repeats and late samples
//! harmless by construction, where sums would need a rule for each. The rules that remain are about meaning:
//!
//! | | |
//! |---|---|
//! | counter | last minus first per start-time epoch; a first value counts in full only if it began while we watched |
//! | delta | kept greedily by end, dropped where it overlaps a kept one |
//! | gauge | its derivative is refused |
//! | histogram | buckets subtracted like counters, folded into exponential ones, merged across senders |
//! | late | measured against the sender's own newest sample as of the last tick |
//! | future | waits for its tick, or is refused beyond a bound |
//! | slow | windows stretch to two and a half intervals of the row |
//!
//! The way of a sample: [`ingest`] finds its row, [`samples`] keeps it; [`close`] walks the [`lanes`], [`plain`],
//! [`numeric`] and [`histogram`] evaluate a row, [`sweep`] does the arithmetic of epochs, [`fold`] makes one value per
//! server, [`output`] writes the columns.
#![forbid(unsafe_code)]

mod batch;
mod checkpoint;
mod chunked;
mod close;
mod config;
mod fold;
mod histogram;
mod ingest;
mod lanes;
mod numeric;
mod output;
mod plain;
mod samples;
mod series;
mod store;
mod sweep;

pub use batch::{InputColumns, NEVER_NS, NO_SOURCE, Quality, ServerColumns, SlowInput, WindowBatch};
pub use config::{
    BUCKETS_PER_POINT_MAX, INPUTS_REPORT_MAX, SAMPLES_PER_ROW_MAX, SENDERS_REPORT_MAX, UNMATCHED_PER_RESOURCE_MAX,
    WindowConfig, WindowCounters, WindowLimits,
};
pub use series::{InputsReport, SeenMetric};
pub use store::{ResourceId, WindowSizes, WindowStore};
