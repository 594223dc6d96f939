//! From the records of a source to those of the sample log.

use std::sync::Arc;

use headroom_ingest::{
    ArrowDecoder, CountersDecoder, DecodeError, Decoded, Decoder, IngestReport, MessageEncoding, RecordDefaults,
    by_partition, merge, sniff,
};
use headroom_kafka::source::{Intake, Refusal, SourceRecord};
use headroom_model::{LogRecord, SampleBatch};
use headroom_telemetry::{Counter, Telemetry, catalog};

use crate::Source;

/// Samples of one record of the log. At most 32 bytes each, dictionaries beside them, it stays well below the bound of
/// every log.
const POINTS_PER_RECORD_MAX: usize = 65_536;

/// Decodes the records of one reader.
pub struct SampleIntake {
    encoding: Option<MessageEncoding>,
    otlp: Decoder,
    counters: CountersDecoder,
    arrow: ArrowDecoder,
    batches: Vec<SampleBatch>,
    points: usize,
    partitions: u32,
    metrics: Metrics,
}

struct Metrics {
    telemetry: Telemetry,
    source: String,
    records: [Counter; MessageEncoding::ALL.len()],
    accepted: Counter,
    ignored: Counter,
}

impl SampleIntake {
    /// An intake for a log of so many partitions.
    pub fn new(source: &Source, partitions: u32, telemetry: &Telemetry) -> Self {
        let (identity, limits, name) = (&source.identity, &source.limits, source.options.name.as_str());
        let metrics = Metrics {
            records: MessageEncoding::ALL
                .map(|encoding| telemetry.counter(&catalog::KAFKA_SOURCE_RECORDS, [name, encoding.as_str()])),
            accepted: telemetry.counter(&catalog::KAFKA_SOURCE_POINTS, [name]),
            ignored: telemetry.counter(&catalog::KAFKA_SOURCE_IGNORED_FIELDS, [name]),
            telemetry: telemetry.clone(),
            source: name.to_owned(),
        };
        Self {
            encoding: source.encoding,
            otlp: Decoder::new(identity.clone(), limits.clone()),
            counters: CountersDecoder::new(identity.clone(), limits.clone()),
            arrow: ArrowDecoder::new(identity.clone(), limits.clone()),
            batches: Vec::new(),
            points: 0,
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
        self.metrics.count(encoding, &report);
        // A record of which nothing could be used is as useless as a damaged one, and as worth looking at.
        let reason = report.rejections().next().map(|(reason, _)| reason);
        match reason {
            Some(reason) if report.accepted_points == 0 => Err(Refusal {
                reason: reason.as_str(),
                message: report.message.unwrap_or_default(),
                encoding: encoding.as_str(),
            }),
            _ => Ok(()),
        }
    }

    fn staged_points(&self) -> usize {
        self.points + self.counters.len()
    }

    fn hand_over(&mut self) -> Vec<(u32, Arc<LogRecord>)> {
        self.points = 0;
        let mut batches = std::mem::take(&mut self.batches);
        let counters = self.counters.finish();
        if !counters.is_empty() {
            batches.push(counters);
        }
        by_partition(merge(batches), self.partitions)
            .into_iter()
            .flat_map(|(partition, batch)| {
                let parts = batch.split_rows(POINTS_PER_RECORD_MAX);
                parts.into_iter().map(move |part| (partition, Arc::new(LogRecord::Samples(Arc::new(part)))))
            })
            .collect()
    }
}

impl Metrics {
    fn count(&self, encoding: MessageEncoding, report: &IngestReport) {
        self.records[encoding as usize].inc();
        self.accepted.add(report.accepted_points);
        self.ignored.add(report.ignored_fields);
        for (reason, points) in report.rejections() {
            let labels = [self.source.as_str(), reason.as_str()];
            self.telemetry.counter(&catalog::KAFKA_SOURCE_REJECTED_POINTS, labels).add(points);
        }
    }
}
