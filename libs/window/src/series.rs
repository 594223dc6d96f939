//! The series a store has seen, by content, and what became of them.
//!
//! A batch names its series in a dictionary of its own; here every one of them gets a number for as long as any resource
//! reports it, so that a point is matched by comparing two integers.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hashbrown::HashTable;
use headroom_model::codec::{DecodeError, Decoder, Encoder};
use headroom_model::policy::{Lane, Policy};
use headroom_model::{Series, SeriesKind};
use rustc_hash::{FxHashSet, FxHasher};

use crate::config::{INPUTS_REPORT_MAX, SENDERS_REPORT_MAX};

/// The set of no lanes.
pub const NO_LANES: u32 = 0;

/// What is known of a series.
#[derive(Debug)]
pub struct SeriesEntry {
    pub series: Arc<Series>,
    /// Points seen since it was first seen.
    pub points: u64,
    /// Resources that have it in their list.
    pub resources: u32,
    /// The lane set, if the resource does not matter.
    pub lanes: Option<u32>,
}

/// All series by number, and the lane sets by number.
#[derive(Debug)]
pub struct SeriesTable {
    entries: Vec<Option<SeriesEntry>>,
    free: Vec<u32>,
    by_content: HashTable<u32>,
    lane_sets: Vec<Arc<[Lane]>>,
}

impl Default for SeriesTable {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new(), by_content: HashTable::new(), lane_sets: vec![Arc::from([])] }
    }
}

fn content_hash(series: &Series) -> u64 {
    let mut hasher = FxHasher::default();
    series.metric.hash(&mut hasher);
    series.unit.hash(&mut hasher);
    series.kind.hash(&mut hasher);
    series.attributes.hash(&mut hasher);
    for bound in &*series.bounds {
        bound.to_bits().hash(&mut hasher);
    }
    hasher.finish()
}

/// The order in which sub-series of one sender are folded.
pub fn series_order(a: &Series, b: &Series) -> std::cmp::Ordering {
    a.metric
        .cmp(&b.metric)
        .then_with(|| a.unit.cmp(&b.unit))
        .then_with(|| a.kind.cmp(&b.kind))
        .then_with(|| a.attributes.cmp(&b.attributes))
        .then_with(|| a.bounds.iter().map(|b| b.to_bits()).cmp(b.bounds.iter().map(|b| b.to_bits())))
}

impl SeriesTable {
    /// Number of series.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// The series of a number.
    pub fn get(&self, id: u32) -> Option<&SeriesEntry> {
        self.entries.get(id as usize)?.as_ref()
    }

    /// The series of a number.
    pub fn get_mut(&mut self, id: u32) -> Option<&mut SeriesEntry> {
        self.entries.get_mut(id as usize)?.as_mut()
    }

