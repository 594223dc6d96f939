//! Points into rows: the only code that runs for every point.
//!
//! A sender reports its series in the same order every time, so the next point of a resource is almost always the next
//! entry of its list: one comparison instead of a hash. A series that nothing reads has an entry too, marked, and costs
//! that one comparison.

use headroom_model::batch::is_stale_marker;
use headroom_model::{HistogramPoint, SampleBatch};

use crate::config::{UNMATCHED_PER_RESOURCE_MAX, WindowCounters};
use crate::histogram::{Buckets, HistogramRow, Snapshot, is_well_formed, snapshots_max};
use crate::numeric::stretch_ms;
use crate::samples::{Cut, Insertion, RANGE_MS, flag};
use crate::series::NO_LANES;
use crate::store::{Entry, HISTOGRAM, REFUSED, ResourceId, UNMATCHED, WindowStore};

const NANOS_PER_MILLI: i64 = 1_000_000;

/// A series of the batch that was not looked up yet.
const UNSEEN: u32 = u32::MAX;
/// A series of the batch that a limit refused.
const REFUSED_SERIES: u32 = u32::MAX - 1;

/// What a run of points of one resource has in common.
#[derive(Clone, Copy)]
struct Sender {
    id: u32,
    /// Samples before this are late.
    late_before_ms: i64,
    /// Samples before this, if they are not late, are backlog.
    backlog_before_ms: i64,
}

impl WindowStore {
    /// Takes the samples of a batch. `resources` says for each resource of its dictionary where its rows are; `None`
    /// skips its points (another cell's, or refused). Answers what happened to the points of this batch, which
    /// [`Self::counters`] includes.
    pub fn ingest(&mut self, batch: &SampleBatch, resources: &[Option<ResourceId>]) -> WindowCounters {
        self.take(batch, resources, false)
    }

    /// The same with samples of an outage that come after newer ones of their senders: none is late, all are backlog.
    pub fn ingest_backlog(&mut self, batch: &SampleBatch, resources: &[Option<ResourceId>]) -> WindowCounters {
        self.take(batch, resources, true)
    }

    fn take(&mut self, batch: &SampleBatch, resources: &[Option<ResourceId>], is_backlog: bool) -> WindowCounters {
        let mut seen = WindowCounters::default();
        self.batch_series.clear();
        self.batch_series.resize(batch.series.len(), (UNSEEN, 0));
        let points = &batch.points;
        let columns = points.resource.iter().zip(&*points.series).zip(&*points.start_ns).zip(&*points.time_ns);
        let mut current = (u32::MAX, None);
        for ((((resource, series), start_ns), time_ns), value) in columns.zip(&*points.value) {
            seen.points += 1;
            if *resource != current.0 {
                current = (*resource, self.sender(resources, *resource, is_backlog));
            }
            let Some(sender) = current.1 else {
                seen.skipped += 1;
                continue;
            };
            let Some(entry) = self.entry(batch, sender, *series, &mut seen) else { continue };
            if entry.row >= HISTOGRAM {
                count_rowless(entry, &mut seen);
                continue;
            }
            self.offer(sender, entry.row, *start_ns, *time_ns, *value, &mut seen);
        }
        for point in &batch.histograms {
            seen.points += 1;
            let Some(sender) = self.sender(resources, point.resource, is_backlog) else {
                seen.skipped += 1;
                continue;
            };
            let Some(entry) = self.entry(batch, sender, point.series, &mut seen) else { continue };
            if entry.row < HISTOGRAM || !entry.has_row() {
                count_rowless(entry, &mut seen);
                continue;
            }
            self.offer_histogram(sender, entry, point, &mut seen);
        }
        for at in 0..self.batch_series.len() {
            let (series, points) = self.batch_series[at];
            if let Some(entry) = self.series.get_mut(series) {
                entry.points += u64::from(points);
            }
        }
        self.counters.add(&seen);
        seen
    }

