//! The ports against a real broker, one for the whole run. Where Kafka is not installed (tests/components/kafka/install)
//! every test says by its name that it was skipped.

mod broker;
mod contract;
mod control;
mod fence;
mod fixtures;
mod large;
mod topics;
