//! What was once written is read for ever: values of version 1 as the first release wrote them. A new version gets new
//! files; these never change.

use headroom_kafka::records::{
    Agreed, CheckpointKey, ControlKey, Generation, Part, SnapshotKey, decode_chunk, decode_claim, decode_index,
    decode_note, encode_chunk, encode_claim, encode_index, encode_note, parts_of, whole_of,
};
use headroom_log::contract::tick;
use headroom_model::LogRecord;

fn recorded(name: &str, now: &[u8]) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/{name}.bin", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("RECORD_FIXTURES").is_some() && !std::path::Path::new(&path).exists() {
        std::fs::write(&path, now).expect("a fixture can be written");
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}; RECORD_FIXTURES=1 writes missing ones"))
}

#[test]
fn keys_are_spelt_as_ever() {
    // Compaction compares bytes: a key that is spelt anew is another key.
    for (name, key) in [
        ("v1-key-part", SnapshotKey::Part { cell: "eu-1".into(), part: 3 }),
        ("v1-key-claim", SnapshotKey::Claim { partition: 7 }),
        ("v1-key-note", SnapshotKey::Note { partition: 7, name: "progress".into() }),
        ("v1-key-mode", SnapshotKey::Mode { cell: Some("eu-1".into()) }),
        ("v1-key-mode-all", SnapshotKey::Mode { cell: None }),
    ] {
        let bytes = recorded(name, &key.encode());
        assert_eq!(key.encode(), bytes, "{name}");
        assert_eq!(SnapshotKey::decode(&bytes), Ok(key));
    }
    for (name, key) in [
        ("v1-key-control-mode", ControlKey::Mode { cell: Some("eu-1".into()) }),
        ("v1-key-control-mode-all", ControlKey::Mode { cell: None }),
        ("v1-key-agreed", ControlKey::Agreed),
    ] {
        let bytes = recorded(name, &key.encode());
        assert_eq!(key.encode(), bytes, "{name}");
        assert_eq!(ControlKey::decode(&bytes), Ok(key));
    }
    for (name, key) in [
        ("v1-key-chunk", CheckpointKey::Chunk { partition: 7, slot: 1, chunk: 3 }),
        ("v1-key-index", CheckpointKey::Index { partition: 7 }),
    ] {
        let bytes = recorded(name, &key.encode());
        assert_eq!(key.encode(), bytes, "{name}");
        assert_eq!(CheckpointKey::decode(&bytes), Ok(key));
    }
}

#[test]
fn values_of_version_1_are_read() {
    let parts = parts_of(1_795_255_210, b"header", b"the content", 12);
    assert_eq!(parts.len(), 2);
    let read: Vec<Part> = [("v1-part-0", 0), ("v1-part-1", 1)]
        .map(|(name, at)| Part::decode(&recorded(name, &parts[at].encode())).unwrap())
        .into();
    assert_eq!(read, parts);
    assert_eq!(whole_of(&read), Some((b"header".as_slice().into(), b"the content".as_slice().into())));
    let mut damaged = read;
    damaged[1].piece = "damaged".into();
    assert_eq!(whole_of(&damaged), None);

    assert_eq!(decode_claim(&recorded("v1-claim", &encode_claim(42))), Ok(42));
    assert_eq!(decode_note(&recorded("v1-note", &encode_note(b"note"))), Ok(b"note".as_slice().into()));
    assert_eq!(decode_chunk(&recorded("v1-chunk", &encode_chunk(9, b"chunk"))), Ok((9, b"chunk".as_slice())));
    let agreed = Agreed { event_time: true, tick_seconds: 10 };
    assert_eq!(Agreed::decode(&recorded("v1-agreed", &agreed.encode())), Ok(agreed));
    let index = vec![
        Generation { slot: 0, position: 10, serial: 1, offset: 5, chunks: 2, bytes: 99, crc: 7 },
        Generation { slot: 1, position: 20, serial: 2, offset: 8, chunks: 1, bytes: 50, crc: 8 },
    ];
    assert_eq!(decode_index(&recorded("v1-index", &encode_index(&index))), Ok(index));
    assert_eq!(LogRecord::decode(&recorded("v1-tick", &tick(10).encode())).unwrap(), *tick(10));
    // A newer one is refused, not misread.
    for result in [decode_claim(&[2, 0]).err(), decode_index(&[9]).err(), Part::decode(&[2]).err()] {
        assert!(result.is_some_and(|error| error.what.contains("newer")));
    }
}
