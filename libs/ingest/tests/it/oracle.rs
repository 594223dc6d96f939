//! What a request means, the slow and obvious way: from prost's objects.

use std::sync::Arc;

use headroom_ingest::{IdentityConfig, RejectReason};
use headroom_model::{SampleBatch, SeriesKind};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point};

/// A row with its dictionaries looked up; numbers by their bits.
pub type Row = (String, String, String, SeriesKind, Vec<(String, String)>, Vec<u64>, i64, i64, Vec<u64>);

/// The rows of a batch, numbers before histograms, each in order.
pub fn rows_of(batch: &SampleBatch) -> Vec<Row> {
    let row = |resource: u32, series: u32, start, time, values| -> Row {
        let (resource, series) = (&batch.resources[resource as usize], &batch.series[series as usize]);
        (
            format!("{resource:?}"),
            series.metric.to_string(),
            series.unit.to_string(),
            series.kind,
            series.attributes.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            series.bounds.iter().map(|bound| bound.to_bits()).collect(),
            start,
            time,
            values,
        )
    };
    let p = &batch.points;
    let numbers = (0..p.value.len())
        .map(|at| row(p.resource[at], p.series[at], p.start_ns[at], p.time_ns[at], vec![p.value[at].to_bits()]));
    let histograms = batch.histograms.iter().map(|h| {
        let mut values = vec![h.count, h.sum.to_bits(), h.scale as u64, h.zero_count, h.offset as u64];
        values.extend(h.buckets.iter());
        row(h.resource, h.series, h.start_ns, h.time_ns, values)
    });
    numbers.chain(histograms).collect()
}

