//! A protobuf writer for the few OTLP messages that we send, with the field numbers they have.
//!
//! Not prost: that would build a tree of objects to be thrown away, and could not say where in the bytes a value came to
//! lie, which is what lets [`crate::frames`] patch a request instead of encoding it again. Tests decode with prost.

/// An attribute's value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Attr<'a> {
    Str(&'a str),
    Int(i64),
}

/// A number data point's value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    Int(i64),
    Double(f64),
}

/// How a metric's points are to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    Gauge,
    /// A cumulative sum that may fall.
    UpDown,
    /// A cumulative sum that only grows.
    Counter,
}

/// Attributes of a point or a resource.
pub(crate) type Attrs<'a> = &'a [(&'a str, Attr<'a>)];

/// What all points of a sender share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// When cumulations began, ns since 1970.
    pub start_ns: i64,
    /// The present, ns since 1970.
    pub time_ns: i64,
}

/// Bytes of a message, and where in them the fixed-size values lie that may be patched.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub bytes: Vec<u8>,
    pub marks: Vec<usize>,
}

impl Writer {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn tag(&mut self, field: u32, wire: u64) {
        self.varint(u64::from(field) << 3 | wire);
    }

    fn number(&mut self, field: u32, value: u64) {
        self.tag(field, 0);
        self.varint(value);
    }

    fn text(&mut self, field: u32, text: &str) {
        self.tag(field, 2);
        self.varint(text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// A `fixed64`, `sfixed64` or `double`, marked.
    fn fixed(&mut self, field: u32, bits: u64) {
        self.tag(field, 1);
        self.marks.push(self.bytes.len());
        self.bytes.extend_from_slice(&bits.to_le_bytes());
    }

    /// A repeated fixed-size field, packed.
    fn packed(&mut self, field: u32, values: impl ExactSizeIterator<Item = u64>) {
        self.tag(field, 2);
        self.varint(values.len() as u64 * 8);
        values.for_each(|value| self.bytes.extend_from_slice(&value.to_le_bytes()));
    }

    fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.tag(field, 2);
        self.varint(inner.bytes.len() as u64);
        let base = self.bytes.len();
        self.marks.extend(inner.marks.iter().map(|mark| base + mark));
        self.bytes.extend_from_slice(&inner.bytes);
    }

    fn attributes(&mut self, field: u32, attributes: Attrs<'_>) {
        for (key, value) in attributes {
            self.message(field, |pair| {
                pair.text(1, key);
                pair.message(2, |any| match value {
                    Attr::Str(text) => any.text(1, text),
                    Attr::Int(number) => any.number(3, *number as u64),
                });
            });
        }
    }

    /// A `ResourceMetrics` with one scope.
    pub(crate) fn resource(&mut self, attributes: Attrs<'_>, scope: &str, metrics: impl FnOnce(&mut Self)) {
        self.message(1, |resource_metrics| {
            resource_metrics.message(1, |resource| resource.attributes(1, attributes));
            resource_metrics.message(2, |scope_metrics| {
                scope_metrics.message(1, |name| name.text(1, scope));
                metrics(scope_metrics);
            });
        });
    }

    /// A metric of numbers. Marks, point by point: start (not of gauges), time, value.
    pub(crate) fn metric(
        &mut self,
        name: &str,
        unit: &str,
        shape: Shape,
        times: Times,
        points: &[(Attrs<'_>, Number)],
    ) {
        self.message(2, |metric| {
            metric.text(1, name);
            if !unit.is_empty() {
                metric.text(3, unit);
            }
            metric.message(if shape == Shape::Gauge { 5 } else { 7 }, |data| {
                for (attributes, value) in points {
                    data.message(1, |point| {
                        if shape != Shape::Gauge {
                            point.fixed(2, times.start_ns as u64);
                        }
                        point.fixed(3, times.time_ns as u64);
                        match value {
                            Number::Double(value) => point.fixed(4, value.to_bits()),
                            Number::Int(value) => point.fixed(6, *value as u64),
                        }
                        point.attributes(7, attributes);
                    });
                }
                if shape != Shape::Gauge {
                    data.number(2, CUMULATIVE);
                }
                if shape == Shape::Counter {
                    data.number(3, 1);
                }
            });
        });
    }

    /// A cumulative metric of histograms with explicit buckets; a point is its attributes, bucket counts and sum.
    pub(crate) fn histogram(
        &mut self,
        name: &str,
        unit: &str,
        times: Times,
        bounds: &[f64],
        points: &[(Attrs<'_>, &[u64], f64)],
    ) {
        self.message(2, |metric| {
            metric.text(1, name);
            metric.text(3, unit);
            metric.message(9, |data| {
                for (attributes, counts, sum) in points {
                    data.message(1, |point| {
                        point.fixed(2, times.start_ns as u64);
                        point.fixed(3, times.time_ns as u64);
                        point.fixed(4, counts.iter().sum());
                        point.fixed(5, sum.to_bits());
                        point.packed(6, counts.iter().copied());
                        point.packed(7, bounds.iter().map(|bound| bound.to_bits()));
                        point.attributes(9, attributes);
                    });
                }
                data.number(2, CUMULATIVE);
            });
        });
    }
}

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u64 = 2;
