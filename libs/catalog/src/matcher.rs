//! Which inputs read a series.
//!
//! Asked once for each new series, so that the way of a sample never sees a name. A series that is spelled as the
//! policy spells it is found by that name alone; only one that is not may be found by a Prometheus spelling.

use std::collections::BTreeMap;

use headroom_model::policy::{AttributeFilter, InputSpec, Lane, LaneMatcher, matches_pattern};
use headroom_model::{Resource, Series};

use crate::names::{likeness, spellings, underscored};
use crate::units;

/// Most suggestions given for one metric.
const SUGGESTIONS_MAX: usize = 3;

/// Names less alike than this are not suggested.
const LIKENESS_MIN: f64 = 0.5;

/// An input that a metric which nobody reads might be meant for.
#[derive(Clone, Debug, PartialEq)]
pub struct Suggestion {
    /// The input.
    pub input: String,
    /// The metric that it reads now.
    pub metric: String,
    /// How alike the names are, 0-1.
    pub likeness: f64,
}

/// The inputs of a policy, indexed by the metrics they read.
#[derive(Clone, Debug)]
pub struct Matcher {
    inputs: Vec<InputSpec>,
    candidates: Vec<Candidate>,
    /// Positions in `candidates` by metric name as the policy spells it.
    by_name: BTreeMap<String, Vec<usize>>,
    /// The same by underscored name.
    by_underscored: BTreeMap<String, Vec<usize>>,
    /// Metric and input, for suggestions; sorted.
    metrics: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
struct Candidate {
    /// Index of its input.
    input: u16,
    /// Index among the sources of its input.
    source: u8,
    filters: Vec<Filter>,
}

#[derive(Clone, Debug)]
struct Filter {
    condition: AttributeFilter,
    /// The keys as Prometheus labels.
    labels: Vec<String>,
}

/// What a series says about a filter without its resource.
enum Verdict {
    Passes,
    Fails,
    /// None of the keys is on the point.
    AskResource,
}

impl Filter {
    fn of_series(&self, series: &Series) -> Verdict {
        let keys = self.condition.keys.iter().zip(&self.labels);
        let found = keys.filter_map(|(key, label)| series.attribute(key).or_else(|| series.attribute(label))).next();
        match found {
            Some(value) if self.accepts(value) => Verdict::Passes,
            Some(_) => Verdict::Fails,
            None => Verdict::AskResource,
        }
    }

    fn of_resource(&self, resource: &Resource) -> bool {
        let keys = self.condition.keys.iter().zip(&self.labels);
        let found =
            keys.filter_map(|(key, label)| resource.attribute(key).or_else(|| resource.attribute(label))).next();
        found.map_or(self.condition.negate, |value| self.accepts(value))
    }

    fn accepts(&self, value: &str) -> bool {
        self.condition.values.iter().any(|pattern| matches_pattern(pattern, value)) != self.condition.negate
    }
}

impl Matcher {
    /// Indexes the inputs of a policy. Inputs beyond the range of a lane's number are left out; `headroom-config` refuses
    /// such policies.
    pub fn new(inputs: &[InputSpec]) -> Self {
        let mut matcher = Self {
            inputs: inputs.to_vec(),
            candidates: Vec::new(),
            by_name: BTreeMap::new(),
            by_underscored: BTreeMap::new(),
            metrics: Vec::new(),
        };
        for (at, input) in inputs.iter().enumerate() {
            let Ok(number) = u16::try_from(at) else { continue };
            for (source_at, source) in input.sources.iter().enumerate() {
                let Ok(source_number) = u8::try_from(source_at) else { continue };
                let position = matcher.candidates.len();
                let filters = source.filters.iter().map(|condition| Filter {
                    condition: condition.clone(),
                    labels: condition.keys.iter().map(|key| underscored(key)).collect(),
                });
                matcher.candidates.push(Candidate { input: number, source: source_number, filters: filters.collect() });
                for metric in &source.metrics {
                    matcher.by_name.entry(metric.clone()).or_default().push(position);
                    matcher.by_underscored.entry(underscored(metric)).or_default().push(position);
                    matcher.metrics.push((metric.clone(), input.name.clone()));
                }
            }
        }
        // A metric that some source converts to seconds is in milliseconds for all, and exporters write so.
        let in_milliseconds = inputs.iter().flat_map(|input| &input.sources).filter(|source| source.scale == 0.001);
        for metric in in_milliseconds.flat_map(|source| &source.metrics) {
            let name = underscored(metric);
            if let Some(positions) = matcher.by_underscored.get(&name).cloned() {
                matcher.by_underscored.insert(format!("{name}_milliseconds"), positions);
            }
        }
        matcher.metrics.sort();
        matcher.metrics.dedup();
        matcher
    }

