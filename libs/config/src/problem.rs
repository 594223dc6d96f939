//! Problems, as a person reads them: where, what, the line itself, and what was probably meant.

use std::fmt;

use crate::tree::Origin;

/// Longest part of a line that a snippet shows, in characters.
const SNIPPET_CHARS_MAX: usize = 100;

/// One thing wrong with a file, a variable or a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where the value comes from.
    pub origin: Origin,
    /// Where in the document, such as `signals.cpu_busy.over`; empty where it is about the whole.
    pub path: Box<str>,
    /// What is wrong.
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
    /// The line of the file, if it is one.
    pub snippet: Option<Box<str>>,
}

impl Problem {
    /// A problem with the value that comes from `origin`.
    pub(crate) fn new(origin: &Origin, message: impl Into<String>) -> Self {
        Self { origin: origin.clone(), path: Box::default(), message: message.into(), suggestion: None, snippet: None }
    }

    pub(crate) fn of_path<S: AsRef<str>>(mut self, path: &[S]) -> Self {
        self.path = path.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(".").into();
        self
    }

    pub(crate) fn suggesting(mut self, suggestion: Option<String>) -> Self {
        self.suggestion = suggestion;
        self
    }

    /// Adds the line of the file. `text_of` gives the text of a file by its name.
    pub(crate) fn with_snippet<'a>(mut self, text_of: impl Fn(&str) -> Option<&'a str>) -> Self {
        if let Origin::File { file, line, .. } = &self.origin
            && let Some(text) = text_of(file)
            && let Some(of_line) = text.lines().nth(line.saturating_sub(1))
            && !may_hold_secret(text, *line)
        {
            self.snippet = Some(of_line.chars().take(SNIPPET_CHARS_MAX).collect());
        }
        self
    }
}

/// Whether a key of this name may have a secret for a value. Settings name files and variables that hold secrets, never
/// the secrets themselves; but who writes one there by mistake must not find it in a log.
pub(crate) fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    let is_key = key.rsplit(|c: char| !c.is_alphanumeric()).next() == Some("key");
    is_key || ["password", "passwd", "secret", "token", "credential"].iter().any(|word| key.contains(word))
}

/// Whether a line, counted from 1, may show the value of such a key: its own, or one that began on a line above.
fn may_hold_secret(text: &str, line: usize) -> bool {
    let lines: Vec<&str> = text.lines().take(line).collect();
    let Some((of_line, above)) = lines.split_last() else { return false };
    let indent = |line: &str| line.len() - line.trim_start().len();
    let parent = above.iter().rev().find(|line| !line.trim().is_empty() && indent(line) < indent(of_line));
    // The key of a value that goes over several lines stands less indented than they do.
    has_secret_key(of_line) || parent.is_some_and(|line| has_secret_key(line))
}

fn has_secret_key(line: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '-' || c == '.';
    line.split_inclusive(':').filter_map(|before| before.strip_suffix(':')).any(|before| {
        let before = before.trim_end().trim_end_matches(['"', '\'']);
        let key = before.rsplit(|c: char| !is_part(c)).next().unwrap_or_default();
        is_secret(key)
    })
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; {suggestion}")?;
        }
        if let (Some(snippet), Origin::File { line, column, .. }) = (&self.snippet, &self.origin) {
            let number = line.to_string();
            let bar = " ".repeat(number.len());
            let marker = " ".repeat(column.saturating_sub(1).min(SNIPPET_CHARS_MAX));
            write!(f, "\n  {number} | {snippet}\n  {bar} | {marker}^")?;
        }
        Ok(())
    }
}

/// Everything wrong with a configuration or a policy, in the order of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Problem>);

impl ConfigErrors {
    /// Sorts the problems by place and drops repeats.
    pub(crate) fn of<'a>(mut problems: Vec<Problem>, text_of: impl Fn(&str) -> Option<&'a str>) -> Self {
        problems.sort_by(|a, b| a.origin.cmp(&b.origin));
        problems.dedup();
        Self(problems.into_iter().map(|problem| problem.with_snippet(&text_of)).collect())
    }

    /// The problems as text, without lines of the file: for files in which a secret may stand by mistake.
    pub fn without_snippets(&self) -> String {
        let bare = self.0.iter().map(|problem| Problem { snippet: None, ..problem.clone() });
        Self(bare.collect()).to_string()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
