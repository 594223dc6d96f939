//! The walk over an `ExportMetricsServiceRequest`: bytes in, rows out, no object in between.
//!
//! Protobuf lets fields come in any order, so what is needed before a message's points (the resource, the scope, the
//! metric's name, its temporality) may lie behind them. Each level therefore looks at its own few fields first, stepping
//! over the nested ones by their lengths, and goes into them afterwards.
//!
//! A damaged body fails as a whole, as in prost; a point that is well-formed but useless is rejected by itself and
//! counted by its reason.

use headroom_model::time::EARLIEST_NS;
use headroom_model::{HistogramPoint, STALE_NAN, SampleBatchBuilder, SeriesKind};

use super::attributes::Fault;
use super::histogram::{self, HistogramFields};
use super::number::{self, NO_RECORDED_VALUE};
use super::summary::{self, SummaryFields};
use super::wire::{Joined, Reader, WireError, text};
use crate::identity::IdentityConfig;
use crate::intern::{Interner, MetricKey, NONE, Role};
use crate::limits::IngestLimits;
use crate::report::{IngestReport, RejectReason};

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
    pub(super) attributes: Vec<u8>,
    pub(super) extra: Vec<u8>,
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
    pub(super) place: Place,
}

/// Where the walk stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) resource: u32,
    pub(super) scope: u32,
    /// The last series, and the one that followed it last time.
    pub(super) previous: u32,
    pub(super) guess: u32,
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

    #[inline(always)]
    fn number(&mut self, bytes: &[u8], metric: u32) -> Result<(), WireError> {
        let expected = self.interner.series(self.place.guess).filter(|series| series.metric == metric);
        let point = number::read(bytes, expected.map(|series| &*series.attributes))?;
        let value = match point.value {
            _ if point.flags & NO_RECORDED_VALUE != 0 => STALE_NAN,
            Some(value) => value,
            None => return self.reject_point(RejectReason::NoValue),
        };
        let times = match self.accept(point.start, point.time, 1) {
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
        let times = self.accept(fields.start, fields.time, 1)?;
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
        // A row for the count, one for the sum, and one for each quantile.
        let times = self.accept(fields.start, fields.time, fields.quantiles.len().saturating_add(2))?;
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

    /// Validates a point's times, and that there is room for the rows it becomes.
    #[inline(always)]
    fn accept(&mut self, start: u64, time: u64, rows: usize) -> Result<Times, RejectReason> {
        if time == 0 {
            return Err(RejectReason::NoTime);
        }
        let (Ok(start_ns), Ok(time_ns)) = (i64::try_from(start), i64::try_from(time)) else {
            return Err(RejectReason::TimeOutOfRange);
        };
        if time_ns < EARLIEST_NS {
            self.report.note_early(time_ns);
            return Err(RejectReason::TimeOutOfRange);
        }
        if self.builder.len().saturating_add(rows) > self.limits.points_per_request_max {
            return Err(RejectReason::TooManyPoints);
        }
        Ok(Times { start_ns, time_ns })
    }

    /// The indices of the place's resource and of a series in the batch.
    #[inline(always)]
    fn indices(&mut self, series: u32) -> Result<(u32, u32), RejectReason> {
        let series = self.interner.series_index(series, self.limits, &mut self.builder)?;
        let resource = self.interner.resource_index(self.place.resource, self.limits, &mut self.builder)?;
        Ok((resource, series))
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
