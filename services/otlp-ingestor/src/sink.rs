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
            refusal = Some(prevailing(refusal, error));
        }
    }
    refusal.map_or(Ok(()), Err)
}

fn prevailing(held: Option<AppendError>, next: AppendError) -> AppendError {
    match held {
        Some(held) if held.is_retryable() || !next.is_retryable() => held,
        _ => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_refusals_the_first_worth_a_retry_is_told() {
        let large = || AppendError::TooLarge { record_bytes: 2, bound_bytes: 1 };
        let full = || AppendError::Full { what: "the sample log", bound_bytes: 1 };
        for (refusals, told) in [
            (vec![large()], large()),
            (vec![large(), full()], full()),
            (vec![full(), large(), AppendError::Closed], full()),
            (vec![large(), AppendError::NoSuchPartition { partition: 1, partitions: 1 }], large()),
        ] {
            let got = refusals.into_iter().fold(None, |held, next| Some(prevailing(held, next)));
            assert_eq!(got, Some(told));
        }
    }
}
