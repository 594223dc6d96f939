//! The three ports on a data directory: the embedded default.
//!
//! ```text
//! LOCK                                 held exclusively while the process lives; names the process
//! FORMAT                               version, partitions and time mode of the directory, as text
//! log/<partition>/<base>.seg           the sample log: segments named by the position of their first record
//! snapshots/<cell>.snap, .2.snap       the two newest snapshots of each cell
//! checkpoints/<partition>/<position>.ckpt   the two newest checkpoints of each partition
//! ```
//!
//! A segment is only appended to. Snapshots and checkpoints are written whole, over the older of two files, so that a crash
//! damages at most the one being written. Formats carry versions: an older one opens, a newer one is refused before anything is changed.

mod checkpoints;
mod committer;
mod data_dir;
mod frame;
mod partition;
mod reader;
mod recovery;
mod sample_log;
mod segment;
mod snapshots;
mod storage;
mod whole_file;

pub use checkpoints::DiskCheckpointStore;
pub use data_dir::{DataDir, FORMAT_VERSION, OpenError};
pub use recovery::RecoveryReport;
pub use sample_log::{DiskLogOptions, DiskSampleLog, Durability};
pub use snapshots::{DiskSnapshotLog, SnapshotStats};
pub use storage::{OsStorage, SegmentFile, Storage};

use std::io;
use std::path::Path;
use std::sync::Arc;

/// An I/O error as text that names the path and what was being done.
fn why(what: &str, path: &Path, error: &io::Error) -> Arc<str> {
    format!("{what} {}: {error}", path.display()).into()
}
