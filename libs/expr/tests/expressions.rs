//! What expressions mean, what is refused and in which words, and what is remembered between ticks.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Float64Array, RecordBatch};
use headroom_expr::{ExprState, Program, compile, compile_score, function_names, score_columns};
use headroom_model::codec::{Decoder, Encoder};

type Rows = Vec<Option<f64>>;

fn batch(columns: &[(&str, Rows)]) -> RecordBatch {
    RecordBatch::try_from_iter(
        columns.iter().map(|(name, rows)| (*name, Arc::new(Float64Array::from(rows.clone())) as ArrayRef)),
    )
    .unwrap()
}

fn rows(result: &RecordBatch, signal: usize) -> Rows {
    result.column(signal).as_any().downcast_ref::<Float64Array>().unwrap().iter().collect()
}

fn run(program: &Program, inputs: &RecordBatch) -> RecordBatch {
    program.evaluate(inputs, None, 10.0, &mut ExprState::default()).unwrap()
}

const NONE: Option<f64> = None;

/// Four servers: both inputs; a zero divisor; a missing `a`; nothing.
fn four() -> RecordBatch {
    batch(&[("a", vec![Some(3.0), Some(-2.0), NONE, NONE]), ("b", vec![Some(2.0), Some(0.0), Some(4.0), NONE])])
}

#[test]
fn expressions_mean_what_sql_means_with_null_for_what_is_no_number() {
    let s = |numbers: [f64; 4]| numbers.map(|x| (!x.is_nan()).then_some(x)).to_vec();
    const N: f64 = f64::NAN;
    for (expression, expected) in [
        ("a", s([3.0, -2.0, N, N])),
        ("1/2", s([0.5, 0.5, 0.5, 0.5])),
        ("a + 2 * b", s([7.0, -2.0, N, N])),
        ("-(a - b) % 2", s([-1.0, 0.0, N, N])),
        ("a / b", s([1.5, N, N, N])),
        ("a % 0 > 1", s([N, N, N, N])),
        ("a % b", s([1.0, N, N, N])),
        ("coalesce(a / b, b, 7)", s([1.5, 0.0, 4.0, 7.0])),
        ("greatest(a, b)", s([3.0, 0.0, 4.0, N])),
        ("least(a, b, 2.5)", s([2.0, -2.0, 2.5, 2.5])),
        ("nullif(b, 0)", s([2.0, N, 4.0, N])),
        ("nullif(a, b + 1)", s([N, -2.0, N, N])),
        ("ramp(a, -2, 8)", s([0.5, 0.0, N, N])),
        ("ramp(a, 8, -2)", s([0.5, 1.0, N, N])),
        ("ramp(a, b, 4)", s([0.5, 0.0, N, N])),
        ("ramp(a, 3, 3)", s([1.0, 0.0, N, N])),
        ("clamp01(a)", s([1.0, 0.0, N, N])),
        ("zscore(a, 1, b)", s([1.0, N, N, N])),
        ("zscore(a, 1, 0)", s([N, N, N, N])),
        ("sqrt(a - 2)", s([1.0, N, N, N])),
        ("ln(a / 3) IS NULL", s([0.0, 1.0, 1.0, 1.0])),
        ("sqrt(a) > 0", s([1.0, N, N, N])),
        ("power(a, 2) + abs(a) + sign(a)", s([13.0, 5.0, N, N])),
        ("floor(a / 2) + ceil(a / 2) + round(0.6)", s([4.0, -1.0, N, N])),
        ("exp(1000)", s([N, N, N, N])),
        ("log2(8) + log10(100)", s([5.0, 5.0, 5.0, 5.0])),
        ("CASE WHEN a > 0 THEN b WHEN a < 0 THEN -1 END", s([2.0, -1.0, N, N])),
        ("CASE b WHEN 2 THEN 20 ELSE 30 END", s([20.0, 30.0, 30.0, 30.0])),
        ("a > 0 AND NOT b = 0", s([1.0, 0.0, N, N])),
        ("a BETWEEN 1 AND 3", s([1.0, 0.0, N, N])),
        ("a NOT IN (3, 4)", s([0.0, 1.0, N, N])),
        ("(a IS NOT NULL) IS TRUE", s([1.0, 1.0, 0.0, 0.0])),
        ("NULL", s([N, N, N, N])),
        ("TRUE", s([1.0, 1.0, 1.0, 1.0])),
        ("-- why\n a", s([3.0, -2.0, N, N])),
        ("LEAST(A.a, 1)", vec![]),
    ] {
        match compile(&["a", "b"], &[("s", expression)]) {
            Ok(program) => assert_eq!(rows(&run(&program, &four()), 0), expected, "{expression}"),
            Err(errors) => assert!(expected.is_empty(), "{expression}: {errors:?}"),
        }
    }
}

