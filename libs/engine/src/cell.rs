//! One cell: registry, windows, signals, health and throttle, and the order in which a tick runs through them.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use headroom_expr::ExprState;
use headroom_health::HealthState;
use headroom_model::codec::{DecodeError, Decoder, Encoder};
use headroom_model::frame::{ServerFrame, flag};
use headroom_model::hash::enforcement_rank;
use headroom_model::policy::Mode;
use headroom_model::snapshot::ServerTable;
use headroom_model::time::NANOS_PER_SECOND;
use headroom_model::{CellSnapshot, SampleBatch, Timestamp};
use headroom_throttle::{AckTable, Step, ThrottleState};
use headroom_window::{
    InputColumns, InputsReport, NEVER_NS, Quality, ResourceId, WindowBatch, WindowConfig, WindowCounters, WindowLimits,
    WindowStore,
};

use crate::compiled::CompiledPolicy;
use crate::registry::{Registry, RegistryCounters, RegistryLimits};
use crate::signals::{self, SignalState};
use crate::{score, snapshot};

/// A cell that has refused a server is full for so long: slow senders try again every few minutes.
const FULL_SECONDS: i64 = 600;

/// What an engine needs to know besides the policy.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Seconds from tick to tick.
    pub tick_seconds: i64,
    /// Samples further ahead of the tick than this are set aside, seconds. `None` in event time, where the senders'
    /// time is the only one.
    pub future_max_seconds: Option<i64>,
    /// Cells of a partition.
    pub cells_max: usize,
    /// Bounds of a cell's servers.
    pub registry: RegistryLimits,
    /// Bounds of a cell's windows.
    pub window: WindowLimits,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            tick_seconds: 10,
            future_max_seconds: Some(5),
            cells_max: 1_024,
            registry: RegistryLimits::default(),
            window: WindowLimits::default(),
        }
    }
}

/// What a cell holds, for metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct CellReport {
    /// Servers.
    pub servers: usize,
    /// Resources.
    pub resources: usize,
    /// Different series seen, read or not.
    pub series: usize,
    /// Numeric rows of the window store.
    pub rows: usize,
    /// Histogram rows of the window store.
    pub histogram_rows: usize,
    /// Bytes of the window store's rows.
    pub row_bytes: usize,
    /// What its windows have counted since the cell was made.
    pub window: WindowCounters,
}

fn window_config(config: &EngineConfig) -> WindowConfig {
    WindowConfig { future_max_ns: config.future_max_seconds.map(|seconds| seconds * NANOS_PER_SECOND) }
}

/// What is wrong with a server's data, as flags that its readers see. Resets and gaps are no fault of the data: processes
/// begin anew, and absence shows elsewhere.
fn data_flags(quality: &Quality) -> u16 {
    let found = [
        (quality.future, flag::CLOCK_SKEW),
        (quality.not_a_number, flag::NOT_A_NUMBER),
        (quality.flat, flag::FLAT_SENSOR),
        (quality.overlaps, flag::OVERLAPPING_WRITERS),
    ];
    found.iter().filter(|(count, _)| *count > 0).fold(0, |flags, (_, flag)| flags | flag)
}

/// How samples come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arrival {
    /// As their senders send them: what is too old is late.
    InTime,
    /// From a source that is behind.
    Overdue,
    /// After they were passed over, behind the tick `since`: they tell nothing of who is there now.
    PassedOver {
        /// Its epoch.
        since: i64,
    },
}

/// The state machine of a cell.
#[derive(Debug)]
pub(crate) struct Cell {
    name: Arc<str>,
    tick_seconds: i64,
    compiled: Arc<CompiledPolicy>,
    registry: Registry,
    windows: WindowStore,
    signals: SignalState,
    health: HealthState,
    throttle: ThrottleState,
    acks: AckTable,
    /// Epoch of the first tick, and of the first after a gap longer than a lease: learning begins there.
    learning_since: Option<i64>,
    last_tick: Option<Timestamp>,
    /// The earliest sample, until the first tick.
    first_sample_ns: Option<i64>,
    /// What is known of the servers. What does not change from tick to tick is recomputed only with the policy and where
    /// servers change: as of this generation of the registry.
    servers: ServerFrame,
    servers_generation: Option<u64>,
    /// Slots whose host-level names other servers claim too, as of the same generation.
    contested: BTreeSet<u32>,
    /// The table of names as of a generation of the registry, shared by the snapshots since.
    table: Option<(u64, Arc<ServerTable>)>,
    /// The last two snapshots: what the older one takes is written anew once its readers are gone.
    published: VecDeque<Arc<CellSnapshot>>,
}

