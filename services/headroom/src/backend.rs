//! Where the ports of this process lie: in its data directory, or on a cluster.

use std::path::Path;
use std::sync::Arc;

use headroom_config::{Backend, Config};
use headroom_kafka::records::Agreed;
use headroom_kafka::{
    Connection, KafkaCheckpointStore, KafkaControl, KafkaSampleLog, KafkaSnapshotLog, Layout, SampleLogLimits,
};
use headroom_log::disk::{DataDir, DiskCheckpointStore, DiskSampleLog, DiskSnapshotLog, OsStorage};
use headroom_log::{CheckpointStore, SampleLog, SnapshotLog};

use crate::app::CELLS_MAX;
use crate::roles::Roles;
use crate::{settings, sources};

/// What the roles of this process work on. A role that is not here leaves its ports away.
pub(crate) struct Ports {
    pub(crate) log: Arc<dyn SampleLog>,
    pub(crate) snapshots: Option<Arc<dyn SnapshotLog>>,
    pub(crate) checkpoints: Option<Arc<dyn CheckpointStore>>,
    /// For what only the disk counts.
    pub(crate) disk_snapshots: Option<Arc<DiskSnapshotLog>>,
    /// On a cluster: the snapshot log again, for its notes, and how to join the group.
    pub(crate) kafka: Option<Kafka>,
}

/// The cluster's part of the ports.
pub(crate) struct Kafka {
    pub(crate) connection: Connection,
    pub(crate) layout: Layout,
    pub(crate) snapshots: Option<Arc<KafkaSnapshotLog>>,
    pub(crate) control: Arc<KafkaControl>,
}

/// Opens what the roles need. Blocks until it is open.
///
/// # Errors
/// A sentence that says what is in the way and what to do.
pub(crate) fn open(config: &Config, roles: Roles, data_dir: &Path, event_time: bool) -> Result<Ports, String> {
    match config.log.backend {
        Backend::Disk => open_disk(config, data_dir, event_time),
        Backend::Kafka => tokio::task::block_in_place(|| open_kafka(config, roles, event_time)),
    }
}

fn open_disk(config: &Config, data_dir: &Path, event_time: bool) -> Result<Ports, String> {
    let dir = DataDir::open(data_dir, config.log.partitions, if event_time { "event" } else { "wall" })
        .map_err(|error| error.to_string())?;
    let log = DiskSampleLog::open(&dir, settings::log_options(config), Arc::new(OsStorage))
        .map_err(|error| error.to_string())?;
    for report in log.reports() {
        tracing::info!(
            partition = report.partition,
            segments = report.segments,
            records = report.records,
            cut_bytes = report.cut_bytes,
            damaged_records = report.damaged_records,
            damaged_segments = report.damaged_segments.len(),
            "opened a partition of the sample log"
        );
    }
    let snapshots = Arc::new(DiskSnapshotLog::open(&dir, CELLS_MAX).map_err(|error| error.to_string())?);
    let checkpoints = DiskCheckpointStore::open(&dir).map_err(|error| error.to_string())?;
    Ok(Ports {
        log: Arc::new(log),
        snapshots: Some(snapshots.clone()),
        checkpoints: Some(Arc::new(checkpoints)),
        disk_snapshots: Some(snapshots),
        kafka: None,
    })
}

fn open_kafka(config: &Config, roles: Roles, event_time: bool) -> Result<Ports, String> {
    let kafka = &config.kafka;
    let connection = sources::connection("kafka", &kafka.brokers, kafka.tls.as_ref(), kafka.sasl.as_ref())?;
    let layout = settings::layout(config);
    // First: nothing is written, nor anything owned, where time is another.
    let agreed = Agreed { event_time, tick_seconds: config.time.tick_seconds };
    let control = Arc::new(KafkaControl::open(&connection, &layout, agreed)?);
    let log = KafkaSampleLog::open(&connection, &layout, SampleLogLimits::default())?;
    let snapshots = match roles.aggregator || roles.health_api {
        true => Some(Arc::new(KafkaSnapshotLog::open(&connection, &layout, CELLS_MAX)?)),
        false => None,
    };
    let checkpoints: Option<Arc<dyn CheckpointStore>> = match roles.aggregator {
        true => Some(Arc::new(KafkaCheckpointStore::open(&connection, &layout)?)),
        false => None,
    };
    tracing::info!(brokers = connection.brokers.join(","), prefix = layout.prefix, "opened the log on kafka");
    Ok(Ports {
        log: Arc::new(log),
        snapshots: snapshots.clone().map(|snapshots| snapshots as Arc<dyn SnapshotLog>),
        checkpoints,
        disk_snapshots: None,
        kafka: Some(Kafka { connection, layout, snapshots, control }),
    })
}
