//! From the records of a source to those of the sample log.

use std::sync::Arc;

use headroom_ingest::{
    ArrowDecoder, CountersDecoder, DecodeError, Decoded, Decoder, IngestReport, MessageEncoding, RecordDefaults,
    by_partition, merge, sniff,
};
use headroom_kafka::source::{Intake, Refusal, SourceMetrics, SourceRecord};
use headroom_model::{LogRecord, SampleBatch};
use headroom_telemetry::{Counter, Telemetry, catalog};

use crate::Source;

/// Samples of one record of the log, 32 bytes each; a histogram counts for as many as take its room. Beside them are the
/// servers and series that they are of, which took their room in the source's records as well.
const POINTS_PER_RECORD_MAX: usize = 65_536;

/// Decodes the records of one reader.
pub struct SampleIntake {
    encoding: Option<MessageEncoding>,
    otlp: Decoder,
    counters: CountersDecoder,
    arrow: ArrowDecoder,
    batches: Vec<SampleBatch>,
    points: usize,
    /// Among what is staged is an overdue record. All of it then counts as such: nothing is the worse for not being late.
    is_overdue: bool,
    partitions: u32,
    metrics: Metrics,
}

struct Metrics {
    telemetry: Telemetry,
    name: String,
    source: SourceMetrics,
    records: [Counter; MessageEncoding::ALL.len()],
    ignored: Counter,
}

impl SampleIntake {
    /// An intake for a log of so many partitions.
    pub fn new(source: &Source, partitions: u32, telemetry: &Telemetry, metrics: SourceMetrics) -> Self {
        let (identity, limits, name) = (&source.identity, &source.limits, source.options.name.as_str());
        let metrics = Metrics {
            records: MessageEncoding::ALL
                .map(|encoding| telemetry.counter(&catalog::KAFKA_SOURCE_RECORDS, [name, encoding.as_str()])),
            ignored: telemetry.counter(&catalog::KAFKA_SOURCE_IGNORED_FIELDS, [name]),
            telemetry: telemetry.clone(),
            name: name.to_owned(),
            source: metrics,
        };
        Self {
            encoding: source.encoding,
            otlp: Decoder::new(identity.clone(), limits.clone()),
            counters: CountersDecoder::new(identity.clone(), limits.clone()),
            arrow: ArrowDecoder::new(identity.clone(), limits.clone()),
            batches: Vec::new(),
            points: 0,
            is_overdue: false,
            partitions,
            metrics,
        }
    }

    fn decode(&mut self, encoding: MessageEncoding, record: &SourceRecord<'_>) -> Result<IngestReport, DecodeError> {
        let defaults = RecordDefaults { time_ns: record.timestamp_ms.and_then(|ms| ms.checked_mul(1_000_000)) };
        let Decoded { batch, report } = match encoding {
            MessageEncoding::OtlpProto => self.otlp.decode_protobuf(record.payload)?,
            MessageEncoding::OtlpJson => self.otlp.decode_json(record.payload)?,
            MessageEncoding::Arrow => self.arrow.decode(record.payload, defaults)?,
            MessageEncoding::Json => return self.counters.take(record.payload, defaults),
        };
        if !batch.is_empty() {
            self.points += batch.len();
            self.batches.push(batch);
        }
        Ok(report)
    }
}

impl Intake for SampleIntake {
    fn take(&mut self, record: &SourceRecord<'_>) -> Result<(), Refusal> {
        let Some(encoding) = self.encoding.or_else(|| sniff(record.content_type, record.payload)) else {
            return Err(Refusal {
                reason: if record.payload.is_empty() { "empty" } else { "unknown_encoding" },
                message: "neither a content-type nor the first byte says what this is; set the source's encoding"
                    .to_owned(),
                encoding: "",
            });
        };
        let report = self.decode(encoding, record).map_err(|error| Refusal {
            reason: "undecodable",
            message: error.to_string(),
            encoding: encoding.as_str(),
        })?;
        // A record of which nothing could be used is as useless as a damaged one, and as worth looking at.
        let reason = report.rejections().next().map(|(reason, _)| reason);
        if let Some(reason) = reason.filter(|_| report.accepted_points == 0) {
            let message = report.message.unwrap_or_default();
            return Err(Refusal { reason: reason.as_str(), message, encoding: encoding.as_str() });
        }
        // Nor is one that says nothing: a topic is there for samples, and whatever is read as the wrong thing is empty.
        if report.accepted_points == 0 {
            let message = nothing_in(encoding, sniff(None, record.payload));
            return Err(Refusal { reason: "no_samples", message, encoding: encoding.as_str() });
        }
        self.metrics.count(encoding, &report);
        self.is_overdue |= record.is_overdue;
        Ok(())
    }

