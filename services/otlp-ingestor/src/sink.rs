//! From a decoded batch to the acknowledgement: split by partition, append, wait for all.

use std::sync::Arc;
use std::time::Duration;

use headroom_log::{Append, AppendError, SampleLog};
use headroom_model::{LogRecord, SampleBatch};

/// How long a sender waits for the log. SDKs give up after ten seconds, and one that hears nothing until then drops what
/// it would have sent again; brokers without a leader take longer than that.
const PATIENCE: Duration = Duration::from_secs(8);

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
    let appends = headroom_ingest::by_partition(batch, log.partitions())
        .into_iter()
        .map(|(partition, part)| log.append(partition, Arc::new(LogRecord::Samples(Arc::new(part)))))
        .collect();
    acknowledged(appends, PATIENCE).await
}

/// Waits for all, within a bound. What is under way then stays so: when it arrives beside its repeat, that is harmless.
async fn acknowledged(appends: Vec<Append>, patience: Duration) -> Result<(), AppendError> {
    tokio::time::timeout(patience, every(appends)).await.unwrap_or_else(|_| {
        Err(AppendError::Disk {
            kind: std::io::ErrorKind::TimedOut,
            why: format!("the log has not acknowledged the samples within {} s", patience.as_secs()).into(),
        })
    })
}

async fn every(appends: Vec<Append>) -> Result<(), AppendError> {
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
    use headroom_log::Position;

    #[tokio::test]
    async fn a_sender_is_told_to_come_back_before_it_gives_up() {
        let (ticket, waiting) = Append::pending();
        let refusal = acknowledged(vec![Append::ready(Ok(Position(0))), waiting], Duration::from_millis(10)).await;
        assert!(refusal.is_err_and(|error| error.is_retryable()));
        // The record is none the worse for it.
        ticket.answer(Ok(Position(1)));
        assert_eq!(acknowledged(vec![Append::ready(Ok(Position(2)))], PATIENCE).await, Ok(()));
    }

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
