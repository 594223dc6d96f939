//! The lanes of every server, in the order in which a tick folds them.
//!
//! One table for the whole cell, so that a tick reads it from one end to the other. A server whose rows change gets its
//! lanes written anew at the end; when half of the table is waste, it is written anew in slot order.

use rustc_hash::FxHashSet;

use crate::series::{NO_LANES, SeriesTable, series_order};
use crate::store::{ResourceState, Server};

/// A row as one input sees it.
#[derive(Clone, Copy, Debug)]
pub struct LaneEntry {
    pub row: u32,
    pub input: u16,
    /// Position of the sender's name among those of the server.
    pub sender: u16,
    /// Position of what its values are multiplied with among the scales of the table.
    pub scale: u16,
    pub source: u8,
    /// This is the last lane of its row: what is done once per row is done here.
    pub last_of_row: bool,
}

/// The table.
#[derive(Debug, Default)]
pub struct LaneTable {
    entries: Vec<LaneEntry>,
    /// The scales of all entries, each once: there are as many as pairs of units.
    scales: Vec<f64>,
    wasted: usize,
}

struct Key {
    entry: LaneEntry,
    resource: usize,
    series: u32,
}

impl LaneTable {
    /// The lanes of a server.
    #[inline]
    pub fn of(&self, server: &Server) -> &[LaneEntry] {
        &self.entries[server.lanes_from as usize..(server.lanes_from + server.lanes_len) as usize]
    }

    /// What the values of lanes are multiplied with.
    pub fn scales(&self) -> &[f64] {
        &self.scales
    }

    fn scale(&mut self, scale: f64) -> u16 {
        let known = self.scales.iter().position(|known| known.to_bits() == scale.to_bits());
        known.unwrap_or_else(|| {
            self.scales.push(scale);
            self.scales.len() - 1
        }) as u16
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<LaneEntry>()
    }

    /// Writes the lanes of a server anew.
    pub fn rebuild(&mut self, server: &mut Server, resources: &[Option<ResourceState>], series: &SeriesTable) {
        let mut states: Vec<&ResourceState> =
            server.resources.iter().filter_map(|id| resources.get(*id as usize)?.as_ref()).collect();
        states.sort_by(|a, b| {
            let (a, b) = (&a.resource, &b.resource);
            a.sender
                .cmp(&b.sender)
                .then_with(|| a.attributes.cmp(&b.attributes))
                .then_with(|| a.server.cmp(&b.server))
                .then_with(|| a.host_names.cmp(&b.host_names))
                .then_with(|| a.aliases.cmp(&b.aliases))
                .then_with(|| a.pool.cmp(&b.pool))
        });
        let mut keys: Vec<Key> = Vec::new();
        let mut sender = 0u16;
        for (resource, state) in states.iter().enumerate() {
            if resource > 0 && states[resource - 1].resource.sender != state.resource.sender {
                sender = sender.saturating_add(1);
            }
            for held in state.entries.iter().filter(|held| held.has_row() && held.lanes != NO_LANES) {
                for lane in &**series.lanes(held.lanes) {
                    let scale = self.scale(lane.scale);
                    let (row, input, source) = (held.row, lane.input, lane.source);
                    let entry = LaneEntry { row, input, sender, scale, source, last_of_row: false };
                    keys.push(Key { entry, resource, series: held.series });
                }
            }
        }
        keys.sort_by(|a, b| {
            let place = |key: &Key| (key.entry.input, key.entry.source, key.entry.sender, key.resource);
            place(a).cmp(&place(b)).then_with(|| match (series.get(a.series), series.get(b.series)) {
                _ if a.series == b.series => std::cmp::Ordering::Equal,
                (Some(a), Some(b)) => series_order(&a.series, &b.series),
                (a, b) => a.is_some().cmp(&b.is_some()),
            })
        });
        let mut seen: FxHashSet<u32> = FxHashSet::default();
        for key in keys.iter_mut().rev() {
            key.entry.last_of_row = seen.insert(key.entry.row);
        }
        self.wasted += server.lanes_len as usize;
        server.lanes_from = self.entries.len() as u32;
        server.lanes_len = keys.len() as u32;
        self.entries.extend(keys.iter().map(|key| key.entry));
        server.dirty = false;
    }

    /// Writes the table anew if much of it is waste.
    pub fn compact(&mut self, servers: &mut [Server]) {
        if self.wasted * 2 <= self.entries.len() {
            return;
        }
        let mut entries = Vec::with_capacity(self.entries.len() - self.wasted);
        for server in servers {
            let from = entries.len() as u32;
            entries.extend_from_slice(self.of(server));
            server.lanes_from = from;
        }
        self.entries = entries;
        self.wasted = 0;
    }
}
