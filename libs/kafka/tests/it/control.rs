//! What holds for the whole cluster reaches every process at once, and no process of another time gets in.

use std::time::{Duration, Instant};

use headroom_kafka::records::Agreed;
use headroom_kafka::{KafkaControl, KafkaSnapshotLog};
use headroom_model::LogRecord;
use headroom_model::policy::Mode;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use crate::broker::{connection, layout};

const WALL: Agreed = Agreed { event_time: false, tick_seconds: 10 };

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_transaction_of_an_owner_delays_no_mode() {
    let Some(connection) = connection("an_unfinished_transaction_of_an_owner_delays_no_mode") else { return };
    let layout = layout(1);
    let _snapshots = KafkaSnapshotLog::open(&connection, &layout, 10).unwrap();
    let open = || KafkaControl::open(&connection, &layout, WALL).unwrap();
    let (asked, replica) = (open(), open());
    let owner: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", connection.brokers.join(","))
        .set("transactional.id", format!("{}.dead", layout.prefix))
        .create()
        .unwrap();
    let step = Duration::from_secs(10);
    owner.init_transactions(step).unwrap();
    owner.begin_transaction().unwrap();
    let topic = layout.snapshots();
    let record = BaseRecord::to(&topic).partition(0).key(b"k").payload(b"v");
    owner.send(record).map_err(|(error, _)| error).unwrap();
    owner.flush(step).unwrap();

    let off = LogRecord::Mode { cell: None, mode: Some(Mode::Off), owner: "o".into(), reason: "r".into() };
    asked.publish_mode(&off).await.unwrap();
    let deadline = Instant::now() + step;
    while replica.modes().is_empty() {
        assert!(Instant::now() < deadline, "the mode waits for the end of the transaction");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(replica.modes()[0].1, off);
    // Nor does somebody who comes later wait for it.
    assert_eq!(open().modes(), replica.modes());
}

#[test]
fn a_process_of_another_time_is_refused_and_changes_nothing() {
    let Some(connection) = connection("a_process_of_another_time_is_refused_and_changes_nothing") else { return };
    let layout = layout(2);
    let open = |agreed| KafkaControl::open(&connection, &layout, agreed).err().unwrap_or_default();
    assert_eq!(open(WALL), "");
    for other in [Agreed { event_time: true, ..WALL }, Agreed { tick_seconds: 1, ..WALL }] {
        let error = open(other);
        for part in [&WALL.to_string(), &other.to_string(), "time.mode", "kafka.topic_prefix", &layout.prefix] {
            assert!(error.contains(part), "{part:?} is missing in: {error}");
        }
    }
    assert_eq!(open(WALL), "");
}