#[test]
fn what_is_refused_says_where_and_what_instead() {
    for (expression, expected) in [
        ("", "s:1:1: the expression is empty"),
        ("cpu_bsy + 1", "s:1:1: unknown column `cpu_bsy`; did you mean `cpu_busy`?"),
        ("1 +\n  2 * zzz", "s:2:7: unknown column `zzz`"),
        ("1 + ", "s:1:5: expected: an expression, found: the end"),
        ("(1 + 2", "s:1:7: expected: ), found: the end"),
        ("1 2", "s:1:3: unexpected `2`"),
        ("a; DROP TABLE x", "s:1:2: unexpected `;`"),
        ("'text", "s:1:1: unterminated string literal"),
        ("a + 'x'", "s:1:5: `'x'` is not a number"),
        ("rmap(a, 0, 1)", "s:1:1: unknown function `rmap`; did you mean `ramp`?"),
        ("1 + ramp(a, 0)", "s:1:5: `ramp` does not take 2 arguments; write ramp(x, low, high)"),
        (
            "sum(a)",
            "s:1:1: unknown function `sum`; an expression sees one server; fold sub-series in `inputs`, and use greatest or least over columns",
        ),
        (
            "quantile(a, 0.5)",
            "s:1:1: unknown function `quantile`; a quantile needs the histogram: give the input `function: {quantile: 0.95}`",
        ),
        (
            "a * random()",
            "s:1:5: unknown function `random`; the same samples must give the same answer, so there is no clock and no chance",
        ),
        ("abs(a) OVER (ORDER BY a)", "s:1:1: `abs` takes nothing but plain arguments here"),
        ("abs(DISTINCT a)", "s:1:1: `abs` takes nothing but plain arguments here"),
        ("greatest(*)", "s:1:1: the arguments of `greatest` must be plain expressions"),
        ("(SELECT 1)", "s:1:2: an expression sees one server; it cannot hold a query"),
        ("a IN (SELECT 1)", "s:1:1: an expression sees one server; it cannot hold a query"),
        (
            "CAST(a AS TEXT)",
            "s:1:6: `CAST(a AS TEXT)` is not part of the expression language; numbers, inputs, signals, + - * / %, comparisons, AND OR NOT, CASE and functions are",
        ),
        ("a ^ 2", "s:1:1: there is no operator `^`; write power(x, y)"),
        ("a + (a > 1)", "s:1:6: a number is needed here, not a truth value; write CASE WHEN … THEN 1 ELSE 0 END"),
        ("a AND TRUE", "s:1:1: a truth value is needed here, not a number; compare it, such as `x > 0`"),
        ("t.cpu_busi", "s:1:1: there are no tables, so `t.cpu_busi` is no name; did you mean `cpu_busy`?"),
        ("later + 1", "s:1:1: signal `later` is not defined yet here; a signal reads inputs and the signals above it"),
        ("s + 1", "s:1:1: signal `s` is not defined yet here; a signal reads inputs and the signals above it"),
        (
            "ewma(a, b)",
            "s:1:9: the half-life of `ewma` must be a constant of at least 1 second; write ewma(x, half_life_seconds), such as ewma(x, 60)",
        ),
        (
            "ewma(a, 0.3)",
            "s:1:9: the half-life of `ewma` must be a constant of at least 1 second; write ewma(x, half_life_seconds), such as ewma(x, 60)",
        ),
        ("1e999", "s:1:1: `1e999` is not a finite number"),
    ] {
        let errors = compile(&["a", "b", "cpu_busy"], &[("s", expression), ("later", "a")]).unwrap_err();
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected], "{expression}");
    }
}

