//! Snapshots as bytes, built once per version and form and shared by all who ask.
//!
//! A thousand pollers of a cell cost one encoding a tick. Large cells have no JSON kept: it is some kilobytes a server and
//! is streamed instead.

use std::sync::Arc;

use arrow_ipc::writer::StreamWriter;
use bytes::Bytes;
use headroom_read_model::CellView;
use headroom_wire::{Reading, snapshot_batch};

use crate::cache::Cache;
use crate::error::ApiError;

/// A form of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Form {
    Json,
    Arrow,
}

/// Bytes of the snapshots that are kept.
const BYTES_MAX: usize = 256 << 20;

pub(crate) struct SnapshotCache(Cache<(Arc<str>, Form), Reading, CellView>);

impl Default for SnapshotCache {
    fn default() -> Self {
        Self(Cache::new(BYTES_MAX))
    }
}

impl SnapshotCache {
    /// The bytes of a version, made by `build` if nobody has them yet; whoever comes meanwhile waits for the same ones.
    pub(crate) async fn get<B>(
        &self,
        view: &Arc<CellView>,
        form: Form,
        reading: Reading,
        build: B,
    ) -> Result<Bytes, ApiError>
    where
        B: FnOnce() -> Result<Vec<u8>, ApiError> + Send + 'static,
    {
        let key = (Arc::clone(&view.snapshot().cell), form);
        let slot = self.0.slot(key.clone(), reading, std::slice::from_ref(view));
        let bytes = slot.get_or_try_init(|| async {
            tokio::task::spawn_blocking(build).await.map_err(|_| ApiError::internal())?.map(Bytes::from)
        });
        let bytes = bytes.await.cloned();
        self.0.made(&key, &slot);
        bytes
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
