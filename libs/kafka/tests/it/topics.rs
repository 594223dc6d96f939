//! A topic that is not as it must be is refused, with what to do about it.

use headroom_kafka::{Connection, KafkaCheckpointStore, KafkaSampleLog, KafkaSnapshotLog, Layout, SampleLogLimits};

use crate::broker::{connection, layout};

#[test]
fn wrong_topics_are_refused_with_the_way_out() {
    let Some(connection) = connection("wrong_topics_are_refused_with_the_way_out") else { return };
    let made = layout(2);
    let samples = |layout: &Layout| {
        KafkaSampleLog::open(&connection, layout, SampleLogLimits::default()).err().unwrap_or_default()
    };
    assert_eq!(samples(&made), "");
    assert_eq!(samples(&made), "", "a second start finds what the first one made");
    for (wrong, says) in [
        (Layout { partitions: 3, ..made.clone() }, vec!["has 2 partitions", "set kafka.partitions to 2"]),
        (
            Layout { retention_ms: 1000, ..made.clone() },
            vec!["retention.ms=604800000", "needs 1000", "kafka-configs.sh", "--add-config retention.ms=1000"],
        ),
        (
            Layout { message_bytes_max: 16 << 20, ..made.clone() },
            vec!["max.message.bytes=8388608", "at least 16777216", "--entity-name"],
        ),
        (Layout { replication_factor: 2, ..made.clone() }, vec!["1 copies", "set kafka.replication_factor to 1"]),
        (
            Layout { replication_factor: 2, prefix: format!("{}x", made.prefix), ..made.clone() },
            vec!["cannot be made", "kafka.replication_factor 2", "set kafka.replication_factor: 1"],
        ),
    ] {
        let error = samples(&wrong);
        for part in says {
            assert!(error.contains(part), "{part:?} is missing in: {error}");
        }
    }
    // The other topics are compacted, and one that is not would grow for ever.
    let other = Layout { prefix: made.samples().trim_end_matches(".samples").to_owned(), ..made.clone() };
    assert!(KafkaSnapshotLog::open(&connection, &other, 10).is_ok());
    assert!(KafkaCheckpointStore::open(&connection, &other).is_ok());
}

#[test]
fn a_cluster_that_does_not_answer_is_named() {
    if connection("a_cluster_that_does_not_answer_is_named").is_none() {
        return;
    }
    let nowhere = Connection { brokers: vec!["127.0.0.1:1".into()], ..Connection::default() };
    let error = KafkaSampleLog::open(&nowhere, &layout(1), SampleLogLimits::default()).err().unwrap_or_default();
    for part in ["127.0.0.1:1", "kafka.brokers", "Connection refused"] {
        assert!(error.contains(part), "{part:?} is missing in: {error}");
    }
}
