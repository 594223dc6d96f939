//! The tick: every server's lanes in slot order, block by block.
//!
//! A block of slots is evaluated into small row-major buffers that stay in the cache, then appended to the columns: a
//! hundred output columns written one value at a time would miss the cache a hundred times per server. Each row is
//! looked at once for both windows, and what has to be done once per row at a tick (interval, quality, expiry) is done
//! while its samples are still in the nearest cache.

use arrow_buffer::ScalarBuffer;
use arrow_schema::ArrowError;
use headroom_model::policy::{Fold, WindowFunction};
use headroom_model::{SeriesKind, Timestamp};
use rustc_hash::FxHashSet;

use crate::batch::{InputColumns, NO_SOURCE, Quality, SlowInput, WindowBatch};
use crate::chunked::Chunked;
use crate::config::{FLAT_SAMPLES, REPORTS_MISSED_MAX, ROW_SILENT_MS, WindowCounters};
use crate::fold::{InputFold, InputValues, merges};
use crate::histogram::{HistogramRow, HistogramSum};
use crate::ingest::window_ms;
use crate::lanes::LaneEntry;
use crate::numeric::{
    self, Extent, Scratch, TickTimes, Values, expected_samples, has_ended, interval_of, needed_from, stretch_ms,
};
use crate::output::{BLOCK, Output};
use crate::plain::{self, LastTimes};
use crate::samples::{Cut, RANGE_MS, Row, Samples, flag};
use crate::series::SeriesTable;
use crate::store::{HISTOGRAM, InputPlan, ResourceState, WindowStore};
use crate::sweep;

impl WindowStore {
    /// Evaluates all windows that end at `tick`, for `slots` server slots. Ticks must rise.
    ///
    /// # Errors
    /// None in practice: Arrow checks the lengths of the columns, which are all `slots`.
    pub fn close(&mut self, tick: Timestamp, slots: u32) -> Result<WindowBatch, ArrowError> {
        let slots = slots as usize;
        let tick_ms = tick.0.div_euclid(1_000_000);
        self.prepare(tick_ms);
        let control_ms = window_ms(self.policy.windows.control_seconds);
        let times = TickTimes {
            tick_ms,
            control_ms,
            state_ms: window_ms(self.policy.windows.state_seconds).max(control_ms),
            last_tick_ms: self.last_tick_ms.unwrap_or(i64::MIN),
        };
        let mut output = Output::new(&mut self.spare, self.plans.len(), slots);
        let mut pass = Pass {
            times,
            future_max_ms: self.config.future_max_ns.map(|ns| (ns / 1_000_000).clamp(0, RANGE_MS)),
            plans: &self.plans,
            scales: self.lanes.scales(),
            series: &self.series,
            resources: &mut self.resources,
            rows: &mut self.rows,
            samples: &mut self.samples,
            histograms: &mut self.histograms,
            counters: WindowCounters::default(),
            expired: Vec::new(),
            marked: (u32::MAX, i64::MIN),
            last_times: LastTimes::none(),
            scratch: Scratch::default(),
            fold: InputFold::default(),
            folded: Vec::new(),
            slow: Vec::new(),
        };
        for from in (0..slots).step_by(BLOCK) {
            let in_block = BLOCK.min(slots - from);
            output.begin_block(in_block);
            for at in 0..in_block {
                let Some(server) = self.servers.get(from + at) else { break };
                if server.lanes_len > 0 {
                    let lanes = self.lanes.of(server);
                    let seen = pass.server(lanes, &mut output, at);
                    if seen.slowest_ms > seen.interval_ms.saturating_add(seen.interval_ms / 4) {
                        pass.note_slow(lanes, (from + at) as u32, seen.interval_ms);
                    }
                    output.put_server(from, at, (seen.newest_ms, seen.interval_ms, seen.coverage()), seen.quality);
                }
            }
            output.end_block(in_block);
        }
        let (counters, expired, slow) = (pass.counters, pass.expired, pass.slow);
        self.counters.add(&counters);
        self.free_expired(&expired);
        self.last_tick_ms = Some(self.last_tick_ms.map_or(tick_ms, |last| last.max(tick_ms)));
        let mut batch = output.finish(tick, self.schema.clone())?;
        batch.slow = slow;
        Ok(batch)
    }

    /// Gives back a batch, so that the next tick writes into memory that it has touched before. What somebody still holds
    /// of it stays theirs.
    pub fn recycle(&mut self, batch: WindowBatch) {
        self.spare.put(batch, self.plans.len());
    }

