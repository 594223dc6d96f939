//! The walk over an `ExportMetricsServiceRequest`: bytes in, rows out, no object in between.
//!
//! Protobuf lets fields come in any order, so what is needed before a message's points (the resource, the scope, the
//! metric's name, its temporality) may lie behind them. Each level therefore looks at its own few fields first, stepping
//! over the nested ones by their lengths, and goes into them afterwards.
//!
//! A damaged body fails as a whole, as in prost; a point that is well-formed but useless is rejected by itself and
//! counted by its reason.

use headroom_model::{HistogramPoint, STALE_NAN, SampleBatchBuilder, Series, SeriesKind};

use std::sync::Arc;

use super::attributes::{AttributeList, Fault, TooLong};
use super::histogram::{self, HistogramFields};
use super::number::{self, AttributeSpan, NO_RECORDED_VALUE};
use super::summary::{self, SummaryFields};
use super::wire::{Joined, Reader, WireError, text};
use crate::identity::IdentityConfig;
use crate::intern::{Interner, MetricKey, NONE, Role};
use crate::limits::IngestLimits;
use crate::report::{IngestReport, RejectReason};

/// The point attribute that tells the series of two instrumentation scopes apart. The scope is part of a stream's
/// identity in OpenTelemetry's data model: two libraries that measure under one name are two streams.
pub const SCOPE_ATTRIBUTE: &str = "otel.scope.name";

/// The attribute of a summary's quantiles.
pub const QUANTILE_ATTRIBUTE: &str = "quantile";

/// Fields of a `Metric` that hold its points.
const GAUGE: u32 = 0x2a;
const SUM: u32 = 0x3a;
const HISTOGRAM: u32 = 0x4a;
const EXPONENTIAL: u32 = 0x52;
const SUMMARY: u32 = 0x5a;

/// Temporality by its number in OTLP.
const DELTA: u32 = 1;
const CUMULATIVE: u32 = 2;

/// Vectors that the walk would otherwise allocate for every point.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    attributes: Vec<u8>,
    extra: Vec<u8>,
    histogram: HistogramFields,
    summary: SummaryFields,
}

/// One walk over one body.
pub(crate) struct Walk<'d> {
    pub(crate) interner: &'d mut Interner,
    pub(crate) scratch: &'d mut Scratch,
    pub(crate) identity: &'d IdentityConfig,
    pub(crate) limits: &'d IngestLimits,
    pub(crate) builder: SampleBatchBuilder,
    pub(crate) report: IngestReport,
    place: Place,
}

/// Where the walk stands.
#[derive(Clone, Copy)]
struct Place {
    resource: u32,
    scope: u32,
    /// The last series, and the one that followed it last time.
    previous: u32,
    guess: u32,
}

/// Times of a point after validation.
struct Times {
    start_ns: i64,
    time_ns: i64,
}

impl<'d> Walk<'d> {
    /// A walk with room for `points` points.
    pub(crate) fn new(
        interner: &'d mut Interner,
        scratch: &'d mut Scratch,
        identity: &'d IdentityConfig,
        limits: &'d IngestLimits,
        points: usize,
    ) -> Self {
        interner.begin(limits);
        let place = Place { resource: NONE, scope: NONE, previous: NONE, guess: NONE };
        let builder = SampleBatchBuilder::with_capacity(points.min(limits.points_per_request_max));
        Self { interner, scratch, identity, limits, builder, report: IngestReport::default(), place }
    }

    /// Walks the whole request.
    pub(crate) fn request(&mut self, body: &[u8]) -> Result<(), WireError> {
        let mut reader = Reader::new(body);
        while let Some(key) = reader.key()? {
            match key {
                0x0a => self.resource_metrics(reader.bytes()?)?,
                _ => reader.skip_unknown(key, &[1])?,
            }
        }
        Ok(())
    }

    fn resource_metrics(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let mut resource = Joined::default();
        let mut reader = Reader::new(bytes);
        while let Some(key) = reader.key()? {
            match key {
                0x0a => resource.push(reader.bytes()?),
                0x12 | 0x1a => drop(reader.bytes()?),
                _ => reader.skip_unknown(key, &[1, 2, 3])?,
            }
        }
        let rejected = match self.resource(resource.get()) {
            Ok(first) => {
                (self.place.previous, self.place.guess) = (NONE, first);
                None
            }
            Err(Fault::Reject(reason)) => Some(reason),
            Err(Fault::Wire(error)) => return Err(resource.locate(error)),
        };
        let mut reader = Reader::new(bytes);
        while let Some(key) = reader.key()? {
            if key != 0x12 {
                reader.skip(key)?;
                continue;
            }
            let scope = reader.bytes()?;
            match rejected {
                None => self.scope_metrics(scope)?,
                Some(reason) => self.reject_scope(scope, reason)?,
            }
        }
        Ok(())
    }