/// The rows of a request and the reasons of rejected points, in order.
pub fn rows(request: &ExportMetricsServiceRequest) -> (Vec<Row>, Vec<RejectReason>) {
    let (mut numbers, mut histograms, mut rejected) = (Vec::new(), Vec::new(), Vec::new());
    for resource_metrics in &request.resource_metrics {
        let attributes = resource_metrics.resource.as_ref().map(|r| texts(&r.attributes)).unwrap_or_default();
        let attributes = attributes.into_iter().map(|(k, v)| (Arc::from(k), Arc::from(v))).collect();
        let resource = IdentityConfig::default().resolve(attributes, 255).map(|resource| format!("{resource:?}"));
        for scope_metrics in &resource_metrics.scope_metrics {
            let scope = scope_metrics.scope.as_ref().map(|scope| scope.name.clone()).unwrap_or_default();
            for metric in &scope_metrics.metrics {
                let mut walk = Metric { resource: &resource, scope: &scope, metric, rejected: &mut rejected };
                match metric.data.as_ref() {
                    None => {}
                    Some(Data::Gauge(gauge)) => {
                        walk.numbers(&gauge.data_points, Some(SeriesKind::Gauge), &mut numbers);
                    }
                    Some(Data::Sum(sum)) => {
                        let kind = match (sum.aggregation_temporality, sum.is_monotonic) {
                            (1, true) => Some(SeriesKind::DeltaCounter),
                            (1, false) => Some(SeriesKind::DeltaUpDown),
                            (2, true) => Some(SeriesKind::Counter),
                            (2, false) => Some(SeriesKind::Gauge),
                            _ => None,
                        };
                        walk.numbers(&sum.data_points, kind, &mut numbers);
                    }
                    Some(Data::Histogram(data)) => {
                        let kind = temporality(
                            data.aggregation_temporality,
                            SeriesKind::DeltaHistogram,
                            SeriesKind::Histogram,
                        );
                        for p in &data.data_points {
                            let bounds: Vec<u64> = p.explicit_bounds.iter().map(|bound| bound.to_bits()).collect();
                            let ascending = p.explicit_bounds.windows(2).all(|w| w[0] < w[1])
                                && p.explicit_bounds.iter().all(|bound| !bound.is_nan());
                            let fits = p.bucket_counts.len() == bounds.len() + 1
                                || (bounds.is_empty() && p.bucket_counts.is_empty());
                            let stale = p.flags & 1 == 1;
                            let mut values = vec![p.count, p.sum.unwrap_or(f64::NAN).to_bits(), 0, 0, 0];
                            if stale {
                                values = vec![0, headroom_model::STALE_NAN.to_bits(), 0, 0, 0];
                            }
                            values.extend(&p.bucket_counts);
                            let bad = (!(ascending && fits)).then_some(RejectReason::BadHistogram);
                            walk.row(
                                "",
                                p.time_unix_nano,
                                p.start_time_unix_nano,
                                kind,
                                &p.attributes,
                                bounds,
                                values,
                                bad,
                                &mut histograms,
                            );
                        }
                    }
                    Some(Data::ExponentialHistogram(data)) => {
                        let kind = temporality(
                            data.aggregation_temporality,
                            SeriesKind::DeltaExpHistogram,
                            SeriesKind::ExpHistogram,
                        );
                        for p in &data.data_points {
                            let positive = p.positive.clone().unwrap_or_default();
                            let mut values = vec![
                                p.count,
                                p.sum.unwrap_or(f64::NAN).to_bits(),
                                p.scale as u64,
                                p.zero_count,
                                positive.offset as u64,
                            ];
                            if p.flags & 1 == 1 {
                                values[0] = 0;
                                values[1] = headroom_model::STALE_NAN.to_bits();
                            }
                            let in_range = (-10..=20).contains(&p.scale)
                                && i64::from(positive.offset) + positive.bucket_counts.len() as i64
                                    <= i64::from(i32::MAX);
                            values.extend(&positive.bucket_counts);
                            let bad = (!in_range).then_some(RejectReason::BadHistogram);
                            walk.row(
                                "",
                                p.time_unix_nano,
                                p.start_time_unix_nano,
                                kind,
                                &p.attributes,
                                vec![],
                                values,
                                bad,
                                &mut histograms,
                            );
                        }
                    }
                    Some(Data::Summary(data)) => {
                        for p in &data.data_points {
                            let stale = p.flags & 1 == 1;
                            let bits =
                                |value: f64| vec![if stale { headroom_model::STALE_NAN } else { value }.to_bits()];
                            let mut rows = Vec::new();
                            let (time, start, counter) =
                                (p.time_unix_nano, p.start_time_unix_nano, Some(SeriesKind::Counter));
                            let count = walk.rejected.len();
                            walk.row(
                                "_count",
                                time,
                                start,
                                counter,
                                &p.attributes,
                                vec![],
                                bits(p.count as f64),
                                None,
                                &mut rows,
                            );
                            if walk.rejected.len() > count {
                                continue;
                            }
                            walk.row("_sum", time, start, counter, &p.attributes, vec![], bits(p.sum), None, &mut rows);
                            for quantile in &p.quantile_values {
                                let mut attributes: Vec<_> =
                                    p.attributes.iter().filter(|a| a.key != "quantile").cloned().collect();
                                let value = Some(AnyValue { value: Some(Value::DoubleValue(quantile.quantile)) });
                                attributes.push(KeyValue { key: "quantile".to_owned(), value, ..Default::default() });
                                let gauge = Some(SeriesKind::Gauge);
                                walk.row(
                                    "",
                                    time,
                                    start,
                                    gauge,
                                    &attributes,
                                    vec![],
                                    bits(quantile.value),
                                    None,
                                    &mut rows,
                                );
                            }
                            numbers.extend(rows);
                        }
                    }
                }
            }
        }
    }
    numbers.extend(histograms);
    rejected.sort();
    (numbers, rejected)
}

fn temporality(number: i32, delta: SeriesKind, cumulative: SeriesKind) -> Option<SeriesKind> {
    match number {
        1 => Some(delta),
        2 => Some(cumulative),
        _ => None,
    }
}

struct Metric<'a> {
    resource: &'a Result<String, RejectReason>,
    scope: &'a str,
    metric: &'a opentelemetry_proto::tonic::metrics::v1::Metric,
    rejected: &'a mut Vec<RejectReason>,
}

