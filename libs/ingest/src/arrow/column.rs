//! Columns as what they hold: texts, times, numbers. Every access is checked once, before the rows are walked.

use std::borrow::Cow;

use arrow_ipc::{Field, Precision, TimeUnit, Type};
use rustc_hash::FxHashMap;

use super::stream::Buffers;
use super::wrong;
use crate::decoder::DecodeError;

/// The code of a missing text.
pub(super) const MISSING: u32 = u32::MAX;

/// Bytes of a row's text that may lie where other rows have theirs. Views may share, and many rows that share something
/// long would be work without end.
const SHARED_BYTES_MAX: u64 = 1024;

/// Which rows have a value; all of them without a bitmap.
pub(super) struct Validity<'a>(Option<Cow<'a, [u8]>>);

impl Validity<'_> {
    #[inline]
    pub(super) fn has(&self, row: usize) -> bool {
        self.0.as_ref().is_none_or(|bits| bits[row / 8] >> (row % 8) & 1 == 1)
    }

    pub(super) fn is_total(&self) -> bool {
        self.0.is_none()
    }
}

/// Takes a column's buffers apart.
struct Parts<'a, 'n> {
    name: &'n str,
    rows: usize,
    has_nulls: bool,
    buffers: std::vec::IntoIter<Cow<'a, [u8]>>,
}

impl<'a, 'n> Parts<'a, 'n> {
    fn new(name: &'n str, rows: usize, column: Buffers<'a>) -> Result<Self, DecodeError> {
        if column.rows < rows {
            return Err(wrong(format!("column `{name}` has {} rows where the batch has {rows}", column.rows)));
        }
        Ok(Self { name, rows, has_nulls: column.has_nulls, buffers: column.buffers.into_iter() })
    }

    fn validity(&mut self) -> Result<Validity<'a>, DecodeError> {
        let bits = self.buffers.next().unwrap_or_default();
        // Writers may leave the bitmap out where nothing is missing.
        if !self.has_nulls || bits.is_empty() {
            return Ok(Validity(None));
        }
        if bits.len() < self.rows.div_ceil(8) {
            return Err(self.short());
        }
        Ok(Validity(Some(bits)))
    }

    /// A buffer of `count` values of `width` bytes.
    fn values(&mut self, count: usize, width: usize) -> Result<Cow<'a, [u8]>, DecodeError> {
        let bytes = self.buffers.next().unwrap_or_default();
        let wanted = count.checked_mul(width).ok_or_else(|| self.short())?;
        if bytes.len() < wanted {
            return Err(self.short());
        }
        Ok(match bytes {
            Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[..wanted]),
            Cow::Owned(mut bytes) => {
                bytes.truncate(wanted);
                Cow::Owned(bytes)
            }
        })
    }

    #[cold]
    fn short(&self) -> DecodeError {
        wrong(format!("a buffer of column `{}` is too short for {} rows", self.name, self.rows))
    }
}

/// How integers lie in a buffer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Int {
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
}

impl Int {
    fn of(int: arrow_ipc::Int<'_>) -> Option<Self> {
        Some(match (int.bitWidth(), int.is_signed()) {
            (8, true) => Self::I8,
            (16, true) => Self::I16,
            (32, true) => Self::I32,
            (64, true) => Self::I64,
            (8, false) => Self::U8,
            (16, false) => Self::U16,
            (32, false) => Self::U32,
            (64, false) => Self::U64,
            _ => return None,
        })
    }

    fn width(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 | Self::U32 => 4,
            Self::I64 | Self::U64 => 8,
        }
    }
}

/// Calls `each` with every value of a buffer, as the primitive type `$type`.
macro_rules! each_value {
    ($bytes:expr, $type:ty, $each:expr) => {
        $bytes
            .as_chunks::<{ size_of::<$type>() }>()
            .0
            .iter()
            .map(|chunk| <$type>::from_le_bytes(*chunk))
            .for_each($each)
    };
}

