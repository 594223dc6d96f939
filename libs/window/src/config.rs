//! Limits, configuration and counters of a store.
//!
//! Every limit refuses the new and never evicts the live: a flood of new series must not take the servers away that are
//! being watched. What is refused is counted here by reason.

/// Largest number of samples a row keeps. A sender that is faster than the window allows is thinned, see
/// [`WindowCounters::samples_thinned`].
pub const SAMPLES_PER_ROW_MAX: usize = 192;

/// Largest number of buckets of one histogram point; points with more are refused as malformed.
pub const BUCKETS_PER_POINT_MAX: usize = 1_024;

/// Largest number of series a resource may have in its list when none of them is read: that list is only a cache, and
/// is emptied when it gets longer.
pub const UNMATCHED_PER_RESOURCE_MAX: usize = 4_096;

/// Largest number of lines of [`crate::InputsReport`].
pub const INPUTS_REPORT_MAX: usize = 10_000;

/// Largest number of senders that a report names for one metric.
pub const SENDERS_REPORT_MAX: usize = 8;

/// A row that has been silent for its window and this long is freed: processes come and go.
pub const ROW_SILENT_MS: i64 = 3_600_000;

/// Buckets of all snapshots that a histogram row keeps, 256 KiB of counts: so many fewer snapshots, the more buckets each
/// of them has. Exponential ones vary; they are taken to have [`EXPONENTIAL_BUCKETS`].
pub const BUCKETS_PER_ROW_MAX: usize = 32_768;

/// Twice what SDKs send of an exponential histogram at most.
pub const EXPONENTIAL_BUCKETS: usize = 320;

/// Longest reporting interval a window stretches to.
pub const INTERVAL_MAX_MS: u32 = 3_600_000;

/// So many missed reports make a row's interval no longer the interval of its server.
pub const REPORTS_MISSED_MAX: i64 = 4;

/// How many identical samples in a row make a sensor that has moved before suspect.
pub const FLAT_SAMPLES: u32 = 10;

/// How much a store may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WindowLimits {
    /// Different series, read or not.
    pub series_max: usize,
    /// Rows of one server (and of one resource that has no server yet).
    pub rows_per_server_max: usize,
    /// Numeric rows altogether.
    pub rows_max: usize,
    /// Histogram rows altogether.
    pub histogram_rows_max: usize,
}

impl Default for WindowLimits {
    fn default() -> Self {
        Self { series_max: 1_000_000, rows_per_server_max: 4_096, rows_max: 64_000_000, histogram_rows_max: 4_000_000 }
    }
}

/// How a store treats time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WindowConfig {
    /// Samples further ahead of the tick than this are removed and counted, ns. `None`: they wait for their tick,
    /// because the senders' time is the only clock there is.
    pub future_max_ns: Option<i64>,
}

/// What happened to the samples since the store was made, by reason. Metrics beside the content: repeats and late
/// samples change these numbers and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WindowCounters {
    /// Points offered.
    pub points: u64,
    /// Kept in a row.
    pub samples: u64,
    /// No input reads their series.
    pub unmatched: u64,
    /// Their resource was refused or belongs to another cell.
    pub skipped: u64,
    /// Same row and time, same value.
    pub duplicates: u64,
    /// Same row and time, another value; the one with the larger bits stays.
    pub conflicts: u64,
    /// NaN or infinite.
    pub not_a_number: u64,
    /// The sender said that the series has ended.
    pub ended: u64,
    /// Behind their sender's watermark by more than the allowed lateness.
    pub late: u64,
    /// Of those kept in a row: behind the last tick by more than the allowed lateness, though not behind their sender's
    /// watermark; what a sender, or a queue before us, delivers after an outage.
    pub backlog: u64,
    /// Further ahead of the tick than allowed.
    pub future: u64,
    /// Without a time, or so far from the tick that they cannot be of any window.
    pub out_of_range: u64,
    /// Left out because a row had [`SAMPLES_PER_ROW_MAX`] samples: the middle goes, the ends stay.
    pub samples_thinned: u64,
    /// Numeric points of a histogram series or the reverse.
    pub kind_mismatch: u64,
    /// Histogram points whose buckets do not fit their series.
    pub malformed: u64,
    /// Points of series refused for [`WindowLimits::series_max`].
    pub refused_series: u64,
    /// Points of rows refused for one of the limits of rows in [`WindowLimits`].
    pub refused_rows: u64,
    /// Counters that began again.
    pub resets: u64,
    /// Times between samples, or delta intervals, that nothing covers.
    pub gaps: u64,
    /// Samples of a second writer of one counter, and delta intervals that overlap a kept one.
    pub overlaps: u64,
    /// Counters first seen, and delta intervals, whose sender does not say when they began.
    pub unknown_starts: u64,
    /// Rows freed because they were silent.
    pub rows_expired: u64,
}

impl WindowCounters {
    /// Adds the counts of `other`.
    pub fn add(&mut self, other: &Self) {
        self.points += other.points;
        self.samples += other.samples;
        self.unmatched += other.unmatched;
        self.skipped += other.skipped;
        self.duplicates += other.duplicates;
        self.conflicts += other.conflicts;
        self.not_a_number += other.not_a_number;
        self.ended += other.ended;
        self.late += other.late;
        self.backlog += other.backlog;
        self.future += other.future;
        self.out_of_range += other.out_of_range;
        self.samples_thinned += other.samples_thinned;
        self.kind_mismatch += other.kind_mismatch;
        self.malformed += other.malformed;
        self.refused_series += other.refused_series;
        self.refused_rows += other.refused_rows;
        self.resets += other.resets;
        self.gaps += other.gaps;
        self.overlaps += other.overlaps;
        self.unknown_starts += other.unknown_starts;
        self.rows_expired += other.rows_expired;
    }
}
