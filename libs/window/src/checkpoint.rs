//! The complete state of a store as bytes, and back: later batches are equal to the bit.
//!
//! Two things are not written. Resources are the engine's, which names them again when it reads; lanes follow from the
//! policy. Of a row only those samples are written that a later tick may read, so that two stores that would answer
//! alike write alike, whenever each of them forgets.
//!
//! The rows of a sender have the same times, since it reports them together, and mostly the same interval and start. So a
//! row says only in what it differs from the row before it: its values are nearly all that is left to copy, write, sync
//! and, after a crash, read while somebody waits.

use std::sync::Arc;

use headroom_model::codec::{DecodeError, Decoder, Encoder};
use headroom_model::policy::{LaneMatcher, Policy};
use headroom_model::{Resource, SeriesKind};

use crate::config::{SAMPLES_PER_ROW_MAX, WindowConfig, WindowLimits};
use crate::histogram::{Buckets, HistogramRow, Snapshot, snapshots_max};
use crate::samples::{Row, flag};
use crate::series::{NO_LANES, SeriesTable};
use crate::store::{Entry, HISTOGRAM, NO_SLOT, REFUSED, ResourceId, ResourceState, UNMATCHED, WindowStore};

/// Version of the form; older ones open, newer ones are refused.
const VERSION: u8 = 2;
/// The form in which every row was written in full.
const IN_FULL: u8 = 1;

const ROW_NONE: u8 = 0;
const ROW_REFUSED: u8 = 1;
const ROW_NUMERIC: u8 = 2;
const ROW_HISTOGRAM: u8 = 3;

/// Interval, flat time and start are those of the row before.
const SAME_HEAD: u8 = 1;
/// The times are those of the row before.
const SAME_TIMES: u8 = 2;
/// Every value is followed by a start of its own.
const OWN_STARTS: u8 = 4;

/// What a row may share with the one before it.
#[derive(Debug, Default)]
struct RowBefore {
    interval_ms: u32,
    flat_since: u32,
    start_ms: i64,
    times: Vec<u32>,
}

impl WindowStore {
    /// Writes the store. Counters, which are metrics, are not part of it.
    pub fn encode(&self, out: &mut Encoder) {
        out.put_u8(VERSION);
        out.put_bool(self.last_tick_ms.is_some());
        out.put_i64(self.last_tick_ms.unwrap_or(0));
        self.series.encode(out);
        out.put_u32(self.resources.len() as u32);
        let mut before = RowBefore::default();
        for state in &self.resources {
            out.put_bool(state.is_some());
            let Some(state) = state else { continue };
            for number in [state.watermark_ms, state.first_ms, state.low_ms, state.high_ms] {
                out.put_i64(number);
            }
            out.put_u32(state.slot);
            out.put_u32(state.entries.len() as u32);
            for entry in &state.entries {
                out.put_u32(entry.series);
                match entry.row {
                    UNMATCHED => out.put_u8(ROW_NONE),
                    REFUSED => out.put_u8(ROW_REFUSED),
                    row if row & HISTOGRAM != 0 => match self.histograms.get((row & !HISTOGRAM) as usize) {
                        Some(Some(row)) => {
                            out.put_u8(ROW_HISTOGRAM);
                            encode_histogram(row, out);
                        }
                        _ => out.put_u8(ROW_NONE),
                    },
                    row => {
                        out.put_u8(ROW_NUMERIC);
                        self.encode_row(&self.rows[row as usize], &mut before, out);
                    }
                }
            }
        }
        out.put_u32s(&self.free_resources);
        out.put_u32(self.servers.len() as u32);
        for server in &self.servers {
            out.put_u32s(&server.resources);
        }
    }

