//! What a store holds: resources with their lists of series, servers with their lanes, rows.
//!
//! Ownership in one picture:
//!
//! ```text
//! server slot ── resources ── entries (series, row, lane set), in the order in which the sender reports them
//!      │                              │
//!      └── lanes, sorted by ──────────┴─► row ─► block of samples
//!          (input, source, sender, resource, series): the order of every fold
//! ```
//!
//! The engine says which resource belongs to which server slot and may change its mind; rows belong to resources, so
//! that moving one moves no sample.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use headroom_model::policy::{Across, Fold, LaneMatcher, Policy, WindowFunction};
use headroom_model::{Resource, Series};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::batch::Spare;
use crate::chunked::Chunked;
use crate::config::{WindowConfig, WindowCounters, WindowLimits};
use crate::histogram::HistogramRow;
use crate::ingest::window_ms;
use crate::lanes::LaneTable;
use crate::numeric::stretch_ms;
use crate::samples::{Cut, Row, Samples, flag};
use crate::series::{InputsReport, NO_LANES, SeriesTable};

/// Names a resource of a store for as long as it is open.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ResourceId(pub u32);

/// The slot of a resource that belongs to no server yet.
pub(crate) const NO_SLOT: u32 = u32::MAX;

/// An entry's row: nothing reads the series.
pub(crate) const UNMATCHED: u32 = u32::MAX;
/// An entry's row: a limit refused it.
pub(crate) const REFUSED: u32 = u32::MAX - 1;
/// Bit of an entry's row: it is a histogram row.
pub(crate) const HISTOGRAM: u32 = 1 << 31;

/// Lists longer than this are searched by an index.
const SCAN_MAX: usize = 64;

/// A series in the list of a resource.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub series: u32,
    pub row: u32,
    pub lanes: u32,
}

impl Entry {
    pub fn has_row(&self) -> bool {
        self.row < REFUSED
    }
}

#[derive(Debug)]
pub(crate) struct ResourceState {
    pub resource: Arc<Resource>,
    pub slot: u32,
    /// Rows of either kind.
    pub rows: u32,
    /// Entries without a row.
    pub unmatched: u32,
    /// Where the next point of this sender probably is in `entries`.
    pub cursor: usize,
    /// Newest sample before the last tick, ms; `i64::MIN` = none.
    pub watermark_ms: i64,
    /// Oldest sample at the first tick that saw any, ms; `i64::MAX` = none yet.
    pub first_ms: i64,
    /// Extent of the samples that arrived before the store's first tick.
    pub low_ms: i64,
    pub high_ms: i64,
    pub entries: Vec<Entry>,
    index: Option<Box<FxHashMap<u32, u32>>>,
}

impl ResourceState {
    pub fn new(resource: Arc<Resource>, slot: u32) -> Self {
        Self {
            resource,
            slot,
            rows: 0,
            unmatched: 0,
            cursor: 0,
            watermark_ms: i64::MIN,
            first_ms: i64::MAX,
            low_ms: i64::MAX,
            high_ms: i64::MIN,
            entries: Vec::new(),
            index: None,
        }
    }

    /// Where a series is in the list. Senders repeat their order, so the caller has looked at the cursor already.
    pub fn find(&self, series: u32) -> Option<usize> {
        if let Some(index) = &self.index {
            return index.get(&series).map(|at| *at as usize);
        }
        self.entries.iter().position(|entry| entry.series == series)
    }

    pub fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
        if let Some(index) = &mut self.index {
            index.insert(entry.series, (self.entries.len() - 1) as u32);
        } else if self.entries.len() > SCAN_MAX {
            self.reindex();
        }
    }

    /// Call after entries were removed.
    pub fn reindex(&mut self) {
        self.cursor = 0;
        self.index = (self.entries.len() > SCAN_MAX)
            .then(|| Box::new(self.entries.iter().enumerate().map(|(at, e)| (e.series, at as u32)).collect()));
    }
}

#[derive(Debug, Default)]
pub(crate) struct Server {
    pub resources: Vec<u32>,
    pub rows: u32,
    /// Its lanes: a range of the lane table.
    pub lanes_from: u32,
    pub lanes_len: u32,
    pub dirty: bool,
}

/// What a tick needs to know of an input.
#[derive(Clone, Debug)]
pub(crate) struct InputPlan {
    pub function: WindowFunction,
    pub fold: Fold,
    pub across: Across,
    pub sources: usize,
}

