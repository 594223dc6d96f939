//! A policy's expressions to a program: a list of steps, each of which adds one column.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion_common::DFSchema;
use datafusion_expr::Expr;
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use headroom_model::hash::stable_hash;

use crate::error::ExprError;
use crate::parse::{Complaint, parse};
use crate::translate::{HiddenColumn, Name, Scope, translate};

/// Most calls of `ewma` in one program; each holds a number per server.
pub const EWMA_CALLS_MAX: usize = 64;

/// Compiled expressions. Immutable, so that any number of cells may share one.
#[derive(Debug)]
pub struct Program {
    pub(crate) input_count: usize,
    /// Inputs, then one column per step, in order.
    pub(crate) column_count: usize,
    pub(crate) steps: Vec<Step>,
    pub(crate) output_schema: SchemaRef,
    dependencies: Vec<Vec<usize>>,
    hashes: Vec<u64>,
    ewma_keys: BTreeSet<u64>,
}

/// Makes the next column.
#[derive(Debug)]
pub(crate) struct Step {
    pub operation: Operation,
    /// The signal that the column is, unless it is hidden.
    pub output: Option<usize>,
    /// Whether a later step reads the column.
    pub is_read: bool,
}

#[derive(Debug)]
pub(crate) enum Operation {
    /// Is an input as it is, under the signal's name: nothing is computed and nothing copied.
    Input(usize),
    /// Evaluates an expression over the columns it reads.
    Evaluate { expr: Arc<dyn PhysicalExpr>, schema: SchemaRef, reads: Vec<usize> },
    /// Smooths a column.
    Ewma { of: usize, half_life_seconds: f64, key: u64 },
    /// A column of nulls, in the place of a step that could not be compiled; never part of a finished program.
    Nothing,
}

impl Program {
    /// The columns that another signal or the caller may read: nullable numbers, one for each signal, in order.
    pub fn output_schema(&self) -> SchemaRef {
        Arc::clone(&self.output_schema)
    }

    /// The inputs that a signal is computed from, directly or through other signals: indices, ascending. Empty for a
    /// signal that is not there.
    pub fn dependencies(&self, signal: usize) -> &[usize] {
        self.dependencies.get(signal).map_or(&[], Vec::as_slice)
    }

    /// A hash of a signal's name, its expression and those of the signals it reads; 0 for a signal that is not there.
    /// What is remembered about a signal between ticks is keyed by this.
    pub fn signal_hash(&self, signal: usize) -> u64 {
        self.hashes.get(signal).copied().unwrap_or_default()
    }

    /// How many signals there are.
    pub fn signal_count(&self) -> usize {
        self.hashes.len()
    }

    /// A program of one expression per column, each over the columns that it reads.
    pub(crate) fn of_steps(input_count: usize, outputs: Vec<(&str, Operation)>) -> Self {
        let reads = |operation: &Operation| match operation {
            Operation::Evaluate { reads, .. } => reads.clone(),
            Operation::Input(_) | Operation::Ewma { .. } | Operation::Nothing => Vec::new(),
        };
        let fields: Vec<Field> = outputs.iter().map(|(name, _)| Field::new(*name, DataType::Float64, true)).collect();
        Self {
            input_count,
            column_count: input_count + outputs.len(),
            output_schema: Arc::new(Schema::new(fields)),
            dependencies: outputs.iter().map(|(_, operation)| reads(operation)).collect(),
            hashes: vec![0; outputs.len()],
            ewma_keys: BTreeSet::new(),
            steps: (0..)
                .zip(outputs)
                .map(|(at, (_, operation))| Step { operation, output: Some(at), is_read: false })
                .collect(),
        }
    }

    pub(crate) fn ewma_keys(&self) -> &BTreeSet<u64> {
        &self.ewma_keys
    }
}

/// Compiles the signals of a policy. `signals` are names and expressions, in the order of the policy; each may read the
/// inputs and the signals before it.
///
/// # Errors
/// Everything wrong with any of the expressions and names.
pub fn compile(inputs: &[&str], signals: &[(&str, &str)]) -> Result<Program, Vec<ExprError>> {
    let mut compiler = Compiler::new(inputs, signals);
    for signal in 0..signals.len() {
        compiler.signal(signal);
    }
    compiler.finish()
}

