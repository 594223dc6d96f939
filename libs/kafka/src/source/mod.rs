//! The reader of foreign topics: records in, records of the sample log out, at least once.
//!
//! A reader is one member of a consumer group on a thread of its own, which never stops polling: a consumer that waits
//! somewhere else is thrown out of its group, its partitions move, and the next one waits there too. What it has taken
//! and the log has not yet acknowledged is *in flight*; beyond a bound in bytes, or while the log refuses, partitions are
//! paused and polling goes on. An offset is committed when everything before it lies in the log, and not before, so a
//! reader that dies leaves work that is done twice and never work that is not done; the engine makes repeats harmless.
//!
//! | File | What it does |
//! |---|---|
//! | `options` | what a source is, and the settings of its consumer |
//! | `offsets` | how far each partition is done: a watermark without gaps |
//! | `flight` | what waits for the log, or for the dead-letter topic, and is tried again |
//! | `pace` | which partitions to pause, so that memory is bounded and a backlog is read in step |
//! | `beginning` | where a group begins that is new |
//! | `context` | what the group and the client tell us |
//! | `reader` | the loop that ties these together |
//!
//! What a record means is not known here: an [`Intake`] decodes it.

mod beginning;
mod context;
mod dead_letter;
mod flight;
mod metrics;
mod offsets;
mod options;
mod pace;
mod partitions;
mod reader;

use std::sync::Arc;

use headroom_model::LogRecord;

pub use metrics::{Refused, SourceMetrics};
pub use options::{GroupProtocol, SourceOptions, Start};
pub use reader::{Reader, start};

/// A record of a foreign topic.
#[derive(Clone, Copy, Debug)]
pub struct SourceRecord<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Its place in the partition.
    pub offset: i64,
    /// When its producer, or the broker, says it was made; ms since 1970.
    pub timestamp_ms: Option<i64>,
    /// Whether that is so long ago that it is read as a backlog, in which order is not to be counted on. Never so on
    /// event time, which has no clock to tell by.
    pub is_overdue: bool,
    /// The header `content-type`.
    pub content_type: Option<&'a str>,
    /// What it says.
    pub payload: &'a [u8],
}

/// Why a record cannot be used, now or ever.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// One word, for metrics and the dead letter.
    pub reason: &'static str,
    /// What was wrong, for people.
    pub message: String,
    /// What it was read as; empty if that is unknown.
    pub encoding: &'static str,
}

/// What makes samples of records. One per reader.
pub trait Intake: Send {
    /// Takes a record in.
    ///
    /// # Errors
    /// If it cannot be used. Nothing of it is then handed over.
    fn take(&mut self, record: &SourceRecord<'_>) -> Result<(), Refusal>;

    /// Samples taken since they were last handed over.
    fn staged_points(&self) -> usize;

    /// Hands over what was taken, by partition of the sample log.
    fn hand_over(&mut self) -> Vec<(u32, Arc<LogRecord>)>;
}
