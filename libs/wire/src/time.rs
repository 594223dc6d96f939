//! Times as text: RFC 3339 in UTC.

use std::fmt;

use headroom_model::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type};

/// A point in time. Whole seconds are written without a fraction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Time(pub Timestamp);

impl Time {
    /// The time that many seconds after the Unix epoch.
    pub fn from_seconds(seconds: i64) -> Self {
        Self(Timestamp::from_seconds(seconds))
    }

    /// The time that a text names.
    ///
    /// # Errors
    /// If it is not RFC 3339 with an offset, or beyond the years 1677 to 2262.
    pub fn parse(text: &str) -> Result<Self, String> {
        let time: jiff::Timestamp = text.parse().map_err(|error| format!("{error}"))?;
        let nanos = i64::try_from(time.as_nanosecond()).map_err(|_| "the time is beyond the years 1677 to 2262")?;
        Ok(Self(Timestamp(nanos)))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Every i64 of nanoseconds lies within jiff's range, so the fallback is never seen.
        let time = jiff::Timestamp::from_nanosecond(i128::from(self.0.0)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        write!(formatter, "{time}")
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|error| D::Error::custom(format!("{text:?} is not an RFC 3339 time: {error}")))
    }
}

impl utoipa::PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("RFC 3339, UTC"))
            .into()
    }
}

impl utoipa::ToSchema for Time {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_time_agree() {
        for (seconds, text) in
            [(1_795_255_210, "2026-11-21T10:00:10Z"), (0, "1970-01-01T00:00:00Z"), (-1, "1969-12-31T23:59:59Z")]
        {
            assert_eq!(Time::from_seconds(seconds).to_string(), text);
            assert_eq!(Time::parse(text), Ok(Time::from_seconds(seconds)));
        }
        assert_eq!(Time::parse("2026-11-21T11:00:10+01:00"), Ok(Time::from_seconds(1_795_255_210)));
        for bad in ["", "yesterday", "2026-11-21", "2026-11-21T10:00:10", "9999-01-01T00:00:00Z"] {
            assert!(Time::parse(bad).is_err(), "{bad}");
        }
    }
}