    /// Gives back columns that were taken out of a batch.
    pub fn recycle_input(&mut self, value: ScalarBuffer<f64>, columns: InputColumns) {
        self.spare.put_values(value, self.plans.len());
        self.spare.put_input(columns, self.plans.len());
    }

    fn prepare(&mut self, tick_ms: i64) {
        self.retry_refused();
        if self.series.len() * 2 > self.limits.series_max {
            // Closed resources leave series behind; they are looked for only where they may stand in the way.
            self.series.forget_unused();
        }
        match self.last_tick_ms {
            None => self.judge_first_samples(tick_ms),
            Some(last) if tick_ms.saturating_sub(last) >= RANGE_MS => self.forget_all(),
            Some(_) => {}
        }
        for slot in std::mem::take(&mut self.dirty) {
            if let Some(server) = self.servers.get_mut(slot as usize) {
                self.lanes.rebuild(server, &self.resources, &self.series);
            }
        }
        self.lanes.compact(&mut self.servers);
    }

    /// Before the first tick nobody knew what time it is. A sender whose samples do not all lie near it has a broken
    /// clock: its samples go, all of them, so that it does not matter which came first.
    fn judge_first_samples(&mut self, tick_ms: i64) {
        for at in 0..self.resources.len() {
            let Some(state) = &self.resources[at] else { continue };
            let near =
                state.low_ms > tick_ms.saturating_sub(RANGE_MS) && state.high_ms < tick_ms.saturating_add(RANGE_MS);
            if state.high_ms == i64::MIN || near {
                continue;
            }
            for entry in state.entries.iter().filter(|entry| entry.has_row()) {
                self.counters.out_of_range += forget_row(entry.row, &mut self.rows, &mut self.histograms);
            }
        }
    }

    /// The time has jumped by more than wrapping times can tell: no sample held is of any window.
    fn forget_all(&mut self) {
        for state in self.resources.iter().flatten() {
            for entry in state.entries.iter().filter(|entry| entry.has_row()) {
                forget_row(entry.row, &mut self.rows, &mut self.histograms);
            }
        }
    }

    fn free_expired(&mut self, expired: &[(u32, u32)]) {
        if expired.is_empty() {
            return;
        }
        let rows: FxHashSet<u32> = expired.iter().map(|(_, row)| *row).collect();
        let mut resources: Vec<u32> = expired.iter().map(|(resource, _)| *resource).collect();
        resources.sort_unstable();
        resources.dedup();
        for id in resources {
            let Some(state) = self.resources[id as usize].as_mut() else { continue };
            let slot = state.slot;
            let before = state.entries.len();
            for gone in state.entries.iter().filter(|entry| rows.contains(&entry.row)) {
                self.series.release(gone.series);
            }
            state.entries.retain(|entry| !rows.contains(&entry.row));
            let gone = (before - state.entries.len()) as u32;
            state.rows = state.rows.saturating_sub(gone);
            state.reindex();
            if let Some(server) = self.servers.get_mut(slot as usize) {
                server.rows = server.rows.saturating_sub(gone);
            }
            self.mark_dirty(slot);
        }
        for row in &rows {
            self.free_row(*row);
        }
        self.counters.rows_expired += rows.len() as u64;
        self.series.forget_unused();
    }
}

/// Empties a row's set; answers how many samples it had.
fn forget_row(row: u32, rows: &mut Chunked<Row>, histograms: &mut [Option<HistogramRow>]) -> u64 {
    if row & HISTOGRAM == 0 {
        return u64::from(std::mem::take(&mut rows[row as usize].len));
    }
    match histograms.get_mut((row & !HISTOGRAM) as usize) {
        Some(Some(row)) => row.snapshots.drain(..).count() as u64,
        _ => 0,
    }
}

/// Whether a row is still waited for: its sender has not ended it and has not missed so many reports that it is silent.
/// Its windows are shorter than that, and the interval is what the misses are counted by.
fn is_awaited(tick_ms: i64, newest_ms: Option<i64>, ended: bool, interval_ms: u32) -> bool {
    let patience_ms = i64::from(interval_ms) * REPORTS_MISSED_MAX;
    !ended && newest_ms.is_some_and(|newest_ms| tick_ms - newest_ms <= patience_ms)
}