#[test]
fn depth_length_and_names_are_bounded() {
    let chain = vec!["a"; 500].join("+");
    let long = "a+".repeat(4000) + "a";
    let parentheses = "(".repeat(1500) + "a" + &")".repeat(1500);
    let calls = vec!["ewma(a, 60)"; 65].join("+");
    for (expression, expected) in [
        (&chain, "nested too deeply"),
        (&long, "longer than 4096 bytes"),
        (&parentheses, "nested too deeply"),
        (&calls, "more than 64 calls of `ewma`"),
    ] {
        let errors = compile(&["a"], &[("s", expression)]).unwrap_err();
        assert!(errors[0].message.contains(expected), "{errors:?}");
    }
    for (inputs, signals) in [
        (vec!["a", "a"], vec![]),
        (vec!["a"], vec![("a", "1")]),
        (vec!["a"], vec![("s", "1"), ("s", "2")]),
        (vec!["a"], vec![("__ewma_1", "1")]),
    ] {
        assert_eq!(compile(&inputs, &signals).unwrap_err().len(), 1, "{inputs:?} {signals:?}");
    }
}

#[test]
fn what_is_copied_counts_as_often_as_it_is_copied() {
    let nested = |open: &str, close: &str, times: usize| open.repeat(times) + "a" + &close.repeat(times);
    for expression in [
        nested("CASE ", " WHEN 1 THEN 2 WHEN 3 THEN 4 END", 30),
        nested("CASE WHEN (", ") IN (1, 2, 3) THEN 1 ELSE 0 END", 12),
        nested("CASE WHEN (", ") BETWEEN 1 AND 2 THEN 1 ELSE 0 END", 12),
    ] {
        let errors = compile(&["a"], &[("s", &expression)]).unwrap_err();
        assert!(errors[0].message.contains("larger than 4096 nodes"), "{errors:?}");
        assert!(errors[0].line == 1 && errors[0].column > 1, "{errors:?}");
    }
    // What people write is far from the bound.
    let items = (0..400).map(|item| item.to_string()).collect::<Vec<_>>().join(", ");
    assert!(compile(&["a"], &[("s", &format!("a + 1 IN ({items})"))]).is_ok());
    assert!(compile(&["a"], &[("s", &nested("CASE ", " WHEN 1 THEN 2 WHEN 3 THEN 4 END", 5))]).is_ok());
}

#[test]
fn one_bad_signal_does_not_blame_those_that_read_it() {
    let errors = compile(&["a"], &[("x", "a +"), ("y", "x + 1"), ("z", "nope")]).unwrap_err();
    assert_eq!(errors.iter().map(|error| error.signal.as_str()).collect::<Vec<_>>(), ["x", "z"]);
}

#[test]
fn signals_read_signals_and_know_their_inputs() {
    let program = compile(
        &["a", "b", "c"],
        &[("x", "a / b"), ("y", "ewma(x + c, 30)"), ("z", "greatest(y, 1)"), ("constant", "4")],
    )
    .unwrap();
    assert_eq!(
        (0..4).map(|signal| program.dependencies(signal).to_vec()).collect::<Vec<_>>(),
        [vec![0, 1], vec![0, 1, 2], vec![0, 1, 2], vec![]]
    );
    let inputs = batch(&[("a", vec![Some(4.0)]), ("b", vec![Some(2.0)]), ("c", vec![Some(1.0)])]);
    let result = run(&program, &inputs);
    assert_eq!((0..4).map(|signal| rows(&result, signal)[0]).collect::<Vec<_>>(), [2.0, 3.0, 3.0, 4.0].map(Some));
}

