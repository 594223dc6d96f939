//! OTLP/JSON, by way of protobuf: the JSON is read into plain structs, these are written as protobuf, and the walk does
//! the rest. So both encodings have the same meaning by construction, and only one of them has to be fast.
//!
//! The rules are OTLP's, not protobuf's JSON mapping: field names in lowerCamelCase only, enums as numbers only, 64-bit
//! integers as strings or numbers, unknown fields ignored, `null` as if absent. Errors say line and column.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, Visitor};

use super::attributes::base64_decode;
use super::proto_writer::ProtoWriter;
use crate::decoder::DecodeError;

/// The request as protobuf.
pub(crate) fn to_protobuf(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let request: Request = serde_json::from_slice(body).map_err(|error| DecodeError::json(&error))?;
    let mut out = ProtoWriter::default();
    for resource in &request.resource_metrics {
        out.message(1, |out| resource.write(out));
    }
    Ok(out.finish())
}

/// `null` is the same as an absent field.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

macro_rules! message {
    ($name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct $name {
            $(#[serde(default, deserialize_with = "or_default")] $field: $type,)*
        }
    };
}

message!(Request { resource_metrics: Vec<ResourceMetrics>, });
message!(ResourceMetrics { resource: Resource, scope_metrics: Vec<ScopeMetrics>, });
message!(Resource { attributes: Vec<KeyValue>, });
message!(ScopeMetrics { scope: Scope, metrics: Vec<Metric>, });
message!(Scope { name: String });
message!(Metric {
    name: String,
    unit: String,
    gauge: Option<Points<NumberPoint>>,
    sum: Option<Points<NumberPoint>>,
    histogram: Option<Points<HistogramPoint>>,
    exponential_histogram: Option<Points<ExponentialPoint>>,
    summary: Option<Points<SummaryPoint>>,
});
message!(NumberPoint {
    attributes: Vec<KeyValue>,
    start_time_unix_nano: Integer<u64>,
    time_unix_nano: Integer<u64>,
    as_double: Option<Double>,
    as_int: Option<Integer<i64>>,
    flags: Integer<u32>,
});
message!(HistogramPoint {
    attributes: Vec<KeyValue>,
    start_time_unix_nano: Integer<u64>,
    time_unix_nano: Integer<u64>,
    count: Integer<u64>,
    sum: Option<Double>,
    bucket_counts: Vec<Integer<u64>>,
    explicit_bounds: Vec<Double>,
    flags: Integer<u32>,
});
message!(ExponentialPoint {
    attributes: Vec<KeyValue>,
    start_time_unix_nano: Integer<u64>,
    time_unix_nano: Integer<u64>,
    count: Integer<u64>,
    sum: Option<Double>,
    scale: Integer<i32>,
    zero_count: Integer<u64>,
    positive: Buckets,
    negative: Buckets,
    flags: Integer<u32>,
});
message!(Buckets { offset: Integer<i32>, bucket_counts: Vec<Integer<u64>>, });
message!(SummaryPoint {
    attributes: Vec<KeyValue>,
    start_time_unix_nano: Integer<u64>,
    time_unix_nano: Integer<u64>,
    count: Integer<u64>,
    sum: Double,
    quantile_values: Vec<QuantileValue>,
    flags: Integer<u32>,
});
message!(QuantileValue { quantile: Double, value: Double });
message!(KeyValue { key: String, value: AnyValue });
message!(AnyValue {
    string_value: Option<String>,
    bool_value: Option<bool>,
    int_value: Option<Integer<i64>>,
    double_value: Option<Double>,
    array_value: Option<Array>,
    kvlist_value: Option<KeyValues>,
    bytes_value: Option<Bytes>,
});
message!(Array { values: Vec<AnyValue>, });
message!(KeyValues { values: Vec<KeyValue>, });

/// Gauge, Sum, Histogram, … differ in their points alone.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound = "T: Deserialize<'de> + Default")]
struct Points<T> {
    #[serde(default, deserialize_with = "or_default")]
    data_points: Vec<T>,
    #[serde(default, deserialize_with = "or_default")]
    aggregation_temporality: Enum,
    #[serde(default, deserialize_with = "or_default")]
    is_monotonic: bool,
}

/// An enum's number; names are not valid in OTLP/JSON.
#[derive(Default)]
struct Enum(i32);

impl<'de> Deserialize<'de> for Enum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i32::deserialize(deserializer).map(Self)
    }
}

/// An integer as a number or as a string of one.
#[derive(Clone, Copy, Default)]
struct Integer<T>(T);

