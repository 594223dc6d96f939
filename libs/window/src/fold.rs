//! Rows to senders, senders to servers: the folds of one input of one server, for both windows.

use headroom_model::histogram::ExpHistogram;
use headroom_model::policy::{Across, Fold, WindowFunction};

use crate::batch::NO_SOURCE;
use crate::store::InputPlan;

/// Sub-series of one sender on the way to one value.
#[derive(Clone, Copy, Debug)]
struct Group {
    sum: f64,
    least: f64,
    most: f64,
    count: u32,
}

impl Group {
    const EMPTY: Self = Self { sum: 0.0, least: f64::INFINITY, most: f64::NEG_INFINITY, count: 0 };

    #[inline]
    fn add(&mut self, value: f64) {
        if !value.is_nan() {
            self.sum += value;
            self.least = if value < self.least { value } else { self.least };
            self.most = if value > self.most { value } else { self.most };
            self.count += 1;
        }
    }

    #[inline]
    fn finish(&self, fold: Fold) -> f64 {
        match fold {
            _ if self.count == 0 => f64::NAN,
            Fold::Sum => self.sum,
            Fold::Max => self.most,
            Fold::Min => self.least,
            Fold::Mean => self.sum / f64::from(self.count),
            Fold::Count => f64::from(self.count),
        }
    }
}

/// One window of an input.
#[derive(Debug)]
struct Window {
    group: Group,
    /// Buckets of the group, where quantiles are taken of merged histograms.
    buckets: ExpHistogram,
    value: f64,
    merged: ExpHistogram,
    /// Senders that have contributed: their later sources are not asked.
    senders: Vec<u16>,
}

impl Window {
    fn new() -> Self {
        Self {
            group: Group::EMPTY,
            buckets: ExpHistogram::default(),
            value: f64::NAN,
            merged: ExpHistogram::default(),
            senders: Vec::new(),
        }
    }

    /// Ends a group; answers whether it contributed.
    #[inline]
    fn end_group(&mut self, plan: &InputPlan, sender: u16) -> bool {
        let merges = merges(plan);
        let value = match plan.function {
            WindowFunction::Quantile(q) if merges => self.buckets.quantile(q).unwrap_or(f64::NAN),
            _ => self.group.finish(plan.fold),
        };
        self.group = Group::EMPTY;
        let mut contributed = false;
        if !value.is_nan() {
            match plan.across {
                Across::First if self.value.is_nan() => {
                    self.value = value;
                    contributed = true;
                }
                Across::First => {}
                Across::Sum | Across::Max if self.senders.contains(&sender) => {}
                across => {
                    contributed = true;
                    self.senders.push(sender);
                    if merges && across == Across::Sum {
                        self.merged.merge(&self.buckets);
                        self.value = value;
                    } else if self.value.is_nan() {
                        self.value = value;
                    } else if across == Across::Sum {
                        self.value += value;
                    } else {
                        self.value = self.value.max(value);
                    }
                }
            }
        }
        if merges {
            self.buckets.clear();
        }
        contributed
    }

    #[inline]
    fn finish(&mut self, plan: &InputPlan) -> f64 {
        let mut value = std::mem::replace(&mut self.value, f64::NAN);
        if let WindowFunction::Quantile(q) = plan.function
            && merges(plan)
            && plan.across == Across::Sum
        {
            value = self.merged.quantile(q).unwrap_or(f64::NAN);
            self.merged.clear();
        }
        self.senders.clear();
        value
    }
}

/// Whether an input's quantile is taken of all sub-series together.
#[inline]
pub fn merges(plan: &InputPlan) -> bool {
    matches!(plan.function, WindowFunction::Quantile(_)) && plan.fold == Fold::Sum
}

