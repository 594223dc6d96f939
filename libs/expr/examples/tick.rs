//! Times the expressions of a tick: `cargo run --release -p headroom-expr --example tick [servers]`.
//!
//! Twenty ramps, twenty ratios and twenty smoothed inputs, each also with one server in sixteen silent: the best of seven
//! runs, in CPU time of the one thread, which a busy machine hardly moves. A figure of a kernel; what counts is the tick
//! as a whole.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch};
use headroom_expr::{ExprState, compile};

/// CPU time of this thread in nanoseconds, as Linux counts it.
fn cpu_ns() -> Result<u64, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split_whitespace().next().unwrap_or_default().parse()?)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let servers: usize = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let names: Vec<String> = (0..20).map(|input| format!("i{input}")).collect();
    let inputs: Vec<&str> = names.iter().map(String::as_str).collect();
    let ramps: Vec<String> = (0..20).map(|input| format!("ramp(i{input}, 0.1, 0.9)")).collect();
    let ratios: Vec<String> = (0..20).map(|input| format!("i{input} / (i{} + 1)", (input + 1) % 20)).collect();
    let smooth: Vec<String> = (0..20).map(|input| format!("ewma(i{input}, 60)")).collect();
    for (what, expressions) in [("ramp", &ramps), ("ratio", &ratios), ("ewma", &smooth)] {
        let signals: Vec<(String, &str)> =
            expressions.iter().enumerate().map(|(signal, text)| (format!("s{signal}"), text.as_str())).collect();
        let signals: Vec<(&str, &str)> = signals.iter().map(|(name, text)| (name.as_str(), *text)).collect();
        let program = compile(&inputs, &signals).map_err(|errors| format!("{errors:?}"))?;
        for silent_one_in in [0, 16] {
            let columns = (0..20).map(|input| {
                let values = (0..servers).map(|row| {
                    let silent = silent_one_in > 0 && row % silent_one_in == 0;
                    (!silent).then(|| ((row * 31 + input * 7) % 1000) as f64 / 1000.0)
                });
                Arc::new(values.collect::<Float64Array>()) as ArrayRef
            });
            let batch = RecordBatch::try_from_iter(names.iter().zip(columns))?;
            let mut state = ExprState::default();
            let mut best_ms = f64::INFINITY;
            for _ in 0..7 {
                let start = cpu_ns()?;
                let result = program.evaluate(&batch, None, 10.0, &mut state)?;
                best_ms = best_ms.min((cpu_ns()? - start) as f64 / 1e6);
                drop(result);
            }
            println!("20 x {what}, {servers} servers, one in {silent_one_in} silent: {best_ms:.1} ms CPU");
        }
    }
    Ok(())
}
