//! Records to rows.
//!
//! Fields come in any order, so rows are staged until their record says whose they are and of when, and a message's rows
//! until it has been read to its end: a message is taken whole or not at all, because a half-taken one could neither be
//! set aside as bad nor be counted as good.

use std::borrow::Cow;
use std::sync::Arc;

use headroom_model::time::EARLIEST_NS;
use headroom_model::{Resource, SampleBatch, SampleBatchBuilder, Series, SeriesKind};

use super::scan::{Fault, Scan};
use super::time;
use crate::decoder::DecodeError;
use crate::identity::{ALIAS_ATTRIBUTE, IdentityConfig};
use crate::intern::{Interner, MetricKey, NONE, Role};
use crate::limits::IngestLimits;
use crate::otlp::attributes::write_double;
use crate::report::{IngestReport, RejectReason};

/// A time that the record has not said.
const UNSAID: i64 = i64::MIN;

/// What the transport knows where a record is silent.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordDefaults {
    /// When the record was made, ns since 1970: the time of samples that have none.
    pub time_ns: Option<i64>,
}

/// Turns messages of counter records into sample batches, any number of messages into one. One per worker: it remembers
/// what it has seen, and is faster for it, but what it answers does not depend on it.
#[derive(Debug)]
pub struct CountersDecoder {
    identity: IdentityConfig,
    limits: IngestLimits,
    interner: Interner,
    stage: Stage,
    batch: Option<SampleBatchBuilder>,
}

/// What a message has said so far.
#[derive(Debug, Default)]
struct Stage {
    rows: Vec<Row>,
    report: IngestReport,
    /// Bytes that tell a resource from others.
    key: Vec<u8>,
    /// The scope that all metrics are of, which has no name.
    scope: u32,
    previous: u32,
    guess: u32,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    resource: u32,
    series: u32,
    is_delta: bool,
    value: f64,
    start_ns: i64,
    time_ns: i64,
}