    /// Looks the resource up, or reads it, and returns the series it began with last time.
    fn resource(&mut self, bytes: &[u8]) -> Result<u32, Fault> {
        let resource = match self.interner.find_resource(bytes) {
            Ok(known) => known,
            Err(_) if self.interner.resources_are_full(self.limits) => {
                return Err(RejectReason::TooManyResources.into());
            }
            Err(hash) => {
                let outcome = match self.read_resource(bytes) {
                    Ok(resource) => Ok(Arc::new(resource)),
                    Err(Fault::Reject(reason)) => Err(reason),
                    Err(wire) => return Err(wire),
                };
                self.interner.add_resource(bytes, hash, outcome)
            }
        };
        self.place.resource = resource;
        Ok(self.interner.first_series(resource)?)
    }

    fn read_resource(&mut self, bytes: &[u8]) -> Result<headroom_model::Resource, Fault> {
        let mut list = AttributeList::default();
        let mut refused = None;
        let mut reader = Reader::new(bytes);
        while let Some(key) = reader.key()? {
            match key {
                0x0a => match list.push(reader.bytes()?, TooLong::Cut, self.limits) {
                    Err(Fault::Reject(reason)) => refused = refused.or(Some(reason)),
                    other => other?,
                },
                0x10 => drop(reader.varint()?),
                0x1a => drop(reader.bytes()?),
                _ => reader.skip_unknown(key, &[1, 2, 3])?,
            }
        }
        if let Some(reason) = refused {
            return Err(reason.into());
        }
        self.report.cut_attributes += list.cut;
        let attributes = self.intern_pairs(list.finish());
        // A cut value must not name anything: a name has to be shorter than what values are cut to.
        let bytes_max = self.limits.identity_bytes_max.min(self.limits.attribute_value_bytes_max.saturating_sub(1));
        Ok(self.identity.resolve(attributes, bytes_max)?)
    }

    fn intern_pairs(&mut self, pairs: Vec<(&str, String)>) -> Vec<(Arc<str>, Arc<str>)> {
        pairs.into_iter().map(|(key, value)| (self.interner.text(key), self.interner.text(&value))).collect()
    }

    fn scope_metrics(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let mut scope = Joined::default();
        let mut reader = Reader::new(bytes);
        while let Some(key) = reader.key()? {
            match key {
                0x12 | 0x1a => drop(reader.bytes()?),
                0x0a => scope.push(reader.bytes()?),
                _ => reader.skip_unknown(key, &[1, 2, 3])?,
            }
        }
        let name = scope_name(scope.get()).map_err(|error| scope.locate(error))?;
        if name.len() > self.limits.attribute_value_bytes_max {
            return self.reject_scope(bytes, RejectReason::AttributeTooLong);
        }
        match self.interner.scope(name, self.place.guess, self.limits) {
            Ok(at) => self.place.scope = at,
            Err(reason) => return self.reject_scope(bytes, reason),
        }
        let mut reader = Reader::new(bytes);
        while let Some(key) = reader.key()? {
            match key {
                0x12 => self.metric(reader.bytes()?)?,
                _ => reader.skip(key)?,
            }
        }
        Ok(())
    }

    fn metric(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let (mut name, mut unit): (&[u8], &[u8]) = (b"", b"");
        let mut data = Joined::default();
        let mut data_field = 0;
        let mut reader = Reader::new(bytes);
        while let Some(key) = reader.key()? {
            match key {
                0x0a => name = reader.bytes()?,
                0x1a => unit = reader.bytes()?,
                0x12 | 0x62 => drop(reader.bytes()?),
                GAUGE | SUM | HISTOGRAM | EXPONENTIAL | SUMMARY => {
                    // Occurrences of one kind merge; another kind replaces what was there.
                    if data_field != key {
                        (data, data_field) = (Joined::default(), key);
                    }
                    data.push(reader.bytes()?);
                }
                _ => reader.skip_unknown(key, &[1, 2, 3, 5, 7, 9, 10, 11, 12])?,
            }
        }
        self.data(data_field, data.get(), name, unit).map_err(|error| data.locate(error))
    }