    fn staged_points(&self) -> usize {
        self.points + self.counters.len()
    }

    fn hand_over(&mut self) -> Vec<(u32, Arc<LogRecord>)> {
        self.points = 0;
        let mut batches = std::mem::take(&mut self.batches);
        let into_record = if std::mem::take(&mut self.is_overdue) { LogRecord::Overdue } else { LogRecord::Samples };
        let counters = self.counters.finish();
        if !counters.is_empty() {
            batches.push(counters);
        }
        by_partition(merge(batches), self.partitions)
            .into_iter()
            .flat_map(|(partition, batch)| {
                let parts = batch.split_rows(POINTS_PER_RECORD_MAX);
                parts.into_iter().map(move |part| (partition, Arc::new(into_record(Arc::new(part)))))
            })
            .collect()
    }
}

/// What to do about a record without samples, read as one encoding, when it looks like another.
fn nothing_in(encoding: MessageEncoding, looks_like: Option<MessageEncoding>) -> String {
    match looks_like.filter(|looks_like| *looks_like != encoding) {
        Some(other) => format!(
            "read as {} it has no samples, but it looks like {}: set the source's encoding to that, or to auto",
            encoding.as_str(),
            other.as_str()
        ),
        None => format!("it has no samples, read as {}", encoding.as_str()),
    }
}

