//! Which resources are which server: joins, slots, pools, and who leaves.
//!
//! New resources are only noted when their first sample arrives, and joined at the next tick, in sorted order. Joining
//! at once would make the answer depend on who spoke first between two ticks; sorted, the same set of resources gives
//! the same servers in the same slots, however their samples were batched or repeated.
//!
//! Two resources are one server when they share a host-level name. They are never one when they disagree about a name
//! of the same kind (two `host.name` under one cloned machine id): the newcomer then stays a server of its own. The shared
//! name is an alias of both, so that whoever asks for it is told of both, and both are marked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashTable;
use headroom_model::resource::{DEFAULT_NAME, Resource};
use headroom_model::time::NANOS_PER_SECOND;
use headroom_window::ResourceId;

mod checkpoint;
mod host;

use host::{Kinds, compatible, content_hash, is_nameless, kinds_of, resource_order, same_host};

/// Bounds of what a cell takes in. They refuse the new, never evict the live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistryLimits {
    /// Servers of a cell.
    pub servers_max: usize,
    /// Resources (senders, processes) of a server.
    pub resources_per_server_max: usize,
    /// Resources that wait for the next tick.
    pub pending_max: usize,
    /// Pools of a cell; servers of further ones count as pool `default`.
    pub pools_max: usize,
}

impl Default for RegistryLimits {
    fn default() -> Self {
        Self { servers_max: 1_000_000, resources_per_server_max: 256, pending_max: 1_000_000, pools_max: 4_096 }
    }
}

/// What happened to resources since the counters were last taken, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistryCounters {
    /// A host-level name that two servers claim.
    pub name_conflicts: u64,
    /// Resources of one server that name different pools.
    pub pool_conflicts: u64,
    /// Servers that turned out to be one.
    pub merged: u64,
    /// Servers that joined.
    pub joined: u64,
    /// Servers that left, by silence or removal.
    pub left: u64,
    /// Refused for [`RegistryLimits::servers_max`].
    pub refused_servers: u64,
    /// Refused for [`RegistryLimits::resources_per_server_max`].
    pub refused_resources: u64,
    /// Refused for [`RegistryLimits::pending_max`].
    pub refused_pending: u64,
    /// Counted as pool `default` for [`RegistryLimits::pools_max`].
    pub refused_pools: u64,
}

/// A server of the cell.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its name: that of its first resource, for as long as it lives.
    pub name: Arc<str>,
    /// Index into [`Registry::pools`].
    pub pool: u32,
    /// Indices into the registry's resources, in resource order.
    resources: Vec<u32>,
    /// Host-level names by kind, in the order of [`host::HOST_KINDS`].
    kinds: Kinds,
}

/// The resources in these places.
fn resources_of<'a>(at: &'a [u32], entries: &'a [Option<Entry>]) -> impl Iterator<Item = &'a Resource> + Clone {
    at.iter().filter_map(|at| entries[*at as usize].as_ref()).map(|entry| &*entry.resource)
}

#[derive(Clone, Debug)]
struct Entry {
    resource: Arc<Resource>,
    /// Where the window store keeps its rows.
    window: ResourceId,
    /// Slot of the server; [`UNASSIGNED`] until the tick, or for good where it was refused.
    slot: u32,
    /// Epoch of the last tick before its newest sample.
    seen: i64,
}

/// No slot yet.
pub const UNASSIGNED: u32 = u32::MAX;

/// The servers of a cell. Slots are small numbers, given in order and reused smallest first.
#[derive(Debug)]
pub struct Registry {
    limits: RegistryLimits,
    entries: Vec<Option<Entry>>,
    free_entries: BTreeSet<u32>,
    by_content: HashTable<u32>,
    pending: Vec<u32>,
    servers: Vec<Option<Server>>,
    free_slots: BTreeSet<u32>,
    by_name: BTreeMap<Arc<str>, u32>,
    pools: Vec<Arc<str>>,
    /// What follows from `pools` and the servers: places by name, servers by place, places without a server but the first.
    pool_places: BTreeMap<Arc<str>, u32>,
    pool_servers: Vec<u32>,
    pools_unused: BTreeSet<u32>,
    /// Places that have been given to another pool and not been asked for since.
    pools_reused: Vec<u32>,
    /// No assigned resource was last heard of before this epoch: until then none need be looked for.
    seen_min: i64,
    /// Grows whenever names, pools or slots change: tells whether a table made of them is still good.
    generation: u64,
    counters: RegistryCounters,
    /// The last tick at which a server was refused for [`RegistryLimits::servers_max`].
    full_at: Option<i64>,
}