/// The samples of a cell, and what the policy in force makes of them.
///
/// Inputs: [`open_resource`](Self::open_resource), [`move_resource`](Self::move_resource),
/// [`close_resource`](Self::close_resource), [`close_server`](Self::close_server), [`ingest`](Self::ingest) and
/// [`set_policy`](Self::set_policy) in any order, then [`close`](Self::close) at every tick. The content of what `close`
/// answers does not depend on how samples between two ticks were ordered, batched or repeated.
pub struct WindowStore {
    pub(crate) limits: WindowLimits,
    pub(crate) config: WindowConfig,
    pub(crate) policy: Arc<Policy>,
    pub(crate) matcher: Arc<dyn LaneMatcher + Send + Sync>,
    pub(crate) plans: Vec<InputPlan>,
    pub(crate) schema: SchemaRef,
    pub(crate) series: SeriesTable,
    pub(crate) resources: Vec<Option<ResourceState>>,
    pub(crate) free_resources: Vec<u32>,
    pub(crate) servers: Vec<Server>,
    pub(crate) rows: Chunked<Row>,
    pub(crate) free_rows: Vec<u32>,
    pub(crate) samples: Samples,
    pub(crate) histograms: Vec<Option<HistogramRow>>,
    pub(crate) free_histograms: Vec<u32>,
    pub(crate) lanes: LaneTable,
    pub(crate) dirty: Vec<u32>,
    /// Resources with a refused entry, to be asked again when there is room.
    pub(crate) refused: Vec<u32>,
    pub(crate) last_tick_ms: Option<i64>,
    pub(crate) counters: WindowCounters,
    pub(crate) spare: Spare,
    /// By index of the batch's dictionary: the number of the series, and points seen.
    pub(crate) batch_series: Vec<(u32, u32)>,
}

impl std::fmt::Debug for WindowStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WindowStore")
            .field("policy", &self.policy.hash)
            .field("sizes", &self.sizes())
            .field("last_tick_ms", &self.last_tick_ms)
            .finish_non_exhaustive()
    }
}

/// How much a store holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WindowSizes {
    /// Open resources.
    pub resources: usize,
    /// Different series.
    pub series: usize,
    /// Numeric rows.
    pub rows: usize,
    /// Histogram rows.
    pub histogram_rows: usize,
    /// Bytes of rows, blocks and lanes (without histograms).
    pub bytes: usize,
}

impl WindowStore {
    /// An empty store.
    pub fn new(
        limits: WindowLimits,
        config: WindowConfig,
        policy: Arc<Policy>,
        matcher: Arc<dyn LaneMatcher + Send + Sync>,
    ) -> Self {
        let (plans, schema) = plan(&policy);
        Self {
            limits,
            config,
            policy,
            matcher,
            plans,
            schema,
            series: SeriesTable::default(),
            resources: Vec::new(),
            free_resources: Vec::new(),
            servers: Vec::new(),
            rows: Chunked::default(),
            free_rows: Vec::new(),
            samples: Samples::default(),
            histograms: Vec::new(),
            free_histograms: Vec::new(),
            lanes: LaneTable::default(),
            dirty: Vec::new(),
            refused: Vec::new(),
            last_tick_ms: None,
            counters: WindowCounters::default(),
            spare: Spare::default(),
            batch_series: Vec::new(),
        }
    }

    /// Counters since the store was made (not part of [`Self::encode`]).
    pub fn counters(&self) -> WindowCounters {
        self.counters
    }

    /// How much the store holds.
    pub fn sizes(&self) -> WindowSizes {
        let rows = self.rows.len() - self.free_rows.len();
        WindowSizes {
            resources: self.resources.len() - self.free_resources.len(),
            series: self.series.len(),
            rows,
            histogram_rows: self.histograms.len() - self.free_histograms.len(),
            bytes: self.samples.bytes() + self.rows.len() * size_of::<Row>() + self.lanes.bytes(),
        }
    }

