//! All cells of a partition, behind one set of inputs.
//!
//! Call the `handle_*` methods in the order of the log. Only [`Partition::handle_tick`] returns something to publish.
//! Cells know nothing of each other; they share the policy, and the ticks.
//!
//! **After an outage** the log holds samples that no tick was among. To read them first would let decisions wait for the
//! whole backlog, in windows that the present has long left. So an owner may pass over them ([`Partition::pass_over`])
//! and take them up beside the present, the newest first: they are what the windows still miss. An open pane is a set,
//! so the order makes no difference to what is in it. Which were passed over is state, and part of a checkpoint.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use headroom_model::codec::{DecodeError, Decoder, Encoder};
use headroom_model::policy::Mode;
use headroom_model::time::EARLIEST_NS;
use headroom_model::{CellSnapshot, SampleBatch, Timestamp};
use headroom_window::{InputsReport, SENDERS_REPORT_MAX, SeenMetric};

use crate::cell::{Arrival, Cell, CellReport, EngineConfig};
use crate::compiled::CompiledPolicy;
use crate::registry::RegistryCounters;

/// The version written in front of every checkpoint.
const CHECKPOINT_VERSION: u8 = 2;

/// What an engine has counted since it was made, for metrics: beside the content, repeats and all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Points of batches that came before any policy, or for cells beyond the bound.
    pub points_refused: u64,
    /// Cells refused because there are as many as there may be.
    pub cells_refused: u64,
    /// Ticks that were not later than the last one, and so ignored.
    pub ticks_ignored: u64,
    /// Operator records for a server, class or cell that is not there.
    pub records_ignored: u64,
}

/// Positions of the log that were passed over.
#[derive(Clone, Debug)]
struct PassedOver {
    positions: Range<u64>,
    /// Epoch of the last tick before them.
    since: i64,
}

/// The engine of one partition of the sample log.
#[derive(Debug)]
pub struct Partition {
    config: EngineConfig,
    /// In force in all cells.
    policy: Option<Arc<CompiledPolicy>>,
    /// Comes into force with the next tick.
    next_policy: Option<Arc<CompiledPolicy>>,
    /// Mode set by an operator for all cells, and for single ones.
    mode_everywhere: Option<Mode>,
    modes: BTreeMap<Arc<str>, Option<Mode>>,
    cells: BTreeMap<Arc<str>, Cell>,
    last_tick: Option<Timestamp>,
    first_sample: Option<Timestamp>,
    /// The two servers with the newest samples: their names and times.
    newest: [Option<(Arc<str>, i64)>; 2],
    /// What was passed over, the older first.
    backlog: Vec<PassedOver>,
    counters: Counters,
    /// What the registries of cells that were let go have counted last.
    last_counted: Vec<(Arc<str>, RegistryCounters)>,
}

impl Partition {
    /// An engine that knows nothing yet; it takes samples once it has a policy.
    pub fn new(config: EngineConfig) -> Self {
        Self {
            config,
            policy: None,
            next_policy: None,
            mode_everywhere: None,
            modes: BTreeMap::new(),
            cells: BTreeMap::new(),
            last_tick: None,
            first_sample: None,
            newest: [None, None],
            backlog: Vec::new(),
            counters: Counters::default(),
            last_counted: Vec::new(),
        }
    }

    /// Takes samples of any cells of the partition.
    pub fn handle_samples(&mut self, batch: &SampleBatch) {
        self.take_samples(batch, Arrival::InTime);
        if self.policy.is_some() {
            self.note_times(batch);
        }
    }

    /// Takes samples of a source that is behind: they come in no order, and none of them is late.
    pub fn handle_overdue(&mut self, batch: &SampleBatch) {
        self.take_samples(batch, Arrival::Overdue);
        if self.policy.is_some() {
            self.note_times(batch);
        }
    }

    /// Takes samples out of what was passed over.
    pub fn handle_backlog(&mut self, batch: &SampleBatch) {
        self.take_samples(batch, Arrival::PassedOver { since: self.passed_over_since() });
    }

