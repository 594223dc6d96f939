//! Defaults, file, environment and flags to one configuration that remembers who said what.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use headroom_expr::nearest;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::check::{check, keys};
use crate::merge::lay_over;
use crate::problem::{ConfigErrors, Problem};
use crate::service::{Auth, Backend, ClientAuth, Config, IdentitySection};
use crate::tree::{Entry, Origin, Tree, Value};

/// What variables of the environment begin with that set a key: `HEADROOM__OTLP__HTTP_LISTEN`.
const ENV_PREFIX: &str = "HEADROOM__";

/// A flag of the command line that sets a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// The key, with dots: `otlp.http_listen`.
    pub path: String,
    /// The value, as YAML would have it. A list may be separated by commas alone.
    pub value: String,
    /// The flag as the user knows it: `--otlp-http-listen`.
    pub name: String,
}

/// Where the configuration comes from. Later fields win.
#[derive(Clone, Debug, Default)]
pub struct LoadArgs<'a> {
    /// The file's name, for messages, and its text.
    pub file: Option<(&'a str, &'a str)>,
    /// The environment: names and values.
    pub env: Vec<(String, String)>,
    /// The command line.
    pub flags: Vec<Flag>,
}

/// A key, its value and its origin, for `config print --effective --origin`.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The key, with dots.
    pub path: String,
    /// The value.
    pub value: serde_json::Value,
    /// Who said so.
    pub origin: Origin,
}

/// A configuration without problems.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Every key with its origin, in the order of the documentation.
    pub settings: Vec<Setting>,
}

/// Reads another file of the service, such as its callers, held against the schema of its type like all of them.
///
/// # Errors
/// Everything wrong with it.
pub fn load_file<T: DeserializeOwned + JsonSchema>(name: &str, text: &str) -> Result<T, ConfigErrors> {
    let text_of = |file: &str| (file == name).then_some(text);
    let mut tree = Tree::parse(name, text, 1).map_err(|problem| ConfigErrors::of(vec![problem], text_of))?;
    let problems = check(&mut tree, &schemars::schema_for!(T).to_value());
    if !problems.is_empty() {
        return Err(ConfigErrors::of(problems, text_of));
    }
    let origin = tree.origin.clone();
    serde_json::from_value(tree.to_json())
        .map_err(|error| ConfigErrors::of(vec![Problem::new(&origin, error.to_string())], text_of))
}

impl Config {
    /// Makes the configuration of file, environment and flags.
    ///
    /// # Errors
    /// Everything wrong with any of them.
    pub fn load(args: &LoadArgs<'_>) -> Result<Loaded, ConfigErrors> {
        let mut problems = Vec::new();
        let env: BTreeMap<&str, &str> = args.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let defaults = serde_json::to_value(Self::default()).unwrap_or_default();
        let mut tree = Tree::from_json(&defaults, &Origin::Default);
        if let Some((name, text)) = args.file {
            match Tree::parse(name, text, 1) {
                Ok(mut file) => {
                    interpolate(&mut file, &env, &mut problems);
                    lay(&mut tree, file, &mut problems);
                }
                Err(problem) => problems.push(problem),
            }
        }
        let schema = crate::config_schema();
        let known = keys(&schema);
        for (name, value) in &env {
            if let Some(path) = name.strip_prefix(ENV_PREFIX) {
                let path = path.to_lowercase().replace("__", ".");
                set(&mut tree, &known, &path, value, Origin::Env((*name).to_owned()), &mut problems);
            }
        }
        for flag in &args.flags {
            set(&mut tree, &known, &flag.path, &flag.value, Origin::Flag(flag.name.clone()), &mut problems);
        }
        problems.extend(check(&mut tree, &schema));
        let text_of = |file: &str| args.file.filter(|(name, _)| *name == file).map(|(_, text)| text);
        if !problems.is_empty() {
            return Err(ConfigErrors::of(problems, text_of));
        }
        let config: Self = serde_json::from_value(tree.to_json())
            .map_err(|error| ConfigErrors::of(vec![Problem::new(&Origin::Default, error.to_string())], text_of))?;
        problems.extend(config.contradictions(&tree));
        if !problems.is_empty() {
            return Err(ConfigErrors::of(problems, text_of));
        }
        let mut settings = Vec::new();
        list(&tree, &mut String::new(), &mut settings);
        Ok(Loaded { config, settings })
    }

