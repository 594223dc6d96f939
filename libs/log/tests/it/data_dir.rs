//! Who may open a data directory.

use std::fs;

use headroom_log::disk::{DataDir, DiskSnapshotLog, OpenError};

use crate::support::{TempDir, files};

#[test]
fn one_process_at_a_time() {
    let dir = TempDir::new();
    let held = dir.open();
    let Err(error) = DataDir::open(dir.path(), 2, "wall") else { panic!("opened twice") };
    assert!(matches!(&error, OpenError::Locked { path, .. } if path == dir.path()), "{error}");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    // A part that is in use holds the directory, too.
    let part = DiskSnapshotLog::open(&held, 1).unwrap();
    drop(held);
    assert!(DataDir::open(dir.path(), 2, "wall").is_err());
    drop(part);
    assert!(DataDir::open(dir.path(), 2, "wall").is_ok());
}

#[test]
fn what_was_made_for_something_else_is_refused_untouched_and_says_what_to_do() {
    let format = |version: &str| format!("headroom data directory\nversion = {version}\npartitions = 2\ntime = wall\n");
    let cases = [
        (format("1"), 3, "wall", "partitions = 2, but 3 is configured; configure 2"),
        (format("1"), 2, "event", "the time mode = wall, but event is configured; configure wall"),
        (format("2"), 2, "wall", "format version 2, this program knows up to 1; nothing was changed"),
        (format("99"), 7, "event", "format version 99"),
        (format("x"), 2, "wall", "gives no version"),
        ("headroom data directory\nversion = 1\n".into(), 2, "wall", "is not complete"),
        ("something else".into(), 2, "wall", "is not that of a headroom data directory"),
    ];
    for (text, partitions, time, says) in cases {
        let dir = TempDir::new();
        fs::create_dir_all(dir.path()).unwrap();
        fs::write(dir.path().join("FORMAT"), &text).unwrap();
        let Err(error) = DataDir::open(dir.path(), partitions, time) else { panic!("{text}") };
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(fs::read_to_string(dir.path().join("FORMAT")).unwrap(), text);
        assert_eq!(files(dir.path()).len(), 2, "only LOCK was added");
    }
}

#[test]
fn a_log_without_its_format_is_not_taken_for_a_new_directory() {
    let dir = TempDir::new();
    drop(dir.open());
    fs::create_dir_all(dir.path().join("log")).unwrap();
    fs::remove_file(dir.path().join("FORMAT")).unwrap();
    let Err(error) = DataDir::open(dir.path(), 2, "wall") else { panic!("opened") };
    assert!(error.to_string().contains("holds log but no FORMAT"), "{error}");
}