    /// An operator removed a server, as what was passed over says. Where the server has reported in the present, that was
    /// later, and it stays as the new one that it then is.
    pub fn handle_backlog_remove(&mut self, cell: &str, server: &str) {
        let since = self.passed_over_since();
        let removed = self
            .cells
            .get_mut(cell)
            .is_some_and(|cell| !cell.was_heard_after(server, since) && cell.handle_remove(server));
        self.counters.records_ignored += u64::from(!removed);
    }

    fn passed_over_since(&self) -> i64 {
        self.backlog.last().map_or(i64::MIN, |passed| passed.since)
    }

    /// Notes that the positions in `range` of the log are passed over.
    pub fn pass_over(&mut self, positions: Range<u64>) {
        if !positions.is_empty() {
            self.backlog.push(PassedOver { positions, since: self.last_tick.unwrap_or_default().seconds() });
        }
    }

    /// What was passed over and is to be taken up next: the newest.
    pub fn backlog(&self) -> Option<&Range<u64>> {
        self.backlog.last().map(|passed| &passed.positions)
    }

    /// The oldest position that was passed over: the log must reach back to it.
    pub fn backlog_start(&self) -> Option<u64> {
        self.backlog.iter().map(|passed| passed.positions.start).min()
    }

    /// Positions that were passed over and not taken up yet.
    pub fn backlog_len(&self) -> u64 {
        self.backlog.iter().map(|passed| passed.positions.end - passed.positions.start).sum()
    }

    /// Whether the positions in `taken` are the newest that were passed over: only then may they be taken up.
    pub fn is_next_backlog(&self, taken: &Range<u64>) -> bool {
        self.backlog().is_some_and(|range| taken.end == range.end && taken.start >= range.start)
    }

    /// Notes that the positions in `taken` were taken up.
    pub fn backlog_taken(&mut self, taken: &Range<u64>) {
        if !self.is_next_backlog(taken) {
            return;
        }
        if let Some(passed) = self.backlog.last_mut() {
            passed.positions.end = taken.start;
            if passed.positions.is_empty() {
                self.backlog.pop();
            }
        }
    }

    /// `backlog_since`: the samples were passed over, and this was the last tick before them.
    fn take_samples(&mut self, batch: &SampleBatch, arrival: Arrival) {
        let Some(policy) = self.policy.clone() else {
            self.counters.points_refused += batch.len() as u64;
            return;
        };
        let mut refused: Vec<&str> = Vec::new();
        let mut present: Vec<Arc<str>> = Vec::new();
        for resource in &batch.resources {
            if !present.contains(&resource.cell) {
                present.push(resource.cell.clone());
            }
        }
        for cell in &present {
            if !self.cells.contains_key(cell) {
                if self.cells.len() >= self.config.cells_max {
                    self.counters.cells_refused += 1;
                    refused.push(cell);
                    continue;
                }
                self.cells.insert(cell.clone(), Cell::new(cell.clone(), &self.config, policy.clone()));
            }
            if let Some(engine) = self.cells.get_mut(cell) {
                engine.handle_samples(batch, arrival);
            }
        }
        if !refused.is_empty() {
            let resources = &batch.resources;
            let rows = batch.points.resource.iter().chain(batch.histograms.iter().map(|point| &point.resource));
            self.counters.points_refused +=
                rows.filter(|at| refused.contains(&&*resources[**at as usize].cell)).count() as u64;
        }
    }