    /// What no type can say.
    fn contradictions(&self, tree: &Tree) -> Vec<Problem> {
        let mut problems = Vec::new();
        let listeners = [
            ("http.listen", Some(&self.http.listen)),
            ("http.operator_listen", self.http.operator_listen.as_ref()),
            ("otlp.grpc_listen", Some(&self.otlp.grpc_listen)),
            ("otlp.http_listen", Some(&self.otlp.http_listen)),
        ];
        let listeners = listeners.into_iter().filter_map(|(path, text)| Some((path, text?)));
        let mut complain = |path: &str, message: String, suggestion: Option<&str>| {
            let keys: Vec<&str> = path.split('.').collect();
            problems.push(Problem::new(tree.origin_of(&keys), message).suggesting(suggestion.map(String::from)));
        };
        let security = &self.security;
        let must_say_who = security.auth == Auth::Tokens || security.tls.client_auth == ClientAuth::Required;
        let mut taken: Vec<(SocketAddr, &str)> = Vec::new();
        for (path, text) in listeners {
            let Ok(address) = text.parse::<SocketAddr>() else {
                let message = format!("`{path}` must be an address and a port, not `{text}`");
                complain(path, message, Some("write 127.0.0.1:8080 or [::1]:8080"));
                continue;
            };
            let is_exposed = !address.ip().is_loopback() && !security.allow_insecure_bind;
            if is_exposed && !must_say_who {
                complain(
                    path,
                    format!("`{path}` is reachable from other machines, and nobody there has to show who he is"),
                    Some("bind to 127.0.0.1, set security.auth: tokens, or set security.allow_insecure_bind: true"),
                );
            } else if is_exposed && security.tls.cert_file.is_none() && !security.allow_plaintext {
                complain(
                    path,
                    format!(
                        "`{path}` is reachable from other machines, and tokens would cross the network in the clear"
                    ),
                    Some(
                        "set security.tls.cert_file and key_file; if a proxy in front encrypts, \
                         security.allow_plaintext: true",
                    ),
                );
            }
            match taken.iter().find(|(other, _)| *other == address && address.port() != 0) {
                Some((_, other)) => complain(path, format!("`{path}` is the address of `{other}` too"), None),
                None => taken.push((address, path)),
            }
        }
        let tls = &security.tls;
        for (path, is_missing, message) in [
            (
                "security.auth",
                security.auth == Auth::Tokens && security.callers_file.is_none(),
                "`security.auth` is tokens, but `security.callers_file` does not say whose",
            ),
            (
                "security.callers_file",
                security.auth == Auth::None && security.callers_file.is_some(),
                "`security.callers_file` has no effect while `security.auth` is none; set it to tokens",
            ),
            (
                "security.tls.cert_file",
                tls.cert_file.is_some() && tls.key_file.is_none(),
                "`security.tls.cert_file` needs `security.tls.key_file` beside it",
            ),
            (
                "security.tls.key_file",
                tls.key_file.is_some() && tls.cert_file.is_none(),
                "`security.tls.key_file` needs `security.tls.cert_file` beside it",
            ),
            (
                "security.tls.client_auth",
                tls.client_auth != ClientAuth::None && (tls.client_ca_file.is_none() || tls.cert_file.is_none()),
                "`security.tls.client_auth` needs `security.tls.client_ca_file`, and a certificate of the server's own",
            ),
            (
                "security.tls.client_ca_file",
                tls.client_ca_file.is_some() && tls.client_auth == ClientAuth::None,
                "`security.tls.client_ca_file` has no effect while `security.tls.client_auth` is none",
            ),
        ] {
            if is_missing {
                complain(path, message.to_owned(), None);
            }
        }
        if self.log.segment_bytes > self.log.bytes_max / 4 {
            complain(
                "log.segment_bytes",
                format!("`log.segment_bytes` must be at most a quarter of `log.bytes_max`, {}", self.log.bytes_max / 4),
                Some("retention deletes whole segments"),
            );
        }
        if self.otlp.body_decompressed_bytes_max < self.otlp.body_bytes_max {
            complain(
                "otlp.body_decompressed_bytes_max",
                format!(
                    "`otlp.body_decompressed_bytes_max` is less than `otlp.body_bytes_max`, {}",
                    self.otlp.body_bytes_max
                ),
                None,
            );
        }
        if self.http.inflight_bytes_max < self.http.body_bytes_max {
            complain(
                "http.inflight_bytes_max",
                format!("`http.inflight_bytes_max` has no room for one body of {} bytes", self.http.body_bytes_max),
                None,
            );
        }
        let inflight_bytes_min =
            self.otlp.body_decompressed_bytes_max.max(self.otlp.grpc_message_bytes_max).max(self.otlp.body_bytes_max);
        if self.otlp.inflight_bytes_max < inflight_bytes_min {
            complain(
                "otlp.inflight_bytes_max",
                format!("`otlp.inflight_bytes_max` has no room for one body of {inflight_bytes_min} bytes"),
                None,
            );
        }
        if self.engine.checkpoint_seconds < self.time.tick_seconds {
            complain(
                "engine.checkpoint_seconds",
                format!("`engine.checkpoint_seconds` is less than a tick, {} s", self.time.tick_seconds),
                None,
            );
        }
        self.identity.contradictions("identity", &mut complain);
        self.kafka.contradictions(&mut complain);
        if self.log.backend == Backend::Kafka && self.kafka.brokers.is_empty() {
            complain(
                "log.backend",
                "`log.backend` is `kafka`, but `kafka.brokers` names none".to_owned(),
                Some("write brokers: [\"127.0.0.1:9092\"]"),
            );
        }
        problems
    }
}