impl Registry {
    /// An empty registry.
    pub fn new(limits: RegistryLimits) -> Self {
        Self {
            limits,
            entries: Vec::new(),
            free_entries: BTreeSet::new(),
            by_content: HashTable::new(),
            pending: Vec::new(),
            servers: Vec::new(),
            free_slots: BTreeSet::new(),
            by_name: BTreeMap::new(),
            pools: vec![Arc::from(DEFAULT_NAME)],
            pool_places: BTreeMap::from([(Arc::from(DEFAULT_NAME), 0)]),
            pool_servers: vec![0],
            pools_unused: BTreeSet::new(),
            pools_reused: Vec::new(),
            seen_min: i64::MIN,
            generation: 0,
            counters: RegistryCounters::default(),
            full_at: None,
        }
    }

    /// Number of slots, free ones included.
    pub fn slots(&self) -> usize {
        self.servers.len()
    }

    /// The server of a slot.
    pub fn server(&self, slot: usize) -> Option<&Server> {
        self.servers.get(slot)?.as_ref()
    }

    /// Servers that live.
    pub fn len(&self) -> usize {
        self.servers.len() - self.free_slots.len()
    }

    /// Resources known.
    pub fn resources(&self) -> usize {
        self.entries.len() - self.free_entries.len()
    }

    /// Names of the pools; the first is `default`.
    pub fn pools(&self) -> &[Arc<str>] {
        &self.pools
    }

