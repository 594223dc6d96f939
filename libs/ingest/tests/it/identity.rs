//! Which name a resource gives its server.

use std::sync::Arc;

use headroom_ingest::{IdentityConfig, RejectReason};
use headroom_model::Resource;

fn resolve(config: &IdentityConfig, pairs: &[(&str, &str)]) -> Result<Resource, RejectReason> {
    let mut attributes: Vec<(Arc<str>, Arc<str>)> = pairs.iter().map(|(k, v)| (Arc::from(*k), Arc::from(*v))).collect();
    attributes.sort();
    config.resolve(attributes, 32)
}

/// `server | host names | aliases`, or the reason.
fn check(config: &IdentityConfig, pairs: &[(&str, &str)], expect: &str) {
    let got = match resolve(config, pairs) {
        Ok(resource) => {
            format!("{} | {} | {}", resource.server, resource.host_names.join(" "), resource.aliases.join(" "))
        }
        Err(reason) => reason.as_str().to_owned(),
    };
    assert_eq!(got, expect, "{pairs:?}");
}

#[test]
fn names_by_the_default_rule() {
    let config = IdentityConfig::default();
    for (pairs, expect) in [
        (&[("host.name", "web-17")][..], "web-17 | web-17 | "),
        (
            &[("host.name", "web-17.eu.example"), ("host.id", "i-1")],
            "web-17.eu.example | i-1 web-17.eu.example | web-17",
        ),
        (&[("host.id", "i-1")], "i-1 | i-1 | "),
        (&[("host.name", "10.0.0.1")], "10.0.0.1 | 10.0.0.1 | "),
        (&[("host.name", ""), ("host.id", "i-1")], "i-1 | i-1 | "),
        (&[("k8s.node.name", "n1"), ("k8s.node.uid", "u1"), ("host.name", "n1")], "n1 | n1 u1 | "),
        // A pod's host.name must not join nodes.
        (&[("k8s.node.name", "n1"), ("k8s.pod.name", "db-0"), ("host.name", "db-0")], "n1 | n1 | db-0"),
        (&[("k8s.pod.name", "db-0"), ("host.name", "db-0")], "db-0 | db-0 | "),
        (
            &[("container.id", "0123456789abcdef"), ("host.name", "0123456789ab"), ("host.id", "i-1")],
            "i-1 | i-1 | 0123456789ab",
        ),
        (&[("service.name", "shop"), ("service.instance.id", "42")], "no_identity"),
        (&[("server.address", "10.0.0.1"), ("server.port", "9100")], "10.0.0.1 | 10.0.0.1 | 10.0.0.1:9100"),
        (&[("server.address", "localhost"), ("server.port", "9100")], "no_identity"),
        (&[("server.address", "10.0.0.1"), ("k8s.pod.uid", "p")], "no_identity"),
        (
            &[
                ("host.name", "a"),
                ("host.ip", r#"["10.0.0.1","127.0.0.1","fe80::1","fd00::7"]"#),
                ("headroom.alias", "be/a, a ,b"),
            ],
            "a | a | 10.0.0.1 b be/a fd00::7",
        ),
        (&[("host.name", "a"), ("service.instance.id", "x:1")], "a | a | x:1"),
        // What shows nothing, or steers the terminal that shows it, names nothing.
        (&[("host.name", "  \u{200b}")], "no_identity"),
        (&[("host.name", "\u{1b}[2J")], "no_identity"),
        (&[("host.name", "web\u{202e}1"), ("host.id", "i-1")], "i-1 | i-1 | "),
        (&[("host.name", "a"), ("headroom.alias", "b,\u{7},c\n")], "a | a | b c"),
        (&[("host.name", "a-name-of-more-than-thirty-two-bytes")], "identity_too_long"),
        (&[], "no_identity"),
    ] {
        check(&config, pairs, expect);
    }
}

#[test]
fn names_by_the_operators_rule() {
    let template = IdentityConfig { server: vec!["{rack}/{slot}".parse().unwrap()], ..IdentityConfig::default() };
    check(&template, &[("rack", "r1"), ("slot", "7"), ("host.name", "h")], "r1/7 | r1/7 | h");
    check(&template, &[("rack", "r1"), ("host.name", "h")], "h | h | ");
    let host = IdentityConfig { server: vec!["host.id".parse().unwrap()], ..IdentityConfig::default() };
    check(&host, &[("host.id", "i-1"), ("host.name", "h")], "i-1 | h i-1 | ");
    let service = IdentityConfig { allow_service_instance: true, ..IdentityConfig::default() };
    check(&service, &[("service.name", "shop"), ("service.instance.id", "42")], "/shop/42 |  | 42");
    check(&service, &[("service.name", "unknown_service:java"), ("service.instance.id", "42")], "no_identity");
    check(&service, &[("service.name", "shop"), ("service.instance.id", "42"), ("host.name", "h")], "h | h | 42");
}

#[test]
fn cell_pool_and_sender() {
    let config = IdentityConfig::default();
    for (pairs, expect) in [
        (&[][..], "default default "),
        (
            &[("k8s.cluster.name", "eu-1"), ("cloud.availability_zone", "1a"), ("service.name", "shop")],
            "eu-1 shop /shop/",
        ),
        (
            &[("headroom.cell", "c"), ("k8s.cluster.name", "eu-1"), ("headroom.pool", "p"), ("service.name", "s")],
            "c p /s/",
        ),
        (&[("cloud.availability_zone", "1a"), ("service.name", "unknown_service:node")], "1a default "),
        (&[("service.namespace", "n"), ("service.name", "s"), ("service.instance.id", "7")], "default s n/s/7"),
    ] {
        let pairs = [&[("host.name", "h")], pairs].concat();
        let resource = resolve(&config, &pairs).unwrap();
        assert_eq!(format!("{} {} {}", resource.cell, resource.pool, resource.sender), expect, "{pairs:?}");
    }
}

#[test]
fn rules_are_read_and_refused() {
    for (rule, expect) in [
        ("host.id", Ok("host.id")),
        ("{a}/{b}-x", Ok("{a}/{b}-x")),
        ("", Err("is empty")),
        ("{a", Err("has a `{` without its `}`")),
        ("a}", Err("has a `}` without its `{`")),
        ("{a}}", Err("has a `}` without its `{`")),
        ("{}", Err("has no attribute between `{` and `}`")),
    ] {
        let got = rule.parse::<headroom_ingest::NameRule>();
        assert_eq!(got.map(|rule| rule.to_string()).map_err(|error| error.reason), expect.map(str::to_owned), "{rule}");
    }
}
