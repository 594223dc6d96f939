//! Commands as records: what the API may have done, over the sample log and the engines of this process.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use headroom_aggregator::{ClockError as EventClockError, EventClock, Status};
use headroom_api::{Ack, BoxFuture, ClockError, CommandError, Commands, PolicyText, RemoveServer, SetMode};
use headroom_config::{ConfigErrors, Origin, Problem, load_policy};
use headroom_log::{AppendError, SampleLog};
use headroom_model::hash::partition_of;
use headroom_model::policy::Mode;
use headroom_model::{LogRecord, Policy, Timestamp};
use headroom_wire::ProblemItem;
use headroom_wire::operate::{InputsReport, PolicySummary, SeenMetric};

use crate::inputs::{self, LastReport};

/// The configured policy, replaced on reload.
pub type Policies = Arc<ArcSwap<Policy>>;

/// Tells readers of a [`LogRecord::Mode`]; resolves when they are sure to learn of it.
pub type TellReaders = Arc<dyn Fn(Arc<LogRecord>) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What the commands work on.
pub struct CommandsOptions {
    /// Where records go.
    pub log: Arc<dyn SampleLog>,
    /// The engines of this process.
    pub status: Arc<Status>,
    /// The clock, in event time.
    pub clock: Option<Arc<EventClock>>,
    /// The policy in force, unless the engines of other processes tell of another.
    pub policy: Policies,
    /// Tells the readers of all processes of a mode, where there are others.
    pub tell_readers: Option<TellReaders>,
    /// What the OTLP role of this process refused.
    pub refused: Arc<dyn Fn() -> Vec<SeenMetric> + Send + Sync>,
}

/// Commands over the sample log.
pub struct LogCommands(CommandsOptions, LastReport);

impl LogCommands {
    /// Commands over these parts.
    pub fn new(options: CommandsOptions) -> Self {
        Self(options, LastReport::default())
    }

    /// Appends a record to the partition of a cell, or to all.
    async fn append(&self, cell: Option<&str>, record: LogRecord) -> Result<(), CommandError> {
        let partitions = self.0.log.partitions();
        let record = Arc::new(record);
        let targets = match cell {
            Some(cell) => {
                let partition = partition_of(cell, partitions);
                partition..partition + 1
            }
            None => 0..partitions,
        };
        let appends: Vec<_> = targets.map(|partition| self.0.log.append(partition, record.clone())).collect();
        for append in appends {
            append.await.map_err(refusal)?;
        }
        Ok(())
    }
}

fn refusal(error: AppendError) -> CommandError {
    if error.is_retryable() {
        CommandError::Unavailable(error.to_string())
    } else {
        CommandError::Refused(error.to_string())
    }
}