impl Cell {
    pub(crate) fn new(name: Arc<str>, config: &EngineConfig, compiled: Arc<CompiledPolicy>) -> Self {
        let windows =
            WindowStore::new(config.window, window_config(config), compiled.policy.clone(), compiled.matcher.clone());
        let mut health = HealthState::new();
        health.set_policy(&compiled.policy);
        let mut throttle = ThrottleState::new();
        throttle.set_policy(&compiled.policy);
        let acks = AckTable::new(compiled.policy.classes.len());
        Self {
            name,
            tick_seconds: config.tick_seconds,
            compiled,
            registry: Registry::new(config.registry),
            windows,
            signals: SignalState::default(),
            health,
            throttle,
            acks,
            learning_since: None,
            last_tick: None,
            first_sample_ns: None,
            servers: ServerFrame::default(),
            servers_generation: None,
            contested: BTreeSet::new(),
            table: None,
            published: VecDeque::new(),
        }
    }

    /// Puts a policy in force, if it is another one.
    pub(crate) fn set_policy(&mut self, compiled: &Arc<CompiledPolicy>) {
        if Arc::ptr_eq(&self.compiled, compiled) {
            return;
        }
        self.windows.set_policy(compiled.policy.clone(), compiled.matcher.clone());
        self.signals.control.retain(&compiled.program);
        self.signals.state.retain(&compiled.program);
        self.health.set_policy(&compiled.policy);
        self.throttle.set_policy(&compiled.policy);
        if self.compiled.policy.classes != compiled.policy.classes {
            // An ack is as young as a lease; consumers soon say again what they use of the new classes.
            self.acks = AckTable::new(compiled.policy.classes.len());
        }
        self.compiled = compiled.clone();
        self.servers_generation = None;
        self.table = None;
    }

    /// Takes the samples of this cell out of a batch.
    pub(crate) fn handle_samples(&mut self, batch: &SampleBatch, arrival: Arrival) {
        let epoch = match arrival {
            Arrival::PassedOver { since } => since,
            Arrival::InTime | Arrival::Overdue => self.last_tick.unwrap_or_default().seconds(),
        };
        let (registry, windows) = (&mut self.registry, &mut self.windows);
        let ids: Vec<Option<ResourceId>> = batch
            .resources
            .iter()
            .map(|resource| {
                if resource.cell != self.name {
                    return None;
                }
                registry.resolve(resource, epoch, |resource| windows.open_resource(resource))
            })
            .collect();
        match arrival {
            Arrival::InTime => windows.ingest(batch, &ids),
            Arrival::Overdue | Arrival::PassedOver { .. } => windows.ingest_backlog(batch, &ids),
        };
        if self.last_tick.is_none() {
            let points = batch.points.resource.iter().copied().zip(batch.points.time_ns.iter().copied());
            let histograms = batch.histograms.iter().map(|point| (point.resource, point.time_ns));
            let mine = points.chain(histograms).filter(|(resource, _)| ids[*resource as usize].is_some());
            self.first_sample_ns = mine.map(|(_, time_ns)| time_ns).chain(self.first_sample_ns).min();
        }
    }

    /// Since when a server is silent: the later of its newest sample and of when it was last heard of. Who delivers what
    /// is days old has not left, and neither has who sends nothing that an input reads.
    fn silent_since(&self, batch: &WindowBatch, slot: usize) -> Timestamp {
        let heard_of = Timestamp::from_seconds(self.registry.heard_of(slot));
        heard_of.max(Timestamp(batch.servers.last_sample_ns[slot]))
    }

    /// Whether a server was heard of when nothing that an input reads had come for so long that it would be unknown.
    fn is_unread(&self, tick: Timestamp, batch: &WindowBatch, slot: usize) -> bool {
        let newest_ns = batch.servers.last_sample_ns[slot];
        let health = &self.compiled.policy.health;
        // Most servers are read: how often those are heard of need not be looked up.
        let unknown_from = tick.plus_seconds(-health.unknown_after_seconds);
        if newest_ns >= unknown_from.0 || self.registry.server(slot).is_none() {
            return false;
        }
        let heard_of = self.registry.heard_of(slot);
        let read_until = if newest_ns == NEVER_NS { i64::MIN } else { Timestamp(newest_ns).seconds() };
        heard_of > read_until.saturating_add(health.unknown_after_seconds)
            && heard_of > tick.seconds().saturating_sub(health.silent_seconds)
    }

