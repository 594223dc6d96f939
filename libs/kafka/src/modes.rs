//! The modes that operators have set, in the order in which they were.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use headroom_model::LogRecord;
use tokio::sync::watch;

/// A cell, or all.
type Scope = Option<Arc<str>>;

/// Those in force.
pub(crate) struct Modes {
    /// By scope: the offset, and the record. A word about all cells replaces those about single ones before it.
    set: Mutex<BTreeMap<Scope, (i64, LogRecord)>>,
    changes: watch::Sender<i64>,
}

impl Default for Modes {
    fn default() -> Self {
        Self { set: Mutex::default(), changes: watch::Sender::new(-1) }
    }
}

impl Modes {
    /// Takes a record of the topic; whether it could be understood.
    pub(crate) fn take(&self, offset: i64, value: &[u8]) -> bool {
        let Ok(record @ LogRecord::Mode { .. }) = LogRecord::decode(value) else { return false };
        let LogRecord::Mode { cell, .. } = &record else { return false };
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        if cell.is_none() {
            set.clear();
        }
        set.insert(cell.clone(), (offset, record));
        drop(set);
        self.changes.send_replace(offset);
        true
    }

    /// Those in force, in the order in which they were set, each with its place in that order.
    pub(crate) fn in_force(&self) -> Vec<(i64, LogRecord)> {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let mut modes: Vec<_> = set.values().cloned().collect();
        modes.sort_by_key(|(offset, _)| *offset);
        modes
    }

    /// Wakes when one was set.
    pub(crate) fn subscribe(&self) -> watch::Receiver<i64> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use headroom_model::policy::Mode;

    use super::*;

    fn record(cell: Option<&str>, mode: Option<Mode>) -> LogRecord {
        LogRecord::Mode { cell: cell.map(Into::into), mode, owner: "o".into(), reason: "r".into() }
    }

    #[test]
    fn a_word_about_all_cells_replaces_those_before_it_and_no_later_one() {
        let modes = Modes::default();
        let (single, all, later) = (
            record(Some("eu"), Some(Mode::Off)),
            record(None, Some(Mode::Observe)),
            record(Some("us"), Some(Mode::Off)),
        );
        for (offset, record) in [(3, &single), (7, &all), (9, &later)] {
            assert!(modes.take(offset, &record.encode()));
        }
        assert_eq!(modes.in_force(), [(7, all), (9, later)]);
        assert!(!modes.take(10, &LogRecord::Tick(Default::default()).encode()));
        assert!(!modes.take(11, b"?"));
        assert_eq!(*modes.subscribe().borrow(), 9);
    }
}