    /// The inputs whose metrics are most like `metric`, the most alike first.
    pub fn nearest(&self, metric: &str) -> Vec<Suggestion> {
        let mut suggestions: Vec<Suggestion> = self
            .metrics
            .iter()
            .map(|(known, input)| Suggestion {
                input: input.clone(),
                metric: known.clone(),
                likeness: likeness(metric, known),
            })
            .filter(|suggestion| suggestion.likeness >= LIKENESS_MIN)
            .collect();
        // Stable, so that equally good ones stay in the order of their names.
        suggestions.sort_by(|a, b| b.likeness.total_cmp(&a.likeness));
        suggestions.truncate(SUGGESTIONS_MAX);
        suggestions
    }

    /// The sources that read a metric of this name, whatever its attributes.
    fn candidates_of(&self, metric: &str) -> &[usize] {
        if let Some(found) = self.by_name.get(metric) {
            return found;
        }
        spellings(metric).iter().find_map(|spelling| self.by_underscored.get(spelling)).map_or(&[], Vec::as_slice)
    }

    fn scale(&self, candidate: &Candidate, series: &Series) -> Option<f64> {
        let input = self.inputs.get(usize::from(candidate.input))?;
        units::scale(input, input.sources.get(usize::from(candidate.source))?, series)
    }

    /// Where a series goes by one of its candidates; nowhere if its unit is not one of the input's.
    fn lane(&self, candidate: &Candidate, series: &Series) -> Option<Lane> {
        let scale = self.scale(candidate, series)?;
        Some(Lane { input: candidate.input, source: candidate.source, scale })
    }

    /// Why inputs that read this metric do not read a series that names another quantity's unit: each input and its own
    /// unit, sorted.
    pub fn contradicted(&self, series: &Series) -> Vec<(&str, &str)> {
        let candidates = self.candidates_of(&series.metric).iter().map(|at| &self.candidates[*at]);
        let mut inputs: Vec<(&str, &str)> = candidates
            .filter(|candidate| self.scale(candidate, series).is_none())
            .filter_map(|candidate| self.inputs.get(usize::from(candidate.input)))
            .map(|input| (&*input.name, &*input.unit))
            .collect();
        inputs.sort_unstable();
        inputs.dedup();
        inputs
    }
}

/// In order, and of each input only the first source: a series must not count twice.
fn tidy(mut lanes: Vec<Lane>) -> Vec<Lane> {
    lanes.sort_unstable_by_key(|lane| (lane.input, lane.source));
    lanes.dedup_by_key(|lane| lane.input);
    lanes
}

impl LaneMatcher for Matcher {
    fn lanes(&self, resource: &Resource, series: &Series) -> Vec<Lane> {
        let holds = |filter: &Filter| match filter.of_series(series) {
            Verdict::Passes => true,
            Verdict::Fails => false,
            Verdict::AskResource => filter.of_resource(resource),
        };
        let candidates = self.candidates_of(&series.metric).iter().map(|at| &self.candidates[*at]);
        tidy(
            candidates
                .filter(|candidate| candidate.filters.iter().all(holds))
                .filter_map(|candidate| self.lane(candidate, series))
                .collect(),
        )
    }

