//! Which server a resource describes, from its attributes alone.
//!
//! Two questions are kept apart. *Which resources are one server?* Those that share a name of the host itself:
//! `host.id`, `k8s.node.uid`, `host.name`, `k8s.node.name`. All of them go into `host_names`, and the cell's engine joins
//! over them, because no single resource has them all. *What is the server called?* What people and schedulers type: the
//! node's name, else the host's name, and an id only where there is no name.
//!
//! What looks like a host's name and is not:
//! * inside a pod or container, `host.name` is the pod's or container's name. Joining over it would pull two nodes
//!   together when a StatefulSet's pod moves, so beside a node's name it is only an alias;
//! * the short form of a fully qualified name is an alias: `web-1.eu.example` and `web-1.us.example` are two servers;
//! * `service.instance.id` is a random UUID in most SDKs, a new one at each start. It names a server only where the
//!   operator says so;
//! * `server.address` on a resource is what the Collector's Prometheus receiver scraped. It is the last resort, never
//!   used for loopback or for pods.
//!
//! An operator's own rule wins over all of this. Unless it names a host-level attribute, it is then the only name that
//! joins: whoever splits a host into several servers does not want them joined again by the host's name.

use std::net::IpAddr;
use std::sync::Arc;

use headroom_model::Resource;
use headroom_model::resource::DEFAULT_NAME;

use crate::limits::IngestLimits;
use crate::report::{IngestReport, RejectReason};

/// Attributes that belong to the host alone, in the order in which they become the server's name.
pub const HOST_ATTRIBUTES: [&str; 4] = ["k8s.node.name", "host.name", "k8s.node.uid", "host.id"];

/// The attribute with further names for consumers to use, separated by commas: `haproxy-be/web-17`.
pub const ALIAS_ATTRIBUTE: &str = "headroom.alias";

/// Aliases of one resource at most; further ones are dropped.
pub const ALIASES_MAX: usize = 32;

/// What SDKs send as `service.name` if nobody named the service: no name.
const UNKNOWN_SERVICE: &str = "unknown_service";

/// A text as (key, value) of a resource.
pub type Attributes = [(Arc<str>, Arc<str>)];

/// How to make a name of attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// The value of an attribute.
    Attribute(String),
    /// Text with attributes in it; no name if one of them is missing.
    Template(Vec<TemplatePart>),
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplatePart {
    /// Text as it stands.
    Text(String),
    /// The value of an attribute.
    Attribute(String),
}

/// Why a rule is no rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRuleError {
    /// The rule.
    pub rule: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl std::fmt::Display for NameRuleError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "name rule `{}`: {}", self.rule, self.reason)
    }
}

impl std::error::Error for NameRuleError {}

impl std::str::FromStr for NameRule {
    type Err = NameRuleError;

    /// An attribute's key, or a template such as `{service.namespace}/{service.name}`.
    fn from_str(rule: &str) -> Result<Self, NameRuleError> {
        let error = |reason| NameRuleError { rule: rule.to_owned(), reason };
        if rule.trim().is_empty() {
            return Err(error("is empty"));
        }
        if !rule.contains(['{', '}']) {
            return Ok(Self::Attribute(rule.to_owned()));
        }
        let mut parts = Vec::new();
        let mut rest = rule;
        while let Some(open) = rest.find('{') {
            let (text, after) = (&rest[..open], &rest[open + 1..]);
            let Some(close) = after.find('}') else {
                return Err(error("has a `{` without its `}`"));
            };
            if text.contains('}') {
                return Err(error("has a `}` without its `{`"));
            }
            let key = &after[..close];
            if key.is_empty() || key.contains('{') {
                return Err(error("has no attribute between `{` and `}`"));
            }
            if !text.is_empty() {
                parts.push(TemplatePart::Text(text.to_owned()));
            }
            parts.push(TemplatePart::Attribute(key.to_owned()));
            rest = &after[close + 1..];
        }
        if rest.contains('}') {
            return Err(error("has a `}` without its `{`"));
        }
        if !rest.is_empty() {
            parts.push(TemplatePart::Text(rest.to_owned()));
        }
        Ok(Self::Template(parts))
    }
}

impl std::fmt::Display for NameRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Attribute(key) => f.write_str(key),
            Self::Template(parts) => parts.iter().try_for_each(|part| match part {
                TemplatePart::Text(text) => f.write_str(text),
                TemplatePart::Attribute(key) => write!(f, "{{{key}}}"),
            }),
        }
    }
}

impl NameRule {
    /// The name that the rule makes, `None` if an attribute is missing or cannot be a name.
    pub fn apply(&self, attributes: &Attributes) -> Option<String> {
        match self {
            Self::Attribute(key) => value(attributes, key).map(str::to_owned),
            Self::Template(parts) => parts.iter().try_fold(String::new(), |name, part| {
                Some(
                    name + match part {
                        TemplatePart::Text(text) => text,
                        TemplatePart::Attribute(key) => value(attributes, key)?,
                    },
                )
            }),
        }
    }

