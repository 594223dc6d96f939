//! Counters without OpenTelemetry: JSON records as a team would write them that has a topic and no SDK.
//!
//! The schema is `schemas/counters.schema.json`. A message holds one record, an array of them, or one per line. It is
//! read in one pass by hand: names are compared where they stand, numbers become doubles on the way, and nothing becomes
//! an object, because a record of twenty counters is most of what such a topic carries.
//!
//! A message that is no such record fails as a whole, with line, column and field; a sample that is well-formed but
//! useless is rejected by itself and counted by its reason. Fields that the schema does not know are stepped over and
//! counted: topics that exist carry more than we asked for.

mod number;
mod record;
mod scan;
mod time;

pub use record::{CountersDecoder, RecordDefaults};
