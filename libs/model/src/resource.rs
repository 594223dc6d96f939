//! Who sent a sample: the server's names, its cell and pool, and the sender on it.
//!
//! Ingest takes all of this from one OTLP resource alone, without state, so that any number of ingestors agree. Joining
//! resources that describe the same server is the engine's work, because only it sees all of a cell.

use std::sync::Arc;

/// The name used for a cell or a pool that no attribute names.
pub const DEFAULT_NAME: &str = "default";

/// A resource after the identity rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resource {
    /// The server's name by the identity rule: what the engine uses unless a join finds a better-ranked resource.
    pub server: Arc<str>,
    /// Names that belong to the host alone (`host.id`, `host.name`, `k8s.node.name`, …), sorted, without duplicates.
    /// Resources that share one of these are one server. Holds `server` too when that is a host-level name.
    pub host_names: Vec<Arc<str>>,
    /// Further names by which a consumer may ask for the server (`service.instance.id`, `ip:port`, `backend/server`),
    /// sorted. They never join resources.
    pub aliases: Vec<Arc<str>>,
    /// The cell: unit of partitioning, isolation and publication.
    pub cell: Arc<str>,
    /// The pool: peer group inside the cell. [`DEFAULT_NAME`] is nobody's peer group.
    pub pool: Arc<str>,
    /// Which program on the server speaks: `service.namespace/service.name/service.instance.id`, empty for a plain host
    /// agent. Two senders of one host metric are two lanes of which one wins; request metrics of several senders add up.
    pub sender: Arc<str>,
    /// All attributes as text, sorted by key, for selectors and to keep apart what one sender reports per process.
    pub attributes: Vec<(Arc<str>, Arc<str>)>,
}

impl Resource {
    /// The value of an attribute, if the sender gave it.
    pub fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.binary_search_by(|(k, _)| (**k).cmp(key)).ok().map(|at| &*self.attributes[at].1)
    }
}