    fn sender(&self, resources: &[Option<ResourceId>], resource: u32, is_backlog: bool) -> Option<Sender> {
        let id = resources.get(resource as usize).copied().flatten()?.0;
        let state = self.resources.get(id as usize)?.as_ref()?;
        if is_backlog {
            return Some(Sender { id, late_before_ms: i64::MIN, backlog_before_ms: i64::MAX });
        }
        let lateness_ms = self.policy.windows.lateness_seconds.saturating_mul(1_000);
        Some(Sender {
            id,
            late_before_ms: state.watermark_ms.saturating_sub(lateness_ms),
            backlog_before_ms: self.last_tick_ms.map_or(i64::MIN, |tick_ms| tick_ms.saturating_sub(lateness_ms)),
        })
    }

    /// The entry of a point in its resource's list, made if need be.
    #[inline]
    fn entry(&mut self, batch: &SampleBatch, sender: Sender, at: u32, seen: &mut WindowCounters) -> Option<Entry> {
        let known = self.batch_series.get_mut(at as usize)?;
        known.1 += 1;
        let series = known.0;
        if let Some(state) = self.resources[sender.id as usize].as_mut()
            && let Some(entry) = state.entries.get(state.cursor)
            && entry.series == series
        {
            state.cursor += 1;
            return Some(*entry);
        }
        self.find_entry(batch, sender, at, seen)
    }

    #[inline(never)]
    fn find_entry(&mut self, batch: &SampleBatch, sender: Sender, at: u32, seen: &mut WindowCounters) -> Option<Entry> {
        let known = self.batch_series.get_mut(at as usize)?;
        if known.0 == UNSEEN {
            let series = batch.series.get(at as usize)?;
            known.0 = self.series.intern(series, self.limits.series_max).unwrap_or(REFUSED_SERIES);
        }
        let series = known.0;
        if series == REFUSED_SERIES {
            seen.refused_series += 1;
            return None;
        }
        let state = self.resources[sender.id as usize].as_mut()?;
        // The end of the list is followed by its beginning; otherwise look for the series.
        let place = match state.entries.get(state.cursor) {
            Some(entry) if entry.series == series => Some(state.cursor),
            _ => match state.entries.first() {
                Some(first) if first.series == series => Some(0),
                _ => state.find(series),
            },
        };
        if let Some(place) = place {
            state.cursor = place + 1;
            return state.entries.get(place).copied();
        }
        Some(self.new_entry(sender, series))
    }

    fn new_entry(&mut self, sender: Sender, series: u32) -> Entry {
        let mut entry = Entry { series, row: UNMATCHED, lanes: NO_LANES };
        let Some(resource) = self.resources[sender.id as usize].as_ref().map(|state| state.resource.clone()) else {
            return entry;
        };
        entry.lanes = self.lanes_for(&resource, series);
        if entry.lanes != NO_LANES {
            entry.row = self.new_row(sender.id, series);
        }
        if entry.row == REFUSED {
            self.refused.push(sender.id);
        }
        let Some(state) = self.resources[sender.id as usize].as_mut() else { return entry };
        if entry.has_row() {
            state.rows += 1;
        } else if state.unmatched as usize >= UNMATCHED_PER_RESOURCE_MAX {
            for gone in state.entries.iter().filter(|entry| !entry.has_row()) {
                self.series.release(gone.series);
            }
            state.entries.retain(Entry::has_row);
            state.reindex();
            state.unmatched = 1;
        } else {
            state.unmatched += 1;
        }
        state.push(entry);
        state.cursor = state.entries.len();
        let slot = state.slot;
        if let Some(known) = self.series.get_mut(series) {
            known.resources += 1;
        }
        if entry.has_row() {
            if let Some(server) = self.servers.get_mut(slot as usize) {
                server.rows += 1;
            }
            self.mark_dirty(slot);
        }
        entry
    }