/// Calls the expression for an integer type with `$bytes`.
macro_rules! each_int {
    ($int:expr, $bytes:expr, $each:expr) => {
        match $int {
            Int::I8 => each_value!($bytes, i8, $each),
            Int::I16 => each_value!($bytes, i16, $each),
            Int::I32 => each_value!($bytes, i32, $each),
            Int::I64 => each_value!($bytes, i64, $each),
            Int::U8 => each_value!($bytes, u8, $each),
            Int::U16 => each_value!($bytes, u16, $each),
            Int::U32 => each_value!($bytes, u32, $each),
            Int::U64 => each_value!($bytes, u64, $each),
        }
    };
}

/// Texts where they lie.
pub(super) struct Texts<'a> {
    rows: usize,
    validity: Validity<'a>,
    shape: Shape<'a>,
}

enum Shape<'a> {
    Offsets { offsets: Cow<'a, [u8]>, is_large: bool, data: Cow<'a, [u8]> },
    Views { views: Cow<'a, [u8]>, data: Vec<Cow<'a, [u8]>> },
}

impl<'a> Texts<'a> {
    /// The texts of a column or of a dictionary's values.
    pub(super) fn new(name: &str, of: Type, rows: usize, column: Buffers<'a>) -> Result<Self, DecodeError> {
        let mut parts = Parts::new(name, rows, column)?;
        let validity = parts.validity()?;
        let shape = match of {
            Type::Utf8 | Type::LargeUtf8 => {
                let is_large = of == Type::LargeUtf8;
                // A column without rows may leave out even the first offset.
                let count = if rows == 0 { 0 } else { rows + 1 };
                let offsets = parts.values(count, if is_large { 8 } else { 4 })?;
                Shape::Offsets { offsets, is_large, data: parts.buffers.next().unwrap_or_default() }
            }
            Type::Utf8View => {
                let views = parts.values(rows, 16)?;
                let data: Vec<Cow<'a, [u8]>> = parts.buffers.collect();
                let bytes = data.iter().map(|data| data.len() as u64).sum::<u64>();
                let lengths = views.as_chunks::<16>().0.iter().map(|view| {
                    u64::from(view[0]) | u64::from(view[1]) << 8 | u64::from(view[2]) << 16 | u64::from(view[3]) << 24
                });
                if lengths.sum::<u64>() > bytes + rows as u64 * SHARED_BYTES_MAX {
                    return Err(wrong(format!("the texts of column `{name}` are many times what its buffers hold")));
                }
                Shape::Views { views, data }
            }
            _ => return Err(wrong(format!("column `{name}` must hold text, plain or dictionary-encoded"))),
        };
        Ok(Self { rows, validity, shape })
    }

    pub(super) fn len(&self) -> usize {
        self.rows
    }

    /// The bytes of a text. `Ok(None)` is a missing one, `Err` one that lies outside of its buffer.
    #[inline]
    fn bytes(&self, row: usize) -> Result<Option<&[u8]>, ()> {
        if !self.validity.has(row) {
            return Ok(None);
        }
        match &self.shape {
            Shape::Offsets { offsets, is_large, data } => {
                let at = |index: usize| -> Option<usize> {
                    if *is_large {
                        let bytes = offsets.get(index * 8..index * 8 + 8)?.try_into().ok()?;
                        usize::try_from(i64::from_le_bytes(bytes)).ok()
                    } else {
                        let bytes = offsets.get(index * 4..index * 4 + 4)?.try_into().ok()?;
                        usize::try_from(i32::from_le_bytes(bytes)).ok()
                    }
                };
                let (from, to) = (at(row).ok_or(())?, at(row + 1).ok_or(())?);
                data.get(from..to).map(Some).ok_or(())
            }
            Shape::Views { views, data } => {
                let view = views.get(row * 16..row * 16 + 16).ok_or(())?;
                let word = |at: usize| -> Option<usize> {
                    usize::try_from(i32::from_le_bytes(view.get(at..at + 4)?.try_into().ok()?)).ok()
                };
                let length = word(0).ok_or(())?;
                if length <= 12 {
                    return Ok(view.get(4..4 + length));
                }
                let (buffer, offset) = (word(8).ok_or(())?, word(12).ok_or(())?);
                data.get(buffer).and_then(|data| data.get(offset..offset + length)).map(Some).ok_or(())
            }
        }
    }

