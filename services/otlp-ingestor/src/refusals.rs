//! Senders whose points were rejected, and why, kept for whoever runs them.
//!
//! The sender is told in its answer's partial success, but most SDKs drop that text, and an operator then sees nothing
//! but a server that is not there. Nothing of this runs while all points are accepted. A bound that refuses whole requests
//! is logged here too: a service that takes nothing any more must say so where its operator looks.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use headroom_ingest::RejectReason;
use http::{HeaderMap, header};

/// Pairs of reason and sender that are told apart; whoever comes later is counted together as [`OTHERS`].
pub const SENDERS_MAX: usize = 64;

/// Name of the senders beyond [`SENDERS_MAX`].
pub const OTHERS: &str = "others";

/// Characters kept of a sender's name for itself.
const SENDER_CHARS_MAX: usize = 80;

/// A reason or a bound is logged once in this time.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Points of a sender that were rejected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Why, as a metric label.
    pub reason: &'static str,
    /// What the sender calls itself in its `User-Agent`: its resource may well name nothing.
    pub sender: String,
    /// Points rejected since the start.
    pub points: u64,
    /// What the sender was last told.
    pub message: String,
}

#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    rows: BTreeMap<(RejectReason, String), Row>,
    /// By the word of the reason or bound, of which there is a fixed number.
    logged: BTreeMap<&'static str, Instant>,
}

#[derive(Debug, Default)]
struct Row {
    points: u64,
    message: String,
}

impl Refusals {
    /// Notes what of a request was rejected, and logs reasons that were not logged for a while.
    pub(crate) fn note(
        &self,
        sender: &str,
        message: &str,
        rejections: impl Iterator<Item = (RejectReason, u64)>,
        now: Instant,
    ) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (reason, points) in rejections {
            let mut key = (reason, sender.to_owned());
            if table.rows.len() >= SENDERS_MAX && !table.rows.contains_key(&key) {
                key.1 = OTHERS.to_owned();
            }
            let row = table.rows.entry(key).or_default();
            row.points = row.points.saturating_add(points);
            row.message = message.to_owned();
            if table.is_due(reason.as_str(), now) {
                tracing::warn!(reason = reason.as_str(), sender, "{message}");
            }
        }
    }

    /// Logs that a bound refuses whole requests, if it was not logged for a while.
    pub(crate) fn note_bound(&self, sender: &str, bound: &'static str, message: &str, now: Instant) {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).is_due(bound, now) {
            tracing::warn!(bound, sender, "an OTLP request was refused: {message}");
        }
    }

    pub(crate) fn list(&self) -> Vec<Refused> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = table.rows.iter().map(|((reason, sender), row)| Refused {
            reason: reason.as_str(),
            sender: sender.clone(),
            points: row.points,
            message: row.message.clone(),
        });
        rows.collect()
    }
}

impl Table {
    fn is_due(&mut self, reason: &'static str, now: Instant) -> bool {
        let is_due = self.logged.get(reason).is_none_or(|last| now.saturating_duration_since(*last) >= LOG_EVERY);
        if is_due {
            self.logged.insert(reason, now);
        }
        is_due
    }
}

/// What the sender of a request calls itself.
pub(crate) fn sender_of(headers: &HeaderMap) -> String {
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("unknown");
    agent.chars().take(SENDER_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_add_up_by_reason_and_sender_and_the_table_is_bounded() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        for sender in (0..2 * SENDERS_MAX).map(|number| format!("sender-{number:03}")) {
            for _ in 0..2 {
                refusals.note(&sender, "why", [(RejectReason::NoIdentity, 3)].into_iter(), now);
            }
        }
        refusals.note("sender-000", "why", [(RejectReason::NoTime, 1)].into_iter(), now);
        let list = refusals.list();
        assert_eq!(list.len(), SENDERS_MAX + 2);
        assert!(list.iter().filter(|row| row.sender != OTHERS).all(|row| row.points == 6));
        let others: Vec<_> = list.iter().filter(|row| row.sender == OTHERS).map(|r| (r.reason, r.points)).collect();
        assert_eq!(others, [("no_identity", 6 * SENDERS_MAX as u64), ("no_time", 1)]);
    }

    #[test]
    fn a_reason_is_logged_once_a_minute() {
        let (mut table, start) = (Table::default(), Instant::now());
        let asked = [(0, true), (1, false), (59, false), (60, true), (61, false), (200, true)];
        for (seconds, expected) in asked {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(table.is_due("no_identity", now), expected, "after {seconds} s");
        }
        assert!(table.is_due("log_full", start + Duration::from_secs(61)), "another reason");
    }
}
