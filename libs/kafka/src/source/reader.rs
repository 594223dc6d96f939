//! The loop of a reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use headroom_log::SampleLog;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};

use super::context::SourceContext;
use super::dead_letter::{DeadLetters, Letter};
use super::flight::Flight;
use super::metrics::SourceMetrics;
use super::partitions::list;
use super::{Intake, Refusal, SourceOptions, SourceRecord, Start, beginning};

/// Samples that are handed over at once, whatever else is there: enough to make a record of the log worth its sync.
const POINTS_PER_UNIT: usize = 32_768;

/// Bytes of records, likewise.
const BYTES_PER_UNIT: u64 = 4 << 20;

/// How long a poll waits when nothing is in flight, when something is, and when records are staged that others may join.
const IDLE: Duration = Duration::from_millis(100);
const BUSY: Duration = Duration::from_millis(5);
const STAGED: Duration = Duration::from_millis(2);

/// How often offsets are committed, and how often the pace is set.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
const PACE_EVERY: Duration = Duration::from_millis(20);

/// How long a reader that stops may take.
const STOP: Duration = Duration::from_secs(5);

/// A record that was made longer ago is overdue: somewhat less than the lateness that policies allow by default, 15 s.
const OVERDUE_MS: i64 = 10_000;

/// How often skipped records and errors of one kind are logged, each.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// A running reader. Dropped, it goes on until the process ends; [`Reader::stop`] ends it in order.
#[derive(Debug)]
pub struct Reader {
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Reader {
    /// Finishes what is in flight, commits, and leaves the group. Blocks for up to [`STOP`].
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Release);
        let until = Instant::now() + STOP;
        while !self.thread.is_finished() {
            if Instant::now() >= until {
                // Brokers that do not answer must not hold up the end of the process.
                tracing::warn!(
                    "a Kafka source could not commit and leave its group in time; some records are read twice"
                );
                return;
            }
            std::thread::sleep(BUSY);
        }
        if self.thread.join().is_err() {
            tracing::error!("a reader of a Kafka source ended with a panic");
        }
    }
}

/// Starts a reader of a source. A cluster that cannot be reached is no error: it is tried until it can.
///
/// # Errors
/// A sentence that says which setting the client does not take.
pub fn start(
    options: SourceOptions,
    log: Arc<dyn SampleLog>,
    intake: Box<dyn Intake>,
    metrics: SourceMetrics,
) -> Result<Reader, String> {
    let letters = DeadLetters::new(&options)?;
    let flight = Flight::new(options.name.clone(), log, letters, metrics.clone());
    let context = SourceContext::new(options.name.clone(), metrics.clone(), flight);
    let consumer: BaseConsumer<SourceContext> = options
        .consumer_config()
        .create_with_context(context)
        .map_err(|error| format!("source `{}`: its consumer cannot be made: {error}", options.name))?;
    // The library checks what it is to subscribe to, but the group is joined only when it is known where it begins.
    subscribe(&consumer, &options)?;
    consumer.unsubscribe();
    let stopping = Arc::new(AtomicBool::new(false));
    let flag = stopping.clone();
    let name = format!("source-{}", options.name);
    consumer.context().shared().staged = 1;
    let mut work = Work {
        consumer,
        intake,
        options,
        metrics,
        unit: 1,
        units: 1,
        staged_records: 0,
        staged_bytes: 0,
        next_commit: Instant::now() + COMMIT_EVERY,
        next_pace: Instant::now(),
        logged_skip: None,
        logged_error: None,
    };
    let thread = std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            work.begin(&flag);
            while !flag.load(Ordering::Acquire) {
                work.once();
            }
            work.finish();
        })
        .map_err(|error| format!("cannot start the thread of a source: {error}"))?;
    Ok(Reader { stopping, thread })
}