    /// The policy in force.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Puts another policy in force. Rows that any input still reads keep their samples, because samples do not depend
    /// on what is made of them; the others are freed.
    pub fn set_policy(&mut self, policy: Arc<Policy>, matcher: Arc<dyn LaneMatcher + Send + Sync>) {
        if longest_ms(&policy) > longest_ms(&self.policy) {
            self.forget_stale();
        }
        (self.plans, self.schema) = plan(&policy);
        self.policy = policy;
        self.matcher = matcher;
        self.series.forget_lanes();
        for id in 0..self.resources.len() as u32 {
            let Some(state) = self.resources[id as usize].as_mut() else { continue };
            let mut entries = std::mem::take(&mut state.entries);
            let resource = state.resource.clone();
            for entry in &mut entries {
                entry.lanes = self.lanes_for(&resource, entry.series);
                if entry.lanes == NO_LANES && entry.row != UNMATCHED {
                    if entry.has_row() {
                        self.free_row(entry.row);
                    }
                    entry.row = UNMATCHED;
                } else if entry.lanes != NO_LANES && entry.row == UNMATCHED {
                    // As good as never seen: the next point makes its row.
                    entry.row = REFUSED;
                }
            }
            let slot = self.resources[id as usize].as_ref().map_or(NO_SLOT, |state| state.slot);
            let rows = entries.iter().filter(|entry| entry.has_row()).count() as u32;
            if let Some(state) = self.resources[id as usize].as_mut() {
                for gone in entries.iter().filter(|entry| entry.row == REFUSED) {
                    self.series.release(gone.series);
                }
                entries.retain(|entry| entry.row != REFUSED);
                let before = std::mem::replace(&mut state.rows, rows);
                state.unmatched = entries.len() as u32 - rows;
                state.entries = entries;
                state.reindex();
                if let Some(server) = self.servers.get_mut(slot as usize) {
                    server.rows = (server.rows + rows).saturating_sub(before);
                }
            }
            self.mark_dirty(slot);
        }
        self.refused.clear();
    }

    /// What the windows of a row can read no more as of the last tick; `None` where everything is kept.
    pub(crate) fn cut(&self, row: &Row) -> Option<Cut> {
        let tick = self.last_tick_ms.filter(|_| row.interval_ms != 0 && !row.kind.is_delta())? as u32;
        Some(Cut { from: tick.wrapping_sub(longest_ms(&self.policy).max(stretch_ms(row.interval_ms))), tick })
    }

    /// Forgets what the present windows can read no more. Longer windows would still find it, but not in a store that was
    /// written and read back in the meantime.
    fn forget_stale(&mut self) {
        for at in 0..self.rows.len() {
            let row = self.rows[at];
            if row.len > 0
                && let Some(cut) = self.cut(&row)
            {
                let stale = self.samples.stale(&row, cut);
                self.samples.forget_oldest(&mut self.rows[at], stale);
            }
        }
    }

    /// Opens a resource that belongs to no server yet; `None` if there are too many.
    pub fn open_resource(&mut self, resource: &Arc<Resource>) -> Option<ResourceId> {
        let state = Some(ResourceState::new(resource.clone(), NO_SLOT));
        if let Some(id) = self.free_resources.pop() {
            self.resources[id as usize] = state;
            return Some(ResourceId(id));
        }
        let id = u32::try_from(self.resources.len()).ok().filter(|id| *id < NO_SLOT)?;
        self.resources.push(state);
        Some(ResourceId(id))
    }

    /// Makes a resource part of the server in `slot`.
    pub fn move_resource(&mut self, id: ResourceId, slot: u32) {
        self.detach(id);
        let Some(state) = self.resources.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        state.slot = slot;
        if slot == NO_SLOT {
            return;
        }
        let rows = state.rows;
        if self.servers.len() <= slot as usize {
            self.servers.resize_with(slot as usize + 1, Server::default);
        }
        let server = &mut self.servers[slot as usize];
        server.resources.push(id.0);
        server.rows += rows;
        self.mark_dirty(slot);
    }

    /// Frees a resource with its rows. The engine must not use the id again.
    pub fn close_resource(&mut self, id: ResourceId) {
        self.detach(id);
        let Some(state) = self.resources.get_mut(id.0 as usize).and_then(Option::take) else { return };
        for entry in state.entries {
            self.series.release(entry.series);
            if entry.has_row() {
                self.free_row(entry.row);
            }
        }
        self.free_resources.push(id.0);
    }

    /// Frees all resources of a server.
    pub fn close_server(&mut self, slot: u32) {
        let Some(server) = self.servers.get(slot as usize) else { return };
        for id in server.resources.clone() {
            self.close_resource(ResourceId(id));
        }
    }

