//! One expression for the health of many servers: of each pool, and of the cell.
//!
//! `least(quantile(score, 0.1), 1 - ramp(share(faulty), 0, 0.2))` has two halves. What stands inside an aggregate is said
//! of a server, and evaluated over all of them at once like any other expression; what stands outside is said of a
//! group, and evaluated over one row per group. Between the two lies a fold of columns ([`crate::aggregate`]). So there is
//! no third evaluator, no plan, and the bounds of an expression are those of every other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{ArrayRef, Float64Array, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, Schema};
use datafusion_expr::Expr;
use headroom_model::frame::{FaultState, LoadState, Placement};

use crate::aggregate::Fold;
use crate::compile::{Operation, Program, evaluate_step, score_columns};
use crate::error::{EvaluateError, ExprError};
use crate::parse::{Complaint, parse};
use crate::state::ExprState;
use crate::translate::{HiddenColumn, Name, Scope, translate};

/// Most aggregates of one roll-up; each takes a number per server while it is computed.
pub const AGGREGATES_MAX: usize = 16;

/// What errors call the expression.
const ROLLUP: &str = "rollup";

/// What a server may be in, by a word that is true or false of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// A load state.
    Load(LoadState),
    /// A fault state.
    Fault(FaultState),
    /// A placement.
    Placement(Placement),
}

/// The words for states in a roll-up. `unknown` is the load state of a server of which nothing fresh is known.
pub const STATES: [(&str, State); 11] = [
    ("unknown", State::Load(LoadState::Unknown)),
    ("underloaded", State::Load(LoadState::Underloaded)),
    ("normal", State::Load(LoadState::Normal)),
    ("overloaded", State::Load(LoadState::Overloaded)),
    ("critical", State::Load(LoadState::Critical)),
    ("ok", State::Fault(FaultState::Ok)),
    ("suspect", State::Fault(FaultState::Suspect)),
    ("faulty", State::Fault(FaultState::Faulty)),
    ("allow", State::Placement(Placement::Allow)),
    ("avoid", State::Placement(Placement::Avoid)),
    ("block", State::Placement(Placement::Block)),
];

/// The columns that the aggregates of a roll-up may read: those of a score, `score`, `confidence`, and [`STATES`] as
/// zeros and ones. [`Rollup::evaluate`] wants them in this order.
pub fn rollup_columns(signals: &[&str]) -> Vec<String> {
    let states = STATES.iter().map(|(word, _)| *word);
    score_columns(signals)
        .into_iter()
        .chain(["score", "confidence"].into_iter().chain(states).map(String::from))
        .collect()
}

/// A compiled roll-up.
#[derive(Debug)]
pub struct Rollup {
    /// The arguments of the aggregates, over servers.
    arguments: Program,
    /// What becomes of each.
    folds: Vec<Fold>,
    /// The expression around them, over groups.
    whole: Program,
    reads: BTreeSet<usize>,
}

impl Rollup {
    /// The columns that are read, as positions in [`rollup_columns`]. Others may hold anything.
    pub fn reads(&self) -> &BTreeSet<usize> {
        &self.reads
    }

    /// The value of each of `groups` groups and, last, that of all their servers together; null where there is none.
    /// `group_of` says of each row which group its server is in; a row beyond the groups is in none.
    ///
    /// # Errors
    /// If the batch has other columns, or `group_of` another length.
    pub fn evaluate(
        &self,
        servers: &RecordBatch,
        group_of: &[u32],
        groups: usize,
    ) -> Result<Float64Array, EvaluateError> {
        if group_of.len() != servers.num_rows() {
            return Err(EvaluateError("there is not one group for each row".into()));
        }
        let mut no_memory = ExprState::default();
        let arguments = self.arguments.evaluate(servers, None, 0.0, &mut no_memory)?;
        let folded: Vec<ArrayRef> = self
            .folds
            .iter()
            .zip(arguments.columns())
            .map(|(fold, column)| {
                // NaN lies under every null of an input, as the program wants it.
                let folded = fold.of(column.as_primitive::<Float64Type>(), group_of, groups);
                let values: Vec<f64> = folded.iter().map(|value| value.unwrap_or(f64::NAN)).collect();
                Arc::new(Float64Array::new(values.into(), folded.into_parts().2)) as ArrayRef
            })
            .collect();
        let fields: Vec<Field> =
            (0..folded.len()).map(|at| Field::new(aggregate_name(at), DataType::Float64, true)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(groups + 1));
        let folded = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), folded, &options)
            .map_err(|error| EvaluateError(error.to_string()))?;
        let whole = self.whole.evaluate(&folded, None, 0.0, &mut no_memory)?;
        Ok(whole.column(0).as_primitive::<Float64Type>().clone())
    }
}

