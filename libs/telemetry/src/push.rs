//! The catalogue as OpenTelemetry instruments that read our values when a push is due.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter, MeterProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{Instrument, PeriodicReader, SdkMeterProvider, Stream};

use crate::catalog::{ALL, Kind, Unit};
use crate::metrics::{Family, Telemetry, label_values};

impl Telemetry {
    /// Has `exporter` given all metrics, every `OTEL_METRIC_EXPORT_INTERVAL`. The SDK would bound every metric by 2,000 series; ours are bounded already.
    pub(crate) fn push(&self, exporter: impl PushMetricExporter, resource: Resource) -> SdkMeterProvider {
        let series_max = self.0.families.iter().map(Family::series_max).max().unwrap_or(1);
        let provider = SdkMeterProvider::builder()
            .with_resource(resource)
            .with_reader(PeriodicReader::builder(exporter).build())
            .with_view(move |_: &Instrument| Stream::builder().with_cardinality_limit(series_max + 2).build().ok())
            .build();
        let meter = provider.meter("headroom");
        for index in 0..ALL.len() {
            self.instrument(&meter, index);
        }
        provider
    }

    fn instrument(&self, meter: &Meter, index: usize) {
        let Some(family) = self.0.families.get(index) else { return };
        let (metric, name) = (family.metric, family.metric.otlp_name());
        let telemetry = self.clone();
        match (metric.kind, metric.unit) {
            (Kind::Counter, Unit::Seconds) => {
                meter
                    .f64_observable_counter(name)
                    .with_unit(metric.unit.ucum())
                    .with_description(metric.help)
                    .with_callback(move |observer| telemetry.observe(index, observer, |value| value))
                    .build();
            }
            (Kind::Counter, _) => {
                meter
                    .u64_observable_counter(name)
                    .with_unit(metric.unit.ucum())
                    .with_description(metric.help)
                    .with_callback(move |observer| telemetry.observe(index, observer, |value| value as u64))
                    .build();
            }
            (Kind::Gauge, _) => {
                meter
                    .f64_observable_gauge(name)
                    .with_unit(metric.unit.ucum())
                    .with_description(metric.help)
                    .with_callback(move |observer| telemetry.observe(index, observer, |value| value))
                    .build();
            }
            (Kind::Histogram, _) => {
                let histogram = meter
                    .f64_histogram(name)
                    .with_unit(metric.unit.ucum())
                    .with_description(metric.help)
                    .with_boundaries(metric.bounds().to_vec())
                    .build();
                // A second push of one process gets no histograms; there is one.
                let _ = family.twin.set(histogram);
            }
        }
    }

    fn observe<T>(&self, index: usize, observer: &dyn AsyncInstrument<T>, number: impl Fn(f64) -> T) {
        // Callbacks run in the order in which they were registered, so the first one brings all values up to date.
        if index == 0 {
            self.collect();
        }
        let Some(family) = self.0.families.get(index) else { return };
        family.for_each(|key, cell| {
            let Some(value) = cell.number(family.metric) else { return };
            let names = family.metric.labels.iter().map(|label| label.name);
            let attributes: Vec<KeyValue> =
                names.zip(label_values(key)).map(|(name, value)| KeyValue::new(name, value.to_owned())).collect();
            observer.observe(number(value), &attributes);
        });
    }
}
