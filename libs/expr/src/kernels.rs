//! The arithmetic of our functions: one pass over the rows of each.
//!
//! A kernel sees columns and constants. Rows that are null hold arbitrary numbers, and most kernels compute on them too
//! rather than branch: the result is null there whatever it is.

use std::sync::Arc;

use arrow_array::{Array, Float64Array};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use datafusion_common::{DataFusionError, Result, ScalarValue};
use datafusion_expr::ColumnarValue;

/// An argument of a function.
pub(crate) enum Arg {
    /// The same for every row.
    Constant(Option<f64>),
    /// One for each row.
    Column(Float64Array),
}

impl Arg {
    pub(crate) fn of(value: &ColumnarValue) -> Result<Self> {
        match value {
            ColumnarValue::Scalar(ScalarValue::Float64(number)) => Ok(Self::Constant(*number)),
            ColumnarValue::Scalar(other) => Err(unexpected(&other.data_type())),
            ColumnarValue::Array(array) => array
                .as_any()
                .downcast_ref::<Float64Array>()
                .map(|column| Self::Column(column.clone()))
                .ok_or_else(|| unexpected(array.data_type())),
        }
    }

    fn nulls(&self) -> Option<&NullBuffer> {
        match self {
            Self::Constant(_) => None,
            Self::Column(column) => column.nulls(),
        }
    }

    fn is_null_everywhere(&self) -> bool {
        match self {
            Self::Constant(number) => number.is_none(),
            Self::Column(column) => column.null_count() == column.len(),
        }
    }

    /// The number of a row, arbitrary where it is null.
    #[inline]
    fn raw(&self, row: usize) -> f64 {
        match self {
            Self::Constant(number) => number.unwrap_or(0.0),
            Self::Column(column) => column.values()[row],
        }
    }

    /// The number of a row if it is there and finite.
    #[inline]
    fn get(&self, row: usize) -> Option<f64> {
        match self {
            Self::Constant(number) => number.filter(|number| number.is_finite()),
            Self::Column(column) => {
                let number = column.values()[row];
                (number.is_finite() && column.nulls().is_none_or(|nulls| nulls.is_valid(row))).then_some(number)
            }
        }
    }
}

fn unexpected(data_type: &arrow_schema::DataType) -> DataFusionError {
    DataFusionError::Internal(format!("a number was expected, not {data_type}"))
}

fn column(values: Vec<f64>, nulls: Option<NullBuffer>) -> ColumnarValue {
    ColumnarValue::Array(Arc::new(Float64Array::new(values.into(), nulls)))
}

fn constant(number: Option<f64>) -> ColumnarValue {
    ColumnarValue::Scalar(ScalarValue::Float64(number))
}

/// `f` of one argument, null where the argument is.
pub(crate) fn map1(a: &Arg, f: impl Fn(f64) -> f64) -> ColumnarValue {
    match a {
        Arg::Constant(number) => constant(number.map(f)),
        Arg::Column(of) => column(of.values().iter().map(|x| f(*x)).collect(), of.nulls().cloned()),
    }
}

/// `f` of two arguments, null where one of them is.
pub(crate) fn map2(a: &Arg, b: &Arg, rows: usize, f: impl Fn(f64, f64) -> f64) -> ColumnarValue {
    match (a, b) {
        (Arg::Constant(a), Arg::Constant(b)) => constant(a.zip(*b).map(|(a, b)| f(a, b))),
        _ if a.is_null_everywhere() || b.is_null_everywhere() => constant(None),
        (_, Arg::Constant(Some(b))) => map1(a, |x| f(x, *b)),
        (Arg::Column(left), Arg::Column(right)) => column(
            left.values().iter().zip(right.values()).map(|(x, y)| f(*x, *y)).collect(),
            NullBuffer::union(left.nulls(), right.nulls()),
        ),
        _ => column((0..rows).map(|row| f(a.raw(row), b.raw(row))).collect(), NullBuffer::union(a.nulls(), b.nulls())),
    }
}

