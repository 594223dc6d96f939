//! The text of a scenario.
//!
//! ```text
//! tick 10                                       seconds from tick to tick; 10 unless said otherwise
//! policy                                        YAML over the shipped policy, up to the line `end`
//!   mode: enforce
//! end
//! sender web host.name=web-1 headroom.cell=eu-1 headroom.pool=web
//! series idle counter system.cpu.time cpu=0 state=idle
//! series latency histogram http.server.request.duration bounds=0.1,1
//! every 10 from 0 to 120 web idle 0 +9          at 0 s: 0, at 10 s: 9, … (`start=` gives a start time)
//! at 130 web idle 5                             one sample
//! at 130 web latency 3,2,1                      buckets of a histogram
//! advance 120                                   ticks up to and including 120 s
//! mode enforce                                  an operator sets the mode of all cells (`mode policy` returns it)
//! remove eu-1 web-1                             an operator removes a server
//! expect web-1 loadState=normal healthScore~0.5 admit.discretionary<1
//! absent web-1                                  the server is not there
//! ```
//!
//! Times are seconds after [`crate::BASE_SECONDS`]. `#` begins a comment.

use std::collections::BTreeMap;
use std::sync::Arc;

use headroom_model::policy::Mode;
use headroom_model::resource::{DEFAULT_NAME, Resource};
use headroom_model::{Series, SeriesKind};

/// One sample of a scenario.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Who sends it.
    pub resource: Arc<Resource>,
    /// What it measures.
    pub series: Arc<Series>,
    /// When, seconds.
    pub at_seconds: f64,
    /// Since when, seconds; `None` = not said.
    pub start_seconds: Option<f64>,
    /// One number, or the buckets of a histogram.
    pub values: Vec<f64>,
}

/// One step of a scenario.
#[derive(Clone, Debug)]
pub enum Step {
    /// A sample arrives.
    Sample(Sample),
    /// Time passes, up to this second.
    Advance(i64),
    /// An operator sets the mode.
    Mode(Option<Mode>),
    /// An operator removes a server: cell and name.
    Remove(String, String),
    /// A server must have these properties; with the line, for the message.
    Expect(String, Vec<String>, usize),
    /// A server must not be there.
    Absent(String, usize),
}

/// What happens at a boundary, in order: the steps with their samples gathered before the tick that they arrive before.
#[derive(Clone, Debug)]
pub enum Event {
    /// These samples arrive, in any order and any batches, before the tick at this second.
    Deliver(Vec<Sample>, i64),
    /// A tick.
    Tick(i64),
    /// An operator sets the mode.
    Mode(Option<Mode>),
    /// An operator removes a server: cell and name.
    Remove(String, String),
    /// A server must have these properties; with the line, for the message.
    Expect(String, Vec<String>, usize),
    /// A server must not be there.
    Absent(String, usize),
}

/// A scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Seconds from tick to tick.
    pub tick_seconds: i64,
    /// YAML over the shipped policy.
    pub policy: String,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