    /// Looks at every text once, so that nobody has to complain about one later.
    pub(super) fn check(&self, name: &str) -> Result<(), DecodeError> {
        (0..self.rows).try_for_each(|row| self.text(name, row).map(drop))
    }

    fn text(&self, name: &str, row: usize) -> Result<Option<&str>, DecodeError> {
        match self.bytes(row) {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(wrong(format!("column `{name}`, row {row}: not UTF-8"))),
            },
            Err(()) => Err(wrong(format!("column `{name}`, row {row}: the text lies outside of its buffer"))),
        }
    }
}

/// A text column as codes: a small number per row, and what each number stands for.
pub(super) struct Coded<'t> {
    /// Per row; [`MISSING`] where there is none.
    pub(super) codes: Vec<u32>,
    values: Values<'t>,
}

/// What codes stand for.
enum Values<'t> {
    Plain(Vec<&'t str>),
    /// Texts that were checked, where they lie: any number of columns may share a dictionary, and most of it may be of no
    /// use to a batch. It may say a text twice or have a missing one.
    Dictionary(&'t Texts<'t>),
}

impl<'t> Coded<'t> {
    /// How many codes there are.
    pub(super) fn width(&self) -> usize {
        match &self.values {
            Values::Plain(values) => values.len(),
            Values::Dictionary(texts) => texts.len(),
        }
    }

    /// The text of a row, if it has one.
    pub(super) fn value(&self, row: usize) -> Option<&'t str> {
        let code = *self.codes.get(row)?;
        match &self.values {
            Values::Plain(values) => values.get(code as usize).copied(),
            Values::Dictionary(_) if code == MISSING => None,
            Values::Dictionary(texts) => std::str::from_utf8(texts.bytes(code as usize).ok()??).ok(),
        }
    }
}

/// The codes of a column without a dictionary.
pub(super) fn code_plain<'t>(name: &str, texts: &'t Texts<'_>) -> Result<Coded<'t>, DecodeError> {
    let mut codes = Vec::with_capacity(texts.len());
    let mut values: Vec<&'t str> = Vec::new();
    let mut known: FxHashMap<&'t str, u32> = FxHashMap::default();
    let mut last: Option<(&'t [u8], u32)> = None;
    for row in 0..texts.len() {
        let bytes = texts.bytes(row);
        // A column is mostly runs of one text, and a text equal to a valid one is valid.
        if let (Ok(Some(bytes)), Some((before, code))) = (bytes, last)
            && bytes == before
        {
            codes.push(code);
            continue;
        }
        let Some(text) = texts.text(name, row)? else {
            codes.push(MISSING);
            continue;
        };
        let code = *known.entry(text).or_insert_with(|| {
            values.push(text);
            (values.len() - 1) as u32
        });
        last = Some((text.as_bytes(), code));
        codes.push(code);
    }
    Ok(Coded { codes, values: Values::Plain(values) })
}

/// The codes of a column with a dictionary: its indices, each of them within the dictionary, which has been checked.
pub(super) fn code_dictionary<'t>(
    name: &str,
    index: Option<arrow_ipc::Int<'_>>,
    rows: usize,
    column: Buffers<'_>,
    dictionary: &'t Texts<'_>,
) -> Result<Coded<'t>, DecodeError> {
    // Without a type, indices have 32 bits.
    let int = match index {
        None => Int::I32,
        Some(index) => {
            Int::of(index).ok_or_else(|| wrong(format!("column `{name}` has indices of a strange width")))?
        }
    };
    let mut parts = Parts::new(name, rows, column)?;
    let validity = parts.validity()?;
    let bytes = parts.values(rows, int.width())?;
    let mut codes: Vec<u32> = Vec::with_capacity(rows);
    let bound = u32::try_from(dictionary.len()).unwrap_or(MISSING).min(MISSING - 1);
    // What does not fit into 32 bits is beyond every dictionary as well; the marker tells it from a missing text.
    let mut is_beyond = false;
    macro_rules! push {
        ($value:expr) => {{
            let code = u32::try_from($value).unwrap_or(MISSING);
            is_beyond |= code >= bound;
            codes.push(code);
        }};
    }
    each_int!(int, bytes, |value| push!(value));
    if is_beyond || !validity.is_total() {
        for (row, code) in codes.iter_mut().enumerate() {
            if !validity.has(row) {
                *code = MISSING;
            } else if *code >= bound {
                return Err(wrong(format!(
                    "column `{name}`, row {row}: an index beyond the dictionary's {} entries",
                    dictionary.len()
                )));
            }
        }
    }
    Ok(Coded { codes, values: Values::Dictionary(dictionary) })
}

