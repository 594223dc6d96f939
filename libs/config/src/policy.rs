//! A policy's text to the policy that the core reads.
//!
//! What is in force must be readable from the text alone, a year later and by a later version with another default
//! policy: the text goes into the log, and a replay starts from it. So a policy that extends the default is completed
//! with the text it extends, as a second YAML document behind [`SEPARATOR`], and from then on speaks for itself. The
//! hash is of the completed text.

use std::collections::BTreeSet;
use std::sync::Arc;

use headroom_catalog::DEFAULT_POLICY;
use headroom_expr::{ExprError, compile, compile_rollup, compile_score, nearest};
use headroom_model::hash::stable_hash;
use headroom_model::policy::{
    AttributeFilter, ClassSpec, HealthSpec, InputSpec, LeaseSpec, OnExpiry, PeerSpec, Policy, Rule, Selector,
    SignalSpec, Source, ThresholdKind, Thresholds, WindowFunction, WindowSpec,
};

use crate::check::check;
use crate::merge::lay_over;
use crate::policy_file::{self as file, PolicyFile};
use crate::problem::{ConfigErrors, Problem};
use crate::selector::{overlap, specificity};
use crate::tree::{Origin, Tree, Value};

/// Most inputs of a policy; each is a column per server.
pub const INPUTS_MAX: usize = 512;
/// Most sources of an input.
pub const SOURCES_MAX: usize = 16;
/// Most signals of a policy.
pub const SIGNALS_MAX: usize = 128;
/// Most workload classes of a policy.
pub const CLASSES_MAX: usize = 16;
/// Most rules of a policy.
pub const RULES_MAX: usize = 256;
/// Longest name of an input, signal, class or rule, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Between a policy and the one that it extends.
const SEPARATOR: &str = "--- # the policy that this one extends";

/// What messages call the policy behind the separator.
const BASE_NAME: &str = "default policy";

/// Reads a policy. `name` is the file's name, for messages.
///
/// # Errors
/// Everything wrong with the text, with places, lines and suggestions.
pub fn load_policy(name: &str, text: &str) -> Result<Policy, ConfigErrors> {
    let (own, carried) = split(text);
    let text_of_own = |file: &str| (file == name).then_some(own);
    let mut tree = Tree::parse(name, own, 1).map_err(|problem| ConfigErrors::of(vec![problem], text_of_own))?;
    let extends_nothing =
        matches!(tree.get("extends").map(|extends| &extends.value), Some(Value::Text(word)) if word == "nothing");
    let base = (!extends_nothing).then_some(carried.unwrap_or(DEFAULT_POLICY));
    let text_of = |file: &str| if file == name { Some(own) } else { base.filter(|_| file == BASE_NAME) };
    let fail = |problems: Vec<Problem>| ConfigErrors::of(problems, text_of);
    let mut problems = Vec::new();
    if let Some(base) = base {
        let mut below = Tree::parse(BASE_NAME, base, 1).map_err(|problem| fail(vec![problem]))?;
        lay_over(&mut below, tree, &mut Vec::new(), &removes, &mut problems);
        tree = below;
    }
    problems.extend(check(&mut tree, &crate::policy_schema()));
    if !problems.is_empty() {
        return Err(fail(problems));
    }
    let parsed: PolicyFile = serde_json::from_value(tree.to_json())
        .map_err(|error| fail(vec![Problem::new(&tree.origin, error.to_string())]))?;
    let full = match (base, carried) {
        (Some(base), None) => format!("{}\n{SEPARATOR}\n{base}", own.trim_end()),
        _ => text.to_owned(),
    };
    let mut builder = Builder { tree: &tree, text_of: &text_of, problems };
    let policy = builder.policy(parsed, full);
    if builder.problems.is_empty() { Ok(policy) } else { Err(fail(builder.problems)) }
}

/// The policy's own text, and the one that it carries along.
fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once(&format!("\n{SEPARATOR}\n")) {
        Some((own, base)) => (own, Some(base)),
        None => (text, None),
    }
}