    /// The number of a series, new if need be; `None` beyond `max` series.
    pub fn intern(&mut self, series: &Arc<Series>, max: usize) -> Option<u32> {
        let hash = content_hash(series);
        let entries = &self.entries;
        let same = |id: &u32| {
            entries[*id as usize].as_ref().is_some_and(|entry| {
                Arc::ptr_eq(&entry.series, series) || series_order(&entry.series, series) == std::cmp::Ordering::Equal
            })
        };
        if let Some(id) = self.by_content.find(hash, same) {
            return Some(*id);
        }
        if self.len() >= max {
            return None;
        }
        let entry = Some(SeriesEntry { series: series.clone(), points: 0, resources: 0, lanes: None });
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id as usize] = entry;
                id
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        let entries = &self.entries;
        self.by_content.insert_unique(hash, id, |other| {
            entries[*other as usize].as_ref().map_or(0, |entry| content_hash(&entry.series))
        });
        Some(id)
    }

    /// One resource less has the series.
    pub fn release(&mut self, id: u32) {
        if let Some(entry) = self.get_mut(id) {
            entry.resources = entry.resources.saturating_sub(1);
        }
    }

    /// Forgets the series that no resource has.
    pub fn forget_unused(&mut self) {
        for id in 0..self.entries.len() {
            let Some(entry) = self.entries[id].as_ref().filter(|entry| entry.resources == 0) else { continue };
            if let Ok(slot) = self.by_content.find_entry(content_hash(&entry.series), |other| *other as usize == id) {
                slot.remove();
            }
            self.entries[id] = None;
            self.free.push(id as u32);
        }
    }

    /// The number of a set of lanes.
    pub fn lane_set(&mut self, mut lanes: Vec<Lane>) -> u32 {
        lanes.sort_unstable_by_key(|lane| (lane.input, lane.source));
        lanes.dedup();
        if let Some(at) = self.lane_sets.iter().position(|known| **known == *lanes) {
            return at as u32;
        }
        self.lane_sets.push(lanes.into());
        (self.lane_sets.len() - 1) as u32
    }

    /// The lanes of a set.
    pub fn lanes(&self, set: u32) -> &Arc<[Lane]> {
        &self.lane_sets[set as usize]
    }

    /// Forgets all lanes: another policy is in force.
    pub fn forget_lanes(&mut self) {
        self.lane_sets.truncate(1);
        for entry in self.entries.iter_mut().flatten() {
            entry.lanes = None;
        }
    }

    /// The metrics seen, who sends and who reads them. `used` has every series with a lane set (or [`NO_LANES`]) that it is
    /// in for some resource, and the number of that resource's sender in `senders`.
    pub fn report(&self, policy: &Policy, used: &FxHashSet<(u32, u32, u32)>, senders: &[Arc<str>]) -> InputsReport {
        let mut lanes_of: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let mut senders_of: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (series, set, sender) in used {
            senders_of.entry(*series).or_default().push(*sender);
            if *set != NO_LANES {
                lanes_of.entry(*series).or_default().push(*set);
            }
        }
        let mut metrics: BTreeMap<(Arc<str>, Arc<str>, SeriesKind), SeenMetric> = BTreeMap::new();
        let mut left_off = 0;
        for (id, entry) in self.entries.iter().enumerate() {
            let Some(entry) = entry.as_ref().filter(|entry| entry.resources > 0) else { continue };
            let series = &entry.series;
            let key = (series.metric.clone(), series.unit.clone(), series.kind);
            if metrics.len() >= INPUTS_REPORT_MAX && !metrics.contains_key(&key) {
                left_off += 1;
                continue;
            }
            let seen = metrics.entry(key).or_insert_with(|| SeenMetric {
                metric: series.metric.clone(),
                unit: series.unit.clone(),
                kind: series.kind,
                inputs: Vec::new(),
                senders: Vec::new(),
                points: 0,
                series: 0,
                resources_min: 0,
                example: series.attributes.clone(),
            });
            seen.points += entry.points;
            seen.series += 1;
            seen.resources_min = seen.resources_min.max(entry.resources);
            if series.attributes < seen.example {
                seen.example = series.attributes.clone();
            }
            let names = senders_of.get(&(id as u32)).into_iter().flatten();
            seen.senders.extend(names.filter_map(|sender| senders.get(*sender as usize)).cloned());
            for set in lanes_of.get(&(id as u32)).into_iter().flatten() {
                for lane in &*self.lane_sets[*set as usize] {
                    let Some(input) = policy.inputs.get(usize::from(lane.input)) else { continue };
                    let Some(source) = input.sources.get(usize::from(lane.source)) else { continue };
                    seen.inputs.push((Arc::from(&*input.name), Arc::from(&*source.dialect)));
                }
            }
        }
        let mut metrics: Vec<SeenMetric> = metrics.into_values().collect();
        for seen in &mut metrics {
            seen.inputs.sort();
            seen.inputs.dedup();
            seen.senders.sort();
            seen.senders.dedup();
            seen.senders.truncate(SENDERS_REPORT_MAX);
        }
        InputsReport { metrics, left_off }
    }

    /// Writes all series and returns nothing about lanes: those follow from the policy.
    pub fn encode(&self, out: &mut Encoder) {
        out.put_u32(self.entries.len() as u32);
        for entry in &self.entries {
            out.put_bool(entry.is_some());
            let Some(entry) = entry else { continue };
            out.put_str(&entry.series.metric);
            out.put_str(&entry.series.unit);
            out.put_u8(entry.series.kind as u8);
            out.put_pairs(&entry.series.attributes);
            out.put_f64s(&entry.series.bounds);
            out.put_u64(entry.points);
        }
    }

    /// Reads what [`Self::encode`] wrote; how many resources have a series is counted by whoever reads those.
    ///
    /// # Errors
    /// If the bytes are damaged.
    pub fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let mut table = Self::default();
        for id in 0..input.get_length(1, "series")? as u32 {
            if !input.get_bool()? {
                table.entries.push(None);
                table.free.push(id);
                continue;
            }
            let series = Arc::new(Series {
                metric: Arc::from(input.get_str()?),
                unit: Arc::from(input.get_str()?),
                kind: SeriesKind::from_u8(input.get_u8()?).ok_or_else(|| input.error("kind of series"))?,
                attributes: input.get_pairs()?.into(),
                bounds: input.get_f64s()?.into(),
            });
            let hash = content_hash(&series);
            table.entries.push(Some(SeriesEntry { series, points: input.get_u64()?, resources: 0, lanes: None }));
            let entries = &table.entries;
            table.by_content.insert_unique(hash, id, |other| {
                entries[*other as usize].as_ref().map_or(0, |entry| content_hash(&entry.series))
            });
        }
        Ok(table)
    }
}

/// A metric that was seen.
#[derive(Clone, PartialEq, Debug)]
pub struct SeenMetric {
    /// Its name.
    pub metric: Arc<str>,
    /// Its unit as sent.
    pub unit: Arc<str>,
    /// How its values are read.
    pub kind: SeriesKind,
    /// Inputs that read it, each with the dialect of the source; empty = unused.
    pub inputs: Vec<(Arc<str>, Arc<str>)>,
    /// Who sends it, at most [`SENDERS_REPORT_MAX`], sorted; a sender without a name is empty text.
    pub senders: Vec<Arc<str>>,
    /// Points seen.
    pub points: u64,
    /// Different sets of attributes.
    pub series: u32,
    /// At least so many resources report it.
    pub resources_min: u32,
    /// The attributes of one of its series, the first in order.
    pub example: Arc<[(Arc<str>, Arc<str>)]>,
}

/// The metrics seen, sorted by name, unit and kind.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct InputsReport {
    /// At most [`INPUTS_REPORT_MAX`].
    pub metrics: Vec<SeenMetric>,
    /// Series of further metrics.
    pub left_off: usize,
}
