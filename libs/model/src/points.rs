//! How the points of a batch lie in a record of the log: values as they are, everything around them as runs.
//!
//! A batch is what some senders reported at some moment, so that resource, time and start are the same for dozens of
//! points on end, and there are few enough series for a byte or two. Written in full, a point takes 32 bytes, and sums,
//! copies, syncs and brokers pay for each of them; so it takes about ten.
//!
//! The values come first: their number is bounded by the bytes that are there, and everything else must be as many.

use arrow_buffer::ScalarBuffer;

use crate::batch::Points;
use crate::codec::{DecodeError, Decoder, Encoder};

const PLAIN: u8 = 0;
const RUNS: u8 = 1;

/// Writes the points of a batch that names `series` different ones.
pub(crate) fn encode(points: &Points, series: usize, out: &mut Encoder) {
    out.put_f64s(&points.value);
    put_runs(&points.resource, out, Encoder::put_u32, Encoder::put_u32s);
    put_runs(&points.start_ns, out, Encoder::put_i64, Encoder::put_i64s);
    put_runs(&points.time_ns, out, Encoder::put_i64, Encoder::put_i64s);
    out.put_u32(points.series.len() as u32);
    match Width::of(series) {
        Width::One => out.bytes.extend(points.series.iter().map(|at| *at as u8)),
        Width::Two => points.series.iter().for_each(|at| out.put_u16(*at as u16)),
        Width::Four => points.series.iter().for_each(|at| out.put_u32(*at)),
    }
}

/// Reads them.
///
/// # Errors
/// If the bytes are no points.
pub(crate) fn decode(series: usize, input: &mut Decoder<'_>) -> Result<Points, DecodeError> {
    let value: ScalarBuffer<f64> = input.get_f64s()?.into();
    let rows = value.len();
    Ok(Points {
        resource: get_runs(rows, input, Decoder::get_u32, Decoder::get_u32s)?.into(),
        start_ns: get_runs(rows, input, Decoder::get_i64, Decoder::get_i64s)?.into(),
        time_ns: get_runs(rows, input, Decoder::get_i64, Decoder::get_i64s)?.into(),
        series: match Width::of(series) {
            Width::One => input.get_u8s()?.into_iter().map(u32::from).collect::<Vec<_>>().into(),
            Width::Two => input.get_u16s()?.into_iter().map(u32::from).collect::<Vec<_>>().into(),
            Width::Four => input.get_u32s()?.into(),
        },
        value,
    })
}

/// Bytes of a series' number.
enum Width {
    One,
    Two,
    Four,
}

impl Width {
    fn of(series: usize) -> Self {
        match series {
            0..=0x100 => Self::One,
            0x101..=0x1_0000 => Self::Two,
            _ => Self::Four,
        }
    }
}

fn put_runs<T: Copy + PartialEq>(
    column: &[T],
    out: &mut Encoder,
    put: impl Fn(&mut Encoder, T),
    put_all: impl Fn(&mut Encoder, &[T]),
) {
    let runs = 1 + column.windows(2).filter(|pair| pair[0] != pair[1]).count();
    if runs * (size_of::<T>() + size_of::<u32>()) >= size_of_val(column) {
        out.put_u8(PLAIN);
        put_all(out, column);
        return;
    }
    out.put_u8(RUNS);
    out.put_u32(runs as u32);
    for run in column.chunk_by(|a, b| a == b) {
        put(out, run[0]);
        out.put_u32(run.len() as u32);
    }
}

fn get_runs<'a, T: Copy>(
    rows: usize,
    input: &mut Decoder<'a>,
    get: impl Fn(&mut Decoder<'a>) -> Result<T, DecodeError>,
    get_all: impl Fn(&mut Decoder<'a>) -> Result<Vec<T>, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    if input.get_u8()? == PLAIN {
        return get_all(input);
    }
    let runs = input.get_length(size_of::<T>() + size_of::<u32>(), "runs")?;
    let mut column = Vec::with_capacity(rows);
    for _ in 0..runs {
        let (value, length) = (get(input)?, input.get_u32()? as usize);
        if length > rows - column.len() {
            return Err(input.error("length of a run"));
        }
        column.resize(column.len() + length, value);
    }
    Ok(column)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(rows: usize, per_resource: usize, series: usize) -> Points {
        let at = |row: usize| 1_795_255_200_000_000_000 + (row / per_resource.max(1)) as i64 * 1_000;
        Points {
            resource: (0..rows).map(|row| (row / per_resource.max(1)) as u32).collect::<Vec<_>>().into(),
            series: (0..rows).map(|row| (row % series.max(1)) as u32).collect::<Vec<_>>().into(),
            start_ns: vec![0; rows].into(),
            time_ns: (0..rows).map(at).collect::<Vec<_>>().into(),
            value: (0..rows).map(|row| row as f64 / 3.0).collect::<Vec<_>>().into(),
        }
    }

    #[test]
    fn points_come_back_whatever_their_shape() {
        for (rows, per_resource, series) in [
            (0, 1, 0),
            (1, 1, 1),
            (5, 1, 5),
            (100, 50, 50),
            (1_000, 1_000, 256),
            (1_000, 7, 257),
            (70_000, 100, 65_536),
            (70_000, 1, 70_000),
        ] {
            let points = points(rows, per_resource, series);
            let mut out = Encoder::default();
            encode(&points, series, &mut out);
            let mut input = Decoder::new(&out.bytes);
            assert_eq!(decode(series, &mut input), Ok(points), "{rows} {per_resource} {series}");
            assert!(input.finish().is_ok());
        }
    }

    #[test]
    fn a_usual_point_takes_ten_bytes() {
        let mut out = Encoder::default();
        encode(&points(5_000, 50, 50), 50, &mut out);
        assert!(out.bytes.len() < 5_000 * 10, "{}", out.bytes.len());
    }

    #[test]
    fn a_few_bytes_do_not_become_many_points() {
        for (rows, runs) in [(0, vec![(7u32, u32::MAX)]), (2, vec![(7, 1), (8, 2)]), (2, vec![(7, 3)])] {
            let mut out = Encoder::default();
            out.put_f64s(&vec![1.0; rows]);
            out.put_u8(RUNS);
            out.put_u32(runs.len() as u32);
            for (value, length) in &runs {
                out.put_u32(*value);
                out.put_u32(*length);
            }
            assert!(decode(1, &mut Decoder::new(&out.bytes)).is_err(), "{rows} {runs:?}");
        }
    }
}