/// Numbers as doubles; `None` for a column without missing ones.
pub(super) struct Numbers<'a> {
    pub(super) values: Vec<f64>,
    pub(super) validity: Validity<'a>,
}

/// The numbers of a column.
pub(super) fn numbers<'a>(
    name: &str,
    field: &Field<'_>,
    rows: usize,
    column: Buffers<'a>,
) -> Result<Numbers<'a>, DecodeError> {
    let mut parts = Parts::new(name, rows, column)?;
    let validity = parts.validity()?;
    let mut values: Vec<f64> = Vec::with_capacity(rows);
    let precision = field.type_as_floating_point().map(|float| float.precision());
    let int = field.type_as_int().and_then(Int::of);
    match (precision, int) {
        _ if field.dictionary().is_some() => return Err(not_a_number(name)),
        (Some(Precision::DOUBLE), _) => each_value!(parts.values(rows, 8)?, f64, |value| values.push(value)),
        (Some(Precision::SINGLE), _) => each_value!(parts.values(rows, 4)?, f32, |value| values.push(value.into())),
        (_, Some(int)) => each_int!(int, parts.values(rows, int.width())?, |value| values.push(value as f64)),
        _ => return Err(not_a_number(name)),
    }
    Ok(Numbers { values, validity })
}

#[cold]
fn not_a_number(name: &str) -> DecodeError {
    wrong(format!("column `{name}` must hold integers, or floats of 32 or 64 bits"))
}

/// Times as nanoseconds since 1970; a time that is missing or out of range is [`NO_TIME`] or [`BAD_TIME`].
pub(super) fn times(name: &str, field: &Field<'_>, rows: usize, column: Buffers<'_>) -> Result<Vec<i64>, DecodeError> {
    let unit = match (field.type_as_timestamp(), field.type_as_int().and_then(Int::of)) {
        _ if field.dictionary().is_some() => None,
        (Some(timestamp), _) => match timestamp.unit() {
            TimeUnit::SECOND => Some(1_000_000_000),
            TimeUnit::MILLISECOND => Some(1_000_000),
            TimeUnit::MICROSECOND => Some(1_000),
            TimeUnit::NANOSECOND => Some(1),
            _ => None,
        },
        // A number without a unit would be a guess for a whole column at once.
        (None, Some(Int::I64)) => Some(1),
        _ => None,
    };
    let Some(unit) = unit else {
        return Err(wrong(format!("column `{name}` must hold timestamps, or nanoseconds since 1970 as int64")));
    };
    let mut parts = Parts::new(name, rows, column)?;
    let validity = parts.validity()?;
    let bytes = parts.values(rows, 8)?;
    let mut times: Vec<i64> = Vec::with_capacity(rows);
    each_value!(bytes, i64, |value: i64| {
        times.push(value.checked_mul(unit).filter(|time| *time >= 0).unwrap_or(BAD_TIME));
    });
    if !validity.is_total() {
        for (row, time) in times.iter_mut().enumerate() {
            if !validity.has(row) {
                *time = NO_TIME;
            }
        }
    }
    Ok(times)
}

/// A missing time.
pub(super) const NO_TIME: i64 = i64::MIN;

/// A time before 1970 or after 2262.
pub(super) const BAD_TIME: i64 = i64::MIN + 1;
