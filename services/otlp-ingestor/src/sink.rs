//! From a decoded batch to the acknowledgement: split by partition, append, wait for all.

use std::sync::Arc;

use headroom_log::{AppendError, SampleLog};
use headroom_model::{LogRecord, SampleBatch};

/// Appends a batch to the partitions of its cells. When some partitions took their part and others did not, the whole
/// is an error: the sender tries again, and the engine makes what it then sees twice harmless.
///
/// # Errors
/// The first refusal that a retry may help against, else the first: a sender that gives up loses what the others have
/// not taken either.
pub(crate) async fn append(log: &dyn SampleLog, batch: SampleBatch) -> Result<(), AppendError> {
    if batch.is_empty() {
        return Ok(());
    }
    let appends: Vec<_> = headroom_ingest::by_partition(batch, log.partitions())
        .into_iter()
        .map(|(partition, part)| log.append(partition, Arc::new(LogRecord::Samples(Arc::new(part)))))
        .collect();
    let mut refusal: Option<AppendError> = None;
    for append in appends {
        if let Err(error) = append.await {
            match &refusal {
                Some(held) if held.is_retryable() || !error.is_retryable() => {}
                _ => refusal = Some(error),
            }
        }
    }
    refusal.map_or(Ok(()), Err)
}
