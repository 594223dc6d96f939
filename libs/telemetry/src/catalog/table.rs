//! The entries themselves. To add one: write it here, then `schemas/metrics.md` is made anew from it.
//!
//! The bounds on series are the product of what each label can take, with room; `cell` counts for [`CELLS`], `class` for
//! [`CLASSES`], a partition for [`PARTITIONS`].

use super::{CounterDef as Counter, GaugeDef as Gauge, HistogramDef as Histogram, Label, Metric, Unit};

/// Cells for which one process shows series of their own.
const CELLS: usize = 256;
/// Workload classes of a policy.
const CLASSES: usize = 8;
/// Partitions of the sample log that one process owns.
const PARTITIONS: usize = 64;
/// Pools, over all cells.
const POOLS: usize = 1024;

macro_rules! catalog {
    ($($kind:ident $id:ident, $name:literal, $unit:expr, $series:expr, $help:literal, [$($label:ident: $meaning:literal),*];)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "the entries' own names, to number them")]
        enum Index { $($id),* }

        $(
            #[doc = concat!("`", $name, "`: ", $help)]
            pub static $id: $kind<{ <[&str]>::len(&[$(stringify!($label)),*]) }> =
                $kind(Metric {
                    index: Index::$id as usize,
                    name: $name,
                    kind: $kind::<0>::KIND,
                    unit: $unit,
                    help: $help,
                    labels: &[$(Label { name: stringify!($label), meaning: $meaning }),*],
                    series_max: $series,
                });
        )*

        /// Every entry, in the order of `schemas/metrics.md`.
        pub static ALL: &[&Metric] = &[$(&$id.0),*];
    };
}

