//! The arithmetic of counters and deltas over a sorted set: which stretches of it are one epoch, and what they add up to.
//!
//! A counter's increase is *last minus first* per epoch, never a sum of differences: it telescopes, so what happened in
//! between needs not have arrived, and the result is exact for integers. An epoch ends where the start time changes
//! (a true reset: the first value of the next one counts in full), or, where the sender does not say when it started,
//! where the value falls (a reset from zero). Two writers of one counter overlap: the one with the later end is kept
//! and the other cut off where it starts. Deltas are kept greedily by their end; those that reach into a kept one go.
//!
//! Histograms use the same sweep with their counts as values, and subtract buckets along the segments it finds.

/// A sample with absolute times.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub time_ms: i64,
    /// 0 = unknown (counters); for deltas equal to the time.
    pub start_ms: i64,
    /// NaN for an end-of-series marker.
    pub value: f64,
}

/// Part of an epoch inside a window: the increase is `value[last] - value[base]`, or `value[last]` from zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// The sample to subtract; `None` = began at zero.
    pub base: Option<usize>,
    /// The last sample.
    pub last: usize,
}

/// What is notable about a window. The same event is in several windows one after the other: `new` counts those since
/// the last tick, for counters that only grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Events {
    pub resets: u32,
    pub gaps: u32,
    pub overlaps: u32,
    pub new_resets: u32,
    pub new_gaps: u32,
    pub new_overlaps: u32,
    /// Counters of which nothing was known before, and deltas, whose sender does not say when they began.
    pub new_unknown_starts: u32,
}

impl Events {
    pub fn reset(&mut self, new: bool) {
        self.resets += 1;
        self.new_resets += u32::from(new);
    }

    pub fn gap(&mut self, new: bool) {
        self.gaps += 1;
        self.new_gaps += u32::from(new);
    }

    pub fn unknown_start(&mut self, new: bool) {
        self.new_unknown_starts += u32::from(new);
    }

    pub fn overlap(&mut self, new: bool) {
        self.overlaps += 1;
        self.new_overlaps += u32::from(new);
    }
}

/// What to look at.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Start of the window.
    pub from_ms: i64,
    /// A base may lie this far before the first sample of the window; a longer silence is a gap that nothing is known of.
    pub reach_ms: i64,
    /// The sender has been watched since then: what started later counts in full.
    pub horizon_ms: i64,
    /// Pairs further apart than this are counted as gaps.
    pub gap_ms: i64,
    /// The last tick: events from here on are new.
    pub new_from_ms: i64,
}

/// The segments of a window.
#[derive(Debug, Default)]
pub struct Sweep {
    kept: Vec<usize>,
    /// In ascending order.
    pub segments: Vec<Segment>,
    /// Time that the increases are of, ms.
    pub covered_ms: i64,
    /// What was found in the window.
    pub events: Events,
}

impl Sweep {
    /// Sweeps a counter's samples, sorted by time and start, all before the tick.
    pub fn counter(&mut self, samples: &[Sample], span: Span) {
        self.keep(samples, span);
        self.segments.clear();
        self.covered_ms = 0;
        let mut previous: Option<usize> = None;
        let mut open: Option<Segment> = None;
        for at in self.kept.iter().rev().copied() {
            let sample = samples[at];
            if sample.time_ms < span.from_ms {
                previous = Some(at);
                continue;
            }
            let began_known = sample.start_ms > 0 && sample.start_ms < sample.time_ms;
            let (began_at_zero, covered_from) = match previous {
                None if began_known && sample.start_ms >= span.horizon_ms => {
                    (true, Some(sample.start_ms.max(span.from_ms)))
                }
                None => {
                    // What was counted before is not known: the first value is only what later ones are measured from.
                    if !began_known {
                        self.events.unknown_start(sample.time_ms >= span.new_from_ms);
                    }
                    (false, None)
                }
                Some(before) => {
                    let before = samples[before];
                    let distance = sample.time_ms - before.time_ms;
                    let reachable = before.time_ms >= span.from_ms || distance <= span.reach_ms;
                    if distance > span.gap_ms {
                        self.events.gap(sample.time_ms >= span.new_from_ms);
                    }
                    // Whatever was kept of another start ends before this one began.
                    let new_epoch = began_known && sample.start_ms != before.start_ms;
                    if new_epoch || sample.value < before.value {
                        if new_epoch || reachable {
                            self.events.reset(sample.time_ms >= span.new_from_ms);
                            let from = if reachable { before.time_ms } else { sample.start_ms.max(span.from_ms) };
                            (true, Some(from))
                        } else {
                            (false, None)
                        }
                    } else if reachable {
                        if open.is_none() {
                            open = previous.map(|base| Segment { base: Some(base), last: base });
                        }
                        if let Some(segment) = open.as_mut() {
                            segment.last = at;
                        }
                        self.covered_ms += distance;
                        previous = Some(at);
                        continue;
                    } else {
                        (false, None)
                    }
                }
            };
            self.segments.extend(open.take());
            open = Some(Segment { base: if began_at_zero { None } else { Some(at) }, last: at });
            self.covered_ms += covered_from.map_or(0, |from| sample.time_ms - from);
            previous = Some(at);
        }
        self.segments.extend(open);
    }

