//! The units of series (UCUM), as far as they tell what a value must be multiplied with.
//!
//! Of one metric some senders give shares of 1 and others percent, some seconds and others milliseconds. A unit that a
//! series names is therefore believed: its values are brought to the unit of the input, or, where nothing could (bytes
//! for seconds), are not read. A series without a unit is in the one that the source is written for; so is one whose
//! unit is not known here, for nothing then speaks against it.

use headroom_model::Series;
use headroom_model::policy::{InputSpec, Source, WindowFunction};

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Quantity {
    /// Shares and things that are counted.
    Ratio,
    Time,
    Information,
}

/// A known unit: of what, and how much of that quantity's own unit (`1`, `s`, `By`).
#[derive(Clone, Copy, PartialEq, Debug)]
struct Unit {
    of: Quantity,
    factor: f64,
}

/// UCUM's codes, and the words that senders write instead of them.
const UNITS: [(&[&str], Quantity, f64); 22] = [
    (&["1"], Quantity::Ratio, 1.0),
    (&["%", "percent"], Quantity::Ratio, 0.01),
    (&["ns", "nanoseconds"], Quantity::Time, 1e-9),
    (&["us", "µs", "microseconds"], Quantity::Time, 1e-6),
    (&["ms", "milliseconds"], Quantity::Time, 0.001),
    (&["s", "seconds"], Quantity::Time, 1.0),
    (&["min", "minutes"], Quantity::Time, 60.0),
    (&["h", "hours"], Quantity::Time, 3_600.0),
    (&["d", "days"], Quantity::Time, 86_400.0),
    (&["bit", "bits"], Quantity::Information, 0.125),
    (&["By", "bytes"], Quantity::Information, 1.0),
    (&["kbit"], Quantity::Information, 125.0),
    (&["Mbit"], Quantity::Information, 125e3),
    (&["Gbit"], Quantity::Information, 125e6),
    (&["kBy", "kilobytes"], Quantity::Information, 1e3),
    (&["MBy", "megabytes"], Quantity::Information, 1e6),
    (&["GBy", "gigabytes"], Quantity::Information, 1e9),
    (&["TBy"], Quantity::Information, 1e12),
    (&["KiBy"], Quantity::Information, 1_024.0),
    (&["MiBy"], Quantity::Information, 1_048_576.0),
    (&["GiBy"], Quantity::Information, 1_073_741_824.0),
    (&["TiBy"], Quantity::Information, 1_099_511_627_776.0),
];

impl Unit {
    /// The unit that a text names. What stands in braces is a remark: `{request}` is `1`, `By{used}` is `By`.
    fn of(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut bare = text;
        if let (Some(from), true) = (text.find('{'), text.ends_with('}')) {
            bare = if from == 0 { "1" } else { &text[..from] };
        }
        let (_, of, factor) = UNITS.iter().find(|(names, ..)| names.contains(&bare))?;
        Some(Self { of: *of, factor: *factor })
    }

    /// What a source of this input is in before any scale, if the input's unit is known.
    fn wanted(input: &InputSpec, sent: Self) -> Option<Self> {
        if input.function != WindowFunction::Rate {
            return Self::of(&input.unit);
        }
        if let Some(counted) = input.unit.strip_suffix("/s") {
            return Self::of(counted);
        }
        // Of seconds in a second nothing is left but a number.
        match Self::of(&input.unit)? {
            number if number.of == Quantity::Ratio && sent.of == Quantity::Time => {
                Some(Self { of: Quantity::Time, ..number })
            }
            // Other quantities that an input counts by the second are not in this table.
            _ => None,
        }
    }
}

/// What the values of a series are multiplied with to be in the unit of an input that it comes to by one of its sources;
/// `None` if the unit that it names is of something else.
pub(crate) fn scale(input: &InputSpec, source: &Source, series: &Series) -> Option<f64> {
    let counts_observations = match input.function {
        WindowFunction::Count => true,
        WindowFunction::Rate | WindowFunction::Increase => series.kind.is_histogram(),
        _ => false,
    };
    if counts_observations {
        return Some(source.scale);
    }
    let Some(sent) = Unit::of(&series.unit) else { return Some(source.scale) };
    let Some(wanted) = Unit::wanted(input, sent) else { return Some(source.scale) };
    if sent.of != wanted.of {
        // `1` is what many senders write where they know of no unit.
        let says_nothing = sent.of == Quantity::Ratio && sent.factor == 1.0;
        return says_nothing.then_some(source.scale);
    }
    // A scale that is a unit's says in which unit the source is, and the series knows better. Any other is the policy's
    // own and holds in every unit.
    let is_unit = UNITS.iter().any(|(_, of, factor)| *of == wanted.of && *factor == wanted.factor * source.scale);
    let to_wanted = sent.factor / wanted.factor;
    Some(if is_unit { to_wanted } else { to_wanted * source.scale })
}