/// Inputs, signals and classes go when a policy says null; elsewhere null is a value.
fn removes(path: &[String]) -> bool {
    path.len() == 2 && ["inputs", "signals", "classes"].contains(&path[0].as_str())
}

struct Builder<'a> {
    tree: &'a Tree,
    text_of: &'a dyn Fn(&str) -> Option<&'a str>,
    problems: Vec<Problem>,
}

impl Builder<'_> {
    fn complain(&mut self, path: &[&str], message: impl Into<String>) -> &mut Problem {
        let at = self.problems.len();
        self.problems.push(Problem::new(self.tree.origin_of(path), message).of_path(path));
        &mut self.problems[at]
    }

    fn policy(&mut self, parsed: PolicyFile, text: String) -> Policy {
        self.count("inputs", parsed.inputs.0.len(), 1, INPUTS_MAX);
        self.count("signals", parsed.signals.0.len(), 1, SIGNALS_MAX);
        self.count("classes", parsed.classes.0.len(), 1, CLASSES_MAX);
        self.count("rules", parsed.rules.len(), 0, RULES_MAX);
        self.spans(&parsed);
        let mut inputs: Vec<InputSpec> = parsed.inputs.0.iter().map(|(name, input)| self.input(name, input)).collect();
        inputs.sort_by(|a, b| a.name.cmp(&b.name));
        let signals: Vec<SignalSpec> =
            parsed.signals.0.iter().map(|(name, signal)| self.signal(name, signal, &inputs)).collect();
        self.expressions(&inputs, &signals, &parsed);
        let classes: Vec<ClassSpec> = parsed.classes.0.iter().map(|(name, class)| self.class(name, class)).collect();
        self.order_of_set_points(&classes, &["classes"]);
        let mut rules = self.rules(&parsed, &signals, &classes);
        rules.push(Rule {
            name: "default".into(),
            selector: Selector::default(),
            thresholds: signals.iter().map(|signal| signal.thresholds).collect(),
            nominals: vec![None; classes.len()],
            mode: parsed.mode.into(),
            classes: classes.clone(),
        });
        Policy {
            hash: format!("{:08x}", stable_hash(&[&text]) as u32).into(),
            text: text.into(),
            windows: WindowSpec {
                control_seconds: parsed.windows.control_seconds,
                state_seconds: parsed.windows.state_seconds,
                baseline_seconds: parsed.windows.baseline_seconds,
                lateness_seconds: parsed.windows.lateness_seconds,
            },
            health: HealthSpec {
                unknown_after_seconds: parsed.health.unknown_after_seconds,
                held_seconds: parsed.health.held_seconds,
                peer_z: parsed.health.peer_z,
                peer_effect: parsed.health.peer_effect,
                peers_min: parsed.health.peers_min,
                silent_seconds: parsed.health.silent_seconds,
                leave_seconds: parsed.health.leave_seconds,
            },
            lease: LeaseSpec {
                lease_seconds: parsed.lease.lease_seconds,
                refresh_seconds: parsed.lease.refresh_seconds,
            },
            inputs,
            signals,
            score: parsed.score,
            rollup: parsed.rollup,
            classes: classes.into_iter().map(|class| class.name).collect(),
            rules,
        }
    }

    fn count(&mut self, section: &str, count: usize, least: usize, most: usize) {
        if count < least {
            self.complain(&[section], format!("the policy has no {section}"));
        } else if count > most {
            self.complain(&[section], format!("the policy has {count} {section}, more than {most}"));
        }
    }

    fn spans(&mut self, parsed: &PolicyFile) {
        let (windows, health, lease) = (&parsed.windows, &parsed.health, &parsed.lease);
        for (path, value, least, of) in [
            (["windows", "state_seconds"], windows.state_seconds, windows.control_seconds, "windows.control_seconds"),
            (["windows", "baseline_seconds"], windows.baseline_seconds, windows.state_seconds, "windows.state_seconds"),
            (["lease", "lease_seconds"], lease.lease_seconds, lease.refresh_seconds + 1, "lease.refresh_seconds"),
            (
                ["health", "silent_seconds"],
                health.silent_seconds,
                health.unknown_after_seconds,
                "health.unknown_after_seconds",
            ),
            (["health", "leave_seconds"], health.leave_seconds, health.silent_seconds, "health.silent_seconds"),
        ] {
            if value < least {
                self.complain(&path, format!("`{}` is {value}, too short for `{of}`", path.join(".")));
            }
        }
    }

    /// Names are columns of expressions, parts of metrics' names and of paths.
    fn name(&mut self, section: &str, name: &str, is_column: bool) {
        let first = |char: char| if is_column { char.is_ascii_lowercase() } else { char.is_ascii_alphabetic() };
        let rest = |char: char| {
            char.is_ascii_digit()
                || char == '_'
                || if is_column { char.is_ascii_lowercase() } else { char.is_ascii_alphanumeric() || char == '-' }
        };
        if name.len() > NAME_BYTES_MAX || !name.starts_with(first) || !name.chars().all(rest) {
            let allowed = if is_column { "small letters, digits and _" } else { "letters, digits, _ and -" };
            self.complain(&[section, name], format!("`{name}` is no name for one of {section}")).suggestion =
                Some(format!("a letter, then up to {} {allowed}", NAME_BYTES_MAX - 1));
        }
    }

    fn input(&mut self, name: &str, input: &file::Input) -> InputSpec {
        self.name("inputs", name, true);
        let mut sources = Vec::with_capacity(input.sources.len());
        for (source_at, source) in input.sources.iter().enumerate() {
            let at = source_at.to_string();
            if !source.scale.is_finite() || source.scale == 0.0 {
                self.complain(&["inputs", name, "sources", &at, "scale"], "a scale must be a number other than 0");
            }
            let mut filters = Vec::with_capacity(source.filters.len());
            for (filter_at, filter) in source.filters.iter().enumerate() {
                let filter_at = filter_at.to_string();
                match (&filter.one_of, &filter.not_in) {
                    (Some(values), None) => {
                        filters.push(AttributeFilter {
                            keys: filter.keys.clone(),
                            values: values.clone(),
                            negate: false,
                        });
                    }
                    (None, Some(values)) => {
                        filters.push(AttributeFilter {
                            keys: filter.keys.clone(),
                            values: values.clone(),
                            negate: true,
                        });
                    }
                    _ => {
                        let path = ["inputs", name, "sources", &at, "where", &filter_at];
                        self.complain(&path, "a filter has either `in` or `not_in`");
                    }
                }
            }
            sources.push(Source {
                dialect: source.dialect.clone(),
                metrics: source.metrics.clone(),
                filters,
                scale: source.scale,
            });
        }
        InputSpec {
            name: name.to_owned(),
            unit: input.unit.clone(),
            sources,
            fold: input.fold.into(),
            across: input.across.into(),
            function: input.function.into(),
        }
    }

    fn signal(&mut self, name: &str, signal: &file::Signal, inputs: &[InputSpec]) -> SignalSpec {
        self.name("signals", name, true);
        let thresholds = Thresholds { under: signal.under, over: signal.over, critical: signal.critical };
        self.thresholds(&["signals", name], name, thresholds, signal.lower_is_worse, signal.relative.is_some());
        if let Some(volume) = &signal.volume {
            let path = ["signals", name, "volume", "input"];
            match inputs.iter().find(|input| input.name == volume.input) {
                Some(input) if matches!(input.function, WindowFunction::Count | WindowFunction::Increase) => {}
                Some(_) => {
                    self.complain(&path, format!("input `{}` does not count events", volume.input)).suggestion =
                        Some("its function must be count or increase".into());
                }
                None => {
                    let near = nearest(&volume.input, inputs.iter().map(|input| input.name.as_str()));
                    self.complain(&path, format!("there is no input `{}`", volume.input)).suggestion =
                        near.map(|near| format!("did you mean `{near}`?"));
                }
            }
        }
        let worse = if signal.lower_is_worse { "low" } else { "high" };
        SignalSpec {
            name: name.to_owned(),
            family: signal.family.into(),
            unit: signal.unit.clone(),
            expression: signal.expression.clone(),
            lower_is_worse: signal.lower_is_worse,
            thresholds,
            threshold_kind: signal.relative.as_ref().map_or(ThresholdKind::Absolute, |relative| {
                ThresholdKind::Relative { floor: relative.floor, baseline_min_seconds: relative.baseline_min_seconds }
            }),
            weight: signal.weight,
            throttle: signal.throttle,
            peers: signal.peers.as_ref().map(|peers| PeerSpec { floor: peers.floor }),
            volume: signal.volume.as_ref().map(|volume| (volume.input.clone(), volume.min)),
            fatal: signal.fatal,
            reason: signal.reason.clone().unwrap_or_else(|| format!("{name}_{worse}")),
        }
    }

    /// Pressure divides by the distances, so the three must be apart and in order.
    fn thresholds(&mut self, path: &[&str], name: &str, of: Thresholds, lower_is_worse: bool, relative: bool) {
        let Thresholds { under, over, critical } = of;
        let in_order = if lower_is_worse { under > over && over > critical } else { under < over && over < critical };
        if !in_order {
            let sign = if lower_is_worse { ">" } else { "<" };
            let message = format!("`{name}` needs under {sign} over {sign} critical, not {under}, {over}, {critical}");
            self.complain(path, message);
        }
        if relative && [under, over, critical].iter().any(|factor| *factor <= 0.0) {
            self.complain(path, format!("the set-points of `{name}` are multiples of a baseline and must be positive"));
        }
    }

    fn expressions(&mut self, inputs: &[InputSpec], signals: &[SignalSpec], parsed: &PolicyFile) {
        let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        let pairs: Vec<(&str, &str)> =
            signals.iter().map(|signal| (signal.name.as_str(), signal.expression.as_str())).collect();
        if let Err(errors) = compile(&names, &pairs) {
            for error in errors {
                let expression = pairs.iter().find(|(name, _)| *name == error.signal).map_or("", |(_, text)| *text);
                let name = error.signal.clone();
                self.expression(&["signals", &name, "expression"], expression, error);
            }
        }
        let signals: Vec<&str> = signals.iter().map(|signal| signal.name.as_str()).collect();
        if let Some(score) = &parsed.score {
            for error in compile_score(&signals, score).err().unwrap_or_default() {
                self.expression(&["score"], score, error);
            }
        }
        if let Some(rollup) = &parsed.rollup {
            for error in compile_rollup(&signals, rollup).err().unwrap_or_default() {
                self.expression(&["rollup"], rollup, error);
            }
        }
    }

    fn expression(&mut self, path: &[&str], expression: &str, error: ExprError) {
        let origin = place_inside(self.tree.origin_of(path), expression, &error, self.text_of);
        let subject = match path {
            [of, name, ..] => format!("{} `{name}`", of.trim_end_matches('s')),
            of => format!("the {}", of.concat()),
        };
        let message = format!("{subject}: {}", error.message);
        self.problems.push(Problem::new(&origin, message).of_path(path).suggesting(error.suggestion));
    }

    fn class(&mut self, name: &str, class: &file::Class) -> ClassSpec {
        self.name("classes", name, false);
        ClassSpec {
            name: name.to_owned(),
            set_point: class.set_point,
            floor: class.floor,
            cut_min: class.cut_min,
            rise_max: class.rise_max,
            on_expiry: on_expiry(&class.on_expiry),
        }
    }

    /// A class that gives way later than one above it would turn the order of importance round.
    fn order_of_set_points(&mut self, classes: &[ClassSpec], path: &[&str]) {
        for pair in classes.windows(2) {
            let [above, below] = pair else { continue };
            let inverted = match (above.set_point, below.set_point) {
                (Some(above), Some(below)) => below > above,
                (Some(_), None) => true,
                (None, _) => false,
            };
            if inverted {
                let path: Vec<&str> = path.iter().copied().chain([below.name.as_str()]).collect();
                let message =
                    format!("`{}` gives way later than `{}`, which is more important", below.name, above.name);
                self.complain(&path, message).suggestion =
                    Some("set-points fall from the most important class to the least".into());
            }
        }
    }

    fn rules(&mut self, parsed: &PolicyFile, signals: &[SignalSpec], classes: &[ClassSpec]) -> Vec<Rule> {
        let mut rules = Vec::with_capacity(parsed.rules.len() + 1);
        let mut names = BTreeSet::from(["default"]);
        for (at, rule) in parsed.rules.iter().enumerate() {
            let at = at.to_string();
            if !names.insert(&rule.name) {
                self.complain(&["rules", &at, "name"], format!("there are two rules `{}`", rule.name));
            }
            if rule.name.len() > NAME_BYTES_MAX {
                self.complain(&["rules", &at, "name"], format!("the name is longer than {NAME_BYTES_MAX} bytes"));
            }
            let mut attributes = rule.selector.attributes.0.clone();
            attributes.sort();
            let selector = Selector { cell: rule.selector.cell.clone(), pool: rule.selector.pool.clone(), attributes };
            if selector == Selector::default() {
                self.complain(&["rules", &at, "match"], format!("rule `{}` has no condition", rule.name)).suggestion =
                    Some("what is for all servers stands at the top of the policy".into());
            }
            let rule_classes = self.rule_classes(&at, rule, classes);
            rules.push(Rule {
                name: rule.name.clone(),
                selector,
                thresholds: self.rule_thresholds(&at, rule, signals),
                nominals: self.nominals(&at, rule, classes),
                classes: rule_classes,
                mode: rule.mode.unwrap_or(parsed.mode).into(),
            });
        }
        for (at, rule) in rules.iter().enumerate() {
            let tie = rules[..at].iter().find(|other| {
                specificity(&other.selector) == specificity(&rule.selector) && overlap(&other.selector, &rule.selector)
            });
            if let Some(other) = tie {
                let message = format!("rules `{}` and `{}` fit some servers equally well", other.name, rule.name);
                self.complain(&["rules", &at.to_string(), "match"], message).suggestion =
                    Some("give one of them a condition more, or name what it matches without stars".into());
            }
        }
        // Stable, though no two that matter are equal.
        rules.sort_by_key(|rule| std::cmp::Reverse(specificity(&rule.selector)));
        rules
    }

    fn unknown(&mut self, path: &[&str], what: &str, name: &str, known: &[&str]) {
        let near = nearest(name, known.iter().copied());
        self.complain(path, format!("there is no {what} `{name}`")).suggestion =
            near.map(|near| format!("did you mean `{near}`?"));
    }

    fn rule_thresholds(&mut self, at: &str, rule: &file::Rule, signals: &[SignalSpec]) -> Vec<Thresholds> {
        let mut thresholds: Vec<Thresholds> = signals.iter().map(|signal| signal.thresholds).collect();
        for (name, patch) in &rule.signals.0 {
            let path = ["rules", at, "signals", name];
            let Some(index) = signals.iter().position(|signal| signal.name == *name) else {
                let known: Vec<&str> = signals.iter().map(|signal| signal.name.as_str()).collect();
                self.unknown(&path, "signal", name, &known);
                continue;
            };
            let of = &mut thresholds[index];
            of.under = patch.under.unwrap_or(of.under);
            of.over = patch.over.unwrap_or(of.over);
            of.critical = patch.critical.unwrap_or(of.critical);
            let relative = signals[index].threshold_kind != ThresholdKind::Absolute;
            self.thresholds(&path, name, *of, signals[index].lower_is_worse, relative);
        }
        thresholds
    }

    fn rule_classes(&mut self, at: &str, rule: &file::Rule, classes: &[ClassSpec]) -> Vec<ClassSpec> {
        let mut patched = classes.to_vec();
        for (name, patch) in &rule.classes.0 {
            let path = ["rules", at, "classes", name];
            let Some(class) = patched.iter_mut().find(|class| class.name == *name) else {
                let known: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
                self.unknown(&path, "class", name, &known);
                continue;
            };
            // A null that is written exempts the class; a key that is absent leaves it as it is.
            let rule_tree = self.tree.get("rules").and_then(|rules| match &rules.value {
                Value::List(items) => at.parse::<usize>().ok().and_then(|at| items.get(at)),
                _ => None,
            });
            let class_tree = rule_tree.and_then(|rule| rule.get("classes")).and_then(|classes| classes.get(name));
            if class_tree.is_some_and(|class| class.get("set_point").is_some()) {
                class.set_point = patch.set_point;
            }
            class.floor = patch.floor.unwrap_or(class.floor);
            class.cut_min = patch.cut_min.unwrap_or(class.cut_min);
            class.rise_max = patch.rise_max.unwrap_or(class.rise_max);
            class.on_expiry = patch.on_expiry.as_ref().map_or(class.on_expiry, on_expiry);
        }
        if !rule.classes.0.is_empty() {
            self.order_of_set_points(&patched, &["rules", at, "classes"]);
        }
        patched
    }

    fn nominals(&mut self, at: &str, rule: &file::Rule, classes: &[ClassSpec]) -> Vec<Option<f64>> {
        let mut nominals = vec![None; classes.len()];
        for (name, nominal) in &rule.nominal.0 {
            let path = ["rules", at, "nominal", name];
            match classes.iter().position(|class| class.name == *name) {
                Some(_) if *nominal <= 0.0 => {
                    self.complain(&path, format!("the nominal of `{name}` must be more than 0"));
                }
                Some(index) => nominals[index] = Some(*nominal),
                None => {
                    let known: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
                    self.unknown(&path, "class", name, &known);
                }
            }
        }
        nominals
    }
}