    /// Walks back from the newest sample and keeps what belongs to one writer; `kept` is newest first.
    fn keep(&mut self, samples: &[Sample], span: Span) {
        self.kept.clear();
        self.events = Events::default();
        let mut start = None;
        for (at, sample) in samples.iter().enumerate().rev() {
            if sample.value.is_nan() {
                continue;
            }
            match start {
                Some(known) if known != 0 && sample.start_ms != known && sample.time_ms > known => {
                    if sample.time_ms >= span.from_ms {
                        self.events.overlap(sample.time_ms >= span.new_from_ms);
                    }
                }
                _ => {
                    start = Some(sample.start_ms);
                    self.kept.push(at);
                }
            }
        }
    }

    /// The increase that the segments add up to, `None` if nothing was covered.
    pub fn increase(&self, samples: &[Sample]) -> Option<f64> {
        (self.covered_ms > 0).then(|| {
            self.segments
                .iter()
                .map(|segment| samples[segment.last].value - segment.base.map_or(0.0, |base| samples[base].value))
                .sum()
        })
    }
}

/// What the deltas of a window add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DeltaSum {
    /// Sum of the kept values.
    pub sum: f64,
    /// Length of the kept intervals, ms.
    pub covered_ms: i64,
    /// How many were kept.
    pub samples: u32,
    /// What was found in the window.
    pub events: Events,
}

