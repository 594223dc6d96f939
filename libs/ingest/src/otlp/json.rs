//! OTLP/JSON, by way of protobuf: the JSON is written as protobuf while it is read, and the walk does the rest. So both
//! encodings have the same meaning by construction, and only one of them has to be fast.
//!
//! Nothing is kept of a field but its bytes: three bytes of JSON, `{},`, can be a whole metric or point, which as an
//! object would take a hundred times as many. As protobuf no body becomes more than four times as
//! large: a bucket is two bytes of JSON, `0,`, and eight of protobuf.
//!
//! The rules are OTLP's, not protobuf's JSON mapping: field names in lowerCamelCase only, enums as numbers only, 64-bit
//! integers as strings or numbers, unknown fields ignored, `null` as if absent. Errors say line and column.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};

use super::attributes::base64_decode;
use super::proto_writer::ProtoWriter;
use crate::decoder::DecodeError;

/// A metrics request as protobuf.
pub(crate) fn to_protobuf(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    convert(body, &REQUEST)
}

/// A traces request as protobuf, its spans empty.
pub(crate) fn traces_to_protobuf(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    convert(body, &TRACES)
}

/// A logs request as protobuf, its records empty.
pub(crate) fn logs_to_protobuf(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    convert(body, &LOGS)
}

fn convert(body: &[u8], message: &'static [Field]) -> Result<Vec<u8>, DecodeError> {
    let mut out = ProtoWriter::default();
    let mut json = serde_json::Deserializer::from_slice(body);
    json.deserialize_map(Fields { message, out: &mut out })
        .and_then(|()| json.end())
        .map_err(|error| DecodeError::json(&error))?;
    Ok(out.finish())
}