/// An input of a server on the way to its values.
#[derive(Debug)]
pub struct InputFold {
    control: Window,
    state: Window,
    samples: u32,
    group_samples: u32,
    source: u8,
    state_source: u8,
    /// Newest samples: of the groups that contributed to the windows, and of all; `i64::MIN` = none.
    newest_ms: i64,
    state_newest_ms: i64,
    any_newest_ms: i64,
    /// Smallest intervals: of the rows of the present group, and of the groups that contributed; `u32::MAX` = none.
    group_interval_ms: u32,
    interval_ms: u32,
}

impl Default for InputFold {
    fn default() -> Self {
        Self {
            control: Window::new(),
            state: Window::new(),
            samples: 0,
            group_samples: 0,
            source: NO_SOURCE,
            state_source: NO_SOURCE,
            newest_ms: i64::MIN,
            state_newest_ms: i64::MIN,
            any_newest_ms: i64::MIN,
            group_interval_ms: u32::MAX,
            interval_ms: u32::MAX,
        }
    }
}

/// The values of an input of a server; NaN = none.
#[derive(Clone, Copy, Debug)]
pub struct InputValues {
    pub control: f64,
    pub state: f64,
    pub samples: u32,
    pub source: u8,
    /// Time of the newest sample that the value is made of; where there is no value, of any. `i64::MIN` = none.
    pub newest_ms: i64,
}

impl InputFold {
    /// Adds a row of the present group.
    #[inline]
    pub fn add(&mut self, control: f64, state: f64, samples: u32) {
        self.control.group.add(control);
        self.state.group.add(state);
        self.group_samples += samples;
    }

    /// Notes the interval of a row of the present group.
    #[inline]
    pub fn add_interval(&mut self, interval_ms: u32) {
        if interval_ms != 0 {
            self.group_interval_ms = self.group_interval_ms.min(interval_ms);
        }
    }

    /// The interval of what has contributed since the last call; `u32::MAX` = unknown.
    #[inline]
    pub fn take_interval_ms(&mut self) -> u32 {
        std::mem::replace(&mut self.interval_ms, u32::MAX)
    }

    /// Where a histogram row of the present group adds its buckets: control, state.
    pub fn buckets(&mut self) -> (&mut ExpHistogram, &mut ExpHistogram) {
        (&mut self.control.buckets, &mut self.state.buckets)
    }

    /// Ends the present group: a sender's rows of one source, whose newest sample is of `newest_ms`. Of a group that
    /// lost that is no news: the value would seem to be as young as the reports of a sender that nobody listens to.
    #[inline]
    pub fn end_group(&mut self, plan: &InputPlan, source: u8, sender: u16, newest_ms: i64) {
        self.any_newest_ms = self.any_newest_ms.max(newest_ms);
        if self.control.end_group(plan, sender) {
            self.samples += self.group_samples;
            self.newest_ms = self.newest_ms.max(newest_ms);
            self.interval_ms = self.interval_ms.min(self.group_interval_ms);
            if self.source == NO_SOURCE {
                self.source = source;
            }
        }
        if self.state.end_group(plan, sender) {
            self.state_newest_ms = self.state_newest_ms.max(newest_ms);
            if self.state_source == NO_SOURCE {
                self.state_source = source;
            }
        }
        self.group_samples = 0;
        self.group_interval_ms = u32::MAX;
    }

    /// Ends the input.
    #[inline]
    pub fn finish(&mut self, plan: &InputPlan) -> InputValues {
        let control = self.control.finish(plan);
        let state = self.state.finish(plan);
        let state_source = std::mem::replace(&mut self.state_source, NO_SOURCE);
        let mut source = std::mem::replace(&mut self.source, NO_SOURCE);
        if source == NO_SOURCE {
            source = state_source;
        }
        let [of_control, of_state, of_any] = [&mut self.newest_ms, &mut self.state_newest_ms, &mut self.any_newest_ms]
            .map(|newest_ms| std::mem::replace(newest_ms, i64::MIN));
        let newest_ms = [of_control, of_state].into_iter().find(|newest_ms| *newest_ms > i64::MIN).unwrap_or(of_any);
        InputValues { control, state, samples: std::mem::take(&mut self.samples), source, newest_ms }
    }
}
