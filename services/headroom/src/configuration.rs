//! The configuration of this process: file < environment < flags, and what has no place in a file because it depends on
//! the machine.

use std::io::Read;
use std::path::{Path, PathBuf};

use headroom_config::{Config, ConfigErrors, Flag, LoadArgs, Loaded, Origin, Problem};

use crate::cli::ConfigurationArgs;

/// Bytes read of a configuration or policy file; the parsers' own bound is lower and says so itself.
const FILE_BYTES_MAX: u64 = 2 << 20;

/// Loads the configuration. `overrides` are the flags that have a name of their own, such as `--data-dir`.
///
/// # Errors
/// Everything wrong with any of the sources.
pub(crate) fn load(args: &ConfigurationArgs, mut overrides: Vec<Flag>) -> Result<Loaded, ConfigErrors> {
    let mut flags = Vec::new();
    let mut problems = Vec::new();
    for set in &args.set {
        match set.split_once('=') {
            Some((path, value)) => flags.push(Flag {
                path: path.trim().to_owned(),
                value: value.to_owned(),
                name: format!("--set {}", path.trim()),
            }),
            None => problems.push(problem(
                &format!("--set {set}"),
                format!("`{set}` sets nothing"),
                Some("write --set section.key=value"),
            )),
        }
    }
    // A flag with a name of its own is closer to the user's intent than the general one.
    flags.append(&mut overrides);
    let mut name = String::new();
    let mut text = String::new();
    if let Some(path) = &args.config {
        name = path.display().to_string();
        match read(path) {
            Ok(read) => text = read,
            Err(message) => problems.push(problem("--config", message, None)),
        }
    }
    if !problems.is_empty() {
        return Err(ConfigErrors(problems));
    }
    let file = args.config.is_some().then_some((name.as_str(), text.as_str()));
    Config::load(&LoadArgs { file, env: environment(), flags })
}

/// The environment. A variable that is not Unicode cannot be one of ours.
pub(crate) fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Reads a configuration or policy file.
///
/// # Errors
/// A sentence that names the file.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(text)
}

/// The data directory: as configured, else `headroom` under the user's state directory.
///
/// # Errors
/// If neither the configuration nor the environment names one.
pub(crate) fn data_dir(config: &Config) -> Result<PathBuf, String> {
    if let Some(dir) = &config.log.data_dir {
        return Ok(PathBuf::from(dir));
    }
    // The XDG specification says that a relative path is to be ignored.
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    match state {
        Some(state) => Ok(state.join("headroom")),
        None => Err("there is no place for data: neither XDG_STATE_HOME nor HOME is set; give --data-dir".to_owned()),
    }
}

fn problem(flag: &str, message: String, suggestion: Option<&str>) -> Problem {
    Problem {
        origin: Origin::Flag(flag.to_owned()),
        path: Box::default(),
        message,
        suggestion: suggestion.map(str::to_owned),
        snippet: None,
    }
}
