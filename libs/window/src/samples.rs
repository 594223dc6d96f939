//! Rows and the sorted sets of samples they keep.
//!
//! A row keeps the samples themselves, not sums of them: at one sample per pane that is smaller than an accumulator, and
//! a set sorted by time (and start, where it matters) is the same set in whatever order, however often and however late
//! its samples arrived. 12 bytes a sample: milliseconds modulo 2^32 and the value. The wrap is harmless because all
//! samples of the store lie within [`RANGE_MS`] of the tick, so that the sign of a wrapping difference orders two times.
//!
//! Blocks come from slabs, one per capacity class, and in two layouts: *narrow*, and *wide* with a start time for each
//! sample. Deltas are always wide. A counter is wide only while samples of several start times are in its set; in
//! between, the one start lies in the row.
//!
//! Old samples are not removed at the tick, which would write to every cache line of a cell, but when a row is full.
//! What may go then is exactly what no later window can read ([`Cut`]), so it makes no difference when it goes.

use headroom_model::SeriesKind;

/// All samples in a set lie within this distance of the last tick: a quarter of the range of wrapping milliseconds.
pub const RANGE_MS: i64 = 1 << 30;

/// How many of the newest samples stay however old they are: the reporting interval is read from their gaps.
pub const NEWEST_KEPT: usize = 4;

/// Samples per block, by class; all even, since two times share a word.
const CAPACITIES: [usize; 6] = [8, 12, 24, 48, 96, crate::config::SAMPLES_PER_ROW_MAX];
/// Classes from here on are wide.
const WIDE: u8 = CAPACITIES.len() as u8;
const BLOCKS_PER_CHUNK: usize = 1_024;

/// Bits of [`Row::flags`].
pub mod flag {
    /// A value other than a number arrived since the last tick.
    pub const NOT_A_NUMBER: u8 = 1;
    /// The set may hold an end-of-series marker.
    pub const MARKER: u8 = 2;
    /// The values have been seen to differ.
    pub const MOVED: u8 = 4;
    /// All values in the set have been equal since [`super::Row::flat_since`].
    pub const FLAT: u8 = 8;
    /// The row holds a series.
    pub const LIVE: u8 = 16;
    /// No tick has seen the row yet.
    pub const NEW: u8 = 32;
}

/// A sub-series of a resource: 32 bytes beside its block.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub resource: u32,
    pub block: u32,
    pub class: u8,
    pub len: u8,
    pub kind: SeriesKind,
    pub flags: u8,
    /// Reporting interval as of the last tick, 0 = unknown.
    pub interval_ms: u32,
    /// Wrapping time of the oldest sample of a run of equal values ([`flag::FLAT`]); of the last sign of life while the
    /// set is empty.
    pub flat_since: u32,
    /// Counters: start of all samples while narrow, 0 = unknown. Deltas: end of the last kept interval before those in
    /// the set, `i64::MIN` = none. Gauges: 0.
    pub start_ms: i64,
}

impl Row {
    pub fn is_wide(&self) -> bool {
        self.class >= WIDE
    }
}

/// The samples of a row.
#[derive(Clone, Copy)]
pub struct View<'a> {
    words: &'a [u64],
    capacity: usize,
    /// Start of all samples where the layout has none.
    start_ms: i64,
    wide: bool,
}

impl<'a> View<'a> {
    /// The times, two to a word, and the values, if the row is narrow and its block has room for just so many.
    #[inline(always)]
    pub fn block<const WORDS: usize, const CAPACITY: usize>(&self) -> Option<(&'a [u64; WORDS], &'a [u64; CAPACITY])> {
        if self.wide || self.words.len() != WORDS + CAPACITY {
            return None;
        }
        let (times, values) = self.words.split_first_chunk::<WORDS>()?;
        Some((times, values.first_chunk::<CAPACITY>()?))
    }

    #[inline]
    pub fn time(&self, at: usize) -> u32 {
        (self.words[at >> 1] >> ((at & 1) << 5)) as u32
    }