impl Scenario {
    /// What happens, tick by tick: the same at every boundary that a scenario is run at.
    pub fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        let mut waiting: Vec<Sample> = Vec::new();
        let mut now = 0;
        for step in &self.steps {
            match step {
                Step::Sample(sample) => waiting.push(sample.clone()),
                Step::Advance(to) => {
                    while now + self.tick_seconds <= *to {
                        now += self.tick_seconds;
                        // What was sent before the boundary arrives before it; later samples wait their turn.
                        let (due, later) = waiting.into_iter().partition(|sample| sample.at_seconds < now as f64);
                        waiting = later;
                        events.push(Event::Deliver(due, now));
                        events.push(Event::Tick(now));
                    }
                }
                Step::Mode(mode) => events.push(Event::Mode(*mode)),
                Step::Remove(cell, server) => events.push(Event::Remove(cell.clone(), server.clone())),
                Step::Expect(server, conditions, line) => {
                    events.push(Event::Expect(server.clone(), conditions.clone(), *line));
                }
                Step::Absent(server, line) => events.push(Event::Absent(server.clone(), *line)),
            }
        }
        events
    }

    /// Reads a scenario.
    ///
    /// # Errors
    /// With the line that is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut scenario = Self { tick_seconds: 10, policy: String::new(), steps: Vec::new() };
        let mut senders: BTreeMap<String, Arc<Resource>> = BTreeMap::new();
        let mut series: BTreeMap<String, Arc<Series>> = BTreeMap::new();
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let number = number + 1;
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            let wrong = |why: &str| format!("line {number}: {why}: {line}");
            match words.as_slice() {
                [] => {}
                ["tick", seconds] => scenario.tick_seconds = seconds.parse().map_err(|_| wrong("no number"))?,
                ["policy"] => {
                    for (_, line) in lines.by_ref() {
                        if line.trim() == "end" {
                            break;
                        }
                        scenario.policy.push_str(line);
                        scenario.policy.push('\n');
                    }
                }
                ["sender", name, attributes @ ..] => {
                    let resource = resource(attributes).ok_or_else(|| wrong("no attributes"))?;
                    senders.insert((*name).to_owned(), Arc::new(resource));
                }
                ["series", name, kind, metric, attributes @ ..] => {
                    let made = make_series(kind, metric, attributes).ok_or_else(|| wrong("no series"))?;
                    series.insert((*name).to_owned(), Arc::new(made));
                }
                ["at", at, sender, what, value, rest @ ..] => {
                    let at_seconds = at.parse().map_err(|_| wrong("no time"))?;
                    scenario.steps.push(Step::Sample(Sample {
                        resource: senders.get(*sender).ok_or_else(|| wrong("no such sender"))?.clone(),
                        series: series.get(*what).ok_or_else(|| wrong("no such series"))?.clone(),
                        at_seconds,
                        start_seconds: start(rest),
                        values: numbers(value).ok_or_else(|| wrong("no numbers"))?,
                    }));
                }
                ["every", period, "from", from, "to", to, sender, what, value, growth, rest @ ..] => {
                    let [period, from, to] = [period, from, to].map(|word| word.parse::<f64>());
                    let (Ok(period), Ok(from), Ok(to)) = (period, from, to) else { return Err(wrong("no times")) };
                    let first = numbers(value).ok_or_else(|| wrong("no numbers"))?;
                    let growth = numbers(growth).ok_or_else(|| wrong("no growth"))?;
                    let resource = senders.get(*sender).ok_or_else(|| wrong("no such sender"))?;
                    let what = series.get(*what).ok_or_else(|| wrong("no such series"))?;
                    let steps = ((to - from) / period).floor() as usize;
                    for step in 0..=steps {
                        let grown = |(at, value): (usize, &f64)| value + growth[at % growth.len()] * step as f64;
                        scenario.steps.push(Step::Sample(Sample {
                            resource: resource.clone(),
                            series: what.clone(),
                            at_seconds: from + period * step as f64,
                            start_seconds: start(rest),
                            values: first.iter().enumerate().map(grown).collect(),
                        }));
                    }
                }
                ["advance", to] => scenario.steps.push(Step::Advance(to.parse().map_err(|_| wrong("no time"))?)),
                ["mode", mode] => scenario.steps.push(Step::Mode(match *mode {
                    "off" => Some(Mode::Off),
                    "observe" => Some(Mode::Observe),
                    "enforce" => Some(Mode::Enforce { percent: 100.0 }),
                    "policy" => None,
                    _ => return Err(wrong("no mode")),
                })),
                ["remove", cell, server] => {
                    scenario.steps.push(Step::Remove((*cell).to_owned(), (*server).to_owned()));
                }
                ["expect", server, conditions @ ..] => scenario.steps.push(Step::Expect(
                    (*server).to_owned(),
                    conditions.iter().map(|condition| (*condition).to_owned()).collect(),
                    number,
                )),
                ["absent", server] => scenario.steps.push(Step::Absent((*server).to_owned(), number)),
                _ => return Err(wrong("not understood")),
            }
        }
        Ok(scenario)
    }
}

fn pairs(words: &[&str]) -> Option<Vec<(Arc<str>, Arc<str>)>> {
    let mut pairs = words
        .iter()
        .map(|word| word.split_once('=').map(|(key, value)| (Arc::from(key), Arc::from(value))))
        .collect::<Option<Vec<_>>>()?;
    pairs.sort();
    Some(pairs)
}

/// The resource that the default identity rule makes of attributes; that rule itself is tested where it lives.
fn resource(words: &[&str]) -> Option<Resource> {
    let attributes = pairs(words)?;
    let get = |key: &str| attributes.iter().find(|(k, _)| &**k == key).map(|(_, value)| value.clone());
    let mut host_names: Vec<Arc<str>> =
        ["host.id", "host.name", "k8s.node.name", "k8s.node.uid"].iter().filter_map(|key| get(key)).collect();
    host_names.sort();
    let or_default = |value: Option<Arc<str>>| value.unwrap_or_else(|| Arc::from(DEFAULT_NAME));
    Some(Resource {
        server: get("host.name").or_else(|| get("k8s.node.name")).or_else(|| host_names.first().cloned())?,
        host_names,
        aliases: Vec::new(),
        cell: or_default(get("headroom.cell")),
        pool: or_default(get("headroom.pool").or_else(|| get("service.name"))),
        sender: get("service.name").unwrap_or_else(|| Arc::from("")),
        attributes,
    })
}

fn make_series(kind: &str, metric: &str, words: &[&str]) -> Option<Series> {
    let kind = match kind {
        "gauge" => SeriesKind::Gauge,
        "counter" => SeriesKind::Counter,
        "delta" => SeriesKind::DeltaCounter,
        "histogram" => SeriesKind::Histogram,
        "delta-histogram" => SeriesKind::DeltaHistogram,
        _ => return None,
    };
    let (mut bounds, mut unit, mut rest) = (Vec::new(), "", Vec::new());
    for word in words {
        if let Some(list) = word.strip_prefix("bounds=") {
            bounds = numbers(list)?;
        } else if let Some(text) = word.strip_prefix("unit=") {
            unit = text;
        } else {
            rest.push(*word);
        }
    }
    Some(Series {
        metric: Arc::from(metric),
        unit: Arc::from(unit),
        kind,
        attributes: pairs(&rest)?.into(),
        bounds: bounds.into(),
    })
}

fn numbers(text: &str) -> Option<Vec<f64>> {
    text.split(',').map(|number| number.trim_start_matches('+').parse().ok()).collect()
}

fn start(words: &[&str]) -> Option<f64> {
    words.iter().find_map(|word| word.strip_prefix("start="))?.parse().ok()
}
