//! Where the next page of a list begins. Opaque to callers; it holds the key of the last item, not a position, so that
//! servers that join or leave between two pages shift nothing.

use serde::{Deserialize, Serialize};

use crate::error::ApiError;

/// The last item of a page, and the list it belongs to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Cursor {
    /// The question: a cursor fits no other one.
    pub(crate) question: String,
    /// The epoch of the first page, which all pages carry, so that the next `since` misses nothing.
    pub(crate) epoch: Option<i64>,
    /// The key the list is sorted by, where it is not the name.
    pub(crate) key: u32,
    /// The cell.
    pub(crate) cell: String,
    /// The server; of a list of pools, the pool.
    pub(crate) server: String,
    /// The class's place in the policy.
    pub(crate) class: usize,
}

impl Cursor {
    /// As text: hexadecimal, because every client can carry that.
    pub(crate) fn encode(&self) -> String {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// From text, for the same question.
    pub(crate) fn decode(text: &str, question: &str) -> Result<Self, ApiError> {
        let stranger = "not a cursor of this service; pass nextCursor of the page before, or start without";
        let digits = text.as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
        let bytes = bytes.filter(|_| digits.len().is_multiple_of(2));
        let bytes = bytes.ok_or_else(|| ApiError::bad_query("cursor", stranger))?;
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(cursor) if cursor.question == question => Ok(cursor),
            Ok(_) => {
                let detail = "the cursor belongs to another question; repeat all parameters with it, or start without";
                Err(ApiError::unknown_cursor(detail))
            }
            Err(_) => Err(ApiError::unknown_cursor(stranger)),
        }
    }
}