#[test]
fn ewma_halves_the_distance_in_its_half_life_and_keeps_its_memory_over_silence() {
    let program = compile(&["a"], &[("s", "ewma(a, 10)"), ("t", "ewma(ewma(a, 10) * 2, 10)")]).unwrap();
    let mut state = ExprState::default();
    let mut seen = Vec::new();
    for value in [Some(0.0), Some(8.0), None, Some(8.0)] {
        let result = program.evaluate(&batch(&[("a", vec![value])]), Some(&[3]), 10.0, &mut state).unwrap();
        seen.push((rows(&result, 0)[0], rows(&result, 1)[0]));
        // A checkpoint between any two ticks changes nothing.
        let mut out = Encoder::default();
        state.encode(&mut out);
        let restored = ExprState::decode(&mut Decoder::new(&out.bytes)).unwrap();
        assert_eq!(restored, state);
        state = restored;
    }
    assert_eq!(seen, [(Some(0.0), Some(0.0)), (Some(4.0), Some(4.0)), (None, None), (Some(6.0), Some(8.0))]);
    state.clear_slot(3);
    state.clear_slot(77);
    let result = program.evaluate(&batch(&[("a", vec![Some(5.0)])]), Some(&[3]), 10.0, &mut state).unwrap();
    assert_eq!(rows(&result, 0), [Some(5.0)]);
}

#[test]
fn a_reload_keeps_what_did_not_change() {
    let old = compile(&["a", "b"], &[("x", "a"), ("s", "ewma(x, 10)"), ("u", "ewma(b, 10)")]).unwrap();
    let mut state = ExprState::default();
    let at = |a: f64| batch(&[("a", vec![Some(a)]), ("b", vec![Some(a)])]);
    old.evaluate(&at(0.0), None, 10.0, &mut state).unwrap();
    // `x` means something else now, and so does `s`, although its own text is the same; `u` moved but did not change.
    let new = compile(&["a", "b"], &[("u", "ewma(b, 10)"), ("x", "a + 1"), ("s", "ewma(x, 10)")]).unwrap();
    assert_eq!(old.signal_hash(2), new.signal_hash(0));
    assert_ne!(old.signal_hash(1), new.signal_hash(2));
    state.retain(&new);
    let bytes = state.memory_bytes();
    let result = new.evaluate(&at(8.0), None, 10.0, &mut state).unwrap();
    assert_eq!((rows(&result, 0), rows(&result, 2)), (vec![Some(4.0)], vec![Some(9.0)]));
    assert!(state.memory_bytes() > bytes, "the new call has a memory of its own");
}

#[test]
fn a_damaged_state_is_refused() {
    let mut state = ExprState::default();
    let program = compile(&["a"], &[("s", "ewma(a, 10)")]).unwrap();
    program.evaluate(&batch(&[("a", vec![Some(1.0), None])]), None, 10.0, &mut state).unwrap();
    let mut out = Encoder::default();
    state.encode(&mut out);
    for length in 0..out.bytes.len() {
        assert!(ExprState::decode(&mut Decoder::new(&out.bytes[..length])).is_err(), "{length}");
    }
}

