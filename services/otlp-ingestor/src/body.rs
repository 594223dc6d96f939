//! Reading a request's body: bounded in size, in time and in what all requests together hold.

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::admission::{Bound, Budget, Held};

/// Why a body was not read.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// It is larger than a body may be.
    TooLarge(Bound),
    /// All requests together would hold more than they may.
    Overloaded {
        /// The bound.
        bound_bytes: u64,
    },
    /// It did not arrive in time.
    TooSlow,
    /// The connection broke.
    Broken(hyper::Error),
}

/// A body and the share of the budget it holds.
pub(crate) struct Read {
    pub(crate) bytes: Bytes,
    pub(crate) held: Held,
}

/// Reads a body within a bound.
pub(crate) async fn read(
    mut body: Incoming,
    bound: Bound,
    budget: &Budget,
    timeout: std::time::Duration,
) -> Result<Read, BodyError> {
    let mut held = Held::default();
    let announced = body.size_hint().exact();
    if let Some(length) = announced {
        if length > bound.bytes {
            return Err(BodyError::TooLarge(bound));
        }
        if !budget.take(length, &mut held) {
            return Err(BodyError::Overloaded { bound_bytes: budget.bound_bytes() });
        }
    }
    let reading = async {
        // Most bodies fit one frame and are then not copied at all.
        let mut first: Option<Bytes> = None;
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() else { continue };
            if (whole.len() + first.as_ref().map_or(0, Bytes::len) + data.len()) as u64 > bound.bytes {
                return Err(BodyError::TooLarge(bound));
            }
            if announced.is_none() && !budget.take(data.len() as u64, &mut held) {
                return Err(BodyError::Overloaded { bound_bytes: budget.bound_bytes() });
            }
            match first.take() {
                None if whole.is_empty() => first = Some(data),
                None => whole.extend_from_slice(&data),
                Some(head) => {
                    whole.reserve(announced.map_or(head.len() + data.len(), |length| length as usize));
                    whole.extend_from_slice(&head);
                    whole.extend_from_slice(&data);
                }
            }
        }
        Ok(first.unwrap_or_else(|| whole.freeze()))
    };
    match tokio::time::timeout(timeout, reading).await {
        Ok(bytes) => bytes.map(|bytes| Read { bytes, held }),
        Err(_) => Err(BodyError::TooSlow),
    }
}
