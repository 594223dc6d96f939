//! What became of a request's data points: nothing vanishes uncounted.

use headroom_model::time::EARLIEST_NS;

use crate::identity::IdentityConfig;
use crate::limits::IngestLimits;

/// Why a data point was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RejectReason {
    /// The resource names no server, or by nothing that can be a name.
    NoIdentity,
    /// A name of the server is longer than a name may be.
    IdentityTooLong,
    /// The metric has no name.
    NoMetricName,
    /// The metric's name or unit is too long.
    MetricNameTooLong,
    /// A sum or histogram does not say whether it is cumulative or delta.
    NoTemporality,
    /// The point has no time.
    NoTime,
    /// The point's time is before the year 2000, or it or its start time is after 2262.
    TimeOutOfRange,
    /// The point has no value and is not flagged as having none.
    NoValue,
    /// Buckets and bounds contradict each other.
    BadHistogram,
    /// Too many buckets or quantiles.
    TooManyBuckets,
    /// Too many attributes.
    TooManyAttributes,
    /// An attribute's key or value is too long.
    AttributeTooLong,
    /// An attribute's value has too many arrays and maps inside each other.
    NestedTooDeep,
    /// Too many points in one request.
    TooManyPoints,
    /// Too many series in one request.
    TooManySeries,
    /// Too many resources in one request.
    TooManyResources,
}

impl RejectReason {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 16] = [
        Self::NoIdentity,
        Self::IdentityTooLong,
        Self::NoMetricName,
        Self::MetricNameTooLong,
        Self::NoTemporality,
        Self::NoTime,
        Self::TimeOutOfRange,
        Self::NoValue,
        Self::BadHistogram,
        Self::TooManyBuckets,
        Self::TooManyAttributes,
        Self::AttributeTooLong,
        Self::NestedTooDeep,
        Self::TooManyPoints,
        Self::TooManySeries,
        Self::TooManyResources,
    ];

    /// The reason as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoIdentity => "no_identity",
            Self::IdentityTooLong => "identity_too_long",
            Self::NoMetricName => "no_metric_name",
            Self::MetricNameTooLong => "metric_name_too_long",
            Self::NoTemporality => "no_temporality",
            Self::NoTime => "no_time",
            Self::TimeOutOfRange => "time_out_of_range",
            Self::NoValue => "no_value",
            Self::BadHistogram => "bad_histogram",
            Self::TooManyBuckets => "too_many_buckets",
            Self::TooManyAttributes => "too_many_attributes",
            Self::AttributeTooLong => "attribute_too_long",
            Self::NestedTooDeep => "nested_too_deep",
            Self::TooManyPoints => "too_many_points",
            Self::TooManySeries => "too_many_series",
            Self::TooManyResources => "too_many_resources",
        }
    }

    /// What the sender's operator should know, with the way out.
    fn explain(self, limits: &IngestLimits, identity: &IdentityConfig) -> String {
        match self {
            Self::NoIdentity => format!(
                "the resource names no server, it has none of the attributes {} (a name with control characters, or \
                 without a visible one, is none); set \
                 OTEL_RESOURCE_ATTRIBUTES=host.name=<name> at an SDK, or in the Collector add `resourcedetection: \
                 {{detectors: [env, system]}}` or `resource: {{attributes: [{{key: host.name, value: <name>, action: \
                 upsert}}]}}` to the processors of the metrics pipeline",
                identity.accepted_attributes().join(", ")
            ),
            Self::IdentityTooLong => {
                format!(
                    "a name of the server, its cell, pool or sender has more than {} bytes",
                    limits.identity_bytes_max
                )
            }
            Self::NoMetricName => "the metric has no name".to_owned(),
            Self::MetricNameTooLong => {
                format!("the metric's name or unit has more than {} bytes", limits.metric_name_bytes_max)
            }
            Self::NoTemporality => {
                "the sum or histogram has no aggregation temporality, it must be delta (1) or cumulative (2)".to_owned()
            }
            Self::NoTime => "the point has no timeUnixNano".to_owned(),
            Self::TimeOutOfRange => {
                "a time of the point is before the year 2000 or after 2262; timeUnixNano is in nanoseconds since 1970"
                    .to_owned()
            }
            Self::NoValue => "the point has neither asDouble nor asInt and is not flagged NO_RECORDED_VALUE".to_owned(),
            Self::BadHistogram => {
                "bounds are not ascending, or there is not one bucket more than bounds, or scale and \
                                   offset are out of range"
                    .to_owned()
            }
            Self::TooManyBuckets => {
                format!("the point has more than {} buckets or quantiles", limits.buckets_per_point_max)
            }
            Self::TooManyAttributes => format!("more than {} attributes", limits.attributes_max),
            Self::AttributeTooLong => format!(
                "an attribute's key has more than {} bytes, or a point attribute's value more than {}",
                limits.attribute_key_bytes_max, limits.attribute_value_bytes_max
            ),
            Self::NestedTooDeep => {
                format!("an attribute's value has more than {} arrays or maps inside each other", limits.nesting_max)
            }
            Self::TooManyPoints => format!("the request has more than {} points", limits.points_per_request_max),
            Self::TooManySeries => format!("the request has more than {} series", limits.series_per_request_max),
            Self::TooManyResources => {
                format!("the request has more than {} resources", limits.resources_per_request_max)
            }
        }
    }
}