/// What a tick finds out about a server.
struct ServerSeen {
    newest_ms: i64,
    interval_ms: u32,
    slowest_ms: u32,
    observed: f64,
    expected: f64,
    quality: Quality,
}

impl ServerSeen {
    /// Adds a row that reports at this interval.
    #[inline(always)]
    fn add(&mut self, interval_ms: u32, expected: f64, observed: usize) {
        self.interval_ms = self.interval_ms.min(interval_ms);
        self.slowest_ms = self.slowest_ms.max(interval_ms);
        self.expected += expected;
        self.observed += (observed as f64).min(expected);
    }

    fn coverage(&self) -> f32 {
        if self.expected > 0.0 { (self.observed / self.expected) as f32 } else { f32::NAN }
    }
}

/// What a tick found out about a row, whatever its kind.
struct RowSeen {
    resource: u32,
    newest_ms: Option<i64>,
    interval_ms: u32,
    /// It has samples in its state window, or the next one is still waited for.
    alive: bool,
    observed: usize,
    control_ms: u32,
    future: bool,
    expired: bool,
    flags: u8,
}

struct Pass<'a> {
    times: TickTimes,
    future_max_ms: Option<i64>,
    plans: &'a [InputPlan],
    scales: &'a [f64],
    series: &'a SeriesTable,
    resources: &'a mut [Option<ResourceState>],
    rows: &'a mut Chunked<Row>,
    samples: &'a mut Samples,
    histograms: &'a mut [Option<HistogramRow>],
    counters: WindowCounters,
    expired: Vec<(u32, u32)>,
    /// The resource whose watermark was looked at last, and the time it is at least at.
    marked: (u32, i64),
    last_times: LastTimes,
    scratch: Scratch,
    fold: InputFold,
    /// Inputs of the present server that were folded of several rows, and their intervals.
    folded: Vec<(u16, u32)>,
    slow: Vec<SlowInput>,
}