impl<'de, T: TryFrom<i128>> Deserialize<'de> for Integer<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IntegerVisitor<T>(PhantomData<T>);
        impl<T: TryFrom<i128>> Visitor<'_> for IntegerVisitor<T> {
            type Value = Integer<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an integer of type {}, as a number or a string", std::any::type_name::<T>())
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
                T::try_from(i128::from(value))
                    .map(Integer)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
                T::try_from(i128::from(value))
                    .map(Integer)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
                let whole = value.fract() == 0.0 && value.abs() < 2f64.powi(64);
                let number = if whole { T::try_from(value as i128).ok() } else { None };
                number.map(Integer).ok_or_else(|| E::invalid_value(de::Unexpected::Float(value), &self))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
                let number = value.parse::<i128>().ok().and_then(|number| T::try_from(number).ok());
                number.map(Integer).ok_or_else(|| E::invalid_value(de::Unexpected::Str(value), &self))
            }
        }
        deserializer.deserialize_any(IntegerVisitor(PhantomData))
    }
}

/// A double as a number, as a string of one, or as `NaN`, `Infinity`, `-Infinity`.
#[derive(Clone, Copy, Default)]
struct Double(f64);

impl<'de> Deserialize<'de> for Double {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DoubleVisitor;
        impl Visitor<'_> for DoubleVisitor {
            type Value = Double;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, `NaN`, `Infinity` or `-Infinity`")
            }
            fn visit_u64<E>(self, value: u64) -> Result<Double, E> {
                Ok(Double(value as f64))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Double, E> {
                Ok(Double(value as f64))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Double, E> {
                Ok(Double(value))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Double, E> {
                match value {
                    "NaN" => Ok(Double(f64::NAN)),
                    "Infinity" => Ok(Double(f64::INFINITY)),
                    "-Infinity" => Ok(Double(f64::NEG_INFINITY)),
                    // Rust also reads `inf` and `nan`, which are not JSON's.
                    number if number.ends_with(|c: char| c.is_ascii_digit() || c == '.') => {
                        number.parse().map(Double).map_err(|_| E::invalid_value(de::Unexpected::Str(value), &self))
                    }
                    _ => Err(E::invalid_value(de::Unexpected::Str(value), &self)),
                }
            }
        }
        deserializer.deserialize_any(DoubleVisitor)
    }
}

/// Bytes as Base64.
struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        base64_decode(&text).map(Self).ok_or_else(|| de::Error::invalid_value(de::Unexpected::Str(&text), &"Base64"))
    }
}

impl ResourceMetrics {
    fn write(&self, out: &mut ProtoWriter) {
        out.message(1, |out| write_attributes(1, &self.resource.attributes, out));
        for scope in &self.scope_metrics {
            out.message(2, |out| {
                out.message(1, |out| out.bytes(1, scope.scope.name.as_bytes()));
                for metric in &scope.metrics {
                    out.message(2, |out| metric.write(out));
                }
            });
        }
    }
}

impl Metric {
    fn write(&self, out: &mut ProtoWriter) {
        out.bytes(1, self.name.as_bytes());
        out.bytes(3, self.unit.as_bytes());
        write_points(5, self.gauge.as_ref(), NumberPoint::write, out);
        write_points(7, self.sum.as_ref(), NumberPoint::write, out);
        write_points(9, self.histogram.as_ref(), HistogramPoint::write, out);
        write_points(10, self.exponential_histogram.as_ref(), ExponentialPoint::write, out);
        write_points(11, self.summary.as_ref(), SummaryPoint::write, out);
    }
}

fn write_points<T>(field: u32, data: Option<&Points<T>>, write: fn(&T, &mut ProtoWriter), out: &mut ProtoWriter) {
    let Some(data) = data else { return };
    out.message(field, |out| {
        for point in &data.data_points {
            out.message(1, |out| write(point, out));
        }
        // Gauges and summaries have no such fields and the walk skips them.
        out.varint(2, data.aggregation_temporality.0 as u64);
        out.varint(3, u64::from(data.is_monotonic));
    });
}

impl NumberPoint {
    fn write(&self, out: &mut ProtoWriter) {
        write_attributes(7, &self.attributes, out);
        out.fixed64(2, self.start_time_unix_nano.0);
        out.fixed64(3, self.time_unix_nano.0);
        if let Some(value) = self.as_double {
            out.fixed64_always(4, value.0.to_bits());
        }
        if let Some(value) = self.as_int {
            out.fixed64_always(6, value.0 as u64);
        }
        out.varint(8, u64::from(self.flags.0));
    }
}

