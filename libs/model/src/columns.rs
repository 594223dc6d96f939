//! How a snapshot's columns lie in its bytes: most of them say the same for every server, or the same as another column.
//!
//! A signal that is an input as it is has the input's values; reports of one sender have one age and one number of samples
//! for all of its signals; a signal that nobody feeds has no value anywhere. Written in full, a server takes 800 bytes at
//! every tick, most of them repeats, and writing them costs more than the tick. So a column that has one value for all
//! rows is that value, and one that was written before is its number.
//!
//! Which of these it is follows from the content alone: equal contents have equal bytes.

use arrow_buffer::{ArrowNativeType, ScalarBuffer, ToByteSlice};

use crate::codec::{DecodeError, Decoder, Encoder};

const PLAIN: u8 = 0;
const CONSTANT: u8 = 1;
const EARLIER: u8 = 2;

/// Columns of one type that were written in full.
#[derive(Debug)]
pub(crate) struct Written<'a> {
    rows: usize,
    columns: Vec<&'a [u8]>,
}

impl<'a> Written<'a> {
    /// Of a snapshot with `rows` servers.
    pub(crate) fn new(rows: usize) -> Self {
        Self { rows, columns: Vec::new() }
    }

    /// What to write for a column of this memory, unless it is to be written in full: then `plain` writes it.
    fn put<const WIDTH: usize>(
        &mut self,
        out: &mut Encoder,
        column: &'a [u8],
        first: impl FnOnce(&mut Encoder),
        plain: impl FnOnce(&mut Encoder),
    ) {
        let is_whole = self.rows > 0 && column.len() == self.rows * WIDTH;
        if is_whole && column[WIDTH..] == column[..column.len() - WIDTH] {
            out.put_u8(CONSTANT);
            first(out);
        } else if let Some(at) = self.columns.iter().position(|earlier| is_whole && *earlier == column) {
            out.put_u8(EARLIER);
            out.put_u32(at as u32);
        } else {
            out.put_u8(PLAIN);
            plain(out);
            self.columns.push(column);
        }
    }
}

/// Columns of one type that were read in full.
#[derive(Debug)]
pub(crate) struct Read<T: ArrowNativeType> {
    rows: usize,
    /// The first version wrote every column in full, and no word about it.
    is_first_version: bool,
    columns: Vec<ScalarBuffer<T>>,
}

impl<T: ArrowNativeType> Read<T> {
    /// Of a snapshot with `rows` servers.
    pub(crate) fn new(rows: usize, is_first_version: bool) -> Self {
        Self { rows, is_first_version, columns: Vec::new() }
    }
}

macro_rules! columns {
    ($($type:ty, $put:ident, $get:ident, $puts:ident, $gets:ident, $put_one:ident, $get_one:ident);*) => {
        impl<'a> Written<'a> {
            $(
                #[doc = concat!("Writes a column of `", stringify!($type), "`.")]
                pub(crate) fn $put(&mut self, out: &mut Encoder, column: &'a [$type]) {
                    const WIDTH: usize = size_of::<$type>();
                    let first = |out: &mut Encoder| out.$put_one(column[0]);
                    self.put::<WIDTH>(out, column.to_byte_slice(), first, |out| out.$puts(column));
                }
            )*
        }

        $(
            impl Read<$type> {
                #[doc = concat!("Reads a column of `", stringify!($type), "`; those that are the same share memory.")]
                ///
                /// # Errors
                /// If the bytes are no column.
                pub(crate) fn $get(&mut self, input: &mut Decoder<'_>) -> Result<ScalarBuffer<$type>, DecodeError> {
                    let tag = if self.is_first_version { PLAIN } else { input.get_u8()? };
                    match tag {
                        PLAIN => {
                            let column = ScalarBuffer::from(input.$gets()?);
                            self.columns.push(column.clone());
                            Ok(column)
                        }
                        CONSTANT => Ok(ScalarBuffer::from(vec![input.$get_one()?; self.rows])),
                        EARLIER => {
                            let at = input.get_u32()? as usize;
                            self.columns.get(at).cloned().ok_or_else(|| input.error("number of a column"))
                        }
                        _ => Err(input.error("kind of column")),
                    }
                }
            }
        )*
    };
}

columns!(
    u8, put_u8s, get_u8s, put_u8s, get_u8s, put_u8, get_u8;
    u16, put_u16s, get_u16s, put_u16s, get_u16s, put_u16, get_u16;
    u32, put_u32s, get_u32s, put_u32s, get_u32s, put_u32, get_u32;
    f32, put_f32s, get_f32s, put_f32s, get_f32s, put_f32, get_f32;
    f64, put_f64s, get_f64s, put_f64s, get_f64s, put_f64, get_f64
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_back_and_repeats_take_a_few_bytes() {
        let nothing = [f64::NAN; 3];
        let (a, b) = ([1.0, 2.0, f64::NAN], [1.0, 2.0, 4.0]);
        let again = a;
        let (mut out, mut written) = (Encoder::default(), Written::new(3));
        let sizes: Vec<usize> = [&nothing, &a, &b, &again, &nothing, &b]
            .map(|column| {
                let before = out.bytes.len();
                written.put_f64s(&mut out, column);
                out.bytes.len() - before
            })
            .into();
        assert_eq!(sizes, [9, 29, 29, 5, 9, 5]);
        let (mut input, mut read) = (Decoder::new(&out.bytes), Read::<f64>::new(3, false));
        for column in [&nothing, &a, &b, &again, &nothing, &b] {
            let bits = |column: &[f64]| column.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&read.get_f64s(&mut input).unwrap()), bits(column));
        }
        assert!(input.finish().is_ok());
    }

    #[test]
    fn a_column_of_another_length_is_written_as_it_is() {
        for (rows, column) in [(0, vec![]), (2, vec![7, 7, 7]), (3, vec![7])] {
            let (mut out, mut written) = (Encoder::default(), Written::new(rows));
            written.put_u32s(&mut out, &column);
            assert_eq!(Read::<u32>::new(rows, false).get_u32s(&mut Decoder::new(&out.bytes)).unwrap()[..], column[..]);
        }
    }

    #[test]
    fn what_is_no_column_is_refused() {
        for bytes in [&[2, 0, 0, 0, 0][..], &[3], &[1, 1], &[]] {
            assert!(Read::<u32>::new(1_000_000, false).get_u32s(&mut Decoder::new(bytes)).is_err(), "{bytes:?}");
        }
    }
}