    #[inline]
    pub fn value(&self, at: usize) -> f64 {
        f64::from_bits(self.words[(self.capacity >> 1) + at])
    }

    #[inline]
    pub fn start(&self, at: usize) -> i64 {
        if self.wide { self.words[(self.capacity >> 1) + self.capacity + at] as i64 } else { self.start_ms }
    }
}

/// What no later window of a row can read: everything before `from`, but for the newest sample before it and the
/// [`NEWEST_KEPT`] newest before `tick`.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Start of the longest window at the last tick, wrapping.
    pub from: u32,
    /// The last tick, wrapping.
    pub tick: u32,
}

/// What became of a sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Insertion {
    New,
    Duplicate,
    Conflict,
    /// One sample of the middle is gone for it, or it was itself the middle.
    Thinned,
}

#[derive(Debug)]
struct Slab {
    capacity: usize,
    words: usize,
    chunks: Vec<Box<[u64]>>,
    used: u32,
    free: Vec<u32>,
}

impl Slab {
    fn new(capacity: usize, wide: bool) -> Self {
        let words = capacity / 2 + capacity + if wide { capacity } else { 0 };
        Self { capacity, words, chunks: Vec::new(), used: 0, free: Vec::new() }
    }

    fn take(&mut self) -> u32 {
        if let Some(block) = self.free.pop() {
            return block;
        }
        if self.used as usize == self.chunks.len() * BLOCKS_PER_CHUNK {
            self.chunks.push(vec![0; self.words * BLOCKS_PER_CHUNK].into_boxed_slice());
        }
        self.used += 1;
        self.used - 1
    }

    #[inline]
    fn block(&self, block: u32) -> &[u64] {
        let from = (block as usize % BLOCKS_PER_CHUNK) * self.words;
        &self.chunks[block as usize / BLOCKS_PER_CHUNK][from..from + self.words]
    }

    #[inline]
    fn block_mut(&mut self, block: u32) -> &mut [u64] {
        let from = (block as usize % BLOCKS_PER_CHUNK) * self.words;
        &mut self.chunks[block as usize / BLOCKS_PER_CHUNK][from..from + self.words]
    }
}

/// The blocks of all rows.
#[derive(Debug)]
pub struct Samples {
    slabs: Vec<Slab>,
}

impl Default for Samples {
    fn default() -> Self {
        let narrow = CAPACITIES.iter().map(|capacity| Slab::new(*capacity, false));
        let wide = CAPACITIES.iter().map(|capacity| Slab::new(*capacity, true));
        Self { slabs: narrow.chain(wide).collect() }
    }
}

#[inline]
fn set_time(words: &mut [u64], at: usize, time: u32) {
    let shift = (at & 1) << 5;
    let word = &mut words[at >> 1];
    *word = (*word & !(0xffff_ffff << shift)) | (u64::from(time) << shift);
}