/// A field of a message: its name in JSON, its number in protobuf, and what it holds.
struct Field(&'static str, u32, Kind);

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Base64,
    Bool,
    Enum,
    Int64,
    UInt32,
    SInt32,
    Fixed64,
    SFixed64,
    Double,
    Message(&'static [Field]),
    Messages(&'static [Field]),
    Varints,
    Fixed64s,
    Doubles,
}

static REQUEST: [Field; 1] = [Field("resourceMetrics", 1, Kind::Messages(&RESOURCE_METRICS))];
static RESOURCE_METRICS: [Field; 2] =
    [Field("resource", 1, Kind::Message(&RESOURCE)), Field("scopeMetrics", 2, Kind::Messages(&SCOPE_METRICS))];
static RESOURCE: [Field; 1] = [Field("attributes", 1, Kind::Messages(&KEY_VALUE))];
static SCOPE_METRICS: [Field; 2] =
    [Field("scope", 1, Kind::Message(&SCOPE)), Field("metrics", 2, Kind::Messages(&METRIC))];
static SCOPE: [Field; 1] = [Field("name", 1, Kind::Text)];
static METRIC: [Field; 7] = [
    Field("name", 1, Kind::Text),
    Field("unit", 3, Kind::Text),
    Field("gauge", 5, Kind::Message(&GAUGE)),
    Field("sum", 7, Kind::Message(&SUM)),
    Field("histogram", 9, Kind::Message(&HISTOGRAM)),
    Field("exponentialHistogram", 10, Kind::Message(&EXPONENTIAL)),
    Field("summary", 11, Kind::Message(&SUMMARY)),
];
static GAUGE: [Field; 1] = [Field("dataPoints", 1, Kind::Messages(&NUMBER_POINT))];
static SUM: [Field; 3] = [
    Field("dataPoints", 1, Kind::Messages(&NUMBER_POINT)),
    Field("aggregationTemporality", 2, Kind::Enum),
    Field("isMonotonic", 3, Kind::Bool),
];
static HISTOGRAM: [Field; 2] =
    [Field("dataPoints", 1, Kind::Messages(&HISTOGRAM_POINT)), Field("aggregationTemporality", 2, Kind::Enum)];
static EXPONENTIAL: [Field; 2] =
    [Field("dataPoints", 1, Kind::Messages(&EXPONENTIAL_POINT)), Field("aggregationTemporality", 2, Kind::Enum)];
static SUMMARY: [Field; 1] = [Field("dataPoints", 1, Kind::Messages(&SUMMARY_POINT))];
static NUMBER_POINT: [Field; 6] = [
    Field("attributes", 7, Kind::Messages(&KEY_VALUE)),
    Field("startTimeUnixNano", 2, Kind::Fixed64),
    Field("timeUnixNano", 3, Kind::Fixed64),
    Field("asDouble", 4, Kind::Double),
    Field("asInt", 6, Kind::SFixed64),
    Field("flags", 8, Kind::UInt32),
];
static HISTOGRAM_POINT: [Field; 8] = [
    Field("attributes", 9, Kind::Messages(&KEY_VALUE)),
    Field("startTimeUnixNano", 2, Kind::Fixed64),
    Field("timeUnixNano", 3, Kind::Fixed64),
    Field("count", 4, Kind::Fixed64),
    Field("sum", 5, Kind::Double),
    Field("bucketCounts", 6, Kind::Fixed64s),
    Field("explicitBounds", 7, Kind::Doubles),
    Field("flags", 10, Kind::UInt32),
];
static EXPONENTIAL_POINT: [Field; 10] = [
    Field("attributes", 1, Kind::Messages(&KEY_VALUE)),
    Field("startTimeUnixNano", 2, Kind::Fixed64),
    Field("timeUnixNano", 3, Kind::Fixed64),
    Field("count", 4, Kind::Fixed64),
    Field("sum", 5, Kind::Double),
    Field("scale", 6, Kind::SInt32),
    Field("zeroCount", 7, Kind::Fixed64),
    Field("positive", 8, Kind::Message(&BUCKETS)),
    Field("negative", 9, Kind::Message(&BUCKETS)),
    Field("flags", 10, Kind::UInt32),
];
static BUCKETS: [Field; 2] = [Field("offset", 1, Kind::SInt32), Field("bucketCounts", 2, Kind::Varints)];
static SUMMARY_POINT: [Field; 7] = [
    Field("attributes", 7, Kind::Messages(&KEY_VALUE)),
    Field("startTimeUnixNano", 2, Kind::Fixed64),
    Field("timeUnixNano", 3, Kind::Fixed64),
    Field("count", 4, Kind::Fixed64),
    Field("sum", 5, Kind::Double),
    Field("quantileValues", 6, Kind::Messages(&QUANTILE)),
    Field("flags", 8, Kind::UInt32),
];
static QUANTILE: [Field; 2] = [Field("quantile", 1, Kind::Double), Field("value", 2, Kind::Double)];
static KEY_VALUE: [Field; 2] = [Field("key", 1, Kind::Text), Field("value", 2, Kind::Message(&ANY_VALUE))];
static ANY_VALUE: [Field; 7] = [
    Field("stringValue", 1, Kind::Text),
    Field("boolValue", 2, Kind::Bool),
    Field("intValue", 3, Kind::Int64),
    Field("doubleValue", 4, Kind::Double),
    Field("arrayValue", 5, Kind::Message(&ARRAY)),
    Field("kvlistValue", 6, Kind::Message(&KEY_VALUES)),
    Field("bytesValue", 7, Kind::Base64),
];
static ARRAY: [Field; 1] = [Field("values", 1, Kind::Messages(&ANY_VALUE))];
static KEY_VALUES: [Field; 1] = [Field("values", 1, Kind::Messages(&KEY_VALUE))];

static TRACES: [Field; 1] = [Field("resourceSpans", 1, Kind::Messages(&RESOURCE_SPANS))];
static RESOURCE_SPANS: [Field; 1] = [Field("scopeSpans", 2, Kind::Messages(&SCOPE_SPANS))];
static SCOPE_SPANS: [Field; 1] = [Field("spans", 2, Kind::Messages(&[]))];
static LOGS: [Field; 1] = [Field("resourceLogs", 1, Kind::Messages(&RESOURCE_LOGS))];
static RESOURCE_LOGS: [Field; 1] = [Field("scopeLogs", 2, Kind::Messages(&SCOPE_LOGS))];
static SCOPE_LOGS: [Field; 1] = [Field("logRecords", 2, Kind::Messages(&[]))];

/// Writes the fields of an object.
struct Fields<'w> {
    message: &'static [Field],
    out: &'w mut ProtoWriter,
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = 0u32;
        while let Some(at) = map.next_key_seed(Name(self.message))? {
            let Some(Field(name, number, kind)) = at.and_then(|at| self.message.get(at)) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let bit = 1 << at.unwrap_or_default();
            if seen & bit != 0 {
                return Err(de::Error::duplicate_field(name));
            }
            seen |= bit;
            map.next_value_seed(Content { number: *number, kind: *kind, out: self.out })?;
        }
        Ok(())
    }
}

