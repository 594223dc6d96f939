//! The Kafka role: foreign topics in, sample log out.
//!
//! Reading, pausing, committing and dead letters are `headroom_kafka::source`'s; decoding is `headroom_ingest`'s. What
//! is here is which decoder a record of a source goes to, and how its samples become records of the log.
#![forbid(unsafe_code)]

mod intake;

use std::sync::Arc;

use headroom_ingest::{IdentityConfig, IngestLimits, MessageEncoding};
use headroom_kafka::source::{self, Reader, SourceMetrics, SourceOptions};
use headroom_log::SampleLog;
use headroom_telemetry::Telemetry;

pub use intake::SampleIntake;

/// What a source reads and how.
#[derive(Clone, Debug)]
pub struct Source {
    /// Topics, group and cluster.
    pub options: SourceOptions,
    /// The encoding of its records; `None` if each is to be looked at.
    pub encoding: Option<MessageEncoding>,
    /// How its servers are named.
    pub identity: IdentityConfig,
    /// Bounds of a record.
    pub limits: IngestLimits,
    /// Readers in this process, each a member of the group.
    pub readers: usize,
}

/// The running readers of all sources.
#[derive(Debug, Default)]
pub struct Sources {
    readers: Vec<Reader>,
    metrics: Vec<SourceMetrics>,
}

impl Sources {
    /// Starts the readers of all sources.
    ///
    /// # Errors
    /// A sentence that says which setting is not taken. Readers that run already are stopped.
    pub fn start(sources: Vec<Source>, log: &Arc<dyn SampleLog>, telemetry: &Telemetry) -> Result<Self, String> {
        let mut started = Self::default();
        for source in sources {
            let metrics = SourceMetrics::new(telemetry, &source.options.name);
            started.metrics.push(metrics.clone());
            for _ in 0..source.readers.max(1) {
                let intake = SampleIntake::new(&source, log.partitions(), telemetry, metrics.clone());
                match source::start(source.options.clone(), log.clone(), Box::new(intake), metrics.clone()) {
                    Ok(reader) => started.readers.push(reader),
                    Err(error) => {
                        started.stop();
                        return Err(error);
                    }
                }
            }
        }
        Ok(started)
    }

    /// The handles of each source, which tell what of it could not be used.
    pub fn metrics(&self) -> &[SourceMetrics] {
        &self.metrics
    }

    /// Finishes what is in flight, commits, and leaves the groups: all at once, in a few seconds. Blocks.
    pub fn stop(self) {
        let stopping: Vec<_> = self.readers.into_iter().map(|reader| std::thread::spawn(|| reader.stop())).collect();
        for thread in stopping {
            let _ = thread.join();
        }
    }
}
