//! A YAML file as a tree in which every value knows where it comes from.
//!
//! The YAML library's own typed errors stop at the first problem and know nothing of the environment, so it is asked for
//! values with places only.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::problem::Problem;

/// Largest file accepted, in bytes.
pub(crate) const FILE_BYTES_MAX: usize = 1 << 20;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A file. Lines and columns count from 1, columns in characters.
    File {
        /// The file as it was named.
        file: Arc<str>,
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// An environment variable, by its name.
    Env(String),
    /// A flag of the command line, by its name.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A value and its origin.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tree {
    pub value: Value,
    pub origin: Origin,
    /// Text that was not YAML: from the environment, a flag or an interpolation. It may stand for another type.
    pub is_raw: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<Entry>),
}

/// A key of a map, in the order of the file, and its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub key: String,
    pub key_origin: Origin,
    pub value: Tree,
}

impl Tree {
    pub(crate) fn new(value: Value, origin: Origin) -> Self {
        Self { value, origin, is_raw: false }
    }

    /// Parses a file. Places are inside `text`, whose first line has the number `first_line`.
    pub(crate) fn parse(file: &str, text: &str, first_line: usize) -> Result<Self, Problem> {
        let file: Arc<str> = file.into();
        let at =
            |line: usize, column: usize| Origin::File { file: Arc::clone(&file), line: line + first_line - 1, column };
        if text.len() > FILE_BYTES_MAX {
            return Err(Problem::new(&at(1, 1), format!("the file is larger than {FILE_BYTES_MAX} bytes")));
        }
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::new(Value::Map(Vec::new()), at(1, 1)));
        }
        let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
        let raw: Spanned<Raw> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let (line, column) = error.location().map_or((1, 1), |at| (at.line() as usize, at.column() as usize));
            let message = error.without_snippet().to_string();
            // The library repeats the place at the end of some messages.
            let message = message.split(" at line ").next().unwrap_or_default();
            Problem::new(&at(line.max(1), column.max(1)), in_our_words(message))
        })?;
        Ok(raw_to_tree(raw, &at))
    }

    /// The value under a key, if this is a map that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The entries of a map, none of anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The origin of the value at a path; of what is nearest to it, if it is not there.
    pub(crate) fn origin_of(&self, path: &[&str]) -> &Origin {
        let Some((first, rest)) = path.split_first() else {
            return &self.origin;
        };
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == *first).map_or(&self.origin, |entry| {
                // A section is best shown by its key.
                if rest.is_empty() && matches!(entry.value.value, Value::Map(_) | Value::List(_)) {
                    &entry.key_origin
                } else {
                    entry.value.origin_of(rest)
                }
            }),
            Value::List(items) => first
                .parse::<usize>()
                .ok()
                .and_then(|at| items.get(at))
                .map_or(&self.origin, |item| item.origin_of(rest)),
            _ => &self.origin,
        }
    }

    /// As JSON, which has no NaN; [`crate::check`] has refused it before.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Integer(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::Text(value) => value.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => serde_json::Value::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect(),
            ),
        }
    }

    /// JSON as a tree that comes from `origin`.
    pub(crate) fn from_json(json: &serde_json::Value, origin: &Origin) -> Self {
        let value = match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(number) => {
                number.as_i64().map_or_else(|| Value::Float(number.as_f64().unwrap_or_default()), Value::Integer)
            }
            serde_json::Value::String(text) => Value::Text(text.clone()),
            serde_json::Value::Array(items) => {
                Value::List(items.iter().map(|item| Self::from_json(item, origin)).collect())
            }
            serde_json::Value::Object(map) => Value::Map(
                map.iter()
                    .map(|(key, value)| Entry {
                        key: key.clone(),
                        key_origin: origin.clone(),
                        value: Self::from_json(value, origin),
                    })
                    .collect(),
            ),
        };
        Self::new(value, origin.clone())
    }

    /// What the value is, for messages.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Bool(value) => format!("{value}"),
            Value::Integer(value) => format!("{value}"),
            Value::Float(value) => format!("{value}"),
            Value::Text(value) => format!("`{value}`"),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a map".into(),
        }
    }
}

/// The YAML library speaks to programmers, of its options; whoever writes a file has none.
fn in_our_words(message: &str) -> String {
    let message = message.split(", set DuplicateKeyPolicy").next().unwrap_or_default();
    if let Some(key) = message.strip_prefix("duplicate mapping key") {
        return match key.strip_prefix(": ") {
            Some(key) => format!("the key `{key}` is there twice"),
            None => "a key is there twice".to_owned(),
        };
    }
    if message.contains("weak recursion") {
        return "an anchor refers to what it is part of".to_owned();
    }
    match message.split_once(" rejected by the configured policy") {
        Some((what, _)) => format!("{what} is no number that can be used here"),
        None => message.to_owned(),
    }
}

/// What the YAML library is asked for.
enum Raw {
    Scalar(Value),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<String>, Spanned<Self>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a YAML value")
            }

            fn visit_unit<E>(self) -> Result<Raw, E> {
                Ok(Raw::Scalar(Value::Null))
            }

            fn visit_none<E>(self) -> Result<Raw, E> {
                Ok(Raw::Scalar(Value::Null))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
                Ok(Raw::Scalar(Value::Bool(value)))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
                Ok(Raw::Scalar(Value::Integer(value)))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
                Ok(Raw::Scalar(i64::try_from(value).map_or(Value::Float(value as f64), Value::Integer)))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
                Ok(Raw::Scalar(Value::Float(value)))
            }

            fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
                Ok(Raw::Scalar(Value::Text(value.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Raw::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
                let mut map = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    map.push(entry);
                }
                Ok(Raw::Map(map))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

fn raw_to_tree(raw: Spanned<Raw>, at: &impl Fn(usize, usize) -> Origin) -> Tree {
    let origin = at(raw.referenced.line() as usize, raw.referenced.column() as usize);
    let value = match raw.value {
        Raw::Scalar(value) => value,
        Raw::List(items) => Value::List(items.into_iter().map(|item| raw_to_tree(item, at)).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| Entry {
                    key_origin: at(key.referenced.line() as usize, key.referenced.column() as usize),
                    key: key.value,
                    value: raw_to_tree(value, at),
                })
                .collect(),
        ),
    };
    Tree::new(value, origin)
}
