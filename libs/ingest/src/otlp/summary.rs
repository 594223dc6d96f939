//! Summary data points: quantiles that the sender computed.

use super::number::AttributeSpan;
use super::wire::{Reader, WireError};

/// A point's fields. Kept by the walk, so that its vector is allocated once.
#[derive(Debug, Default)]
pub(crate) struct SummaryFields {
    pub(crate) start: u64,
    pub(crate) time: u64,
    pub(crate) count: u64,
    pub(crate) sum: f64,
    pub(crate) flags: u64,
    pub(crate) attributes: AttributeSpan,
    /// (quantile, value) as sent.
    pub(crate) quantiles: Vec<(f64, f64)>,
}

/// Key of the attribute fields.
pub(crate) const ATTRIBUTES_KEY: u32 = 0x3a;

impl SummaryFields {
    /// Reads a `SummaryDataPoint`.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let mut quantiles = std::mem::take(&mut self.quantiles);
        quantiles.clear();
        *self = Self { quantiles, ..Self::default() };
        let mut reader = Reader::new(bytes);
        loop {
            let from = bytes.len() - reader.rest().len();
            let Some(key) = reader.key()? else { return Ok(()) };
            match key {
                0x11 => self.start = reader.fixed64()?,
                0x19 => self.time = reader.fixed64()?,
                0x21 => self.count = reader.fixed64()?,
                0x29 => self.sum = reader.double()?,
                0x32 => self.quantiles.push(read_quantile(reader.bytes()?)?),
                ATTRIBUTES_KEY => {
                    reader.bytes()?;
                    self.attributes.add(from, bytes.len() - reader.rest().len());
                }
                0x40 => self.flags = reader.varint()?,
                _ => reader.skip_unknown(key, &[2, 3, 4, 5, 6, 7, 8])?,
            }
        }
    }
}

fn read_quantile(bytes: &[u8]) -> Result<(f64, f64), WireError> {
    let (mut quantile, mut value) = (0.0, 0.0);
    let mut reader = Reader::new(bytes);
    while let Some(key) = reader.key()? {
        match key {
            0x09 => quantile = reader.double()?,
            0x11 => value = reader.double()?,
            _ => reader.skip_unknown(key, &[1, 2])?,
        }
    }
    Ok((quantile, value))
}