impl Metric<'_> {
    fn numbers(
        &mut self,
        points: &[opentelemetry_proto::tonic::metrics::v1::NumberDataPoint],
        kind: Option<SeriesKind>,
        out: &mut Vec<Row>,
    ) {
        for p in points {
            let stale = p.flags & 1 == 1;
            let value = match p.value {
                _ if stale => Some(headroom_model::STALE_NAN),
                Some(number_data_point::Value::AsDouble(value)) => Some(value),
                Some(number_data_point::Value::AsInt(value)) => Some(value as f64),
                None => None,
            };
            let bad = value.is_none().then_some(RejectReason::NoValue);
            let values = vec![value.unwrap_or_default().to_bits()];
            self.row("", p.time_unix_nano, p.start_time_unix_nano, kind, &p.attributes, vec![], values, bad, out);
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn row(
        &mut self,
        suffix: &str,
        time: u64,
        start: u64,
        kind: Option<SeriesKind>,
        attributes: &[KeyValue],
        bounds: Vec<u64>,
        values: Vec<u64>,
        bad: Option<RejectReason>,
        out: &mut Vec<Row>,
    ) {
        let reason = match (self.resource, kind) {
            (Err(reason), _) => Some(*reason),
            (_, None) => Some(RejectReason::NoTemporality),
            _ if self.metric.name.is_empty() => Some(RejectReason::NoMetricName),
            _ if bad == Some(RejectReason::NoValue) => bad,
            _ if time == 0 => Some(RejectReason::NoTime),
            _ if time.max(start) > i64::MAX as u64 => Some(RejectReason::TimeOutOfRange),
            _ if time < 946_684_800_000_000_000 => Some(RejectReason::TimeOutOfRange),
            _ => bad,
        };
        if let Some(reason) = reason {
            return self.rejected.push(reason);
        }
        let mut attributes = texts(attributes);
        if !self.scope.is_empty() && !attributes.iter().any(|(key, _)| key == "otel.scope.name") {
            attributes.push(("otel.scope.name".to_owned(), self.scope.to_owned()));
            attributes.sort_by(|a, b| a.0.cmp(&b.0));
        }
        out.push((
            self.resource.clone().unwrap(),
            format!("{}{suffix}", self.metric.name),
            if suffix == "_count" { String::new() } else { self.metric.unit.clone() },
            kind.unwrap(),
            attributes,
            bounds,
            start as i64,
            time as i64,
            values,
        ));
    }
}

/// Attributes as text, sorted, the first of each key.
pub fn texts(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    for attribute in attributes {
        if !out.iter().any(|(key, _)| *key == attribute.key) {
            let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
            out.push((attribute.key.clone(), value.map(|value| text(value, false)).unwrap_or_default()));
        }
    }
    out.sort();
    out
}

fn text(value: &Value, nested: bool) -> String {
    let inner = |value: &AnyValue| value.value.as_ref().map_or("null".to_owned(), |value| text(value, true));
    match value {
        Value::StringValue(value) if nested => serde_json::to_string(value).unwrap(),
        Value::StringValue(value) => value.clone(),
        Value::BoolValue(value) => value.to_string(),
        Value::IntValue(value) => value.to_string(),
        Value::DoubleValue(value) if value.is_nan() => "NaN".to_owned(),
        Value::DoubleValue(value) if value.is_infinite() => {
            if *value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
        }
        Value::DoubleValue(value) if value.fract() == 0.0 && value.abs() < 1e15 => format!("{value}"),
        Value::DoubleValue(value) => format!("{value:?}"),
        Value::ArrayValue(array) => format!("[{}]", array.values.iter().map(inner).collect::<Vec<_>>().join(",")),
        Value::KvlistValue(map) => {
            let pairs = map.values.iter().map(|pair| {
                let value = pair.value.as_ref().map_or("null".to_owned(), inner);
                format!("{}:{value}", serde_json::to_string(&pair.key).unwrap())
            });
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
        }
        Value::BytesValue(bytes) if nested => format!("\"{}\"", base64(bytes)),
        Value::BytesValue(bytes) => base64(bytes),
        Value::StringValueStrindex(_) if nested => "null".to_owned(),
        Value::StringValueStrindex(_) => String::new(),
    }
}

fn base64(bytes: &[u8]) -> String {
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out: String = (0..bits.len())
        .step_by(6)
        .map(|at| format!("{:0<6}", &bits[at..bits.len().min(at + 6)]))
        .map(|six| char::from(digits[usize::from_str_radix(&six, 2).unwrap()]))
        .collect();
    while !out.len().is_multiple_of(4) {
        out.push('=');
    }
    out
}
