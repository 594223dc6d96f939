//! The registry as bytes and back: resources and which server is theirs. What follows from those is made anew, and what
//! leads nowhere is refused.

use std::sync::Arc;

use headroom_model::codec::{DecodeError, Decoder, Encoder};
use headroom_model::resource::Resource;
use headroom_window::ResourceId;

use super::host::{content_hash, kinds_of};
use super::{Entry, Registry, RegistryLimits, Server, UNASSIGNED, resources_of};

impl Registry {
    /// Writes everything, pending resources included.
    pub fn encode(&self, out: &mut Encoder) {
        out.put_strs(&self.pools);
        out.put_u32(self.servers.len() as u32);
        for server in &self.servers {
            out.put_bool(server.is_some());
            if let Some(server) = server {
                out.put_str(&server.name);
                out.put_u32(server.pool);
                out.put_u32s(&server.resources);
            }
        }
        out.put_u32(self.entries.len() as u32);
        for entry in &self.entries {
            out.put_bool(entry.is_some());
            if let Some(entry) = entry {
                let resource = &entry.resource;
                out.put_str(&resource.server);
                out.put_strs(&resource.host_names);
                out.put_strs(&resource.aliases);
                out.put_str(&resource.cell);
                out.put_str(&resource.pool);
                out.put_str(&resource.sender);
                out.put_pairs(&resource.attributes);
                out.put_u32(entry.window.0);
                out.put_u32(entry.slot);
                out.put_i64(entry.seen);
            }
        }
        out.put_u32s(&self.pending);
        out.put_u32(self.by_name.len() as u32);
        for (name, slot) in &self.by_name {
            out.put_str(name);
            out.put_u32(*slot);
        }
        out.put_u64(self.generation);
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are damaged.
    pub fn decode(limits: RegistryLimits, input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let mut registry = Self::new(limits);
        registry.pools = input.get_strs()?;
        for slot in 0..input.get_length(1, "servers")? {
            registry.servers.push(if input.get_bool()? {
                Some(Server {
                    name: Arc::from(input.get_str()?),
                    pool: input.get_u32()?,
                    resources: input.get_u32s()?,
                    kinds: Default::default(),
                })
            } else {
                registry.free_slots.insert(slot as u32);
                None
            });
        }
        let arc = |input: &mut Decoder<'_>| input.get_str().map(Arc::<str>::from);
        for at in 0..input.get_length(1, "resources")? {
            registry.entries.push(if input.get_bool()? {
                let resource = Arc::new(Resource {
                    server: arc(input)?,
                    host_names: input.get_strs()?,
                    aliases: input.get_strs()?,
                    cell: arc(input)?,
                    pool: arc(input)?,
                    sender: arc(input)?,
                    attributes: input.get_pairs()?,
                });
                Some(Entry {
                    resource,
                    window: ResourceId(input.get_u32()?),
                    slot: input.get_u32()?,
                    seen: input.get_i64()?,
                })
            } else {
                registry.free_entries.insert(at as u32);
                None
            });
        }
        registry.pending = input.get_u32s()?;
        for _ in 0..input.get_length(8, "names")? {
            let name = arc(input)?;
            registry.by_name.insert(name, input.get_u32()?);
        }
        registry.generation = input.get_u64()?;
        registry.rebuild(input)?;
        Ok(registry)
    }

    /// Restores what follows from the rest, and refuses indices that lead nowhere.
    fn rebuild(&mut self, input: &Decoder<'_>) -> Result<(), DecodeError> {
        let (entries, slots) = (&self.entries, self.servers.len());
        let known = |at: &u32| entries.get(*at as usize).is_some_and(Option::is_some);
        let sound = self.pending.iter().all(known)
            && self
                .servers
                .iter()
                .flatten()
                .all(|s| s.resources.iter().all(known) && (s.pool as usize) < self.pools.len())
            && entries.iter().flatten().all(|e| e.slot == UNASSIGNED || (e.slot as usize) < slots)
            && self.by_name.values().all(|slot| (*slot as usize) < slots)
            && !self.pools.is_empty();
        if !sound {
            return Err(input.error("registry of servers"));
        }
        for (at, entry) in self.entries.iter().enumerate() {
            let Some(entry) = entry else { continue };
            let entries = &self.entries;
            self.by_content.insert_unique(content_hash(&entry.resource), at as u32, |other| {
                entries[*other as usize].as_ref().map_or(0, |entry| content_hash(&entry.resource))
            });
        }
        for server in self.servers.iter_mut().flatten() {
            server.kinds = kinds_of(resources_of(&server.resources, &self.entries));
        }
        self.pool_places = self.pools.iter().zip(0u32..).map(|(pool, place)| (pool.clone(), place)).collect();
        self.pool_servers = vec![0; self.pools.len()];
        for server in self.servers.iter().flatten() {
            self.pool_servers[server.pool as usize] += 1;
        }
        self.pools_unused = (1..self.pools.len() as u32).filter(|at| self.pool_servers[*at as usize] == 0).collect();
        // Earlier versions kept the names of resources that were gone.
        let mut by_name = std::mem::take(&mut self.by_name);
        by_name.retain(|name, slot| self.server(*slot as usize).is_some_and(|server| self.is_named(server, name)));
        self.by_name = by_name;
        Ok(())
    }
}
