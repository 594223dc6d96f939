//! Point reads of servers drawn at random, in an open loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use headroom_fleet::rng::Rng;
use tokio::time::Instant;

use crate::report::{Latencies, Problem, Report, own_cpu_seconds};
use crate::schedule::{Rate, Schedule};
use crate::target::{Connection, Protocol, Target};

/// What to read and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Names are server-0 to server-(N-1).
    pub servers: usize,
    /// Reads per second.
    pub rate: Rate,
    /// Connections; each has one read under way.
    pub connections: usize,
    /// How long.
    pub seconds: f64,
    /// Determines which servers.
    pub seed: u64,
}

/// Reads until the time is over.
pub async fn run(target: &Target, load: Load) -> Result<Report, Problem> {
    let cpu = own_cpu_seconds();
    let begin = Instant::now() + Duration::from_millis(20);
    let schedule = Schedule::new(begin, load.rate, 1.0);
    // Whoever is free takes the next read, so that one slow answer delays only what is behind it on its connection.
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for number in 0..load.connections {
        let connection = target.connect(Protocol::Http1).await?;
        let rng = Rng::new(load.seed, number as u64);
        tasks.push(tokio::spawn(read(connection, rng, schedule, load, begin, Arc::clone(&next))));
    }
    let (mut good, mut bad, mut latencies) = (0, 0, Latencies::new()?);
    for task in tasks {
        let (found, failed, times) = task.await??;
        good += found;
        bad += failed;
        latencies.add(&times)?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let report = Report::default()
        .with("reads", good)
        .with("readsFailed", bad)
        .with("seconds", seconds)
        .with("readsPerSecond", good as f64 / seconds)
        .with("connections", load.connections)
        .with("generatorCpuSeconds", own_cpu_seconds() - cpu);
    Ok(report.with_latencies("latency", &latencies))
}

async fn read(
    mut connection: Connection,
    mut rng: Rng,
    schedule: Schedule,
    load: Load,
    begin: Instant,
    next: Arc<AtomicU64>,
) -> Result<(u64, u64, Latencies), Problem> {
    let until = begin + Duration::from_secs_f64(load.seconds);
    let (mut good, mut bad, mut latencies) = (0, 0, Latencies::new()?);
    loop {
        let due = schedule.due(next.fetch_add(1, Ordering::Relaxed)).await;
        if due >= until || Instant::now() >= until + Duration::from_secs(10) {
            return Ok((good, bad, latencies));
        }
        let server = (rng.unit() * load.servers as f64) as usize;
        let status = connection.get(&format!("/v1/servers/server-{server}")).await?;
        if status.is_success() {
            good += 1
        } else {
            bad += 1
        }
        latencies.record(due.elapsed());
    }
}
