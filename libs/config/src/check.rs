//! Holding a tree against the JSON Schema of a Rust type.
//!
//! A small validator for the schemas that `schemars` makes of our own types, not for schemas in general: it knows the
//! keywords that occur there, and instead of yes or no it says what is wrong, where, and what was probably meant.

use headroom_expr::nearest;
use serde_json::Value as Json;

use crate::problem::{Problem, is_secret};
use crate::tree::{Tree, Value};

/// Checks a tree. Raw text (of the environment, say) becomes the type that the schema wants on the way.
pub(crate) fn check(tree: &mut Tree, schema: &Json) -> Vec<Problem> {
    let mut problems = Vec::new();
    Checker { root: schema }.value(tree, schema, &mut Vec::new(), &mut problems);
    problems
}

/// The path of every key that may have a value of its own, whether or not its section is there now.
pub(crate) fn keys(schema: &Json) -> Vec<String> {
    let mut keys = Vec::new();
    Checker { root: schema }.keys(schema, "", SECTIONS_MAX, &mut keys);
    keys
}

/// Sections inside each other; a bound only, should a schema ever contain itself.
const SECTIONS_MAX: usize = 16;

struct Checker<'a> {
    root: &'a Json,
}

fn path_of(path: &[String]) -> String {
    path.join(".")
}

/// `cpu_busy.over` as people say it in a message.
fn named(path: &[String]) -> String {
    if path.is_empty() { "the file".into() } else { format!("`{}`", path_of(path)) }
}

