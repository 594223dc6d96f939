//! Decompression with a bound on both sides, as OTLP demands: a few kilobytes of gzip can hold gigabytes.
//!
//! Output is produced in steps and stops at the bound, so a bomb costs at most the bound. zstd may also claim a window of
//! 128 MiB before it has sent a byte. The window is bounded too: by the size of a body, but never below the 8 MiB that
//! RFC 8878 asks every decoder to support, because an encoder that streams claims its level's window for a single byte.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read};

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 8878, any number of frames.
    Zstd,
}

impl Encoding {
    /// The encoding that a `Content-Encoding` (or `grpc-encoding`) header names, `None` if it is not one of ours.
    pub fn from_header(value: &str) -> Option<Self> {
        let value = value.trim();
        [
            ("", Self::Identity),
            ("identity", Self::Identity),
            ("gzip", Self::Gzip),
            ("x-gzip", Self::Gzip),
            ("zstd", Self::Zstd),
        ]
        .into_iter()
        .find(|(name, _)| value.eq_ignore_ascii_case(name))
        .map(|(_, encoding)| encoding)
    }
}

/// Bounds of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// Bytes as received.
    pub received_bytes_max: usize,
    /// Bytes after decompression.
    pub body_bytes_max: usize,
}

/// Why a body could not be decompressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecompressError {
    /// More bytes were received than may be: HTTP 413, gRPC `RESOURCE_EXHAUSTED`, not to be sent again.
    ReceivedTooLarge {
        /// The bound.
        bytes_max: usize,
    },
    /// More bytes come out than may: the same answers.
    BodyTooLarge {
        /// The bound.
        bytes_max: usize,
    },
    /// The compressed data are damaged or cut short: HTTP 400, gRPC `INVALID_ARGUMENT`.
    Corrupt {
        /// How it was compressed.
        encoding: Encoding,
        /// What the decompressor says.
        reason: String,
    },
}

impl DecompressError {
    /// Whether a bound was passed, rather than the data being damaged.
    pub fn is_too_large(&self) -> bool {
        !matches!(self, Self::Corrupt { .. })
    }
}

impl fmt::Display for DecompressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReceivedTooLarge { bytes_max } => write!(f, "the body has more than {bytes_max} bytes"),
            Self::BodyTooLarge { bytes_max } => {
                write!(f, "the body has more than {bytes_max} bytes after decompression; send smaller batches")
            }
            Self::Corrupt { encoding, reason } => write!(f, "the body is not valid {encoding:?}: {reason}"),
        }
    }
}

impl std::error::Error for DecompressError {}

/// Least and greatest bound of zstd's window, as powers of two: 8 MiB and 128 MiB.
const ZSTD_WINDOW_LOG: (u32, u32) = (23, 27);

/// Room for output per byte of input at the start; it grows up to the bound as the output does.
const EXPECTED_RATIO: usize = 4;

/// Decompresses a body. Without compression it is borrowed; an empty one is empty in every encoding.
///
/// # Errors
/// If it is too large before or after, or damaged.
pub fn decompress(encoding: Encoding, received: &[u8], limits: BodyLimits) -> Result<Cow<'_, [u8]>, DecompressError> {
    if received.len() > limits.received_bytes_max {
        return Err(DecompressError::ReceivedTooLarge { bytes_max: limits.received_bytes_max });
    }
    let bytes_max = limits.body_bytes_max;
    let corrupt = |error: io::Error| DecompressError::Corrupt { encoding, reason: error.to_string() };
    let out = match encoding {
        _ if received.is_empty() => Vec::new(),
        Encoding::Identity if received.len() > bytes_max => return Err(DecompressError::BodyTooLarge { bytes_max }),
        Encoding::Identity => return Ok(Cow::Borrowed(received)),
        Encoding::Gzip => {
            read_bounded(flate2::bufread::MultiGzDecoder::new(received), received.len(), bytes_max).map_err(corrupt)?
        }
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(received).map_err(corrupt)?;
            let window_log = (usize::BITS - bytes_max.leading_zeros()).clamp(ZSTD_WINDOW_LOG.0, ZSTD_WINDOW_LOG.1);
            decoder.window_log_max(window_log).map_err(corrupt)?;
            read_bounded(decoder, received.len(), bytes_max).map_err(corrupt)?
        }
    };
    if out.len() > bytes_max { Err(DecompressError::BodyTooLarge { bytes_max }) } else { Ok(Cow::Owned(out)) }
}

/// Reads up to one byte more than the bound: that byte tells a body that is too large from one that just fits.
fn read_bounded(decoder: impl Read, received: usize, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(received.saturating_mul(EXPECTED_RATIO).min(bytes_max));
    decoder.take(bytes_max as u64 + 1).read_to_end(&mut out)?;
    Ok(out)
}