    pub(crate) fn handle_remove(&mut self, server: &str) -> bool {
        let Some(slot) = self.registry.find(server) else { return false };
        self.remove(slot);
        true
    }

    /// Whether a server was heard of after the tick of this epoch.
    pub(crate) fn was_heard_after(&self, server: &str, epoch: i64) -> bool {
        self.registry.find(server).is_some_and(|slot| self.registry.heard_of(slot as usize) > epoch)
    }

    pub(crate) fn handle_ack(&mut self, server: &str, class: &str, epoch: i64, in_use: f64, tick: Timestamp) -> bool {
        let class = self.compiled.policy.classes.iter().position(|name| name == class);
        match (self.registry.find(server), class) {
            (Some(slot), Some(class)) => {
                self.acks.set(slot as usize, class, in_use, epoch, tick.seconds());
                true
            }
            _ => false,
        }
    }

    fn remove(&mut self, slot: u32) {
        let windows = &mut self.windows;
        self.registry.remove(slot, |resource| windows.close_resource(resource));
        self.clear_slot(slot);
    }

    fn clear_slot(&mut self, slot: u32) {
        self.signals.control.clear_slot(slot);
        self.signals.state.clear_slot(slot);
        self.health.remove_slot(slot as usize);
        self.throttle.remove_slot(slot as usize);
        self.acks.remove_slot(slot as usize);
    }

    /// One tick. `None` before the cell's first boundary after its first sample.
    pub(crate) fn handle_tick(&mut self, tick: Timestamp, mode: Option<Mode>) -> Option<Arc<CellSnapshot>> {
        if self.last_tick.is_none() && self.first_sample_ns.is_none_or(|first| first >= tick.0) {
            return None;
        }
        let compiled = self.compiled.clone();
        let policy = &compiled.policy;
        self.assign_pending(tick.seconds());
        let slots = self.registry.slots();
        // Arrow only checks that the columns are of one length, which the store sees to.
        let mut batch = self.windows.close(tick, slots as u32).ok()?;

        let left_at = tick.plus_seconds(-policy.health.leave_seconds);
        let leaving: Vec<u32> = (0..slots)
            .filter(|slot| batch.servers.last_sample_ns[*slot] < left_at.0)
            .filter(|slot| self.registry.server(*slot).is_some() && self.silent_since(&batch, *slot) < left_at)
            .map(|slot| slot as u32)
            .collect();
        for slot in leaving {
            self.remove(slot);
            batch.servers.last_sample_ns[slot as usize] = NEVER_NS;
        }
        let silent_since = tick.plus_seconds(-policy.health.silent_seconds).seconds();
        let windows = &mut self.windows;
        self.registry.expire_resources(silent_since, |resource| windows.close_resource(resource));

        for pool in self.registry.take_reused_pools() {
            self.health.forget_pool(pool as usize);
        }
        let servers = self.server_frame(tick, &batch);
        self.reclaim();
        let elapsed_seconds = self.last_tick.map_or(self.tick_seconds as f64, |last| tick.seconds_since(last));
        let frames = match signals::evaluate(&compiled, &batch, elapsed_seconds, &mut self.signals) {
            Ok(frames) => frames,
            // The program was compiled for these very inputs; without signals every server is unknown, which is the
            // truth about what is known of it.
            Err(_) => signals::nothing(&compiled, slots),
        };
        let mut health =
            self.health.step(tick, self.tick_seconds, &servers, &frames, policy, self.registry.pools().len());
        if let Some(own) = &compiled.score {
            score::replace_score(own, &frames, &mut health);
        }
        let rolled_up = compiled.rollup.as_ref().map_or_else(Vec::new, |rollup| {
            score::roll_up(rollup, &servers, self.registry.pools().len(), &frames, &health)
        });
        let learning = self.is_learning(tick);
        let throttle = self.throttle.step(&Step {
            tick,
            tick_seconds: self.tick_seconds,
            servers: &servers,
            signals: &frames,
            health: &health,
            acks: &self.acks,
            mode,
            policy,
            learning,
        });
        self.last_tick = Some(tick);
        self.first_sample_ns = None;
        let table = self.table(&servers.rule);
        let snapshot = Arc::new(snapshot::build(snapshot::Parts {
            cell: self.name.clone(),
            tick,
            tick_seconds: self.tick_seconds,
            head: compiled.head.clone(),
            table,
            servers: &servers,
            batch: &mut batch,
            frames,
            health,
            rolled_up,
            throttle,
        }));
        self.windows.recycle(batch);
        self.servers = servers;
        self.published.push_back(snapshot.clone());
        Some(snapshot)
    }