/// `a - b` of two wrapping times.
#[inline]
pub fn since(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

impl Samples {
    /// A row without samples.
    pub fn new_row(&mut self, resource: u32, kind: SeriesKind) -> Row {
        let class = if kind.is_delta() { WIDE } else { 0 };
        let block = self.slabs[usize::from(class)].take();
        let start_ms = if kind.is_delta() { i64::MIN } else { 0 };
        let flags = flag::LIVE | flag::NEW;
        Row { resource, block, class, len: 0, kind, flags, interval_ms: 0, flat_since: 0, start_ms }
    }

    /// Gives the block of a row back.
    pub fn free(&mut self, row: &mut Row) {
        self.slabs[usize::from(row.class)].free.push(row.block);
        row.len = 0;
        row.flags = 0;
    }

    /// The samples of a row.
    #[inline]
    pub fn view(&self, row: &Row) -> View<'_> {
        let slab = &self.slabs[usize::from(row.class)];
        View { words: slab.block(row.block), capacity: slab.capacity, start_ms: row.start_ms, wide: row.is_wide() }
    }

    /// Bytes of all blocks, used or free.
    pub fn bytes(&self) -> usize {
        self.slabs.iter().map(|slab| slab.chunks.len() * slab.words * BLOCKS_PER_CHUNK * 8).sum()
    }

    /// Adds a sample to the set. `start_ms` is ignored for gauges.
    #[inline]
    pub fn insert(&mut self, row: &mut Row, time: u32, start_ms: i64, value: f64, cut: Option<Cut>) -> Insertion {
        if row.kind == SeriesKind::Counter && row.start_ms != start_ms && !row.is_wide() {
            if row.len == 0 {
                row.start_ms = start_ms;
            } else {
                self.relayout(row, row.class + WIDE);
            }
        }
        let slab = &mut self.slabs[usize::from(row.class)];
        let capacity = slab.capacity;
        let len = usize::from(row.len);
        let words = slab.block_mut(row.block);
        let wide = row.class >= WIDE;
        let mut at = len;
        while at > 0 {
            let other = (words[(at - 1) >> 1] >> (((at - 1) & 1) << 5)) as u32;
            let ahead = since(time, other);
            if ahead > 0 {
                break;
            }
            if ahead == 0 {
                let starts = (capacity >> 1) + capacity;
                let order =
                    if wide { start_ms.cmp(&(words[starts + at - 1] as i64)) } else { std::cmp::Ordering::Equal };
                if order == std::cmp::Ordering::Greater {
                    break;
                }
                if order == std::cmp::Ordering::Equal {
                    let held = &mut words[(capacity >> 1) + at - 1];
                    if *held == value.to_bits() {
                        return Insertion::Duplicate;
                    }
                    *held = (*held).max(value.to_bits());
                    return Insertion::Conflict;
                }
            }
            at -= 1;
        }
        if len == capacity {
            return self.insert_into_full(row, at, time, start_ms, value, cut);
        }
        write(words, capacity, wide, len, at, time, start_ms, value);
        row.len += 1;
        Insertion::New
    }

    /// Makes room by forgetting what no window reads, else by a larger block, else by thinning; then inserts.
    #[cold]
    #[inline(never)]
    fn insert_into_full(
        &mut self,
        row: &mut Row,
        at: usize,
        time: u32,
        start_ms: i64,
        value: f64,
        cut: Option<Cut>,
    ) -> Insertion {
        let mut at = at;
        let stale = cut.filter(|_| !row.kind.is_delta()).map_or(0, |cut| self.stale(row, cut));
        if stale > 0 {
            self.forget_oldest(row, stale);
            if at < stale {
                // Older than what was just forgotten: no window reads it either.
                return Insertion::New;
            }
            at -= stale;
            let class = usize::from(row.class);
            let base = class - class % CAPACITIES.len();
            if class > base && usize::from(row.len) + 3 <= CAPACITIES[class - base - 1] {
                self.relayout(row, row.class - 1);
            }
        } else if usize::from(row.class) % CAPACITIES.len() + 1 < CAPACITIES.len() {
            self.relayout(row, row.class + 1);
        } else {
            // Full for good: of the set with the new sample the one in the middle goes. It is neither among the
            // smallest half nor the largest of what was ever offered, so the order of arrival does not matter.
            let middle = CAPACITIES[CAPACITIES.len() - 1] / 2;
            if at == middle {
                return Insertion::Thinned;
            }
            let gone = if at < middle { middle - 1 } else { middle };
            self.remove(row, gone);
            if at > middle {
                at -= 1;
            }
            self.write_at(row, at, time, start_ms, value);
            return Insertion::Thinned;
        }
        self.write_at(row, at, time, start_ms, value);
        Insertion::New
    }

    fn write_at(&mut self, row: &mut Row, at: usize, time: u32, start_ms: i64, value: f64) {
        let wide = row.is_wide();
        let slab = &mut self.slabs[usize::from(row.class)];
        let capacity = slab.capacity;
        write(slab.block_mut(row.block), capacity, wide, usize::from(row.len), at, time, start_ms, value);
        row.len += 1;
    }

    /// How many of the oldest samples no later window reads.
    pub fn stale(&self, row: &Row, cut: Cut) -> usize {
        let view = self.view(row);
        let len = usize::from(row.len);
        let below_tick = (0..len).rev().find(|at| since(view.time(*at), cut.tick) < 0).map_or(0, |at| at + 1);
        let below_cut = (0..below_tick).rev().find(|at| since(view.time(*at), cut.from) < 0).map_or(0, |at| at + 1);
        below_cut.saturating_sub(1).min(below_tick.saturating_sub(NEWEST_KEPT))
    }

    /// Removes the `count` oldest samples.
    pub fn forget_oldest(&mut self, row: &mut Row, count: usize) {
        let wide = row.is_wide();
        let slab = &mut self.slabs[usize::from(row.class)];
        let capacity = slab.capacity;
        let words = slab.block_mut(row.block);
        let len = usize::from(row.len);
        let count = count.min(len);
        if count == 1 && forget_one::<4, 8>(words) {
            row.len -= 1;
            return;
        }
        for at in count..len {
            let time = (words[at >> 1] >> ((at & 1) << 5)) as u32;
            set_time(words, at - count, time);
        }
        let values = capacity >> 1;
        words.copy_within(values + count..values + len, values);
        if wide {
            let starts = values + capacity;
            words.copy_within(starts + count..starts + len, starts);
        }
        row.len -= count as u8;
    }

    /// Removes all samples from the position `from` on.
    pub fn forget_newest(&mut self, row: &mut Row, from: usize) {
        row.len = row.len.min(from as u8);
    }

    fn remove(&mut self, row: &mut Row, gone: usize) {
        let wide = row.is_wide();
        let slab = &mut self.slabs[usize::from(row.class)];
        let capacity = slab.capacity;
        let words = slab.block_mut(row.block);
        let len = usize::from(row.len);
        for at in gone + 1..len {
            let time = (words[at >> 1] >> ((at & 1) << 5)) as u32;
            set_time(words, at - 1, time);
        }
        let values = capacity >> 1;
        words.copy_within(values + gone + 1..values + len, values + gone);
        if wide {
            let starts = values + capacity;
            words.copy_within(starts + gone + 1..starts + len, starts + gone);
        }
        row.len -= 1;
    }

    /// A counter whose samples have one start again needs no start for each.
    pub fn narrow_if_uniform(&mut self, row: &mut Row) {
        if row.kind != SeriesKind::Counter || !row.is_wide() || row.len == 0 {
            return;
        }
        let view = self.view(row);
        let start = view.start(0);
        if (1..usize::from(row.len)).all(|at| view.start(at) == start) {
            row.start_ms = start;
            self.relayout(row, row.class - WIDE);
        }
    }

    /// Moves a row's samples to a block of another class.
    fn relayout(&mut self, row: &mut Row, class: u8) {
        let samples: Vec<(u32, i64, f64)> = {
            let view = self.view(row);
            (0..usize::from(row.len)).map(|at| (view.time(at), view.start(at), view.value(at))).collect()
        };
        self.slabs[usize::from(row.class)].free.push(row.block);
        row.class = class;
        row.block = self.slabs[usize::from(class)].take();
        row.len = 0;
        for (at, (time, start_ms, value)) in samples.into_iter().enumerate() {
            self.write_at(row, at, time, start_ms, value);
        }
    }
}