#[cfg(test)]
mod tests {
    use headroom_model::SeriesKind;
    use headroom_model::policy::{Across, Fold};

    use super::*;

    fn scaled(unit: &str, function: WindowFunction, by: f64, sent: &str, kind: SeriesKind) -> Option<f64> {
        let source = Source { dialect: "test".into(), metrics: vec!["m".into()], filters: Vec::new(), scale: by };
        let input = InputSpec {
            name: "input".into(),
            unit: unit.into(),
            sources: vec![source.clone()],
            fold: Fold::Sum,
            across: Across::First,
            function,
        };
        let series = Series { metric: "m".into(), unit: sent.into(), kind, attributes: [].into(), bounds: [].into() };
        scale(&input, &source, &series)
    }

    #[test]
    fn values_come_in_the_unit_of_the_input() {
        use WindowFunction::{Increase, Last, Mean, Quantile, Rate};
        for (unit, function, by, sent, expected) in [
            ("1", Last, 1.0, "%", Some(0.01)),
            ("1", Last, 1.0, "1", Some(1.0)),
            ("%", Last, 1.0, "1", Some(100.0)),
            ("By", Last, 1.0, "MBy", Some(1e6)),
            ("By", Last, 1.0, "GiBy", Some(1_073_741_824.0)),
            ("By", Last, 1.0, "bit", Some(0.125)),
            ("By", Last, 1.0, "By{used}", Some(1.0)),
            ("s", Quantile(0.95), 1.0, "ms", Some(0.001)),
            ("s", Mean, 1.0, "us", Some(1e-6)),
            // Nothing speaks against these.
            ("s", Last, 1.0, "", Some(1.0)),
            ("s", Last, 1.0, "fortnights", Some(1.0)),
            ("s", Last, 1.0, "1", Some(1.0)),
            ("{cpu}", Last, 1.0, "{thread}", Some(1.0)),
            ("", Last, 1.0, "%", Some(1.0)),
            // These are of something else.
            ("s", Last, 1.0, "By", None),
            ("1", Last, 1.0, "s", None),
            ("By", Last, 1.0, "%", None),
            // A rate is in what is counted, a second.
            ("1", Rate, 1.0, "s", Some(1.0)),
            ("1", Rate, 1.0, "ms", Some(0.001)),
            ("By/s", Rate, 1.0, "kBy", Some(1e3)),
            ("{fault}/s", Rate, 1.0, "{fault}", Some(1.0)),
            ("{fault}/s", Rate, 1.0, "By", None),
            ("s", Increase, 1.0, "ms", Some(0.001)),
            // The source is in milliseconds, unless the series says otherwise.
            ("s", Mean, 0.001, "", Some(0.001)),
            ("s", Mean, 0.001, "ms", Some(0.001)),
            ("s", Mean, 0.001, "s", Some(1.0)),
            // A quarter is no unit: it holds in every unit.
            ("1", Last, 0.25, "1", Some(0.25)),
            ("1", Last, 0.25, "%", Some(0.0025)),
        ] {
            assert_eq!(scaled(unit, function, by, sent, SeriesKind::Gauge), expected, "{unit} {by} {sent}");
        }
    }

    #[test]
    fn observations_are_counted_in_any_unit() {
        for function in [WindowFunction::Count, WindowFunction::Rate, WindowFunction::Increase] {
            assert_eq!(scaled("{request}", function, 1.0, "ms", SeriesKind::Histogram), Some(1.0), "{function:?}");
        }
        assert_eq!(scaled("s", WindowFunction::Quantile(0.5), 1.0, "By", SeriesKind::Histogram), None);
    }
}