/// The place in a message of the field that has this name.
struct Name(&'static [Field]);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|field| field.0 == name))
    }
}

/// Writes what a field holds. Members of a `oneof` and items of lists stand even if they are 0, so all do.
struct Content<'w> {
    number: u32,
    kind: Kind,
    out: &'w mut ProtoWriter,
}

impl<'de> DeserializeSeed<'de> for Content<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        let Self { number, kind, out } = self;
        match kind {
            Kind::Bool => {
                if let Some(value) = Option::<bool>::deserialize(json)? {
                    out.varint_always(number, u64::from(value));
                }
            }
            Kind::Enum => {
                if let Some(value) = Option::<Enum>::deserialize(json)? {
                    out.varint_always(number, value.0 as u64);
                }
            }
            Kind::Int64 => {
                if let Some(value) = Option::<Integer<i64>>::deserialize(json)? {
                    out.varint_always(number, value.0 as u64);
                }
            }
            Kind::UInt32 => {
                if let Some(value) = Option::<Integer<u32>>::deserialize(json)? {
                    out.varint_always(number, u64::from(value.0));
                }
            }
            Kind::SInt32 => {
                if let Some(value) = Option::<Integer<i32>>::deserialize(json)? {
                    out.sint32(number, value.0);
                }
            }
            Kind::Fixed64 => {
                if let Some(value) = Option::<Integer<u64>>::deserialize(json)? {
                    out.fixed64_always(number, value.0);
                }
            }
            Kind::SFixed64 => {
                if let Some(value) = Option::<Integer<i64>>::deserialize(json)? {
                    out.fixed64_always(number, value.0 as u64);
                }
            }
            Kind::Double => {
                if let Some(value) = Option::<Double>::deserialize(json)? {
                    out.fixed64_always(number, value.0.to_bits());
                }
            }
            _ => return json.deserialize_any(Self { number, kind, out }),
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Content<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Text => "a string",
            Kind::Base64 => "Base64",
            Kind::Message(_) => "an object",
            _ => "an array",
        })
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        match self.kind {
            Kind::Text => self.out.bytes_always(self.number, text.as_bytes()),
            Kind::Base64 => match base64_decode(text) {
                Some(bytes) => self.out.bytes_always(self.number, &bytes),
                None => return Err(E::invalid_value(Unexpected::Str(text), &self)),
            },
            _ => return Err(E::invalid_type(Unexpected::Str(text), &self)),
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Kind::Message(message) = self.kind else {
            return Err(de::Error::invalid_type(Unexpected::Map, &self));
        };
        let from = self.out.begin(self.number);
        Fields { message, out: self.out }.visit_map(map)?;
        self.out.end(from);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { number, kind, out } = self;
        if let Kind::Messages(message) = kind {
            while list.next_element_seed(Content { number, kind: Kind::Message(message), out })?.is_some() {}
            return Ok(());
        }
        let from = out.begin(number);
        match kind {
            Kind::Varints => {
                while let Some(Integer(value)) = list.next_element::<Integer<u64>>()? {
                    out.raw_varint(value);
                }
            }
            Kind::Fixed64s => {
                while let Some(Integer(value)) = list.next_element::<Integer<u64>>()? {
                    out.raw_fixed64(value);
                }
            }
            Kind::Doubles => {
                while let Some(Double(value)) = list.next_element()? {
                    out.raw_fixed64(value.to_bits());
                }
            }
            _ => return Err(de::Error::invalid_type(Unexpected::Seq, &Content { number, kind, out })),
        }
        out.end(from);
        Ok(())
    }
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
                    .map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &self))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
                T::try_from(i128::from(value))
                    .map(Integer)
                    .map_err(|_| E::invalid_value(Unexpected::Signed(value), &self))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
                let whole = value.fract() == 0.0 && value.abs() < 2f64.powi(64);
                let number = if whole { T::try_from(value as i128).ok() } else { None };
                number.map(Integer).ok_or_else(|| E::invalid_value(Unexpected::Float(value), &self))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
                let number = value.parse::<i128>().ok().and_then(|number| T::try_from(number).ok());
                number.map(Integer).ok_or_else(|| E::invalid_value(Unexpected::Str(value), &self))
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
                        number.parse().map(Double).map_err(|_| E::invalid_value(Unexpected::Str(value), &self))
                    }
                    _ => Err(E::invalid_value(Unexpected::Str(value), &self)),
                }
            }
        }
        deserializer.deserialize_any(DoubleVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest things that JSON can say, as often as a body has room for them.
    #[test]
    fn no_body_becomes_much_more_than_it_was() {
        let many = |item: &str| format!("[{}]", vec![item; 50_000].join(","));
        for (before, item, after) in [
            (r#"{"resourceMetrics":"#, "{}", "}"),
            (r#"{"resourceMetrics":[{"scopeMetrics":"#, "{}", "}]}"),
            (r#"{"resourceMetrics":[{"resource":{"attributes":"#, "{}", "}}]}"),
            (r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":"#, "{}", "}]}]}"),
            (r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"sum":{"dataPoints":"#, "{}", "}}]}]}]}"),
            (
                r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"histogram":{"dataPoints":[{"bucketCounts":"#,
                "0",
                "}]}}]}]}]}",
            ),
            (
                r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"histogram":{"dataPoints":[{"explicitBounds":"#,
                "0",
                "}]}}]}]}]}",
            ),
            (
                r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"summary":{"dataPoints":[{"quantileValues":"#,
                "{}",
                "}]}}]}]}]}",
            ),
        ] {
            let body = format!("{before}{}{after}", many(item));
            let protobuf = to_protobuf(body.as_bytes()).unwrap();
            assert!(protobuf.len() <= 4 * body.len(), "{before}: {} of {}", protobuf.len(), body.len());
        }
        let spans = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":{}}}]}}]}}"#, many("{}"));
        assert!(traces_to_protobuf(spans.as_bytes()).unwrap().len() <= spans.len());
    }

    #[test]
    fn fields_come_in_any_order_and_once() {
        let late = r#"{"resourceMetrics":[{"scopeMetrics":[{"scope":{"name":"s"}}],"resource":{"attributes":[]}}]}"#;
        assert_eq!(to_protobuf(late.as_bytes()).unwrap(), [0x0a, 9, 0x12, 5, 0x0a, 3, 0x0a, 1, b's', 0x0a, 0]);
        let twice = r#"{"resourceMetrics":[],"resourceMetrics":[]}"#;
        assert!(to_protobuf(twice.as_bytes()).unwrap_err().to_string().contains("duplicate field"));
        for wrong in ["null", "[]", "{} {}", r#"{"resourceMetrics":{}}"#, r#"{"resourceMetrics":["a"]}"#] {
            assert!(to_protobuf(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