    fn is_host_attribute(&self) -> bool {
        matches!(self, Self::Attribute(key) if HOST_ATTRIBUTES.contains(&key.as_str()))
    }
}

/// How servers, cells and pools are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityConfig {
    /// The operator's own rules for a server's name, tried before the default ones.
    pub server: Vec<NameRule>,
    /// Whether `service.namespace/service.name/service.instance.id` may name a server that has no better name. Only
    /// where instance ids are stable.
    pub allow_service_instance: bool,
    /// Rules for the cell, the first that gives a name wins.
    pub cell: Vec<NameRule>,
    /// Rules for the pool, the first that gives a name wins.
    pub pool: Vec<NameRule>,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        let attributes = |keys: &[&str]| keys.iter().map(|key| NameRule::Attribute((*key).to_owned())).collect();
        Self {
            server: Vec::new(),
            allow_service_instance: false,
            cell: attributes(&["headroom.cell", "k8s.cluster.name", "cloud.availability_zone"]),
            pool: attributes(&["headroom.pool", "service.name"]),
        }
    }
}

impl IdentityConfig {
    /// What would name a server, for the message to a sender that has none of it.
    pub(crate) fn accepted_attributes(&self) -> Vec<String> {
        let mut accepted: Vec<String> = self.server.iter().map(NameRule::to_string).collect();
        accepted.extend(HOST_ATTRIBUTES.iter().map(|key| (*key).to_owned()));
        if self.allow_service_instance {
            accepted.push("service.name with service.instance.id".to_owned());
        }
        accepted
    }

    /// The resource of attributes, which must be sorted by key without duplicates.
    ///
    /// # Errors
    /// [`RejectReason::NoIdentity`] or, if a name has more than `bytes_max` bytes, [`RejectReason::IdentityTooLong`].
    pub fn resolve(&self, attributes: Vec<(Arc<str>, Arc<str>)>, bytes_max: usize) -> Result<Resource, RejectReason> {
        self.resolve_counting(attributes, bytes_max, &mut 0)
    }

    /// The same within the bounds of a request, counting what is left out.
    pub(crate) fn resolve_within(
        &self,
        attributes: Vec<(Arc<str>, Arc<str>)>,
        limits: &IngestLimits,
        report: &mut IngestReport,
    ) -> Result<Resource, RejectReason> {
        // A cut value must not name anything: a name has to be shorter than what values are cut to.
        let bytes_max = limits.identity_bytes_max.min(limits.attribute_value_bytes_max.saturating_sub(1));
        self.resolve_counting(attributes, bytes_max, &mut report.dropped_aliases)
    }

    fn resolve_counting(
        &self,
        attributes: Vec<(Arc<str>, Arc<str>)>,
        bytes_max: usize,
        dropped_aliases: &mut u64,
    ) -> Result<Resource, RejectReason> {
        let (server, mut host_names) = self.server(&attributes).ok_or(RejectReason::NoIdentity)?;
        let cell = first_name(&self.cell, &attributes);
        let pool = first_name(&self.pool, &attributes);
        let sender = sender(&attributes);
        host_names.sort_unstable();
        host_names.dedup();
        let names = host_names.iter().chain([&server, &cell, &pool, &sender]);
        if names.into_iter().any(|name| name.len() > bytes_max) {
            return Err(RejectReason::IdentityTooLong);
        }
        let mut aliases = aliases(&attributes);
        aliases.retain(|alias| is_name(alias) && *alias != server && !host_names.contains(alias));
        aliases.sort_unstable();
        aliases.dedup();
        let wanted = aliases.len();
        aliases.retain(|alias| alias.len() <= bytes_max);
        aliases.truncate(ALIASES_MAX);
        *dropped_aliases += (wanted - aliases.len()) as u64;
        Ok(Resource {
            server: server.into(),
            host_names: host_names.into_iter().map(Arc::from).collect(),
            aliases: aliases.into_iter().map(Arc::from).collect(),
            cell: cell.into(),
            pool: pool.into(),
            sender: sender.into(),
            attributes,
        })
    }

    /// The server's name and the names that join.
    fn server(&self, attributes: &Attributes) -> Option<(String, Vec<String>)> {
        let operator = self.server.iter().find_map(|rule| Some((rule, rule.apply(attributes)?)));
        let mut host_names = host_names(attributes);
        match operator {
            Some((rule, name)) if !rule.is_host_attribute() => return Some((name.clone(), vec![name])),
            Some((_, name)) => {
                host_names.push(name.clone());
                return Some((name, host_names));
            }
            None => {}
        }
        if let Some(name) = host_names.first().cloned() {
            return Some((name, host_names));
        }
        if let Some(address) = scraped_address(attributes) {
            return Some((address.to_owned(), vec![address.to_owned()]));
        }
        let instance = value(attributes, "service.instance.id").is_some();
        let sender = sender(attributes);
        (self.allow_service_instance && instance && !sender.is_empty()).then(|| (sender, Vec::new()))
    }
}