    /// Reads a store. `resource_of` names the resource of an id, as the engine knows it; policy and matcher must be
    /// those in force when the store was written.
    ///
    /// # Errors
    /// If the bytes are damaged, of a newer version, or name a resource that the engine does not know.
    pub fn decode(
        input: &mut Decoder<'_>,
        limits: WindowLimits,
        config: WindowConfig,
        policy: Arc<Policy>,
        matcher: Arc<dyn LaneMatcher + Send + Sync>,
        mut resource_of: impl FnMut(ResourceId) -> Option<Arc<Resource>>,
    ) -> Result<Self, DecodeError> {
        let version = input.get_u8()?;
        if !(IN_FULL..=VERSION).contains(&version) {
            return Err(input.error("version of the window store (written by a newer headroom?)"));
        }
        let mut before = (version > IN_FULL).then(RowBefore::default);
        let mut store = Self::new(limits, config, policy, matcher);
        let has_ticked = input.get_bool()?;
        store.last_tick_ms = Some(input.get_i64()?).filter(|_| has_ticked);
        store.series = SeriesTable::decode(input)?;
        for id in 0..input.get_length(1, "window resources")? as u32 {
            if !input.get_bool()? {
                store.resources.push(None);
                continue;
            }
            let resource = resource_of(ResourceId(id)).ok_or_else(|| input.error("resource of a window"))?;
            let mut state = ResourceState::new(resource, NO_SLOT);
            state.watermark_ms = input.get_i64()?;
            state.first_ms = input.get_i64()?;
            state.low_ms = input.get_i64()?;
            state.high_ms = input.get_i64()?;
            state.slot = input.get_u32()?;
            for _ in 0..input.get_length(5, "series of a resource")? {
                let entry = store.decode_entry(id, &state.resource, before.as_mut(), input)?;
                if entry.has_row() {
                    state.rows += 1;
                } else {
                    state.unmatched += 1;
                }
                if entry.row == REFUSED {
                    store.refused.push(id);
                }
                state.push(entry);
            }
            store.resources.push(Some(state));
        }
        store.free_resources = input.get_u32s()?;
        if store.free_resources.iter().any(|id| !matches!(store.resources.get(*id as usize), Some(None))) {
            return Err(input.error("free resource"));
        }
        for slot in 0..input.get_length(4, "window servers")? as u32 {
            let mut server = crate::store::Server { resources: input.get_u32s()?, ..Default::default() };
            for id in &server.resources {
                let Some(Some(state)) = store.resources.get(*id as usize) else {
                    return Err(input.error("resource of a server"));
                };
                if state.slot != slot {
                    return Err(input.error("slot of a resource"));
                }
                server.rows += state.rows;
            }
            store.servers.push(server);
            store.mark_dirty(slot);
        }
        let attached: usize = store.servers.iter().map(|server| server.resources.len()).sum();
        if attached != store.resources.iter().flatten().filter(|state| state.slot != NO_SLOT).count() {
            return Err(input.error("server of a resource"));
        }
        Ok(store)
    }

    fn encode_row(&self, row: &Row, before: &mut RowBefore, out: &mut Encoder) {
        let first = self.cut(row).map_or(0, |cut| self.samples.stale(row, cut));
        let view = self.samples.view(row);
        let samples = first..usize::from(row.len);
        let same_head =
            (before.interval_ms, before.flat_since, before.start_ms) == (row.interval_ms, row.flat_since, row.start_ms);
        let same_times = samples.clone().map(|at| view.time(at)).eq(before.times.iter().copied());
        let own_starts = row.is_wide();
        let bit = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        out.put_u8(bit(same_head, SAME_HEAD) | bit(same_times, SAME_TIMES) | bit(own_starts, OWN_STARTS));
        out.put_u8(row.flags);
        if !same_head {
            out.put_u32(row.interval_ms);
            out.put_u32(row.flat_since);
            out.put_i64(row.start_ms);
            (before.interval_ms, before.flat_since, before.start_ms) = (row.interval_ms, row.flat_since, row.start_ms);
        }
        if !same_times {
            before.times.clear();
            before.times.extend(samples.clone().map(|at| view.time(at)));
            out.put_u32s(&before.times);
        }
        for at in samples {
            out.put_f64(view.value(at));
            if own_starts {
                out.put_i64(view.start(at));
            }
        }
    }

    /// `before` is the row before, or `None` where rows were written in full.
    fn decode_entry(
        &mut self,
        id: u32,
        resource: &Resource,
        before: Option<&mut RowBefore>,
        input: &mut Decoder<'_>,
    ) -> Result<Entry, DecodeError> {
        let series = input.get_u32()?;
        let (kind, snapshots_max) = match self.series.get_mut(series) {
            Some(known) => {
                known.resources += 1;
                (known.series.kind, snapshots_max(&known.series))
            }
            None => return Err(input.error("series of a row")),
        };
        let tag = input.get_u8()?;
        let row = match tag {
            ROW_NONE => UNMATCHED,
            ROW_REFUSED => REFUSED,
            ROW_NUMERIC if !kind.is_histogram() => {
                let row = match before {
                    Some(before) => self.decode_row(id, kind, before, input)?,
                    None => self.decode_row_in_full(id, kind, input)?,
                };
                self.rows.push(row);
                (self.rows.len() - 1) as u32
            }
            ROW_HISTOGRAM if kind.is_histogram() => {
                self.histograms.push(Some(decode_histogram(id, series, (kind, snapshots_max), input)?));
                (self.histograms.len() - 1) as u32 | HISTOGRAM
            }
            _ => return Err(input.error("kind of row")),
        };
        let lanes = if tag == ROW_NONE { NO_LANES } else { self.lanes_for(resource, series) };
        Ok(Entry { series, row, lanes })
    }

