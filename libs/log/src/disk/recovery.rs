//! What opening a partition finds: the segments that are there, and where the last one really ends.
//!
//! Only the last segment is read, because only there can a crash have left anything: a segment is left behind when its
//! last record is durable, never before. Damage further back is found by the readers that come by, counted and reported
//! there; the checkpoint's readers do come by all that still matters.
//!
//! A torn tail is what lies behind the last good record. It is cut and counted. A bad record with a good one *behind* it
//! is damage, not a torn tail: the good one is kept, the positions between are reported as lost.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use headroom_model::LogRecord;

use super::committer::Active;
use super::data_dir::OpenError;
use super::partition::{Segment, Segments};
use super::segment::{NO_TICK, SEGMENT_HEADER_BYTES, SEGMENT_VERSION, SegmentCursor, SegmentHeader, Step, base_of};
use super::storage::Storage;
use super::whole_file;

/// What opening a partition of the sample log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The partition.
    pub partition: u32,
    /// Segments found.
    pub segments: u64,
    /// Good records in the last segment.
    pub records: u64,
    /// Bytes cut from the torn tail, none of them acknowledged unless the disk lied or syncing is off.
    pub cut_bytes: u64,
    /// Positions lost to damage in front of good records of the last segment.
    pub damaged_records: u64,
    /// Segments whose own header is damaged; their records are still read.
    pub damaged_segments: Vec<PathBuf>,
}

pub(super) struct Recovered {
    pub(super) segments: Segments,
    pub(super) end: u64,
    pub(super) active: Option<Active>,
    pub(super) report: RecoveryReport,
}

pub(super) fn recover(dir: &Path, partition: u32, storage: &dyn Storage) -> Result<Recovered, OpenError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| OpenError::disk("cannot recover", &path, &error)
    };
    fs::create_dir_all(dir).map_err(failed(dir))?;
    whole_file::remove_left_overs(dir).map_err(failed(dir))?;
    let mut report = RecoveryReport { partition, ..Default::default() };
    let mut files = files_of(dir).map_err(failed(dir))?;
    let mut last_is_damaged = false;
    // A last file without a whole header is a segment that a crash kept from starting: it never held a record.
    if let Some((_, path)) = files.last()
        && let bytes = fs::metadata(path).map_err(failed(path))?.len()
        && bytes <= SEGMENT_HEADER_BYTES as u64
        && read_header(path).map_err(failed(path))?.is_none()
    {
        fs::remove_file(path).map_err(failed(path))?;
        report.cut_bytes += bytes;
        files.pop();
    }
    let mut list: VecDeque<Segment> = VecDeque::with_capacity(files.len());
    for (base, path) in &files {
        let header = read_header(path).map_err(failed(path))?;
        if let Some(header) = header.filter(|header| header.version > SEGMENT_VERSION) {
            return Err(OpenError::newer(path, header.version, SEGMENT_VERSION));
        }
        let header = header.filter(|header| header.base == *base && header.partition == partition);
        last_is_damaged = header.is_none();
        if header.is_none() {
            report.damaged_segments.push(path.clone());
        }
        let before = list.back().map_or(NO_TICK, |segment| segment.ticked_before_ns);
        list.push_back(Segment {
            base: *base,
            bytes: fs::metadata(path).map_err(failed(path))?.len(),
            ticked_before_ns: header.map_or(before, |header| header.ticked_before_ns),
        });
    }
    report.segments = list.len() as u64;
    let mut end = 0;
    let mut active = None;
    let mut ticked_ns = NO_TICK;
    if let (Some(last), Some((base, path))) = (list.back_mut(), files.last()) {
        let walked = walk(path, *base, last.bytes, &mut report).map_err(failed(path))?;
        end = walked.end;
        ticked_ns = last.ticked_before_ns.max(walked.ticked_ns);
        let mut file = storage.open(path).map_err(failed(path))?;
        if walked.good_bytes < last.bytes {
            report.cut_bytes += last.bytes - walked.good_bytes;
            file.truncate(walked.good_bytes).and_then(|()| file.sync()).map_err(failed(path))?;
            last.bytes = walked.good_bytes;
        }
        // Nothing more is put behind a damaged header.
        active = (!last_is_damaged).then_some(Active { file, base: *base, bytes: last.bytes });
    }
    report.log(dir);
    Ok(Recovered { segments: Segments::new(list, ticked_ns), end, active, report })
}

impl RecoveryReport {
    fn log(&self, dir: &Path) {
        let path = dir.display();
        if self.damaged_records > 0 || !self.damaged_segments.is_empty() {
            let (records, segments) = (self.damaged_records, self.damaged_segments.len());
            tracing::error!(%path, records, segments, "the sample log is damaged in the middle; what lies behind is kept");
        }
        if self.cut_bytes > 0 {
            tracing::warn!(%path, bytes = self.cut_bytes, "a torn tail was cut from the sample log");
        }
    }
}

struct Walked {
    good_bytes: u64,
    end: u64,
    ticked_ns: i64,
}

fn walk(path: &Path, base: u64, bytes: u64, report: &mut RecoveryReport) -> io::Result<Walked> {
    let mut cursor = SegmentCursor::open(path, base)?;
    let mut walked = Walked { good_bytes: bytes.min(SEGMENT_HEADER_BYTES as u64), end: base, ticked_ns: NO_TICK };
    let mut damaged = 0;
    loop {
        let position = match cursor.step(bytes, base)? {
            Step::Record(position, payload) => {
                // Kind 1 is a tick; decoding every batch only to find the ticks would read the log twice.
                if payload.get(1) == Some(&1)
                    && let Ok(LogRecord::Tick(time)) = LogRecord::decode(payload)
                {
                    walked.ticked_ns = walked.ticked_ns.max(time.0);
                }
                position
            }
            Step::Damaged(from, to) => {
                damaged += to - from;
                continue;
            }
            Step::End => return Ok(walked),
        };
        report.records += 1;
        report.damaged_records += std::mem::take(&mut damaged);
        walked.end = position + 1;
        walked.good_bytes = cursor.offset();
    }
}

fn files_of(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        files.extend(base_of(&path).map(|base| (base, path)));
    }
    files.sort();
    Ok(files)
}

fn read_header(path: &Path) -> io::Result<Option<SegmentHeader>> {
    let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
    File::open(path)?.take(SEGMENT_HEADER_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(SegmentHeader::decode(&bytes))
}
