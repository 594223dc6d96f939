//! The command line: what can be typed, and what each word becomes.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Exit codes, for scripts. 2 is clap's own: the command line was not understood.
pub(crate) mod exit {
    /// It went well.
    pub(crate) const OK: u8 = 0;
    /// Problems were found, or the command failed.
    pub(crate) const FAILED: u8 = 1;
    /// The service could not be reached.
    pub(crate) const UNREACHABLE: u8 = 3;
    /// What was asked for is not there.
    pub(crate) const NOT_FOUND: u8 = 4;
}

/// Health scores and throttle decisions from fleet telemetry.
#[derive(Parser, Debug)]
#[command(
    name = "headroom",
    version,
    after_help = "Exit codes: 0 well, 1 problems found or failed, 2 command line not understood, 3 service not \
                  reachable, 4 not found.\n\nStart with `headroom demo`, then `headroom serve`."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run the service: OTLP in, scores and decisions out
    Serve(ServeArgs),
    /// Show it all on a simulated fleet: an incident, the throttle, the recovery
    Demo(DemoArgs),
    /// Check configuration, policy and callers' files and print every problem with its place
    Check(CheckArgs),
    /// Print the configuration in force or its schema
    Config(ConfigArgs),
    /// Say why a server has its score and decisions
    Explain(ExplainArgs),
    /// Look for what could be wrong here: ports, data directory, clock, identities, unread metrics
    Doctor(DoctorArgs),
    /// Live table of the servers, the worst first
    Top(TopArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Where the configuration comes from. File < environment (HEADROOM__SECTION__KEY) < flags.
#[derive(Args, Debug, Default)]
pub(crate) struct ConfigurationArgs {
    /// Configuration file (YAML; everything in it is optional)
    #[arg(long, value_name = "FILE", env = "HEADROOM_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Set one value, e.g. --set engine.servers_max=5000 (repeatable)
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Args, Debug, Default)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) configuration: ConfigurationArgs,
    /// Directory of the log, snapshots and checkpoints [default: $XDG_STATE_HOME/headroom or ~/.local/state/headroom]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Policy file [default: the shipped policy, which observes and enforces nothing]
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// OTLP/gRPC listener [default: 127.0.0.1:4317]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) otlp_grpc: Option<SocketAddr>,
    /// OTLP/HTTP listener [default: 127.0.0.1:4318]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) otlp_http: Option<SocketAddr>,
    /// HTTP API listener [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) http: Option<SocketAddr>,
    /// Whose time counts: the wall clock's, or the senders' (moved by POST /v1/clock, or following them)
    #[arg(long, value_enum)]
    pub(crate) time: Option<TimeArg>,
    /// Seconds from tick to tick, 1 to 60 [default: 10]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) tick: Option<u32>,
    /// Which roles to run in this process (repeatable, or separated by commas); apart, they need log.backend: kafka
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all")]
    pub(crate) role: Vec<RoleArg>,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeArg {
    /// The wall clock
    Wall,
    /// The senders' time, moved by POST /v1/clock
    Event,
    /// The senders' time, following the newest that two servers have reached
    #[value(name = "event:follow")]
    EventFollow,
}

impl TimeArg {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Wall => "wall",
            Self::Event => "event",
            Self::EventFollow => "event:follow",
        }
    }
}

#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RoleArg {
    /// All roles in this process, nothing else needed
    #[default]
    All,
    /// Takes OTLP and appends to the log
    OtlpIngestor,
    /// Reads the topics of kafka.sources and appends to the log
    KafkaIngestor,
    /// Runs the engines of the partitions that it shares with others
    Aggregator,
    /// Answers questions and takes commands
    HealthApi,
}

#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// How much faster than real time, 1 to 60
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub(crate) speed: u32,
    /// Seconds of demonstration (wall clock); the service then stops by itself unless --keep
    #[arg(long, default_value_t = 75, value_parser = clap::value_parser!(u32).range(30..=3600))]
    pub(crate) seconds: u32,
    /// Keep the service and the fleet running after the story, until Ctrl-C
    #[arg(long)]
    pub(crate) keep: bool,
    /// OTLP/gRPC listener
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4317")]
    pub(crate) otlp_grpc: SocketAddr,
    /// OTLP/HTTP listener
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4318")]
    pub(crate) otlp_http: SocketAddr,
    /// HTTP API listener
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) http: SocketAddr,
}

#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Files to check: a configuration, a policy or callers, told apart by their keys. Without any: what `serve` would read
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) configuration: ConfigurationArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) what: ConfigCommand,
}

#[derive(Subcommand, Debug)]
pub(crate) enum ConfigCommand {
    /// Print the configuration
    Print {
        #[command(flatten)]
        configuration: ConfigurationArgs,
        /// Defaults included, not only what was set
        #[arg(long)]
        effective: bool,
        /// Say beside every value who set it
        #[arg(long)]
        origin: bool,
    },
    /// Print the JSON Schema of the configuration file, for editors
    Schema {
        /// Of the policy file instead
        #[arg(long)]
        policy: bool,
    },
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputArg {
    /// For people
    Table,
    /// For programs
    Json,
}

/// Which service to ask.
#[derive(Args, Debug)]
pub(crate) struct ServiceArgs {
    /// The service's HTTP API
    #[arg(long, env = "HEADROOM_URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// File with the token to show; the environment variable HEADROOM_TOKEN may hold the token itself
    #[arg(long, value_name = "FILE", env = "HEADROOM_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Authorities (PEM) to trust instead of the system's, for https
    #[arg(long, value_name = "FILE", env = "HEADROOM_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Client certificate (PEM) to show
    #[arg(long, value_name = "FILE", env = "HEADROOM_CLIENT_CERT_FILE", requires = "client_key_file")]
    pub(crate) client_cert_file: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", env = "HEADROOM_CLIENT_KEY_FILE", requires = "client_cert_file")]
    pub(crate) client_key_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// The server, by any of its names
    pub(crate) server: String,
    /// Its cell, where the name is found in several
    #[arg(long)]
    pub(crate) cell: Option<String>,
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    /// How to print
    #[arg(long, short, value_enum, default_value = "table")]
    pub(crate) output: OutputArg,
}

#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    #[command(flatten)]
    pub(crate) configuration: ConfigurationArgs,
    /// The data directory that serve was given
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    /// Only this cell
    #[arg(long)]
    pub(crate) cell: Option<String>,
    /// Only this pool
    #[arg(long)]
    pub(crate) pool: Option<String>,
    /// Rows
    #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rows: u32,
    /// Print once and end
    #[arg(long)]
    pub(crate) once: bool,
}