    /// A new row, or [`REFUSED`].
    fn new_row(&mut self, resource: u32, series: u32) -> u32 {
        let Some(content) = self.series.get(series).map(|entry| &entry.series) else { return REFUSED };
        let (kind, snapshots_max) = (content.kind, snapshots_max(content));
        if self.server_is_full(resource) || self.is_full(kind.is_histogram()) {
            return REFUSED;
        }
        if kind.is_histogram() {
            let row = Some(HistogramRow {
                series,
                resource,
                kind,
                flags: flag::LIVE | flag::NEW,
                interval_ms: 0,
                seen_ms: 0,
                floor_ms: i64::MIN,
                snapshots: Vec::new(),
                snapshots_max,
            });
            let at = match self.free_histograms.pop() {
                Some(at) => {
                    self.histograms[at as usize] = row;
                    at
                }
                None => {
                    self.histograms.push(row);
                    (self.histograms.len() - 1) as u32
                }
            };
            return at | HISTOGRAM;
        }
        let row = self.samples.new_row(resource, kind);
        match self.free_rows.pop() {
            Some(at) => {
                self.rows[at as usize] = row;
                at
            }
            None => {
                self.rows.push(row);
                (self.rows.len() - 1) as u32
            }
        }
    }

    fn server_is_full(&self, resource: u32) -> bool {
        let max = self.limits.rows_per_server_max;
        self.resources[resource as usize].as_ref().is_none_or(|state| {
            let of_server = self.servers.get(state.slot as usize).map_or(0, |server| server.rows);
            state.rows.max(of_server) as usize >= max
        })
    }

    fn is_full(&self, histogram: bool) -> bool {
        if histogram {
            let max = self.limits.histogram_rows_max.min((REFUSED ^ HISTOGRAM) as usize);
            self.histograms.len() - self.free_histograms.len() >= max
        } else {
            self.rows.len() - self.free_rows.len() >= self.limits.rows_max.min(HISTOGRAM as usize)
        }
    }

    /// Forgets refused entries where there is room again, so that their next point asks anew.
    pub(crate) fn retry_refused(&mut self) {
        let mut waiting = std::mem::take(&mut self.refused);
        waiting.sort_unstable();
        waiting.dedup();
        waiting.retain(|id| {
            if self.resources[*id as usize].is_none() {
                return false;
            }
            if self.server_is_full(*id) || self.is_full(false) && self.is_full(true) {
                return true;
            }
            if let Some(state) = self.resources[*id as usize].as_mut() {
                for gone in state.entries.iter().filter(|entry| entry.row == REFUSED) {
                    self.series.release(gone.series);
                    state.unmatched = state.unmatched.saturating_sub(1);
                }
                state.entries.retain(|entry| entry.row != REFUSED);
                state.reindex();
            }
            false
        });
        self.refused = waiting;
    }

    /// The time of a sample in ms, if it can be of any window; otherwise it is counted here.
    #[inline]
    fn admit(&mut self, sender: Sender, time_ns: i64, seen: &mut WindowCounters) -> Option<i64> {
        let time_ms = time_ns.div_euclid(NANOS_PER_MILLI);
        match self.last_tick_ms {
            _ if time_ns <= 0 => {
                seen.out_of_range += 1;
                return None;
            }
            Some(tick_ms) if (time_ms - tick_ms).abs() >= RANGE_MS => {
                if time_ms > tick_ms && self.config.future_max_ns.is_some() {
                    seen.future += 1;
                } else {
                    seen.out_of_range += 1;
                }
                return None;
            }
            Some(_) => {}
            // Nobody has said yet what time it is: the first tick will judge by the extent.
            None => {
                if let Some(state) = self.resources[sender.id as usize].as_mut() {
                    state.low_ms = state.low_ms.min(time_ms);
                    state.high_ms = state.high_ms.max(time_ms);
                }
            }
        }
        if time_ms < sender.late_before_ms {
            seen.late += 1;
            return None;
        }
        seen.backlog += u64::from(time_ms < sender.backlog_before_ms);
        Some(time_ms)
    }

