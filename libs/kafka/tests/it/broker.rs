//! A real broker, started once per run and ended with it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use headroom_kafka::{Connection, Layout};

/// A broker of this run. Its start script ends it when the pipe to it closes, which it does when the tests end.
struct Broker {
    address: String,
    _script: Child,
}

static BROKER: OnceLock<Option<Broker>> = OnceLock::new();
static NAMES: AtomicU32 = AtomicU32::new(0);

/// How to reach the broker; `None`, said aloud, where Kafka is not installed.
pub fn connection(test: &str) -> Option<Connection> {
    let broker = BROKER.get_or_init(start);
    if broker.is_none() {
        eprintln!("SKIPPED {test}: kafka is not installed; tests/components/kafka/install brings it");
    }
    broker.as_ref().map(|broker| Connection { brokers: vec![broker.address.clone()], ..Connection::default() })
}

/// A layout whose topics nobody else has.
pub fn layout(partitions: u32) -> Layout {
    Layout {
        prefix: format!("t{}", NAMES.fetch_add(1, Ordering::Relaxed)),
        partitions,
        replication_factor: 1,
        ..Layout::default()
    }
}

fn start() -> Option<Broker> {
    let home = std::env::temp_dir().join(format!("headroom-kafka-{}", std::process::id()));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/components/kafka/start");
    let mut child = Command::new(script)
        .arg(home)
        .arg("--remove")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{script}: {error}"));
    let mut line = String::new();
    let stdout = child.stdout.take().expect("it is piped");
    BufReader::new(stdout).read_line(&mut line).expect("the script says something");
    let Some(address) = line.trim().strip_prefix("ready ") else {
        let status = child.wait().expect("the script ends");
        assert_eq!(status.code(), Some(77), "the broker did not start");
        return None;
    };
    Some(Broker { address: address.to_owned(), _script: child })
}