impl Metrics {
    fn count(&self, encoding: MessageEncoding, report: &IngestReport) {
        self.records[encoding as usize].inc();
        self.ignored.add(report.ignored_fields);
        for (what, count) in report.left_out() {
            self.telemetry.counter(&catalog::KAFKA_SOURCE_LEFT_OUT, [&self.name, what]).add(count);
        }
        for (reason, points) in report.rejections() {
            self.source.rejected(reason.as_str(), points, report.message.as_deref().unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headroom_ingest::{IdentityConfig, IngestLimits};
    use headroom_kafka::Connection;
    use headroom_kafka::source::{GroupProtocol, SourceOptions, Start};
    use headroom_telemetry::TelemetryOptions;

    fn intake(encoding: Option<MessageEncoding>, telemetry: &Telemetry) -> SampleIntake {
        let source = Source {
            options: SourceOptions {
                name: "s".into(),
                connection: Connection::default(),
                topics: vec!["t".into()],
                group: "g".into(),
                group_protocol: GroupProtocol::Classic,
                start: Start::Earliest,
                bytes_max: 0,
                dead_letter_topic: None,
                wall_ms: || i64::MAX,
            },
            encoding,
            identity: IdentityConfig::default(),
            limits: IngestLimits::default(),
            readers: 1,
        };
        SampleIntake::new(&source, 4, telemetry, SourceMetrics::new(telemetry, "s"))
    }

    fn record(payload: &[u8]) -> SourceRecord<'_> {
        SourceRecord {
            topic: "t",
            partition: 0,
            offset: 0,
            timestamp_ms: Some(1_795_255_210_007),
            is_overdue: false,
            content_type: None,
            payload,
        }
    }

    fn counter(server: &str, cell: &str) -> Vec<u8> {
        format!(r#"{{"server":"{server}","cell":"{cell}","gauges":{{"m":1}}}}"#).into_bytes()
    }

    #[test]
    fn records_are_gathered_and_handed_over_by_the_partition_of_their_cell() {
        let telemetry = Telemetry::new(TelemetryOptions { server_series_max: 0 });
        let mut intake = intake(None, &telemetry);
        let cells: Vec<String> = (0..20).map(|cell| format!("cell-{cell}")).collect();
        for cell in &cells {
            intake.take(&record(&counter("a", cell))).unwrap();
        }
        assert_eq!(intake.staged_points(), 20);
        let mut handed = 0;
        for (partition, part) in intake.hand_over() {
            let LogRecord::Samples(batch) = &*part else { panic!("not samples") };
            handed += batch.len();
            for resource in &batch.resources {
                assert_eq!(headroom_model::hash::partition_of(&resource.cell, 4), partition);
            }
            // Without a time of its own a record has that of its message.
            assert!(batch.points.time_ns.iter().all(|time| *time == 1_795_255_210_007_000_000));
        }
        assert_eq!(handed, 20);
        assert!(intake.hand_over().is_empty());
    }

    #[test]
    fn one_overdue_record_makes_all_that_it_is_staged_with_overdue() {
        let telemetry = Telemetry::new(TelemetryOptions { server_series_max: 0 });
        let mut intake = intake(None, &telemetry);
        for (records, expected) in [(&[false, false][..], false), (&[false, true, false], true), (&[false], false)] {
            for is_overdue in records {
                let payload = counter("a", "eu-1");
                intake.take(&SourceRecord { is_overdue: *is_overdue, ..record(&payload) }).unwrap();
            }
            let handed = intake.hand_over();
            assert_eq!(handed.len(), 1);
            assert_eq!(matches!(&*handed[0].1, LogRecord::Overdue(_)), expected, "{records:?}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_reason_and_leaves_nothing() {
        let telemetry = Telemetry::new(TelemetryOptions { server_series_max: 0 });
        let json = Some(MessageEncoding::Json);
        for (encoding, payload, reason, named) in [
            (None, &b""[..], "empty", ""),
            (None, b"cpu 1", "unknown_encoding", ""),
            (json, b"cpu 1", "undecodable", "json"),
            (None, b"{\"gauges\":{\"m\":1}}", "no_identity", "json"),
            (Some(MessageEncoding::Arrow), b"{}", "undecodable", "arrow"),
            (Some(MessageEncoding::OtlpJson), b"[1]", "undecodable", "otlp_json"),
            (None, b"[]", "no_samples", "json"),
            (None, b"{\"server\":\"a\",\"gauges\":{}}", "no_samples", "json"),
            (None, b"{\"gauges\":{}}", "no_samples", "json"),
            (None, b"{\"resourceMetrics\":[]}", "no_samples", "otlp_json"),
        ] {
            let mut intake = intake(encoding, &telemetry);
            let refusal = intake.take(&record(payload)).unwrap_err();
            assert_eq!((refusal.reason, refusal.encoding), (reason, named), "{refusal:?}");
            assert!(!refusal.message.is_empty() && intake.hand_over().is_empty(), "{refusal:?}");
        }
    }

    #[test]
    fn counter_records_read_as_otlp_are_refused_by_what_they_look_like() {
        let telemetry = Telemetry::new(TelemetryOptions { server_series_max: 0 });
        let mut intake = intake(Some(MessageEncoding::OtlpJson), &telemetry);
        let refusal = intake.take(&record(&counter("a", "c"))).unwrap_err();
        assert_eq!((refusal.reason, refusal.encoding), ("no_samples", "otlp_json"));
        assert!(refusal.message.contains("looks like json"), "{}", refusal.message);
        assert_eq!(intake.metrics.records[MessageEncoding::OtlpJson as usize].get(), 0);
    }

    #[test]
    fn samples_rejected_beside_good_ones_are_counted_with_their_reason() {
        let telemetry = Telemetry::new(TelemetryOptions { server_series_max: 0 });
        let mut intake = intake(None, &telemetry);
        intake.take(&record(br#"{"server":"a","gauges":{"m":1,"n":null},"x":0}"#)).unwrap();
        assert_eq!(intake.staged_points(), 1);
        let refused = intake.metrics.source.refusals();
        assert_eq!(refused.iter().map(|each| (each.reason, each.count)).collect::<Vec<_>>(), [("no_value", 1)]);
        assert!(refused[0].message.contains("no `value`"), "{}", refused[0].message);
        assert_eq!(intake.metrics.ignored.get(), 1);

        let long = "x".repeat(2000);
        let record_of =
            format!(r#"{{"server":"a","gauges":{{"m":1}},"aliases":["{long}"],"attributes":{{"b":"{long}"}}}}"#);
        intake.take(&record(record_of.as_bytes())).unwrap();
        for what in ["alias", "attribute_value"] {
            let line = format!("headroom_kafka_source_left_out_values_total{{source=\"s\",what=\"{what}\"}} 1");
            assert!(telemetry.render().contains(&line), "{line}");
        }
    }
}
