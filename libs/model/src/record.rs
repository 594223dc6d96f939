//! What a partition of the sample log holds: everything that changes an answer, in the order in which it took effect.

use std::collections::HashMap;
use std::sync::Arc;

use crate::batch::{HistogramPoint, Points, SampleBatch};
use crate::codec::{DecodeError, Decoder, Encoder, get_buffer_f64, get_buffer_i64, get_buffer_u32};
use crate::points;
use crate::policy::Mode;
use crate::resource::Resource;
use crate::series::{Series, SeriesKind};
use crate::time::Timestamp;

/// The version written in front of every record.
pub const RECORD_VERSION: u8 = 1;

/// One record of the sample log.
#[derive(Clone, Debug, PartialEq)]
pub enum LogRecord {
    /// Samples of one or more cells of the partition.
    Samples(Arc<SampleBatch>),
    /// The same, but brought by a source that is behind: what is newer of their senders may be here already, because the
    /// backlog of a topic is read in several places at several speeds. None of it is late.
    Overdue(Arc<SampleBatch>),
    /// The owner of the partition says that this much time has passed: every cell of the partition closes its panes and
    /// publishes. A tick that is not later than the one before is ignored.
    Tick(Timestamp),
    /// A policy comes into force with the next tick: its YAML text, as `POST /v1/policy:check` accepted it.
    Policy(Arc<str>),
    /// An operator set the mode of a cell (`None` = all cells), over what the policy says; `mode: None` returns to the
    /// policy.
    Mode {
        /// The cell, or all.
        cell: Option<Arc<str>>,
        /// The mode in force from the next tick on.
        mode: Option<Mode>,
        /// Who asked.
        owner: Arc<str>,
        /// Why.
        reason: Arc<str>,
    },
    /// An operator removed a server.
    Remove {
        /// The cell.
        cell: Arc<str>,
        /// The server's name.
        server: Arc<str>,
        /// Who asked.
        owner: Arc<str>,
        /// Why.
        reason: Arc<str>,
    },
    /// A consumer says which epoch it acts on and how much of a class it uses.
    Ack {
        /// The cell.
        cell: Arc<str>,
        /// The server's name.
        server: Arc<str>,
        /// The workload class.
        class: Arc<str>,
        /// The consumer's name.
        consumer: Arc<str>,
        /// The epoch it acts on.
        epoch: i64,
        /// Share of the nominal in use.
        in_use: f64,
    },
    /// The owner takes up records that it passed over after an outage, so as not to let the present wait for them: the
    /// samples at the positions in `[from, to)` of this partition take effect here.
    Backlog {
        /// The first position.
        from: u64,
        /// The position after the last.
        to: u64,
    },
}

impl LogRecord {
    /// Bytes that the record takes in memory, about; its encoded form is a third of that.
    pub fn memory_bytes(&self) -> u64 {
        let Some(batch) = self.samples() else { return 128 };
        let points = batch.points.value.len() * 32;
        let histograms: usize = batch.histograms.iter().map(|point| 96 + 8 * point.buckets.len()).sum();
        // What the dictionaries point to is shared by the batches of a sender.
        (points + histograms + 16 * (batch.resources.len() + batch.series.len()) + 256) as u64
    }

    /// The samples that it brings, in time or not.
    pub fn samples(&self) -> Option<&Arc<SampleBatch>> {
        match self {
            Self::Samples(batch) | Self::Overdue(batch) => Some(batch),
            _ => None,
        }
    }