catalog! {
    // The process.
    Gauge BUILD_INFO, "headroom_build_info", Unit::Count("build"), 4,
        "Which build runs in which role; the value is 1.",
        [version: "version of the program", revision: "revision it was built from, or `unknown`",
         role: "`all`, `otlp-ingestor`, `kafka-ingestor`, `aggregator` or `health-api`"];
    Counter PROCESS_CPU, "process_cpu_seconds_total", Unit::Seconds, 1,
        "CPU time of the process, user and system.", [];
    Gauge PROCESS_RESIDENT_MEMORY, "process_resident_memory_bytes", Unit::Bytes, 1,
        "Memory of the process that lies in RAM.", [];
    Gauge PROCESS_OPEN_FDS, "process_open_fds", Unit::Count("file"), 1,
        "Open file descriptors of the process.", [];
    Gauge PROCESS_START_TIME, "process_start_time_seconds", Unit::Seconds, 1,
        "When the process started, in seconds since 1970.", [];
    Counter TELEMETRY_SERIES_REFUSED, "headroom_telemetry_series_refused_total", Unit::Count("request"), 256,
        "Times a combination of label values was not given a series of its own because its metric was full.",
        [metric: "name of the full metric"];
    Gauge READINESS_CHECKS_PASSING, "headroom_readiness_check_passing", Unit::Count("check"), 32,
        "Whether a readiness check passes: 1 or 0.",
        [check: "name of the check, as `/readyz?verbose` lists it"];

    // Ingest by OTLP.
    Counter OTLP_REQUESTS, "headroom_otlp_requests_total", Unit::Count("request"), 128,
        "OTLP export requests answered.",
        [transport: "`grpc` or `http`", encoding: "`protobuf` or `json`",
         code: "HTTP status, or the gRPC status code's name in upper case"];
    Counter OTLP_RECEIVED, "headroom_otlp_received_bytes_total", Unit::Bytes, 4,
        "Bytes of request bodies as received, before decompression.",
        [transport: "`grpc` or `http`"];
    Counter OTLP_POINTS_ACCEPTED, "headroom_otlp_accepted_points_total", Unit::Count("point"), 4,
        "Data points acknowledged to their sender.",
        [transport: "`grpc` or `http`"];
    Counter OTLP_POINTS_REJECTED, "headroom_otlp_rejected_points_total", Unit::Count("point"), 64,
        "Data points refused for good, as the partial success of the answer told the sender.",
        [reason: "why, such as `no_identity` or `too_many_points`"];
    Counter OTLP_LEFT_OUT, "headroom_otlp_left_out_values_total", Unit::Count("value"), 4,
        "What was left out of data points and resources that were otherwise taken.",
        [what: "`negative_buckets` of a histogram point, the end of a resource's `attribute_value`, or an `alias` too long or too many"];
    Counter OTLP_IGNORED, "headroom_otlp_ignored_records_total", Unit::Count("record"), 4,
        "Spans and log records accepted and dropped, so that senders with one endpoint for all signals work.",
        [kind: "`traces` or `logs`"];
    Histogram OTLP_REQUEST_DURATION, "headroom_otlp_request_duration_seconds", Unit::Seconds, 4,
        "Time from an export request's last byte to its answer, the log's commit included.",
        [transport: "`grpc` or `http`"];
    Gauge OTLP_INFLIGHT, "headroom_otlp_inflight_bytes", Unit::Bytes, 4,
        "Bytes of export requests being read, decoded or written to the log.",
        [transport: "`grpc` or `http`"];
    Counter OTLP_REFUSED, "headroom_otlp_refused_requests_total", Unit::Count("request"), 32,
        "Export requests refused whole by a bound.",
        [bound: "name of the bound, such as `body_bytes_max` or `inflight_bytes_max`"];
    Gauge LISTENER_CONNECTIONS, "headroom_listener_connections", Unit::Count("connection"), 16,
        "Open connections.",
        [listener: "`otlp-grpc`, `otlp-http`, `http` or `operator`"];
    Counter LISTENER_REFUSED, "headroom_listener_refused_connections_total", Unit::Count("connection"), 32,
        "Connections closed without service; under `connections_max` of `http` and `operator`, those that had to wait for it.",
        [listener: "as in `headroom_listener_connections`",
         bound: "name of the bound, `stall` for a peer that took nothing, or `tls` for a failed handshake"];

    // Who may ask.
    Counter ACCESS_DENIED, "headroom_access_denied_requests_total", Unit::Count("request"), 32,
        "Requests that were not let in.",
        [surface: "`otlp` or `http`",
         reason: "`no_credentials`, `not_bearer`, `unknown_token`, `expired`, `unknown_certificate`, `missing_scope`, or the rate that was passed"];
    Counter ACCESS_RELOADS, "headroom_access_reloads_total", Unit::Count("reload"), 8,
        "Changed files of callers or certificates, by what became of them.",
        [files: "`callers` or `tls`", outcome: "`applied` or `refused` (what was before stays)"];
    Gauge ACCESS_CERTIFICATE_EXPIRY, "headroom_access_certificate_expiry_seconds", Unit::Seconds, 1,
        "When the listeners' certificate ends, in seconds since 1970.", [];

    // Ingest from Kafka.
    Counter KAFKA_SOURCE_RECORDS, "headroom_kafka_source_records_total", Unit::Count("record"), 256,
        "Records of foreign topics that were decoded.",
        [source: "name of the source", encoding: "`otlp_proto`, `otlp_json`, `json` or `arrow`"];
    Counter KAFKA_SOURCE_BYTES, "headroom_kafka_source_received_bytes_total", Unit::Bytes, 64,
        "Bytes of the records read from foreign topics.", [source: "name of the source"];
    Counter KAFKA_SOURCE_POINTS, "headroom_kafka_source_accepted_points_total", Unit::Count("point"), 64,
        "Samples of foreign topics that the log has taken.", [source: "name of the source"];
    Counter KAFKA_SOURCE_REJECTED_POINTS, "headroom_kafka_source_rejected_points_total", Unit::Count("point"), 1024,
        "Samples of foreign topics that were rejected while the rest of their record was taken, or that the log will never take.",
        [source: "name of the source", reason: "as for OTLP, or `log_record_bytes`"];
    Counter KAFKA_SOURCE_IGNORED_FIELDS, "headroom_kafka_source_ignored_fields_total", Unit::Count("field"), 64,
        "Fields of counter records and columns of Arrow streams that were stepped over because nobody knows them.",
        [source: "name of the source"];
    Counter KAFKA_SOURCE_LEFT_OUT, "headroom_kafka_source_left_out_values_total", Unit::Count("value"), 256,
        "What was left out of samples and resources of foreign topics that were otherwise taken.",
        [source: "name of the source", what: "as in `headroom_otlp_left_out_values_total`"];
    Counter KAFKA_SOURCE_REFUSED, "headroom_kafka_source_refused_records_total", Unit::Count("record"), 512,
        "Records of foreign topics that cannot be used.",
        [source: "name of the source", reason: "`undecodable`, `unknown_encoding`, `empty`, or why all of its samples were rejected"];
    Counter KAFKA_SOURCE_LETTERS, "headroom_kafka_source_dead_letters_total", Unit::Count("record"), 256,
        "What became of records that cannot be used.",
        [source: "name of the source",
         outcome: "`written` to the dead-letter topic, `skipped` without one, `failed` and tried again, or `lost` because the broker will never take it"];
    Gauge KAFKA_SOURCE_LAG, "headroom_kafka_source_lag_records", Unit::Count("record"), 4096,
        "Records of a partition that are not yet in the sample log.",
        [source: "name of the source", topic: "the topic", partition: "number of the partition"];
    Gauge KAFKA_SOURCE_PARTITIONS, "headroom_kafka_source_partitions", Unit::Count("partition"), 128,
        "Partitions that a source has here.", [source: "name of the source", state: "`assigned`, or `paused` of them"];
    Gauge KAFKA_SOURCE_HELD, "headroom_kafka_source_inflight_bytes", Unit::Bytes, 64,
        "Bytes of records that were read and are not yet in the sample log or the dead-letter topic.",
        [source: "name of the source"];
    Counter KAFKA_SOURCE_REBALANCES, "headroom_kafka_source_rebalances_total", Unit::Count("rebalance"), 256,
        "Changes of a source's partitions.", [source: "name of the source", event: "`assigned`, `revoked`, `lost` or `error`"];
    Counter KAFKA_SOURCE_COMMITS, "headroom_kafka_source_commits_total", Unit::Count("commit"), 128,
        "Commits of offsets.", [source: "name of the source", outcome: "`ok` or `failed`"];
    Counter KAFKA_SOURCE_RETRIES, "headroom_kafka_source_retried_appends_total", Unit::Count("append"), 512,
        "Times the sample log refused for now what a source had read, which is then paused and tried again.",
        [source: "name of the source", reason: "`log_full`, `log_overloaded`, `engine_behind`, `log_disk` or `log_closed`"];
    Counter KAFKA_SOURCE_ERRORS, "headroom_kafka_source_errors_total", Unit::Count("error"), 512,
        "Errors of a source's Kafka client.", [source: "name of the source", code: "the client's word for it"];

    // The sample log.
    Counter LOG_RECORDS, "headroom_log_appended_records_total", Unit::Count("record"), PARTITIONS,
        "Records acknowledged by the sample log.", [partition: "number of the partition"];
    Counter LOG_BYTES, "headroom_log_appended_bytes_total", Unit::Bytes, PARTITIONS,
        "Bytes of the records acknowledged by the sample log, headers included.",
        [partition: "number of the partition"];
    Counter LOG_COMMITS, "headroom_log_commits_total", Unit::Count("commit"), PARTITIONS,
        "Group commits of the sample log that succeeded.", [partition: "number of the partition"];
    Counter LOG_COMMIT_TIME, "headroom_log_commit_duration_seconds_total", Unit::Seconds, PARTITIONS,
        "Time spent in group commits; divided by their number it is the mean commit.",
        [partition: "number of the partition"];
    Gauge LOG_PENDING, "headroom_log_pending_bytes", Unit::Bytes, PARTITIONS,
        "Bytes accepted by the sample log and not durable yet.", [partition: "number of the partition"];
    Counter LOG_REFUSED, "headroom_log_refused_appends_total", Unit::Count("append"), PARTITIONS * 5,
        "Appends that the sample log refused.",
        [partition: "number of the partition",
         reason: "`full` (retention may not make room), `overloaded`, `behind` (the engine is), `disk` or `too_large`"];
    Counter LOG_CUT, "headroom_log_cut_bytes_total", Unit::Bytes, PARTITIONS,
        "Bytes cut from torn tails when the log was opened; none of them had been acknowledged.",
        [partition: "number of the partition"];
    Counter LOG_DAMAGED, "headroom_log_damaged_records_total", Unit::Count("record"), PARTITIONS,
        "Positions of the sample log that readers found damaged or missing, or that a power cut took.",
        [partition: "number of the partition"];
    Gauge LOG_SEGMENTS, "headroom_log_segments", Unit::Count("segment"), PARTITIONS,
        "Segments of the sample log on disk.", [partition: "number of the partition"];
    Counter LOG_SEGMENTS_REMOVED, "headroom_log_removed_segments_total", Unit::Count("segment"), PARTITIONS,
        "Segments removed by retention.", [partition: "number of the partition"];
    Gauge LOG_DISK, "headroom_log_held_bytes", Unit::Bytes, PARTITIONS,
        "Bytes that the sample log holds on disk (in memory: the records held).",
        [partition: "number of the partition"];
    Gauge LOG_TAIL, "headroom_log_tail_bytes", Unit::Bytes, PARTITIONS,
        "Bytes of the records in the cache of the log's tail.", [partition: "number of the partition"];
    Counter LOG_TAIL_READS, "headroom_log_tail_reads_total", Unit::Count("read"), PARTITIONS * 2,
        "Records read from the sample log.",
        [partition: "number of the partition", outcome: "`hit` (from the tail cache) or `miss` (from disk)"];
    Counter SNAPSHOT_WRITES, "headroom_snapshot_writes_total", Unit::Count("snapshot"), 4,
        "Snapshots written to the snapshot log.",
        [outcome: "`written`, `failed` or `damaged` (found so when opened)"];

    Counter DECISION_EVENTS, "headroom_decision_events_total", Unit::Count("event"), 2,
        "Changed decisions written to the topic of decisions.", [outcome: "`written` or `failed`"];

    // The engine.
    Counter ENGINE_TICKS, "headroom_engine_ticks_total", Unit::Count("tick"), PARTITIONS * 2,
        "Ticks of the log, by what became of them.",
        [partition: "number of the partition", outcome: "`published` or `ignored` (not later than the one before)"];
    Histogram ENGINE_TICK_DURATION, "headroom_engine_tick_duration_seconds", Unit::Seconds, PARTITIONS,
        "Time from reading a tick to having all snapshots of the partition.", [partition: "number of the partition"];
    Gauge ENGINE_SERVERS, "headroom_engine_servers", Unit::Count("server"), CELLS * 3,
        "Servers by how recently they reported.",
        [cell: "the cell", state: "`reporting`, `silent` (no longer counts in peers and guards) or `pending` (unnamed)"];
    Gauge ENGINE_RESOURCES, "headroom_engine_resources", Unit::Count("resource"), CELLS,
        "Resources that report, each a sender on a server.", [cell: "the cell"];
    Gauge ENGINE_SERIES, "headroom_engine_series", Unit::Count("series"), CELLS,
        "Different series seen, read or not.", [cell: "the cell"];
    Gauge ENGINE_ROWS, "headroom_engine_rows", Unit::Count("row"), CELLS * 2,
        "Sub-series whose panes are kept.", [cell: "the cell", kind: "`number` or `histogram`"];
    Counter ENGINE_SAMPLES, "headroom_engine_samples_total", Unit::Count("sample"), CELLS * 16,
        "Samples read from the log, by what became of them.",
        [cell: "the cell",
         outcome: "`accepted`, `unmatched`, `skipped`, `late`, `backlog` (accepted too, but behind the last tick by more than the allowed lateness), `future`, `out_of_range`, `duplicate`, `conflict`, `nan`, `stale_marker`, `thinned`, `kind_mismatch`, `malformed`, `refused_series` or `refused_rows`"];
    Counter ENGINE_IRREGULARITIES, "headroom_engine_irregularities_total", Unit::Count("irregularity"), CELLS * 4,
        "Irregularities of senders' counters, each handled by its rule.",
        [cell: "the cell", kind: "`reset`, `unknown_start` (of a counter first seen, or of a delta), `gap` or `overlap`"];
    Counter ENGINE_CONFLICTS, "headroom_engine_conflicts_total", Unit::Count("conflict"), CELLS * 2,
        "Resources that contradict each other about one server.", [cell: "the cell", kind: "`name` or `pool`"];
    Counter ENGINE_JOINS, "headroom_engine_membership_changes_total", Unit::Count("change"), CELLS * 3,
        "Servers that came, went, or turned out to be one.", [cell: "the cell", kind: "`joined`, `merged` or `left`"];
    Counter ENGINE_REFUSED, "headroom_engine_refused_total", Unit::Count("item"), CELLS * 8,
        "What a limit of the engine refused; the live is never evicted for the new.",
        [cell: "the cell", bound: "name of the bound, such as `servers_max` or `pending_max`; without a cell `cells_max`, or `no_policy` for samples before any policy"];
    Gauge ENGINE_SNAPSHOT_AGE, "headroom_engine_snapshot_age_seconds", Unit::Seconds, CELLS,
        "Age of the newest snapshot of a cell: what decisions are as old as.", [cell: "the cell"];
    Gauge ENGINE_LAST_EPOCH, "headroom_engine_last_epoch_seconds", Unit::Seconds, CELLS,
        "Epoch of the newest snapshot of a cell: its tick's time, in seconds since 1970.", [cell: "the cell"];
    Gauge ENGINE_LAG, "headroom_engine_lag_records", Unit::Count("record"), PARTITIONS,
        "Records of the sample log that the engine has not read yet.", [partition: "number of the partition"];
    Counter ENGINE_FAILURES, "headroom_engine_failures_total", Unit::Count("failure"), PARTITIONS,
        "Engines that failed and were made anew from their checkpoints.", [partition: "number of the partition"];
    Gauge ENGINE_BACKLOG, "headroom_engine_backlog_records", Unit::Count("record"), PARTITIONS,
        "Records passed over after an outage, so that decisions need not wait, that are still to be taken up.", [partition: "number of the partition"];
    Histogram CHECKPOINT_DURATION, "headroom_checkpoint_duration_seconds", Unit::Seconds, PARTITIONS,
        "Time to make and store a checkpoint.", [partition: "number of the partition"];
    Gauge CHECKPOINT_SIZE, "headroom_checkpoint_size_bytes", Unit::Bytes, PARTITIONS,
        "Size of the newest checkpoint.", [partition: "number of the partition"];
    Counter CHECKPOINT_FAILURES, "headroom_checkpoint_failures_total", Unit::Count("checkpoint"), PARTITIONS,
        "Checkpoints that could not be made or stored; the log is kept until one succeeds.",
        [partition: "number of the partition"];
    Counter CHECKPOINT_DAMAGED, "headroom_checkpoint_damaged_total", Unit::Count("checkpoint"), 1,
        "Checkpoints found damaged and put aside; the engine began from the one before.", [];

    // What is decided.
    Gauge DECISION_LOAD_STATE, "headroom_decision_load_state_servers", Unit::Count("server"), POOLS * 5,
        "Servers by load state.",
        [cell: "the cell", pool: "the pool",
         state: "`underloaded`, `normal`, `overloaded`, `critical` or `unknown`"];
    Gauge DECISION_FAULT_STATE, "headroom_decision_fault_state_servers", Unit::Count("server"), POOLS * 4,
        "Servers by fault state.",
        [cell: "the cell", pool: "the pool", state: "`ok`, `suspect`, `faulty` or `unknown`"];
    Gauge DECISION_PLACEMENT, "headroom_decision_placement_servers", Unit::Count("server"), CELLS * 3,
        "Servers by whether new work may be placed on them.",
        [cell: "the cell", placement: "`allow`, `avoid` or `block`"];
    Gauge DECISION_THROTTLED, "headroom_decision_throttled_servers", Unit::Count("server"), CELLS * CLASSES,
        "Servers on which a class is admitted with less than its nominal.", [cell: "the cell", class: "workload class"];
    Gauge DECISION_ADMIT, "headroom_decision_admit_ratio", Unit::Ratio, CELLS * CLASSES,
        "Mean admit fraction over the servers of a cell.", [cell: "the cell", class: "workload class"];
    Gauge DECISION_WOULD_ADMIT, "headroom_decision_would_admit_ratio", Unit::Ratio, CELLS * CLASSES,
        "Mean admit fraction that enforcing would give at the next step.", [cell: "the cell", class: "workload class"];
    Gauge DECISION_MODE, "headroom_decision_mode_servers", Unit::Count("server"), CELLS * 3,
        "Servers by the mode in effect on them.", [cell: "the cell", mode: "`off`, `observe` or `enforce`"];
    Gauge DECISION_HELD_BACK, "headroom_decision_held_back_servers", Unit::Count("server"), CELLS * CLASSES,
        "Work held back, in servers' nominals: the sum of 1 - admit fraction.",
        [cell: "the cell", class: "workload class"];
    Gauge DECISION_CONFIDENCE, "headroom_decision_confidence_ratio", Unit::Ratio, CELLS,
        "Mean confidence over the servers of a cell.", [cell: "the cell"];
    Gauge SERVER_HEALTH_SCORE, "headroom_server_health_score_ratio", Unit::Ratio, 10_000,
        "Health score of a server; can be switched off and is bounded by the operator.",
        [cell: "the cell", pool: "the pool", server: "the server's name"];

    // Reading it.
    Counter HTTP_REQUESTS, "headroom_http_requests_total", Unit::Count("request"), 512,
        "HTTP requests answered.",
        [route: "the route's template, such as `/v1/servers/{server}`", code: "HTTP status"];
    Histogram HTTP_REQUEST_DURATION, "headroom_http_request_duration_seconds", Unit::Seconds, 64,
        "Time from a request's head to the head of its answer.", [route: "the route's template"];
    Gauge HTTP_WATCHERS, "headroom_http_watchers", Unit::Count("watcher"), 4,
        "Consumers that follow the decisions.", [kind: "`sse`: event streams and long polls, which share their places"];
    Counter HTTP_REFUSED, "headroom_http_refused_requests_total", Unit::Count("request"), 32,
        "HTTP requests refused by a bound before any work was done.",
        [reason: "name of the bound, or `unauthorized`, `forbidden` or `rate`"];

    // Policy.
    Counter POLICY_RELOADS, "headroom_policy_reloads_total", Unit::Count("reload"), 4,
        "Attempts to bring a policy into force.",
        [outcome: "`applied`, `unchanged` or `refused` (the one before stays)"];
}
