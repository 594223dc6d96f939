//! Prometheus' text format, version 0.0.4.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use crate::catalog::Label;
use crate::metrics::{Cell, Family, label_values};

/// The content type of [`render`]'s text.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All families that have a series, in the catalogue's order.
pub(crate) fn render(families: &[Family]) -> String {
    let mut out = String::new();
    for family in families {
        let metric = family.metric;
        let mut headed = false;
        family.for_each(|key, cell| {
            if !headed {
                headed = true;
                // Help texts are ours and hold neither backslash nor line break; a test sees to that.
                put(&mut out, format_args!("# HELP {} {}\n", metric.name, metric.help));
                put(&mut out, format_args!("# TYPE {} {}\n", metric.name, metric.kind.name()));
            }
            match cell {
                Cell::Buckets(buckets) => {
                    let mut count = 0;
                    for (at, bucket) in buckets.counts.iter().enumerate() {
                        count += bucket.load(Relaxed);
                        let bound = buckets.bounds.get(at).map_or_else(|| "+Inf".to_owned(), f64::to_string);
                        labels(&mut out, metric.name, "_bucket", metric.labels, key, Some(&bound));
                        put(&mut out, format_args!(" {count}\n"));
                    }
                    labels(&mut out, metric.name, "_sum", metric.labels, key, None);
                    number(&mut out, f64::from_bits(buckets.sum.load(Relaxed)));
                    // The sum of the buckets read above, so that count and last bucket agree under concurrent changes.
                    labels(&mut out, metric.name, "_count", metric.labels, key, None);
                    put(&mut out, format_args!(" {count}\n"));
                }
                Cell::Number(_) => {
                    labels(&mut out, metric.name, "", metric.labels, key, None);
                    number(&mut out, cell.number(metric).unwrap_or_default());
                }
            }
        });
    }
    out
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(text);
}

fn number(out: &mut String, value: f64) {
    if value.is_nan() {
        out.push_str(" NaN\n");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { " +Inf\n" } else { " -Inf\n" });
    } else {
        put(out, format_args!(" {value}\n"));
    }
}

fn labels(out: &mut String, name: &str, suffix: &str, labels: &[Label], key: &str, le: Option<&str>) {
    out.push_str(name);
    out.push_str(suffix);
    let values = labels.iter().map(|label| label.name).zip(label_values(key));
    let mut open = false;
    for (name, value) in values.chain(le.map(|bound| ("le", bound))) {
        out.push(if open { ',' } else { '{' });
        open = true;
        out.push_str(name);
        out.push_str("=\"");
        for c in value.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    if open {
        out.push('}');
    }
}
