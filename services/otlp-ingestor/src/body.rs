//! Reading a request's body: bounded in size, in time and in what all requests together hold.

use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::admission::{Bound, Budget, Held, UNIT_BYTES};

/// Buffers kept for the bodies to come, and the largest that is kept. There are never more in use than requests that
/// arrive at once; what a fleet sends every ten seconds needs no more room than this.
const BUFFERS_KEPT_MAX: usize = 16;
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Memory for bodies that come in pieces, used again: fresh pages for every body would cost as much as decoding it.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Vec<BytesMut>>);

impl Buffers {
    fn borrow(&self) -> BytesMut {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Takes back the memory of a body, if it came from here and nobody else holds it.
    pub(crate) fn give_back(&self, bytes: Bytes) {
        let Ok(mut buffer) = bytes.try_into_mut() else { return };
        buffer.clear();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.capacity() <= KEPT_BYTES_MAX && kept.len() < BUFFERS_KEPT_MAX {
            kept.push(buffer);
        }
    }
}

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

/// Says how long a body is by its first bytes, where its head does not.
pub(crate) type Announced = fn(&[u8]) -> Option<u64>;

/// Reads a body within a bound. A length that is known beforehand, by the head or by the first bytes, is refused at once
/// if it is too large; the budget gives for what has arrived alone, or thirteen who announce much and send nothing would
/// hold all of it.
pub(crate) async fn read(
    mut body: Incoming,
    bound: Bound,
    (budget, buffers): (&Budget, &Buffers),
    timeout: std::time::Duration,
    by_first_bytes: Announced,
) -> Result<Read, BodyError> {
    let mut held = Held::default();
    // Bytes that the budget has given so far, in its own units: many small frames are not rounded up one by one.
    let mut covered = 0;
    let fits = |length: u64| if length > bound.bytes { Err(BodyError::TooLarge(bound)) } else { Ok(()) };
    let mut admit = |length: u64| {
        fits(length)?;
        if length > covered {
            let wanted = length.next_multiple_of(UNIT_BYTES);
            if !budget.take(wanted - covered, &mut held) {
                return Err(BodyError::Overloaded { bound_bytes: budget.bound_bytes() });
            }
            covered = wanted;
        }
        Ok(())
    };
    let announced = body.size_hint().exact();
    fits(announced.unwrap_or(0))?;
    let reading = async {
        // Most bodies fit one frame and are then not copied at all.
        let mut first: Option<Bytes> = None;
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() else { continue };
            let before = whole.len() + first.as_ref().map_or(0, Bytes::len);
            if before == 0 && announced.is_none() {
                fits(by_first_bytes(&data).unwrap_or(0))?;
            }
            admit((before + data.len()) as u64)?;
            match first.take() {
                None if whole.is_empty() => first = Some(data),
                None => whole.extend_from_slice(&data),
                Some(head) => {
                    whole = buffers.borrow();
                    let known = announced.map_or(0, |length| length.min(KEPT_BYTES_MAX as u64) as usize);
                    whole.reserve(known.max(head.len() + data.len()));
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
