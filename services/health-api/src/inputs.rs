//! What was seen, as `GET /v1/inputs` tells it.
//!
//! The engines look through all their rows for this, so they are asked once a second at most, whoever asks and however
//! often: no reader may slow the engines down.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use headroom_aggregator::SeenMetric as Seen;
use headroom_catalog::Matcher;
use headroom_model::{Policy, Series};
use headroom_wire::operate::{InputsReport, SeenMetric};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// An answer is given that long before the engines are asked again.
const KEPT: Duration = Duration::from_secs(1);

/// Senders that an answer names for a metric.
const SENDERS_MAX: usize = 8;

/// The last answer. Who comes while it is made waits for it.
#[derive(Default)]
pub(crate) struct LastReport(Mutex<Option<(Instant, Arc<InputsReport>)>>);

impl LastReport {
    /// The answer, made by `make` if the last one is too old.
    pub(crate) async fn get(&self, make: impl Future<Output = Option<InputsReport>>) -> Option<InputsReport> {
        let mut last = self.0.lock().await;
        if let Some((_, report)) = last.as_ref().filter(|(made, _)| made.elapsed() < KEPT) {
            return Some((**report).clone());
        }
        let report = make.await?;
        *last = Some((Instant::now(), Arc::new(report.clone())));
        Some(report)
    }
}

/// The metrics that the partitions have seen, each once, held against a policy. Takes long enough to hold up others.
pub(crate) fn report<'a>(seen: impl Iterator<Item = &'a Seen>, policy: &Policy) -> InputsReport {
    let matcher = Matcher::new(&policy.inputs);
    let merged = merge(seen);
    let mut report = InputsReport::default();
    for seen in &merged {
        let metric = describe(seen, &matcher);
        match (&metric.reason, seen.inputs.is_empty()) {
            (Some(_), true) => report.refused.push(metric),
            (None, true) => report.unused.push(metric),
            (_, false) => report.matched.push(metric),
        }
    }
    let is_fed = |name: &str| merged.iter().any(|seen| seen.inputs.iter().any(|(input, _)| **input == *name));
    report.unfed = policy.inputs.iter().map(|input| input.name.clone()).filter(|name| !is_fed(name)).collect();
    report
}

/// Cells of one kind lie in several partitions: what they all report is one metric.
fn merge<'a>(seen: impl Iterator<Item = &'a Seen>) -> Vec<Seen> {
    let mut merged: BTreeMap<_, Seen> = BTreeMap::new();
    for metric in seen {
        match merged.entry((metric.metric.clone(), metric.unit.clone())) {
            Entry::Vacant(place) => {
                place.insert(metric.clone());
            }
            Entry::Occupied(mut held) => {
                let held = held.get_mut();
                held.points = held.points.saturating_add(metric.points);
                held.series = held.series.max(metric.series);
                held.resources_min = held.resources_min.saturating_add(metric.resources_min);
                held.inputs.extend(metric.inputs.iter().cloned());
                held.inputs.sort();
                held.inputs.dedup();
                held.senders.extend(metric.senders.iter().cloned());
                held.senders.sort();
                held.senders.dedup();
                held.senders.truncate(SENDERS_MAX);
            }
        }
    }
    merged.into_values().collect()
}

/// Which inputs do not read a metric for its unit, and what to do.
fn refusal(seen: &Seen, matcher: &Matcher) -> Option<String> {
    let series = Series {
        metric: seen.metric.clone(),
        unit: seen.unit.clone(),
        kind: seen.kind,
        attributes: seen.example.clone(),
        bounds: Arc::from([]),
    };
    let inputs: Vec<String> =
        matcher.contradicted(&series).iter().map(|(input, unit)| format!("{input} (in `{unit}`)")).collect();
    let (inputs, unit) = (inputs.join(", "), &seen.unit);
    (!inputs.is_empty()).then(|| {
        format!("its unit `{unit}` is none of the quantity of {inputs}; have the sender name the unit it measures in")
    })
}

fn describe(seen: &Seen, matcher: &Matcher) -> SeenMetric {
    let reason = refusal(seen, matcher);
    let is_strange = seen.inputs.is_empty() && reason.is_none();
    let nearest = if is_strange { matcher.nearest(&seen.metric).into_iter().next() } else { None };
    SeenMetric {
        metric: seen.metric.to_string(),
        unit: (!seen.unit.is_empty()).then(|| seen.unit.to_string()),
        senders: seen.senders.iter().filter(|sender| !sender.is_empty()).map(ToString::to_string).collect(),
        servers: u64::from(seen.resources_min),
        samples: seen.points,
        inputs: seen.inputs.iter().map(|(input, dialect)| format!("{input} ({dialect})")).collect(),
        reason,
        nearest: nearest.map(|suggestion| suggestion.metric),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headroom_model::series::SeriesKind;

    fn seen(metric: &str, unit: &str, inputs: &[(&str, &str)], sender: &str) -> Seen {
        Seen {
            metric: metric.into(),
            unit: unit.into(),
            kind: SeriesKind::Gauge,
            inputs: inputs.iter().map(|(input, dialect)| ((*input).into(), (*dialect).into())).collect(),
            senders: vec![sender.into()],
            points: 10,
            series: 2,
            resources_min: 3,
            example: Arc::from([]),
        }
    }

    #[test]
    fn a_metric_of_several_partitions_appears_once() {
        let of_partitions = [
            seen("load", "1", &[("load", "semconv")], "a"),
            seen("load", "%", &[], "a"),
            seen("load", "1", &[("load", "semconv")], "b"),
        ];
        let merged = merge(of_partitions.iter());
        let told: Vec<_> = merged
            .iter()
            .map(|seen| {
                (&*seen.metric, &*seen.unit, seen.points, seen.resources_min, seen.inputs.len(), seen.senders.len())
            })
            .collect();
        assert_eq!(told, [("load", "%", 10, 3, 0, 1), ("load", "1", 20, 6, 1, 2)]);
    }

    #[test]
    fn a_unit_that_no_input_can_read_is_told() {
        let policy = headroom_config::load_policy("policy", headroom_catalog::DEFAULT_POLICY).expect("it is valid");
        let metrics = [
            seen("system.memory.utilization", "By", &[], "a"),
            seen("system.memory.utilization", "%", &[("memory_used_ratio", "otel")], "a"),
            seen("orders.shipped", "By", &[], "a"),
        ];
        let report = report(metrics.iter(), &policy);
        let reasons = |metrics: &[SeenMetric]| metrics.iter().map(|metric| metric.reason.clone()).collect::<Vec<_>>();
        assert_eq!((reasons(&report.matched), reasons(&report.unused)), (vec![None], vec![None]));
        let refused = reasons(&report.refused).into_iter().flatten().collect::<String>();
        assert!(refused.contains("`By`") && refused.contains("memory_used_ratio (in `1`)"), "{refused}");
    }

    #[tokio::test]
    async fn the_engines_are_asked_once_for_all_who_ask_at_once() {
        let last = LastReport::default();
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let ask = || async {
            asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            tokio::task::yield_now().await;
            Some(InputsReport::default())
        };
        let (first, second) = tokio::join!(last.get(ask()), last.get(ask()));
        assert!(first.is_some() && second.is_some() && last.get(ask()).await.is_some());
        assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
    }
}
