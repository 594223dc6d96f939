//! What an owner announces beside its snapshots, as bytes and back.

use std::sync::Arc;

use headroom_engine::{InputsReport, SeenMetric};
use headroom_log::Position;
use headroom_model::codec::{DecodeError, Decoder, Encoder};
use headroom_model::{SeriesKind, Timestamp};

use crate::status::Progress;

/// Name of the note that says where a partition stands.
pub(crate) const PROGRESS: &str = "progress";

/// Name of the note that says which metrics were seen.
pub(crate) const INPUTS: &str = "inputs";

/// Name of the note that has the policy in force.
pub(crate) const POLICY: &str = "policy";

/// The version written in front of every note.
const VERSION: u8 = 1;

/// The version of a progress with full cells. A progress without keeps the first, which every process can read while the
/// members of a cluster are replaced one by one.
const WITH_FULL_CELLS: u8 = 2;

fn put_time(out: &mut Encoder, time: Option<Timestamp>) {
    out.put_bool(time.is_some());
    out.put_i64(time.unwrap_or_default().0);
}

fn get_time(input: &mut Decoder<'_>) -> Result<Option<Timestamp>, DecodeError> {
    let known = input.get_bool()?;
    let time = Timestamp(input.get_i64()?);
    Ok(known.then_some(time))
}

fn versioned(bytes: &[u8]) -> Result<Decoder<'_>, DecodeError> {
    up_to(VERSION, bytes).map(|(_, input)| input)
}

fn up_to(newest: u8, bytes: &[u8]) -> Result<(u8, Decoder<'_>), DecodeError> {
    let mut input = Decoder::new(bytes);
    let version = input.get_u8()?;
    if !(VERSION..=newest).contains(&version) {
        return Err(DecodeError { what: "version of a note (written by a newer headroom?)", at: 0 });
    }
    Ok((version, input))
}

/// Hash and text of the policy in force.
pub(crate) fn encode_policy(hash: &str, text: &str) -> Vec<u8> {
    let mut out = Encoder::default();
    out.put_u8(VERSION);
    out.put_str(hash);
    out.put_str(text);
    out.bytes
}

pub(crate) fn decode_policy(bytes: &[u8]) -> Result<(Arc<str>, Arc<str>), DecodeError> {
    let mut input = versioned(bytes)?;
    let (hash, text) = (input.get_str()?.into(), input.get_str()?.into());
    input.finish()?;
    Ok((hash, text))
}

pub(crate) fn encode_progress(progress: &Progress) -> Vec<u8> {
    let mut out = Encoder::default();
    out.put_u8(if progress.full.is_empty() { VERSION } else { WITH_FULL_CELLS });
    out.put_u64(progress.position.0);
    put_time(&mut out, progress.last_tick);
    put_time(&mut out, progress.first_sample);
    put_time(&mut out, progress.reached_by_two);
    out.put_bool(progress.policy.is_some());
    out.put_str(progress.policy.as_deref().unwrap_or(""));
    out.put_u32(progress.epochs.len() as u32);
    for (cell, epoch) in &progress.epochs {
        out.put_str(cell);
        out.put_i64(*epoch);
    }
    out.put_bool(progress.owned);
    out.put_bool(progress.caught_up);
    if !progress.full.is_empty() {
        out.put_strs(&progress.full);
    }
    out.bytes
}

pub(crate) fn decode_progress(bytes: &[u8]) -> Result<Progress, DecodeError> {
    let (version, mut input) = up_to(WITH_FULL_CELLS, bytes)?;
    let position = Position(input.get_u64()?);
    let last_tick = get_time(&mut input)?;
    let first_sample = get_time(&mut input)?;
    let reached_by_two = get_time(&mut input)?;
    let has_policy = input.get_bool()?;
    let policy: Arc<str> = input.get_str()?.into();
    let epochs = (0..input.get_length(12, "epochs")?)
        .map(|_| Ok((Arc::from(input.get_str()?), input.get_i64()?)))
        .collect::<Result<_, DecodeError>>()?;
    let progress = Progress {
        position,
        last_tick,
        first_sample,
        reached_by_two,
        policy: has_policy.then_some(policy),
        epochs,
        owned: input.get_bool()?,
        caught_up: input.get_bool()?,
        full: if version == WITH_FULL_CELLS { input.get_strs()? } else { Vec::new() },
    };
    input.finish()?;
    Ok(progress)
}

pub(crate) fn encode_inputs(report: &InputsReport) -> Vec<u8> {
    let mut out = Encoder::default();
    out.put_u8(VERSION);
    out.put_u64(report.left_off as u64);
    out.put_u32(report.metrics.len() as u32);
    for seen in &report.metrics {
        out.put_str(&seen.metric);
        out.put_str(&seen.unit);
        out.put_u8(seen.kind as u8);
        out.put_pairs(&seen.inputs);
        out.put_strs(&seen.senders);
        out.put_u64(seen.points);
        out.put_u32(seen.series);
        out.put_u32(seen.resources_min);
        out.put_pairs(&seen.example);
    }
    out.bytes
}

pub(crate) fn decode_inputs(bytes: &[u8]) -> Result<InputsReport, DecodeError> {
    let mut input = versioned(bytes)?;
    let left_off = usize::try_from(input.get_u64()?).unwrap_or(usize::MAX);
    let metrics = (0..input.get_length(29, "metrics")?)
        .map(|_| {
            Ok(SeenMetric {
                metric: input.get_str()?.into(),
                unit: input.get_str()?.into(),
                kind: SeriesKind::from_u8(input.get_u8()?).ok_or_else(|| input.error("kind of series"))?,
                inputs: input.get_pairs()?,
                senders: input.get_strs()?,
                points: input.get_u64()?,
                series: input.get_u32()?,
                resources_min: input.get_u32()?,
                example: input.get_pairs()?.into(),
            })
        })
        .collect::<Result<_, DecodeError>>()?;
    input.finish()?;
    Ok(InputsReport { metrics, left_off })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_back_as_they_were() {
        for progress in [
            Progress::default(),
            Progress {
                position: Position(7),
                last_tick: Some(Timestamp(10)),
                first_sample: Some(Timestamp(-1)),
                reached_by_two: Some(Timestamp(9)),
                policy: Some("b1946ac9".into()),
                epochs: [("eu-1".into(), 10), ("".into(), -10)].into(),
                full: Vec::new(),
                owned: true,
                caught_up: true,
            },
            Progress { full: vec!["eu-1".into()], ..Progress::default() },
        ] {
            let bytes = encode_progress(&progress);
            assert_eq!(decode_progress(&bytes), Ok(progress));
            assert!(decode_progress(&bytes[1..]).is_err());
        }
        let report = InputsReport {
            metrics: vec![SeenMetric {
                metric: "system.cpu.time".into(),
                unit: "s".into(),
                kind: SeriesKind::Gauge,
                inputs: vec![("cpu_busy".into(), "otel".into())],
                senders: vec!["collector".into()],
                points: 5,
                series: 2,
                resources_min: 1,
                example: [("cpu".into(), "0".into())].into(),
            }],
            left_off: 3,
        };
        assert_eq!(decode_inputs(&encode_inputs(&report)), Ok(report));
    }
}