impl<'a> Checker<'a> {
    /// Follows a reference to a definition.
    fn resolve(&self, schema: &'a Json) -> &'a Json {
        let mut schema = schema;
        // A chain of references is never long; the bound keeps a circular one harmless.
        for _ in 0..8 {
            let Some(target) = schema.get("$ref").and_then(Json::as_str) else { break };
            let Some(found) = target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)) else { break };
            schema = found;
        }
        schema
    }

    fn keys(&self, schema: &'a Json, path: &str, depth: usize, keys: &mut Vec<String>) {
        let schema = self.resolve(schema);
        let branches = ["anyOf", "oneOf"].into_iter().filter_map(|keyword| schema.get(keyword)?.as_array()).flatten();
        let sections = std::iter::once(schema).chain(branches.map(|branch| self.resolve(branch)));
        let sections = sections.filter_map(|section| section.get("properties")?.as_object());
        let inner: Vec<_> = sections.flatten().collect();
        if inner.is_empty() || depth == 0 {
            keys.push(path.to_owned());
        }
        let dot = if path.is_empty() { "" } else { "." };
        for (key, schema) in inner.into_iter().filter(|_| depth > 0) {
            self.keys(schema, &format!("{path}{dot}{key}"), depth - 1, keys);
        }
    }

    fn types(&self, schema: &'a Json) -> Vec<&'a str> {
        match schema.get("type") {
            Some(Json::String(one)) => vec![one],
            Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).collect(),
            _ => Vec::new(),
        }
    }

    fn value(&self, tree: &mut Tree, schema: &'a Json, path: &mut Vec<String>, problems: &mut Vec<Problem>) {
        let schema = self.resolve(schema);
        for keyword in ["anyOf", "oneOf"] {
            if let Some(Json::Array(branches)) = schema.get(keyword) {
                return self.branches(tree, branches, path, problems);
            }
        }
        let types = self.types(schema);
        if tree.is_raw {
            self.interpret(tree, &types);
        }
        if let Some(words) = schema.get("enum").and_then(Json::as_array) {
            return word(tree, &words.iter().filter_map(Json::as_str).collect::<Vec<_>>(), path, problems);
        }
        if let Some(only) = schema.get("const").and_then(Json::as_str) {
            return word(tree, &[only], path, problems);
        }
        if !types.is_empty() && !types.iter().any(|wanted| is_of_type(tree, wanted)) {
            problems.push(wrong_type(tree, &types, path));
            return;
        }
        match &mut tree.value {
            Value::Integer(_) | Value::Float(_) => range(tree, schema, path, problems),
            Value::Text(text) => {
                if schema.get("minLength").and_then(Json::as_u64).is_some_and(|least| (text.len() as u64) < least) {
                    problems
                        .push(Problem::new(&tree.origin, format!("{} must not be empty", named(path))).of_path(path));
                }
            }
            Value::List(items) => {
                let count = items.len() as u64;
                if schema.get("minItems").and_then(Json::as_u64).is_some_and(|least| count < least) {
                    problems
                        .push(Problem::new(&tree.origin, format!("{} must not be empty", named(path))).of_path(path));
                }
                if let Some(most) = schema.get("maxItems").and_then(Json::as_u64).filter(|most| count > *most) {
                    let message = format!("{} has {count} items, more than {most}", named(path));
                    problems.push(Problem::new(&tree.origin, message).of_path(path));
                }
                if let Some(of_items) = schema.get("items") {
                    for (at, item) in items.iter_mut().enumerate() {
                        path.push(at.to_string());
                        self.value(item, of_items, path, problems);
                        path.pop();
                    }
                }
            }
            Value::Map(_) => self.map(tree, schema, path, problems),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn map(&self, tree: &mut Tree, schema: &'a Json, path: &mut Vec<String>, problems: &mut Vec<Problem>) {
        let properties = schema.get("properties").and_then(Json::as_object);
        let others = schema.get("additionalProperties");
        let required = schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
        for key in required {
            if tree.get(key).is_none() {
                let message = format!("{} lacks the key `{key}`", named(path));
                problems.push(Problem::new(&tree.origin, message).of_path(path));
            }
        }
        let Value::Map(entries) = &mut tree.value else { return };
        for entry in entries {
            let of_value = properties.and_then(|properties| properties.get(&entry.key));
            match (of_value, others) {
                (Some(of_value), _) => {
                    path.push(entry.key.clone());
                    self.value(&mut entry.value, of_value, path, problems);
                    path.pop();
                }
                (None, Some(Json::Object(_))) => {
                    if let Some(of_value) = others {
                        path.push(entry.key.clone());
                        self.value(&mut entry.value, of_value, path, problems);
                        path.pop();
                    }
                }
                (None, _) => {
                    let known: Vec<&str> = properties.into_iter().flatten().map(|(key, _)| key.as_str()).collect();
                    let suggestion = match nearest(&entry.key, known.iter().copied()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("known keys are {}", known.join(", ")),
                    };
                    let place = if path.is_empty() { String::new() } else { format!(" in {}", named(path)) };
                    let message = format!("unknown key `{}`{place}", entry.key);
                    path.push(entry.key.clone());
                    problems.push(Problem::new(&entry.key_origin, message).of_path(path).suggesting(Some(suggestion)));
                    path.pop();
                }
            }
        }
    }

    /// One of several: the branch that fits, else the complaints of the one that is of the right type.
    fn branches(&self, tree: &mut Tree, branches: &'a [Json], path: &mut Vec<String>, problems: &mut Vec<Problem>) {
        let branches: Vec<&Json> = branches.iter().map(|branch| self.resolve(branch)).collect();
        let mut closest: Option<Vec<Problem>> = None;
        for branch in &branches {
            let mut attempt = tree.clone();
            let mut complaints = Vec::new();
            self.value(&mut attempt, branch, path, &mut complaints);
            if complaints.is_empty() {
                *tree = attempt;
                return;
            }
            let types = self.types(branch);
            if !matches!(tree.value, Value::Text(_)) && types.iter().any(|wanted| is_of_type(tree, wanted)) {
                closest = Some(complaints);
            }
        }
        if let Some(complaints) = closest {
            problems.extend(complaints);
            return;
        }
        let words: Vec<&str> = branches.iter().flat_map(|branch| self.words(branch)).collect();
        if words.is_empty() {
            let types: Vec<&str> = branches.iter().flat_map(|branch| self.types(branch)).collect();
            problems.push(wrong_type(tree, &types, path));
        } else {
            word(tree, &words, path, problems);
        }
    }

    /// The words that a schema allows. An enum whose variants are documented is one of several constants.
    fn words(&self, schema: &'a Json) -> Vec<&'a str> {
        let schema = self.resolve(schema);
        let listed = schema.get("enum").and_then(Json::as_array).into_iter().flatten();
        let own = listed.chain(schema.get("const")).filter_map(Json::as_str);
        let branches = ["anyOf", "oneOf"].into_iter().filter_map(|keyword| schema.get(keyword)?.as_array()).flatten();
        own.chain(branches.flat_map(|branch| self.words(branch))).collect()
    }

    /// Raw text for something else than text is read as YAML; a list may be its items with commas between.
    fn interpret(&self, tree: &mut Tree, types: &[&str]) {
        let Value::Text(text) = &tree.value else { return };
        let wants = |wanted: &str| types.contains(&wanted);
        if types.is_empty() || wants("string") {
            return;
        }
        if wants("array") && !text.trim_start().starts_with('[') {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            let items = items.map(|item| Tree { value: Value::Text(item.to_owned()), ..tree.clone() }).collect();
            tree.value = Value::List(items);
            return;
        }
        if let Ok(parsed) = Tree::parse("", text, 1) {
            let origin = tree.origin.clone();
            *tree = Tree::from_json(&parsed.to_json(), &origin);
        }
    }
}

fn is_of_type(tree: &Tree, wanted: &str) -> bool {
    match &tree.value {
        Value::Null => wanted == "null",
        Value::Bool(_) => wanted == "boolean",
        Value::Integer(_) => wanted == "integer" || wanted == "number",
        Value::Float(value) => value.is_finite() && wanted == "number",
        Value::Text(_) => wanted == "string",
        Value::List(_) => wanted == "array",
        Value::Map(_) => wanted == "object",
    }
}

/// The value as messages show it, unless it may be a secret.
fn described(tree: &Tree, path: &[String]) -> String {
    if path.iter().any(|key| is_secret(key)) { "what it is".into() } else { tree.describe() }
}

fn wrong_type(tree: &Tree, types: &[&str], path: &[String]) -> Problem {
    let mut names: Vec<&str> = types
        .iter()
        .filter(|wanted| **wanted != "null")
        .map(|wanted| match *wanted {
            "boolean" => "true or false",
            "integer" => "a whole number",
            "number" => "a number",
            "string" => "text",
            "array" => "a list",
            _ => "a map",
        })
        .collect();
    names.dedup();
    let suggestion = match &tree.value {
        Value::Bool(_) | Value::Integer(_) | Value::Float(_) if types.contains(&"string") => {
            Some("put it in quotes".into())
        }
        _ => None,
    };
    let message = format!("{} must be {}, not {}", named(path), names.join(" or "), described(tree, path));
    Problem::new(&tree.origin, message).of_path(path).suggesting(suggestion)
}

fn word(tree: &Tree, words: &[&str], path: &[String], problems: &mut Vec<Problem>) {
    let given = match &tree.value {
        Value::Text(text) if words.contains(&text.as_str()) => return,
        Value::Text(text) => nearest(text, words.iter().copied()).map(|near| format!("did you mean `{near}`?")),
        _ => None,
    };
    let message = format!("{} must be one of {}, not {}", named(path), words.join(", "), described(tree, path));
    problems.push(Problem::new(&tree.origin, message).of_path(path).suggesting(given));
}

fn range(tree: &Tree, schema: &Json, path: &[String], problems: &mut Vec<Problem>) {
    let number = match tree.value {
        Value::Integer(number) => number as f64,
        Value::Float(number) => number,
        _ => return,
    };
    let bound = |keyword: &str| schema.get(keyword).and_then(Json::as_f64);
    let mut complain = |what: &str, bound: f64| {
        let message = format!("{} must be {what} {bound}, not {}", named(path), described(tree, path));
        problems.push(Problem::new(&tree.origin, message).of_path(path));
    };
    match (bound("minimum"), bound("exclusiveMinimum"), bound("maximum")) {
        (Some(least), ..) if number < least => complain("at least", least),
        (_, Some(least), _) if number <= least => complain("more than", least),
        (.., Some(most)) if number > most => complain("at most", most),
        _ => {}
    }
}