    /// The record as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        self.encode_into(&mut out);
        out.bytes
    }

    /// Appends the record's bytes to what `out` holds already, so that a log can put its own header in front without
    /// copying the record.
    pub fn encode_into(&self, out: &mut Encoder) {
        out.put_u8(RECORD_VERSION);
        match self {
            Self::Samples(batch) => {
                out.put_u8(7);
                encode_batch(batch, out);
            }
            Self::Overdue(batch) => {
                out.put_u8(8);
                encode_batch(batch, out);
            }
            Self::Tick(time) => {
                out.put_u8(1);
                out.put_i64(time.0);
            }
            Self::Policy(text) => {
                out.put_u8(2);
                out.put_str(text);
            }
            Self::Mode { cell, mode, owner, reason } => {
                out.put_u8(3);
                out.put_bool(cell.is_some());
                out.put_str(cell.as_deref().unwrap_or(""));
                out.put_bool(mode.is_some());
                mode.unwrap_or(Mode::Off).encode(out);
                out.put_str(owner);
                out.put_str(reason);
            }
            Self::Remove { cell, server, owner, reason } => {
                out.put_u8(4);
                for text in [cell, server, owner, reason] {
                    out.put_str(text);
                }
            }
            Self::Ack { cell, server, class, consumer, epoch, in_use } => {
                out.put_u8(5);
                for text in [cell, server, class, consumer] {
                    out.put_str(text);
                }
                out.put_i64(*epoch);
                out.put_f64(*in_use);
            }
            Self::Backlog { from, to } => {
                out.put_u8(6);
                out.put_u64(*from);
                out.put_u64(*to);
            }
        }
    }

    /// The record that bytes hold.
    ///
    /// # Errors
    /// If the bytes are damaged or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode_with(&mut Dictionary::default(), bytes)
    }

    /// The same with what was met in records before: whoever reads a log meets the same senders in every record.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_with(dictionary: &mut Dictionary, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(bytes);
        if input.get_u8()? != RECORD_VERSION {
            return Err(DecodeError { what: "record version (written by a newer headroom?)", at: 0 });
        }
        let arc = |input: &mut Decoder<'_>| input.get_str().map(Arc::<str>::from);
        let record = match input.get_u8()? {
            // As the first release wrote them, column after column in full.
            0 => Self::Samples(Arc::new(decode_batch(false, dictionary, &mut input)?)),
            1 => Self::Tick(Timestamp(input.get_i64()?)),
            2 => Self::Policy(arc(&mut input)?),
            3 => {
                let has_cell = input.get_bool()?;
                let cell = arc(&mut input)?;
                let has_mode = input.get_bool()?;
                let mode = Mode::decode(&mut input)?;
                Self::Mode {
                    cell: has_cell.then_some(cell),
                    mode: has_mode.then_some(mode),
                    owner: arc(&mut input)?,
                    reason: arc(&mut input)?,
                }
            }
            4 => Self::Remove {
                cell: arc(&mut input)?,
                server: arc(&mut input)?,
                owner: arc(&mut input)?,
                reason: arc(&mut input)?,
            },
            5 => Self::Ack {
                cell: arc(&mut input)?,
                server: arc(&mut input)?,
                class: arc(&mut input)?,
                consumer: arc(&mut input)?,
                epoch: input.get_i64()?,
                in_use: input.get_f64()?,
            },
            6 => Self::Backlog { from: input.get_u64()?, to: input.get_u64()? },
            7 => Self::Samples(Arc::new(decode_batch(true, dictionary, &mut input)?)),
            8 => Self::Overdue(Arc::new(decode_batch(true, dictionary, &mut input)?)),
            _ => return Err(input.error("kind of record")),
        };
        input.finish()?;
        Ok(record)
    }
}

fn encode_batch(batch: &SampleBatch, out: &mut Encoder) {
    // Rows and dictionary entries have a usual size: a buffer that has to grow copies all rows written so far.
    let dictionaries = batch.resources.len() * 512 + batch.series.len() * 192;
    out.bytes.reserve(batch.points.value.len() * 12 + batch.histograms.len() * 320 + dictionaries + 64);
    out.put_u32(batch.resources.len() as u32);
    for resource in &batch.resources {
        out.put_str(&resource.server);
        out.put_strs(&resource.host_names);
        out.put_strs(&resource.aliases);
        out.put_str(&resource.cell);
        out.put_str(&resource.pool);
        out.put_str(&resource.sender);
        out.put_pairs(&resource.attributes);
    }
    out.put_u32(batch.series.len() as u32);
    for series in &batch.series {
        out.put_str(&series.metric);
        out.put_str(&series.unit);
        out.put_u8(series.kind as u8);
        out.put_pairs(&series.attributes);
        out.put_f64s(&series.bounds);
    }
    points::encode(&batch.points, batch.series.len(), out);
    out.put_u32(batch.histograms.len() as u32);
    for point in &batch.histograms {
        out.put_u32(point.resource);
        out.put_u32(point.series);
        out.put_i64(point.start_ns);
        out.put_i64(point.time_ns);
        out.put_u64(point.count);
        out.put_f64(point.sum);
        out.put_i32(point.scale);
        out.put_u64(point.zero_count);
        out.put_i32(point.offset);
        out.put_u64s(&point.buckets);
    }
}

/// Bytes of the records' own form that a [`Dictionary`] remembers at most.
const DICTIONARY_BYTES_MAX: usize = 64 << 20;

/// Resources and series as they were met, by their bytes: decoded once, and the same `Arc` ever after, by which an engine
/// knows them again without looking at them. It forgets everything when it is full.
#[derive(Debug, Default)]
pub struct Dictionary {
    resources: HashMap<Box<[u8]>, Arc<Resource>>,
    series: HashMap<Box<[u8]>, Arc<Series>>,
    bytes: usize,
}

