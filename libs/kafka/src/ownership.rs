//! Who owns which partition: membership in the group of the aggregators.
//!
//! Kafka's group protocol is used for this alone. What is assigned is paused at once and never read through the group:
//! engines read where their checkpoints say. Assignment is cooperative and sticky, so that a member that comes or goes
//! moves few partitions and stops none that stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::topic_partition_list::TopicPartitionList;

use crate::Connection;
use crate::topics::Layout;

/// After how much silence a member counts as gone. Detecting a death is most of what a takeover takes; shorter than six
/// seconds is refused by brokers with default settings.
const SESSION: Duration = Duration::from_secs(6);

/// How long a poll of the group waits.
const POLL: Duration = Duration::from_millis(100);

/// Told what this process is to own. Both may block, the second until what was owned is safe; the group waits for that.
pub trait Owners: Send + Sync {
    /// These are ours from now on.
    fn assigned(&self, partitions: &[u32]);
    /// These are not.
    fn revoked(&self, partitions: &[u32]);
}

/// Membership; ends when dropped, which gives everything back first.
pub struct Membership {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Membership {
    /// Joins the group.
    ///
    /// # Errors
    /// If the client cannot be made.
    pub fn join(connection: &Connection, layout: &Layout, owners: Arc<dyn Owners>) -> Result<Self, String> {
        let failed = |error: rdkafka::error::KafkaError| format!("kafka: the group cannot be joined: {error}");
        let mut config = connection.client_config();
        config
            .set("group.id", layout.aggregators())
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", SESSION.as_millis().to_string())
            .set("heartbeat.interval.ms", (SESSION / 4).as_millis().to_string())
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "latest")
            .set("reconnect.backoff.max.ms", "1000")
            .set("queued.max.messages.kbytes", "1024");
        let topic = layout.samples();
        let consumer: BaseConsumer<Context> =
            config.create_with_context(Context { owners, topic: topic.clone() }).map_err(failed)?;
        consumer.subscribe(&[&topic]).map_err(failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let thread = std::thread::Builder::new()
            .name("ownership".to_owned())
            .spawn(move || run(&consumer, &stopping))
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Gives everything back and leaves. Blocks until that is done.
    pub fn leave(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.end();
    }
}

fn run(consumer: &BaseConsumer<Context>, stop: &AtomicBool) {
    let mut told = None::<Instant>;
    while !stop.load(Ordering::Relaxed) {
        // Whatever was fetched before the pause took effect is nobody's.
        if let Some(Err(error)) = consumer.poll(POLL)
            && told.is_none_or(|told| told.elapsed() > Duration::from_secs(10))
        {
            tracing::warn!(%error, "the group of aggregators cannot be reached; what is owned is kept until it can");
            told = Some(Instant::now());
        }
    }
    // The consumer leaves the group when it is dropped; what it owned is given back before that.
    let owned = consumer.assignment().map(|list| partitions(&list, &consumer.context().topic)).unwrap_or_default();
    consumer.context().owners.revoked(&owned);
}

struct Context {
    owners: Arc<dyn Owners>,
    topic: String,
}

impl ClientContext for Context {}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            let revoked = partitions(list, &self.topic);
            tracing::info!(partitions = ?revoked, "partitions go to another aggregator");
            self.owners.revoked(&revoked);
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                if let Err(error) = consumer.pause(list) {
                    tracing::warn!(%error, "partitions were not paused; they are fetched for nothing");
                }
                let assigned = partitions(list, &self.topic);
                tracing::info!(partitions = ?assigned, "partitions come to this aggregator");
                self.owners.assigned(&assigned);
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => tracing::warn!(%error, "the group could not be balanced; it tries again"),
        }
    }
}

fn partitions(list: &TopicPartitionList, topic: &str) -> Vec<u32> {
    list.elements_for_topic(topic).iter().filter_map(|element| u32::try_from(element.partition()).ok()).collect()
}
