//! What a message of a topic is, where nobody has said.

/// The ways in which messages of foreign topics are written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MessageEncoding {
    /// An OTLP `ExportMetricsServiceRequest` in protobuf.
    OtlpProto,
    /// The same in OTLP/JSON.
    OtlpJson,
    /// JSON counter records.
    Json,
    /// An Arrow IPC stream.
    Arrow,
}

impl MessageEncoding {
    /// Every encoding.
    pub const ALL: [Self; 4] = [Self::OtlpProto, Self::OtlpJson, Self::Json, Self::Arrow];

    /// Its name in configuration, metrics and headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OtlpProto => "otlp_proto",
            Self::OtlpJson => "otlp_json",
            Self::Json => "json",
            Self::Arrow => "arrow",
        }
    }
}

/// The encoding of a message: by its content type, if it has one that says it, else by its first bytes. Which kind of
/// JSON it is, its first name tells: an OTLP body has no other than `resourceMetrics`. `None` if it can be none of them.
pub fn sniff(content_type: Option<&str>, body: &[u8]) -> Option<MessageEncoding> {
    let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    match media_type.to_ascii_lowercase().as_str() {
        "application/x-protobuf" | "application/protobuf" | "application/vnd.google.protobuf" => {
            return Some(MessageEncoding::OtlpProto);
        }
        "application/vnd.apache.arrow.stream" => return Some(MessageEncoding::Arrow),
        "application/json" | "application/x-ndjson" | "application/jsonl" => return Some(json(body)),
        _ => {}
    }
    match body.first()? {
        0xff => Some(MessageEncoding::Arrow),
        // The key of field 1, which is all that the message has. It is a line feed as well, with which no JSON begins
        // that anybody writes.
        0x0a => Some(MessageEncoding::OtlpProto),
        b'{' | b'[' | b' ' | b'\t' | b'\r' => Some(json(body)),
        _ => None,
    }
}

/// Bytes looked at for the first name.
const FIRST_NAME_BYTES_MAX: usize = 256;

fn json(body: &[u8]) -> MessageEncoding {
    let begin = &body[..body.len().min(FIRST_NAME_BYTES_MAX)];
    let mut rest = begin.trim_ascii_start();
    if let Some(inside) = rest.strip_prefix(b"{") {
        rest = inside.trim_ascii_start();
    }
    if rest.starts_with(b"\"resourceMetrics\"") { MessageEncoding::OtlpJson } else { MessageEncoding::Json }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_win_and_bytes_decide_without_them() {
        let otlp = b"{ \"resourceMetrics\": [] }";
        for (content_type, body, expected) in [
            (None, &b"\x0a\x02"[..], Some(MessageEncoding::OtlpProto)),
            (None, otlp, Some(MessageEncoding::OtlpJson)),
            (None, b"{\"server\":\"a\"}", Some(MessageEncoding::Json)),
            (None, b"  [{}]", Some(MessageEncoding::Json)),
            (None, b"\xff\xff\xff\xff", Some(MessageEncoding::Arrow)),
            (None, b"cpu,host=a 1", None),
            (None, b"", None),
            (Some("application/x-protobuf"), b"{", Some(MessageEncoding::OtlpProto)),
            (Some("Application/JSON; charset=utf-8"), otlp, Some(MessageEncoding::OtlpJson)),
            (Some("application/x-ndjson"), b"\n{\"server\":\"a\"}", Some(MessageEncoding::Json)),
            (Some("application/vnd.apache.arrow.stream"), b"", Some(MessageEncoding::Arrow)),
            (Some("text/plain"), otlp, Some(MessageEncoding::OtlpJson)),
        ] {
            assert_eq!(sniff(content_type, body), expected, "{content_type:?} {}", String::from_utf8_lossy(body));
        }
    }
}