impl Commands for LogCommands {
    fn set_mode(&self, command: SetMode) -> BoxFuture<'_, Result<(), CommandError>> {
        Box::pin(async move {
            let SetMode { cell, mode, owner, reason } = command;
            tracing::warn!(
                cell = cell.as_deref().unwrap_or("all"),
                mode = name_of(mode),
                owner = &*owner,
                reason = &*reason,
                "an operator set the mode"
            );
            let record = LogRecord::Mode { cell: cell.clone(), mode, owner, reason };
            // Both in any case: one that fails must not keep the other from working.
            let told = match &self.0.tell_readers {
                Some(tell) => tell(Arc::new(record.clone())).await.map_err(CommandError::Unavailable),
                None => Ok(()),
            };
            self.append(cell.as_deref(), record).await.and(told)
        })
    }

    fn readers_are_told(&self) -> bool {
        self.0.tell_readers.is_some()
    }

    fn remove_server(&self, command: RemoveServer) -> BoxFuture<'_, Result<(), CommandError>> {
        Box::pin(async move {
            let RemoveServer { cell, server, owner, reason } = command;
            tracing::warn!(
                cell = &*cell,
                server = &*server,
                owner = &*owner,
                reason = &*reason,
                "an operator removed a server"
            );
            self.append(Some(&cell.clone()), LogRecord::Remove { cell, server, owner, reason }).await
        })
    }

    fn append_acks(&self, acks: Vec<Ack>) -> BoxFuture<'_, Result<(), CommandError>> {
        Box::pin(async move {
            let partitions = self.0.log.partitions();
            let append = |ack: Ack| {
                let Ack { cell, server, class, consumer, epoch, in_use } = ack;
                let partition = partition_of(&cell, partitions);
                let record = LogRecord::Ack { cell, server, class, consumer, epoch, in_use };
                self.0.log.append(partition, Arc::new(record))
            };
            // All before the first is waited for, so that they share the log's commits.
            let appends: Vec<_> = acks.into_iter().map(append).collect();
            let mut outcome = Ok(());
            for append in appends {
                outcome = outcome.and(append.await.map(drop).map_err(refusal));
            }
            outcome
        })
    }

    fn advance_clock(&self, now: Timestamp) -> BoxFuture<'_, Result<BTreeMap<String, i64>, ClockError>> {
        Box::pin(async move {
            let Some(clock) = &self.0.clock else {
                return Err(ClockError::Unavailable("the service runs on the wall clock".to_owned()));
            };
            match clock.advance(now).await {
                Ok(epochs) => Ok(epochs.into_iter().map(|(cell, epoch)| (cell.to_string(), epoch)).collect()),
                Err(EventClockError::GoesBack { last }) => Err(ClockError::Backwards { now: last }),
                Err(EventClockError::TooFar { boundaries }) => Err(ClockError::TooManyTicks {
                    ticks: boundaries.unsigned_abs(),
                    max: headroom_aggregator::clock::BOUNDARIES_MAX.unsigned_abs(),
                }),
                Err(error) => Err(ClockError::Unavailable(error.to_string())),
            }
        })
    }

    fn check_policy(&self, text: String) -> BoxFuture<'_, Result<PolicySummary, Vec<ProblemItem>>> {
        Box::pin(async move {
            // Compiling expressions is work for a thread that may be busy.
            let checked = tokio::task::spawn_blocking(move || load_policy(CHECKED_NAME, &text)).await;
            match checked {
                Ok(Ok(policy)) => Ok(summary(&policy)),
                Ok(Err(errors)) => Err(problems(errors)),
                Err(_) => Err(vec![ProblemItem {
                    path: String::new(),
                    line: None,
                    column: None,
                    message: "the policy could not be checked; see the service's log".to_owned(),
                    hint: None,
                }]),
            }
        })
    }

    fn policy(&self) -> PolicyText {
        // Where the engines are elsewhere, theirs is in force and this process's own file only what it might be.
        if let Some((hash, text)) = self.0.status.policy() {
            return PolicyText { hash, text };
        }
        let policy = self.0.policy.load();
        PolicyText { hash: policy.hash.clone(), text: policy.text.clone() }
    }

    fn full_cells(&self) -> Vec<Arc<str>> {
        self.0.status.full_cells()
    }

    fn inputs(&self) -> BoxFuture<'_, Result<InputsReport, CommandError>> {
        Box::pin(async move {
            let made = self.1.get(async {
                let reports = self.0.status.inputs().await;
                let policy = self.0.policy.load_full();
                // Looking for the nearest names is work for a thread that may be busy.
                let report = tokio::task::spawn_blocking(move || {
                    let seen = reports.iter().flat_map(|partition| &partition.metrics);
                    let mut report = inputs::report(seen, &policy);
                    report.truncated = reports.iter().any(|partition| partition.left_off > 0);
                    report
                });
                report.await.ok()
            });
            let failed = || CommandError::Unavailable("what was seen could not be looked through".to_owned());
            let mut report = made.await.ok_or_else(failed)?;
            report.refused.extend((self.0.refused)());
            Ok(report)
        })
    }
}

/// A mode as the log names it.
fn name_of(mode: Option<Mode>) -> String {
    match mode {
        None => "as the policy says".to_owned(),
        Some(Mode::Off) => "off".to_owned(),
        Some(Mode::Observe) => "observe".to_owned(),
        Some(Mode::Enforce { percent }) => format!("enforce {percent} %"),
    }
}

/// What messages call the policy that was sent to be checked.
const CHECKED_NAME: &str = "policy";

fn summary(policy: &Policy) -> PolicySummary {
    PolicySummary {
        policy_hash: policy.hash.to_string(),
        inputs: policy.inputs.iter().map(|input| input.name.clone()).collect(),
        signals: policy.signals.iter().map(|signal| signal.name.clone()).collect(),
        classes: policy.classes.clone(),
        rules: policy.rules.iter().map(|rule| rule.name.clone()).collect(),
        warnings: Vec::new(),
    }
}