struct Work {
    consumer: BaseConsumer<SourceContext>,
    intake: Box<dyn Intake>,
    options: SourceOptions,
    metrics: SourceMetrics,
    /// The unit that records are staged in. A letter is a unit of its own.
    unit: u64,
    /// The last number given to a unit.
    units: u64,
    staged_records: u64,
    staged_bytes: u64,
    next_commit: Instant,
    next_pace: Instant,
    logged_skip: Option<Instant>,
    logged_error: Option<Instant>,
}

fn subscribe(consumer: &BaseConsumer<SourceContext>, options: &SourceOptions) -> Result<(), String> {
    let topics: Vec<&str> = options.topics.iter().map(String::as_str).collect();
    consumer.subscribe(&topics).map_err(|error| {
        format!(
            "source `{}`: cannot subscribe to {}: {error}; a topic that begins with `^` must be a regular expression",
            options.name,
            topics.join(", ")
        )
    })
}

impl Work {
    /// Finds out where the group begins, and joins it.
    fn begin(&mut self, stopping: &AtomicBool) {
        while self.options.start == Start::Latest && !stopping.load(Ordering::Acquire) {
            match beginning::before_a_new_group(&self.consumer, &self.options.topics) {
                Ok(there) => {
                    self.consumer.context().shared().skipped = there;
                    break;
                }
                Err(error) => {
                    self.complain(&error);
                    std::thread::sleep(IDLE);
                }
            }
        }
        if let Err(error) = subscribe(&self.consumer, &self.options) {
            tracing::error!("{error}");
        }
    }

    /// One record, or one look around.
    fn once(&mut self) {
        let is_busy = self.staged_records > 0 || !self.consumer.context().shared().flight.is_empty();
        let timeout = match (self.staged_records > 0, is_busy) {
            (true, _) => STAGED,
            (false, true) => BUSY,
            (false, false) => IDLE,
        };
        match self.consumer.poll(timeout) {
            Some(Ok(message)) => {
                let (unit, bytes) = (self.unit, message.payload_len() as u64);
                let wall_ms = (self.options.wall_ms)();
                let refusal = take(&mut *self.intake, &message, wall_ms).err();
                self.metrics.bytes.add(bytes);
                let now = Instant::now();
                {
                    let mut shared = self.consumer.context().shared();
                    let timestamp_ms = message.timestamp().to_millis();
                    shared.pace.saw(message.topic(), message.partition(), timestamp_ms, wall_ms, now);
                    match refusal {
                        Some(refusal) if shared.flight.has_letters() => {
                            self.units += 1;
                            let own = self.units;
                            let letter = Letter::new(&self.options.name, &message, &refusal);
                            self.metrics.refused(&refusal);
                            shared.offsets.note(message.topic(), message.partition(), message.offset(), own);
                            shared.flight.send(own, letter, now);
                        }
                        Some(refusal) => {
                            self.metrics.refused(&refusal);
                            self.metrics.letter("skipped");
                            shared.offsets.note(message.topic(), message.partition(), message.offset(), unit);
                            self.staged_records += 1;
                            if is_due(&mut self.logged_skip, now) {
                                tracing::warn!(
                                    source = self.options.name,
                                    topic = message.topic(),
                                    partition = message.partition(),
                                    offset = message.offset(),
                                    reason = refusal.reason,
                                    "a record cannot be used and is skipped, there is no dead_letter_topic: {}",
                                    refusal.message
                                );
                            }
                        }
                        None => {
                            shared.offsets.note(message.topic(), message.partition(), message.offset(), unit);
                            self.staged_records += 1;
                            self.staged_bytes += bytes;
                        }
                    }
                }
                let is_enough = self.intake.staged_points() >= POINTS_PER_UNIT || self.staged_bytes >= BYTES_PER_UNIT;
                // Nothing is staged for longer than the pace, however steadily records trickle in.
                if is_enough || now >= self.next_pace {
                    self.hand_over();
                    self.look_around(now);
                }
            }
            Some(Err(error)) => self.complain(&error),
            None => {
                self.hand_over();
                self.look_around(Instant::now());
            }
        }
    }