#[test]
fn a_batch_of_another_shape_is_an_error() {
    let program = compile(&["a"], &[("s", "a")]).unwrap();
    let wrong_type =
        RecordBatch::try_from_iter([("a", Arc::new(arrow_array::Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    let mut state = ExprState::default();
    assert!(program.evaluate(&four(), None, 10.0, &mut state).is_err());
    assert!(program.evaluate(&wrong_type, None, 10.0, &mut state).is_err());
    assert!(program.evaluate(&batch(&[("a", vec![NONE])]), Some(&[]), 10.0, &mut state).is_err());
    assert_eq!(program.evaluate(&batch(&[("a", vec![])]), None, 10.0, &mut state).unwrap().num_rows(), 0);
}

#[test]
fn a_signal_that_is_an_input_is_its_very_column() {
    let program = compile(&["a", "b"], &[("x", "b"), ("y", "x + a")]).unwrap();
    let input = four();
    let result = run(&program, &input);
    assert!(Arc::ptr_eq(result.column(0), input.column(1)));
    assert_eq!(rows(&result, 1), rows(&run(&compile(&["a", "b"], &[("y", "b + a")]).unwrap(), &input), 0));
    assert_eq!((program.dependencies(0), program.dependencies(1)), (&[1][..], &[0, 1][..]));
}

#[test]
fn many_rows_give_what_few_rows_give() {
    // More than two slices of rows, with nulls that begin in the second.
    let column: Rows = (0..40_000).map(|row| (row < 20_000 || row % 3 != 0).then_some(f64::from(row % 101))).collect();
    let program = compile(&["a"], &[("x", "a / (a - 50)"), ("y", "ewma(coalesce(x, 1), 20)")]).unwrap();
    let whole = run(&program, &batch(&[("a", column.clone())]));
    for row in [0, 50, 16_383, 16_384, 20_001, 32_768, 39_999] {
        let one = run(&program, &batch(&[("a", vec![column[row]])]));
        for signal in 0..2 {
            assert_eq!(rows(&whole, signal)[row], rows(&one, signal)[0], "{row}");
        }
    }
    let values = whole.column(0).as_any().downcast_ref::<Float64Array>().unwrap();
    assert!(
        (0..values.len())
            .filter(|row| values.is_null(*row))
            .all(|row| values.values()[row].to_bits() == f64::NAN.to_bits())
    );
}

#[test]
fn a_score_reads_signals_and_pressures() {
    let columns = score_columns(&["cpu", "disk"]);
    assert_eq!(
        columns,
        ["cpu", "disk", "cpu_pressure", "disk_pressure", "load_pressure", "fault_pressure", "pressure"]
    );
    let program = compile_score(&["cpu", "disk"], "1 - clamp01(greatest(cpu_pressure, load_pressure) / 2)").unwrap();
    assert_eq!(program.dependencies(0), [2, 4]);
    let errors = compile_score(&["cpu"], "preasure").unwrap_err();
    assert_eq!(errors[0].to_string(), "score:1:1: unknown column `preasure`; did you mean `pressure`?");
}

#[test]
fn the_list_of_functions_is_sorted_and_callable() {
    let names: Vec<&str> = function_names().collect();
    assert!(names.is_sorted() && names.contains(&"ewma"), "{names:?}");
    for name in names {
        let called =
            (1..=3).any(|count| compile(&["a"], &[("s", &format!("{name}({})", vec!["2"; count].join(",")))]).is_ok());
        assert!(called, "{name}");
    }
}

#[test]
fn programs_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Program>();
}

mod any_text {
    use super::*;
    use proptest::prelude::*;

    /// Words of the language, so that some of what comes out is an expression.
    fn word() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "a",
            "b",
            "1",
            "0",
            ".5",
            "-",
            "+",
            "*",
            "/",
            "%",
            "(",
            ")",
            ",",
            "ramp(",
            "ewma(",
            "coalesce(",
            "power(",
            "ln(",
            "CASE",
            "WHEN",
            "THEN",
            "ELSE",
            "END",
            "AND",
            "NOT",
            "IS",
            "NULL",
            ">",
            "=",
            "BETWEEN",
            "IN",
            "'x'",
        ])
    }

    proptest! {
        #[test]
        fn is_an_expression_or_an_error_with_a_place(words in prop::collection::vec(word(), 1..12)) {
            let text = words.join(" ");
            match compile(&["a", "b"], &[("s", &text)]) {
                Ok(program) => {
                    let result = run(&program, &four());
                    prop_assert!(rows(&result, 0).into_iter().flatten().all(f64::is_finite));
                }
                Err(errors) => prop_assert!(errors.iter().all(|error| error.line == 1 && error.column <= text.len() + 1)),
            }
        }

        #[test]
        fn noise_never_panics(text in "\\PC{0,60}") {
            let _ = compile(&["a"], &[("s", &text)]);
        }
    }
}
