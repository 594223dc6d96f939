//! Memory and disk pass the contract.

use std::fs;
use std::sync::Arc;

use headroom_log::contract;
use headroom_log::disk::{DiskCheckpointStore, DiskLogOptions, DiskSnapshotLog};
use headroom_log::memory::{MemoryCheckpointStore, MemorySampleLog, MemorySnapshotLog};

use crate::support::{TempDir, files, small};

#[tokio::test(flavor = "multi_thread")]
async fn memory() {
    contract::sample_log_suite(|| Arc::new(MemorySampleLog::new(2, 1 << 20))).await;
    contract::a_full_log_refuses_samples_and_takes_ticks(Arc::new(MemorySampleLog::new(2, 1 << 20))).await;
    contract::a_floor_beyond_the_end_moves_the_end(Arc::new(MemorySampleLog::new(2, 1 << 20))).await;
    contract::snapshot_log_suite(|| Arc::new(MemorySnapshotLog::new(10))).await;
    contract::checkpoint_store_suite(|| Arc::new(MemoryCheckpointStore::new(2))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_sample_log() {
    // Once with everything in one segment and in the tail, once with hardly anything in either.
    for options in [DiskLogOptions::default(), small()] {
        let mut dirs = Vec::new();
        let mut fresh = || {
            dirs.push(TempDir::new());
            Arc::new(dirs[dirs.len() - 1].log(options)) as Arc<_>
        };
        contract::sample_log_suite(&mut fresh).await;
        contract::a_floor_beyond_the_end_moves_the_end(fresh()).await;
        let dir = TempDir::new();
        contract::a_log_survives_being_closed(|| Arc::new(dir.log(options))).await;
    }
    let dir = TempDir::new();
    contract::a_full_log_refuses_samples_and_takes_ticks(Arc::new(dir.log(small()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_snapshot_log() {
    let mut dirs = Vec::new();
    contract::snapshot_log_suite(|| {
        dirs.push(TempDir::new());
        Arc::new(DiskSnapshotLog::open(&dirs[dirs.len() - 1].open(), 10).unwrap())
    })
    .await;
    let dir = TempDir::new();
    contract::snapshots_survive_being_closed(|| Arc::new(DiskSnapshotLog::open(&dir.open(), 10).unwrap())).await;
    let dir = TempDir::new();
    contract::retired_cells_stay_gone(|| Arc::new(DiskSnapshotLog::open(&dir.open(), 10).unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_checkpoint_store() {
    let mut dirs = Vec::new();
    contract::checkpoint_store_suite(|| {
        dirs.push(TempDir::new());
        Arc::new(DiskCheckpointStore::open(&dirs[dirs.len() - 1].open()).unwrap())
    })
    .await;
    let dir = TempDir::new();
    let damage = || {
        let mut checkpoints = files(&dir.path().join("checkpoints/0"));
        checkpoints.retain(|file| file.extension().is_some_and(|extension| extension == "ckpt"));
        let newest = checkpoints.pop().unwrap();
        let mut bytes = fs::read(&newest).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&newest, bytes).unwrap();
    };
    contract::a_damaged_checkpoint_falls_back(|| Arc::new(DiskCheckpointStore::open(&dir.open()).unwrap()), damage)
        .await;
}
