//! What has been taken and is not yet safe: it waits for the log or for the dead-letter topic, and is tried again when
//! it is refused for now.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use headroom_log::{Append, SampleLog};
use headroom_model::LogRecord;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::DeliveryFuture;

use super::dead_letter::{DeadLetters, Letter};
use super::metrics::SourceMetrics;

/// How long after a refusal the same is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// How often the same trouble is logged.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// Everything in flight of one reader.
pub(super) struct Flight {
    source: String,
    log: Arc<dyn SampleLog>,
    letters: Option<DeadLetters>,
    units: VecDeque<Unit>,
    held_bytes: u64,
    is_blocked: bool,
    logged: Option<Instant>,
    metrics: SourceMetrics,
}

struct Unit {
    number: u64,
    bytes: u64,
    parts: Vec<Part>,
}

enum Part {
    Append { partition: u32, record: Arc<LogRecord>, state: State<Append> },
    Letter { letter: Letter, state: State<DeliveryFuture> },
}

enum State<T> {
    Under(T),
    Again(Instant),
}

enum Outcome {
    Done,
    Waiting,
    /// Refused for now.
    Again(String),
}

impl Flight {
    pub(super) fn new(
        source: String,
        log: Arc<dyn SampleLog>,
        letters: Option<DeadLetters>,
        metrics: SourceMetrics,
    ) -> Self {
        let units = VecDeque::new();
        Self { source, log, letters, units, held_bytes: 0, is_blocked: false, logged: None, metrics }
    }

    /// Bytes of records in flight.
    pub(super) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Whether something was refused and waits to be tried again.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    pub(super) fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// Whether refused records are kept for others.
    pub(super) fn has_letters(&self) -> bool {
        self.letters.is_some()
    }

    /// Appends the parts of a unit, whose records had so many bytes.
    pub(super) fn append(&mut self, number: u64, bytes: u64, parts: Vec<(u32, Arc<LogRecord>)>) {
        let parts = parts
            .into_iter()
            .map(|(partition, record)| {
                let state = State::Under(self.log.append(partition, record.clone()));
                Part::Append { partition, record, state }
            })
            .collect();
        self.held_bytes += bytes;
        self.units.push_back(Unit { number, bytes, parts });
    }

    /// Writes a letter as a unit of its own.
    pub(super) fn send(&mut self, number: u64, letter: Letter, now: Instant) {
        let bytes = letter.bytes();
        let state = match self.letters.as_ref().and_then(|letters| letters.send(&letter)) {
            Some(delivery) => State::Under(delivery),
            None => State::Again(now + RETRY_AFTER),
        };
        self.held_bytes += bytes;
        self.units.push_back(Unit { number, bytes, parts: vec![Part::Letter { letter, state }] });
    }

    /// Looks at everything in flight, tries again what is due, and returns the units that are done.
    pub(super) fn drive(&mut self, now: Instant) -> Vec<u64> {
        let mut done = Vec::new();
        let mut trouble = None;
        self.is_blocked = false;
        for unit in &mut self.units {
            let (log, letters, metrics, source) = (&*self.log, self.letters.as_ref(), &self.metrics, &self.source);
            unit.parts.retain_mut(|part| match part.poll(log, letters, metrics, source, now) {
                Outcome::Done => false,
                Outcome::Waiting => {
                    self.is_blocked |= part.is_refused();
                    true
                }
                Outcome::Again(why) => {
                    self.is_blocked = true;
                    trouble = Some(why);
                    true
                }
            });
            if unit.parts.is_empty() {
                done.push(unit.number);
                self.held_bytes -= unit.bytes;
            }
        }
        if !done.is_empty() {
            self.units.retain(|unit| !unit.parts.is_empty());
        }
        if let Some(why) = trouble
            && self.logged.is_none_or(|last| now.saturating_duration_since(last) >= LOG_EVERY)
        {
            self.logged = Some(now);
            tracing::warn!(source = self.source, "reading is paused until it is taken: {why}");
        }
        done
    }
}

impl Part {
    fn is_refused(&self) -> bool {
        matches!(self, Self::Append { state: State::Again(_), .. } | Self::Letter { state: State::Again(_), .. })
    }