/// `f` of three arguments, null where one of them is. Constant second and third arguments are the fast case.
pub(crate) fn map3(a: &Arg, b: &Arg, c: &Arg, rows: usize, f: impl Fn(f64, f64, f64) -> f64) -> ColumnarValue {
    match (a, b, c) {
        _ if a.is_null_everywhere() || b.is_null_everywhere() || c.is_null_everywhere() => constant(None),
        (_, Arg::Constant(Some(b)), Arg::Constant(Some(c))) => map1(a, |x| f(x, *b, *c)),
        _ => {
            let nulls = NullBuffer::union(NullBuffer::union(a.nulls(), b.nulls()).as_ref(), c.nulls());
            column((0..rows).map(|row| f(a.raw(row), b.raw(row), c.raw(row))).collect(), nulls)
        }
    }
}

/// Makes rows null where `keep` does not hold of the number of `by`, too.
pub(crate) fn null_unless(result: ColumnarValue, by: &Arg, keep: impl Fn(f64) -> bool) -> ColumnarValue {
    match (result, by) {
        (result, Arg::Constant(number)) => match number {
            Some(number) if keep(*number) => result,
            _ => constant(None),
        },
        (ColumnarValue::Scalar(scalar), Arg::Column(_)) => ColumnarValue::Scalar(scalar),
        (ColumnarValue::Array(array), Arg::Column(of)) => {
            let numbers = of.values();
            // Without short-circuit, so that the loop is one vector instruction per few rows.
            if numbers.iter().fold(true, |all, number| all & keep(*number)) {
                return ColumnarValue::Array(array);
            }
            let Some(floats) = array.as_any().downcast_ref::<Float64Array>() else {
                return ColumnarValue::Array(array);
            };
            let kept = NullBuffer::new(BooleanBuffer::collect_bool(numbers.len(), |row| keep(numbers[row])));
            let nulls = NullBuffer::union(floats.nulls(), Some(&kept));
            ColumnarValue::Array(Arc::new(Float64Array::new(floats.values().clone(), nulls)))
        }
    }
}

/// Makes rows null whose number is not finite: what a logarithm of -1 and a division by zero give.
pub(crate) fn finite(result: ColumnarValue) -> Result<ColumnarValue> {
    let by = Arg::of(&result)?;
    Ok(null_unless(result, &by, f64::is_finite))
}

/// Folds all arguments of a row that are there and finite; null where none is.
pub(crate) fn fold(args: &[Arg], rows: usize, f: impl Fn(f64, f64) -> f64) -> ColumnarValue {
    let of_row = |row: usize| {
        args.iter().filter_map(|arg| arg.get(row)).fold(None, |so_far, x| Some(so_far.map_or(x, |y| f(y, x))))
    };
    if args.iter().all(|arg| matches!(arg, Arg::Constant(_))) {
        return constant(of_row(0));
    }
    ColumnarValue::Array(Arc::new((0..rows).map(of_row).collect::<Float64Array>()))
}

/// The first argument of each row that is there and finite.
pub(crate) fn coalesce(args: &[Arg], rows: usize) -> ColumnarValue {
    if let Some(Arg::Column(first)) = args.first()
        && first.null_count() == 0
        && first.values().iter().fold(true, |all, x| all & x.is_finite())
    {
        return ColumnarValue::Array(Arc::new(first.clone()));
    }
    fold(args, rows, |first, _| first)
}

/// SQL's `nullif`: null where both are equal, else the first. A null second argument changes nothing.
pub(crate) fn nullif(a: &Arg, b: &Arg, rows: usize) -> ColumnarValue {
    if let (Arg::Constant(a), Arg::Constant(b)) = (a, b) {
        return constant(a.filter(|a| Some(*a) != *b));
    }
    let of_row = |row: usize| a.get(row).filter(|x| b.get(row) != Some(*x));
    ColumnarValue::Array(Arc::new((0..rows).map(of_row).collect::<Float64Array>()))
}
