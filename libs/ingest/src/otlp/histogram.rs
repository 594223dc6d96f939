//! Histogram data points, explicit and exponential.

use super::number::AttributeSpan;
use super::wire::{Joined, Reader, WireError};

/// Scales that OTLP's exponential histograms have in practice: beyond them one bucket holds every double, or none does.
const SCALES: std::ops::RangeInclusive<i32> = -10..=20;

/// The fields of a point of either kind. Kept by the walk, so that its vectors are allocated once.
#[derive(Debug, Default)]
pub(crate) struct HistogramFields {
    pub(crate) start: u64,
    pub(crate) time: u64,
    pub(crate) count: u64,
    pub(crate) sum: Option<f64>,
    pub(crate) flags: u64,
    pub(crate) attributes: AttributeSpan,
    pub(crate) bounds: Vec<f64>,
    pub(crate) buckets: Vec<u64>,
    pub(crate) scale: i32,
    pub(crate) zero_count: u64,
    pub(crate) offset: i32,
    /// Some bucket of negative values is not empty.
    pub(crate) has_negative: bool,
}

/// Keys of the attribute fields.
pub(crate) const EXPLICIT_ATTRIBUTES_KEY: u32 = 0x4a;
pub(crate) const EXPONENTIAL_ATTRIBUTES_KEY: u32 = 0x0a;

impl HistogramFields {
    fn clear(&mut self) {
        let (mut bounds, mut buckets) = (std::mem::take(&mut self.bounds), std::mem::take(&mut self.buckets));
        bounds.clear();
        buckets.clear();
        *self = Self { bounds, buckets, ..Self::default() };
    }

    /// Reads a `HistogramDataPoint`.
    pub(crate) fn read_explicit(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.clear();
        let mut reader = Reader::new(bytes);
        loop {
            let from = bytes.len() - reader.rest().len();
            let Some(key) = reader.key()? else { return Ok(()) };
            match key {
                0x11 => self.start = reader.fixed64()?,
                0x19 => self.time = reader.fixed64()?,
                0x21 => self.count = reader.fixed64()?,
                0x29 => self.sum = Some(reader.double()?),
                0x31 => self.buckets.push(reader.fixed64()?),
                0x32 => packed(reader.bytes()?, Reader::fixed64, &mut self.buckets)?,
                0x39 => self.bounds.push(reader.double()?),
                0x3a => packed(reader.bytes()?, Reader::double, &mut self.bounds)?,
                EXPLICIT_ATTRIBUTES_KEY => {
                    reader.bytes()?;
                    self.attributes.add(from, bytes.len() - reader.rest().len());
                }
                0x42 => drop(reader.bytes()?),
                0x50 => self.flags = reader.varint()?,
                0x59 | 0x61 => drop(reader.fixed64()?),
                _ => reader.skip_unknown(key, &[2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])?,
            }
        }
    }

    /// Reads an `ExponentialHistogramDataPoint`.
    pub(crate) fn read_exponential(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.clear();
        let (mut positive, mut negative) = (Joined::default(), Joined::default());
        let mut reader = Reader::new(bytes);
        loop {
            let from = bytes.len() - reader.rest().len();
            let Some(key) = reader.key()? else { break };
            match key {
                EXPONENTIAL_ATTRIBUTES_KEY => {
                    reader.bytes()?;
                    self.attributes.add(from, bytes.len() - reader.rest().len());
                }
                0x11 => self.start = reader.fixed64()?,
                0x19 => self.time = reader.fixed64()?,
                0x21 => self.count = reader.fixed64()?,
                0x29 => self.sum = Some(reader.double()?),
                0x30 => self.scale = reader.sint32()?,
                0x39 => self.zero_count = reader.fixed64()?,
                0x42 => positive.push(reader.bytes()?),
                0x4a => negative.push(reader.bytes()?),
                0x50 => self.flags = reader.varint()?,
                0x5a => drop(reader.bytes()?),
                0x61 | 0x69 | 0x71 => drop(reader.fixed64()?),
                _ => reader.skip_unknown(key, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14])?,
            }
        }
        read_buckets(negative.get(), &mut self.buckets).map_err(|error| negative.locate(error))?;
        self.has_negative = self.buckets.iter().any(|count| *count > 0);
        self.buckets.clear();
        self.offset = read_buckets(positive.get(), &mut self.buckets).map_err(|error| positive.locate(error))?;
        Ok(())
    }

    /// Whether explicit bounds ascend and there is one bucket more than bounds (or neither: count and sum alone).
    pub(crate) fn explicit_is_valid(&self) -> bool {
        let ascending = self.bounds.windows(2).all(|pair| pair[0] < pair[1]) && !self.bounds.iter().any(|b| b.is_nan());
        let is_bare = self.buckets.is_empty() && self.bounds.is_empty();
        ascending && (is_bare || self.buckets.len() == self.bounds.len() + 1)
    }

    /// Whether scale and offset are such that bucket numbers can be computed with.
    pub(crate) fn exponential_is_valid(&self) -> bool {
        let length = i32::try_from(self.buckets.len()).unwrap_or(i32::MAX);
        SCALES.contains(&self.scale) && self.offset.checked_add(length).is_some()
    }
}

/// Reads a `Buckets` message and returns its offset.
fn read_buckets(bytes: &[u8], counts: &mut Vec<u64>) -> Result<i32, WireError> {
    let mut offset = 0;
    let mut reader = Reader::new(bytes);
    while let Some(key) = reader.key()? {
        match key {
            0x08 => offset = reader.sint32()?,
            0x10 => counts.push(reader.varint()?),
            0x12 => packed(reader.bytes()?, Reader::varint, counts)?,
            _ => reader.skip_unknown(key, &[1, 2])?,
        }
    }
    Ok(offset)
}

fn packed<'a, T>(
    bytes: &'a [u8],
    read: impl Fn(&mut Reader<'a>) -> Result<T, WireError>,
    out: &mut Vec<T>,
) -> Result<(), WireError> {
    let mut reader = Reader::new(bytes);
    while !reader.rest().is_empty() {
        out.push(read(&mut reader)?);
    }
    Ok(())
}
