//! Text to the SQL parser's tree, with the parser's complaints brought into our form.

use sqlparser::ast::{Expr, Spanned};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token, Tokenizer};

/// Longest expression accepted, in bytes. It also bounds the depth of the tree, which is walked recursively.
pub const EXPRESSION_BYTES_MAX: usize = 4096;

/// A complaint with its place inside the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub line: usize,
    pub column: usize,
    pub message: String,
    pub suggestion: Option<String>,
}

impl Complaint {
    pub(crate) fn at(place: &impl Spanned, message: impl Into<String>) -> Self {
        Self::at_location(place.span().start, message)
    }

    /// Some nodes have no place of their own; they are then said to be at the start.
    pub(crate) fn at_location(location: Location, message: impl Into<String>) -> Self {
        Self {
            line: location.line.max(1) as usize,
            column: location.column.max(1) as usize,
            message: message.into(),
            suggestion: None,
        }
    }

    pub(crate) fn suggesting(mut self, suggestion: Option<String>) -> Self {
        self.suggestion = suggestion;
        self
    }
}

/// Parses one expression; nothing may follow it.
pub(crate) fn parse(text: &str) -> Result<Expr, Complaint> {
    let start = Location { line: 1, column: 1 };
    if text.trim().is_empty() {
        return Err(Complaint::at_location(start, "the expression is empty"));
    }
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(Complaint::at_location(
            start,
            format!("the expression is longer than {EXPRESSION_BYTES_MAX} bytes"),
        )
        .suggesting(Some("name a part of it as a signal of its own".into())));
    }
    let dialect = GenericDialect {};
    let tokens = Tokenizer::new(&dialect, text)
        .tokenize_with_location()
        .map_err(|error| Complaint::at_location(error.location, lower_first(&error.message)))?;
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens);
    let expression = parser.parse_expr().map_err(|error| complaint_of(text, error))?;
    let next = parser.peek_token();
    if next.token != Token::EOF {
        return Err(Complaint::at_location(next.span.start, format!("unexpected `{}`", next.token)));
    }
    Ok(expression)
}

/// The parser writes the place behind its message: `Expected: an expression, found: ) at Line: 1, Column: 7`.
fn complaint_of(text: &str, error: ParserError) -> Complaint {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        ParserError::RecursionLimitExceeded => "the expression is nested too deeply".into(),
    };
    if let Some((head, place)) = message.rsplit_once(" at Line: ")
        && let Some((line, column)) = place.split_once(", Column: ")
        && let (Ok(line), Ok(column)) = (line.trim().parse(), column.trim().parse())
    {
        return Complaint::at_location(Location { line, column }, lower_first(head));
    }
    // Only the end of the text has no place.
    let last = text.lines().last().unwrap_or_default();
    let end = Location { line: text.lines().count() as u64, column: last.chars().count() as u64 + 1 };
    Complaint::at_location(end, lower_first(&message.replace("EOF", "the end")))
}

fn lower_first(message: &str) -> String {
    let mut chars = message.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
