//! Resources by themselves: which host one names, when two of them may be on one, and their order.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use headroom_model::resource::Resource;
use rustc_hash::FxHasher;

/// Attributes that name a host: within one server each has one value.
pub(super) const HOST_KINDS: [&str; 4] = ["host.id", "host.name", "k8s.node.name", "k8s.node.uid"];

/// Host-level names by kind, in the order of [`HOST_KINDS`]; a map would take more memory than all else of a server.
pub(super) type Kinds = [Option<Arc<str>>; HOST_KINDS.len()];

/// What resources say about kinds: of each the first that says anything.
pub(super) fn kinds_of<'a>(resources: impl Iterator<Item = &'a Resource> + Clone) -> Kinds {
    HOST_KINDS.map(|kind| {
        resources.clone().find_map(|resource| {
            let named = resource.attributes.iter().find(|(key, _)| &**key == kind);
            named.map(|(_, name)| name.clone())
        })
    })
}

/// Whether a resource may be one of a server's: it contradicts none of its host-level names.
pub(super) fn compatible(server: &Kinds, resource: &Resource) -> bool {
    HOST_KINDS.iter().zip(server).all(|(kind, mine)| match (mine, resource.attribute(kind)) {
        (Some(mine), Some(theirs)) => same_host(mine, theirs),
        _ => true,
    })
}

/// Whether two names may be of one host: equal, or one is the first label of the other.
pub(super) fn same_host(a: &str, b: &str) -> bool {
    a == b || a.split('.').next() == Some(b) || b.split('.').next() == Some(a)
}

/// Whether a resource has no name but a number: it founds a server only where nobody on the host says a name.
pub(super) fn is_nameless(resource: &Resource) -> bool {
    let attribute = resource.attributes.iter().find(|(_, value)| *value == resource.server);
    attribute.is_some_and(|(key, _)| matches!(&**key, "host.id" | "k8s.node.uid"))
}

/// The order in which resources are joined, and stand in their server.
pub(super) fn resource_order(a: &Resource, b: &Resource) -> Ordering {
    (&a.server, &a.host_names, &a.sender, &a.attributes, &a.pool, &a.aliases).cmp(&(
        &b.server,
        &b.host_names,
        &b.sender,
        &b.attributes,
        &b.pool,
        &b.aliases,
    ))
}

/// What one resource and another of the same content have in common.
pub(super) fn content_hash(resource: &Resource) -> u64 {
    let mut hasher = FxHasher::default();
    resource.server.hash(&mut hasher);
    resource.sender.hash(&mut hasher);
    for (key, value) in &resource.attributes {
        key.hash(&mut hasher);
        value.hash(&mut hasher);
    }
    hasher.finish()
}