impl RejectReason {
    /// What the owner of a topic of counters should know, with the way out.
    fn explain_record(self, limits: &IngestLimits) -> String {
        match self {
            Self::NoIdentity => {
                "the record names no server (a name with control characters, or without a visible one, is none); give it \
                 `server`, or attributes that the source's `identity` reads"
            }
            Self::NoMetricName => "a sample has no metric's name",
            Self::NoTime => "the sample has no `time`, and the message no timestamp of its maker",
            Self::TimeOutOfRange => "the `time` is not between 2000 and 2262",
            Self::NoValue => "the sample has no `value`, or `null`",
            other => return other.explain(limits, &IdentityConfig::default()),
        }
        .to_owned()
    }
}

/// Reasons spelled out in a message; further ones are only counted.
const REASONS_IN_MESSAGE_MAX: usize = 4;

/// Characters kept of the name of an ignored field.
const FIELD_CHARS_MAX: usize = 64;

/// What became of the data points of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IngestReport {
    /// OTLP data points taken. A summary is one point, though it becomes several rows.
    pub accepted_points: u64,
    rejected: [u64; RejectReason::ALL.len()],
    /// Points taken without their negative buckets, which Headroom does not keep.
    pub negative_bucket_points: u64,
    /// Values of resource attributes that were cut; counted where a resource is first seen, not at every repeat.
    pub cut_attributes: u64,
    /// Aliases of resources that were too long or too many; counted like cut values.
    pub dropped_aliases: u64,
    /// Fields or columns that the format does not know; counter records and Arrow streams only.
    pub ignored_fields: u64,
    /// The first of them.
    pub ignored_field: Option<String>,
    /// The first time that was rejected for being before the year 2000.
    early_time: Option<i64>,
    /// For `partial_success`: in English, `None` if nothing was rejected.
    pub message: Option<String>,
}

impl IngestReport {
    /// Counts rejected points.
    pub(crate) fn reject(&mut self, reason: RejectReason, points: u64) {
        self.rejected[reason as usize] += points;
    }

    /// Notes a time before the year 2000, which its sender may have given in another unit.
    #[cold]
    pub(crate) fn note_early(&mut self, time: i64) {
        self.early_time.get_or_insert(time);
    }

    /// Which unit the times that were too early are probably in.
    fn guess(&self, reason: RejectReason) -> String {
        let time = self.early_time.filter(|_| reason == RejectReason::TimeOutOfRange);
        let units = [("seconds", 1_000_000_000), ("milliseconds", 1_000_000), ("microseconds", 1_000)];
        let meant = time.and_then(|time| {
            let is_meant = |nanos: i64| time.checked_mul(nanos).is_some_and(|time| time >= EARLIEST_NS);
            let (unit, nanos) = units.into_iter().find(|(_, nanos)| is_meant(*nanos))?;
            Some(format!("; {time} looks like {unit}, multiply it by {nanos}"))
        });
        meant.unwrap_or_default()
    }

    /// Counts a field that was stepped over.
    #[cold]
    pub(crate) fn ignore_field(&mut self, name: &str) {
        self.ignored_fields += 1;
        self.ignored_field.get_or_insert_with(|| name.chars().take(FIELD_CHARS_MAX).collect());
    }

    /// What was left out of points and resources that were otherwise taken, by its name in metrics.
    pub fn left_out(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("negative_buckets", self.negative_bucket_points),
            ("attribute_value", self.cut_attributes),
            ("alias", self.dropped_aliases),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
    }

    /// Points rejected for a reason.
    pub fn rejected(&self, reason: RejectReason) -> u64 {
        self.rejected[reason as usize]
    }

    /// Points rejected for any reason.
    pub fn rejected_points(&self) -> u64 {
        self.rejected.iter().sum()
    }

    /// The reasons that occurred, with their counts, in the order of [`RejectReason::ALL`].
    pub fn rejections(&self) -> impl Iterator<Item = (RejectReason, u64)> + '_ {
        RejectReason::ALL.into_iter().map(|reason| (reason, self.rejected(reason))).filter(|(_, points)| *points > 0)
    }

    /// Writes the message that goes with the counts of an OTLP body.
    pub(crate) fn explain(&mut self, limits: &IngestLimits, identity: &IdentityConfig) {
        self.explain_by(|reason| reason.explain(limits, identity));
    }

    /// Writes the message that goes with the counts of counter records or an Arrow stream.
    pub(crate) fn explain_records(&mut self, limits: &IngestLimits) {
        self.explain_by(|reason| reason.explain_record(limits));
    }

    fn explain_by(&mut self, explain: impl Fn(RejectReason) -> String) {
        if self.rejected_points() == 0 {
            return;
        }
        let mut reasons: Vec<String> = self
            .rejections()
            .take(REASONS_IN_MESSAGE_MAX)
            .map(|(reason, points)| {
                let (text, guess, label) = (explain(reason), self.guess(reason), reason.as_str());
                format!("{points} of them: {text}{guess} ({label})")
            })
            .collect();
        let more = self.rejections().count().saturating_sub(REASONS_IN_MESSAGE_MAX);
        if more > 0 {
            reasons.push(format!("{more} more reasons"));
        }
        self.message = Some(format!("rejected {} data points; {}", self.rejected_points(), reasons.join("; ")));
    }
}