    fn data(&mut self, field: u32, data: &[u8], name: &[u8], unit: &[u8]) -> Result<(), WireError> {
        let (mut temporality, mut is_monotonic) = (0, false);
        if matches!(field, SUM | HISTOGRAM | EXPONENTIAL) {
            let mut reader = Reader::new(data);
            while let Some(key) = reader.key()? {
                match key {
                    0x0a => drop(reader.bytes()?),
                    // An enum has 32 bits; what a longer varint has above them does not count.
                    0x10 => temporality = reader.varint()? as u32,
                    0x18 if field == SUM => is_monotonic = reader.varint()? != 0,
                    _ => reader.skip_unknown(key, if field == SUM { &[1, 2, 3] } else { &[1, 2] })?,
                }
            }
        }
        let kind = match (field, temporality) {
            (0, _) => {
                // No points at all; only the texts can still be wrong.
                text(name)?;
                return text(unit).map(drop);
            }
            (GAUGE | SUMMARY, _) => SeriesKind::Gauge,
            (SUM, DELTA) if is_monotonic => SeriesKind::DeltaCounter,
            (SUM, DELTA) => SeriesKind::DeltaUpDown,
            (SUM, CUMULATIVE) if is_monotonic => SeriesKind::Counter,
            (SUM, CUMULATIVE) => SeriesKind::Gauge,
            (HISTOGRAM, DELTA) => SeriesKind::DeltaHistogram,
            (HISTOGRAM, CUMULATIVE) => SeriesKind::Histogram,
            (EXPONENTIAL, DELTA) => SeriesKind::DeltaExpHistogram,
            (EXPONENTIAL, CUMULATIVE) => SeriesKind::ExpHistogram,
            _ => {
                text(name)?;
                text(unit)?;
                return self.reject_data(data, RejectReason::NoTemporality);
            }
        };
        let role = if field == SUMMARY { Role::Quantile } else { Role::Plain };
        let key = MetricKey { scope: self.place.scope, kind, role, name, unit };
        let metric = match self.find_metric(&key) {
            Ok(metric) => metric,
            Err(Fault::Reject(reason)) => return self.reject_data(data, reason),
            Err(Fault::Wire(error)) => return Err(error),
        };
        let summary = match field {
            SUMMARY => match self.summary_metrics(&key) {
                Ok((count, sum)) => (count, sum),
                Err(Fault::Reject(reason)) => return self.reject_data(data, reason),
                Err(Fault::Wire(error)) => return Err(error),
            },
            _ => (NONE, NONE),
        };
        let mut reader = Reader::new(data);
        while let Some(key) = reader.key()? {
            match (key, field) {
                (0x0a, GAUGE | SUM) => self.number(reader.bytes()?, metric)?,
                (0x0a, HISTOGRAM | EXPONENTIAL) => self.histogram(reader.bytes()?, metric, field)?,
                (0x0a, _) => self.summary(reader.bytes()?, metric, summary)?,
                (_, GAUGE | SUMMARY) => reader.skip_unknown(key, &[1])?,
                _ => reader.skip(key)?,
            }
        }
        Ok(())
    }

    #[inline]
    fn find_metric(&mut self, key: &MetricKey<'_>) -> Result<u32, Fault> {
        match self.interner.guess_metric(key, self.place.guess) {
            Some(metric) => Ok(metric),
            None => self.find_metric_slow(key),
        }
    }

    fn find_metric_slow(&mut self, key: &MetricKey<'_>) -> Result<u32, Fault> {
        match self.interner.find_metric(key) {
            Ok(metric) => Ok(metric),
            Err(hash) => {
                let (name, unit) = (text(key.name)?, text(key.unit)?);
                if name.is_empty() {
                    return Err(RejectReason::NoMetricName.into());
                }
                if name.len().max(unit.len()) > self.limits.metric_name_bytes_max {
                    return Err(RejectReason::MetricNameTooLong.into());
                }
                Ok(self.interner.add_metric(key, (name, unit), hash, self.limits)?)
            }
        }
    }

    fn summary_metrics(&mut self, key: &MetricKey<'_>) -> Result<(u32, u32), Fault> {
        let of = |role| MetricKey { kind: SeriesKind::Counter, role, ..*key };
        Ok((self.find_metric_slow(&of(Role::Count))?, self.find_metric_slow(&of(Role::Sum))?))
    }

