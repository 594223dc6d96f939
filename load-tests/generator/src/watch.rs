//! From a sample sent to its decision pushed.
//!
//! Every probe is a server that was never seen: its first decision is a change that the watch stream has to push, and no
//! hysteresis or control window of ours can hold it back. The phase within the tick moves on by the golden ratio, so that
//! the probes cover the tick evenly. The latency includes the wait for the tick, as it does for a consumer.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::report::{Latencies, Problem, Report};
use crate::shapes::{now_ns, resource_metrics};
use crate::target::{Outcome, Protocol, Target};

/// What to send.
#[derive(Clone, Debug)]
pub struct Probes {
    /// A metric that an input reads.
    pub metric: String,
    /// How many.
    pub count: u32,
    /// The cell of the probes.
    pub cell: String,
}

/// A probe that is not pushed within this is lost.
const PATIENCE: Duration = Duration::from_secs(30);
const GOLDEN_RATIO: f64 = 0.618_033_988_749_895;

/// Sends the probes one by one and waits for each.
pub async fn run(api: &Target, otlp: &Target, probes: Probes) -> Result<Report, Problem> {
    let mut follower = api.connect(Protocol::Http1).await?;
    let mut stream = follower.stream(&format!("/v1/watch?cell={}", probes.cell)).await?;
    let (pushed, mut arrivals) = mpsc::unbounded_channel::<(Instant, Bytes)>();
    tokio::spawn(async move {
        while let Some(Ok(frame)) = stream.frame().await {
            let Ok(data) = frame.into_data() else { continue };
            if pushed.send((Instant::now(), data)).is_err() {
                break;
            }
        }
    });
    let mut sender = otlp.connect(Protocol::Http1).await?;
    let (mut total, mut acknowledged, mut lost) = (Latencies::new()?, Latencies::new()?, 0_u64);
    let run = now_ns() / 1_000_000_000;
    for number in 0..probes.count {
        tokio::time::sleep(Duration::from_secs_f64((f64::from(number) * GOLDEN_RATIO).fract())).await;
        let server = format!("probe-{run}-{number}");
        let resource = [("host.name", server.clone()), ("headroom.cell", probes.cell.clone())];
        let mut body = Vec::new();
        resource_metrics(&mut body, &resource, &[(probes.metric.clone(), 0.5)], now_ns());
        let sent = Instant::now();
        match sender.export(&body).await? {
            Outcome::Taken | Outcome::Partly => acknowledged.record(sent.elapsed()),
            outcome => return Err(Problem::new(format!("a probe was refused: {outcome:?}"))),
        }
        match timeout(PATIENCE, seen(&mut arrivals, &format!("\"{server}\""))).await {
            Ok(Some(at)) => total.record(at - sent),
            _ => lost += 1,
        }
    }
    let report = Report::default().with("probes", probes.count).with("lost", lost);
    Ok(report.with_latencies("sentToPushed", &total).with_latencies("sentToAcknowledged", &acknowledged))
}

/// When `name` came over the stream; `None` if the stream ended.
async fn seen(arrivals: &mut mpsc::UnboundedReceiver<(Instant, Bytes)>, name: &str) -> Option<Instant> {
    // A name may be cut by the border of two pieces: the end of the last one is kept.
    let mut tail: Vec<u8> = Vec::new();
    loop {
        let (at, data) = arrivals.recv().await?;
        tail.extend_from_slice(&data);
        if tail.windows(name.len()).any(|window| window == name.as_bytes()) {
            return Some(at);
        }
        let keep = tail.len().min(name.len());
        tail.drain(..tail.len() - keep);
    }
}
