//! `headroom check [FILE…]`: every problem of configuration and policy files, with place, line and suggestion.

use std::path::Path;

use headroom_access::{Access, Callers};
use headroom_config::{Config, ConfigErrors, LoadArgs, config_schema, load_policy, policy_schema};
use headroom_telemetry::Telemetry;
use serde_json::Value;

use crate::cli::{CheckArgs, exit};
use crate::clock;
use crate::configuration;
use crate::output::print;

pub(crate) fn run(args: &CheckArgs) -> u8 {
    let outcomes: Vec<Result<String, String>> =
        if args.files.is_empty() { in_force(args) } else { args.files.iter().map(|path| file(path)).collect() };
    let mut text = String::new();
    for outcome in &outcomes {
        let (Ok(said) | Err(said)) = outcome;
        text.push_str(said);
        text.push('\n');
    }
    let printed = print(&text);
    if outcomes.iter().any(Result::is_err) { exit::FAILED } else { printed }
}

/// What `serve` would read: the configuration, and the policy that it names.
fn in_force(args: &CheckArgs) -> Vec<Result<String, String>> {
    let loaded = match configuration::load(&args.configuration, Vec::new()) {
        Ok(loaded) => loaded,
        Err(errors) => return vec![Err(problems("the configuration", &errors))],
    };
    let mut outcomes = vec![Ok("the configuration is valid".to_owned())];
    outcomes.push(match &loaded.config.policy.file {
        Some(path) => configuration::read(Path::new(path)).and_then(|text| policy(path, &text)),
        None => policy("the default policy", headroom_catalog::DEFAULT_POLICY),
    });
    let security = &loaded.config.security;
    if security.callers_file.is_some() || security.tls.cert_file.is_some() {
        let access = Access::new(security, clock::wall(), &Telemetry::default());
        outcomes.push(access.map(|_| "the callers and certificates can be used".to_owned()));
    }
    outcomes
}

/// One file of either kind.
fn file(path: &Path) -> Result<String, String> {
    let text = configuration::read(path)?;
    let name = path.display().to_string();
    match kind(&text) {
        Kind::Policy => policy(&name, &text),
        Kind::Configuration => configuration_file(&name, &text),
        Kind::Callers => {
            Callers::load(path).map(|callers| format!("{name}: a valid callers' file, {} entries", callers.len()))
        }
        // Neither: what has the fewer problems was probably meant.
        Kind::Unclear => match (configuration_file(&name, &text), policy(&name, &text)) {
            (Err(as_configuration), Err(as_policy)) if as_policy.len() < as_configuration.len() => Err(as_policy),
            (Err(_), Ok(as_policy)) => Ok(as_policy),
            (as_configuration, _) => as_configuration,
        },
    }
}

fn policy(name: &str, text: &str) -> Result<String, String> {
    match load_policy(name, text) {
        Ok(policy) => Ok(format!(
            "{name}: a valid policy, version {}: {} inputs, {} signals, {} classes, {} rules",
            policy.hash,
            policy.inputs.len(),
            policy.signals.len(),
            policy.classes.len(),
            policy.rules.len(),
        )),
        Err(errors) => Err(problems(name, &errors)),
    }
}

/// The environment of whoever checks a file is not that of whoever runs it, but interpolations need one.
fn configuration_file(name: &str, text: &str) -> Result<String, String> {
    let env = configuration::environment().into_iter().filter(|(name, _)| !name.starts_with("HEADROOM__")).collect();
    match Config::load(&LoadArgs { file: Some((name, text)), env, flags: Vec::new() }) {
        Ok(_) => Ok(format!("{name}: a valid configuration")),
        Err(errors) => Err(problems(name, &errors)),
    }
}

fn problems(name: &str, errors: &ConfigErrors) -> String {
    let count = errors.0.len();
    format!("{errors}\n{name}: {count} problem{}", if count == 1 { "" } else { "s" })
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Configuration,
    Policy,
    Callers,
    Unclear,
}

/// Which of the files a text is, by its top-level keys: no two have one in common.
fn kind(text: &str) -> Kind {
    if top_level_keys(text).any(|key| key == "callers") {
        return Kind::Callers;
    }
    let count = |schema: &Value| {
        let known = schema["properties"].as_object();
        top_level_keys(text).filter(|key| known.is_some_and(|known| known.contains_key(*key))).count()
    };
    match count(&policy_schema()).cmp(&count(&config_schema())) {
        std::cmp::Ordering::Greater => Kind::Policy,
        std::cmp::Ordering::Less => Kind::Configuration,
        std::cmp::Ordering::Equal => Kind::Unclear,
    }
}

/// Good enough for telling two files apart, even where the text is not valid YAML.
fn top_level_keys(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.starts_with(|first: char| first.is_whitespace() || first == '#'))
        .filter_map(|line| line.trim_start_matches('{').split_once(':'))
        .map(|(key, _)| key.trim().trim_matches(['"', '\'']))
}

#[cfg(test)]
mod tests {
    use headroom_access::callers_schema;

    use super::*;

    #[test]
    fn files_are_told_apart_by_their_keys() {
        for (text, expected) in [
            ("signals:\n  cpu_busy: {over: 0.9}\n", Kind::Policy),
            ("# a comment: x\nmode: {enforce: 10}\nsignls: {}\n", Kind::Policy),
            ("time:\n  mode: event\n", Kind::Configuration),
            ("callers:\n  - name: prometheus\n", Kind::Callers),
            ("{\"otlp\": {}}", Kind::Configuration),
            ("", Kind::Unclear),
            ("tiem: {}\n", Kind::Unclear),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
    }

    #[test]
    fn no_key_is_both_of_a_configuration_and_of_a_policy() {
        let keys = |schema: Value| schema["properties"].as_object().cloned().unwrap_or_default();
        let policy = keys(policy_schema());
        assert!(!policy.is_empty());
        assert!(keys(config_schema()).keys().all(|key| !policy.contains_key(key)));
        let callers = keys(callers_schema());
        assert!(callers.keys().all(|key| !policy.contains_key(key) && !keys(config_schema()).contains_key(key)));
    }
}