    #[inline(always)]
    fn number(&mut self, bytes: &[u8], metric: u32) -> Result<(), WireError> {
        let expected = self.interner.series(self.place.guess).filter(|series| series.metric == metric);
        let point = number::read(bytes, expected.map(|series| &*series.attributes))?;
        let value = match point.value {
            _ if point.flags & NO_RECORDED_VALUE != 0 => STALE_NAN,
            Some(value) => value,
            None => return self.reject_point(RejectReason::NoValue),
        };
        let times = match self.accept(point.start, point.time) {
            Ok(times) => times,
            Err(reason) => return self.reject_point(reason),
        };
        // Number series have no extra bytes, so equal attributes of the same metric are the same series.
        let series = if point.is_as_expected {
            self.step_to(self.place.guess)
        } else {
            match self.find_series(metric, bytes, point.attributes, number::ATTRIBUTES_KEY, 0) {
                Ok(series) => series,
                Err(Fault::Reject(reason)) => return self.reject_point(reason),
                Err(Fault::Wire(error)) => return Err(error),
            }
        };
        match self.indices(series) {
            Ok((resource, series)) => {
                self.builder.push(resource, series, times.start_ns, times.time_ns, value);
                self.report.accepted_points += 1;
            }
            Err(reason) => return self.reject_point(reason),
        }
        Ok(())
    }

    fn histogram(&mut self, bytes: &[u8], metric: u32, field: u32) -> Result<(), WireError> {
        let mut fields = std::mem::take(&mut self.scratch.histogram);
        let done = self.histogram_fields(bytes, metric, field, &mut fields);
        self.scratch.histogram = fields;
        match done {
            Ok(()) => Ok(()),
            Err(Fault::Reject(reason)) => self.reject_point(reason),
            Err(Fault::Wire(error)) => Err(error),
        }
    }

    fn histogram_fields(
        &mut self,
        bytes: &[u8],
        metric: u32,
        field: u32,
        fields: &mut HistogramFields,
    ) -> Result<(), Fault> {
        let is_explicit = field == HISTOGRAM;
        let key = if is_explicit {
            fields.read_explicit(bytes)?;
            histogram::EXPLICIT_ATTRIBUTES_KEY
        } else {
            fields.read_exponential(bytes)?;
            histogram::EXPONENTIAL_ATTRIBUTES_KEY
        };
        let is_stale = fields.flags & NO_RECORDED_VALUE != 0;
        let times = self.accept(fields.start, fields.time)?;
        if fields.buckets.len() > self.limits.buckets_per_point_max {
            return Err(RejectReason::TooManyBuckets.into());
        }
        if !if is_explicit { fields.explicit_is_valid() } else { fields.exponential_is_valid() } {
            return Err(RejectReason::BadHistogram.into());
        }
        self.scratch.extra.clear();
        for bound in &fields.bounds {
            self.scratch.extra.extend_from_slice(&bound.to_le_bytes());
        }
        let series = self.find_series(metric, bytes, fields.attributes, key, self.scratch.extra.len())?;
        let (resource, series) = self.indices(series)?;
        self.builder.push_histogram(HistogramPoint {
            resource,
            series,
            start_ns: times.start_ns,
            time_ns: times.time_ns,
            count: if is_stale { 0 } else { fields.count },
            sum: if is_stale { STALE_NAN } else { fields.sum.unwrap_or(f64::NAN) },
            scale: fields.scale,
            zero_count: fields.zero_count,
            offset: fields.offset,
            buckets: fields.buckets.as_slice().into(),
        });
        self.report.negative_bucket_points += u64::from(fields.has_negative);
        self.report.accepted_points += 1;
        Ok(())
    }

    fn summary(&mut self, bytes: &[u8], metric: u32, others: (u32, u32)) -> Result<(), WireError> {
        let mut fields = std::mem::take(&mut self.scratch.summary);
        let done = self.summary_fields(bytes, metric, others, &mut fields);
        self.scratch.summary = fields;
        match done {
            Ok(()) => Ok(()),
            Err(Fault::Reject(reason)) => self.reject_point(reason),
            Err(Fault::Wire(error)) => Err(error),
        }
    }