impl Dictionary {
    fn resource(&mut self, input: &mut Decoder<'_>) -> Result<Arc<Resource>, DecodeError> {
        let bytes = input.span(|input| {
            input.skip_str()?;
            input.skip_strs(1)?;
            input.skip_strs(1)?;
            (0..3).try_for_each(|_| input.skip_str())?;
            input.skip_strs(2)
        })?;
        if let Some(known) = self.resources.get(bytes) {
            return Ok(known.clone());
        }
        let mut input = Decoder::new(bytes);
        let arc = |input: &mut Decoder<'_>| input.get_str().map(Arc::<str>::from);
        let resource = Arc::new(Resource {
            server: arc(&mut input)?,
            host_names: input.get_strs()?,
            aliases: input.get_strs()?,
            cell: arc(&mut input)?,
            pool: arc(&mut input)?,
            sender: arc(&mut input)?,
            attributes: input.get_pairs()?,
        });
        self.make_room(bytes.len());
        self.resources.insert(bytes.into(), resource.clone());
        Ok(resource)
    }

    fn series(&mut self, input: &mut Decoder<'_>) -> Result<Arc<Series>, DecodeError> {
        let bytes = input.span(|input| {
            (0..2).try_for_each(|_| input.skip_str())?;
            input.get_u8()?;
            input.skip_strs(2)?;
            let bounds = input.get_length(size_of::<f64>(), "bounds")?;
            input.take(bounds * size_of::<f64>(), "bounds").map(drop)
        })?;
        if let Some(known) = self.series.get(bytes) {
            return Ok(known.clone());
        }
        let mut input = Decoder::new(bytes);
        let series = Arc::new(Series {
            metric: input.get_str()?.into(),
            unit: input.get_str()?.into(),
            kind: SeriesKind::from_u8(input.get_u8()?).ok_or_else(|| input.error("kind of series"))?,
            attributes: input.get_pairs()?.into(),
            bounds: input.get_f64s()?.into(),
        });
        self.make_room(bytes.len());
        self.series.insert(bytes.into(), series.clone());
        Ok(series)
    }

    fn make_room(&mut self, bytes: usize) {
        if self.bytes + bytes > DICTIONARY_BYTES_MAX {
            *self = Self::default();
        }
        self.bytes += bytes;
    }
}

