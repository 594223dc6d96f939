//! Batches to rows.

use std::sync::Arc;

use arrow_ipc::Type;
use headroom_model::time::EARLIEST_NS;
use headroom_model::{Resource, SampleBatchBuilder, Series, SeriesKind};
use rustc_hash::FxHashMap;

use super::column::{BAD_TIME, Coded, NO_TIME, Texts, code_dictionary, code_plain, numbers, times};
use super::groups::Groups;
use super::stream::{Batch, Layout, Messages, Part, layouts};
use super::wrong;
use crate::counters::RecordDefaults;
use crate::decoder::{DecodeError, Decoded};
use crate::identity::IdentityConfig;
use crate::intern::{Interner, MetricKey, NONE, Role};
use crate::limits::IngestLimits;
use crate::report::{IngestReport, RejectReason};

/// Columns whose names begin so are attributes of the server.
const RESOURCE_PREFIX: &str = "resource.";

/// Columns whose names begin so are attributes of the sample.
const ATTRIBUTE_PREFIX: &str = "attribute.";

/// Columns without which a stream has no samples.
const REQUIRED: [&str; 4] = ["server", "metric", "time", "value"];

/// Turns Arrow IPC streams into sample batches. One per worker: it remembers what it has seen, and is faster for it, but
/// what it answers does not depend on it.
#[derive(Debug)]
pub struct ArrowDecoder {
    identity: IdentityConfig,
    limits: IngestLimits,
    interner: Interner,
    key: Vec<u8>,
}

/// The columns that are read.
struct Columns<'a> {
    /// What makes a resource: the attribute's key and the column.
    resource: Vec<(String, Layout<'a>)>,
    metric: Layout<'a>,
    unit: Option<Layout<'a>>,
    kind: Option<Layout<'a>>,
    /// What else makes a series.
    attributes: Vec<(String, Layout<'a>)>,
    time: Layout<'a>,
    start: Option<Layout<'a>>,
    value: Layout<'a>,
}

impl<'a> Columns<'a> {
    fn new(layouts: Vec<Layout<'a>>, report: &mut IngestReport) -> Result<Self, DecodeError> {
        let (mut resource, mut attributes) = (Vec::new(), Vec::new());
        let mut named: FxHashMap<&'static str, Layout<'a>> = FxHashMap::default();
        for layout in &layouts {
            let name = layout.name();
            let own = ["metric", "unit", "kind", "time", "start", "value"].into_iter().find(|own| *own == name);
            let attribute = match name {
                "server" => Some("host.name"),
                "cell" => Some("headroom.cell"),
                "pool" => Some("headroom.pool"),
                _ => name.strip_prefix(RESOURCE_PREFIX),
            };
            let is_twice = match (own, attribute, name.strip_prefix(ATTRIBUTE_PREFIX)) {
                (Some(own), _, _) => named.insert(own, *layout).is_some(),
                (_, Some(key), _) => push(&mut resource, key, *layout),
                (_, _, Some(key)) => push(&mut attributes, key, *layout),
                _ => {
                    report.ignore_field(name);
                    false
                }
            };
            if is_twice {
                return Err(wrong(format!("two columns mean the same, the second is `{name}`")));
            }
        }
        let has = |name: &str| layouts.iter().any(|layout| layout.name() == name);
        // A server may also be named by attributes, as everywhere else.
        let missing: Vec<&str> =
            REQUIRED.into_iter().filter(|name| !(has(name) || *name == "server" && !resource.is_empty())).collect();
        let mut take = |name| named.remove(name);
        match (take("metric"), take("time"), take("value")) {
            (Some(metric), Some(time), Some(value)) if missing.is_empty() => Ok(Self {
                metric,
                time,
                value,
                unit: take("unit"),
                kind: take("kind"),
                start: take("start"),
                resource,
                attributes,
            }),
            _ => Err(wrong(format!(
                "missing columns: {}; the stream has {}",
                missing.join(", "),
                layouts.iter().take(16).map(|layout| layout.name()).collect::<Vec<_>>().join(", ")
            ))),
        }
    }
}

/// Whether the key was there already.
fn push<'a>(list: &mut Vec<(String, Layout<'a>)>, key: &str, layout: Layout<'a>) -> bool {
    let is_twice = list.iter().any(|(known, _)| known == key);
    list.push((key.to_owned(), layout));
    is_twice
}

/// The dictionaries of the stream so far, by their numbers.
type Dictionaries<'a> = FxHashMap<i64, Texts<'a>>;

impl ArrowDecoder {
    /// A decoder that has seen nothing yet.
    pub fn new(identity: IdentityConfig, limits: IngestLimits) -> Self {
        Self { identity, limits, interner: Interner::new(), key: Vec::new() }
    }