/// The columns a score expression may read: every signal, its pressure as `<signal>_pressure`, and `load_pressure`,
/// `fault_pressure`, `pressure`. The program of [`compile_score`] wants them in this order.
pub fn score_columns(signals: &[&str]) -> Vec<String> {
    signals
        .iter()
        .map(|signal| (*signal).to_owned())
        .chain(signals.iter().map(|signal| format!("{signal}_pressure")))
        .chain(["load_pressure", "fault_pressure", "pressure"].map(String::from))
        .collect()
}

/// Compiles a score expression to a program whose inputs are [`score_columns`] and whose one output is `score`.
///
/// # Errors
/// As [`compile`].
pub fn compile_score(signals: &[&str], expression: &str) -> Result<Program, Vec<ExprError>> {
    let columns = score_columns(signals);
    compile(&columns.iter().map(String::as_str).collect::<Vec<_>>(), &[("score", expression)])
}

struct Compiler<'a> {
    signals: &'a [(&'a str, &'a str)],
    input_count: usize,
    /// Columns and later signals by name.
    names: BTreeMap<String, Name>,
    /// The inputs behind each column.
    inputs_of: Vec<BTreeSet<usize>>,
    /// The hash of each column: of an input its name's.
    hash_of: Vec<u64>,
    steps: Vec<Step>,
    dependencies: Vec<Vec<usize>>,
    hashes: Vec<u64>,
    ewma_calls: usize,
    /// Hidden columns of the signal at hand: their steps, and the numbers of their state.
    hidden_from: usize,
    errors: Vec<ExprError>,
}

impl<'a> Compiler<'a> {
    fn new(inputs: &[&str], signals: &'a [(&'a str, &'a str)]) -> Self {
        let mut compiler = Self {
            signals,
            input_count: inputs.len(),
            names: BTreeMap::new(),
            inputs_of: (0..inputs.len()).map(|input| BTreeSet::from([input])).collect(),
            hash_of: inputs.iter().map(|name| stable_hash(&["input", name])).collect(),
            steps: Vec::new(),
            dependencies: Vec::new(),
            hashes: Vec::new(),
            ewma_calls: 0,
            hidden_from: 0,
            errors: Vec::new(),
        };
        for (column, name) in inputs.iter().enumerate() {
            if compiler.names.insert((*name).to_owned(), Name::Column(column)).is_some() {
                compiler.error(name, Complaint::whole(format!("there are two columns `{name}`")));
            }
        }
        for (name, _) in signals {
            if compiler.names.contains_key(*name) {
                let message = format!("`{name}` is the name of another input or signal");
                compiler.error(name, Complaint::whole(message));
            } else if name.starts_with("__") {
                compiler.error(name, Complaint::whole("names that begin with two underscores are reserved"));
            } else {
                compiler.names.insert((*name).to_owned(), Name::Later);
            }
        }
        compiler
    }

    fn error(&mut self, signal: &str, complaint: Complaint) {
        let Complaint { line, column, message, suggestion } = complaint;
        self.errors.push(ExprError { signal: signal.to_owned(), line, column, message, suggestion });
    }

    fn signal(&mut self, signal: usize) {
        let (name, text) = self.signals[signal];
        self.hidden_from = self.steps.len();
        let evaluated = parse(text).and_then(|sql| translate(&sql, self)).and_then(|translated| {
            let step = match (&translated.expr, translated.reads.first_key_value()) {
                (Expr::Column(_), Some((input, _))) if *input < self.input_count => Operation::Input(*input),
                _ => evaluate_step(translated.expr, &translated.reads).map_err(Complaint::whole)?,
            };
            Ok((step, translated.reads.into_keys().collect::<Vec<_>>()))
        });
        let (operation, reads) = evaluated.unwrap_or_else(|complaint| {
            self.error(name, complaint);
            (Operation::Nothing, Vec::new())
        });
        // What the signal means is its text and the meaning of what it reads; hidden columns are part of its text.
        let hidden_reads = (self.hidden_from..self.steps.len()).flat_map(|step| match &self.steps[step].operation {
            Operation::Evaluate { reads, .. } => reads.clone(),
            Operation::Input(_) | Operation::Ewma { .. } | Operation::Nothing => Vec::new(),
        });
        let first_hidden = self.input_count + self.hidden_from;
        let read: BTreeSet<usize> = reads.iter().copied().chain(hidden_reads).filter(|at| *at < first_hidden).collect();
        let meanings: Vec<String> = read.iter().map(|column| format!("{:016x}", self.hash_of[*column])).collect();
        let mut parts = vec!["signal", name, text.trim()];
        parts.extend(meanings.iter().map(String::as_str));
        let hash = stable_hash(&parts);
        let mut call = 0;
        for step in &mut self.steps[self.hidden_from..] {
            if let Operation::Ewma { key, .. } = &mut step.operation {
                *key = stable_hash(&["ewma", &format!("{hash:016x}"), &call.to_string()]);
                call += 1;
            }
        }
        let column = self.add_column(operation, &reads, Some(signal), hash);
        self.names.entry(name.to_owned()).and_modify(|meaning| {
            if *meaning == Name::Later {
                *meaning = Name::Column(column);
            }
        });
        self.dependencies.push(self.inputs_of[column].iter().copied().collect());
        self.hashes.push(hash);
    }

