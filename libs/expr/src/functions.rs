//! The functions of the expression language, as DataFusion scalar functions. The list is closed.

use std::sync::Arc;

use arrow_schema::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::kernels::{Arg, coalesce, finite, fold, map1, map2, map3, null_unless, nullif};

/// What a function computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Function {
    Abs,
    Ceil,
    Clamp01,
    Coalesce,
    /// `a / b`, null where b is 0: what the operator `/` becomes.
    Divide,
    Exp,
    Floor,
    Greatest,
    Least,
    Ln,
    Log10,
    Log2,
    /// `a % b`, null where b is 0: what the operator `%` becomes.
    Modulo,
    Nullif,
    Power,
    Ramp,
    Round,
    Sign,
    Sqrt,
    Zscore,
}

/// Name, function, least and greatest number of arguments, usage.
const TABLE: [(&str, Function, usize, usize, &str); 18] = [
    ("abs", Function::Abs, 1, 1, "abs(x)"),
    ("ceil", Function::Ceil, 1, 1, "ceil(x)"),
    ("clamp01", Function::Clamp01, 1, 1, "clamp01(x)"),
    ("coalesce", Function::Coalesce, 1, ARGUMENTS_MAX, "coalesce(x, y, …)"),
    ("exp", Function::Exp, 1, 1, "exp(x)"),
    ("floor", Function::Floor, 1, 1, "floor(x)"),
    ("greatest", Function::Greatest, 1, ARGUMENTS_MAX, "greatest(x, y, …)"),
    ("least", Function::Least, 1, ARGUMENTS_MAX, "least(x, y, …)"),
    ("ln", Function::Ln, 1, 1, "ln(x)"),
    ("log10", Function::Log10, 1, 1, "log10(x)"),
    ("log2", Function::Log2, 1, 1, "log2(x)"),
    ("nullif", Function::Nullif, 2, 2, "nullif(x, y)"),
    ("power", Function::Power, 2, 2, "power(x, y)"),
    ("ramp", Function::Ramp, 3, 3, "ramp(x, low, high)"),
    ("round", Function::Round, 1, 1, "round(x)"),
    ("sign", Function::Sign, 1, 1, "sign(x)"),
    ("sqrt", Function::Sqrt, 1, 1, "sqrt(x)"),
    ("zscore", Function::Zscore, 3, 3, "zscore(x, mean, standard_deviation)"),
];

/// Most arguments of one call.
const ARGUMENTS_MAX: usize = 32;

/// Usage of the one function that has a memory; see `translate.rs`.
pub(crate) const EWMA_USAGE: &str = "ewma(x, half_life_seconds)";

/// Every function an expression may call, sorted.
pub fn function_names() -> impl Iterator<Item = &'static str> {
    let (before, after) = TABLE.split_at(4);
    before.iter().map(|row| row.0).chain(["ewma"]).chain(after.iter().map(|row| row.0))
}

/// A function by its name: itself, least and most arguments, usage.
pub(crate) fn by_name(name: &str) -> Option<(Function, usize, usize, &'static str)> {
    TABLE.iter().find(|row| row.0 == name).map(|(_, function, least, most, usage)| (*function, *least, *most, *usage))
}

/// Why a function that people look for is not there.
pub(crate) fn why_absent(name: &str) -> Option<&'static str> {
    match name {
        "avg" | "count" | "max" | "mean" | "median" | "min" | "stddev" | "sum" | "var" => {
            Some("an expression sees one server; fold sub-series in `inputs`, and use greatest or least over columns")
        }
        "quantile" | "percentile" | "p50" | "p95" | "p99" => {
            Some("a quantile needs the histogram: give the input `function: {quantile: 0.95}`")
        }
        "rate" | "increase" | "delta" | "last" => {
            Some("rates are made where counters are seen: give the input a `function`")
        }
        "now" | "current_timestamp" | "current_date" | "random" | "rand" | "uuid" => {
            Some("the same samples must give the same answer, so there is no clock and no chance")
        }
        "if" | "iif" => Some("write CASE WHEN … THEN … ELSE … END"),
        "ifnull" | "nvl" | "isnull" => Some("write coalesce(x, y)"),
        "pow" => Some("write power(x, y)"),
        "log" => Some("write ln(x), log2(x) or log10(x)"),
        _ => None,
    }
}

/// The DataFusion function.
pub(crate) fn udf(function: Function) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(Numeric {
        function,
        signature: Signature::variadic(vec![DataType::Float64], Volatility::Immutable),
    }))
}

/// All our functions take numbers and give a number; one type of DataFusion function is enough for all of them.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Numeric {
    function: Function,
    signature: Signature,
}

impl ScalarUDFImpl for Numeric {
    fn name(&self) -> &str {
        let operator = if self.function == Function::Modulo { "modulo" } else { "divide" };
        TABLE.iter().find(|row| row.1 == self.function).map_or(operator, |row| row.0)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let args = args.args.iter().map(Arg::of).collect::<Result<Vec<_>>>()?;
        let missing = Arg::Constant(None);
        let (a, b, c) =
            (args.first().unwrap_or(&missing), args.get(1).unwrap_or(&missing), args.get(2).unwrap_or(&missing));
        Ok(match self.function {
            Function::Abs => map1(a, f64::abs),
            Function::Ceil => map1(a, f64::ceil),
            Function::Clamp01 => map1(a, |x| x.clamp(0.0, 1.0)),
            Function::Coalesce => coalesce(&args, rows),
            Function::Divide => finite(map2(a, b, rows, |x, y| x / y))?,
            Function::Exp => finite(map1(a, f64::exp))?,
            Function::Floor => map1(a, f64::floor),
            Function::Greatest => fold(&args, rows, f64::max),
            Function::Least => fold(&args, rows, f64::min),
            Function::Ln => finite(map1(a, f64::ln))?,
            Function::Log10 => finite(map1(a, f64::log10))?,
            Function::Log2 => finite(map1(a, f64::log2))?,
            Function::Modulo => finite(map2(a, b, rows, |x, y| x % y))?,
            Function::Nullif => nullif(a, b, rows),
            Function::Power => finite(map2(a, b, rows, f64::powf))?,
            Function::Ramp => map3(a, b, c, rows, ramp),
            Function::Round => map1(a, f64::round),
            Function::Sign => map1(a, |x| if x == 0.0 { 0.0 } else { x.signum() }),
            Function::Sqrt => finite(map1(a, f64::sqrt))?,
            Function::Zscore => null_unless(map3(a, b, c, rows, |x, mean, sd| (x - mean) / sd), c, |sd| sd > 0.0),
        })
    }
}

/// 0 at `low`, 1 at `high`, straight between, flat outside. `high` below `low` makes a falling ramp; equal ends, a step.
#[inline]
fn ramp(x: f64, low: f64, high: f64) -> f64 {
    if low == high { f64::from(u8::from(x >= high)) } else { ((x - low) / (high - low)).clamp(0.0, 1.0) }
}
