//! The SQL tree to DataFusion's, node by node, with types and names checked on the way.
//!
//! There are two types, numbers and truth values, and every number is a 64-bit float: `1/2` is a half. `ewma` is the one
//! function with a memory. A call is taken out of its expression: its argument becomes a hidden column, its result
//! another, so that what DataFusion evaluates stays pure. It runs at every tick, also inside a CASE branch not taken.
//! The aggregates of a roll-up are taken out in the same way (`rollup.rs`): what stands inside one is said of a server,
//! what stands outside of all servers together.

use std::collections::BTreeMap;

use arrow_schema::DataType;
use datafusion_common::{Column, ScalarValue};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{BinaryExpr, Case, Cast, Expr, Operator};
use sqlparser::ast::{
    BinaryOperator, CeilFloorKind, DateTimeField, Expr as Sql, Function as Call, FunctionArg, FunctionArgExpr,
    FunctionArguments, Ident, ObjectNamePart, UnaryOperator, Value,
};

use crate::aggregate::{Aggregate, Fold, aggregate_names, why_no_aggregate};
use crate::error::nearest;
use crate::functions::{EWMA_USAGE, Function, by_name, function_names, udf, why_absent};
use crate::parse::Complaint;

/// Deepest nesting translated; a chain of operators nests once per operator.
const DEPTH_MAX: usize = 128;

/// Most nodes of one translated expression, copies included. SQL says an operand once where DataFusion needs it once per
/// branch, item or bound; nested, a kilobyte of text would become a billion nodes.
pub const EXPRESSION_NODES_MAX: usize = 4096;

/// What an expression gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Number,
    Truth,
}

/// What a name in an expression means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Name {
    /// A column computed before this expression.
    Column(usize),
    /// A column of zeros and ones that stands for a truth.
    Flag(usize),
    /// A column that differs from server to server, where one value for all of them is needed.
    OfServers,
    /// A signal that is computed later, or this one.
    Later,
}

/// The column that a call gives which is taken out of its expression.
pub(crate) struct HiddenColumn {
    /// The name of the hidden column.
    pub name: String,
    /// Its number.
    pub column: usize,
}

/// What the translator asks of the compiler.
pub(crate) trait Scope {
    /// The meaning of a name.
    fn lookup(&self, name: &str) -> Option<Name>;
    /// Every name that has one, in a fixed order.
    fn names(&self) -> Vec<&str>;
    /// Adds a call of `ewma` whose argument is `of`, reading `reads`.
    fn add_ewma(
        &mut self,
        of: Expr,
        reads: BTreeMap<usize, String>,
        half_life_seconds: f64,
    ) -> Result<HiddenColumn, String>;

    /// Whether the expression is about many servers, and so may call aggregates.
    fn has_aggregates(&self) -> bool {
        false
    }

    /// The argument of an aggregate begins, where names mean the columns of a server. Refused inside another one.
    fn enter_aggregate(&mut self) -> Result<(), String> {
        Err("there are no aggregates here".into())
    }

    /// Ends the argument, and adds its fold; `of` reads `reads`.
    fn leave_aggregate(
        &mut self,
        _fold: Fold,
        _of: Expr,
        _reads: BTreeMap<usize, String>,
    ) -> Result<HiddenColumn, String> {
        Err("there are no aggregates here".into())
    }
}

/// A translated expression and the columns it reads.
pub(crate) struct Translated {
    pub expr: Expr,
    pub reads: BTreeMap<usize, String>,
}

/// Translates a whole expression to one that gives a number; a truth value becomes 0 or 1.
pub(crate) fn translate(sql: &Sql, scope: &mut dyn Scope) -> Result<Translated, Complaint> {
    let mut translator = Translator { scope, reads: BTreeMap::new(), depth: 0, nodes: 0 };
    let expr = match translator.any(sql)? {
        (expr, Kind::Number) => expr,
        (expr, Kind::Truth) => zero_or_one(expr),
    };
    Ok(Translated { expr, reads: translator.reads })
}

fn zero_or_one(truth: Expr) -> Expr {
    Expr::Cast(Cast::new(Box::new(truth), DataType::Float64))
}

