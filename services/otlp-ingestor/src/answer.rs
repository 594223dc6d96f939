//! What is answered when a request is not taken, in the words of both transports.
//!
//! The codes follow the OTLP specification to the letter, because senders act on them: 429, 502, 503, 504 and their gRPC
//! counterparts are retried, everything else is dropped by the sender. A refusal that is about *now* must be among the
//! former and one that is about *this body* among the latter, or data is lost or comes for ever.

use std::time::Duration;

use headroom_access::Denial;
use headroom_ingest::{DecodeError, DecompressError, Status, StatusCode as RpcCode};
use headroom_log::AppendError;
use http::StatusCode;

use crate::admission::Bound;
use crate::body::BodyError;

/// Why a request was not taken.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) http: StatusCode,
    pub(crate) grpc: RpcCode,
    /// The bound or cause as a metric label.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// Whether the sender should send the same again after the retry time.
    pub(crate) retry: bool,
    /// That it was not let in, if that is why.
    pub(crate) denial: Option<Box<Denial>>,
}

impl Refusal {
    pub(crate) fn invalid(reason: &'static str, message: String) -> Self {
        Self {
            http: StatusCode::BAD_REQUEST,
            grpc: RpcCode::InvalidArgument,
            reason,
            message,
            retry: false,
            denial: None,
        }
    }

    pub(crate) fn unsupported(reason: &'static str, message: String) -> Self {
        Self {
            http: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            grpc: RpcCode::Unimplemented,
            reason,
            message,
            retry: false,
            denial: None,
        }
    }

    pub(crate) fn too_large(reason: &'static str, message: String) -> Self {
        Self {
            http: StatusCode::PAYLOAD_TOO_LARGE,
            grpc: RpcCode::ResourceExhausted,
            reason,
            message,
            retry: false,
            denial: None,
        }
    }

    pub(crate) fn unavailable(reason: &'static str, message: String) -> Self {
        Self {
            http: StatusCode::SERVICE_UNAVAILABLE,
            grpc: RpcCode::Unavailable,
            reason,
            message,
            retry: true,
            denial: None,
        }
    }

    /// A body that does not decompress, or not within the bound.
    pub(crate) fn decompress(error: &DecompressError, bound: Bound) -> Self {
        if error.is_too_large() {
            Self::too_large(bound.name, format!("{error} (otlp.{})", bound.name))
        } else {
            Self::invalid("decompress", error.to_string())
        }
    }

    /// Whether a bound refused all of the request. Who may not ask is told and counted elsewhere, and a body that is
    /// wrong is its sender's matter.
    pub(crate) fn is_by_bound(&self) -> bool {
        matches!(self.http, StatusCode::SERVICE_UNAVAILABLE | StatusCode::PAYLOAD_TOO_LARGE)
    }

    /// When to come back, where that helps; `usually` is what is told for want of a better number.
    pub(crate) fn retry_after(&self, usually: Duration) -> Option<Duration> {
        let own = self.denial.as_ref().and_then(|denial| denial.retry_after_seconds()).map(Duration::from_secs);
        self.retry.then_some(own.unwrap_or(usually))
    }

    /// The refusal as `google.rpc.Status`; `retry_after` is told where a retry helps.
    pub(crate) fn status(&self, retry_after: Duration) -> Status {
        match self.grpc {
            RpcCode::InvalidArgument => Status::bad_request(&self.message),
            code => Status {
                retry_after_seconds: self.retry_after(retry_after).map(|delay| delay.as_secs_f64()),
                ..Status::new(code, &self.message)
            },
        }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge(Bound { name, bytes }) => Self::too_large(
                name,
                format!("the body is larger than {bytes} bytes (otlp.{name}); send smaller batches"),
            ),
            BodyError::Overloaded { bound_bytes } => Self::unavailable(
                "inflight_bytes_max",
                format!(
                    "requests under way already hold the {bound_bytes} bytes they may (otlp.inflight_bytes_max); \
                     try again later"
                ),
            ),
            BodyError::TooSlow => Self {
                // 408 is not among the codes that OTLP senders retry, and the same body may well arrive next time.
                http: StatusCode::SERVICE_UNAVAILABLE,
                grpc: RpcCode::Unavailable,
                reason: "request_timeout",
                message: "the body did not arrive in time".to_owned(),
                retry: true,
                denial: None,
            },
            BodyError::Broken(error) => Self::invalid("broken_body", format!("the body cannot be read: {error}")),
        }
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        let (grpc, reason) = match denial.status() {
            StatusCode::FORBIDDEN => (RpcCode::PermissionDenied, "forbidden"),
            // With RetryInfo, RESOURCE_EXHAUSTED is among what senders retry, and 429 is.
            StatusCode::TOO_MANY_REQUESTS => (RpcCode::ResourceExhausted, "rate"),
            _ => (RpcCode::Unauthenticated, "unauthorized"),
        };
        Self {
            http: denial.status(),
            grpc,
            reason,
            message: denial.to_string(),
            retry: denial.retry_after_seconds().is_some(),
            denial: Some(Box::new(denial)),
        }
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        Self::invalid("decode", error.to_string())
    }
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        let reason = error.reason();
        match error {
            AppendError::TooLarge { .. } => Self::too_large(
                reason,
                format!(
                    "{error}; send smaller batches, or let this service keep more: a record may be a quarter of \
                     `log.bytes_max` (on Kafka: what the topic's `max.message.bytes` says)"
                ),
            ),
            // Nothing about the body is wrong, and to wait does not help either.
            AppendError::NoSuchPartition { .. } => Self {
                http: StatusCode::INTERNAL_SERVER_ERROR,
                grpc: RpcCode::Internal,
                reason,
                message: error.to_string(),
                retry: false,
                denial: None,
            },
            _ => Self::unavailable(reason, error.to_string()),
        }
    }
}
