//! Random requests, small enough to be read when one fails.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::*;
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        4 => "[a-c\"\\\\\n]{0,3}".prop_map(Value::StringValue),
        1 => any::<bool>().prop_map(Value::BoolValue),
        1 => any::<i64>().prop_map(Value::IntValue),
        1 => prop_oneof![Just(1.5), Just(2.0), Just(1e300)].prop_map(Value::DoubleValue),
        1 => vec(any::<u8>(), 0..5).prop_map(Value::BytesValue),
    ]
    .prop_map(|value| AnyValue { value: Some(value) });
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(|values| Value::ArrayValue(ArrayValue { values })),
            vec(("[a-b]", inner), 0..3).prop_map(|pairs| {
                let values =
                    pairs.into_iter().map(|(key, value)| KeyValue { key, value: Some(value), ..Default::default() });
                Value::KvlistValue(KeyValueList { values: values.collect() })
            }),
        ]
        .prop_map(|value| AnyValue { value: Some(value) })
    })
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let key = prop_oneof![Just("cpu"), Just("state"), Just("device"), Just("quantile"), Just("otel.scope.name")];
    vec((key, any_value()), 0..4).prop_map(|pairs| {
        let pairs = pairs.into_iter();
        pairs.map(|(key, value)| KeyValue { key: key.to_owned(), value: Some(value), ..Default::default() }).collect()
    })
}

fn time() -> impl Strategy<Value = u64> {
    let now = 1_795_255_210_000_000_000u64;
    prop_oneof![6 => now..now + 1000, 1 => Just(0), 1 => 1..1000u64, 1 => Just(1 << 63)]
}

fn number() -> impl Strategy<Value = NumberDataPoint> {
    let value = option::weighted(
        0.9,
        prop_oneof![
            (-9i32..9).prop_map(|value| number_data_point::Value::AsDouble(f64::from(value) / 4.0)),
            any::<i64>().prop_map(number_data_point::Value::AsInt),
        ],
    );
    (attributes(), time(), time(), value, 0u32..4).prop_map(|(attributes, start, time, value, flags)| NumberDataPoint {
        attributes,
        start_time_unix_nano: start,
        time_unix_nano: time,
        value,
        flags,
        ..Default::default()
    })
}

fn histogram() -> impl Strategy<Value = HistogramDataPoint> {
    (attributes(), time(), vec(-2i8..9, 0..4), vec(0u64..9, 0..5), option::of(0u8..9), 0u32..2).prop_map(
        |(attributes, time, bounds, bucket_counts, sum, flags)| {
            let mut explicit_bounds: Vec<f64> = bounds.into_iter().map(f64::from).collect();
            explicit_bounds.sort_by(f64::total_cmp);
            HistogramDataPoint {
                attributes,
                start_time_unix_nano: 1,
                time_unix_nano: time,
                count: bucket_counts.iter().sum(),
                sum: sum.map(f64::from),
                bucket_counts,
                explicit_bounds,
                flags,
                ..Default::default()
            }
        },
    )
}

fn buckets() -> impl Strategy<Value = Option<Buckets>> {
    let offset = prop_oneof![4 => -9i32..9, 1 => Just(i32::MAX)];
    option::of((offset, vec(0u64..999, 0..5)).prop_map(|(offset, bucket_counts)| Buckets { offset, bucket_counts }))
}

fn exponential() -> impl Strategy<Value = ExponentialHistogramDataPoint> {
    (attributes(), time(), -11i32..22, buckets(), buckets(), 0u32..2).prop_map(
        |(attributes, time, scale, positive, negative, flags)| ExponentialHistogramDataPoint {
            attributes,
            time_unix_nano: time,
            count: 3,
            sum: Some(2.5),
            scale,
            zero_count: 1,
            positive,
            negative,
            flags,
            ..Default::default()
        },
    )
}

fn summary() -> impl Strategy<Value = SummaryDataPoint> {
    let quantile = prop_oneof![Just(0.0), Just(0.5), Just(0.99), Just(1.0)];
    (attributes(), time(), vec((quantile, 0u8..9), 0..3), 0u32..2).prop_map(|(attributes, time, quantiles, flags)| {
        let pairs =
            quantiles.into_iter().map(|(quantile, value)| ValueAtQuantile { quantile, value: f64::from(value) });
        let quantile_values = pairs.collect();
        SummaryDataPoint {
            attributes,
            time_unix_nano: time,
            count: 4,
            sum: 1.5,
            quantile_values,
            flags,
            ..Default::default()
        }
    })
}

fn data() -> impl Strategy<Value = Option<Data>> {
    let temporality = 0i32..4;
    option::weighted(
        0.95,
        prop_oneof![
            vec(number(), 0..4).prop_map(|data_points| Data::Gauge(Gauge { data_points })),
            (vec(number(), 0..4), temporality.clone(), any::<bool>()).prop_map(
                |(data_points, temporality, monotonic)| {
                    Data::Sum(Sum { data_points, aggregation_temporality: temporality, is_monotonic: monotonic })
                }
            ),
            (vec(histogram(), 0..3), temporality.clone()).prop_map(|(data_points, temporality)| {
                Data::Histogram(Histogram { data_points, aggregation_temporality: temporality })
            }),
            (vec(exponential(), 0..3), temporality).prop_map(|(data_points, temporality)| {
                Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality: temporality })
            }),
            vec(summary(), 0..3).prop_map(|data_points| Data::Summary(Summary { data_points })),
        ],
    )
}

fn resource() -> impl Strategy<Value = Option<Resource>> {
    let key = prop_oneof![4 => Just("host.name"), 1 => Just("service.name"), 1 => Just("headroom.cell"), 1 => Just("host.ip")];
    let attribute = (key, any_value()).prop_map(|(key, value)| KeyValue {
        key: key.to_owned(),
        value: Some(value),
        ..Default::default()
    });
    option::weighted(0.9, vec(attribute, 0..4).prop_map(|attributes| Resource { attributes, ..Default::default() }))
}

/// Any request, with all that OTLP allows and some that it does not.
pub fn request() -> impl Strategy<Value = ExportMetricsServiceRequest> {
    let metric =
        ("(m[ab])?", "[su]?", data()).prop_map(|(name, unit, data)| Metric { name, unit, data, ..Default::default() });
    let scope =
        option::of("[xy]?").prop_map(|name| name.map(|name| InstrumentationScope { name, ..Default::default() }));
    let scope_metrics =
        (scope, vec(metric, 0..4)).prop_map(|(scope, metrics)| ScopeMetrics { scope, metrics, ..Default::default() });
    let resource_metrics = (resource(), vec(scope_metrics, 0..3))
        .prop_map(|(resource, scope_metrics)| ResourceMetrics { resource, scope_metrics, ..Default::default() });
    vec(resource_metrics, 0..4).prop_map(|resource_metrics| ExportMetricsServiceRequest { resource_metrics })
}