    /// Keeps what event time needs to know: where time begins, and how far two servers have come.
    fn note_times(&mut self, batch: &SampleBatch) {
        if self.config.future_max_seconds.is_some() && self.last_tick.is_some() {
            return;
        }
        let points = batch.points.resource.iter().copied().zip(batch.points.time_ns.iter().copied());
        let histograms = batch.histograms.iter().map(|point| (point.resource, point.time_ns));
        let mut newest: Vec<i64> = vec![i64::MIN; batch.resources.len()];
        let mut first = i64::MAX;
        for (resource, time_ns) in points.chain(histograms) {
            let held = &mut newest[resource as usize];
            *held = (*held).max(time_ns);
            // A clock that was never set counts from 1970; time does not begin there.
            if time_ns >= EARLIEST_NS {
                first = first.min(time_ns);
            }
        }
        if first < i64::MAX && self.last_tick.is_none() {
            self.first_sample = Some(self.first_sample.map_or(Timestamp(first), |held| held.min(Timestamp(first))));
        }
        for (resource, time_ns) in batch.resources.iter().zip(newest) {
            let server = &resource.server;
            let [best, second] = &mut self.newest;
            match best {
                Some((name, held)) if name == server => *held = (*held).max(time_ns),
                Some((_, held)) if *held >= time_ns => match second {
                    Some((_, held)) if *held >= time_ns => {}
                    second => *second = Some((server.clone(), time_ns)),
                },
                // The newcomer is ahead; whoever was becomes second, also where the newcomer was second before.
                best => {
                    *second = best.take();
                    *best = Some((server.clone(), time_ns));
                }
            }
        }
    }

    /// Closes the panes of every cell and returns the snapshots to publish; `None` where the tick is not later than the
    /// last one and so changes nothing. A cell that has no server left is let go: its last snapshot is empty, which tells
    /// the same to all who read it, and should it return, it begins as a new one. The mode that an operator has set for it
    /// stays; a word about a cell is not about who is in it.
    pub fn handle_tick(&mut self, tick: Timestamp) -> Option<Vec<Arc<CellSnapshot>>> {
        if self.last_tick.is_some_and(|last| tick <= last) {
            self.counters.ticks_ignored += 1;
            return None;
        }
        self.last_tick = Some(tick);
        self.first_sample = None;
        if let Some(policy) = self.next_policy.take() {
            for cell in self.cells.values_mut() {
                cell.set_policy(&policy);
            }
            self.policy = Some(policy);
        }
        let (everywhere, modes) = (self.mode_everywhere, &self.modes);
        let snapshots = self.cells.iter_mut().filter_map(|(name, cell)| {
            let mode = modes.get(name).copied().unwrap_or(everywhere);
            cell.handle_tick(tick, mode)
        });
        let snapshots: Vec<Arc<CellSnapshot>> = snapshots.collect();
        for snapshot in snapshots.iter().filter(|snapshot| snapshot.is_empty()) {
            if let Some(mut cell) = self.cells.remove(&snapshot.cell) {
                self.last_counted.push((snapshot.cell.clone(), cell.take_registry_counters()));
            }
        }
        Some(snapshots)
    }

    /// A policy comes into force with the next tick; the very first one at once, for there are no samples before it.
    pub fn handle_policy(&mut self, policy: Arc<CompiledPolicy>) {
        if self.policy.is_none() {
            self.policy = Some(policy);
        } else {
            self.next_policy = Some(policy);
        }
    }

    /// An operator sets the mode of a cell or of all, or returns it to the policy's. The word about all cells replaces
    /// earlier words about single ones: whoever throws the switch for everything means everything.
    pub fn handle_mode(&mut self, cell: Option<&Arc<str>>, mode: Option<Mode>) {
        match cell {
            Some(cell) => {
                if self.modes.len() < self.config.cells_max || self.modes.contains_key(cell) {
                    self.modes.insert(cell.clone(), mode);
                } else {
                    self.counters.records_ignored += 1;
                }
            }
            None => {
                self.modes.clear();
                self.mode_everywhere = mode;
            }
        }
    }

    /// An operator removes a server.
    pub fn handle_remove(&mut self, cell: &str, server: &str) {
        let removed = self.cells.get_mut(cell).is_some_and(|cell| cell.handle_remove(server));
        self.counters.records_ignored += u64::from(!removed);
    }

    /// A consumer says which epoch it acts on and how much of a class is in use.
    pub fn handle_ack(&mut self, cell: &str, server: &str, class: &str, epoch: i64, in_use: f64) {
        let tick = self.last_tick.unwrap_or_default();
        let noted = self.cells.get_mut(cell).is_some_and(|cell| cell.handle_ack(server, class, epoch, in_use, tick));
        self.counters.records_ignored += u64::from(!noted);
    }

