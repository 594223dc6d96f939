//! The aggregates of a roll-up: from a column with a value per server to one value for each group of servers.
//!
//! A server whose value is null takes no part, in a share as little as in a mean. Sums run in the order of rows, which is
//! itself a function of the log; a quantile is a value that some server has. So equal rows give equal bits.

use arrow_array::{Array, Float64Array};

/// What becomes of the values of a group.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Fold {
    /// How many servers a condition holds for: the sum of zeros and ones, and 0 of none.
    Count,
    Sum,
    Mean,
    Min,
    Max,
    /// The value at this rank, 0-1; of two in the middle the lower.
    Quantile(f64),
}

/// An aggregate as it is written.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Aggregate {
    /// One argument: a condition or a number.
    Plain { name: &'static str, fold: Fold, takes_truth: bool },
    /// A number and a constant.
    Quantile,
}

const QUANTILE: &str = "quantile";

const PLAIN: [(&str, Fold, bool); 6] = [
    ("count", Fold::Count, true),
    ("max", Fold::Max, false),
    ("mean", Fold::Mean, false),
    ("min", Fold::Min, false),
    ("share", Fold::Mean, true),
    ("sum", Fold::Sum, false),
];

/// Every aggregate.
pub(crate) fn aggregate_names() -> &'static [&'static str] {
    &["count", "max", "mean", "min", QUANTILE, "share", "sum"]
}

/// What to write instead of an aggregate that is called otherwise here.
pub(crate) fn why_no_aggregate(name: &str) -> Option<&'static str> {
    match name {
        "avg" => Some("write mean(x)"),
        "median" | "percentile" | "p50" | "p90" | "p95" | "p99" => {
            Some("write quantile(x, rank), such as quantile(x, 0.5)")
        }
        "stddev" | "var" => Some("there are count, max, mean, min, quantile, share and sum"),
        _ => None,
    }
}

impl Aggregate {
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        if name == QUANTILE {
            return Some(Self::Quantile);
        }
        let row = PLAIN.iter().find(|row| row.0 == name);
        row.map(|(name, fold, takes_truth)| Self::Plain { name, fold: *fold, takes_truth: *takes_truth })
    }

    pub(crate) fn takes_truth(self) -> bool {
        matches!(self, Self::Plain { takes_truth: true, .. })
    }

    pub(crate) fn usage(self) -> String {
        match self {
            Self::Quantile => "quantile(x, rank), such as quantile(score, 0.1)".into(),
            Self::Plain { name, takes_truth: true, .. } => format!("{name}(condition)"),
            Self::Plain { name, .. } => format!("{name}(x)"),
        }
    }
}

impl Fold {
    /// Folds a column: a value for each of `groups` groups and, last, one for all rows that are in any. A row whose group
    /// is not below `groups` is in none.
    pub(crate) fn of(self, column: &Float64Array, group_of: &[u32], groups: usize) -> Float64Array {
        let values = column.values().iter().zip(group_of).enumerate();
        let members = values
            .filter(|(row, (_, group))| (**group as usize) < groups && column.is_valid(*row))
            .map(|(_, (value, group))| (*value, *group as usize));
        if let Self::Quantile(rank) = self {
            return quantiles(members, groups, rank);
        }
        let mut counts = vec![0.0; groups + 1];
        let start = match self {
            Self::Min => f64::INFINITY,
            Self::Max => f64::NEG_INFINITY,
            _ => 0.0,
        };
        let mut folded = vec![start; groups + 1];
        for (value, group) in members {
            for at in [group, groups] {
                counts[at] += 1.0;
                folded[at] = match self {
                    Self::Min => folded[at].min(value),
                    Self::Max => folded[at].max(value),
                    _ => folded[at] + value,
                };
            }
        }
        folded
            .into_iter()
            .zip(counts)
            .map(|(folded, count)| match self {
                Self::Count => Some(folded),
                _ if count == 0.0 => None,
                Self::Mean => Some(folded / count),
                _ => Some(folded),
            })
            .collect()
    }
}

fn quantiles(members: impl Iterator<Item = (f64, usize)>, groups: usize, rank: f64) -> Float64Array {
    let mut values_of: Vec<Vec<f64>> = vec![Vec::new(); groups + 1];
    for (value, group) in members {
        values_of[group].push(value);
        values_of[groups].push(value);
    }
    let at_rank = |mut values: Vec<f64>| {
        let last = values.len().checked_sub(1)?;
        let at = ((last as f64 * rank) as usize).min(last);
        Some(*values.select_nth_unstable_by(at, f64::total_cmp).1)
    };
    values_of.into_iter().map(at_rank).collect()
}