    /// Takes the memory of the snapshot before the last one, once nobody reads it any more: a tick of a large cell writes
    /// hundreds of megabytes, and memory that is new to the process costs more than what is written to it.
    fn reclaim(&mut self) {
        while self.published.len() > 1 {
            let Some(Ok(old)) = self.published.pop_front().map(Arc::try_unwrap) else { continue };
            let CellSnapshot { health, signals, inputs, decisions, .. } = old;
            self.health.recycle(health);
            self.throttle.recycle(decisions);
            // Signals share columns with inputs: the last holder gives one back.
            let mut made = signals.into_iter();
            for input in inputs {
                let (mut samples, mut age_seconds) = Default::default();
                if let Some(signal) = made.next() {
                    (samples, age_seconds) = (signal.samples, signal.age_seconds);
                }
                let columns = InputColumns { samples, age_seconds, source: input.source };
                self.windows.recycle_input(input.value, columns);
            }
        }
    }

    fn assign_pending(&mut self, epoch: i64) {
        let windows = &mut self.windows;
        let mut freed = Vec::new();
        let closed = std::cell::RefCell::new(Vec::new());
        self.registry.assign_pending(
            epoch,
            |resource, slot| windows.move_resource(resource, slot),
            |resource| closed.borrow_mut().push(resource),
            |slot| freed.push(slot),
        );
        for resource in closed.into_inner() {
            self.windows.close_resource(resource);
        }
        for slot in freed {
            self.clear_slot(slot);
        }
    }

    fn server_frame(&mut self, tick: Timestamp, batch: &WindowBatch) -> ServerFrame {
        self.refresh_servers();
        let mut frame = std::mem::take(&mut self.servers);
        let columns = &batch.servers;
        frame.interval_seconds.clear();
        frame.interval_seconds.extend_from_slice(&columns.interval_seconds);
        frame.age_seconds.clear();
        frame.age_seconds.extend(columns.last_sample_ns.iter().zip(&frame.live).map(|(newest, live)| {
            let is_known = *live && *newest != NEVER_NS;
            if is_known { tick.seconds_since(Timestamp(*newest)).max(0.0) as f32 } else { f32::INFINITY }
        }));
        frame.slow = signals::slow(&self.compiled, batch);
        frame.data_flags.clear();
        let refused = self.windows.refused_slots();
        frame.data_flags.extend((0u32..).zip(&columns.quality).filter_map(|(slot, quality)| {
            let mut flags = data_flags(quality);
            for (is_set, flag) in [
                (self.contested.contains(&slot), flag::NAME_CONFLICT),
                (refused.contains(&slot), flag::SERIES_REFUSED),
                (self.is_unread(tick, batch, slot as usize), flag::NOTHING_READ),
            ] {
                flags |= if is_set { flag } else { 0 };
            }
            (flags != 0).then_some((slot, flags))
        }));
        frame
    }

    fn refresh_servers(&mut self) {
        let generation = self.registry.generation();
        if self.servers_generation == Some(generation) {
            return;
        }
        let slots = self.registry.slots();
        let policy = &self.compiled.policy;
        let registry = &self.registry;
        let mut frame = ServerFrame {
            live: vec![false; slots],
            pool: vec![0; slots],
            rule: vec![0; slots],
            enforcement_rank: vec![0.0; slots],
            ..ServerFrame::default()
        };
        for slot in 0..slots {
            let Some(server) = registry.server(slot) else { continue };
            let pool = &registry.pools()[server.pool as usize];
            frame.live[slot] = true;
            frame.pool[slot] = server.pool;
            frame.rule[slot] = policy.rule_of(&self.name, pool, |key| registry.attribute(slot, key)) as u16;
            frame.enforcement_rank[slot] = enforcement_rank(&self.name, &server.name) as f32;
        }
        self.servers = frame;
        self.contested = registry.contested();
        self.servers_generation = Some(generation);
    }