/// The problems as the API tells them. Lines are those of the policy that was sent: a place in the one that it extends, of
/// which the sender has no text, is named in the message.
fn problems(errors: ConfigErrors) -> Vec<ProblemItem> {
    let item = |problem: Problem| {
        let Problem { origin, path, mut message, suggestion, .. } = problem;
        let place = match &origin {
            Origin::File { file, line, column } if &**file == CHECKED_NAME => Some((*line as u64, *column as u64)),
            origin @ Origin::File { .. } => {
                message = format!("{origin}: {message}");
                None
            }
            _ => None,
        };
        let (line, column) = place.unzip();
        ProblemItem { path: path.into(), line, column, message, hint: suggestion }
    };
    errors.0.into_iter().map(item).collect()
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Mutex;
    use std::task::{Context, Poll, Waker};

    use headroom_log::memory::MemorySampleLog;
    use headroom_log::{Append, AppendTicket, LogReader, LogStats, Position, ReadError};

    use super::*;

    /// A log whose records wait until they are told to be durable.
    struct Waiting(MemorySampleLog, Mutex<Vec<AppendTicket>>);

    impl SampleLog for Waiting {
        fn partitions(&self) -> u32 {
            self.0.partitions()
        }

        fn append(&self, _: u32, _: Arc<LogRecord>) -> Append {
            let (ticket, append) = Append::pending();
            self.1.lock().expect("no test panics while it holds this").push(ticket);
            append
        }

        fn reader(&self, partition: u32, from: Position) -> Result<Box<dyn LogReader>, ReadError> {
            self.0.reader(partition, from)
        }

        fn oldest(&self, partition: u32) -> Position {
            self.0.oldest(partition)
        }

        fn end(&self, partition: u32) -> Position {
            self.0.end(partition)
        }

        fn set_retention_floor(&self, partition: u32, floor: Position) {
            self.0.set_retention_floor(partition, floor);
        }

        fn truncate_before(&self, partition: u32, before: Position) -> Position {
            self.0.truncate_before(partition, before)
        }

        fn stats(&self, partition: u32) -> Option<Arc<LogStats>> {
            self.0.stats(partition)
        }
    }

    #[test]
    fn a_problem_says_where_in_which_policy() {
        let told = |text: &str| {
            let errors = load_policy(CHECKED_NAME, text).expect_err("it is wrong");
            problems(errors).into_iter().map(|item| (item.path, item.line, item.message)).collect::<Vec<_>>()
        };
        let [(path, line, message)] = &told("signals:\n  cpu_busy:\n    over: much\n")[..] else {
            panic!("one problem")
        };
        assert_eq!((path.as_str(), *line), ("signals.cpu_busy.over", Some(3)), "{message}");
        // What is removed is missing where the default policy uses it.
        let removed = told("inputs: {load_average: null}\n");
        assert!(!removed.is_empty());
        for (path, line, message) in removed {
            assert!(path.starts_with("signals.") && line.is_none(), "{path} {line:?} {message}");
            assert!(message.starts_with("default policy:"), "{message}");
        }
    }

    /// Ten thousand acks must not take ten thousand commits one after the other.
    #[test]
    fn acks_are_all_in_the_log_before_the_first_is_waited_for() {
        let log = Arc::new(Waiting(MemorySampleLog::new(2, 1 << 20), Mutex::default()));
        let commands = LogCommands::new(CommandsOptions {
            log: log.clone(),
            status: Arc::new(Status::remote(2)),
            clock: None,
            policy: Arc::new(ArcSwap::from_pointee(
                load_policy("policy", headroom_catalog::DEFAULT_POLICY).expect("it is valid"),
            )),
            tell_readers: None,
            refused: Arc::new(Vec::new),
        });
        let ack = |server: usize| Ack {
            cell: "eu-1".into(),
            server: format!("web-{server}").into(),
            class: "urgent".into(),
            consumer: "batch".into(),
            epoch: 10,
            in_use: 0.5,
        };
        let mut recorded = pin!(commands.append_acks((0..100).map(ack).collect()));
        let mut context = Context::from_waker(Waker::noop());
        assert!(recorded.as_mut().poll(&mut context).is_pending());
        let tickets = std::mem::take(&mut *log.1.lock().expect("no test panics while it holds this"));
        assert_eq!(tickets.len(), 100);
        for (at, ticket) in tickets.into_iter().enumerate() {
            ticket.answer(if at == 50 { Err(AppendError::Closed) } else { Ok(Position(at as u64)) });
        }
        assert!(matches!(recorded.as_mut().poll(&mut context), Poll::Ready(Err(_))));
    }
}