fn decode_batch(
    is_packed: bool,
    dictionary: &mut Dictionary,
    input: &mut Decoder<'_>,
) -> Result<SampleBatch, DecodeError> {
    let resources = (0..input.get_length(28, "resources")?)
        .map(|_| dictionary.resource(input))
        .collect::<Result<Vec<_>, DecodeError>>()?;
    let series = (0..input.get_length(17, "series")?)
        .map(|_| dictionary.series(input))
        .collect::<Result<Vec<_>, DecodeError>>()?;
    let points = match is_packed {
        true => points::decode(series.len(), input)?,
        false => Points {
            resource: get_buffer_u32(input)?,
            series: get_buffer_u32(input)?,
            start_ns: get_buffer_i64(input)?,
            time_ns: get_buffer_i64(input)?,
            value: get_buffer_f64(input)?,
        },
    };
    let histograms = (0..input.get_length(60, "histograms")?)
        .map(|_| {
            Ok(HistogramPoint {
                resource: input.get_u32()?,
                series: input.get_u32()?,
                start_ns: input.get_i64()?,
                time_ns: input.get_i64()?,
                count: input.get_u64()?,
                sum: input.get_f64()?,
                scale: input.get_i32()?,
                zero_count: input.get_u64()?,
                offset: input.get_i32()?,
                buckets: input.get_u64s()?.into(),
            })
        })
        .collect::<Result<Vec<_>, DecodeError>>()?;
    let rows = points.value.len();
    let columns_match = [points.resource.len(), points.series.len(), points.start_ns.len(), points.time_ns.len()]
        .iter()
        .all(|length| *length == rows);
    let in_range =
        points.resource.iter().chain(histograms.iter().map(|p| &p.resource)).all(|at| (*at as usize) < resources.len())
            && points.series.iter().chain(histograms.iter().map(|p| &p.series)).all(|at| (*at as usize) < series.len());
    if !columns_match || !in_range {
        return Err(input.error("sample batch"));
    }
    Ok(SampleBatch { resources, series, points, histograms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::SampleBatchBuilder;

    macro_rules! fixture {
        ($name:literal, $record:expr) => {
            ($name, include_bytes!(concat!("../tests/fixtures/record-v1-", $name, ".bin")).as_slice(), $record)
        };
    }

    fn batch() -> SampleBatch {
        let mut builder = SampleBatchBuilder::default();
        for server in 0..3 {
            let resource = builder.add_resource(Arc::new(Resource {
                server: format!("web-{server}").into(),
                host_names: vec!["a".into()],
                aliases: Vec::new(),
                cell: "eu-1".into(),
                pool: "web".into(),
                sender: "".into(),
                attributes: vec![("k".into(), "v".into())],
            }));
            for metric in ["m", "n"] {
                let series = builder.add_series(Arc::new(Series {
                    metric: metric.into(),
                    unit: "s".into(),
                    kind: SeriesKind::Counter,
                    attributes: [].into(),
                    bounds: [].into(),
                }));
                builder.push(resource, series, 5, 1_000 + server, 0.5);
            }
        }
        let mut batch = builder.finish();
        batch.histograms.push(HistogramPoint {
            resource: 1,
            series: 1,
            start_ns: 5,
            time_ns: 1_001,
            count: 6,
            sum: 2.5,
            scale: -3,
            zero_count: 1,
            offset: -2,
            buckets: [2, 0, 3].into(),
        });
        batch
    }

    /// As the first release wrote samples: the dictionaries, then column after column in full, then the histograms.
    fn first_form(batch: &SampleBatch) -> Vec<u8> {
        let packed = LogRecord::Samples(Arc::new(batch.clone())).encode();
        let (mut points, mut out) = (Encoder::default(), Encoder::default());
        points::encode(&batch.points, batch.series.len(), &mut points);
        let histograms = 4 + batch.histograms.iter().map(|point| 60 + 8 * point.buckets.len()).sum::<usize>();
        let dictionaries = packed.len() - points.bytes.len() - histograms;
        out.bytes.extend_from_slice(&packed[..dictionaries]);
        out.bytes[1] = 0;
        out.put_u32s(&batch.points.resource);
        out.put_u32s(&batch.points.series);
        out.put_i64s(&batch.points.start_ns);
        out.put_i64s(&batch.points.time_ns);
        out.put_f64s(&batch.points.value);
        out.bytes.extend_from_slice(&packed[packed.len() - histograms..]);
        out.bytes
    }

    /// A record of every kind as it was first written. What is written otherwise one day gets a file more; these never
    /// change.
    #[test]
    fn what_was_once_written_is_read_for_ever() {
        let mode = |cell: Option<&str>, mode| LogRecord::Mode {
            cell: cell.map(Into::into),
            mode,
            owner: "operator".into(),
            reason: "why".into(),
        };
        let samples = || LogRecord::Samples(Arc::new(batch()));
        for (name, recorded, record) in [
            fixture!("samples-first-form", samples()),
            fixture!("samples-packed", samples()),
            fixture!("samples-overdue", LogRecord::Overdue(Arc::new(batch()))),
            fixture!("tick", LogRecord::Tick(Timestamp::from_seconds(1_795_255_210))),
            fixture!("policy", LogRecord::Policy("version: 1\n".into())),
            fixture!("mode-of-a-cell", mode(Some("eu-1"), Some(Mode::Off))),
            fixture!("mode-of-all-cells", mode(None, Some(Mode::Observe))),
            fixture!("mode-of-the-policy", mode(None, None)),
            fixture!("mode-enforce", mode(Some("eu-1"), Some(Mode::Enforce { percent: 25.0 }))),
            fixture!(
                "remove",
                LogRecord::Remove {
                    cell: "eu-1".into(),
                    server: "web-1".into(),
                    owner: "operator".into(),
                    reason: "why".into(),
                }
            ),
            fixture!(
                "ack",
                LogRecord::Ack {
                    cell: "eu-1".into(),
                    server: "web-1".into(),
                    class: "discretionary".into(),
                    consumer: "worker".into(),
                    epoch: 1_795_255_210,
                    in_use: 0.25,
                }
            ),
            fixture!("backlog", LogRecord::Backlog { from: 7, to: 9 }),
        ] {
            assert_eq!(LogRecord::decode(recorded), Ok(record), "{name}");
        }
    }

    #[test]
    fn samples_are_read_in_both_forms() {
        let batch = batch();
        let record = LogRecord::Samples(Arc::new(batch.clone()));
        let (packed, first) = (record.encode(), first_form(&batch));
        assert!(packed.len() < first.len());
        let mut dictionary = Dictionary::default();
        for bytes in [packed, first] {
            assert_eq!(LogRecord::decode(&bytes).as_ref(), Ok(&record));
            let mut read = || match LogRecord::decode_with(&mut dictionary, &bytes) {
                Ok(LogRecord::Samples(batch)) => batch,
                other => panic!("{other:?}"),
            };
            let (first, second) = (read(), read());
            assert_eq!((&*first, &*second), (&batch, &batch));
            assert!(Arc::ptr_eq(&first.resources[2], &second.resources[2]), "known again");
            assert!(Arc::ptr_eq(&first.series[1], &second.series[1]));
            for cut in 0..bytes.len() {
                assert!(LogRecord::decode(&bytes[..cut]).is_err(), "{cut}");
            }
        }
    }
}
