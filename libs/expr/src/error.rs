//! What may be wrong with an expression, said so that its author can mend it: place, reason, and the nearest valid name.

use std::fmt;

/// Something wrong with the text of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExprError {
    /// The signal whose expression it is; `score` for the score.
    pub signal: String,
    /// Line inside the expression's text, from 1.
    pub line: usize,
    /// Column inside the line, from 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What the author may have meant.
    pub suggestion: Option<String>,
}

impl fmt::Display for ExprError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.signal, self.line, self.column, self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; {suggestion}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ExprError {}

/// Why a compiled program could not be evaluated: the caller gave it a batch of another shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvaluateError(pub(crate) String);

impl fmt::Display for EvaluateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the expressions cannot be evaluated: {}", self.0)
    }
}

impl std::error::Error for EvaluateError {}

/// The candidate most like `name`, if one is alike enough to be meant. Of equally good ones the first.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this similarity a suggestion is noise.
    const SIMILARITY_MIN: f64 = 0.75;
    let mut best: Option<(f64, &str)> = None;
    for candidate in candidates {
        let similarity = strsim::jaro_winkler(name, candidate);
        if similarity >= SIMILARITY_MIN && best.is_none_or(|(so_far, _)| similarity > so_far) {
            best = Some((similarity, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}