    /// Adds a step and gives the number of its column.
    fn add_column(&mut self, operation: Operation, reads: &[usize], output: Option<usize>, hash: u64) -> usize {
        let column = self.input_count + self.steps.len();
        let inputs = reads.iter().flat_map(|read| self.inputs_of[*read].iter().copied()).collect();
        for read in reads {
            if let Some(step) = read.checked_sub(self.input_count) {
                self.steps[step].is_read = true;
            }
        }
        self.inputs_of.push(inputs);
        self.hash_of.push(hash);
        self.steps.push(Step { operation, output, is_read: false });
        column
    }

    fn finish(self) -> Result<Program, Vec<ExprError>> {
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        let fields: Vec<Field> =
            self.signals.iter().map(|(name, _)| Field::new(*name, DataType::Float64, true)).collect();
        let ewma_keys = self
            .steps
            .iter()
            .filter_map(|step| match step.operation {
                Operation::Ewma { key, .. } => Some(key),
                Operation::Input(_) | Operation::Evaluate { .. } | Operation::Nothing => None,
            })
            .collect();
        Ok(Program {
            input_count: self.input_count,
            column_count: self.input_count + self.steps.len(),
            steps: self.steps,
            output_schema: Arc::new(Schema::new(fields)),
            dependencies: self.dependencies,
            hashes: self.hashes,
            ewma_keys,
        })
    }
}

impl Scope for Compiler<'_> {
    fn lookup(&self, name: &str) -> Option<Name> {
        self.names.get(name).copied()
    }

    fn names(&self) -> Vec<&str> {
        self.names.iter().filter(|(_, name)| **name != Name::Later).map(|(name, _)| name.as_str()).collect()
    }

    fn add_ewma(
        &mut self,
        of: Expr,
        reads: BTreeMap<usize, String>,
        half_life_seconds: f64,
    ) -> Result<HiddenColumn, String> {
        if self.ewma_calls >= EWMA_CALLS_MAX {
            return Err(format!("there are more than {EWMA_CALLS_MAX} calls of `ewma`"));
        }
        self.ewma_calls += 1;
        let operation = evaluate_step(of, &reads)?;
        let columns: Vec<usize> = reads.into_keys().collect();
        let of = self.add_column(operation, &columns, None, 0);
        // The key is known only when the whole signal is; `signal` fills it in.
        let column = self.add_column(Operation::Ewma { of, half_life_seconds, key: 0 }, &[of], None, 0);
        Ok(HiddenColumn { name: format!("__ewma_{column}"), column })
    }
}

/// The physical expression over a schema of just the columns that it reads.
pub(crate) fn evaluate_step(expr: Expr, reads: &BTreeMap<usize, String>) -> Result<Operation, String> {
    let fields: Vec<Field> = reads.values().map(|name| Field::new(name, DataType::Float64, true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let plan = |expr| {
        let columns = DFSchema::try_from(Arc::clone(&schema))?;
        create_physical_expr(expr, &columns, &ExecutionProps::new(), &PhysicalPlanningContext::default())
    };
    let expr = plan(&expr).map_err(|error| error.strip_backtrace())?;
    Ok(Operation::Evaluate { expr, schema, reads: reads.keys().copied().collect() })
}

impl Complaint {
    /// About an expression as a whole.
    pub(crate) fn whole(message: impl Into<String>) -> Self {
        Self { line: 1, column: 1, message: message.into(), suggestion: None }
    }
}