    /// Learning begins at the first tick, and anew after a gap of ticks longer than the lease: what was decided before
    /// is then nobody's any more.
    fn is_learning(&mut self, tick: Timestamp) -> bool {
        let lease_seconds = self.compiled.policy.lease.lease_seconds;
        if self.last_tick.is_none_or(|last| tick.seconds() - last.seconds() > lease_seconds) {
            self.learning_since = Some(tick.seconds());
        }
        self.learning_since.is_some_and(|since| tick.seconds() - since < lease_seconds.max(60))
    }

    fn table(&mut self, rules: &[u16]) -> Arc<ServerTable> {
        let generation = self.registry.generation();
        if let Some((held, table)) = &self.table
            && *held == generation
        {
            return table.clone();
        }
        let mut table = ServerTable { pools: self.registry.pools().to_vec(), ..ServerTable::default() };
        for (slot, rule) in rules.iter().enumerate().take(self.registry.slots()) {
            let Some(server) = self.registry.server(slot) else { continue };
            table.server.push(server.name.clone());
            table.aliases.push(self.registry.aliases(slot).into());
            table.pool.push(server.pool);
            table.rule.push(*rule);
        }
        let table = Arc::new(table);
        self.table = Some((generation, table.clone()));
        table
    }

    pub(crate) fn epoch(&self) -> Option<i64> {
        self.last_tick.map(Timestamp::seconds)
    }

    /// Whether a server was refused at one of the last ticks because the cell is full.
    pub(crate) fn is_full(&self) -> bool {
        let since = self.last_tick.map(|tick| tick.seconds() - FULL_SECONDS);
        self.registry.full_at().is_some_and(|refused| since.is_none_or(|since| refused >= since))
    }

    pub(crate) fn inputs(&self) -> InputsReport {
        self.windows.inputs_report()
    }

    pub(crate) fn report(&self) -> CellReport {
        let sizes = self.windows.sizes();
        CellReport {
            servers: self.registry.len(),
            resources: self.registry.resources(),
            series: sizes.series,
            rows: sizes.rows,
            histogram_rows: sizes.histogram_rows,
            row_bytes: sizes.bytes,
            window: self.windows.counters(),
        }
    }

    pub(crate) fn take_registry_counters(&mut self) -> RegistryCounters {
        self.registry.take_counters()
    }

    pub(crate) fn encode(&self, out: &mut Encoder) {
        out.put_bool(self.last_tick.is_some());
        out.put_i64(self.last_tick.unwrap_or_default().0);
        out.put_bool(self.first_sample_ns.is_some());
        out.put_i64(self.first_sample_ns.unwrap_or_default());
        out.put_bool(self.learning_since.is_some());
        out.put_i64(self.learning_since.unwrap_or_default());
        self.registry.encode(out);
        self.windows.encode(out);
        self.signals.control.encode(out);
        self.signals.state.encode(out);
        self.health.encode(out);
        self.throttle.encode(out);
        self.acks.encode(out);
    }

    pub(crate) fn decode(
        name: Arc<str>,
        config: &EngineConfig,
        compiled: Arc<CompiledPolicy>,
        input: &mut Decoder<'_>,
    ) -> Result<Self, DecodeError> {
        let mut cell = Self::new(name, config, compiled.clone());
        let has_tick = input.get_bool()?;
        let tick = Timestamp(input.get_i64()?);
        cell.last_tick = has_tick.then_some(tick);
        let has_sample = input.get_bool()?;
        let first = input.get_i64()?;
        cell.first_sample_ns = has_sample.then_some(first);
        let is_learning = input.get_bool()?;
        let since = input.get_i64()?;
        cell.learning_since = is_learning.then_some(since);
        cell.registry = Registry::decode(config.registry, input)?;
        let resources = cell.registry.windows();
        cell.windows = WindowStore::decode(
            input,
            config.window,
            window_config(config),
            compiled.policy.clone(),
            compiled.matcher.clone(),
            |id| resources.get(&id).cloned(),
        )?;
        cell.signals = SignalState { control: ExprState::decode(input)?, state: ExprState::decode(input)? };
        cell.health = HealthState::decode(input)?;
        cell.throttle = ThrottleState::decode(input)?;
        cell.acks = AckTable::decode(input)?;
        Ok(cell)
    }
}