struct Translator<'a> {
    scope: &'a mut dyn Scope,
    reads: BTreeMap<usize, String>,
    depth: usize,
    /// Nodes made so far, copies included.
    nodes: usize,
}

fn literal(number: Option<f64>) -> Expr {
    Expr::Literal(ScalarValue::Float64(number), None)
}

fn call(function: Function, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(udf(function), args))
}

fn binary(left: Expr, operator: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), operator, Box::new(right)))
}

impl Translator<'_> {
    fn number(&mut self, sql: &Sql) -> Result<Expr, Complaint> {
        match self.any(sql)? {
            (expr, Kind::Number) => Ok(expr),
            (_, Kind::Truth) => Err(Complaint::at(sql, "a number is needed here, not a truth value")
                .suggesting(Some("write CASE WHEN … THEN 1 ELSE 0 END".into()))),
        }
    }

    fn truth(&mut self, sql: &Sql) -> Result<Expr, Complaint> {
        match self.any(sql)? {
            (expr, Kind::Truth) => Ok(expr),
            (_, Kind::Number) => Err(Complaint::at(sql, "a truth value is needed here, not a number")
                .suggesting(Some("compare it, such as `x > 0`".into()))),
        }
    }

    fn any(&mut self, sql: &Sql) -> Result<(Expr, Kind), Complaint> {
        self.charge(sql, 1)?;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Complaint::at(sql, "the expression is nested too deeply")
                .suggesting(Some("name a part of it as a signal of its own".into())));
        }
        let result = self.node(sql);
        self.depth -= 1;
        result
    }

    /// Counts nodes before they are made.
    fn charge(&mut self, sql: &Sql, nodes: usize) -> Result<(), Complaint> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes <= EXPRESSION_NODES_MAX {
            return Ok(());
        }
        let message = format!("the expression becomes larger than {EXPRESSION_NODES_MAX} nodes here");
        Err(Complaint::at(sql, message).suggesting(Some(
            "what stands before BETWEEN, before IN or after CASE is copied: name it as a signal of its own".into(),
        )))
    }

    /// An operand that will be copied, and how many nodes each copy has.
    fn operand(&mut self, sql: &Sql) -> Result<(Expr, usize), Complaint> {
        let before = self.nodes;
        let expr = self.number(sql)?;
        Ok((expr, self.nodes - before))
    }

    fn node(&mut self, sql: &Sql) -> Result<(Expr, Kind), Complaint> {
        let truth = |expr| Ok((expr, Kind::Truth));
        let number = |expr| Ok((expr, Kind::Number));
        match sql {
            Sql::Nested(inner) => self.any(inner),
            Sql::Identifier(name) => self.column(name),
            Sql::Value(value) => match &value.value {
                Value::Number(text, false) => match text.parse::<f64>() {
                    Ok(value) if value.is_finite() => number(literal(Some(value))),
                    _ => Err(Complaint::at(sql, format!("`{text}` is not a finite number"))),
                },
                Value::Null => number(literal(None)),
                Value::Boolean(value) => truth(Expr::Literal(ScalarValue::Boolean(Some(*value)), None)),
                other => Err(Complaint::at(sql, format!("`{other}` is not a number"))),
            },
            Sql::UnaryOp { op: UnaryOperator::Minus, expr } => {
                let inner = self.number(expr)?;
                number(Expr::Negative(Box::new(inner)))
            }
            Sql::UnaryOp { op: UnaryOperator::Plus, expr } => number(self.number(expr)?),
            Sql::UnaryOp { op: UnaryOperator::Not, expr } => {
                let inner = self.truth(expr)?;
                truth(Expr::Not(Box::new(inner)))
            }
            Sql::BinaryOp { left, op, right } => self.operator(sql, left, op, right),
            Sql::IsNull(inner) => truth(Expr::IsNull(Box::new(self.any(inner)?.0))),
            Sql::IsNotNull(inner) => truth(Expr::IsNotNull(Box::new(self.any(inner)?.0))),
            Sql::IsTrue(inner) => truth(Expr::IsTrue(Box::new(self.truth(inner)?))),
            Sql::IsNotTrue(inner) => truth(Expr::IsNotTrue(Box::new(self.truth(inner)?))),
            Sql::IsFalse(inner) => truth(Expr::IsFalse(Box::new(self.truth(inner)?))),
            Sql::IsNotFalse(inner) => truth(Expr::IsNotFalse(Box::new(self.truth(inner)?))),
            Sql::Between { expr, negated, low, high } => {
                let (of, size) = self.operand(expr)?;
                self.charge(sql, size)?;
                let (low, high) = (self.number(low)?, self.number(high)?);
                let within =
                    binary(binary(of.clone(), Operator::GtEq, low), Operator::And, binary(of, Operator::LtEq, high));
                truth(if *negated { Expr::Not(Box::new(within)) } else { within })
            }
            Sql::InList { expr, list, negated } => {
                let (of, size) = self.operand(expr)?;
                let mut among: Option<Expr> = None;
                for item in list {
                    self.charge(item, size)?;
                    let equal = binary(of.clone(), Operator::Eq, self.number(item)?);
                    among = Some(match among {
                        Some(before) => binary(before, Operator::Or, equal),
                        None => equal,
                    });
                }
                let Some(among) = among else {
                    return Err(Complaint::at(sql, "the list is empty"));
                };
                truth(if *negated { Expr::Not(Box::new(among)) } else { among })
            }
            Sql::Case { operand, conditions, else_result, .. } => {
                let operand = operand.as_deref().map(|operand| self.operand(operand)).transpose()?;
                let mut branches = Vec::with_capacity(conditions.len());
                for branch in conditions {
                    let condition = match &operand {
                        Some((operand, size)) => {
                            self.charge(&branch.condition, *size)?;
                            binary(operand.clone(), Operator::Eq, self.number(&branch.condition)?)
                        }
                        None => self.truth(&branch.condition)?,
                    };
                    branches.push((Box::new(condition), Box::new(self.number(&branch.result)?)));
                }
                let otherwise = match else_result {
                    Some(otherwise) => self.number(otherwise)?,
                    None => literal(None),
                };
                number(Expr::Case(Case::new(None, branches, Some(Box::new(otherwise)))))
            }
            Sql::Ceil { expr, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
                number(call(Function::Ceil, vec![self.number(expr)?]))
            }
            Sql::Floor { expr, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
                number(call(Function::Floor, vec![self.number(expr)?]))
            }
            Sql::Function(of) => self.function(sql, of),
            Sql::CompoundIdentifier(parts) => {
                Err(Complaint::at(sql, format!("there are no tables, so `{sql}` is no name"))
                    .suggesting(parts.last().and_then(|last| self.near_name(&last.value))))
            }
            Sql::Subquery(_) | Sql::Exists { .. } | Sql::InSubquery { .. } => {
                Err(Complaint::at(sql, "an expression sees one server; it cannot hold a query"))
            }
            other => Err(Complaint::at(other, format!("`{other}` is not part of the expression language")).suggesting(
                Some("numbers, inputs, signals, + - * / %, comparisons, AND OR NOT, CASE and functions are".into()),
            )),
        }
    }

    fn operator(&mut self, sql: &Sql, left: &Sql, op: &BinaryOperator, right: &Sql) -> Result<(Expr, Kind), Complaint> {
        let (operator, operands, gives) = match op {
            BinaryOperator::Plus => (Operator::Plus, Kind::Number, Kind::Number),
            BinaryOperator::Minus => (Operator::Minus, Kind::Number, Kind::Number),
            BinaryOperator::Multiply => (Operator::Multiply, Kind::Number, Kind::Number),
            BinaryOperator::Divide => (Operator::Divide, Kind::Number, Kind::Number),
            BinaryOperator::Modulo => (Operator::Modulo, Kind::Number, Kind::Number),
            BinaryOperator::Gt => (Operator::Gt, Kind::Number, Kind::Truth),
            BinaryOperator::GtEq => (Operator::GtEq, Kind::Number, Kind::Truth),
            BinaryOperator::Lt => (Operator::Lt, Kind::Number, Kind::Truth),
            BinaryOperator::LtEq => (Operator::LtEq, Kind::Number, Kind::Truth),
            BinaryOperator::Eq => (Operator::Eq, Kind::Number, Kind::Truth),
            BinaryOperator::NotEq => (Operator::NotEq, Kind::Number, Kind::Truth),
            BinaryOperator::And => (Operator::And, Kind::Truth, Kind::Truth),
            BinaryOperator::Or => (Operator::Or, Kind::Truth, Kind::Truth),
            other => {
                return Err(Complaint::at(sql, format!("there is no operator `{other}`"))
                    .suggesting((*other == BinaryOperator::BitwiseXor).then(|| "write power(x, y)".into())));
            }
        };
        let (left, right) = match operands {
            Kind::Number => (self.number(left)?, self.number(right)?),
            Kind::Truth => (self.truth(left)?, self.truth(right)?),
        };
        // Arrow divides by zero to infinity and has NaN for the rest, greater than every number; here both are null.
        let expr = match operator {
            Operator::Divide => call(Function::Divide, vec![left, right]),
            Operator::Modulo => call(Function::Modulo, vec![left, right]),
            operator => binary(left, operator, right),
        };
        Ok((expr, gives))
    }

    fn column(&mut self, name: &Ident) -> Result<(Expr, Kind), Complaint> {
        let read = || Expr::Column(Column::new_unqualified(name.value.clone()));
        match self.scope.lookup(&name.value) {
            Some(Name::Column(column)) => {
                self.reads.insert(column, name.value.clone());
                Ok((read(), Kind::Number))
            }
            Some(Name::Flag(column)) => {
                self.reads.insert(column, name.value.clone());
                Ok((binary(read(), Operator::NotEq, literal(Some(0.0))), Kind::Truth))
            }
            Some(Name::OfServers) => {
                let text = &name.value;
                Err(Complaint::at_location(name.span.start, format!("`{text}` differs from server to server"))
                    .suggesting(Some(format!("fold it: mean({text}) of a number, share({text}) of a state"))))
            }
            Some(Name::Later) => {
                Err(Complaint::at_location(name.span.start, format!("signal `{}` is not defined yet here", name.value))
                    .suggesting(Some("a signal reads inputs and the signals above it".into())))
            }
            None => Err(Complaint::at_location(name.span.start, format!("unknown column `{}`", name.value))
                .suggesting(self.near_name(&name.value))),
        }
    }

    fn near_name(&self, name: &str) -> Option<String> {
        nearest(name, self.scope.names()).map(|near| format!("did you mean `{near}`?"))
    }

    fn function(&mut self, sql: &Sql, of: &Call) -> Result<(Expr, Kind), Complaint> {
        let [ObjectNamePart::Identifier(ident)] = of.name.0.as_slice() else {
            return Err(Complaint::at(sql, format!("unknown function `{}`", of.name)));
        };
        let name = ident.value.to_lowercase();
        let complain = |message: String| Complaint::at_location(ident.span.start, message);
        let known = by_name(&name);
        let has_aggregates = self.scope.has_aggregates();
        let aggregate = Aggregate::by_name(&name).filter(|_| has_aggregates);
        if known.is_none() && aggregate.is_none() && name != "ewma" {
            let why = if has_aggregates { why_no_aggregate(&name) } else { None };
            let also = if has_aggregates { aggregate_names() } else { &[] };
            let suggestion = why.or_else(|| why_absent(&name)).map(String::from).or_else(|| {
                let names = function_names().chain(also.iter().copied());
                nearest(&name, names).map(|near| format!("did you mean `{near}`?"))
            });
            return Err(complain(format!("unknown function `{}`", ident.value)).suggesting(suggestion));
        }
        let plain = of.over.is_none()
            && of.filter.is_none()
            && of.null_treatment.is_none()
            && of.within_group.is_empty()
            && !of.uses_odbc_syntax
            && matches!(of.parameters, FunctionArguments::None);
        let FunctionArguments::List(list) = &of.args else {
            return Err(complain(format!("`{name}` needs arguments in parentheses")));
        };
        if !plain || list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
            return Err(complain(format!("`{name}` takes nothing but plain arguments here")));
        }
        let mut args = Vec::with_capacity(list.args.len());
        for arg in &list.args {
            let FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)) = arg else {
                return Err(complain(format!("the arguments of `{name}` must be plain expressions")));
            };
            args.push(arg);
        }
        if let Some(aggregate) = aggregate {
            return Ok((self.aggregate(ident, aggregate, &args)?, Kind::Number));
        }
        let Some((function, least, most, usage)) = known else {
            return Ok((self.ewma(ident, &args)?, Kind::Number));
        };
        if !(least..=most).contains(&args.len()) {
            return Err(complain(format!("`{name}` does not take {} arguments", args.len()))
                .suggesting(Some(format!("write {usage}"))));
        }
        let args = args.into_iter().map(|arg| self.number(arg)).collect::<Result<Vec<_>, _>>()?;
        Ok((call(function, args), Kind::Number))
    }

    fn ewma(&mut self, ident: &Ident, args: &[&Sql]) -> Result<Expr, Complaint> {
        let complain = |message: String| Complaint::at_location(ident.span.start, message);
        let [of, half_life] = args else {
            return Err(complain(format!("`ewma` does not take {} arguments", args.len()))
                .suggesting(Some(format!("write {EWMA_USAGE}"))));
        };
        let half_life_seconds = match half_life {
            Sql::Value(value) => match &value.value {
                Value::Number(text, false) => text.parse::<f64>().ok(),
                _ => None,
            },
            _ => None,
        };
        let Some(half_life_seconds) = half_life_seconds.filter(|seconds| seconds.is_finite() && *seconds >= 1.0) else {
            return Err(Complaint::at(*half_life, "the half-life of `ewma` must be a constant of at least 1 second")
                .suggesting(Some(format!("write {EWMA_USAGE}, such as ewma(x, 60)"))));
        };
        let (argument, reads) = self.apart(|translator| translator.number(of));
        let added = self.scope.add_ewma(argument?, reads, half_life_seconds).map_err(complain)?;
        Ok(self.read_hidden(added))
    }

    fn aggregate(&mut self, ident: &Ident, aggregate: Aggregate, args: &[&Sql]) -> Result<Expr, Complaint> {
        let complain = |message: String| Complaint::at_location(ident.span.start, message);
        let usage = || Some(format!("write {}", aggregate.usage()));
        let (of, fold) = match (aggregate, args) {
            (Aggregate::Quantile, [of, rank]) => {
                let rank_of = |rank: &Sql| match rank {
                    Sql::Value(value) => match &value.value {
                        Value::Number(text, false) => text.parse::<f64>().ok(),
                        _ => None,
                    },
                    _ => None,
                };
                let Some(rank) = rank_of(rank).filter(|rank| (0.0..=1.0).contains(rank)) else {
                    return Err(Complaint::at(*rank, "the rank of `quantile` must be a constant from 0 to 1")
                        .suggesting(usage()));
                };
                (of, Fold::Quantile(rank))
            }
            (Aggregate::Quantile, _) => {
                return Err(complain(format!("`quantile` does not take {} arguments", args.len())).suggesting(usage()));
            }
            (Aggregate::Plain { fold, .. }, [of]) => (of, fold),
            (Aggregate::Plain { name, .. }, _) => {
                return Err(complain(format!("`{name}` does not take {} arguments", args.len())).suggesting(usage()));
            }
        };
        self.scope.enter_aggregate().map_err(complain)?;
        let (argument, reads) = self.apart(|translator| {
            if aggregate.takes_truth() { translator.truth(of).map(zero_or_one) } else { translator.number(of) }
        });
        let added = self.scope.leave_aggregate(fold, argument?, reads).map_err(complain)?;
        Ok(self.read_hidden(added))
    }

    /// Translates what a step of its own reads, and not this expression.
    fn apart<T>(&mut self, translate: impl FnOnce(&mut Self) -> T) -> (T, BTreeMap<usize, String>) {
        let outer = std::mem::take(&mut self.reads);
        let translated = translate(self);
        (translated, std::mem::replace(&mut self.reads, outer))
    }

    fn read_hidden(&mut self, added: HiddenColumn) -> Expr {
        self.reads.insert(added.column, added.name.clone());
        Expr::Column(Column::new_unqualified(added.name))
    }
}