    /// The last tick.
    pub fn last_tick(&self) -> Option<Timestamp> {
        self.last_tick
    }

    /// The earliest sample, until the first tick.
    pub fn first_sample(&self) -> Option<Timestamp> {
        self.first_sample
    }

    /// The newest time that two servers have reached.
    pub fn reached_by_two(&self) -> Option<Timestamp> {
        self.newest[1].as_ref().map(|(_, time_ns)| Timestamp(*time_ns))
    }

    /// Hash of the newest policy.
    pub fn policy_hash(&self) -> Option<&Arc<str>> {
        self.next_policy.as_ref().or(self.policy.as_ref()).map(|policy| &policy.policy.hash)
    }

    /// Whether a cell is here, be it before its first tick.
    pub fn has_cell(&self, cell: &str) -> bool {
        self.cells.contains_key(cell)
    }

    /// Text of the newest policy.
    pub fn policy_text(&self) -> Option<&Arc<str>> {
        self.next_policy.as_ref().or(self.policy.as_ref()).map(|policy| &policy.policy.text)
    }

    /// Epoch of every cell that has published.
    pub fn epochs(&self) -> BTreeMap<Arc<str>, i64> {
        self.cells.iter().filter_map(|(name, cell)| Some((name.clone(), cell.epoch()?))).collect()
    }

    /// Cells that have lately refused servers, because they have as many as they may.
    pub fn full_cells(&self) -> Vec<Arc<str>> {
        self.cells.iter().filter(|(_, cell)| cell.is_full()).map(|(name, _)| name.clone()).collect()
    }

    /// Metrics seen, over all cells.
    pub fn inputs(&self) -> InputsReport {
        let mut merged: BTreeMap<_, SeenMetric> = BTreeMap::new();
        let mut left_off = 0;
        for report in self.cells.values().map(Cell::inputs) {
            left_off += report.left_off;
            for metric in report.metrics {
                match merged.entry((metric.metric.clone(), metric.unit.clone(), metric.kind)) {
                    Entry::Vacant(place) => {
                        place.insert(metric);
                    }
                    Entry::Occupied(mut held) => {
                        let held = held.get_mut();
                        held.points += metric.points;
                        held.series = held.series.max(metric.series);
                        held.resources_min += metric.resources_min;
                        held.inputs.extend(metric.inputs);
                        held.inputs.sort();
                        held.inputs.dedup();
                        held.senders.extend(metric.senders);
                        held.senders.sort();
                        held.senders.dedup();
                        held.senders.truncate(SENDERS_REPORT_MAX);
                    }
                }
            }
        }
        InputsReport { metrics: merged.into_values().collect(), left_off }
    }

    /// What each cell holds, for metrics.
    pub fn reports(&self) -> impl Iterator<Item = (&Arc<str>, CellReport)> {
        self.cells.iter().map(|(name, cell)| (name, cell.report()))
    }

    /// What was counted since the engine was made.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What all cells' registries have counted since the last call.
    pub fn take_registry_counters(&mut self) -> Vec<(Arc<str>, RegistryCounters)> {
        let living = self.cells.iter_mut().map(|(name, cell)| (name.clone(), cell.take_registry_counters()));
        self.last_counted.drain(..).chain(living).collect()
    }

    /// Everything as bytes: [`Self::restore`] continues to the bit.
    pub fn checkpoint(&self) -> Vec<u8> {
        self.checkpoint_of(0)
    }