fn aggregate_name(at: usize) -> String {
    format!("__aggregate_{at}")
}

/// Compiles a roll-up.
///
/// # Errors
/// As [`crate::compile`].
pub fn compile_rollup(signals: &[&str], expression: &str) -> Result<Rollup, Vec<ExprError>> {
    let columns = rollup_columns(signals);
    compile(&columns, expression).map_err(|Complaint { line, column, message, suggestion }| {
        vec![ExprError { signal: ROLLUP.into(), line, column, message, suggestion }]
    })
}

fn compile(columns: &[String], expression: &str) -> Result<Rollup, Complaint> {
    let mut servers = Servers::new(columns)?;
    let sql = parse(expression)?;
    let translated = translate(&sql, &mut servers)?;
    let folds: Vec<Fold> = servers.aggregates.iter().map(|(fold, _)| *fold).collect();
    let names: Vec<String> = (0..folds.len()).map(aggregate_name).collect();
    let operations = servers.aggregates.into_iter().map(|(_, operation)| operation);
    let arguments = Program::of_steps(columns.len(), names.iter().map(String::as_str).zip(operations).collect());
    let whole = evaluate_step(translated.expr, &translated.reads).map_err(Complaint::whole)?;
    let whole = Program::of_steps(folds.len(), vec![(ROLLUP, whole)]);
    let reads = (0..folds.len()).flat_map(|at| arguments.dependencies(at).iter().copied()).collect();
    Ok(Rollup { arguments, folds, whole, reads })
}

/// What names mean inside and outside an aggregate, and the aggregates found so far.
struct Servers {
    names: BTreeMap<String, Name>,
    is_inside: bool,
    aggregates: Vec<(Fold, Operation)>,
}

impl Servers {
    fn new(columns: &[String]) -> Result<Self, Complaint> {
        let first_state = columns.len() - STATES.len();
        let mut names = BTreeMap::new();
        for (at, name) in columns.iter().enumerate() {
            let meaning = if at < first_state { Name::Column(at) } else { Name::Flag(at) };
            if names.insert(name.clone(), meaning).is_some() {
                return Err(Complaint::whole(format!("there are two columns `{name}`"))
                    .suggesting(Some(format!("a policy with a roll-up has no signal `{name}`"))));
            }
        }
        Ok(Self { names, is_inside: false, aggregates: Vec::new() })
    }
}

impl Scope for Servers {
    fn lookup(&self, name: &str) -> Option<Name> {
        let found = self.names.get(name).copied();
        if self.is_inside { found } else { found.map(|_| Name::OfServers) }
    }

    fn names(&self) -> Vec<&str> {
        self.names.keys().map(String::as_str).collect()
    }

    fn add_ewma(&mut self, _: Expr, _: BTreeMap<usize, String>, _: f64) -> Result<HiddenColumn, String> {
        Err("a roll-up has no memory: smooth a signal, and roll that up".into())
    }

    fn has_aggregates(&self) -> bool {
        true
    }

    fn enter_aggregate(&mut self) -> Result<(), String> {
        if self.is_inside {
            return Err("an aggregate is of servers, and cannot stand inside another one".into());
        }
        if self.aggregates.len() >= AGGREGATES_MAX {
            return Err(format!("there are more than {AGGREGATES_MAX} aggregates"));
        }
        self.is_inside = true;
        Ok(())
    }

    fn leave_aggregate(
        &mut self,
        fold: Fold,
        of: Expr,
        reads: BTreeMap<usize, String>,
    ) -> Result<HiddenColumn, String> {
        self.is_inside = false;
        let column = self.aggregates.len();
        self.aggregates.push((fold, evaluate_step(of, &reads)?));
        Ok(HiddenColumn { name: aggregate_name(column), column })
    }
}
