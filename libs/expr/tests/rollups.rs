//! Roll-ups: what aggregates make of servers, group by group, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use headroom_expr::{AGGREGATES_MAX, EXPRESSION_NODES_MAX, STATES, compile_rollup, rollup_columns};

const IN_NONE: u32 = u32::MAX;

/// Rolls up servers that have `cpu`, `score` and states, and nothing else.
fn roll_up(expression: &str, servers: &[(u32, Option<f64>, &[&str])], groups: usize) -> Vec<Option<f64>> {
    let columns = rollup_columns(&["cpu"]);
    let rollup = compile_rollup(&["cpu"], expression).unwrap_or_else(|errors| panic!("{errors:?}"));
    let column = |name: &String| {
        let values = servers.iter().map(|(_, value, states)| match name.as_str() {
            "cpu" | "score" => *value,
            name if STATES.iter().any(|(word, _)| *word == name) => Some(f64::from(u8::from(states.contains(&name)))),
            _ => None,
        });
        Arc::new(values.collect::<Float64Array>()) as ArrayRef
    };
    let fields: Vec<Field> = columns.iter().map(|name| Field::new(name, DataType::Float64, true)).collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.iter().map(column).collect()).unwrap();
    let group_of: Vec<u32> = servers.iter().map(|(group, ..)| *group).collect();
    rollup.evaluate(&batch, &group_of, groups).unwrap().iter().collect()
}

const SERVERS: [(u32, Option<f64>, &[&str]); 7] = [
    (0, Some(0.5), &["ok", "overloaded"]),
    (1, Some(0.75), &["ok", "normal"]),
    (0, Some(0.25), &["faulty", "critical"]),
    (IN_NONE, Some(0.0), &["faulty", "critical"]),
    (0, None, &["unknown"]),
    (0, Some(1.0), &["ok", "normal"]),
    (1, Some(0.875), &["ok", "normal"]),
];

#[test]
fn aggregates_fold_each_group_and_all_of_them() {
    for (expression, expected) in [
        ("min(score)", [Some(0.25), Some(0.75), None, Some(0.25)]),
        ("max(score)", [Some(1.0), Some(0.875), None, Some(1.0)]),
        ("mean(cpu)", [Some(1.75 / 3.0), Some(0.8125), None, Some(0.675)]),
        ("sum(cpu)", [Some(1.75), Some(1.625), None, Some(3.375)]),
        // Of two in the middle the lower: a value that some server has.
        ("quantile(score, 0.5)", [Some(0.5), Some(0.75), None, Some(0.75)]),
        ("quantile(score, 0)", [Some(0.25), Some(0.75), None, Some(0.25)]),
        ("quantile(score, 1)", [Some(1.0), Some(0.875), None, Some(1.0)]),
        ("share(faulty)", [Some(0.25), Some(0.0), None, Some(1.0 / 6.0)]),
        ("count(overloaded OR critical)", [Some(2.0), Some(0.0), Some(0.0), Some(2.0)]),
        // A server without a value takes no part.
        ("share(score < 0.8)", [Some(2.0 / 3.0), Some(0.5), None, Some(0.6)]),
        ("count(score < 0.8)", [Some(2.0), Some(1.0), Some(0.0), Some(3.0)]),
        ("count(true)", [Some(4.0), Some(2.0), Some(0.0), Some(6.0)]),
        ("1 - ramp(share(NOT ok), 0, 1)", [Some(0.5), Some(1.0), None, Some(1.0 - 2.0 / 6.0)]),
        ("coalesce(min(score), 1) / 2", [Some(0.125), Some(0.375), Some(0.5), Some(0.125)]),
        (
            "least(mean(CASE WHEN faulty THEN 0 ELSE score END), max(load_pressure))",
            [Some(0.5), Some(0.8125), None, Some(0.625)],
        ),
        ("0.5", [Some(0.5); 4]),
    ] {
        assert_eq!(roll_up(expression, &SERVERS, 3), expected, "{expression}");
    }
}

