//! Prints a scenario as a script for a running service, a line per step; see [`headroom_testkit::script`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

use headroom_testkit::{Scenario, script};

fn main() -> ExitCode {
    let Some(file) = std::env::args().nth(1) else {
        eprintln!("usage: headroom-scenario FILE");
        return ExitCode::from(2);
    };
    let script = std::fs::read_to_string(&file)
        .map_err(|error| error.to_string())
        .and_then(|text| Scenario::parse(&text))
        .and_then(|scenario| script::write(&scenario));
    match script {
        Ok(steps) => {
            steps.iter().for_each(|step| println!("{step}"));
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("{file}: {problem}");
            ExitCode::FAILURE
        }
    }
}