    fn decode_row(
        &mut self,
        id: u32,
        kind: SeriesKind,
        before: &mut RowBefore,
        input: &mut Decoder<'_>,
    ) -> Result<Row, DecodeError> {
        let shared = input.get_u8()?;
        let mut row = self.samples.new_row(id, kind);
        row.flags = input.get_u8()? | flag::LIVE;
        if shared & SAME_HEAD == 0 {
            before.interval_ms = input.get_u32()?;
            before.flat_since = input.get_u32()?;
            before.start_ms = input.get_i64()?;
        }
        (row.interval_ms, row.flat_since) = (before.interval_ms, before.flat_since);
        row.start_ms = before.start_ms;
        if shared & SAME_TIMES == 0 {
            before.times = input.get_u32s()?;
            if before.times.len() > SAMPLES_PER_ROW_MAX {
                return Err(input.error("number of samples"));
            }
        }
        for time in &before.times {
            let value = input.get_f64()?;
            let start_ms = if shared & OWN_STARTS != 0 { input.get_i64()? } else { before.start_ms };
            self.samples.insert(&mut row, *time, start_ms, value, None);
        }
        Ok(row)
    }

    fn decode_row_in_full(&mut self, id: u32, kind: SeriesKind, input: &mut Decoder<'_>) -> Result<Row, DecodeError> {
        let mut row = self.samples.new_row(id, kind);
        row.flags = input.get_u8()? | flag::LIVE;
        row.interval_ms = input.get_u32()?;
        row.flat_since = input.get_u32()?;
        let start_ms = input.get_i64()?;
        let len = input.get_u8()?;
        if usize::from(len) > SAMPLES_PER_ROW_MAX {
            return Err(input.error("number of samples"));
        }
        row.start_ms = start_ms;
        for _ in 0..len {
            let (time, value) = (input.get_u32()?, input.get_f64()?);
            let start_ms = if kind == SeriesKind::Gauge { 0 } else { input.get_i64()? };
            self.samples.insert(&mut row, time, start_ms, value, None);
        }
        Ok(row)
    }
}

fn encode_histogram(row: &HistogramRow, out: &mut Encoder) {
    out.put_u8(row.flags);
    out.put_u32(row.interval_ms);
    out.put_i64(row.seen_ms);
    out.put_i64(row.floor_ms);
    out.put_u32(row.snapshots.len() as u32);
    for snapshot in &row.snapshots {
        out.put_i64(snapshot.time_ms);
        out.put_i64(snapshot.start_ms);
        out.put_bool(snapshot.data.is_some());
        if let Some(data) = &snapshot.data {
            out.put_u64(data.count);
            out.put_f64(data.sum);
            out.put_i32(data.scale);
            out.put_u64(data.zero);
            out.put_i32(data.offset);
            out.put_u64s(&data.buckets);
        }
    }
}

fn decode_histogram(
    resource: u32,
    series: u32,
    (kind, snapshots_max): (SeriesKind, usize),
    input: &mut Decoder<'_>,
) -> Result<HistogramRow, DecodeError> {
    let mut row = HistogramRow {
        series,
        resource,
        kind,
        flags: input.get_u8()? | flag::LIVE,
        interval_ms: input.get_u32()?,
        seen_ms: input.get_i64()?,
        floor_ms: input.get_i64()?,
        snapshots: Vec::new(),
        snapshots_max,
    };
    for _ in 0..input.get_length(17, "histograms")? {
        let (time_ms, start_ms) = (input.get_i64()?, input.get_i64()?);
        let data = if input.get_bool()? {
            Some(Buckets {
                count: input.get_u64()?,
                sum: input.get_f64()?,
                scale: input.get_i32()?,
                zero: input.get_u64()?,
                offset: input.get_i32()?,
                buckets: input.get_u64s()?.into(),
            })
        } else {
            None
        };
        row.insert(Snapshot { time_ms, start_ms, data });
    }
    Ok(row)
}