/// The value of an attribute as a name; one that cannot be a name counts as missing.
fn value<'a>(attributes: &'a Attributes, key: &str) -> Option<&'a str> {
    list(attributes, key).filter(|value| is_name(value))
}

/// The value of an attribute that may hold several names.
fn list<'a>(attributes: &'a Attributes, key: &str) -> Option<&'a str> {
    let at = attributes.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
    Some(&*attributes[at].1)
}

/// Whether a text can be a name. People read names in terminals and logs, so one must show something, and must not steer
/// what shows it.
fn is_name(text: &str) -> bool {
    let steers = |char: char| char.is_control() || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shows = |char: char| {
        !char.is_whitespace()
            && !matches!(char, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
    };
    text.chars().any(shows) && !text.chars().any(steers)
}

fn first_name(rules: &[NameRule], attributes: &Attributes) -> String {
    rules
        .iter()
        .filter_map(|rule| rule.apply(attributes))
        .find(|name| !name.starts_with(UNKNOWN_SERVICE))
        .unwrap_or_else(|| DEFAULT_NAME.to_owned())
}

/// Names of the host alone, the one to show first.
fn host_names(attributes: &Attributes) -> Vec<String> {
    let names = HOST_ATTRIBUTES.iter().filter(|key| **key != "host.name" || !host_name_is_a_pods(attributes));
    names.filter_map(|key| value(attributes, key)).map(str::to_owned).collect()
}

/// Whether `host.name` is the name of a pod or container on a node that has a name of its own.
fn host_name_is_a_pods(attributes: &Attributes) -> bool {
    let Some(host) = value(attributes, "host.name") else { return false };
    let has_node = value(attributes, "k8s.node.name").or(value(attributes, "k8s.node.uid")).is_some();
    let is_pod = value(attributes, "k8s.pod.name") == Some(host);
    let is_container = value(attributes, "container.id").is_some_and(|id| host.len() >= 12 && id.starts_with(host));
    let has_id = value(attributes, "host.id").is_some();
    (is_pod && has_node) || (is_container && (has_node || has_id))
}

/// The target that the Collector's Prometheus receiver scraped, unless it is local to the Collector or a pod.
fn scraped_address(attributes: &Attributes) -> Option<&str> {
    let address = value(attributes, "server.address").or(value(attributes, "net.host.name"))?;
    let is_pod = attributes.iter().any(|(key, _)| key.starts_with("k8s.pod."));
    let is_local = address.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified());
    (!is_pod && !is_local).then_some(address)
}

/// `namespace/name/instance`, empty without a service's name.
fn sender(attributes: &Attributes) -> String {
    let get = |key| value(attributes, key).unwrap_or_default();
    let name = get("service.name");
    if name.is_empty() || name.starts_with(UNKNOWN_SERVICE) {
        return String::new();
    }
    format!("{}/{name}/{}", get("service.namespace"), get("service.instance.id"))
}

/// Further names by which consumers may ask.
fn aliases(attributes: &Attributes) -> Vec<String> {
    let get = |key| value(attributes, key);
    let mut aliases: Vec<String> =
        HOST_ATTRIBUTES.iter().chain(&["service.instance.id"]).filter_map(|key| get(key)).map(str::to_owned).collect();
    for key in ["k8s.node.name", "host.name"] {
        // A short form has a letter in it: the `10` of `10.0.0.1` is nobody's name.
        let short = get(key).and_then(|name| name.split_once('.')).map(|(short, _)| short);
        aliases.extend(short.filter(|short| short.contains(|c: char| c.is_ascii_alphabetic())).map(str::to_owned));
    }
    for (address, port) in [("server.address", "server.port"), ("net.host.name", "net.host.port")] {
        if let (Some(address), Some(port)) = (get(address), get(port)) {
            aliases.push(format!("{address}:{port}"));
        }
    }
    // `host.ip` is an array, here as its JSON text; what cannot be asked for from elsewhere names nothing.
    let addresses = list(attributes, "host.ip").unwrap_or_default().split(['[', ']', '"', ',', ' ']);
    aliases.extend(addresses.filter(|text| text.parse().is_ok_and(is_reachable)).map(str::to_owned));
    let listed = list(attributes, ALIAS_ATTRIBUTE).unwrap_or_default().split(',');
    aliases.extend(listed.map(|alias| alias.trim().to_owned()));
    aliases
}

fn is_reachable(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !ip.is_loopback() && !ip.is_unspecified() && !link_local
}