    fn summary_fields(
        &mut self,
        bytes: &[u8],
        metric: u32,
        (count, sum): (u32, u32),
        fields: &mut SummaryFields,
    ) -> Result<(), Fault> {
        fields.read(bytes)?;
        let is_stale = fields.flags & NO_RECORDED_VALUE != 0;
        let times = self.accept(fields.start, fields.time)?;
        if fields.quantiles.len() > self.limits.buckets_per_point_max {
            return Err(RejectReason::TooManyBuckets.into());
        }
        // All series first: a summary is taken whole or not at all.
        let mut rows = Vec::with_capacity(2 + fields.quantiles.len());
        for (metric, value) in [(count, fields.count as f64), (sum, fields.sum)] {
            let series = self.find_series(metric, bytes, fields.attributes, summary::ATTRIBUTES_KEY, 0)?;
            rows.push((self.indices(series)?, value));
        }
        for (quantile, value) in &fields.quantiles {
            self.scratch.extra.clear();
            self.scratch.extra.extend_from_slice(&quantile.to_le_bytes());
            let series = self.find_series(metric, bytes, fields.attributes, summary::ATTRIBUTES_KEY, 8)?;
            rows.push((self.indices(series)?, *value));
        }
        for ((resource, series), value) in rows {
            let value = if is_stale { STALE_NAN } else { value };
            self.builder.push(resource, series, times.start_ns, times.time_ns, value);
        }
        self.report.accepted_points += 1;
        Ok(())
    }

    /// Validates a point's times, and that there is room for it.
    #[inline(always)]
    fn accept(&self, start: u64, time: u64) -> Result<Times, RejectReason> {
        if time == 0 {
            return Err(RejectReason::NoTime);
        }
        let (Ok(start_ns), Ok(time_ns)) = (i64::try_from(start), i64::try_from(time)) else {
            return Err(RejectReason::TimeOutOfRange);
        };
        if self.report.accepted_points >= self.limits.points_per_request_max as u64 {
            return Err(RejectReason::TooManyPoints);
        }
        Ok(Times { start_ns, time_ns })
    }

    /// Makes `series` the last one.
    #[inline(always)]
    fn step_to(&mut self, series: u32) -> u32 {
        self.place.previous = series;
        self.place.guess = self.interner.series(series).map_or(NONE, |entry| entry.next);
        series
    }

    /// The indices of the place's resource and of a series in the batch.
    #[inline(always)]
    fn indices(&mut self, series: u32) -> Result<(u32, u32), RejectReason> {
        let series = self.interner.series_index(series, self.limits, &mut self.builder)?;
        let resource = self.interner.resource_index(self.place.resource, self.limits, &mut self.builder)?;
        Ok((resource, series))
    }

    /// Looks the series up by its bytes, or reads them. Its extra bytes are the first `extra` ones of the scratch.
    fn find_series(
        &mut self,
        metric: u32,
        point: &[u8],
        span: AttributeSpan,
        key: u32,
        extra: usize,
    ) -> Result<u32, Fault> {
        let mut scratch = std::mem::take(&mut self.scratch.attributes);
        let extra_bytes = std::mem::take(&mut self.scratch.extra);
        let found = span.bytes(point, key, &mut scratch).map_err(Fault::Wire).and_then(|attributes| {
            self.find_series_bytes(metric, attributes, extra_bytes.get(..extra).unwrap_or_default())
        });
        self.scratch.attributes = scratch;
        self.scratch.extra = extra_bytes;
        found
    }

    fn find_series_bytes(&mut self, metric: u32, attributes: &[u8], extra: &[u8]) -> Result<u32, Fault> {
        if self.interner.is_series(self.place.guess, metric, attributes, extra) {
            return Ok(self.step_to(self.place.guess));
        }
        let series = match self.interner.find_series(metric, attributes, extra) {
            Ok(known) => known,
            Err(_) if self.interner.series_are_full(self.limits) => return Err(RejectReason::TooManySeries.into()),
            Err(hash) => {
                let outcome = match self.read_series(metric, attributes, extra) {
                    Ok(series) => Ok(Arc::new(series)),
                    Err(Fault::Reject(reason)) => Err(reason),
                    Err(wire) => return Err(wire),
                };
                self.interner.add_series(metric, attributes, extra, hash, outcome)
            }
        };
        self.interner.link(self.place.resource, self.place.previous, series);
        Ok(self.step_to(series))
    }