    /// The same where about so many bytes are expected: hundreds of megabytes that grow are copied several times.
    pub fn checkpoint_of(&self, bytes: usize) -> Vec<u8> {
        let mut out = Encoder { bytes: Vec::with_capacity(bytes) };
        out.put_u8(CHECKPOINT_VERSION);
        for policy in [&self.policy, &self.next_policy] {
            out.put_bool(policy.is_some());
            out.put_str(policy.as_ref().map_or("", |policy| &policy.policy.text));
        }
        let put_mode = |out: &mut Encoder, mode: Option<Mode>| {
            out.put_bool(mode.is_some());
            mode.unwrap_or(Mode::Off).encode(out);
        };
        put_mode(&mut out, self.mode_everywhere);
        out.put_u32(self.modes.len() as u32);
        for (cell, mode) in &self.modes {
            out.put_str(cell);
            put_mode(&mut out, *mode);
        }
        for time in [self.last_tick, self.first_sample] {
            out.put_bool(time.is_some());
            out.put_i64(time.unwrap_or_default().0);
        }
        for newest in &self.newest {
            out.put_bool(newest.is_some());
            if let Some((server, time_ns)) = newest {
                out.put_str(server);
                out.put_i64(*time_ns);
            }
        }
        out.put_u32(self.backlog.len() as u32);
        for passed in &self.backlog {
            out.put_u64(passed.positions.start);
            out.put_u64(passed.positions.end);
            out.put_i64(passed.since);
        }
        out.put_u32(self.cells.len() as u32);
        for (name, cell) in &self.cells {
            out.put_str(name);
            cell.encode(&mut out);
        }
        out.bytes
    }

    /// The engine that a checkpoint holds. `compile` turns the policy's text into a policy.
    ///
    /// # Errors
    /// If the bytes are damaged or of a newer version, or the policy is not understood any more.
    pub fn restore(
        config: EngineConfig,
        bytes: &[u8],
        compile: impl Fn(&str) -> Result<CompiledPolicy, String>,
    ) -> Result<Self, String> {
        let said = |error: DecodeError| error.to_string();
        let mut input = Decoder::new(bytes);
        let version = input.get_u8().map_err(said)?;
        if version > CHECKPOINT_VERSION {
            return Err("the checkpoint was written by a newer headroom".to_owned());
        }
        let mut engine = Self::new(config);
        for policy in [&mut engine.policy, &mut engine.next_policy] {
            let is_set = input.get_bool().map_err(said)?;
            let text = input.get_str().map_err(said)?;
            *policy = if is_set { Some(Arc::new(compile(text)?)) } else { None };
        }
        engine.decode(version, &mut input).map_err(said)?;
        input.finish().map_err(said)?;
        Ok(engine)
    }

    fn decode(&mut self, version: u8, input: &mut Decoder<'_>) -> Result<(), DecodeError> {
        fn get_mode(input: &mut Decoder<'_>) -> Result<Option<Mode>, DecodeError> {
            let is_set = input.get_bool()?;
            let mode = Mode::decode(input)?;
            Ok(is_set.then_some(mode))
        }
        fn get_time(input: &mut Decoder<'_>) -> Result<Option<Timestamp>, DecodeError> {
            let is_set = input.get_bool()?;
            let time = input.get_i64()?;
            Ok(is_set.then_some(Timestamp(time)))
        }
        self.mode_everywhere = get_mode(input)?;
        for _ in 0..input.get_length(14, "modes")? {
            let cell = Arc::from(input.get_str()?);
            self.modes.insert(cell, get_mode(input)?);
        }
        self.last_tick = get_time(input)?;
        self.first_sample = get_time(input)?;
        for newest in &mut self.newest {
            if input.get_bool()? {
                *newest = Some((Arc::from(input.get_str()?), input.get_i64()?));
            }
        }
        // The first version knew of no backlog.
        let passed_over = if version > 1 { input.get_length(24, "backlog")? } else { 0 };
        for _ in 0..passed_over {
            self.backlog.push(PassedOver { positions: input.get_u64()?..input.get_u64()?, since: input.get_i64()? });
        }
        for _ in 0..input.get_length(8, "cells")? {
            let name: Arc<str> = Arc::from(input.get_str()?);
            let Some(policy) = self.policy.clone() else { return Err(input.error("policy of the cells")) };
            let cell = Cell::decode(name.clone(), &self.config, policy, input)?;
            self.cells.insert(name, cell);
        }
        Ok(())
    }
}