impl Pass<'_> {
    fn server(&mut self, lanes: &[LaneEntry], output: &mut Output, slot: usize) -> ServerSeen {
        let mut seen = ServerSeen {
            newest_ms: i64::MIN,
            interval_ms: u32::MAX,
            slowest_ms: 0,
            observed: 0.0,
            expected: 0.0,
            quality: Quality::default(),
        };
        self.folded.clear();
        let mut at = 0;
        while let Some(first) = lanes.get(at) {
            let input = first.input;
            let plan = &self.plans[usize::from(input)];
            let alone = lanes.get(at + 1).is_none_or(|next| next.input != input);
            if alone && first.row & HISTOGRAM == 0 && plan.fold != Fold::Count {
                // One row is what almost every host metric has: no fold changes its value.
                let (values, newest_ms) = self.numeric_row(first, plan, &mut seen);
                let source = if values.control.is_nan() && values.state.is_nan() { NO_SOURCE } else { first.source };
                let samples = if values.control.is_nan() { 0 } else { values.samples };
                let values = InputValues { control: values.control, state: values.state, samples, source, newest_ms };
                output.put_input(usize::from(input), slot, &values, self.age_seconds(newest_ms));
                at += 1;
                continue;
            }
            while let Some(group) = lanes.get(at).filter(|lane| lane.input == input) {
                let mut newest_ms = i64::MIN;
                while let Some(lane) = lanes.get(at) {
                    if (lane.input, lane.source, lane.sender) != (input, group.source, group.sender) {
                        break;
                    }
                    let newest = if lane.row & HISTOGRAM == 0 {
                        let (values, newest_ms) = self.numeric_row(lane, plan, &mut seen);
                        self.fold.add(values.control, values.state, values.samples);
                        self.fold.add_interval(self.rows[lane.row as usize].interval_ms);
                        newest_ms
                    } else {
                        self.histogram_row(lane, plan, &mut seen)
                    };
                    newest_ms = newest_ms.max(newest);
                    at += 1;
                }
                self.fold.end_group(plan, group.source, group.sender, newest_ms);
            }
            self.folded.push((input, self.fold.take_interval_ms()));
            let values = self.fold.finish(plan);
            output.put_input(usize::from(input), slot, &values, self.age_seconds(values.newest_ms));
        }
        seen
    }

    /// Notes which inputs of a server come from slower senders than its fastest.
    #[cold]
    fn note_slow(&mut self, lanes: &[LaneEntry], slot: u32, interval_ms: u32) {
        let mut folded = self.folded.iter().peekable();
        let mut last = None;
        for lane in lanes {
            if last.replace(lane.input) == Some(lane.input) {
                continue;
            }
            let own_ms = match folded.next_if(|(input, _)| *input == lane.input) {
                Some((_, own_ms)) => *own_ms,
                None => self.rows[lane.row as usize].interval_ms,
            };
            if own_ms != u32::MAX && own_ms > interval_ms.saturating_add(interval_ms / 4) {
                let interval_seconds = own_ms as f32 / 1_000.0;
                self.slow.push(SlowInput { slot, input: lane.input, interval_seconds });
            }
        }
    }

    #[inline]
    fn age_seconds(&self, newest_ms: i64) -> f32 {
        if newest_ms > i64::MIN { (self.times.tick_ms - newest_ms) as f32 / 1_000.0 } else { f32::NAN }
    }

    /// The scaled values of a numeric row, and the time of its newest sample (`i64::MIN` = none).
    #[inline(always)]
    fn numeric_row(&mut self, lane: &LaneEntry, plan: &InputPlan, seen: &mut ServerSeen) -> (Values, i64) {
        let row = &self.rows[lane.row as usize];
        let view = self.samples.view(row);
        let Some(plain) =
            plain::evaluate(row, &view, plan.function, &self.times, self.future_max_ms, &mut self.last_times)
        else {
            return self.other_numeric_row(lane, plan, seen);
        };
        let newest_ms = self.times.tick_ms - i64::from(plain.times.age_ms);
        let samples = plain.times.samples();
        if lane.last_of_row {
            // Of a plain row there is nothing to note but that it lives.
            let (resource, interval_ms) = (row.resource, row.interval_ms);
            self.mark(resource, newest_ms, seen);
            seen.add(interval_ms, plain.times.expected, samples as usize);
        }
        let scale = self.scales[usize::from(lane.scale)];
        let (control, state) = (plain.control * scale, plain.state * scale);
        (Values { control, state, samples, ..Values::NONE }, newest_ms)
    }

    /// The general way, for the rows that are not plain.
    #[inline(never)]
    fn other_numeric_row(&mut self, lane: &LaneEntry, plan: &InputPlan, seen: &mut ServerSeen) -> (Values, i64) {
        let row = &self.rows[lane.row as usize];
        let view = self.samples.view(row);
        let extent = numeric::extent(row, &view, &self.times);
        let ended = has_ended(row, &view, extent.end);
        let newest_ms = if extent.end == 0 {
            None
        } else {
            let age = (self.times.tick_ms as u32).wrapping_sub(view.time(extent.end - 1));
            Some(self.times.tick_ms - i64::from(age))
        };
        let young = extent.state == 0 || row.is_wide();
        let resource = row.resource;
        let horizon_ms = if young { self.horizon(resource) } else { i64::MAX };
        // The horizon may have looked at other rows: borrow again.
        let row = &self.rows[lane.row as usize];
        let view = self.samples.view(row);
        let mut values =
            numeric::evaluate(row, &view, &extent, plan.function, &self.times, horizon_ms, &mut self.scratch);
        let scale = self.scales[usize::from(lane.scale)];
        if !matches!(plan.function, WindowFunction::Count) {
            values.control *= scale;
            values.state *= scale;
        }
        if lane.last_of_row {
            self.finish_numeric_row(lane.row, &extent, ended, newest_ms, &values, seen);
        }
        (values, newest_ms.filter(|_| !ended).unwrap_or(i64::MIN))
    }

    /// Since when a sender has been watched. A row that was freed for its silence and comes back must not count what it
    /// counted before, so nothing older than that silence is within the horizon.
    fn horizon(&mut self, resource: u32) -> i64 {
        let tick_ms = self.times.tick_ms;
        let Some(Some(state)) = self.resources.get_mut(resource as usize) else { return i64::MAX };
        if state.first_ms == i64::MAX {
            let oldest = state.entries.iter().filter(|entry| entry.has_row()).filter_map(|entry| {
                if entry.row & HISTOGRAM != 0 {
                    let row = self.histograms.get((entry.row & !HISTOGRAM) as usize)?.as_ref()?;
                    row.snapshots.first().map(|snapshot| snapshot.time_ms)
                } else {
                    let row = &self.rows[entry.row as usize];
                    let tick = tick_ms as u32;
                    (row.len > 0)
                        .then(|| tick_ms + i64::from(crate::samples::since(self.samples.view(row).time(0), tick)))
                }
            });
            state.first_ms = oldest.filter(|oldest| *oldest < tick_ms).min().unwrap_or(i64::MAX);
        }
        state.first_ms.max(tick_ms - ROW_SILENT_MS)
    }

    /// What is done once per row and tick. Rows are written to only where something changed: a tick that dirtied every
    /// cache line of the cell would cost as much again in memory traffic.
    #[inline]
    fn finish_numeric_row(
        &mut self,
        id: u32,
        extent: &Extent,
        ended: bool,
        newest_ms: Option<i64>,
        values: &Values,
        seen: &mut ServerSeen,
    ) {
        let tick = self.times.tick_ms as u32;
        let row = &mut self.rows[id as usize];
        let len = usize::from(row.len);
        let mut future = false;
        if len > extent.end
            && let Some(max_ms) = self.future_max_ms
        {
            let view = self.samples.view(row);
            let kept =
                (extent.end..len).rev().find(|at| i64::from(crate::samples::since(view.time(*at), tick)) <= max_ms);
            let kept = kept.map_or(extent.end, |at| at + 1);
            future = kept < len;
            self.counters.future += (len - kept) as u64;
            self.samples.forget_newest(row, kept);
        }
        let view = self.samples.view(row);
        let fresh = interval_of(&view, extent.end);
        let mut extent = *extent;
        if fresh != 0 && fresh.abs_diff(row.interval_ms) > row.interval_ms / 16 {
            if fresh > row.interval_ms && row.interval_ms != 0 && !row.is_wide() && self.times.last_tick_ms > i64::MIN {
                // Windows grow from the next tick on. What the shorter ones could read no more may be gone already, where
                // the store was written and read back since: so it goes everywhere.
                let span_ms = self.times.state_ms.max(stretch_ms(row.interval_ms));
                let last = self.times.last_tick_ms as u32;
                let stale = self.samples.stale(row, Cut { from: last.wrapping_sub(span_ms), tick: last });
                self.samples.forget_oldest(row, stale);
                extent.forget(stale);
            }
            row.interval_ms = fresh;
        }
        let extent = &extent;
        let view = self.samples.view(row);
        let alive = extent.state < extent.end && !ended;
        if row.kind == SeriesKind::Gauge && alive {
            let first = needed_from(extent);
            let newest = view.value(extent.end - 1);
            let moves = (first..extent.end - 1).rev().any(|at| view.value(at) != newest);
            if moves {
                if row.flags & (flag::MOVED | flag::FLAT) != flag::MOVED {
                    row.flags = (row.flags | flag::MOVED) & !flag::FLAT;
                }
            } else if row.flags & flag::FLAT == 0 {
                row.flags |= flag::FLAT;
                row.flat_since = view.time(first);
            } else if row.flags & flag::MOVED != 0 {
                let run_ms = view.time(extent.end - 1).wrapping_sub(row.flat_since);
                if run_ms > RANGE_MS as u32 {
                    // Long enough in any case; keeps the wrapping difference from coming round.
                    row.flat_since = view.time(extent.end - 1).wrapping_sub(RANGE_MS as u32);
                }
                let samples = u64::from(run_ms) / u64::from(row.interval_ms.max(1)) + 1;
                seen.quality.flat = seen.quality.flat.saturating_add(u16::from(samples >= u64::from(FLAT_SAMPLES)));
            }
        }
        let flags = row.flags;
        if flags & flag::NOT_A_NUMBER != 0 {
            row.flags &= !flag::NOT_A_NUMBER;
        }
        if row.len == 0 && (flags & (flag::NOT_A_NUMBER | flag::NEW) != 0) {
            row.flat_since = tick;
        }
        if flags & flag::NEW != 0 {
            row.flags &= !flag::NEW;
        }
        let silent_ms = match newest_ms {
            _ if usize::from(row.len) > extent.end => 0,
            Some(newest_ms) => self.times.tick_ms - newest_ms,
            None => i64::from(tick.wrapping_sub(row.flat_since)),
        };
        let patience_ms = i64::from(extent.state_ms) + if ended { 0 } else { ROW_SILENT_MS };
        if row.is_wide() {
            forget_wide(row, extent, &self.times, self.samples, &mut self.scratch);
        }
        let found = RowSeen {
            resource: row.resource,
            newest_ms,
            interval_ms: row.interval_ms,
            alive: alive || is_awaited(self.times.tick_ms, newest_ms, ended, row.interval_ms),
            observed: extent.end - extent.control,
            control_ms: extent.control_ms,
            future,
            expired: silent_ms > patience_ms,
            flags,
        };
        self.finish_row(id, &found, values.events, seen);
    }

    /// Adds a histogram row to the present group; answers the time of its newest snapshot.
    fn histogram_row(&mut self, lane: &LaneEntry, plan: &InputPlan, seen: &mut ServerSeen) -> i64 {
        let scale = self.scales[usize::from(lane.scale)];
        let at = (lane.row & !HISTOGRAM) as usize;
        let Some(resource) = self.histograms[at].as_ref().map(|row| row.resource) else { return i64::MIN };
        let horizon_ms = self.horizon(resource);
        let Some(row) = self.histograms[at].as_ref() else { return i64::MIN };
        let Some(series) = self.series.get(row.series) else { return i64::MIN };
        let end = row.end(self.times.tick_ms);
        let newest = row.snapshots[..end].last();
        let ended = newest.is_some_and(|snapshot| snapshot.data.is_none());
        let newest_ms = newest.map(|snapshot| snapshot.time_ms);
        let sum = |window_ms, samples: &mut Scratch, into: &mut _| {
            row.add_window(
                &series.series,
                scale,
                window_ms,
                &self.times,
                horizon_ms,
                &mut samples.samples,
                &mut samples.sweep,
                into,
            )
        };
        let (control, state) = if merges(plan) {
            let (control, state) = self.fold.buckets();
            (sum(self.times.control_ms, &mut self.scratch, control), sum(self.times.state_ms, &mut self.scratch, state))
        } else {
            let mut of = |window_ms| {
                let mut own = headroom_model::histogram::ExpHistogram::default();
                let mut result = sum(window_ms, &mut self.scratch, &mut own);
                if let WindowFunction::Quantile(q) = plan.function {
                    // The value of the row; the sum is not read for quantiles.
                    result.sum = own.quantile(q).unwrap_or(f64::NAN);
                }
                result
            };
            (of(self.times.control_ms), of(self.times.state_ms))
        };
        let (control_value, state_value) = if merges(plan) {
            (f64::NAN, f64::NAN)
        } else {
            (histogram_value(plan.function, &control), histogram_value(plan.function, &state))
        };
        self.fold.add(control_value, state_value, control.samples);
        self.fold.add_interval(self.histograms[at].as_ref().map_or(0, |row| row.interval_ms));
        if lane.last_of_row {
            self.finish_histogram_row(lane.row, end, ended, newest_ms, &control, seen);
        }
        newest_ms.filter(|_| !ended).unwrap_or(i64::MIN)
    }

    fn finish_histogram_row(
        &mut self,
        id: u32,
        end: usize,
        ended: bool,
        newest_ms: Option<i64>,
        control: &HistogramSum,
        seen: &mut ServerSeen,
    ) {
        let Some(row) = self.histograms[(id & !HISTOGRAM) as usize].as_mut() else { return };
        let before = row.snapshots.len();
        if let Some(max_ms) = self.future_max_ms {
            row.snapshots.truncate(row.end(self.times.tick_ms.saturating_add(max_ms).saturating_add(1)).max(end));
        }
        let future = row.snapshots.len() < before;
        self.counters.future += (before - row.snapshots.len()) as u64;
        let interval_ms = row.interval_at(end);
        let fresh = row.interval_of(end);
        if fresh != 0 && fresh.abs_diff(row.interval_ms) > row.interval_ms / 16 {
            row.interval_ms = fresh;
        }
        let flags = row.flags;
        row.flags &= !(flag::NOT_A_NUMBER | flag::NEW);
        if flags & flag::NEW != 0 {
            row.seen_ms = self.times.tick_ms;
        }
        let state_ms = self.times.state_ms.max(stretch_ms(interval_ms));
        let state = row.snapshots[..end].partition_point(|s| s.time_ms < self.times.tick_ms - i64::from(state_ms));
        let silent_ms =
            if row.snapshots.len() > end { 0 } else { self.times.tick_ms - newest_ms.unwrap_or(row.seen_ms) };
        let patience_ms = i64::from(state_ms) + if ended { 0 } else { ROW_SILENT_MS };
        let extent = Extent { end, control: end, state, control_ms: 0, state_ms, interval_ms };
        let needed = needed_from(&extent);
        if row.kind.is_delta() && needed > 0 {
            let gone: Vec<sweep::Sample> = row.snapshots[..needed]
                .iter()
                .map(|s| sweep::Sample {
                    time_ms: s.time_ms,
                    start_ms: if s.start_ms == 0 { s.time_ms } else { s.start_ms },
                    value: if s.data.is_some() { 0.0 } else { f64::NAN },
                })
                .collect();
            row.floor_ms = sweep::deltas(&gone, i64::MAX, i64::MAX, row.floor_ms, i64::from(interval_ms), |_| {}).1;
        }
        row.snapshots.drain(..needed);
        row.snapshots.shrink_to(row.snapshots.len() + 4);
        let found = RowSeen {
            resource: row.resource,
            newest_ms,
            interval_ms: row.interval_ms,
            alive: (state < end && !ended) || is_awaited(self.times.tick_ms, newest_ms, ended, row.interval_ms),
            observed: control.samples as usize,
            control_ms: self.times.control_ms.max(stretch_ms(interval_ms)),
            future,
            expired: silent_ms > patience_ms,
            flags,
        };
        self.finish_row(id, &found, control.events, seen);
    }

    /// Notes the time of a row's newest sample.
    #[inline(always)]
    fn mark(&mut self, resource: u32, newest_ms: i64, seen: &mut ServerSeen) {
        seen.newest_ms = seen.newest_ms.max(newest_ms);
        // The rows of a resource mostly have the same newest time: its state is looked at once.
        let (marked, marked_ms) = self.marked;
        if marked != resource || marked_ms < newest_ms {
            self.marked = (resource, newest_ms);
            if let Some(Some(state)) = self.resources.get_mut(resource as usize)
                && state.watermark_ms < newest_ms
            {
                state.watermark_ms = newest_ms;
            }
        }
    }

    #[inline(always)]
    fn finish_row(&mut self, id: u32, found: &RowSeen, events: sweep::Events, seen: &mut ServerSeen) {
        if found.expired {
            self.expired.push((found.resource, id));
        }
        if let Some(newest_ms) = found.newest_ms {
            self.mark(found.resource, newest_ms, seen);
        }
        if found.alive && found.interval_ms != 0 {
            seen.add(found.interval_ms, expected_samples(found.control_ms, found.interval_ms), found.observed);
        }
        let quality = &mut seen.quality;
        let add = |sum: &mut u16, more: u32| *sum = sum.saturating_add(u16::try_from(more).unwrap_or(u16::MAX));
        add(&mut quality.not_a_number, u32::from(found.flags & flag::NOT_A_NUMBER != 0));
        add(&mut quality.future, u32::from(found.future));
        if events != sweep::Events::default() {
            add(&mut quality.resets, events.resets);
            add(&mut quality.gaps, events.gaps);
            add(&mut quality.overlaps, events.overlaps);
            self.counters.resets += u64::from(events.new_resets);
            self.counters.gaps += u64::from(events.new_gaps);
            self.counters.overlaps += u64::from(events.new_overlaps);
            self.counters.unknown_starts += u64::from(events.new_unknown_starts);
        }
    }
}