impl IdentitySection {
    /// What no type can say.
    pub(crate) fn contradictions(&self, path: &str, complain: &mut dyn FnMut(&str, String, Option<&str>)) {
        for (name, keys) in [("keys", &self.keys), ("cell_keys", &self.cell_keys), ("pool_keys", &self.pool_keys)] {
            for (at, key) in keys.iter().enumerate() {
                if !braces_match(key) {
                    let message = format!("`{key}` is no template: its braces do not match");
                    complain(&format!("{path}.{name}.{at}"), message, None);
                }
            }
        }
    }
}

/// Whether a template's braces come in pairs with something between, none inside another.
fn braces_match(template: &str) -> bool {
    let mut rest = template;
    while let Some(open) = rest.find(['{', '}']) {
        let Some(inside) = rest[open..].strip_prefix('{') else { return false };
        match inside.find(['{', '}']) {
            Some(close) if close > 0 && inside[close..].starts_with('}') => rest = &inside[close + 1..],
            _ => return false,
        }
    }
    true
}

fn lay(lower: &mut Tree, upper: Tree, problems: &mut Vec<Problem>) {
    lay_over(lower, upper, &mut Vec::new(), &|_| false, problems);
}

/// Sets one key from outside the file: one of the schema, or one that the file has brought.
fn set(tree: &mut Tree, known: &[String], path: &str, value: &str, origin: Origin, problems: &mut Vec<Problem>) {
    let mut known: Vec<String> = known.to_vec();
    known.extend(leaves(tree, ""));
    if !known.iter().any(|leaf| leaf == path) {
        let near = nearest(path, known.iter().map(String::as_str));
        let suggestion = near.map(|near| match &origin {
            Origin::Env(_) => format!("did you mean {ENV_PREFIX}{}?", near.replace('.', "__").to_uppercase()),
            _ => format!("did you mean `{near}`?"),
        });
        problems.push(Problem::new(&origin, format!("there is no key `{path}`")).suggesting(suggestion));
        return;
    }
    let mut leaf = Tree::new(Value::Text(value.to_owned()), origin.clone());
    leaf.is_raw = true;
    let above = path.rsplit('.').fold(leaf, |value, key| {
        let entry = Entry { key: key.to_owned(), key_origin: origin.clone(), value };
        Tree::new(Value::Map(vec![entry]), origin.clone())
    });
    lay(tree, above, problems);
}

/// Every key that has a value of its own.
fn leaves(tree: &Tree, path: &str) -> Vec<String> {
    match &tree.value {
        Value::Map(entries) => entries
            .iter()
            .flat_map(|entry| {
                let dot = if path.is_empty() { "" } else { "." };
                leaves(&entry.value, &format!("{path}{dot}{}", entry.key))
            })
            .collect(),
        _ => vec![path.to_owned()],
    }
}

fn list(tree: &Tree, path: &mut String, settings: &mut Vec<Setting>) {
    let Value::Map(entries) = &tree.value else {
        settings.push(Setting { path: path.clone(), value: tree.to_json(), origin: tree.origin.clone() });
        return;
    };
    for entry in entries {
        let length = path.len();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(&entry.key);
        list(&entry.value, path, settings);
        path.truncate(length);
    }
}

/// Replaces `${NAME}` and `${NAME:-default}` in the texts of a file; `$${` is a plain `${`.
fn interpolate(tree: &mut Tree, env: &BTreeMap<&str, &str>, problems: &mut Vec<Problem>) {
    match &mut tree.value {
        Value::Text(text) if text.contains("${") => match interpolated(text, env) {
            Ok(result) => {
                *text = result;
                tree.is_raw = true;
            }
            Err(message) => problems.push(Problem::new(&tree.origin, message)),
        },
        Value::List(items) => items.iter_mut().for_each(|item| interpolate(item, env, problems)),
        Value::Map(entries) => entries.iter_mut().for_each(|entry| interpolate(&mut entry.value, env, problems)),
        _ => {}
    }
}

fn interpolated(text: &str, env: &BTreeMap<&str, &str>) -> Result<String, String> {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            result.push_str(before);
            result.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        result.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        let Some(end) = inside.find('}') else {
            return Err("`${` without its `}`; write `$${` for a plain one".into());
        };
        let (name, default) = match inside[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&inside[..end], None),
        };
        // As a shell has it, an empty variable counts as unset where there is a default.
        let value = env.get(name).copied().filter(|value| default.is_none() || !value.is_empty()).or(default);
        let Some(value) = value else {
            return Err(format!("the environment variable {name} is not set"));
        };
        result.push_str(value);
        rest = &inside[end + 1..];
    }
    result.push_str(rest);
    Ok(result)
}
