//! A scenario against the engine itself.

use std::sync::Arc;

use headroom_engine::{CompiledPolicy, EngineConfig, Partition};
use headroom_model::{CellSnapshot, HistogramPoint, SampleBatch, SampleBatchBuilder, Timestamp};

use crate::BASE_SECONDS;
use crate::expect::check;
use crate::random::Random;
use crate::scenario::{Event, Sample, Scenario};

/// In which way the same samples reach the engine between the same ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variation {
    /// As written, one batch per sample.
    Plain,
    /// All samples between two ticks in one batch.
    OneBatch,
    /// Shuffled, cut into batches at random.
    Shuffled(u64),
    /// Every sample twice, the second time shuffled in among the others.
    Repeated(u64),
    /// Checkpointed, thrown away and restored before every tick.
    Killed,
}

/// What a scenario led to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The content of every published snapshot, in order.
    pub published: Vec<Vec<u8>>,
    /// The snapshots of every tick, by its second.
    pub ticks: Vec<(i64, Vec<Arc<CellSnapshot>>)>,
    /// Expectations that were not met.
    pub failures: Vec<String>,
}

/// Compiles YAML over the shipped policy.
///
/// # Errors
/// With every problem of the policy.
pub fn compile(yaml: &str) -> Result<CompiledPolicy, String> {
    let policy = headroom_config::load_policy("policy", yaml).map_err(|problems| problems.to_string())?;
    CompiledPolicy::new(policy).map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

/// Runs a scenario.
///
/// # Errors
/// If its policy is not valid or a checkpoint cannot be restored.
pub fn run(scenario: &Scenario, variation: Variation) -> Result<Outcome, String> {
    let config =
        EngineConfig { tick_seconds: scenario.tick_seconds, future_max_seconds: None, ..EngineConfig::default() };
    let mut engine = Partition::new(config.clone());
    engine.handle_policy(Arc::new(compile(&scenario.policy)?));
    let mut outcome = Outcome::default();
    let mut latest: Vec<Arc<CellSnapshot>> = Vec::new();
    for event in scenario.events() {
        match event {
            Event::Deliver(samples, tick) => deliver(&mut engine, samples, variation, tick as u64),
            Event::Tick(tick) => {
                if variation == Variation::Killed {
                    engine = Partition::restore(config.clone(), &engine.checkpoint(), compile)?;
                }
                let snapshots = engine.handle_tick(Timestamp::from_seconds(BASE_SECONDS + tick)).unwrap_or_default();
                for snapshot in &snapshots {
                    outcome.published.push(snapshot.encode());
                    latest.retain(|held| held.cell != snapshot.cell);
                    latest.push(snapshot.clone());
                }
                outcome.ticks.push((tick, snapshots));
            }
            Event::Mode(mode) => engine.handle_mode(None, mode),
            Event::Remove(cell, server) => engine.handle_remove(&cell, &server),
            Event::Expect(server, conditions, line) => {
                outcome.failures.extend(check(&latest, &server, &conditions, line));
            }
            Event::Absent(server, line) => {
                if latest.iter().any(|snapshot| snapshot.servers.server.iter().any(|name| **name == *server)) {
                    outcome.failures.push(format!("line {line}: {server} is there"));
                }
            }
        }
    }
    Ok(outcome)
}

fn deliver(engine: &mut Partition, samples: Vec<Sample>, variation: Variation, salt: u64) {
    match variation {
        Variation::Plain | Variation::Killed => {
            for sample in &samples {
                engine.handle_samples(&batch(std::slice::from_ref(sample)));
            }
        }
        Variation::OneBatch => engine.handle_samples(&batch(&samples)),
        Variation::Shuffled(seed) => shuffled(engine, samples, seed ^ salt),
        Variation::Repeated(seed) => {
            let twice = samples.iter().chain(&samples).cloned().collect();
            shuffled(engine, twice, seed ^ salt);
        }
    }
}

fn shuffled(engine: &mut Partition, mut samples: Vec<Sample>, seed: u64) {
    let mut random = Random::new(seed);
    random.shuffle(&mut samples);
    let mut rest = samples.as_slice();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(1 + random.below(rest.len()));
        engine.handle_samples(&batch(now));
        rest = later;
    }
}

fn batch(samples: &[Sample]) -> SampleBatch {
    let ns = |seconds: f64| BASE_SECONDS * 1_000_000_000 + (seconds * 1e9) as i64;
    let mut builder = SampleBatchBuilder::default();
    for sample in samples {
        let resource = builder.add_resource(sample.resource.clone());
        let series = builder.add_series(sample.series.clone());
        let (start_ns, time_ns) = (sample.start_seconds.map_or(0, ns), ns(sample.at_seconds));
        if sample.series.kind.is_histogram() {
            let buckets: Vec<u64> = sample.values.iter().map(|count| *count as u64).collect();
            builder.push_histogram(HistogramPoint {
                resource,
                series,
                start_ns,
                time_ns,
                count: buckets.iter().sum(),
                sum: f64::NAN,
                scale: 0,
                zero_count: 0,
                offset: 0,
                buckets: buckets.into(),
            });
        } else {
            builder.push(resource, series, start_ns, time_ns, sample.values.first().copied().unwrap_or(f64::NAN));
        }
    }
    builder.finish()
}