    /// Hands the staged records over.
    fn hand_over(&mut self) {
        if self.staged_records == 0 {
            return;
        }
        let parts = self.intake.hand_over();
        let bytes = std::mem::take(&mut self.staged_bytes);
        self.staged_records = 0;
        self.units += 1;
        let mut shared = self.consumer.context().shared();
        shared.flight.append(self.unit, bytes, parts);
        self.unit = self.units;
        shared.staged = self.unit;
    }

    /// Looks at what is in flight, sets the pace, commits.
    fn look_around(&mut self, now: Instant) {
        self.next_pace = now + PACE_EVERY;
        let context = self.consumer.context();
        let change = {
            let mut shared = context.shared();
            shared.drive(now);
            let shared = &mut *shared;
            let (held, is_blocked) = (shared.flight.held_bytes(), shared.flight.is_blocked());
            let bytes_max = self.options.in_flight_bytes_max();
            let was_full = shared.pace.is_full();
            let change = shared.pace.decide(shared.offsets.assigned(), held, bytes_max, is_blocked, now);
            if shared.pace.is_full() != was_full {
                tracing::debug!(source = self.options.name, held, is_blocked, is_full = !was_full, "pace changed");
            }
            self.metrics.held.set(held as f64);
            self.metrics.paused.set(shared.pace.paused() as f64);
            change
        };
        for (partitions, pause) in [(&change.pause, true), (&change.resume, false)] {
            if partitions.is_empty() {
                continue;
            }
            let list = list(partitions);
            let done = if pause { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
            if let Err(error) = done {
                tracing::warn!(source = self.options.name, "partitions cannot be paused or resumed: {error}");
            }
        }
        if now >= self.next_commit {
            self.next_commit = now + COMMIT_EVERY;
            self.consumer.context().commit(&self.consumer, false);
        }
    }

    fn complain(&mut self, error: &KafkaError) {
        let code = error.rdkafka_error_code();
        self.metrics.error(&code.map_or_else(|| "other".to_owned(), |code| format!("{code:?}")));
        if is_due(&mut self.logged_error, Instant::now()) {
            let hint = match code {
                Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                    "; the topic does not exist (yet)"
                }
                Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed) => {
                    "; give this user read access to topic and group"
                }
                _ => "",
            };
            tracing::warn!(source = self.options.name, "reading from Kafka: {error}{hint}");
        }
    }

    /// The end: what is staged becomes durable, offsets are committed, the group is left.
    fn finish(mut self) {
        self.hand_over();
        self.consumer.context().settle(None);
        self.consumer.context().commit(&self.consumer, true);
        self.metrics.assigned.set(0.0);
        self.metrics.paused.set(0.0);
        self.metrics.held.set(0.0);
        // Dropping the consumer leaves the group.
    }
}

fn take(intake: &mut dyn Intake, message: &BorrowedMessage<'_>, wall_ms: i64) -> Result<(), Refusal> {
    let Some(payload) = message.payload() else {
        return Err(Refusal { reason: "empty", message: "the record has no value".to_owned(), encoding: "" });
    };
    let content_type = message.headers().and_then(|headers| {
        let header = headers.iter().find(|header| header.key.eq_ignore_ascii_case("content-type"))?;
        std::str::from_utf8(header.value?).ok()
    });
    let timestamp_ms = message.timestamp().to_millis().filter(|ms| *ms >= 0);
    intake.take(&SourceRecord {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms,
        is_overdue: timestamp_ms.is_some_and(|ms| wall_ms < i64::MAX && wall_ms.saturating_sub(ms) > OVERDUE_MS),
        content_type,
        payload,
    })
}

/// Whether something may be logged again.
pub(super) fn is_due(last: &mut Option<Instant>, now: Instant) -> bool {
    let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= LOG_EVERY);
    if is_due {
        *last = Some(now);
    }
    is_due
}