    /// Decodes a stream.
    ///
    /// # Errors
    /// If the bytes are not such a stream, or a column is missing or of another type. Nothing of it is then taken.
    pub fn decode(&mut self, body: &[u8], defaults: RecordDefaults) -> Result<Decoded, DecodeError> {
        let mut report = IngestReport::default();
        let mut messages = Messages::new(body);
        let Some((schema, _)) = messages.next()? else {
            return Err(wrong("the message is empty; an IPC stream begins with its schema"));
        };
        let layouts = layouts(&schema)?;
        let of_dictionary = value_types(&layouts);
        let columns = Columns::new(layouts, &mut report)?;
        self.interner.begin(&self.limits);
        let mut builder = SampleBatchBuilder::default();
        let mut dictionaries = Dictionaries::default();
        while let Some((message, body)) = messages.next()? {
            match messages.part(&message, body)? {
                Part::Dictionary { id, mut batch } => {
                    // A dictionary of a column that nobody reads is none of ours.
                    if let Some(layout) = of_dictionary.get(&id) {
                        let rows = batch.rows()?;
                        if rows > self.limits.points_per_request_max {
                            return Err(wrong(format!(
                                "the dictionary of column `{}` has {rows} entries, and a message may have {} samples; send \
                                 entries that samples use",
                                layout.name(),
                                self.limits.points_per_request_max
                            )));
                        }
                        let column = batch.column(&layout.as_values())?;
                        messages.used(&batch);
                        let texts = Texts::new(layout.name(), layout.field.type_type(), rows, column)?;
                        texts.check(layout.name())?;
                        dictionaries.insert(id, texts);
                    }
                }
                Part::Batch(mut batch) => {
                    self.batch(&mut batch, &columns, &dictionaries, defaults, &mut builder, &mut report)?;
                    messages.used(&batch);
                }
            }
        }
        report.explain_records(&self.limits);
        Ok(Decoded { batch: builder.finish(), report })
    }

