//! Policy files: what a short one means, what is refused and in which words, and that a text stands for itself.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use headroom_catalog::DEFAULT_POLICY;
use headroom_config::{load_policy, policy_schema};
use headroom_model::Policy;
use headroom_model::policy::{Mode, ThresholdKind, Thresholds};

fn load(text: &str) -> Policy {
    load_policy("p.yaml", text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn thresholds(policy: &Policy, rule: &str, signal: &str) -> Thresholds {
    let at = policy.signals.iter().position(|of| of.name == signal).unwrap();
    policy.rules.iter().find(|of| of.name == rule).unwrap().thresholds[at]
}

#[test]
fn the_default_policy_is_what_the_design_says() {
    let policy = load(DEFAULT_POLICY);
    assert_eq!(&*policy.text, DEFAULT_POLICY);
    assert_eq!(policy.classes, ["urgent", "customerExpectation", "internalMaintenance", "discretionary"]);
    let [rule] = policy.rules.as_slice() else { panic!("{:?}", policy.rules) };
    assert_eq!(rule.mode, Mode::Observe);
    assert_eq!(
        rule.classes.iter().map(|class| class.set_point).collect::<Vec<_>>(),
        [None, Some(1.2), Some(0.9), Some(0.7)]
    );
    let signal = |name: &str| policy.signals.iter().find(|signal| signal.name == name).unwrap();
    assert!(!signal("filesystem_full").throttle && signal("disk_await").throttle);
    assert_eq!(signal("disk_await").reason, "disk_latency_high");
    assert_eq!(signal("cpu_steal").reason, "cpu_steal_high");
    assert_eq!(signal("http_latency").volume, Some(("http_requests".into(), 100.0)));
    assert!(matches!(signal("http_latency").threshold_kind, ThresholdKind::Relative { baseline_min_seconds: 300, .. }));
    assert!(policy.inputs.is_sorted_by_key(|input| &input.name));
    assert_eq!(load("").inputs, policy.inputs);
}

#[test]
fn a_short_policy_changes_what_it_names() {
    let policy = load(
        "mode: {enforce: 25}\n\
         signals:\n  cpu_busy: {over: 0.9}\n  cpu_steal: null\n  queue_age:\n    {family: queue, unit: s, expression: queue_age_max, under: 30, over: 120, critical: 600}\n\
         inputs:\n  queue_age_max: {function: max, fold: max, sources: [{metrics: [app.queue.age]}]}\n\
         classes:\n  internalMaintenance: null\n  discretionary: {set_point: 0.6}\n\
         score: 1 - clamp01(greatest(load_pressure, queue_age_pressure) / 2)\n\
         rollup: mean(queue_age_pressure)\n",
    );
    assert_eq!(policy.rollup.as_deref(), Some("mean(queue_age_pressure)"));
    assert_eq!(load("").rollup, None);
    assert_eq!(thresholds(&policy, "default", "cpu_busy"), Thresholds { under: 0.7, over: 0.9, critical: 0.98 });
    assert!(policy.signals.iter().all(|signal| signal.name != "cpu_steal"));
    assert_eq!(policy.signals.last().unwrap().name, "queue_age");
    assert_eq!(policy.classes, ["urgent", "customerExpectation", "discretionary"]);
    let rule = &policy.rules[0];
    assert_eq!(
        (rule.mode, rule.classes[2].set_point, rule.classes[2].floor),
        (Mode::Enforce { percent: 25.0 }, Some(0.6), 0.0)
    );
    // `off` is a word here, not a truth value.
    assert_eq!(load("mode: off").rules[0].mode, Mode::Off);
}

#[test]
fn a_text_stands_for_itself() {
    let policy = load("mode: enforce");
    let again = load(&policy.text);
    assert_eq!(again, policy);
    assert_eq!(policy.hash.len(), 8);
    assert_ne!(policy.hash, load("mode: off").hash);
    // A later version, whose default policy says something else, reads the same policy from the text.
    let later = policy
        .text
        .replace("over: 0.85\n    critical: 0.98\n    peers: {floor: 0.02}", "over: 0.8\n    critical: 0.98");
    assert_ne!(later, &*policy.text);
    assert_eq!(thresholds(&load(&later), "default", "cpu_busy").over, 0.8);
}

#[test]
fn the_most_specific_rule_comes_first() {
    let policy = load(
        "rules:\n\
         - {name: europe, match: {cell: eu-*}, mode: off}\n\
         - {name: databases, match: {cell: eu-*, pool: db-*}, signals: {disk_await: {over: 0.02}}, classes: {urgent: {set_point: 1.6}}, nominal: {discretionary: 200}}\n\
         - {name: one, match: {cell: eu-1}, classes: {customerExpectation: {set_point: null}}}\n\
         - {name: critical, match: {attributes: {service.criticality: high, tier: '1', zone: a}}}\n",
    );
    let names: Vec<&str> = policy.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["critical", "databases", "one", "europe", "default"]);
    let at = |cell: &str, pool: &str| names[policy.rule_of(cell, pool, |_| None)];
    assert_eq!(
        (at("eu-1", "db-3"), at("eu-1", "web"), at("eu-2", "web"), at("us-1", "db-1")),
        ("databases", "one", "europe", "default")
    );
    assert_eq!(thresholds(&policy, "databases", "disk_await").over, 0.02);
    assert_eq!(thresholds(&policy, "databases", "disk_await").critical, 0.1);
    assert_eq!(policy.rules[1].nominals, [None, None, None, Some(200.0)]);
    assert_eq!((policy.rules[1].classes[0].set_point, policy.rules[2].classes[1].set_point), (Some(1.6), None));
    assert_eq!(policy.rules[3].mode, Mode::Off);
}

#[test]
fn a_reload_keeps_what_it_does_not_name() {
    let hashes = |text: &str| {
        let policy = load(text);
        let inputs: Vec<&str> = policy.inputs.iter().map(|input| input.name.as_str()).collect();
        let signals: Vec<(&str, &str)> =
            policy.signals.iter().map(|signal| (signal.name.as_str(), signal.expression.as_str())).collect();
        let program = headroom_expr::compile(&inputs, &signals).unwrap();
        signals
            .iter()
            .enumerate()
            .map(|(at, (name, _))| ((*name).to_owned(), program.signal_hash(at)))
            .collect::<Vec<_>>()
    };
    let (before, after) = (
        hashes(""),
        hashes("signals: {cpu_busy: {over: 0.9}, page_faults: null, swap_in: {expression: pages_swapped_in * 2}}"),
    );
    let kept = before.iter().filter(|of| after.contains(of)).count();
    assert_eq!((before.len(), kept), (after.len() + 1, before.len() - 2));
}

#[test]
fn what_is_refused_says_where_and_what_was_meant() {
    for (yaml, expected) in [
        (
            "signals:\n  cpu_busy: {ovr: 0.9}\n",
            "p.yaml:2:14: unknown key `ovr` in `signals.cpu_busy`; did you mean `over`?\n  2 |   cpu_busy: {ovr: 0.9}\n    |              ^",
        ),
        (
            "signals:\n  cpu_busy: {over: 0.6}\n",
            "p.yaml:2:3: `cpu_busy` needs under < over < critical, not 0.7, 0.6, 0.98\n  2 |   cpu_busy: {over: 0.6}\n    |   ^",
        ),
        (
            "signals:\n  cpu_stael: null\n",
            "p.yaml:2:3: there is no `cpu_stael` to remove; did you mean `cpu_steal`?\n  2 |   cpu_stael: null\n    |   ^",
        ),
        (
            "signals:\n  cpu_steal:\n    expression: cpu_time_steel / cpu_time_total\n",
            "p.yaml:3:17: signal `cpu_steal`: unknown column `cpu_time_steel`; did you mean `cpu_time_steal`?\n  3 |     expression: cpu_time_steel / cpu_time_total\n    |                 ^",
        ),
        (
            "signals:\n  cpu_steal:\n    expression: |\n      cpu_time_steal\n        / cpu_time_totl\n",
            "p.yaml:5:11: signal `cpu_steal`: unknown column `cpu_time_totl`; did you mean `cpu_time_total`?\n  5 |         / cpu_time_totl\n    |           ^",
        ),
        (
            "signals:\n  cpu_steal:\n    expression: >-\n      coalesce(cpu_time_steal,\n      cpu_time_totl)\n",
            "p.yaml:4:7: signal `cpu_steal`: unknown column `cpu_time_totl`; did you mean `cpu_time_total`?\n  4 |       coalesce(cpu_time_steal,\n    |       ^",
        ),
        (
            "signals: {x: {family: cpu, expression: '1', under: 1, over: 2}}",
            "p.yaml:1:14: `signals.x` lacks the key `critical`\n  1 | signals: {x: {family: cpu, expression: '1', under: 1, over: 2}}\n    |              ^",
        ),
        (
            "mode: enforced",
            "p.yaml:1:7: `mode` must be one of off, observe, enforce, not `enforced`; did you mean `enforce`?\n  1 | mode: enforced\n    |       ^",
        ),
        (
            "mode: {enforce: 120}",
            "p.yaml:1:17: `mode.enforce` must be at most 100, not 120\n  1 | mode: {enforce: 120}\n    |                 ^",
        ),
        (
            "lease: {lease_seconds: '60'}",
            "p.yaml:1:24: `lease.lease_seconds` must be a whole number, not `60`\n  1 | lease: {lease_seconds: '60'}\n    |                        ^",
        ),
        (
            "inputs: {a: {function: rate, sources: [{metrics: [m], where: [{keys: [k], in: [1]}]}]}}",
            "p.yaml:1:80: `inputs.a.sources.0.where.0.in.0` must be text, not 1; put it in quotes\n  1 | inputs: {a: {function: rate, sources: [{metrics: [m], where: [{keys: [k], in: [1]}]}]}}\n    |                                                                                ^",
        ),
        (
            "inputs: {a: {function: rate, sources: [{metrics: [m], where: [{keys: [k]}]}]}}",
            "p.yaml:1:63: a filter has either `in` or `not_in`\n  1 | inputs: {a: {function: rate, sources: [{metrics: [m], where: [{keys: [k]}]}]}}\n    |                                                               ^",
        ),
        (
            "rules:\n- name: a\n  match: {pool: db-*}\n- name: b\n  match: {cell: eu-*}\n",
            "p.yaml:5:3: rules `a` and `b` fit some servers equally well; give one of them a condition more, or name what it matches without stars\n  5 |   match: {cell: eu-*}\n    |   ^",
        ),
        (
            "rules: [{name: a, match: {pool: x}, signals: {cpu_bussy: {over: 1}}, classes: {bulk: {}}, nominal: {urgent: 0}}]",
            "p.yaml:1:47: there is no signal `cpu_bussy`; did you mean `cpu_busy`?\n\
             p.yaml:1:80: there is no class `bulk`\n\
             p.yaml:1:109: the nominal of `urgent` must be more than 0",
        ),
        (
            "rules: [{name: a, match: {}}]",
            "p.yaml:1:19: rule `a` has no condition; what is for all servers stands at the top of the policy\n  1 | rules: [{name: a, match: {}}]\n    |                   ^",
        ),
        (
            "classes: {discretionary: {set_point: 2}}",
            "p.yaml:1:11: `discretionary` gives way later than `internalMaintenance`, which is more important; set-points fall from the most important class to the least\n  1 | classes: {discretionary: {set_point: 2}}\n    |           ^",
        ),
        (
            "signals: {disk_await: {volume: {input: disk_io_time, min: 3}}}",
            "p.yaml:1:40: input `disk_io_time` does not count events; its function must be count or increase\n  1 | signals: {disk_await: {volume: {input: disk_io_time, min: 3}}}\n    |                                        ^",
        ),
        (
            "lease: {lease_seconds: 5}",
            "p.yaml:1:24: `lease.lease_seconds` is 5, too short for `lease.refresh_seconds`\n  1 | lease: {lease_seconds: 5}\n    |                        ^",
        ),
        (
            "score: pressure + nope",
            "p.yaml:1:19: the score: unknown column `nope`\n  1 | score: pressure + nope\n    |                   ^",
        ),
        (
            "rollup: mean(scor) / 2",
            "p.yaml:1:14: the rollup: unknown column `scor`; did you mean `score`?\n  1 | rollup: mean(scor) / 2\n    |              ^",
        ),
        (
            "extends: nothing",
            "p.yaml:1:1: the policy has no classes\n  1 | extends: nothing\n    | ^\n\
             p.yaml:1:1: the policy has no inputs\n\
             p.yaml:1:1: the policy has no signals",
        ),
        (
            "inputs: {Bad-Name: {function: rate, sources: [{metrics: [m], scale: 0}]}}",
            "p.yaml:1:10: `Bad-Name` is no name for one of inputs; a letter, then up to 63 small letters, digits and _\n\
             p.yaml:1:69: a scale must be a number other than 0",
        ),
    ] {
        let errors = load_policy("p.yaml", yaml).expect_err(yaml);
        // Where several problems share a line, the snippets are left out of the table.
        let full = errors.to_string();
        let bare = errors.0.iter().map(|problem| full_line(&problem.to_string())).collect::<Vec<_>>();
        let expected_bare: Vec<String> =
            expected.lines().filter(|line| line.starts_with("p.yaml")).map(String::from).collect();
        let (mut bare_sorted, mut expected_sorted) = (bare.clone(), expected_bare.clone());
        bare_sorted.sort();
        expected_sorted.sort();
        assert_eq!(bare_sorted, expected_sorted, "{yaml}");
        if errors.0.len() == 1 {
            assert_eq!(full, expected, "{yaml}");
        }
    }
}

fn full_line(problem: &str) -> String {
    problem.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn broken_yaml_has_a_place() {
    for (yaml, line) in [("a: [1", 1), ("mode: observe\nmode: off\n", 2), ("a: b: c", 1), ("\tx: 1", 1)] {
        let errors = load_policy("p.yaml", yaml).expect_err(yaml);
        assert!(errors.to_string().starts_with(&format!("p.yaml:{line}:")), "{yaml}: {errors}");
        assert_eq!(errors.0.len(), 1, "{errors}");
    }
}

#[test]
fn the_schema_knows_every_section() {
    let schema = policy_schema();
    for section in ["extends", "mode", "windows", "lease", "health", "classes", "rules", "score", "inputs", "signals"] {
        assert!(schema["properties"].get(section).is_some(), "{section}");
    }
    assert_eq!(schema["additionalProperties"], false);
}

/// Whoever writes a file has no options of a library to set.
#[test]
fn what_is_wrong_with_the_yaml_is_said_in_words_of_the_file() {
    for (text, said) in [
        ("mode: observe\nmode: off\n", "twice"),
        ("signals: &all\n  cpu_busy: *all\n", "part of"),
        ("health: {peer_z: .nan}\n", "peer_z"),
    ] {
        let told = load_policy("p.yaml", text).expect_err(text).to_string();
        assert!(told.contains(said), "{text:?} is told {told:?}");
        for foreign in ["DuplicateKeyPolicy", "Options", "weak", "configured policy"] {
            assert!(!told.contains(foreign), "{text:?} is told {told:?}");
        }
    }
}