    /// The places among [`Self::pools`] that belong to another pool than at the last call.
    pub fn take_reused_pools(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.pools_reused)
    }

    /// Changes whenever names, pools or slots change.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What happened since the last call.
    pub fn take_counters(&mut self) -> RegistryCounters {
        std::mem::take(&mut self.counters)
    }

    /// The last tick at which a server was refused because there were too many; not part of what is written.
    pub fn full_at(&self) -> Option<i64> {
        self.full_at
    }

    /// The slot of a server by its own name or a host-level name.
    pub fn find(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// The rows of a resource, opening them if it is new; `None` where a limit refuses it. `epoch` is the last tick.
    pub fn resolve(
        &mut self,
        resource: &Arc<Resource>,
        epoch: i64,
        open: impl FnOnce(&Arc<Resource>) -> Option<ResourceId>,
    ) -> Option<ResourceId> {
        let hash = content_hash(resource);
        let entries = &self.entries;
        let same = |at: &u32| {
            entries[*at as usize]
                .as_ref()
                .is_some_and(|entry| Arc::ptr_eq(&entry.resource, resource) || entry.resource == *resource)
        };
        if let Some(at) = self.by_content.find(hash, same).copied() {
            let entry = self.entries[at as usize].as_mut()?;
            entry.seen = epoch;
            return Some(entry.window);
        }
        if self.pending.len() >= self.limits.pending_max {
            self.counters.refused_pending += 1;
            return None;
        }
        let Some(window) = open(resource) else {
            self.counters.refused_resources += 1;
            return None;
        };
        let entry = Entry { resource: resource.clone(), window, slot: UNASSIGNED, seen: epoch };
        let at = match self.free_entries.pop_first() {
            Some(at) => {
                self.entries[at as usize] = Some(entry);
                at
            }
            None => {
                self.entries.push(Some(entry));
                (self.entries.len() - 1) as u32
            }
        };
        let entries = &self.entries;
        self.by_content.insert_unique(hash, at, |other| {
            entries[*other as usize].as_ref().map_or(0, |entry| content_hash(&entry.resource))
        });
        self.pending.push(at);
        Some(window)
    }

    /// Gives every pending resource its server at the tick `epoch`. `moved` is told which rows now belong to which slot, `closed` which
    /// rows no longer belong to anyone, and `freed` which slots became empty because two servers were one.
    pub fn assign_pending(
        &mut self,
        epoch: i64,
        mut moved: impl FnMut(ResourceId, u32),
        mut closed: impl FnMut(ResourceId),
        mut freed: impl FnMut(u32),
    ) {
        let mut pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return;
        }
        pending.sort_by(|a, b| match (&self.entries[*a as usize], &self.entries[*b as usize]) {
            // A server bears the name of its first resource: those with a name that people use come first.
            (Some(a), Some(b)) => (is_nameless(&a.resource), &a.resource.server)
                .cmp(&(is_nameless(&b.resource), &b.resource.server))
                .then_with(|| resource_order(&a.resource, &b.resource)),
            (a, b) => a.is_some().cmp(&b.is_some()),
        });
        self.generation += 1;
        for at in pending {
            let Some(entry) = self.entries[at as usize].as_mut() else { continue };
            entry.seen = epoch;
            let resource = entry.resource.clone();
            let refused = self.counters.refused_servers;
            let slot = self.slot_for(&resource, &mut moved, &mut freed);
            if self.counters.refused_servers > refused {
                self.full_at = Some(epoch);
            }
            match slot {
                Some(slot) => self.attach(at, slot, &mut moved),
                None => {
                    if let Some(window) = self.forget_entry(at) {
                        closed(window);
                    }
                }
            }
        }
    }

    /// The slot a new resource belongs to, by joining or by making a server; `None` where a limit refuses it.
    fn slot_for(
        &mut self,
        resource: &Resource,
        moved: &mut impl FnMut(ResourceId, u32),
        freed: &mut impl FnMut(u32),
    ) -> Option<u32> {
        let mut candidates: BTreeSet<u32> = BTreeSet::new();
        for name in resource.host_names.iter().chain(std::iter::once(&resource.server)) {
            if let Some(slot) = self.by_name.get(name) {
                if self.servers[*slot as usize].as_ref().is_some_and(|server| compatible(&server.kinds, resource)) {
                    candidates.insert(*slot);
                } else {
                    self.counters.name_conflicts += 1;
                }
            }
        }
        let mut candidates = candidates.into_iter();
        let Some(home) = candidates.next() else {
            return self.new_server(resource);
        };
        if self.servers[home as usize]
            .as_ref()
            .is_some_and(|s| s.resources.len() >= self.limits.resources_per_server_max)
        {
            self.counters.refused_resources += 1;
            return None;
        }
        for other in candidates {
            // The resource is the bridge that shows two servers to be one, if they do not contradict each other.
            let contradicts = match (&self.servers[home as usize], &self.servers[other as usize]) {
                (Some(home), Some(other)) => home.kinds.iter().zip(&other.kinds).any(|kinds| match kinds {
                    (Some(mine), Some(theirs)) => !same_host(mine, theirs),
                    _ => false,
                }),
                _ => true,
            };
            if contradicts {
                self.counters.name_conflicts += 1;
                continue;
            }
            let Some(server) = self.servers[other as usize].take() else { continue };
            self.free_slots.insert(other);
            self.leave_pool(server.pool);
            self.counters.merged += 1;
            for name in self.names_of(&server) {
                if let Some(slot) = self.by_name.get_mut(&name).filter(|slot| **slot == other) {
                    *slot = home;
                }
            }
            for at in server.resources {
                self.attach(at, home, moved);
            }
            // Its own name may be one that none of its resources says any more: nobody would ever let go of it.
            self.forget_name(&server.name, home);
            freed(other);
        }
        Some(home)
    }

    fn new_server(&mut self, resource: &Resource) -> Option<u32> {
        if self.len() >= self.limits.servers_max {
            self.counters.refused_servers += 1;
            return None;
        }
        // A name that another server holds (a cloned machine id) cannot be this one's: the next best that is free is.
        let name = std::iter::once(&resource.server)
            .chain(&resource.host_names)
            .find(|name| !self.by_name.contains_key(*name))
            .cloned()
            .or_else(|| {
                self.counters.refused_servers += 1;
                None
            })?;
        let server = Server { name: name.clone(), pool: 0, resources: Vec::new(), kinds: Default::default() };
        self.pool_servers[0] += 1;
        let slot = match self.free_slots.pop_first() {
            Some(slot) => {
                self.servers[slot as usize] = Some(server);
                slot
            }
            None => {
                self.servers.push(Some(server));
                (self.servers.len() - 1) as u32
            }
        };
        self.by_name.insert(name, slot);
        self.counters.joined += 1;
        Some(slot)
    }

    /// Makes an entry one of the server's resources and takes over what it says about names and pool.
    fn attach(&mut self, at: u32, slot: u32, moved: &mut impl FnMut(ResourceId, u32)) {
        let Some(entry) = self.entries[at as usize].as_mut() else { return };
        entry.slot = slot;
        moved(entry.window, slot);
        let resource = entry.resource.clone();
        for name in resource.host_names.iter().chain(std::iter::once(&resource.server)) {
            self.by_name.entry(name.clone()).or_insert(slot);
        }
        let Some(server) = self.servers[slot as usize].as_mut() else { return };
        let entries = &self.entries;
        let order = |a: &u32, b: &u32| match (&entries[*a as usize], &entries[*b as usize]) {
            (Some(a), Some(b)) => resource_order(&a.resource, &b.resource),
            (a, b) => a.is_some().cmp(&b.is_some()),
        };
        let place = server.resources.binary_search_by(|other| order(other, &at)).unwrap_or_else(|place| place);
        server.resources.insert(place, at);
        if self.describe(slot) > 1 {
            self.counters.pool_conflicts += 1;
        }
    }

    /// Derives kinds and pool of a server from its resources, in their order: what a server is must not depend on when
    /// which of them came, for a restored engine knows only which are there. Answers how many pools they name.
    fn describe(&mut self, slot: u32) -> usize {
        let Some(server) = self.servers.get_mut(slot as usize).and_then(Option::as_mut) else { return 0 };
        let entries = &self.entries;
        server.kinds = kinds_of(resources_of(&server.resources, entries));
        // Of several pools the first in order counts; `default` says nothing and gives way to any other.
        let mut named = server
            .resources
            .iter()
            .filter_map(|at| entries[*at as usize].as_ref().map(|entry| &entry.resource.pool))
            .filter(|pool| &***pool != DEFAULT_NAME)
            .collect::<Vec<_>>();
        named.sort();
        named.dedup();
        let pool = named.first().map_or_else(|| Arc::from(DEFAULT_NAME), |pool| (*pool).clone());
        let (count, before) = (named.len(), server.pool);
        if self.pools[before as usize] != pool {
            self.leave_pool(before);
            let place = self.join_pool(&pool);
            if let Some(server) = self.servers[slot as usize].as_mut() {
                server.pool = place;
            }
        }
        count
    }

    /// The place of a pool that a server joins: its own, a new one, or that of a pool which has no server any more.
    /// Names of pools come and go with the services that send them; those that went must not stand in the way for good.
    fn join_pool(&mut self, pool: &Arc<str>) -> u32 {
        let place = match self.pool_places.get(pool) {
            Some(place) => *place,
            None if self.pools.len() < self.limits.pools_max => {
                self.pools.push(pool.clone());
                self.pool_servers.push(0);
                (self.pools.len() - 1) as u32
            }
            None => match self.pools_unused.first().copied() {
                Some(place) => {
                    let former = std::mem::replace(&mut self.pools[place as usize], pool.clone());
                    self.pool_places.remove(&former);
                    self.pools_reused.push(place);
                    place
                }
                None => {
                    self.counters.refused_pools += 1;
                    self.pool_servers[0] += 1;
                    return 0;
                }
            },
        };
        self.pool_places.insert(pool.clone(), place);
        self.pools_unused.remove(&place);
        self.pool_servers[place as usize] += 1;
        place
    }

    fn leave_pool(&mut self, place: u32) {
        let servers = &mut self.pool_servers[place as usize];
        *servers = servers.saturating_sub(1);
        if *servers == 0 && place != 0 {
            self.pools_unused.insert(place);
        }
    }

    /// Lets go of a name that leads to the server of a slot, unless one of its resources says it or it is its own.
    fn forget_name(&mut self, name: &Arc<str>, slot: u32) {
        let Some(server) = self.server(slot as usize) else { return };
        if self.by_name.get(name) == Some(&slot) && !self.is_named(server, name) {
            self.by_name.remove(name);
        }
    }

    /// Whether a server may be found by this name.
    fn is_named(&self, server: &Server, name: &Arc<str>) -> bool {
        let mut resources = server.resources.iter().filter_map(|at| self.entries[*at as usize].as_ref());
        server.name == *name
            || resources.any(|entry| entry.resource.server == *name || entry.resource.host_names.contains(name))
    }

    /// Removes a server and its resources; `closed` is told which rows no longer belong to anyone.
    pub fn remove(&mut self, slot: u32, mut closed: impl FnMut(ResourceId)) {
        let Some(server) = self.servers.get_mut(slot as usize).and_then(Option::take) else { return };
        self.free_slots.insert(slot);
        self.leave_pool(server.pool);
        self.counters.left += 1;
        self.generation += 1;
        for name in self.names_of(&server) {
            if self.by_name.get(&name) == Some(&slot) {
                self.by_name.remove(&name);
            }
        }
        for at in server.resources {
            if let Some(window) = self.forget_entry(at) {
                closed(window);
            }
        }
    }

    /// Forgets resources of servers that live on but that have themselves been silent since before `epoch`: processes
    /// come and go. The last resource of a server stays, because the server's own silence decides about it.
    pub fn expire_resources(&mut self, epoch: i64, mut closed: impl FnMut(ResourceId)) {
        if epoch <= self.seen_min {
            return;
        }
        let silent: Vec<u32> = (0..self.entries.len() as u32)
            .filter(|at| {
                self.entries[*at as usize].as_ref().is_some_and(|entry| entry.seen < epoch && entry.slot != UNASSIGNED)
            })
            .collect();
        for at in silent {
            let Some(slot) = self.entries[at as usize].as_ref().map(|entry| entry.slot) else { continue };
            let Some(server) = self.servers.get_mut(slot as usize).and_then(Option::as_mut) else { continue };
            if server.resources.len() < 2 {
                continue;
            }
            server.resources.retain(|other| *other != at);
            let resource = self.entries[at as usize].as_ref().map(|entry| entry.resource.clone());
            if let Some(window) = self.forget_entry(at) {
                closed(window);
            }
            for name in resource.iter().flat_map(|gone| gone.host_names.iter().chain(std::iter::once(&gone.server))) {
                self.forget_name(name, slot);
            }
            self.describe(slot);
            self.generation += 1;
        }
        // Whoever is heard of or assigned later is so at a later tick than any of these.
        let assigned = self.entries.iter().flatten().filter(|entry| entry.slot != UNASSIGNED);
        self.seen_min = assigned.map(|entry| entry.seen).min().unwrap_or(epoch);
    }

    /// The names by which a server may be held in `by_name`.
    fn names_of(&self, server: &Server) -> Vec<Arc<str>> {
        let resources = server.resources.iter().filter_map(|at| self.entries[*at as usize].as_ref());
        resources
            .flat_map(|entry| entry.resource.host_names.iter().chain(std::iter::once(&entry.resource.server)))
            .chain(std::iter::once(&server.name))
            .cloned()
            .collect()
    }

    fn forget_entry(&mut self, at: u32) -> Option<ResourceId> {
        let entry = self.entries[at as usize].take()?;
        self.free_entries.insert(at);
        if let Ok(found) = self.by_content.find_entry(content_hash(&entry.resource), |other| *other == at) {
            found.remove();
        }
        Some(entry.window)
    }

    /// The resources by the ids under which the window store keeps their rows.
    pub fn windows(&self) -> BTreeMap<ResourceId, Arc<Resource>> {
        self.entries.iter().flatten().map(|entry| (entry.window, entry.resource.clone())).collect()
    }

    /// The epoch of the last tick before the newest sample of any of a server's resources, read by an input or not.
    pub fn heard_of(&self, slot: usize) -> i64 {
        let resources = self.server(slot).map_or(&[][..], |server| &server.resources);
        let entries = resources.iter().filter_map(|at| self.entries[*at as usize].as_ref());
        entries.map(|entry| entry.seen).max().unwrap_or(i64::MIN / NANOS_PER_SECOND)
    }

    /// The slots of servers that claim a host-level name which another server claims too, ascending.
    pub fn contested(&self) -> BTreeSet<u32> {
        let mut contested = BTreeSet::new();
        for (slot, server) in (0..).zip(&self.servers) {
            let Some(server) = server else { continue };
            let resources = server.resources.iter().filter_map(|at| self.entries[*at as usize].as_ref());
            let names = resources
                .flat_map(|entry| entry.resource.host_names.iter().chain(std::iter::once(&entry.resource.server)));
            for holder in names.filter_map(|name| self.by_name.get(name)).filter(|holder| **holder != slot) {
                contested.extend([slot, *holder]);
            }
        }
        contested
    }

    /// All names of a server but its own, sorted; also those that another server claims.
    pub fn aliases(&self, slot: usize) -> Vec<Arc<str>> {
        let Some(server) = self.server(slot) else { return Vec::new() };
        let mut names: Vec<Arc<str>> = server
            .resources
            .iter()
            .filter_map(|at| self.entries[*at as usize].as_ref())
            .flat_map(|entry| {
                entry
                    .resource
                    .host_names
                    .iter()
                    .chain(&entry.resource.aliases)
                    .chain(std::iter::once(&entry.resource.server))
            })
            .filter(|name| **name != server.name)
            .cloned()
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// The value of a resource attribute of a server: the first in resource order that has one.
    pub fn attribute(&self, slot: usize, key: &str) -> Option<String> {
        self.server(slot)?
            .resources
            .iter()
            .filter_map(|at| self.entries[*at as usize].as_ref())
            .find_map(|entry| entry.resource.attribute(key).map(str::to_owned))
    }
}