/// Sweeps delta intervals, sorted by end and start, and calls `kept` with the position of each one that is kept, in
/// order. `floor_ms` is the end of the last interval kept before these, `i64::MIN` if there is none. `step_ms` stands
/// for the length of an interval whose start is unknown and that follows none.
pub fn deltas(
    samples: &[Sample],
    from_ms: i64,
    new_from_ms: i64,
    floor_ms: i64,
    step_ms: i64,
    mut kept: impl FnMut(usize),
) -> (DeltaSum, i64) {
    let mut result = DeltaSum::default();
    let mut end = floor_ms;
    for (at, sample) in samples.iter().enumerate() {
        if sample.value.is_nan() {
            continue;
        }
        let inside = sample.time_ms >= from_ms;
        let unknown = sample.start_ms >= sample.time_ms;
        if end > i64::MIN && (sample.start_ms < end || unknown && sample.time_ms <= end) {
            if inside {
                result.events.overlap(sample.time_ms >= new_from_ms);
            }
            continue;
        }
        let start_ms = match (unknown, end) {
            (false, _) => sample.start_ms,
            (true, i64::MIN) => sample.time_ms.saturating_sub(step_ms),
            // Without a start an interval is taken to follow the one before it, unless that is long ago.
            (true, end) if step_ms > 0 && sample.time_ms - end > step_ms * 5 / 2 => sample.time_ms - step_ms,
            (true, end) => end,
        };
        if inside {
            if unknown {
                result.events.unknown_start(sample.time_ms >= new_from_ms);
            }
            if end > i64::MIN && start_ms > end {
                result.events.gap(sample.time_ms >= new_from_ms);
            }
            result.sum += sample.value;
            result.covered_ms += sample.time_ms.saturating_sub(start_ms);
            result.samples += 1;
            kept(at);
        }
        end = sample.time_ms;
    }
    (result, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(points: &[(i64, i64, f64)]) -> Vec<Sample> {
        points
            .iter()
            .map(|(time_ms, start_ms, value)| Sample { time_ms: *time_ms, start_ms: *start_ms, value: *value })
            .collect()
    }

    /// `(time, start, value)…` over the window from 100, watched since 50, reach 60 → increase, covered, events
    /// (resets, gaps, overlaps).
    #[test]
    fn counters() {
        type Case<'a> = (&'a str, &'a [(i64, i64, f64)], Option<f64>, i64, (u32, u32, u32));
        let cases: &[Case<'_>] = &[
            ("plain, base before the window", &[(90, 0, 5.0), (100, 0, 7.0), (110, 0, 12.0)], Some(7.0), 20, (0, 0, 0)),
            ("first sample, unknown start: nothing is known", &[(110, 0, 12.0)], None, 0, (0, 0, 0)),
            ("first sample, start == time: the same", &[(110, 110, 12.0)], None, 0, (0, 0, 0)),
            ("first sample, started while watched", &[(110, 60, 12.0)], Some(12.0), 10, (0, 0, 0)),
            ("first sample, started in the window", &[(110, 104, 12.0)], Some(12.0), 6, (0, 0, 0)),
            ("first sample, started before we looked", &[(110, 49, 12.0)], None, 0, (0, 0, 0)),
            (
                "fall of the value = reset from zero",
                &[(90, 0, 5.0), (100, 0, 9.0), (110, 0, 3.0)],
                Some(7.0),
                20,
                (1, 0, 0),
            ),
            ("true reset", &[(90, 7, 5.0), (100, 7, 9.0), (110, 105, 30.0)], Some(34.0), 20, (1, 0, 0)),
            ("true reset to the same value", &[(100, 7, 9.0), (110, 105, 9.0)], Some(9.0), 10, (1, 0, 0)),
            (
                "start == time each time: falls decide",
                &[(90, 90, 5.0), (100, 100, 9.0), (110, 110, 3.0)],
                Some(7.0),
                20,
                (1, 0, 0),
            ),
            (
                "two writers: the later end stays",
                &[(90, 7, 500.0), (100, 20, 3.0), (105, 7, 505.0), (110, 20, 4.0)],
                Some(1.0),
                10,
                (0, 0, 1),
            ),
            (
                "a successor that started before the end",
                &[(90, 7, 5.0), (100, 7, 9.0), (106, 7, 11.0), (110, 103, 2.0)],
                Some(6.0),
                20,
                (1, 0, 1),
            ),
            ("base out of reach", &[(40, 0, 5.0), (110, 0, 7.0), (120, 0, 8.0)], Some(1.0), 10, (0, 1, 0)),
            ("base out of reach, but started since", &[(40, 7, 5.0), (110, 105, 7.0)], Some(7.0), 5, (1, 1, 0)),
            ("end marker between", &[(90, 0, 5.0), (100, 0, f64::NAN), (110, 0, 7.0)], Some(2.0), 20, (0, 0, 0)),
        ];
        let mut sweep = Sweep::default();
        for (name, points, increase, covered, (resets, gaps, overlaps)) in cases {
            let samples = samples(points);
            sweep.counter(&samples, Span { from_ms: 100, reach_ms: 60, horizon_ms: 50, gap_ms: 60, new_from_ms: 200 });
            assert_eq!(sweep.increase(&samples), *increase, "{name}");
            assert_eq!(sweep.covered_ms, *covered, "{name}");
            assert_eq!(
                sweep.events,
                Events { resets: *resets, gaps: *gaps, overlaps: *overlaps, ..Events::default() },
                "{name}"
            );
        }
    }

    #[test]
    fn unknown_starts_are_counted_once() {
        let mut sweep = Sweep::default();
        for (points, new_from_ms, expected) in [
            (&[(110, 0, 12.0)][..], 110, 1),
            (&[(110, 110, 12.0)], 110, 1),
            (&[(110, 0, 12.0)], 111, 0),
            (&[(110, 0, 12.0), (120, 0, 13.0)], 111, 0),
            // These say when they began, one of them before anybody looked.
            (&[(110, 104, 12.0)], 110, 0),
            (&[(110, 7, 12.0)], 110, 0),
        ] {
            let span = Span { from_ms: 100, reach_ms: 60, horizon_ms: 50, gap_ms: 60, new_from_ms };
            sweep.counter(&samples(points), span);
            assert_eq!(sweep.events.new_unknown_starts, expected, "{points:?} {new_from_ms}");
        }
        let (sum, _) = deltas(&samples(&[(100, 90, 2.0), (110, 110, 4.0)]), 100, 100, i64::MIN, 10, |_| {});
        assert_eq!(sum.events.new_unknown_starts, 1);
    }

    #[test]
    fn delta_intervals() {
        type Case<'a> = (&'a str, &'a [(i64, i64, f64)], i64, f64, i64, (u32, u32));
        let cases: &[Case<'_>] = &[
            ("contiguous", &[(90, 80, 1.0), (100, 90, 2.0), (110, 100, 4.0)], i64::MIN, 6.0, 20, (0, 0)),
            ("gap", &[(100, 90, 2.0), (120, 110, 4.0)], i64::MIN, 6.0, 20, (1, 0)),
            ("overlap with a kept one", &[(100, 90, 2.0), (105, 95, 8.0), (110, 100, 4.0)], i64::MIN, 6.0, 20, (0, 1)),
            ("reaches into one that is gone", &[(100, 90, 2.0), (110, 100, 4.0)], 95, 4.0, 10, (1, 1)),
            ("unknown starts follow each other", &[(100, 100, 2.0), (110, 110, 4.0)], 90, 6.0, 20, (0, 0)),
            ("unknown start after a silence", &[(90, 80, 1.0), (150, 150, 4.0)], i64::MIN, 4.0, 10, (1, 0)),
        ];
        for (name, points, floor, sum, covered_ms, (gaps, overlaps)) in cases {
            let (got, _) = deltas(&samples(points), 100, 200, *floor, 10, |_| {});
            assert_eq!((got.sum, got.covered_ms), (*sum, *covered_ms), "{name}");
            assert_eq!(got.events, Events { gaps: *gaps, overlaps: *overlaps, ..Events::default() }, "{name}");
        }
    }
}
