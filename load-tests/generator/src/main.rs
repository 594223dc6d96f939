//! Load for Headroom and its peers: open loop, seeded, bounded, on loopback only.
//!
//! A closed loop measures how patient the generator is: while the server stalls nothing is sent, so the stall is one slow
//! request instead of all those that should have happened in it. Here requests have intended times, fixed beforehand, and a
//! latency counts from the intended time. `--rate max` is the closed loop on purpose: it finds what a server can take per
//! second of its processor, and its latencies are not to be quoted.
//!
//! Loopback only, so that a slip of the hand does not become an attack. One thread, so that the generator keeps to one
//! core and the server has the other. What is sent is ordinary OTLP without compression; the peers get the same bytes.
#![forbid(unsafe_code)]

mod ingest;
mod reads;
mod report;
mod schedule;
mod shapes;
mod target;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::report::Problem;
use crate::schedule::Rate;
use crate::shapes::{Shape, ShapeArgs};
use crate::target::{Protocol, Target};

/// Open-loop load on loopback: OTLP, point reads, time to a pushed decision.
#[derive(Parser, Debug)]
#[command(name = "headroom-load", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Send OTLP/HTTP, protobuf
    OtlpHttp(OtlpArgs),
    /// Send OTLP/gRPC
    OtlpGrpc(OtlpArgs),
    /// Read servers by name: GET {url}/v1/servers/{name}
    Reads(ReadsArgs),
    /// Time from a sample sent to its decision pushed over GET {url}/v1/watch
    Watch(WatchArgs),
    /// Write the requests of one round, each after its length (4 bytes, big endian), to a file
    Bodies {
        #[command(flatten)]
        shape: ShapeArgs,
        /// Where to
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Args, Debug)]
struct OtlpArgs {
    /// Where to, with the path, e.g. http://127.0.0.1:4318/v1/metrics (gRPC: without)
    #[arg(long)]
    url: String,
    #[command(flatten)]
    shape: ShapeArgs,
    /// Points per second, or `max`: as fast as answers come (closed loop)
    #[arg(long, default_value = "max")]
    rate: Rate,
    /// Connections; each has one request under way
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// At most so long
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// At most so many rounds; a round is one report of every server
    #[arg(long)]
    rounds: Option<u64>,
}

#[derive(Args, Debug)]
struct ReadsArgs {
    /// The API's address, e.g. http://127.0.0.1:8080
    #[arg(long)]
    url: String,
    /// Names are server-0 to server-(N-1)
    #[arg(long)]
    servers: usize,
    /// Reads per second, or `max`
    #[arg(long)]
    rate: Rate,
    /// Connections
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// How long
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Determines which servers are read
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Args, Debug)]
struct WatchArgs {
    /// The API's address
    #[arg(long)]
    url: String,
    /// The OTLP/HTTP address, with the path
    #[arg(long)]
    otlp_url: String,
    /// A metric that an input reads
    #[arg(long, default_value = "system.cpu.load_average.1m")]
    metric: String,
    /// How many probes; each is a new server, sent at a phase of the tick of its own
    #[arg(long, default_value_t = 30)]
    probes: u32,
    /// The cell to report in and to follow
    #[arg(long, default_value = "cell-1")]
    cell: String,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("headroom-load: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli.command)) {
        Ok(report) => {
            eprint!("{}", report.table());
            println!("{}", report.json());
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("headroom-load: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<report::Report, Problem> {
    match command {
        Command::OtlpHttp(args) => otlp(Protocol::Http1, args).await,
        Command::OtlpGrpc(args) => otlp(Protocol::Grpc, args).await,
        Command::Reads(args) => {
            let target = Target::parse(&args.url)?;
            let load = reads::Load {
                servers: args.servers.max(1),
                rate: args.rate,
                connections: args.connections.max(1),
                seconds: args.seconds,
                seed: args.seed,
            };
            reads::run(&target, load).await
        }
        Command::Watch(args) => {
            let probes = watch::Probes { metric: args.metric, count: args.probes, cell: args.cell };
            watch::run(&Target::parse(&args.url)?, &Target::parse(&args.otlp_url)?, probes).await
        }
        Command::Bodies { shape, out } => shapes::write_bodies(&shape, &out),
    }
}

async fn otlp(protocol: Protocol, args: OtlpArgs) -> Result<report::Report, Problem> {
    let target = Target::parse(&args.url)?;
    let connections = args.connections.max(1);
    let load = ingest::Load { rate: args.rate, seconds: args.seconds, rounds: args.rounds.unwrap_or(u64::MAX) };
    ingest::run(&target, protocol, Shape::split(&args.shape, connections), load).await
}