/// The fields of a record that its samples share.
#[derive(Default)]
struct Head<'a> {
    server: Option<Cow<'a, str>>,
    cell: Option<Cow<'a, str>>,
    pool: Option<Cow<'a, str>>,
    /// As they stand in the text; read where a resource is new.
    aliases: Option<(usize, &'a str)>,
    attributes: Option<(usize, &'a str)>,
    time_ns: Option<i64>,
    start_ns: Option<i64>,
    interval_ns: Option<i64>,
}

impl CountersDecoder {
    /// A decoder that has seen nothing yet.
    pub fn new(identity: IdentityConfig, limits: IngestLimits) -> Self {
        Self { identity, limits, interner: Interner::new(), stage: Stage::default(), batch: None }
    }

    /// Takes a message into the batch under way. What became of its samples is in the report.
    ///
    /// # Errors
    /// If the message is not made of counter records. Nothing of it is then in the batch.
    pub fn take(&mut self, body: &[u8], defaults: RecordDefaults) -> Result<IngestReport, DecodeError> {
        // An empty batch is begun anew: its messages were all useless, and what they took of the bounds would be gone for
        // ever, because nobody finishes a batch with nothing in it.
        if self.is_empty() {
            self.interner.begin(&self.limits);
            self.stage.previous = NONE;
            self.stage.guess = NONE;
            self.batch = Some(SampleBatchBuilder::default());
            match self.interner.scope("", NONE, &self.limits) {
                Ok(scope) => self.stage.scope = scope,
                Err(_) => self.stage.scope = NONE,
            }
        }
        self.stage.rows.clear();
        self.stage.report = IngestReport::default();
        let text = std::str::from_utf8(body).map_err(|error| {
            let fault = Fault { at: error.valid_up_to(), message: "a byte that is not UTF-8".to_owned() };
            DecodeError::counters(&fault.message, body, fault.at)
        })?;
        let mut message = Message {
            identity: &self.identity,
            limits: &self.limits,
            interner: &mut self.interner,
            stage: &mut self.stage,
            scan: Scan::new(text),
            defaults,
        };
        message.records().map_err(|fault| DecodeError::counters(&fault.message, body, fault.at))?;
        self.commit();
        let mut report = std::mem::take(&mut self.stage.report);
        report.explain_records(&self.limits);
        Ok(report)
    }

    /// Samples in the batch under way.
    pub fn len(&self) -> usize {
        self.batch.as_ref().map_or(0, SampleBatchBuilder::len)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The batch of all messages since the last one.
    pub fn finish(&mut self) -> SampleBatch {
        self.batch.take().map(SampleBatchBuilder::finish).unwrap_or_default()
    }

    /// Staged rows become rows of the batch.
    fn commit(&mut self) {
        let Some(builder) = &mut self.batch else { return };
        let report = &mut self.stage.report;
        for row in &self.stage.rows {
            let place = self
                .interner
                .series_index(row.series, &self.limits, builder)
                .and_then(|series| Ok((self.interner.resource_index(row.resource, &self.limits, builder)?, series)));
            match place {
                Ok((resource, series)) => {
                    builder.push(resource, series, row.start_ns, row.time_ns, row.value);
                    report.accepted_points += 1;
                }
                Err(reason) => report.reject(reason, 1),
            }
        }
    }
}

/// One pass over one message.
struct Message<'d, 'a> {
    identity: &'d IdentityConfig,
    limits: &'d IngestLimits,
    interner: &'d mut Interner,
    stage: &'d mut Stage,
    scan: Scan<'a>,
    defaults: RecordDefaults,
}

impl<'a> Message<'_, 'a> {
    /// One record, an array of them, or one after the other.
    fn records(&mut self) -> Result<(), Fault> {
        if self.scan.peek().is_none() {
            return self.scan.fault("the message is empty; a counter record is a JSON object");
        }
        while let Some(next) = self.scan.peek() {
            if next != b'[' {
                self.record()?;
                continue;
            }
            self.scan.take(b'[', "`[`")?;
            let mut is_first = true;
            while self.scan.more(&mut is_first, b']')? {
                self.record()?;
            }
        }
        Ok(())
    }

    fn record(&mut self) -> Result<(), Fault> {
        let first = self.stage.rows.len();
        let begin = self.scan.at();
        let rejected = self.stage.report.rejected_points();
        let mut head = Head::default();
        self.scan.take(b'{', "a counter record, which is a JSON object")?;
        let mut has_samples = false;
        let mut is_first = true;
        while self.scan.more(&mut is_first, b'}')? {
            let at = self.scan.at();
            let key = self.scan.key()?;
            match &*key {
                "server" => self.text(&mut head.server, "server")?,
                "cell" => self.text(&mut head.cell, "cell")?,
                "pool" => self.text(&mut head.pool, "pool")?,
                "aliases" => head.aliases = Some(self.raw(b'[', "aliases", "an array of names")?),
                "attributes" => head.attributes = Some(self.raw(b'{', "attributes", "an object")?),
                "time" => head.time_ns = self.time("time")?,
                "start" => head.start_ns = self.time("start")?,
                "intervalSeconds" => head.interval_ns = self.interval()?,
                "counters" => self.map(SeriesKind::Counter, "counters", &mut has_samples)?,
                "gauges" => self.map(SeriesKind::Gauge, "gauges", &mut has_samples)?,
                "deltas" => self.map(SeriesKind::DeltaCounter, "deltas", &mut has_samples)?,
                "metrics" => self.metrics(&mut has_samples)?,
                "resourceMetrics" => {
                    let message = "this is OTLP/JSON, not a counter record; set the source's encoding to otlp_json";
                    return Err(Fault { at, message: message.to_owned() });
                }
                _ => self.ignore(&key)?,
            }
        }
        if !has_samples {
            let message = "the record has no samples: none of `counters`, `gauges`, `deltas`, `metrics`";
            return Err(Fault { at: begin, message: message.to_owned() });
        }
        if self.stage.rows.len() > first || self.stage.report.rejected_points() > rejected {
            self.settle(&head, first)?;
        }
        Ok(())
    }

    /// Gives the rows of a record their resource and times.
    fn settle(&mut self, head: &Head<'a>, first: usize) -> Result<(), Fault> {
        let resource = self.resource(head)?.and_then(|known| self.interner.first_series(known).map(|_| known));
        let time_ns = head.time_ns.or(self.defaults.time_ns).ok_or(RejectReason::NoTime);
        let time_ns =
            time_ns.and_then(|time| if time < EARLIEST_NS { Err(RejectReason::TimeOutOfRange) } else { Ok(time) });
        let (resource, time_ns) = match (resource, time_ns) {
            (Ok(resource), Ok(time_ns)) => (resource, time_ns),
            (Err(reason), _) | (_, Err(reason)) => {
                self.stage.report.reject(reason, (self.stage.rows.len() - first) as u64);
                self.stage.rows.truncate(first);
                return Ok(());
            }
        };
        let of_counter = head.start_ns.unwrap_or(0);
        let of_delta = match head.interval_ns {
            Some(interval) => time_ns.saturating_sub(interval).max(0),
            None => of_counter,
        };
        for row in &mut self.stage.rows[first..] {
            row.resource = resource;
            row.time_ns = time_ns;
            row.start_ns = if row.is_delta { of_delta } else { of_counter };
        }
        Ok(())
    }

    fn text(&mut self, field: &mut Option<Cow<'a, str>>, name: &str) -> Result<(), Fault> {
        if self.scan.take_null() {
            return Ok(());
        }
        *field = Some(self.scan.string("a string").map_err(|fault| fault.within(name))?);
        Ok(())
    }

    /// A value of a kind that begins with `open`, as it stands.
    fn raw(&mut self, open: u8, name: &str, what: &str) -> Result<(usize, &'a str), Fault> {
        if self.scan.peek() != Some(open) {
            return self.scan.fault(format!("{name}: expected {what}"));
        }
        let from = self.scan.at();
        self.scan.skip().map_err(|fault| fault.within(name))?;
        Ok((from, self.scan.since(from)))
    }

    fn time(&mut self, name: &str) -> Result<Option<i64>, Fault> {
        let time = match self.scan.peek() {
            Some(b'"') => time::from_text(&self.scan.string("a time").map_err(|fault| fault.within(name))?),
            _ if self.scan.take_null() => return Ok(None),
            _ => time::from_number(self.scan.number("a time").map_err(|fault| fault.within(name))?),
        };
        if time.is_none() {
            let message = "no time between 1970 and 2262; write Unix seconds or 2026-11-21T10:00:00Z";
            return self.scan.fault(format!("{name}: {message}"));
        }
        Ok(time)
    }

    fn interval(&mut self) -> Result<Option<i64>, Fault> {
        if self.scan.take_null() {
            return Ok(None);
        }
        let name = "intervalSeconds";
        let seconds = self.scan.number("seconds").map_err(|fault| fault.within(name))?.to_f64();
        if !(seconds > 0.0 && seconds <= 86_400.0) {
            return self.scan.fault(format!("{name}: must be above 0 and at most a day"));
        }
        Ok(Some((seconds * 1e9) as i64))
    }

    /// `{ name: value, … }`, all of one kind.
    fn map(&mut self, kind: SeriesKind, field: &'static str, has_samples: &mut bool) -> Result<(), Fault> {
        *has_samples = true;
        if self.scan.take_null() {
            return Ok(());
        }
        self.scan.take(b'{', "an object of numbers by name").map_err(|fault| fault.within(field))?;
        let mut is_first = true;
        while self.scan.more(&mut is_first, b'}').map_err(|fault| fault.within(field))? {
            let name = self.scan.key().map_err(|fault| fault.within(field))?;
            if self.scan.take_null() {
                self.stage.report.reject(RejectReason::NoValue, 1);
                continue;
            }
            let value = self.value().map_err(|fault| fault.within(&format!("{field}.{name}")))?;
            self.sample(kind, &name, "", "{}", value)?;
        }
        Ok(())
    }

    /// `[ { "name": …, "value": … }, … ]`
    fn metrics(&mut self, has_samples: &mut bool) -> Result<(), Fault> {
        *has_samples = true;
        if self.scan.take_null() {
            return Ok(());
        }
        self.scan.take(b'[', "an array of metrics").map_err(|fault| fault.within("metrics"))?;
        let mut is_first = true;
        let mut number = 0usize;
        while self.scan.more(&mut is_first, b']').map_err(|fault| fault.within("metrics"))? {
            self.metric().map_err(|fault| fault.within(&format!("metrics[{number}]")))?;
            number += 1;
        }
        Ok(())
    }

    fn metric(&mut self) -> Result<(), Fault> {
        let (mut name, mut unit) = (None, None);
        let mut kind = SeriesKind::Gauge;
        let mut attributes = (self.scan.at(), "{}");
        let mut value = None;
        self.scan.take(b'{', "a metric, which is an object")?;
        let mut is_first = true;
        while self.scan.more(&mut is_first, b'}')? {
            let key = self.scan.key()?;
            match &*key {
                "name" => self.text(&mut name, "name")?,
                "unit" => self.text(&mut unit, "unit")?,
                "kind" => kind = self.kind()?,
                "attributes" if self.scan.take_null() => {}
                "attributes" => attributes = self.raw(b'{', "attributes", "an object")?,
                "value" if self.scan.take_null() => {}
                "value" => value = Some(self.value().map_err(|fault| fault.within("value"))?),
                _ => self.ignore(&key)?,
            }
        }
        let (name, unit) = (name.unwrap_or_default(), unit.unwrap_or_default());
        let Some(value) = value else {
            self.stage.report.reject(RejectReason::NoValue, 1);
            return Ok(());
        };
        let (at, raw) = attributes;
        self.sample(kind, &name, &unit, raw, value).map_err(|fault| Fault { at: at + fault.at, ..fault })
    }

    fn kind(&mut self) -> Result<SeriesKind, Fault> {
        let kind = self.scan.string("a kind").map_err(|fault| fault.within("kind"))?;
        match &*kind {
            "gauge" => Ok(SeriesKind::Gauge),
            "counter" => Ok(SeriesKind::Counter),
            "delta" => Ok(SeriesKind::DeltaCounter),
            other => self.scan.fault(format!("kind: `{other}` is none of gauge, counter, delta")),
        }
    }

    #[inline]
    fn value(&mut self) -> Result<f64, Fault> {
        let value = self.scan.number("a number")?.to_f64();
        if value.is_finite() { Ok(value) } else { self.scan.fault("a number beyond what a double holds") }
    }

    fn ignore(&mut self, key: &str) -> Result<(), Fault> {
        self.scan.skip().map_err(|fault| fault.within(key))?;
        self.stage.report.ignore_field(key);
        Ok(())
    }

    /// Stages a sample. A fault's place counts from the beginning of `attributes`.
    #[inline]
    fn sample(&mut self, kind: SeriesKind, name: &str, unit: &str, attributes: &str, value: f64) -> Result<(), Fault> {
        if self.stage.rows.len() >= self.limits.points_per_request_max {
            self.stage.report.reject(RejectReason::TooManyPoints, 1);
            return Ok(());
        }
        match self.series(kind, name, unit, attributes)? {
            Ok(series) => {
                let is_delta = kind == SeriesKind::DeltaCounter;
                let row = Row { resource: NONE, series, is_delta, value, start_ns: UNSAID, time_ns: UNSAID };
                self.stage.rows.push(row);
            }
            Err(reason) => self.stage.report.reject(reason, 1),
        }
        Ok(())
    }

    /// The entry of a series: mostly the one that came here last time.
    #[inline]
    fn series(
        &mut self,
        kind: SeriesKind,
        name: &str,
        unit: &str,
        attributes: &str,
    ) -> Result<Result<u32, RejectReason>, Fault> {
        let (name, unit) = (name.as_bytes(), unit.as_bytes());
        let key = MetricKey { scope: self.stage.scope, kind, role: Role::Plain, name, unit };
        if let Some(metric) = self.interner.guess_metric(&key, self.stage.guess)
            && self.interner.is_series(self.stage.guess, metric, attributes.as_bytes(), b"")
        {
            return Ok(Ok(self.step_to(self.stage.guess)));
        }
        self.find_series(&key, attributes)
    }

    fn step_to(&mut self, series: u32) -> u32 {
        self.stage.previous = series;
        self.stage.guess = self.interner.series(series).map_or(NONE, |entry| entry.next);
        series
    }

    fn find_series(&mut self, key: &MetricKey<'_>, attributes: &str) -> Result<Result<u32, RejectReason>, Fault> {
        let metric = match self.interner.find_metric(key) {
            Ok(metric) => metric,
            Err(hash) => {
                // Both came out of a text.
                let name = std::str::from_utf8(key.name).unwrap_or_default();
                let unit = std::str::from_utf8(key.unit).unwrap_or_default();
                if name.is_empty() {
                    return Ok(Err(RejectReason::NoMetricName));
                }
                if name.len().max(unit.len()) > self.limits.metric_name_bytes_max {
                    return Ok(Err(RejectReason::MetricNameTooLong));
                }
                match self.interner.add_metric(key, (name, unit), hash, self.limits) {
                    Ok(metric) => metric,
                    Err(reason) => return Ok(Err(reason)),
                }
            }
        };
        let series = match self.interner.find_series(metric, attributes.as_bytes(), b"") {
            Ok(known) => known,
            Err(_) if self.interner.series_are_full(self.limits) => return Ok(Err(RejectReason::TooManySeries)),
            Err(hash) => {
                let outcome = match pairs(attributes, self.limits, None)? {
                    Ok(pairs) => {
                        let attributes = self.intern(pairs).into();
                        let (name, unit, kind, _) = self.interner.metric(metric);
                        let (metric, unit) = (Arc::clone(name), Arc::clone(unit));
                        Ok(Arc::new(Series { metric, unit, kind, attributes, bounds: Arc::default() }))
                    }
                    Err(reason) => Err(reason),
                };
                self.interner.add_series(metric, attributes.as_bytes(), b"", hash, outcome)
            }
        };
        self.interner.link(NONE, self.stage.previous, series);
        Ok(Ok(self.step_to(series)))
    }

    fn intern(&mut self, mut pairs: Vec<(Cow<'_, str>, String)>) -> Vec<(Arc<str>, Arc<str>)> {
        // Stable, so that of a name said twice the first counts.
        pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        pairs.dedup_by(|(later, _), (earlier, _)| later == earlier);
        pairs.into_iter().map(|(key, value)| (self.interner.text(&key), self.interner.text(&value))).collect()
    }

    /// The entry of the record's resource.
    fn resource(&mut self, head: &Head<'a>) -> Result<Result<u32, RejectReason>, Fault> {
        let mut key = std::mem::take(&mut self.stage.key);
        key.clear();
        let raw = |raw: Option<(usize, &'a str)>| raw.map(|(_, text)| text);
        for part in [
            head.server.as_deref(),
            head.cell.as_deref(),
            head.pool.as_deref(),
            raw(head.aliases),
            raw(head.attributes),
        ] {
            key.extend_from_slice(&part.map_or(u32::MAX, |part| part.len() as u32).to_le_bytes());
            key.extend_from_slice(part.unwrap_or_default().as_bytes());
        }
        let found = self.find_resource(&key, head);
        self.stage.key = key;
        found
    }

    fn find_resource(&mut self, key: &[u8], head: &Head<'a>) -> Result<Result<u32, RejectReason>, Fault> {
        match self.interner.find_resource(key) {
            Ok(known) => Ok(Ok(known)),
            Err(_) if self.interner.resources_are_full(self.limits) => Ok(Err(RejectReason::TooManyResources)),
            Err(hash) => {
                let outcome = self.read_resource(head)?.map(Arc::new);
                Ok(Ok(self.interner.add_resource(key, hash, outcome)))
            }
        }
    }

    fn read_resource(&mut self, head: &Head<'a>) -> Result<Result<Resource, RejectReason>, Fault> {
        let mut given: Vec<(Cow<'_, str>, String)> = Vec::new();
        let fields = [("host.name", &head.server), ("headroom.cell", &head.cell), ("headroom.pool", &head.pool)];
        for (key, value) in fields {
            if let Some(value) = value {
                given.push((Cow::Borrowed(key), value.clone().into_owned()));
            }
        }
        if let Some((at, raw)) = head.aliases {
            let aliases = names(raw).map_err(|fault| Fault { at: at + fault.at, ..fault }.within("aliases"))?;
            given.push((Cow::Borrowed(ALIAS_ATTRIBUTE), aliases.join(",")));
        }
        if let Some((at, raw)) = head.attributes {
            let mut cut = 0;
            let read = pairs(raw, self.limits, Some(&mut cut));
            match read.map_err(|fault| Fault { at: at + fault.at, ..fault }.within("attributes"))? {
                Ok(pairs) => given.extend(pairs),
                Err(reason) => return Ok(Err(reason)),
            }
            self.stage.report.cut_attributes += cut;
        }
        let attributes = self.intern(given);
        Ok(self.identity.resolve_within(attributes, self.limits, &mut self.stage.report))
    }
}

/// The members of an object as text: strings, numbers and truth values. `cut` counts values that were too long and may
/// be cut; without it they are refused, because cutting could merge two series.
#[allow(clippy::type_complexity, reason = "a name for this would hide that there are two ways to fail")]
fn pairs<'t>(
    text: &'t str,
    limits: &IngestLimits,
    mut cut: Option<&mut u64>,
) -> Result<Result<Vec<(Cow<'t, str>, String)>, RejectReason>, Fault> {
    let mut scan = Scan::new(text);
    let mut pairs = Vec::new();
    let mut refused = None;
    scan.take(b'{', "an object")?;
    let mut is_first = true;
    while scan.more(&mut is_first, b'}')? {
        let key = scan.key()?;
        let mut value = match scan.peek() {
            Some(b'"') => scan.string("a string")?.into_owned(),
            Some(b'-' | b'0'..=b'9') => {
                let number = scan.number("a number")?;
                let mut value = String::new();
                if number.is_integer() {
                    value.push_str(number.text());
                } else {
                    write_double(number.to_f64(), &mut value);
                }
                value
            }
            _ if scan.take_null() => continue,
            _ => match scan.boolean() {
                Some(word) => word.to_owned(),
                None => {
                    return scan.fault(format!("{key}: an attribute is a string, a number or a truth value"));
                }
            },
        };
        if value.len() > limits.attribute_value_bytes_max {
            match &mut cut {
                Some(cut) => {
                    value.truncate(value.floor_char_boundary(limits.attribute_value_bytes_max));
                    **cut += 1;
                }
                None => refused = refused.or(Some(RejectReason::AttributeTooLong)),
            }
        }
        if key.len() > limits.attribute_key_bytes_max {
            refused = refused.or(Some(RejectReason::AttributeTooLong));
        }
        if pairs.len() >= limits.attributes_max {
            refused = refused.or(Some(RejectReason::TooManyAttributes));
        } else {
            pairs.push((key, value));
        }
    }
    Ok(refused.map_or(Ok(pairs), Err))
}

fn names(text: &str) -> Result<Vec<String>, Fault> {
    let mut scan = Scan::new(text);
    let mut names = Vec::new();
    scan.take(b'[', "an array of names")?;
    let mut is_first = true;
    while scan.more(&mut is_first, b']')? {
        names.push(scan.string("a name in quotes")?.into_owned());
    }
    Ok(names)
}
