//! A snapshot as an Arrow record batch: the core columns, at most about 64 bytes a server.
//!
//! A scheduler that places work on a million servers wants the columns it decides by and nothing else; what explains
//! them is asked for server by server. States are dictionaries of one byte, so that no reader has to know our numbers.
//! What a reader must know besides (epoch, lease, staleness) is metadata of the schema.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::types::{Int8Type, Int32Type};
use arrow_array::{ArrayRef, DictionaryArray, Float32Array, Int8Array, Int32Array, RecordBatch, StringArray};
use arrow_buffer::{NullBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use headroom_model::CellSnapshot;
use headroom_model::coverage::{COVERAGE_FULL, coverage_share};
use headroom_model::frame::{FaultState, LoadState, Placement};

use crate::row::{Reading, RowReader};

/// The media type of an Arrow IPC stream.
pub const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

/// The schema of a snapshot of these classes, most important first:
///
/// | Column | Type | |
/// |---|---|---|
/// | `server` | utf8 | the server's name |
/// | `pool` | dictionary(int32, utf8) | the pool |
/// | `healthScore`, `pressure` | float32 | null = unknown |
/// | `coverage` | dictionary(int8, float32) | share of the expected samples that had arrived; null = unknown |
/// | `loadState`, `faultState`, `placement`, `mode` | dictionary(int8, utf8) | as in the JSON record |
/// | `admitFraction.<class>` | float32 | one for each class |
/// | `wouldAdmitFraction.<class>` | float32 | one for each class |
///
/// Metadata of the schema, as text: `cell`, `epoch`, `leaseSeconds`, `refreshAfterSeconds`, `policyHash`, `stale`.
pub fn snapshot_schema<'a>(classes: impl Iterator<Item = &'a str> + Clone) -> Schema {
    let state = || DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
    let pool = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let mut fields = vec![
        Field::new("server", DataType::Utf8, false),
        Field::new("pool", pool, false),
        Field::new("healthScore", DataType::Float32, true),
        Field::new("pressure", DataType::Float32, true),
        Field::new("coverage", DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Float32)), true),
        Field::new("loadState", state(), false),
        Field::new("faultState", state(), false),
        Field::new("placement", state(), false),
        Field::new("mode", state(), false),
    ];
    for column in ["admitFraction", "wouldAdmitFraction"] {
        fields.extend(classes.clone().map(|class| Field::new(format!("{column}.{class}"), DataType::Float32, false)));
    }
    Schema::new(fields)
}

/// The core columns of a snapshot whose columns agree.
///
/// # Errors
/// If the names of the servers exceed two gigabytes.
pub fn snapshot_batch(snapshot: &CellSnapshot, reading: Reading) -> Result<RecordBatch, ArrowError> {
    let rows = snapshot.len();
    let reader = RowReader::new(snapshot, reading);
    let (servers, health) = (&*snapshot.servers, &snapshot.health);
    let name_bytes: usize = servers.server.iter().map(|name| name.len()).sum();
    if i32::try_from(name_bytes).is_err() {
        return Err(ArrowError::InvalidArgumentError("the servers' names exceed 2 GiB".into()));
    }
    let stale_or = |column: &[f32]| {
        if reading.stale { Float32Array::new_null(rows) } else { nan_as_null(column) }
    };
    let pools = Int32Array::from_iter_values(servers.pool.iter().map(|pool| *pool as i32));
    let pool_names: ArrayRef = Arc::new(StringArray::from_iter_values(servers.pools.iter().map(|pool| &**pool)));
    let modes = ["off", "observe", "enforce"];
    let mode_number = |row: usize| modes.iter().position(|mode| *mode == reader.mode(row)).unwrap_or(1) as i8;
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(servers.server.iter().map(|name| &**name))),
        Arc::new(DictionaryArray::<Int32Type>::try_new(pools, pool_names)?),
        stale_or(&health.score).into_column(),
        stale_or(&health.pressure).into_column(),
        coverage(&snapshot.coverage, reading)?,
        dictionary(LoadState::ALL.map(LoadState::as_str).as_slice(), rows, |row| reader.load_state(row) as i8)?,
        dictionary(FaultState::ALL.map(FaultState::as_str).as_slice(), rows, |row| reader.fault_state(row) as i8)?,
        dictionary(Placement::ALL.map(Placement::as_str).as_slice(), rows, |row| reader.placement(row) as i8)?,
        dictionary(&modes, rows, mode_number)?,
    ];
    let fraction = |column: &[f32]| {
        let values = if reading.killed { vec![1.0; rows] } else { column.to_vec() };
        Float32Array::new(ScalarBuffer::from(values), None).into_column()
    };
    columns.extend(snapshot.decisions.iter().map(|class| fraction(&class.admit)));
    columns.extend(snapshot.decisions.iter().map(|class| fraction(&class.would_admit)));
    let metadata = HashMap::from([
        ("cell".to_owned(), snapshot.cell.to_string()),
        ("epoch".to_owned(), snapshot.epoch.to_string()),
        ("leaseSeconds".to_owned(), snapshot.policy.lease_seconds.to_string()),
        ("refreshAfterSeconds".to_owned(), snapshot.policy.refresh_seconds.to_string()),
        ("policyHash".to_owned(), snapshot.policy.hash.to_string()),
        ("stale".to_owned(), reading.stale.to_string()),
    ]);
    let schema = snapshot_schema(snapshot.policy.classes.iter().map(|class| &*class.name)).with_metadata(metadata);
    RecordBatch::try_new(SchemaRef::new(schema), columns)
}

/// A byte a server, as the snapshot has it: the shares that there are lie beside it once.
fn coverage(column: &[u8], reading: Reading) -> Result<ArrayRef, ArrowError> {
    let is_known = |byte: &u8| !reading.stale && *byte <= COVERAGE_FULL;
    let keys: Int8Array = column.iter().map(|byte| is_known(byte).then_some(*byte as i8)).collect();
    let shares: Float32Array = (0..=COVERAGE_FULL).map(coverage_share).collect();
    Ok(Arc::new(DictionaryArray::<Int8Type>::try_new(keys, shares.into_column())?))
}

trait IntoColumn {
    fn into_column(self) -> ArrayRef;
}

impl IntoColumn for Float32Array {
    fn into_column(self) -> ArrayRef {
        Arc::new(self)
    }
}

fn nan_as_null(column: &[f32]) -> Float32Array {
    let known = NullBuffer::from_iter(column.iter().map(|value| value.is_finite()));
    Float32Array::new(ScalarBuffer::from(column.to_vec()), Some(known).filter(|known| known.null_count() > 0))
}

fn dictionary(names: &[&str], rows: usize, number: impl Fn(usize) -> i8) -> Result<ArrayRef, ArrowError> {
    let keys = Int8Array::from_iter_values((0..rows).map(number));
    let values: ArrayRef = Arc::new(StringArray::from_iter_values(names));
    Ok(Arc::new(DictionaryArray::<Int8Type>::try_new(keys, values)?))
}
