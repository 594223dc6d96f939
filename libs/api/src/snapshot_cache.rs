//! Snapshots as bytes, built once per version and form and shared by all who ask.
//!
//! A thousand pollers of a cell cost one encoding a tick. Kept is the latest version of each cell and form, so memory
//! is bounded by what the read model itself holds. Large cells have no JSON kept: it is some kilobytes a server and is
//! streamed instead.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_ipc::writer::StreamWriter;
use bytes::Bytes;
use headroom_read_model::CellView;
use headroom_wire::{Reading, snapshot_batch};
use tokio::sync::OnceCell;

use crate::error::ApiError;

/// A form of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Form {
    Json,
    Arrow,
}

type Key = (Arc<str>, Form);
type Slot = Arc<OnceCell<Bytes>>;

#[derive(Default)]
pub(crate) struct SnapshotCache(Mutex<BTreeMap<Key, (String, Slot)>>);

impl SnapshotCache {
    /// The bytes of a version, made by `build` if nobody has them yet; whoever comes meanwhile waits for the same ones.
    pub(crate) async fn get<B>(&self, cell: &Arc<str>, form: Form, version: &str, build: B) -> Result<Bytes, ApiError>
    where
        B: FnOnce() -> Result<Vec<u8>, ApiError> + Send + 'static,
    {
        let slot = {
            let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = slots.entry((Arc::clone(cell), form)).or_default();
            if entry.0 != version {
                *entry = (version.to_owned(), Slot::default());
            }
            Arc::clone(&entry.1)
        };
        let bytes = slot.get_or_try_init(|| async {
            tokio::task::spawn_blocking(build).await.map_err(|_| ApiError::internal())?.map(Bytes::from)
        });
        bytes.await.cloned()
    }
}

/// The core columns of a cell as an Arrow IPC stream.
pub(crate) fn arrow_stream(view: &CellView, reading: Reading) -> Result<Vec<u8>, ApiError> {
    let failed = |error| {
        tracing::error!(%error, cell = %view.snapshot().cell, "cannot write a snapshot as arrow");
        ApiError::internal()
    };
    let batch = snapshot_batch(view.snapshot(), reading).map_err(failed)?;
    let mut bytes = Vec::with_capacity(batch.get_array_memory_size() + 4_096);
    let mut writer = StreamWriter::try_new(&mut bytes, &batch.schema()).map_err(failed)?;
    writer.write(&batch).map_err(failed)?;
    writer.finish().map_err(failed)?;
    drop(writer);
    Ok(bytes)
}