/// Removes the oldest sample of a narrow block of just this size: what nearly every point of a fleet at rest does, hence
/// without a loop. What lies behind the samples moves too, which does no harm.
#[inline]
fn forget_one<const WORDS: usize, const CAPACITY: usize>(words: &mut [u64]) -> bool {
    if words.len() != WORDS + CAPACITY {
        return false;
    }
    let (times, values) = words.split_at_mut(WORDS);
    let (Some(times), Some(values)) = (times.first_chunk_mut::<WORDS>(), values.first_chunk_mut::<CAPACITY>()) else {
        return false;
    };
    let (old_times, old_values) = (*times, *values);
    for at in 0..WORDS {
        let next = if at + 1 < WORDS { old_times[at + 1] } else { 0 };
        times[at] = (old_times[at] >> 32) | (next << 32);
    }
    values[..CAPACITY - 1].copy_from_slice(&old_values[1..]);
    true
}

#[inline]
#[allow(clippy::too_many_arguments)] // The parts of one sample and of one block: a struct for them would have one use.
fn write(words: &mut [u64], capacity: usize, wide: bool, len: usize, at: usize, time: u32, start_ms: i64, value: f64) {
    let values = capacity >> 1;
    let starts = values + capacity;
    if at < len {
        for i in (at..len).rev() {
            let moved = (words[i >> 1] >> ((i & 1) << 5)) as u32;
            set_time(words, i + 1, moved);
        }
        words.copy_within(values + at..values + len, values + at + 1);
        if wide {
            words.copy_within(starts + at..starts + len, starts + at + 1);
        }
    }
    set_time(words, at, time);
    words[values + at] = value.to_bits();
    if wide {
        words[starts + at] = start_ms as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contents(samples: &Samples, row: &Row) -> Vec<(u32, i64, u64)> {
        let view = samples.view(row);
        (0..usize::from(row.len)).map(|at| (view.time(at), view.start(at), view.value(at).to_bits())).collect()
    }

    proptest! {
        /// The set is a function of what was offered, through growth, widening, thinning and the wrap of the clock.
        #[test]
        fn order_and_repeats_do_not_matter(
            offered in prop::collection::vec((0u32..400, 0i64..2, 0u8..3), 1..400),
            kind in prop::sample::select(vec![SeriesKind::Gauge, SeriesKind::Counter, SeriesKind::DeltaCounter]),
        ) {
            let build = |order: &mut dyn Iterator<Item = &(u32, i64, u8)>| {
                let mut samples = Samples::default();
                let mut row = samples.new_row(0, kind);
                for (time, start, value) in order {
                    let time = (time * 7).wrapping_sub(1_000);
                    samples.insert(&mut row, time, *start, f64::from(*value), None);
                }
                samples.narrow_if_uniform(&mut row);
                contents(&samples, &row).iter().map(|(t, s, v)| {
                    (*t, if kind == SeriesKind::Gauge { 0 } else { *s }, *v)
                }).collect::<Vec<_>>()
            };
            let forward = build(&mut offered.iter());
            prop_assert_eq!(&forward, &build(&mut offered.iter().rev()));
            let mut twice: Vec<_> = offered.iter().chain(&offered).copied().collect();
            twice.sort_by_key(|(t, s, v)| (v.wrapping_mul(31), *s, *t));
            prop_assert_eq!(&forward, &build(&mut twice.iter()));
            prop_assert!(forward.len() <= crate::config::SAMPLES_PER_ROW_MAX);
        }
    }

    #[test]
    fn a_full_row_forgets_what_no_window_reads_before_it_grows() {
        let mut samples = Samples::default();
        let mut row = samples.new_row(0, SeriesKind::Gauge);
        for second in 0..1_000u32 {
            let tick = second / 10 * 10_000;
            let cut = Cut { from: tick.wrapping_sub(60_000), tick };
            if second % 10 == 0 {
                samples.insert(&mut row, second * 1_000, 0, 1.0, Some(cut));
            }
        }
        assert_eq!((row.class, contents(&samples, &row).last().map(|s| s.0)), (0, Some(990_000)));
    }

    #[test]
    fn beyond_the_largest_class_both_ends_stay() {
        let mut samples = Samples::default();
        let mut row = samples.new_row(0, SeriesKind::Gauge);
        let thinned = (0..1_000).filter(|t| samples.insert(&mut row, *t, 0, 0.0, None) == Insertion::Thinned).count();
        let times: Vec<u32> = contents(&samples, &row).iter().map(|s| s.0).collect();
        assert_eq!(thinned, 1_000 - 192);
        assert_eq!(times, (0..96).chain(904..1_000).collect::<Vec<_>>());
    }
}