    fn batch<'a>(
        &mut self,
        batch: &mut Batch<'a>,
        columns: &Columns<'a>,
        dictionaries: &Dictionaries<'a>,
        defaults: RecordDefaults,
        builder: &mut SampleBatchBuilder,
        report: &mut IngestReport,
    ) -> Result<(), DecodeError> {
        let mut rows = batch.rows()?;
        let room = self.limits.points_per_request_max.saturating_sub(builder.len());
        if rows > room {
            report.reject(RejectReason::TooManyPoints, (rows - room) as u64);
            rows = room;
        }
        let values = numbers("value", &columns.value.field, rows, batch.column(&columns.value)?)?;
        let times_ns = times("time", &columns.time.field, rows, batch.column(&columns.time)?)?;
        let starts_ns = match &columns.start {
            Some(start) => times("start", &start.field, rows, batch.column(start)?)?,
            None => Vec::new(),
        };
        // Plain text columns have to live as long as the codes that refer to them.
        let text_columns: Vec<(&str, &Layout<'a>)> = columns
            .resource
            .iter()
            .map(|(key, layout)| (key.as_str(), layout))
            .chain([("", &columns.metric)])
            .chain(columns.unit.as_ref().map(|layout| ("", layout)))
            .chain(columns.kind.as_ref().map(|layout| ("", layout)))
            .chain(columns.attributes.iter().map(|(key, layout)| (key.as_str(), layout)))
            .collect();
        let mut plain = Vec::with_capacity(text_columns.len());
        for (_, layout) in &text_columns {
            let is_plain = layout.field.dictionary().is_none();
            plain.push(if is_plain {
                Some(Texts::new(layout.name(), layout.field.type_type(), rows, batch.column(layout)?)?)
            } else {
                None
            });
        }
        let mut coded = Vec::with_capacity(text_columns.len());
        for ((_, layout), plain) in text_columns.iter().zip(&plain) {
            let name = layout.name();
            coded.push(match (plain, layout.field.dictionary()) {
                (Some(texts), _) => code_plain(name, texts)?,
                (None, Some(encoding)) => {
                    let dictionary = dictionaries.get(&encoding.id());
                    let dictionary =
                        dictionary.ok_or_else(|| wrong(format!("column `{name}` lacks its dictionary")))?;
                    code_dictionary(name, encoding.indexType(), rows, batch.column(layout)?, dictionary)?
                }
                (None, None) => return Err(wrong(format!("column `{name}` has neither texts nor a dictionary"))),
            });
        }
        let (of_resource, of_series) = coded.split_at(columns.resource.len());
        let resources = Groups::new(rows, &of_resource.iter().collect::<Vec<_>>());
        let series = Groups::new(rows, &of_series.iter().collect::<Vec<_>>());
        let resource_index = self.resources(columns, of_resource, &resources, builder, report);
        let series_index = self.series(columns, of_series, &series, builder)?;
        let is_clean = values.validity.is_total()
            && resource_index.iter().all(Result::is_ok)
            && series_index.iter().all(Result::is_ok)
            && times_ns.iter().all(|time| *time >= EARLIEST_NS)
            && starts_ns.iter().all(|start| *start >= 0);
        if is_clean {
            // Nothing to reject: columns are copied, not rows.
            let index = |indices: &[Result<u32, RejectReason>]| -> Vec<u32> {
                indices.iter().map(|index| index.unwrap_or_default()).collect()
            };
            let (of_resource, of_series) = (index(&resource_index), index(&series_index));
            builder.extend(
                resources.of_row.iter().map(|group| of_resource[*group as usize]),
                series.of_row.iter().map(|group| of_series[*group as usize]),
                starts_ns.iter().copied().chain(std::iter::repeat(0)),
                times_ns.iter().copied(),
                &values.values,
            );
            report.accepted_points += rows as u64;
            return Ok(());
        }
        for row in 0..rows {
            let resource = resource_index[resources.of_row[row] as usize];
            let series = series_index[series.of_row[row] as usize];
            let time = match times_ns[row] {
                NO_TIME => defaults.time_ns.ok_or(RejectReason::NoTime),
                BAD_TIME => Err(RejectReason::TimeOutOfRange),
                time if time < EARLIEST_NS => {
                    report.note_early(time);
                    Err(RejectReason::TimeOutOfRange)
                }
                time => Ok(time),
            };
            let start = match starts_ns.get(row).copied().unwrap_or(NO_TIME) {
                NO_TIME => Ok(0),
                BAD_TIME => Err(RejectReason::TimeOutOfRange),
                start => Ok(start),
            };
            let value = if values.validity.has(row) { Ok(values.values[row]) } else { Err(RejectReason::NoValue) };
            match (resource, series, time, start, value) {
                (Ok(resource), Ok(series), Ok(time), Ok(start), Ok(value)) => {
                    builder.push(resource, series, start, time, value);
                    report.accepted_points += 1;
                }
                (Err(reason), ..)
                | (_, Err(reason), ..)
                | (_, _, Err(reason), ..)
                | (.., Err(reason), _)
                | (.., Err(reason)) => report.reject(reason, 1),
            }
        }
        Ok(())
    }

    /// The index in the batch of every group of resources, or why it has none.
    fn resources(
        &mut self,
        columns: &Columns<'_>,
        coded: &[Coded<'_>],
        groups: &Groups,
        builder: &mut SampleBatchBuilder,
        report: &mut IngestReport,
    ) -> Vec<Result<u32, RejectReason>> {
        let of = |row: usize| {
            columns
                .resource
                .iter()
                .zip(coded)
                .filter_map(move |((key, _), column)| Some((key.as_str(), column.value(row)?)))
        };
        let mut indices = Vec::with_capacity(groups.first_row.len());
        for row in &groups.first_row {
            write_key(&mut self.key, of(*row));
            let entry = match self.interner.find_resource(&self.key) {
                Ok(known) => known,
                Err(_) if self.interner.resources_are_full(&self.limits) => {
                    indices.push(Err(RejectReason::TooManyResources));
                    continue;
                }
                Err(hash) => {
                    let outcome = self.read_resource(of(*row), report).map(Arc::new);
                    self.interner.add_resource(&self.key, hash, outcome)
                }
            };
            indices.push(self.interner.resource_index(entry, &self.limits, builder));
        }
        indices
    }

    fn read_resource<'t>(
        &mut self,
        given: impl Iterator<Item = (&'t str, &'t str)>,
        report: &mut IngestReport,
    ) -> Result<Resource, RejectReason> {
        let mut attributes = Vec::new();
        for (key, value) in given {
            if key.len() > self.limits.attribute_key_bytes_max {
                return Err(RejectReason::AttributeTooLong);
            }
            let cut = value.floor_char_boundary(self.limits.attribute_value_bytes_max);
            report.cut_attributes += u64::from(cut < value.len());
            attributes.push((self.interner.text(key), self.interner.text(&value[..cut])));
        }
        if attributes.len() > self.limits.attributes_max {
            return Err(RejectReason::TooManyAttributes);
        }
        attributes.sort();
        self.identity.resolve_within(attributes, &self.limits, report)
    }

    /// The index in the batch of every group of series, or why it has none.
    fn series(
        &mut self,
        columns: &Columns<'_>,
        coded: &[Coded<'_>],
        groups: &Groups,
        builder: &mut SampleBatchBuilder,
    ) -> Result<Vec<Result<u32, RejectReason>>, DecodeError> {
        let mut rest = coded.iter();
        let metric = rest.next();
        let unit = columns.unit.as_ref().and_then(|_| rest.next());
        let kind = columns.kind.as_ref().and_then(|_| rest.next());
        let attributes: Vec<(&str, &Coded<'_>)> =
            columns.attributes.iter().map(|(key, _)| key.as_str()).zip(rest).collect();
        let scope = self.interner.scope("", NONE, &self.limits);
        let mut indices = Vec::with_capacity(groups.first_row.len());
        for row in &groups.first_row {
            let text = |column: Option<&Coded<'_>>| column.and_then(|column| column.value(*row).map(str::to_owned));
            let kind = match text(kind).as_deref() {
                None | Some("gauge") => SeriesKind::Gauge,
                Some("counter") => SeriesKind::Counter,
                Some("delta") => SeriesKind::DeltaCounter,
                Some(other) => {
                    let shown: String = other.chars().take(32).collect();
                    return Err(wrong(format!("column `kind`, row {row}: `{shown}` is none of gauge, counter, delta")));
                }
            };
            let (name, unit) = (text(metric).unwrap_or_default(), text(unit).unwrap_or_default());
            let given = attributes.iter().filter_map(|(key, column)| Some((*key, column.value(*row)?)));
            let index = scope.and_then(|scope| {
                let (name, unit) = (name.as_bytes(), unit.as_bytes());
                let key = MetricKey { scope, kind, role: Role::Plain, name, unit };
                let entry = self.find_series(&key, given)?;
                self.interner.series_index(entry, &self.limits, builder)
            });
            indices.push(index);
        }
        Ok(indices)
    }

    fn find_series<'t>(
        &mut self,
        key: &MetricKey<'_>,
        given: impl Iterator<Item = (&'t str, &'t str)> + Clone,
    ) -> Result<u32, RejectReason> {
        let metric = match self.interner.find_metric(key) {
            Ok(metric) => metric,
            Err(hash) => {
                let name = std::str::from_utf8(key.name).unwrap_or_default();
                let unit = std::str::from_utf8(key.unit).unwrap_or_default();
                if name.is_empty() {
                    return Err(RejectReason::NoMetricName);
                }
                if name.len().max(unit.len()) > self.limits.metric_name_bytes_max {
                    return Err(RejectReason::MetricNameTooLong);
                }
                self.interner.add_metric(key, (name, unit), hash, &self.limits)?
            }
        };
        write_key(&mut self.key, given.clone());
        match self.interner.find_series(metric, &self.key, b"") {
            Ok(known) => Ok(known),
            Err(_) if self.interner.series_are_full(&self.limits) => Err(RejectReason::TooManySeries),
            Err(hash) => {
                let outcome = self.read_series(metric, given).map(Arc::new);
                Ok(self.interner.add_series(metric, &self.key, b"", hash, outcome))
            }
        }
    }

    fn read_series<'t>(
        &mut self,
        metric: u32,
        given: impl Iterator<Item = (&'t str, &'t str)>,
    ) -> Result<Series, RejectReason> {
        let mut attributes = Vec::new();
        for (key, value) in given {
            if key.len() > self.limits.attribute_key_bytes_max || value.len() > self.limits.attribute_value_bytes_max {
                return Err(RejectReason::AttributeTooLong);
            }
            attributes.push((self.interner.text(key), self.interner.text(value)));
        }
        if attributes.len() > self.limits.attributes_max {
            return Err(RejectReason::TooManyAttributes);
        }
        attributes.sort();
        let (name, unit, kind, _) = self.interner.metric(metric);
        let (metric, unit) = (Arc::clone(name), Arc::clone(unit));
        Ok(Series { metric, unit, kind, attributes: attributes.into(), bounds: Arc::default() })
    }
}

/// Bytes that tell such attributes from all others.
fn write_key<'t>(key: &mut Vec<u8>, parts: impl Iterator<Item = (&'t str, &'t str)>) {
    key.clear();
    for text in parts.flat_map(|(name, value)| [name, value]) {
        key.extend_from_slice(&(text.len() as u64).to_le_bytes());
        key.extend_from_slice(text.as_bytes());
    }
}

/// The columns whose dictionaries are read, by the dictionary's number.
fn value_types<'a>(layouts: &[Layout<'a>]) -> FxHashMap<i64, Layout<'a>> {
    let is_text =
        |layout: &&Layout<'a>| matches!(layout.field.type_type(), Type::Utf8 | Type::LargeUtf8 | Type::Utf8View);
    layouts.iter().filter(is_text).filter_map(|layout| Some((layout.field.dictionary()?.id(), *layout))).collect()
}