    fn poll(
        &mut self,
        log: &dyn SampleLog,
        letters: Option<&DeadLetters>,
        metrics: &SourceMetrics,
        source: &str,
        now: Instant,
    ) -> Outcome {
        // Nobody is to be woken: the reader comes by all the time.
        let mut context = Context::from_waker(Waker::noop());
        match self {
            Self::Append { partition, record, state } => {
                if let State::Again(at) = state {
                    if now < *at {
                        return Outcome::Waiting;
                    }
                    *state = State::Under(log.append(*partition, record.clone()));
                }
                let State::Under(append) = state else { return Outcome::Waiting };
                match Pin::new(append).poll(&mut context) {
                    Poll::Pending => Outcome::Waiting,
                    Poll::Ready(Ok(_)) => {
                        metrics.accepted(points_of(record));
                        Outcome::Done
                    }
                    Poll::Ready(Err(error)) if error.is_retryable() => {
                        metrics.retry(error.reason());
                        *state = State::Again(now + RETRY_AFTER);
                        Outcome::Again(error.to_string())
                    }
                    Poll::Ready(Err(error)) => {
                        let points = points_of(record);
                        metrics.rejected(error.reason(), points, &error.to_string());
                        tracing::error!(source, points, "samples are lost, the log will never take them: {error}");
                        Outcome::Done
                    }
                }
            }
            Self::Letter { letter, state } => {
                if let State::Again(at) = state {
                    if now < *at {
                        return Outcome::Waiting;
                    }
                    match letters.and_then(|letters| letters.send(letter)) {
                        Some(delivery) => *state = State::Under(delivery),
                        None => *state = State::Again(now + RETRY_AFTER),
                    }
                }
                let State::Under(delivery) = state else { return Outcome::Waiting };
                let failure = match Pin::new(delivery).poll(&mut context) {
                    Poll::Pending => return Outcome::Waiting,
                    Poll::Ready(Ok(Ok(_))) => {
                        metrics.letter("written");
                        return Outcome::Done;
                    }
                    Poll::Ready(Ok(Err((error, _)))) => error,
                    Poll::Ready(Err(_)) => KafkaError::Canceled,
                };
                if is_final(&failure) {
                    metrics.letter("lost");
                    tracing::error!(source, "a record that cannot be used cannot be kept either: {failure}");
                    return Outcome::Done;
                }
                metrics.letter("failed");
                *state = State::Again(now + RETRY_AFTER);
                let hint = match failure.rdkafka_error_code() {
                    // An unknown topic is waited for until the time of the record is up.
                    Some(
                        RDKafkaErrorCode::MessageTimedOut
                        | RDKafkaErrorCode::UnknownTopicOrPartition
                        | RDKafkaErrorCode::UnknownTopic,
                    ) => "; does the topic exist? it is not made by itself",
                    _ => "",
                };
                Outcome::Again(format!("the dead-letter topic does not take a record: {failure}{hint}"))
            }
        }
    }
}

fn points_of(record: &LogRecord) -> u64 {
    record.samples().map_or(0, |batch| batch.len() as u64)
}

/// Whether the broker will never take it.
fn is_final(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use headroom_log::Position;
    use headroom_log::memory::MemorySampleLog;
    use headroom_model::{Resource, SampleBatchBuilder, Series, SeriesKind};
    use headroom_telemetry::{Telemetry, TelemetryOptions};

    fn samples(rows: usize) -> Arc<LogRecord> {
        let mut builder = SampleBatchBuilder::default();
        let name: Arc<str> = "a".into();
        let resource = builder.add_resource(Arc::new(Resource {
            server: name.clone(),
            host_names: vec![name.clone()],
            aliases: Vec::new(),
            cell: name.clone(),
            pool: name.clone(),
            sender: name.clone(),
            attributes: Vec::new(),
        }));
        let series = builder.add_series(Arc::new(Series {
            metric: name.clone(),
            unit: name,
            kind: SeriesKind::Gauge,
            attributes: Arc::default(),
            bounds: Arc::default(),
        }));
        (0..rows).for_each(|row| builder.push(resource, series, 0, row as i64 + 1, 0.0));
        Arc::new(LogRecord::Samples(Arc::new(builder.finish())))
    }

    #[test]
    fn what_a_full_log_refuses_is_kept_and_taken_when_there_is_room() {
        let telemetry = Telemetry::new(TelemetryOptions { server_series_max: 0 });
        let log = Arc::new(MemorySampleLog::new(1, 64 << 10));
        let mut flight = Flight::new("s".into(), log.clone(), None, SourceMetrics::new(&telemetry, "s"));
        let start = Instant::now();
        // Each takes more than a third of the log.
        for unit in 1..=3 {
            flight.append(unit, 100, vec![(0, samples(1_500))]);
        }
        assert_eq!(flight.drive(start), [1, 2]);
        assert_eq!((flight.held_bytes(), flight.is_blocked()), (100, true));
        assert_eq!(flight.drive(start + RETRY_AFTER / 2), Vec::<u64>::new(), "not yet due");
        assert!(flight.is_blocked());
        assert_eq!(flight.drive(start + RETRY_AFTER), Vec::<u64>::new(), "still full");
        let end = log.end(0);
        log.set_retention_floor(0, end);
        log.truncate_before(0, end);
        assert_eq!(flight.drive(start + 2 * RETRY_AFTER), [3]);
        assert_eq!((flight.held_bytes(), flight.is_blocked(), flight.is_empty()), (0, false, true));
        assert!(log.end(0) > Position(2));
    }

    #[test]
    fn a_part_that_the_log_will_never_take_is_counted_and_does_not_hold_up_the_rest() {
        let telemetry = Telemetry::new(TelemetryOptions { server_series_max: 0 });
        let metrics = SourceMetrics::new(&telemetry, "s");
        let log = Arc::new(MemorySampleLog::new(1, 1 << 20));
        let mut flight = Flight::new("s".into(), log.clone(), None, metrics.clone());
        flight.append(1, 1, vec![(0, samples(1)), (7, samples(5))]);
        assert_eq!(flight.drive(Instant::now()), [1]);
        let refused = metrics.refusals();
        assert_eq!(refused.iter().map(|each| (each.reason, each.count)).collect::<Vec<_>>(), [("log_partition", 5)]);
        assert_eq!(log.end(0), Position(1));
    }
}