    fn read_series(&mut self, metric: u32, attributes: &[u8], extra: &[u8]) -> Result<Series, Fault> {
        let (name, unit, kind, role) = self.interner.metric(metric);
        let (mut name, mut unit, scope) =
            (Arc::clone(name), Arc::clone(unit), Arc::clone(self.interner.scope_name(metric)));
        match role {
            Role::Plain | Role::Quantile => {}
            Role::Count => (name, unit) = (self.interner.text(&format!("{name}_count")), self.interner.text("")),
            Role::Sum => name = self.interner.text(&format!("{name}_sum")),
        }
        let numbers = extra.chunks_exact(8).map(|chunk| f64::from_le_bytes(chunk.try_into().unwrap_or_default()));
        let numbers: Vec<f64> = numbers.collect();
        let mut list = AttributeList::default();
        let mut refused = None;
        let mut reader = Reader::new(attributes);
        while let Some(key) = reader.key()? {
            // Every field here is an attribute, whatever its number in the kind of point it came from.
            debug_assert_eq!(key & 7, 2);
            match list.push(reader.bytes()?, TooLong::Reject, self.limits) {
                Err(Fault::Reject(reason)) => refused = refused.or(Some(reason)),
                other => other?,
            }
        }
        if let Some(reason) = refused {
            return Err(reason.into());
        }
        let mut pairs = self.intern_pairs(list.finish());
        if !scope.is_empty() {
            self.insert_pair(&mut pairs, SCOPE_ATTRIBUTE, scope);
        }
        if role == Role::Quantile {
            let mut quantile = String::new();
            super::attributes::write_double(numbers.first().copied().unwrap_or_default(), &mut quantile);
            let quantile = self.interner.text(&quantile);
            pairs.retain(|(key, _)| **key != *QUANTILE_ATTRIBUTE);
            self.insert_pair(&mut pairs, QUANTILE_ATTRIBUTE, quantile);
        }
        let bounds = if role == Role::Plain { numbers.into() } else { Arc::default() };
        Ok(Series { metric: name, unit, kind, attributes: pairs.into(), bounds })
    }

    /// Adds an attribute unless the sender gave one of that key.
    fn insert_pair(&mut self, pairs: &mut Vec<(Arc<str>, Arc<str>)>, key: &str, value: Arc<str>) {
        if let Err(at) = pairs.binary_search_by(|(k, _)| (**k).cmp(key)) {
            pairs.insert(at, (self.interner.text(key), value));
        }
    }

    #[cold]
    fn reject_point(&mut self, reason: RejectReason) -> Result<(), WireError> {
        self.report.reject(reason, 1);
        Ok(())
    }

    /// Counts the points of a gauge, sum, … as rejected.
    #[cold]
    fn reject_data(&mut self, data: &[u8], reason: RejectReason) -> Result<(), WireError> {
        let mut reader = Reader::new(data);
        while let Some(key) = reader.key()? {
            self.report.reject(reason, u64::from(key == 0x0a));
            reader.skip(key)?;
        }
        Ok(())
    }

    /// Counts the points of a scope as rejected.
    #[cold]
    fn reject_scope(&mut self, bytes: &[u8], reason: RejectReason) -> Result<(), WireError> {
        let mut scope = Reader::new(bytes);
        while let Some(key) = scope.key()? {
            if key != 0x12 {
                scope.skip_unknown(key, if key & 7 == 2 { &[] } else { &[1, 2, 3] })?;
                continue;
            }
            let mut data = Joined::default();
            let mut data_field = 0;
            let mut metric = Reader::new(scope.bytes()?);
            while let Some(key) = metric.key()? {
                if matches!(key, GAUGE | SUM | HISTOGRAM | EXPONENTIAL | SUMMARY) {
                    if data_field != key {
                        (data, data_field) = (Joined::default(), key);
                    }
                    data.push(metric.bytes()?);
                } else {
                    metric.skip(key)?;
                }
            }
            self.reject_data(data.get(), reason)?;
        }
        Ok(())
    }
}

fn scope_name(bytes: &[u8]) -> Result<&str, WireError> {
    let mut name = "";
    let mut reader = Reader::new(bytes);
    while let Some(key) = reader.key()? {
        match key {
            0x0a => name = reader.text()?,
            0x12 | 0x1a => drop(reader.bytes()?),
            0x20 => drop(reader.varint()?),
            _ => reader.skip_unknown(key, &[1, 2, 3, 4])?,
        }
    }
    Ok(name)
}