    /// The slots of servers of which some series has no row for a limit, ascending.
    pub fn refused_slots(&self) -> BTreeSet<u32> {
        let resources = self.refused.iter().filter_map(|id| self.resources.get(*id as usize)?.as_ref());
        resources.map(|state| state.slot).filter(|slot| *slot != NO_SLOT).collect()
    }

    /// The metrics seen, and which inputs read them.
    pub fn inputs_report(&self) -> InputsReport {
        let mut used: FxHashSet<(u32, u32, u32)> = FxHashSet::default();
        let mut numbers: FxHashMap<Arc<str>, u32> = FxHashMap::default();
        let mut senders: Vec<Arc<str>> = Vec::new();
        for state in self.resources.iter().flatten() {
            let sender = match numbers.get(&state.resource.sender) {
                Some(number) => *number,
                None => {
                    senders.push(state.resource.sender.clone());
                    numbers.insert(state.resource.sender.clone(), senders.len() as u32 - 1);
                    senders.len() as u32 - 1
                }
            };
            used.extend(state.entries.iter().map(|entry| (entry.series, entry.lanes, sender)));
        }
        self.series.report(&self.policy, &used, &senders)
    }

    fn detach(&mut self, id: ResourceId) {
        let Some(state) = self.resources.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let slot = std::mem::replace(&mut state.slot, NO_SLOT);
        let rows = state.rows;
        if let Some(server) = self.servers.get_mut(slot as usize) {
            server.resources.retain(|other| *other != id.0);
            server.rows = server.rows.saturating_sub(rows);
            self.mark_dirty(slot);
        }
    }

    pub(crate) fn mark_dirty(&mut self, slot: u32) {
        if let Some(server) = self.servers.get_mut(slot as usize)
            && !server.dirty
        {
            server.dirty = true;
            self.dirty.push(slot);
        }
    }

    /// The lane set of a series that a resource reports.
    pub(crate) fn lanes_for(&mut self, resource: &Resource, series: u32) -> u32 {
        let Some(entry) = self.series.get(series) else { return NO_LANES };
        if let Some(lanes) = entry.lanes {
            return lanes;
        }
        let content: Arc<Series> = entry.series.clone();
        let valid = |lanes: Vec<_>| self.valid_lanes(lanes);
        if let Some(lanes) = self.matcher.lanes_of_series(&content) {
            let lanes = valid(lanes);
            let set = self.series.lane_set(lanes);
            if let Some(entry) = self.series.get_mut(series) {
                entry.lanes = Some(set);
            }
            return set;
        }
        let lanes = valid(self.matcher.lanes(resource, &content));
        self.series.lane_set(lanes)
    }

    /// A matcher made for another policy must not make the tick read past its inputs.
    fn valid_lanes(&self, mut lanes: Vec<headroom_model::policy::Lane>) -> Vec<headroom_model::policy::Lane> {
        lanes.retain(|lane| {
            self.plans.get(usize::from(lane.input)).is_some_and(|plan| usize::from(lane.source) < plan.sources)
        });
        lanes
    }

    /// Frees a row of either kind; the caller has taken it out of its resource's list.
    pub(crate) fn free_row(&mut self, row: u32) {
        if row & HISTOGRAM != 0 {
            let at = row & !HISTOGRAM;
            if let Some(held) = self.histograms.get_mut(at as usize)
                && held.take().is_some()
            {
                self.free_histograms.push(at);
            }
        } else {
            let held = &mut self.rows[row as usize];
            if held.flags & flag::LIVE != 0 {
                self.samples.free(held);
                self.free_rows.push(row);
            }
        }
    }
}

/// Length of the longest window of a policy, ms.
fn longest_ms(policy: &Policy) -> u32 {
    window_ms(policy.windows.state_seconds).max(window_ms(policy.windows.control_seconds))
}

fn plan(policy: &Policy) -> (Vec<InputPlan>, SchemaRef) {
    let plans = policy
        .inputs
        .iter()
        .map(|input| InputPlan {
            function: input.function,
            fold: input.fold,
            across: input.across,
            sources: input.sources.len(),
        })
        .collect();
    let fields: Vec<Field> =
        policy.inputs.iter().map(|input| Field::new(&input.name, DataType::Float64, true)).collect();
    (plans, Arc::new(Schema::new(fields)))
}
