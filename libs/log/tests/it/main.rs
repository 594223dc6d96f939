//! The implementations against the contract, and the disk against what disks do.
#![forbid(unsafe_code)]
// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

mod contract;
mod data_dir;
mod faults;
mod recovery;
mod retention;
mod support;
mod whole_files;