impl HistogramPoint {
    fn write(&self, out: &mut ProtoWriter) {
        write_attributes(9, &self.attributes, out);
        out.fixed64(2, self.start_time_unix_nano.0);
        out.fixed64(3, self.time_unix_nano.0);
        out.fixed64(4, self.count.0);
        if let Some(sum) = self.sum {
            out.fixed64_always(5, sum.0.to_bits());
        }
        for count in &self.bucket_counts {
            out.fixed64_always(6, count.0);
        }
        for bound in &self.explicit_bounds {
            out.fixed64_always(7, bound.0.to_bits());
        }
        out.varint(10, u64::from(self.flags.0));
    }
}

impl ExponentialPoint {
    fn write(&self, out: &mut ProtoWriter) {
        write_attributes(1, &self.attributes, out);
        out.fixed64(2, self.start_time_unix_nano.0);
        out.fixed64(3, self.time_unix_nano.0);
        out.fixed64(4, self.count.0);
        if let Some(sum) = self.sum {
            out.fixed64_always(5, sum.0.to_bits());
        }
        out.sint32(6, self.scale.0);
        out.fixed64(7, self.zero_count.0);
        for (field, buckets) in [(8, &self.positive), (9, &self.negative)] {
            out.message(field, |out| {
                out.sint32(1, buckets.offset.0);
                for count in &buckets.bucket_counts {
                    out.varint_always(2, count.0);
                }
            });
        }
        out.varint(10, u64::from(self.flags.0));
    }
}

impl SummaryPoint {
    fn write(&self, out: &mut ProtoWriter) {
        write_attributes(7, &self.attributes, out);
        out.fixed64(2, self.start_time_unix_nano.0);
        out.fixed64(3, self.time_unix_nano.0);
        out.fixed64(4, self.count.0);
        out.fixed64(5, self.sum.0.to_bits());
        for pair in &self.quantile_values {
            out.message(6, |out| {
                out.fixed64(1, pair.quantile.0.to_bits());
                out.fixed64(2, pair.value.0.to_bits());
            });
        }
        out.varint(8, u64::from(self.flags.0));
    }
}

fn write_attributes(field: u32, attributes: &[KeyValue], out: &mut ProtoWriter) {
    for attribute in attributes {
        out.message(field, |out| attribute.write(out));
    }
}

impl KeyValue {
    fn write(&self, out: &mut ProtoWriter) {
        out.bytes(1, self.key.as_bytes());
        out.message(2, |out| self.value.write(out));
    }
}

impl AnyValue {
    fn write(&self, out: &mut ProtoWriter) {
        if let Some(text) = &self.string_value {
            out.bytes_always(1, text.as_bytes());
        }
        if let Some(value) = self.bool_value {
            out.varint_always(2, u64::from(value));
        }
        if let Some(value) = self.int_value {
            out.varint_always(3, value.0 as u64);
        }
        if let Some(value) = self.double_value {
            out.fixed64_always(4, value.0.to_bits());
        }
        if let Some(array) = &self.array_value {
            out.message(5, |out| array.values.iter().for_each(|value| out.message(1, |out| value.write(out))));
        }
        if let Some(map) = &self.kvlist_value {
            out.message(6, |out| write_attributes(1, &map.values, out));
        }
        if let Some(bytes) = &self.bytes_value {
            out.bytes_always(7, &bytes.0);
        }
    }
}

message!(TraceRequest { resource_spans: Vec<ResourceSpans>, });
message!(ResourceSpans { scope_spans: Vec<ScopeSpans>, });
message!(ScopeSpans { spans: Ignored });
message!(LogsRequest { resource_logs: Vec<ResourceLogs>, });
message!(ResourceLogs { scope_logs: Vec<ScopeLogs>, });
message!(ScopeLogs { log_records: Ignored });

/// An array of which only the length counts.
#[derive(Default)]
struct Ignored(u64);

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<IgnoredAny>::deserialize(deserializer).map(|items| Self(items.len() as u64))
    }
}

/// Number of spans of a trace request.
pub(crate) fn count_spans(body: &[u8]) -> Result<u64, DecodeError> {
    let request: TraceRequest = serde_json::from_slice(body).map_err(|error| DecodeError::json(&error))?;
    Ok(request.resource_spans.iter().flat_map(|resource| &resource.scope_spans).map(|scope| scope.spans.0).sum())
}

/// Number of log records of a logs request.
pub(crate) fn count_log_records(body: &[u8]) -> Result<u64, DecodeError> {
    let request: LogsRequest = serde_json::from_slice(body).map_err(|error| DecodeError::json(&error))?;
    Ok(request.resource_logs.iter().flat_map(|resource| &resource.scope_logs).map(|scope| scope.log_records.0).sum())
}