    fn lanes_of_series(&self, series: &Series) -> Option<Vec<Lane>> {
        let mut lanes = Vec::new();
        for at in self.candidates_of(&series.metric) {
            let candidate = &self.candidates[*at];
            let mut passes = true;
            let mut asks = false;
            for filter in &candidate.filters {
                match filter.of_series(series) {
                    Verdict::Passes => {}
                    Verdict::Fails => passes = false,
                    Verdict::AskResource => asks = true,
                }
            }
            if passes && asks {
                return None;
            }
            if passes {
                lanes.extend(self.lane(candidate, series));
            }
        }
        Some(tidy(lanes))
    }
}

#[cfg(test)]
mod tests {
    use headroom_model::SeriesKind;
    use headroom_model::policy::{Across, Fold, Source, WindowFunction};

    use super::*;

    fn series(metric: &str, attributes: &[(&str, &str)]) -> Series {
        let mut attributes: Vec<_> = attributes.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        attributes.sort();
        Series {
            metric: metric.into(),
            unit: "".into(),
            kind: SeriesKind::Gauge,
            attributes: attributes.into(),
            bounds: [].into(),
        }
    }

    fn resource(attributes: &[(&str, &str)]) -> Resource {
        Resource {
            server: "web-1".into(),
            host_names: vec![],
            aliases: vec![],
            cell: "default".into(),
            pool: "default".into(),
            sender: "".into(),
            attributes: attributes.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        }
    }