#[test]
fn nobody_at_all_is_no_value() {
    assert_eq!(roll_up("mean(score)", &[], 0), [None]);
    assert_eq!(roll_up("1 - mean(score) / count(faulty)", &SERVERS[5..6], 1), [None, None]);
}

#[test]
fn only_what_is_read_is_asked_for() {
    let columns = rollup_columns(&["cpu", "disk"]);
    let rollup = compile_rollup(&["cpu", "disk"], "mean(disk_pressure) + share(score < 0.5 AND faulty)").unwrap();
    let reads: Vec<&str> = rollup.reads().iter().map(|at| columns[*at].as_str()).collect();
    assert_eq!(reads, ["disk_pressure", "score", "faulty"]);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (expression, expected) in [
        (
            "score",
            "rollup:1:1: `score` differs from server to server; fold it: mean(score) of a number, share(score) of a state",
        ),
        ("mean(scor)", "rollup:1:6: unknown column `scor`; did you mean `score`?"),
        ("meen(score)", "rollup:1:1: unknown function `meen`; did you mean `mean`?"),
        ("avg(score)", "rollup:1:1: unknown function `avg`; write mean(x)"),
        (
            "1 +\n median(score)",
            "rollup:2:2: unknown function `median`; write quantile(x, rank), such as quantile(x, 0.5)",
        ),
        ("mean(min(score))", "rollup:1:6: an aggregate is of servers, and cannot stand inside another one"),
        ("share(score)", "rollup:1:7: a truth value is needed here, not a number; compare it, such as `x > 0`"),
        ("mean(faulty)", "rollup:1:6: a number is needed here, not a truth value; write CASE WHEN … THEN 1 ELSE 0 END"),
        (
            "quantile(score, 2)",
            "rollup:1:17: the rank of `quantile` must be a constant from 0 to 1; write quantile(x, rank), such as quantile(score, 0.1)",
        ),
        (
            "quantile(score)",
            "rollup:1:1: `quantile` does not take 1 arguments; write quantile(x, rank), such as quantile(score, 0.1)",
        ),
        ("mean(score, 1)", "rollup:1:1: `mean` does not take 2 arguments; write mean(x)"),
        ("count(*)", "rollup:1:1: the arguments of `count` must be plain expressions"),
        ("mean(ewma(score, 60))", "rollup:1:6: a roll-up has no memory: smooth a signal, and roll that up"),
    ] {
        let errors = compile_rollup(&["cpu"], expression).unwrap_err();
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected], "{expression}");
    }
    let errors = compile_rollup(&["faulty"], "mean(score)").unwrap_err();
    assert_eq!(
        errors[0].to_string(),
        "rollup:1:1: there are two columns `faulty`; a policy with a roll-up has no signal `faulty`"
    );
}

#[test]
fn the_bounds_of_an_expression_hold_for_what_stands_in_its_aggregates() {
    let sum_of = |count: usize| vec!["min(score)"; count].join(" + ");
    assert!(compile_rollup(&[], &sum_of(AGGREGATES_MAX)).is_ok());
    let errors = compile_rollup(&[], &sum_of(AGGREGATES_MAX + 1)).unwrap_err();
    assert!(errors[0].message.contains("more than 16 aggregates"), "{errors:?}");
    // An operand that stands once and is copied for each item, in aggregates that are small by themselves.
    let operand = vec!["score"; 100].join(" + ");
    let copied = format!("count({operand} IN ({}))", vec!["1"; 15].join(", "));
    assert!(compile_rollup(&[], &copied).is_ok());
    let errors = compile_rollup(&[], &format!("{copied} + {copied}")).unwrap_err();
    assert!(errors[0].message.contains(&format!("larger than {EXPRESSION_NODES_MAX} nodes")), "{errors:?}");
}

#[test]
fn aggregates_are_of_roll_ups_alone() {
    let errors = headroom_expr::compile(&["a"], &[("s", "mean(a)")]).unwrap_err();
    assert!(errors[0].to_string().starts_with("s:1:1: unknown function `mean`; an expression sees one server"));
}