fn on_expiry(of: &file::OnExpiry) -> OnExpiry {
    OnExpiry { hold_seconds: of.hold_seconds, then: of.then, ramp_per_minute: of.ramp_per_minute }
}

/// The place in the file of a place inside an expression. Exact where the expression stands on one line, plain or in
/// quotes, and in a literal block; the start of the expression where lines were folded into one and are no longer to be
/// told apart.
fn place_inside<'a>(
    origin: &Origin,
    expression: &str,
    error: &ExprError,
    text_of: &dyn Fn(&str) -> Option<&'a str>,
) -> Origin {
    let Origin::File { file, line, column } = origin else { return origin.clone() };
    let of_line = |number: usize| text_of(file).and_then(|text| text.lines().nth(number.checked_sub(1)?));
    let before = (1..*line).rev().filter_map(of_line).find(|text| !text.trim().is_empty()).unwrap_or_default();
    let block = before.split_whitespace().last().and_then(|word| word.chars().next());
    let first = of_line(*line).and_then(|text| text.chars().nth(column.saturating_sub(1)));
    let (line, column) = match (block, first) {
        // The place of a block is its first line, and its lines are those of the expression.
        (Some('|'), _) if expression.contains('\n') => (line + error.line - 1, column + error.column - 1),
        (_, Some('\'' | '"')) if error.line == 1 => (*line, column + error.column),
        _ if error.line == 1 => (*line, column + error.column - 1),
        _ => return origin.clone(),
    };
    // The end of the text is one behind its last character.
    if column > of_line(line).map_or(0, |text| text.chars().count() + 1) {
        return origin.clone();
    }
    Origin::File { file: Arc::clone(file), line, column }
}
