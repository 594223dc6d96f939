//! From bytes to entries of the memory: look up what was seen, read what was not.
//!
//! These are the slow halves of the [walk](super::walk), taken once per resource and once per new metric or series.

use std::sync::Arc;

use headroom_model::{Resource, Series, SeriesKind};

use super::attributes::{AttributeList, Fault, TooLong, write_double};
use super::number::AttributeSpan;
use super::walk::Walk;
use super::wire::{Reader, text};
use crate::intern::{MetricKey, NONE, Role};
use crate::report::RejectReason;

/// The point attribute that tells the series of two instrumentation scopes apart. The scope is part of a stream's
/// identity in OpenTelemetry's data model: two libraries that measure under one name are two streams.
pub const SCOPE_ATTRIBUTE: &str = "otel.scope.name";

/// The attribute of a summary's quantiles.
pub const QUANTILE_ATTRIBUTE: &str = "quantile";

impl Walk<'_> {
    /// Looks the resource up, or reads it, and returns the series it began with last time.
    pub(super) fn resource(&mut self, bytes: &[u8]) -> Result<u32, Fault> {
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

    fn read_resource(&mut self, bytes: &[u8]) -> Result<Resource, Fault> {
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
        Ok(self.identity.resolve_within(attributes, self.limits, &mut self.report)?)
    }

    fn intern_pairs(&mut self, pairs: Vec<(&str, String)>) -> Vec<(Arc<str>, Arc<str>)> {
        pairs.into_iter().map(|(key, value)| (self.interner.text(key), self.interner.text(&value))).collect()
    }

    #[inline]
    pub(super) fn find_metric(&mut self, key: &MetricKey<'_>) -> Result<u32, Fault> {
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

    pub(super) fn summary_metrics(&mut self, key: &MetricKey<'_>) -> Result<(u32, u32), Fault> {
        let of = |role| MetricKey { kind: SeriesKind::Counter, role, ..*key };
        Ok((self.find_metric_slow(&of(Role::Count))?, self.find_metric_slow(&of(Role::Sum))?))
    }

    /// Makes `series` the last one.
    #[inline(always)]
    pub(super) fn step_to(&mut self, series: u32) -> u32 {
        self.place.previous = series;
        self.place.guess = self.interner.series(series).map_or(NONE, |entry| entry.next);
        series
    }

    /// Looks the series up by its bytes, or reads them. Its extra bytes are the first `extra` ones of the scratch.
    pub(super) fn find_series(
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
            write_double(numbers.first().copied().unwrap_or_default(), &mut quantile);
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
}