    #[inline]
    fn offer(&mut self, sender: Sender, row: u32, start_ns: i64, time_ns: i64, value: f64, seen: &mut WindowCounters) {
        if !value.is_finite() {
            let row = &mut self.rows[row as usize];
            if !is_stale_marker(value) {
                row.flags |= flag::NOT_A_NUMBER;
                seen.not_a_number += 1;
                return;
            }
            row.flags |= flag::MARKER;
            seen.ended += 1;
        }
        let Some(time_ms) = self.admit(sender, time_ns, seen) else { return };
        let row = &mut self.rows[row as usize];
        let start_ms = if row.kind.is_delta() {
            // An unknown start, or one that is no interval, is written as an empty interval.
            if start_ns <= 0 || start_ns >= time_ns { time_ms } else { start_ns.div_euclid(NANOS_PER_MILLI) }
        } else if row.kind == headroom_model::SeriesKind::Gauge || start_ns <= 0 || start_ns > time_ns {
            0
        } else {
            start_ns.div_euclid(NANOS_PER_MILLI)
        };
        let cut = match self.last_tick_ms {
            Some(tick_ms) if row.interval_ms != 0 => {
                let state_ms =
                    window_ms(self.policy.windows.state_seconds).max(window_ms(self.policy.windows.control_seconds));
                let tick = tick_ms as u32;
                Some(Cut { from: tick.wrapping_sub(state_ms.max(stretch_ms(row.interval_ms))), tick })
            }
            _ => None,
        };
        match self.samples.insert(row, time_ms as u32, start_ms, value, cut) {
            Insertion::New => seen.samples += 1,
            Insertion::Duplicate => seen.duplicates += 1,
            Insertion::Conflict => seen.conflicts += 1,
            Insertion::Thinned => seen.samples_thinned += 1,
        }
    }

    fn offer_histogram(&mut self, sender: Sender, entry: Entry, point: &HistogramPoint, seen: &mut WindowCounters) {
        let ended = is_stale_marker(point.sum);
        let Some(series) = self.series.get(entry.series) else { return };
        if !ended && !is_well_formed(point, &series.series) {
            seen.malformed += 1;
            return;
        }
        seen.ended += u64::from(ended);
        let Some(time_ms) = self.admit(sender, point.time_ns, seen) else { return };
        let Some(Some(row)) = self.histograms.get_mut((entry.row & !HISTOGRAM) as usize) else { return };
        let start_ms = if point.start_ns <= 0 || point.start_ns > point.time_ns {
            0
        } else {
            point.start_ns.div_euclid(NANOS_PER_MILLI)
        };
        let data = (!ended).then(|| Buckets {
            count: point.count,
            sum: point.sum,
            scale: point.scale,
            zero: point.zero_count,
            offset: point.offset,
            buckets: point.buckets.clone(),
        });
        match row.insert(Snapshot { time_ms, start_ms, data }) {
            Insertion::New => seen.samples += 1,
            Insertion::Duplicate => seen.duplicates += 1,
            Insertion::Conflict => seen.conflicts += 1,
            Insertion::Thinned => seen.samples_thinned += 1,
        }
    }
}

/// Counts a point whose entry has no row of the point's own kind.
fn count_rowless(entry: Entry, seen: &mut WindowCounters) {
    match entry.row {
        UNMATCHED => seen.unmatched += 1,
        REFUSED => seen.refused_rows += 1,
        _ => seen.kind_mismatch += 1,
    }
}

/// A policy's span in ms, bounded so that wrapping times can hold it.
pub(crate) fn window_ms(seconds: i64) -> u32 {
    seconds.clamp(1, i64::from(crate::config::INTERVAL_MAX_MS) / 1_000 * 24).saturating_mul(1_000) as u32
}