    /// Keys, patterns, and whether none of them may match.
    type Condition<'a> = (&'a [&'a str], &'a [&'a str], bool);

    fn input(name: &str, sources: &[(&[&str], &[Condition<'_>])]) -> InputSpec {
        let texts = |of: &[&str]| of.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        InputSpec {
            name: name.into(),
            unit: "1".into(),
            sources: sources
                .iter()
                .map(|(metrics, filters)| Source {
                    dialect: "otel".into(),
                    metrics: texts(metrics),
                    filters: filters
                        .iter()
                        .map(|(keys, values, negate)| AttributeFilter {
                            keys: texts(keys),
                            values: texts(values),
                            negate: *negate,
                        })
                        .collect(),
                    scale: 1.0,
                })
                .collect(),
            fold: Fold::Sum,
            across: Across::First,
            function: WindowFunction::Rate,
        }
    }

    fn matcher() -> Matcher {
        Matcher::new(&[
            input("idle", &[(&["system.cpu.time"], &[(&["cpu.mode", "state"], &["idle", "*wait"], false)])]),
            input("total", &[(&["system.cpu.time"], &[]), (&["node_cpu_seconds_total"], &[])]),
            input("disk", &[(&["system.disk.io_time"], &[(&["system.device", "device"], &["loop*"], true)])]),
            input("twice", &[(&["m"], &[]), (&["m", "n"], &[])]),
        ])
    }

    /// Input and source of each lane, and whether the series alone decides.
    #[test]
    fn filters_look_at_the_point_then_at_its_resource() {
        for (metric, attributes, of_resource, expected, decided) in [
            ("system.cpu.time", vec![("cpu.mode", "idle")], vec![], vec![(0, 0), (1, 0)], true),
            ("system.cpu.time", vec![("state", "wait")], vec![], vec![(0, 0), (1, 0)], true),
            ("system.cpu.time", vec![("state", "user")], vec![("state", "idle")], vec![(1, 0)], true),
            ("system.cpu.time", vec![], vec![("state", "idle")], vec![(0, 0), (1, 0)], false),
            ("system.cpu.time", vec![], vec![], vec![(1, 0)], false),
            // The first key that is there decides, also if a later one would say otherwise.
            ("system.cpu.time", vec![("cpu.mode", "user"), ("state", "idle")], vec![], vec![(1, 0)], true),
            ("system_cpu_time_seconds_total", vec![("cpu_mode", "idle")], vec![], vec![(0, 0), (1, 0)], true),
            ("node_cpu_seconds_total", vec![("mode", "idle")], vec![], vec![(1, 1)], true),
            ("system.disk.io_time", vec![("device", "vda")], vec![], vec![(2, 0)], true),
            ("system.disk.io_time", vec![("device", "loop3")], vec![], vec![], true),
            ("system.disk.io_time", vec![], vec![], vec![(2, 0)], false),
            ("m", vec![], vec![], vec![(3, 0)], true),
            ("n", vec![], vec![], vec![(3, 1)], true),
            ("system.cpu", vec![], vec![], vec![], true),
        ] {
            let (series, resource) = (series(metric, &attributes), resource(&of_resource));
            let numbers = |lanes: Vec<Lane>| lanes.iter().map(|lane| (lane.input, lane.source)).collect::<Vec<_>>();
            assert_eq!(numbers(matcher().lanes(&resource, &series)), expected, "{metric} {attributes:?}");
            let alone = matcher().lanes_of_series(&series).map(numbers);
            assert_eq!(alone, decided.then_some(expected), "{metric} {attributes:?}");
        }
    }

    #[test]
    fn a_name_with_another_unit_finds_only_what_is_in_that_unit() {
        let mut seconds =
            input("seconds", &[(&["http.server.request.duration"], &[]), (&["http.server.duration"], &[])]);
        seconds.sources[1].scale = 0.001;
        let matcher = Matcher::new(&[seconds, input("requests", &[(&["http.server.duration"], &[])])]);
        for (metric, expected) in [
            ("http_server_request_duration_seconds", &[(0, 0)][..]),
            ("http_server_request_duration_milliseconds", &[]),
            ("http_server_duration_milliseconds", &[(0, 1), (1, 0)]),
            ("http_server_request_duration_percent", &[]),
        ] {
            let lanes = matcher.lanes(&resource(&[]), &series(metric, &[]));
            let lanes: Vec<_> = lanes.iter().map(|lane| (lane.input, lane.source)).collect();
            assert_eq!(lanes, expected, "{metric}");
        }
        assert_eq!(matcher.nearest("http_server_request_duration_milliseconds")[0].input, "seconds");
    }

    #[test]
    fn a_unit_of_something_else_is_not_read() {
        let mut seconds = input("latency", &[(&["m"], &[])]);
        (seconds.unit, seconds.function) = ("s".into(), WindowFunction::Mean);
        let matcher = Matcher::new(&[seconds, input("requests", &[(&["m"], &[])])]);
        for (unit, expected, contradicted) in [
            ("ms", &[(0, 0.001), (1, 0.001)][..], &[][..]),
            ("", &[(0, 1.0), (1, 1.0)], &[]),
            ("By", &[(1, 1.0)], &[("latency", "s")]),
        ] {
            let series = Series { unit: unit.into(), ..series("m", &[]) };
            let lanes: Vec<_> = matcher.lanes(&resource(&[]), &series);
            assert_eq!(matcher.lanes_of_series(&series).as_ref(), Some(&lanes));
            let lanes: Vec<_> = lanes.iter().map(|lane| (lane.input, lane.scale)).collect();
            assert_eq!((lanes.as_slice(), &*matcher.contradicted(&series)), (expected, contradicted), "{unit}");
        }
    }

    #[test]
    fn an_unused_metric_is_told_what_it_resembles() {
        let suggestions = matcher().nearest("host.disk.io_time");
        assert_eq!((suggestions[0].input.as_str(), suggestions[0].metric.as_str()), ("disk", "system.disk.io_time"));
        assert_eq!(matcher().nearest("orders.shipped"), []);
        assert!(matcher().nearest("system.cpu.time").len() <= SUGGESTIONS_MAX);
    }
}