/// Wide rows are forgotten at the tick: deltas because what was kept of the forgotten ones decides what is kept of the
/// rest, counters because they become narrow again once one start is left.
#[cold]
fn forget_wide(row: &mut Row, extent: &Extent, times: &TickTimes, samples: &mut Samples, scratch: &mut Scratch) {
    let needed = needed_from(extent);
    if needed > 0 {
        if row.kind.is_delta() {
            let view = samples.view(row);
            numeric::gather_range(&view, 0..needed, times, &mut scratch.samples);
            let step_ms = i64::from(extent.interval_ms);
            row.start_ms = sweep::deltas(&scratch.samples, i64::MAX, i64::MAX, row.start_ms, step_ms, |_| {}).1;
        }
        samples.forget_oldest(row, needed);
    }
    samples.narrow_if_uniform(row);
}

fn histogram_value(function: WindowFunction, sum: &HistogramSum) -> f64 {
    match function {
        WindowFunction::Quantile(_) if sum.any => sum.sum,
        WindowFunction::Rate if sum.any && sum.covered_ms > 0 => sum.count * 1_000.0 / sum.covered_ms as f64,
        WindowFunction::Increase | WindowFunction::Count if sum.any => sum.count,
        WindowFunction::Mean if sum.any && sum.count > 0.0 => sum.sum / sum.count,
        _ => f64::NAN,
    }
}
