//! `headroom config`: the configuration in force, who said what, and the schemas for editors.
//!
//! What is printed is a configuration file again: comments carry the origins, so that it can be stored and loaded.

use std::fmt::Write;

use headroom_config::{Origin, Setting, config_schema, policy_schema};

use crate::cli::{ConfigArgs, ConfigCommand, exit};
use crate::configuration;
use crate::output::{complain, print};

pub(crate) fn run(args: &ConfigArgs) -> u8 {
    match &args.what {
        ConfigCommand::Print { configuration, effective, origin } => {
            match configuration::load(configuration, Vec::new()) {
                Ok(loaded) => print(&yaml(&loaded.settings, *effective, *origin)),
                Err(errors) => {
                    complain(&format!("the configuration is not valid\n{errors}"));
                    exit::FAILED
                }
            }
        }
        ConfigCommand::Schema { policy } => {
            let schema = if *policy { policy_schema() } else { config_schema() };
            print(&format!("{schema:#}\n"))
        }
    }
}

/// The settings as YAML: all of them, or those that somebody set.
fn yaml(settings: &[Setting], effective: bool, origin: bool) -> String {
    let mut out = String::new();
    let mut above: Vec<&str> = Vec::new();
    for setting in settings.iter().filter(|setting| effective || setting.origin != Origin::Default) {
        let mut path: Vec<&str> = setting.path.split('.').collect();
        let Some(key) = path.pop() else { continue };
        let shared = above.iter().zip(&path).take_while(|(a, b)| a == b).count();
        for (depth, section) in path.iter().enumerate().skip(shared) {
            let _ = writeln!(out, "{}{section}:", "  ".repeat(depth));
        }
        // JSON is YAML, and quotes whatever needs it.
        let _ = write!(out, "{}{key}: {}", "  ".repeat(path.len()), setting.value);
        if origin {
            let _ = write!(out, "  # {}", setting.origin);
        }
        out.push('\n');
        above = path;
    }
    if out.is_empty() {
        out.push_str("# nothing is set: --effective prints the defaults\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use headroom_config::{Config, Flag, LoadArgs};

    use super::*;

    #[test]
    fn what_is_printed_loads_as_the_same_configuration() {
        let flag = |path: &str, value: &str| Flag {
            path: path.to_owned(),
            value: value.to_owned(),
            name: format!("--set {path}"),
        };
        let flags = vec![flag("time.tick_seconds", "7"), flag("identity.keys", "asset.tag,rack: 1")];
        let loaded = Config::load(&LoadArgs { flags, ..LoadArgs::default() }).expect("a valid configuration");
        for (effective, origin) in [(false, false), (true, true)] {
            let text = yaml(&loaded.settings, effective, origin);
            let file = Some(("printed.yaml", text.as_str()));
            let again = Config::load(&LoadArgs { file, ..LoadArgs::default() }).expect("what was printed is valid");
            assert_eq!(again.config, loaded.config, "{text}");
        }
        assert!(
            yaml(&loaded.settings, false, true).contains("time:\n  tick_seconds: 7  # flag --set time.tick_seconds\n")
        );
    }
}
