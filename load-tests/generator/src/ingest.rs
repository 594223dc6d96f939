//! Sends a fleet's requests over several connections and counts what was taken.
//!
//! With points of a time of our own (`--start`) all connections begin a round together: a connection that ran ahead by
//! two rounds would make the others' points late, which senders of one fleet are not. A refusal that asks to come again
//! is heeded after a pause, so that what is counted as taken has been taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::report::{Latencies, Problem, Report, own_cpu_seconds};
use crate::schedule::{Rate, Schedule};
use crate::shapes::Shape;
use crate::target::{Outcome, Protocol, Target};

/// How fast and how long.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Points per second.
    pub rate: Rate,
    /// At most so long.
    pub seconds: f64,
    /// At most so many rounds.
    pub rounds: u64,
}

/// Pause before a request that was refused for now is sent again.
const PAUSE: Duration = Duration::from_millis(20);

/// Where connections begin a round together, and agree whether there is one.
struct Rounds {
    barrier: Barrier,
    over: AtomicBool,
}

impl Rounds {
    /// One connection looks at the clock for all, between two meetings: if each looked for itself, some would go on and
    /// wait for ever for those that did not.
    async fn over(&self, until: Instant) -> bool {
        if self.barrier.wait().await.is_leader() {
            self.over.store(Instant::now() >= until, Ordering::Release);
        }
        self.barrier.wait().await;
        self.over.load(Ordering::Acquire)
    }
}

#[derive(Clone, Debug)]
struct Tally {
    points: u64,
    requests: u64,
    bytes: u64,
    partly: u64,
    busy: u64,
    failed: u64,
    last_status: u16,
    rounds: u64,
    connections_lost: u64,
    latencies: Latencies,
}

impl Tally {
    fn new() -> Result<Self, Problem> {
        let latencies = Latencies::new()?;
        Ok(Self {
            points: 0,
            requests: 0,
            bytes: 0,
            partly: 0,
            busy: 0,
            failed: 0,
            last_status: 0,
            rounds: 0,
            connections_lost: 0,
            latencies,
        })
    }

    fn add(&mut self, other: &Self) -> Result<(), Problem> {
        self.points += other.points;
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.partly += other.partly;
        self.busy += other.busy;
        self.failed += other.failed;
        self.last_status = self.last_status.max(other.last_status);
        self.rounds = self.rounds.max(other.rounds);
        self.connections_lost += other.connections_lost;
        self.latencies.add(&other.latencies)
    }
}

/// Sends until the time or the rounds are over.
pub async fn run(target: &Target, protocol: Protocol, parts: Vec<Shape>, load: Load) -> Result<Report, Problem> {
    let Some(first) = parts.first() else { return Err(Problem::new("no connections".to_owned())) };
    let args = first.args.clone();
    let connections = parts.len();
    let points_per_request = (args.servers * args.points()) as f64 / args.requests().max(1) as f64;
    let rounds = Arc::new(Rounds { barrier: Barrier::new(connections), over: AtomicBool::new(false) });
    let cpu = own_cpu_seconds();
    let begin = Instant::now() + Duration::from_millis(20);
    let schedule = Schedule::new(begin, load.rate, points_per_request);
    let mut tasks = JoinSet::new();
    for (number, shape) in parts.into_iter().enumerate() {
        let connection = target.connect(protocol).await?;
        tasks.spawn(send(connection, shape, number as u64, schedule, load, begin, Arc::clone(&rounds)));
    }
    let mut total = Tally::new()?;
    while let Some(task) = tasks.join_next().await {
        total.add(&task??)?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let report = Report::default()
        .with("points", total.points)
        .with("requests", total.requests)
        .with("bytes", total.bytes)
        .with("rounds", total.rounds)
        .with("seconds", seconds)
        .with("pointsPerSecond", total.points as f64 / seconds)
        .with("requestsPartlyTaken", total.partly)
        .with("requestsRefusedForNow", total.busy)
        .with("requestsFailed", total.failed)
        .with("lastFailedStatus", total.last_status)
        .with("connections", connections)
        .with("connectionsLost", total.connections_lost)
        .with("generatorCpuSeconds", own_cpu_seconds() - cpu);
    Ok(report.with_latencies("latency", &total.latencies))
}

async fn send(
    mut connection: crate::target::Connection,
    mut shape: Shape,
    number: u64,
    schedule: Schedule,
    load: Load,
    begin: Instant,
    rounds: Arc<Rounds>,
) -> Result<Tally, Problem> {
    let mut tally = Tally::new()?;
    let until = begin + Duration::from_secs_f64(load.seconds);
    let per_round = shape.args.requests();
    let together = shape.args.start.is_some();
    let parts = shape.parts();
    for round in 0..load.rounds {
        // With a time of our own a round that has begun is finished, so that all servers have the same reports.
        let over = if together { rounds.over(until).await } else { Instant::now() >= until };
        if over {
            break;
        }
        for at in 0..shape.requests() {
            let due = schedule.due(round * per_round + at * parts + number).await;
            if !together && Instant::now() >= until {
                return Ok(tally);
            }
            let (body, points) = shape.request(at, round);
            loop {
                let outcome = match connection.export(body).await {
                    Ok(outcome) => outcome,
                    // The others would wait for this connection at the next round.
                    Err(problem) if together => return Err(problem),
                    // A server that is killed is part of some measurements: what it had taken stands.
                    Err(_) => {
                        tally.connections_lost += 1;
                        return Ok(tally);
                    }
                };
                match outcome {
                    outcome @ (Outcome::Taken | Outcome::Partly) => {
                        tally.points += points;
                        tally.partly += u64::from(outcome == Outcome::Partly);
                        break;
                    }
                    Outcome::Busy if Instant::now() < until => {
                        tally.busy += 1;
                        tokio::time::sleep(PAUSE).await;
                    }
                    Outcome::Busy => break,
                    Outcome::Failed(status) => {
                        tally.failed += 1;
                        tally.last_status = status;
                        break;
                    }
                }
            }
            tally.requests += 1;
            tally.bytes += body.len() as u64;
            tally.latencies.record(due.elapsed());
        }
        tally.rounds = round + 1;
    }
    Ok(tally)
}
