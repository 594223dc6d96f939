//! The three ports: sample log, snapshot log and checkpoint store; memory and disk implementations; the contract suite.
#![forbid(unsafe_code)]
