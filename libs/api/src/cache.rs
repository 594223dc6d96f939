//! Bytes made once and shared by all who ask for the same.
//!
//! An entry belongs to the views that it was made of and is worth nothing once one of them is not the latest; it is let
//! go of when the next one is made. What finds no room is given to those who asked and not kept: a cache makes answers
//! cheaper, never memory unbounded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::OnceCell;

/// Entries of a cache; small ones must not make it large either.
const ENTRIES_MAX: usize = 4_096;

/// Where the bytes of an entry appear; whoever comes first makes them, and others wait for the same ones.
pub(crate) type Slot = Arc<OnceCell<Bytes>>;

/// Bytes by question, for the latest views of type `T`, with what else they depend on.
pub(crate) struct Cache<K, V, T> {
    entries: Mutex<BTreeMap<K, Entry<V, T>>>,
    bytes_max: usize,
}

struct Entry<V, T> {
    version: V,
    // Weak, or the cache would keep whole snapshots alive.
    views: Vec<Weak<T>>,
    slot: Slot,
}

impl<V: PartialEq, T> Entry<V, T> {
    fn is_of(&self, version: &V, views: &[Arc<T>]) -> bool {
        let same_views = || self.views.iter().zip(views).all(|(held, view)| held.as_ptr() == Arc::as_ptr(view));
        self.version == *version && self.views.len() == views.len() && same_views()
    }

    fn bytes(&self) -> usize {
        self.slot.get().map_or(0, Bytes::len)
    }
}

impl<K: Ord, V: PartialEq, T> Cache<K, V, T> {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { entries: Mutex::default(), bytes_max }
    }

    /// The bytes for these views, where somebody has made them.
    pub(crate) fn get(&self, key: &K, version: &V, views: &[Arc<T>]) -> Option<Bytes> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(key).filter(|entry| entry.is_of(version, views))?;
        entry.slot.get().cloned()
    }

    /// Where the bytes for these views are or will be. Whoever has made them says so with [`Self::made`].
    pub(crate) fn slot(&self, key: K, version: V, views: &[Arc<T>]) -> Slot {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(&key).filter(|entry| entry.is_of(&version, views)) {
            return Arc::clone(&entry.slot);
        }
        entries.retain(|_, entry| entry.views.iter().all(|view| view.strong_count() > 0));
        let slot = Slot::default();
        if entries.len() < ENTRIES_MAX || entries.contains_key(&key) {
            let views = views.iter().map(Arc::downgrade).collect();
            entries.insert(key, Entry { version, views, slot: Arc::clone(&slot) });
        }
        slot
    }

    /// Keeps the bytes of a slot if there is room for them.
    pub(crate) fn made(&self, key: &K, slot: &Slot) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = entries.values().map(Entry::bytes).sum::<usize>() > self.bytes_max;
        if is_over && entries.get(key).is_some_and(|entry| Arc::ptr_eq(&entry.slot, slot)) {
            entries.remove(key);
        }
    }

    /// Keeps bytes that are made already.
    pub(crate) fn keep(&self, key: K, version: V, views: &[Arc<T>], bytes: &Bytes)
    where
        K: Clone,
    {
        let slot = self.slot(key.clone(), version, views);
        let _ = slot.set(bytes.clone());
        self.made(&key, &slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(cache: &Cache<&'static str, (), &'static str>) -> Vec<&'static str> {
        let entries = cache.entries.lock().expect("no test panics while it holds this");
        entries.keys().copied().collect()
    }

    #[test]
    fn what_is_kept_has_a_bound_and_ends_with_what_it_was_made_of() {
        let cache = Cache::new(10);
        let (eu, us) = ([Arc::new("eu-1 at 10")], [Arc::new("us-1 at 10")]);
        let bytes = |count| Bytes::from(vec![7; count]);
        cache.keep("eu", (), &eu, &bytes(6));
        cache.keep("us", (), &us, &bytes(5));
        assert_eq!((kept(&cache), cache.get(&"us", &(), &us)), (vec!["eu"], None));
        assert_eq!(cache.get(&"eu", &(), &eu), Some(bytes(6)));
        let next = [Arc::new("eu-1 at 20")];
        assert_eq!(cache.get(&"eu", &(), &next), None);
        drop(eu);
        cache.keep("us", (), &us, &bytes(5));
        assert_eq!(kept(&cache), ["us"]);
    }
}
