//! The routes, a file for each subject.

pub(crate) mod check;
pub(crate) mod clock;
pub(crate) mod decisions;
pub(crate) mod documents;
pub(crate) mod operate;
pub(crate) mod rollups;
pub(crate) mod servers;
pub(crate) mod snapshot;
pub(crate) mod watch;
