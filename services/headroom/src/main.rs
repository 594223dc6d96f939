//! The executable: what was typed is parsed, one command runs, and its outcome is the exit code. Wiring of roles is in
//! `commands::serve`, and all work is in the libraries, so that nothing in here needs a test that starts a process.
#![forbid(unsafe_code)]

mod app;
mod backend;
mod cli;
mod client;
mod clock;
mod collect;
mod commands;
mod configuration;
mod deadline;
mod engines;
mod events;
mod follow;
mod output;
mod pools;
mod roles;
mod settings;
mod sources;
mod watcher;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::cli::{Cli, Command, exit};

/// The ingest path allocates on one thread and frees on another; mimalloc does that without a lock between them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long work on blocking threads may outlive its command. What must not be lost has been waited for by then.
const LEFTOVERS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    ExitCode::from(match Cli::parse().command {
        Command::Check(args) => commands::check::run(&args),
        Command::Config(args) => commands::config::run(&args),
        Command::Completions { shell } => commands::completions::run(shell),
        Command::Serve(args) => block_on(commands::serve::run(args)),
        Command::Demo(args) => block_on(commands::demo::run(args)),
        Command::Explain(args) => block_on(commands::explain::run(args)),
        Command::Doctor(args) => block_on(commands::doctor::run(args)),
        Command::Top(args) => block_on(commands::top::run(args)),
    })
}

fn block_on(command: impl Future<Output = u8>) -> u8 {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(command);
            runtime.shutdown_timeout(LEFTOVERS);
            code
        }
        Err(error) => {
            output::complain(&format!("cannot start threads: {error}"));
            exit::FAILED
        }
    }
}
