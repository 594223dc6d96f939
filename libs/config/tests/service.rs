//! The service's configuration: who wins, who said what, and what is refused in which words.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use headroom_config::{
    Config, Durability, Flag, LoadArgs, Loaded, Origin, SourceEncoding, SourceStart, TimeMode, config_schema,
};

fn args<'a>(file: &'a str, env: &[(&str, &str)], flags: &[(&str, &str, &str)]) -> LoadArgs<'a> {
    LoadArgs {
        file: (!file.is_empty()).then_some(("h.yaml", file)),
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        flags: flags
            .iter()
            .map(|(path, value, name)| Flag {
                path: (*path).to_owned(),
                value: (*value).to_owned(),
                name: (*name).to_owned(),
            })
            .collect(),
    }
}

fn origin(loaded: &Loaded, path: &str) -> String {
    loaded.settings.iter().find(|setting| setting.path == path).unwrap().origin.to_string()
}

#[test]
fn everything_is_optional() {
    let loaded = Config::load(&LoadArgs::default()).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert!(loaded.settings.iter().all(|setting| setting.origin == Origin::Default));
    for file in ["{}", "# nothing\n\n", "http: {}\nlog: {data_dir: null}\n"] {
        assert_eq!(Config::load(&args(file, &[], &[])).unwrap().config, Config::default(), "{file}");
    }
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_defaults() {
    let loaded = Config::load(&args(
        "time: {tick_seconds: 5, mode: event:follow}\nlog:\n  partitions: 8\n  data_dir: ${STATE}/headroom\n  durability: ${D:-written}\nengine: {servers_max: \"${MAX:-7}\"}\n",
        &[
            ("STATE", "/var/lib"),
            ("D", ""),
            ("HEADROOM__LOG__PARTITIONS", "16"),
            ("HEADROOM__TIME__TICK_SECONDS", "2"),
            ("HEADROOM__IDENTITY__KEYS", "rack, {a}/{b}"),
            ("HEADROOM_LOG", "debug"),
            ("PATH", "/bin"),
        ],
        &[("time.tick_seconds", "1", "--tick"), ("security.allow_insecure_bind", "true", "--insecure")],
    ))
    .unwrap();
    let config = &loaded.config;
    assert_eq!((config.time.tick_seconds, config.time.mode), (1, TimeMode::EventFollow));
    assert_eq!((config.log.partitions, config.log.durability), (16, Durability::Written));
    assert_eq!(config.log.data_dir.as_deref(), Some("/var/lib/headroom"));
    assert_eq!(config.engine.servers_max, 7);
    assert_eq!(config.identity.keys, ["rack", "{a}/{b}"]);
    assert!(config.security.allow_insecure_bind);
    for (path, expected) in [
        ("time.tick_seconds", "flag --tick"),
        ("log.partitions", "environment variable HEADROOM__LOG__PARTITIONS"),
        ("log.data_dir", "h.yaml:4:13"),
        ("time.mode", "h.yaml:1:31"),
        ("http.listen", "default"),
    ] {
        assert_eq!(origin(&loaded, path), expected, "{path}");
    }
}

#[test]
fn what_is_refused_says_where_and_what_was_meant() {
    for (file, env, flags, expected) in [
        ("oltp: {}\n", vec![], vec![], "h.yaml:1:1: unknown key `oltp`; did you mean `otlp`?\n  1 | oltp: {}\n    | ^"),
        (
            "http:\n  listen: 80\n  connections_max: many\n",
            vec![],
            vec![],
            "h.yaml:2:11: `http.listen` must be text, not 80; put it in quotes\n  2 |   listen: 80\n    |           ^\n\
             h.yaml:3:20: `http.connections_max` must be a whole number, not `many`\n  3 |   connections_max: many\n    |                    ^",
        ),
        (
            "time: {tick_seconds: 61}",
            vec![],
            vec![],
            "h.yaml:1:22: `time.tick_seconds` must be at most 60, not 61\n  1 | time: {tick_seconds: 61}\n    |                      ^",
        ),
        (
            "time: {mode: evnt}",
            vec![],
            vec![],
            "h.yaml:1:14: `time.mode` must be one of wall, event, event:follow, not `evnt`; did you mean `event`?\n  1 | time: {mode: evnt}\n    |              ^",
        ),
        (
            "http: {listen: 0.0.0.0:8080}",
            vec![],
            vec![],
            "h.yaml:1:16: `http.listen` is reachable from other machines, and nobody there has to show who he is; bind to 127.0.0.1, set security.auth: tokens, or set security.allow_insecure_bind: true\n  1 | http: {listen: 0.0.0.0:8080}\n    |                ^",
        ),
        (
            "http: {listen: localhost}",
            vec![],
            vec![],
            "h.yaml:1:16: `http.listen` must be an address and a port, not `localhost`; write 127.0.0.1:8080 or [::1]:8080\n  1 | http: {listen: localhost}\n    |                ^",
        ),
        (
            "log: {data_dir: '${NOPE}'}",
            vec![],
            vec![],
            "h.yaml:1:17: the environment variable NOPE is not set\n  1 | log: {data_dir: '${NOPE}'}\n    |                 ^",
        ),
        (
            "",
            vec![("HEADROOM__TIME__TICKSECONDS", "5"), ("HEADROOM__LOG__PARTITIONS", "two")],
            vec![("http.listn", "x", "--set")],
            "environment variable HEADROOM__LOG__PARTITIONS: `log.partitions` must be a whole number, not `two`\n\
             environment variable HEADROOM__TIME__TICKSECONDS: there is no key `time.tickseconds`; did you mean HEADROOM__TIME__TICK_SECONDS?\n\
             flag --set: there is no key `http.listn`; did you mean `http.listen`?",
        ),
        (
            "otlp: {http_listen: 127.0.0.1:8080}",
            vec![],
            vec![],
            "h.yaml:1:21: `otlp.http_listen` is the address of `http.listen` too\n  1 | otlp: {http_listen: 127.0.0.1:8080}\n    |                     ^",
        ),
        (
            "identity: {pool_keys: [a, '{b']}",
            vec![],
            vec![],
            "h.yaml:1:27: `{b` is no template: its braces do not match\n  1 | identity: {pool_keys: [a, '{b']}\n    |                           ^",
        ),
        (
            "log: {segment_bytes: 67108864, bytes_max: 67108864}",
            vec![],
            vec![],
            "h.yaml:1:22: `log.segment_bytes` must be at most a quarter of `log.bytes_max`, 16777216; retention deletes whole segments\n  1 | log: {segment_bytes: 67108864, bytes_max: 67108864}\n    |                      ^",
        ),
        (
            "security: {auth: token}",
            vec![],
            vec![],
            "h.yaml:1:18: `security.auth` must be one of none, tokens, not `token`; did you mean `tokens`?\n  1 | security: {auth: token}\n    |                  ^",
        ),
        (
            "http: {listen: 0.0.0.0:8080}\nsecurity: {auth: tokens, callers_file: c.yaml}",
            vec![],
            vec![],
            "h.yaml:1:16: `http.listen` is reachable from other machines, and tokens would cross the network in the clear; set security.tls.cert_file and key_file; if a proxy in front encrypts, security.allow_plaintext: true\n  1 | http: {listen: 0.0.0.0:8080}\n    |                ^",
        ),
        (
            "security:\n  auth: tokens\n  tls: {cert_file: a}\n",
            vec![],
            vec![],
            "h.yaml:2:9: `security.auth` is tokens, but `security.callers_file` does not say whose\n  2 |   auth: tokens\n    |         ^\n\
             h.yaml:3:20: `security.tls.cert_file` needs `security.tls.key_file` beside it\n  3 |   tls: {cert_file: a}\n    |                    ^",
        ),
        (
            "security:\n  callers_file: c\n  tls: {client_auth: required, key_file: k}\n",
            vec![],
            vec![],
            "h.yaml:2:17: `security.callers_file` has no effect while `security.auth` is none; set it to tokens\n  2 |   callers_file: c\n    |                 ^\n\
             h.yaml:3:22: `security.tls.client_auth` needs `security.tls.client_ca_file`, and a certificate of the server's own\n  3 |   tls: {client_auth: required, key_file: k}\n    |                      ^\n\
             h.yaml:3:42: `security.tls.key_file` needs `security.tls.cert_file` beside it\n  3 |   tls: {client_auth: required, key_file: k}\n    |                                          ^",
        ),
        ("- 1", vec![], vec![], "h.yaml:1:1: the file must be a map, not a list\n  1 | - 1\n    | ^"),
    ] {
        let errors = Config::load(&args(file, &env, &flags)).expect_err(file);
        assert_eq!(errors.to_string(), expected, "{file}");
    }
}

/// What may be reached from elsewhere, and what it takes.
#[test]
fn a_listener_beyond_loopback_needs_authentication_and_encryption() {
    let tls = "cert_file: c, key_file: k";
    for (security, is_accepted) in [
        (String::new(), false),
        ("auth: tokens, callers_file: c".to_owned(), false),
        ("auth: tokens, callers_file: c, allow_plaintext: true".to_owned(), true),
        ("allow_plaintext: true".to_owned(), false),
        (format!("tls: {{{tls}}}"), false),
        (format!("auth: tokens, callers_file: c, tls: {{{tls}}}"), true),
        (format!("tls: {{{tls}, client_ca_file: a, client_auth: optional}}"), false),
        (format!("tls: {{{tls}, client_ca_file: a, client_auth: required}}"), true),
        ("allow_insecure_bind: true".to_owned(), true),
    ] {
        for listener in ["http: {listen", "http: {operator_listen", "otlp: {grpc_listen", "otlp: {http_listen"] {
            for (address, is_exposed) in [("127.0.0.1:1", false), ("'[::1]:1'", false), ("192.0.2.1:1", true)] {
                let file = format!("{listener}: {address}}}\nsecurity: {{{security}}}\n");
                let loaded = Config::load(&args(&file, &[], &[]));
                assert_eq!(loaded.is_ok(), is_accepted || !is_exposed, "{file}{loaded:?}");
            }
        }
    }
}

#[test]
fn interpolation_can_be_escaped() {
    let loaded = Config::load(&args("log: {data_dir: 'a$${B}c'}", &[], &[])).unwrap();
    assert_eq!(loaded.config.log.data_dir.as_deref(), Some("a${B}c"));
}

#[test]
fn every_key_is_in_the_schema_and_documented() {
    let schema = config_schema();
    let loaded = Config::load(&LoadArgs::default()).unwrap();
    for setting in loaded.settings {
        let of_key = setting.path.split('.').try_fold(&schema, |above, key| {
            let target = above["$ref"].as_str().map(|target| target.trim_start_matches('#'));
            target.map_or(Some(above), |target| schema.pointer(target))?["properties"].get(key)
        });
        let of_key = of_key.unwrap_or_else(|| panic!("{} is not in the schema", setting.path));
        assert!(of_key.get("description").is_some(), "{} has no description", setting.path);
    }
}

#[test]
fn kafka_sources_default_to_the_cluster_of_their_section() {
    let file = "kafka:\n  brokers: [a:9092]\n  sasl: {mechanism: SCRAM-SHA-256, username: u, password_file: /p}\n  sources:\n    - {name: otel, topics: [otlp_metrics], encoding: otlp_proto}\n    - {name: json, topics: ['^team-.*'], start: earliest, group_protocol: consumer, identity: {keys: ['{dc}-{box}']}}\n";
    let config = Config::load(&args(file, &[], &[])).unwrap().config;
    let sources = &config.kafka.sources;
    assert_eq!(sources[0].encoding, SourceEncoding::OtlpProto);
    assert_eq!((sources[0].group.as_str(), sources[0].start), ("headroom", SourceStart::Latest));
    assert_eq!((sources[1].start, sources[1].encoding), (SourceStart::Earliest, SourceEncoding::Auto));
    assert_eq!(sources[1].identity.as_ref().unwrap().keys, ["{dc}-{box}"]);
    assert!(sources[0].identity.is_none());
}

#[test]
fn kafka_sources_that_cannot_work_are_refused_with_the_way_out() {
    for (section, message) in [
        ("sources: [{name: a, topics: [t]}]", "has no cluster"),
        ("brokers: [a:1]\n  sources: [{topics: [t]}]", "has no `name`"),
        ("brokers: [a:1]\n  sources: [{name: a}]", "has no `topics`"),
        ("brokers: [a:1]\n  sources: [{name: a, topics: [t]}, {name: a, topics: [u]}]", "two sources are called `a`"),
        (
            "brokers: [a:1]\n  sources: [{name: a, topics: [t], dead_letter_topic: t}]",
            "reads its own dead-letter topic",
        ),
        ("brokers: [a:1]\n  sources: [{name: a, topics: [t], bytes_max: 1}]", "8388608"),
        ("brokers: [a:1]\n  sources: [{name: a, topics: [t], encoding: avro}]", "`avro`"),
        ("brokers: [a:1]\n  sources: [{name: a, topic: [t]}]", "did you mean `topics`?"),
        ("brokers: [a:1]\n  sources: [{name: a, topics: [t], identity: {keys: ['{a']}}]", "braces do not match"),
        ("brokers: [a:1]\n  tls: {cert_file: /c}", "has no `ca_file`"),
        ("brokers: [a:1]\n  tls: {ca_file: /a, cert_file: /c}", "they go together"),
        ("brokers: [a:1]\n  sasl: {username: u}", "either `password_file` or `password_env`"),
        ("brokers: [a:1]\n  sasl: {username: u, password: p}", "unknown key `password`"),
        (
            "brokers: [a:1]\n  sources: [{name: a, topics: [t], sasl: {username: u, password_env: P}}]",
            "without `brokers` of its own",
        ),
    ] {
        let file = format!("kafka:\n  {section}\n");
        let errors = Config::load(&args(&file, &[], &[])).unwrap_err().to_string();
        assert!(errors.contains(message), "{section}: {errors}");
        assert!(errors.contains("h.yaml"), "{errors}");
    }
}

#[test]
fn the_environment_and_flags_set_keys_of_sections_that_the_file_leaves_out() {
    let env = [("HEADROOM__KAFKA__SASL__PASSWORD_FILE", "/run/secrets/kafka")];
    for (file, flags) in [
        ("kafka: {brokers: [a:1], sasl: {username: a}}", &[][..]),
        ("kafka: {brokers: [a:1]}", &[("kafka.sasl.username", "a", "--set")][..]),
    ] {
        let loaded = Config::load(&args(file, &env, flags)).unwrap();
        let sasl = loaded.config.kafka.sasl.as_ref().expect("the section is there");
        assert_eq!(
            (sasl.username.as_str(), sasl.password_file.as_deref()),
            ("a", Some("/run/secrets/kafka")),
            "{file}"
        );
        assert_eq!(
            origin(&loaded, "kafka.sasl.password_file"),
            "environment variable HEADROOM__KAFKA__SASL__PASSWORD_FILE"
        );
    }
    let error = Config::load(&args("", &[("HEADROOM__KAFKA__SASL__PASSWORDFILE", "x")], &[])).unwrap_err().to_string();
    assert!(error.contains("did you mean HEADROOM__KAFKA__SASL__PASSWORD_FILE?"), "{error}");
}

/// Secrets stand in files and variables of their own; one that stands here by mistake must not go on into a log.
#[test]
fn a_secret_that_stands_in_the_wrong_place_is_not_repeated() {
    for file in [
        "kafka: {sasl: {username: a, password: hunter2}}",
        "kafka:\n  sasl:\n    password: hunter2\n",
        "kafka:\n  sasl:\n    \"password\" : hunter2\n",
        "kafka:\n  sasl: {usrname: a, password: hunter2}\n",
        "kafka: {sasl: {username: a, password_file: [hunter2]}}",
        "security: {callers_file: 7, api_key: hunter2}",
        "kafka:\n  sasl:\n    password_file:\n      hunter2: 1\n",
        "token: hunter2",
    ] {
        let error = Config::load(&args(file, &[], &[])).unwrap_err().to_string();
        assert!(!error.contains("hunter2") || error.contains("unknown key `hunter2`"), "{file}: {error}");
        assert!(!error.contains(" | "), "{file}: {error}");
        assert!(error.contains("h.yaml:"), "{file}: {error}");
    }
}