#[cfg(test)]
mod tests {
    use headroom_model::codec::{Decoder, Encoder};

    use super::*;

    fn resource(server: &str, pool: &str) -> Arc<Resource> {
        Arc::new(Resource {
            server: server.into(),
            host_names: vec![server.into()],
            aliases: Vec::new(),
            cell: DEFAULT_NAME.into(),
            pool: pool.into(),
            sender: "".into(),
            attributes: vec![("host.name".into(), server.into())],
        })
    }

    fn join(registry: &mut Registry, server: &str, pool: &str) -> u32 {
        let window = registry.resources() as u32;
        registry.resolve(&resource(server, pool), 0, |_| Some(ResourceId(window)));
        registry.assign_pending(0, |_, _| (), |_| (), |_| ());
        registry.find(server).expect("joined")
    }

    fn pool_of(registry: &Registry, slot: u32) -> &str {
        &registry.pools()[registry.server(slot as usize).expect("lives").pool as usize]
    }

    #[test]
    fn a_pool_without_servers_makes_room_for_another() {
        let limits = RegistryLimits { pools_max: 3, ..RegistryLimits::default() };
        let mut registry = Registry::new(limits);
        let [a, b, c] = ["a", "b", "c"].map(|name| join(&mut registry, name, name));
        assert_eq!([a, b, c].map(|slot| pool_of(&registry, slot).to_owned()), ["a", "b", "default"]);
        assert_eq!((registry.take_counters().refused_pools, registry.take_reused_pools()), (1, vec![]));
        registry.remove(b, |_| ());
        // A pool whose servers went for a while finds its place again.
        let b = join(&mut registry, "b", "b");
        assert_eq!((registry.take_reused_pools(), pool_of(&registry, b)), (vec![], "b"));
        registry.remove(a, |_| ());
        let mut out = Encoder::default();
        registry.encode(&mut out);
        let mut input = Decoder::new(&out.bytes);
        let mut restored = Registry::decode(limits, &mut input).expect("reads");
        for registry in [&mut registry, &mut restored] {
            let d = join(registry, "d", "d");
            assert_eq!((registry.take_reused_pools(), pool_of(registry, d)), (vec![1], "d"));
            let a = join(registry, "a", "a");
            assert_eq!(pool_of(registry, a), DEFAULT_NAME);
        }
        let bytes = |registry: &Registry| {
            let mut out = Encoder::default();
            registry.encode(&mut out);
            out.bytes
        };
        assert_eq!(bytes(&registry), bytes(&restored));
    }
}
