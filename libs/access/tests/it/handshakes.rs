//! Real handshakes over memory: who is trusted, who is refused, who is slow, and certificates that change.

use headroom_access::{HANDSHAKE_TIMEOUT, Stream};
use headroom_config::{ClientAuth, SecuritySection, TlsSection};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::support::{Authority, Files, Guarded, client, connect, der, shown};

fn section(files: &Files, client_auth: ClientAuth) -> SecuritySection {
    let tls = TlsSection {
        cert_file: files.name("cert.pem"),
        key_file: files.name("key.pem"),
        client_ca_file: files.name("client-ca.pem").filter(|_| client_auth != ClientAuth::None),
        client_auth,
    };
    SecuritySection { tls, ..SecuritySection::default() }
}

fn files(server: &Authority, clients: &Authority) -> Files {
    let files = Files::new();
    let pair = server.server();
    files.write("cert.pem", &pair.certificate);
    files.write("key.pem", &pair.key);
    files.write("client-ca.pem", &clients.pem());
    files
}

#[tokio::test]
async fn certificates_are_checked_on_both_sides() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let files = files(&ours, &theirs);
    let good = theirs.client("collector-1", Some("spiffe://fleet/collector"));
    let foreign = Authority::new().client("collector-1", None);
    for (client_auth, trusted, shown, expected) in [
        (ClientAuth::None, &ours, None, Ok(None)),
        (ClientAuth::None, &theirs, None, Err("tls")),
        (ClientAuth::None, &ours, Some(&good), Ok(None)),
        (ClientAuth::Optional, &ours, None, Ok(None)),
        (ClientAuth::Optional, &ours, Some(&foreign), Err("tls")),
        (ClientAuth::Optional, &ours, Some(&good), Ok(Some(["collector-1", "spiffe://fleet/collector"]))),
        (ClientAuth::Required, &ours, None, Err("tls")),
        (ClientAuth::Required, &ours, Some(&foreign), Err("tls")),
        (ClientAuth::Required, &ours, Some(&good), Ok(Some(["collector-1", "spiffe://fleet/collector"]))),
    ] {
        let guarded = Guarded::new(&section(&files, client_auth));
        let (near, far) = connect(&guarded.access, client(trusted, shown)).await;
        let case = format!("{client_auth:?}, shown: {}, expected: {expected:?}", shown.is_some());
        assert_eq!(near.is_ok(), expected.is_ok(), "{case}: {near:?}");
        let found = far.map_err(|error| error.bound()).map(|(stream, peer)| {
            assert!(matches!(stream, Stream::Tls(_)));
            peer.certificate.map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>())
        });
        assert_eq!(found, expected.map(|names| names.map(|names| names.map(str::to_owned).to_vec())), "{case}");
        let line = "headroom_listener_refused_connections_total{listener=\"test\",bound=\"tls\"} 1";
        assert_eq!(guarded.counts(line), expected.is_err(), "{case}");
    }
}

#[tokio::test]
async fn certificates_are_replaced_and_connections_live_on() {
    let ours = Authority::new();
    let files = files(&ours, &ours);
    let guarded = Guarded::new(&section(&files, ClientAuth::None));
    let first = std::fs::read_to_string(files.path("cert.pem")).expect("a file");
    let (near, far) = connect(&guarded.access, client(&ours, None)).await;
    let (mut near, (mut far, _)) = (near.expect("a client"), far.expect("a server"));
    assert_eq!(shown(&near), der(&first));

    // A pair is two files, and between the two it does not fit.
    let new = ours.server();
    files.write("cert.pem", &new.certificate);
    guarded.access.refresh();
    guarded.access.refresh();
    let reloads = |outcome: &str| {
        guarded.counts(&format!("headroom_access_reloads_total{{files=\"tls\",outcome=\"{outcome}\"}} 1"))
    };
    assert!(reloads("refused") && !reloads("applied"));
    let (between, _) = connect(&guarded.access, client(&ours, None)).await;
    assert_eq!(shown(&between.expect("the old pair is in force")), der(&first));

    files.write("key.pem", &new.key);
    guarded.access.refresh();
    assert!(reloads("applied"));
    let (after, _) = connect(&guarded.access, client(&ours, None)).await;
    assert_eq!(shown(&after.expect("the new pair is in force")), der(&new.certificate));

    near.write_all(b"still here").await.expect("the old connection lives");
    near.flush().await.expect("the old connection lives");
    let mut bytes = [0; 10];
    far.read_exact(&mut bytes).await.expect("the old connection lives");
    assert_eq!(&bytes, b"still here");

    for (file, content) in [("cert.pem", ""), ("key.pem", "no key"), ("cert.pem", &new.certificate)] {
        files.write(file, content);
        guarded.access.refresh();
        assert!(connect(&guarded.access, client(&ours, None)).await.0.is_ok(), "{file}: {content}");
    }
}

/// The first connection that says nothing, the second that says nonsense, and the third that is in order.
#[tokio::test(start_paused = true)]
async fn a_stuck_handshake_holds_up_nobody_and_ends() {
    let ours = Authority::new();
    let files = files(&ours, &ours);
    let guarded = Guarded::new(&section(&files, ClientAuth::None));
    let access = guarded.access.clone();
    let places = std::sync::Arc::new(Semaphore::new(1));
    let (_silent, far) = duplex(1_024);
    let started = Instant::now();
    let stuck = {
        let (access, places) = (access.clone(), places.clone());
        tokio::spawn(async move { access.accept("test", far, [127, 0, 0, 1].into(), &places).await })
    };
    while places.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    let (_another, far) = duplex(1_024);
    let refused = access.accept("test", far, [127, 0, 0, 1].into(), &places).await;
    assert_eq!(refused.expect_err("there is one place").bound(), "handshakes_max");

    let (near, _) = connect(&access, client(&ours, None)).await;
    assert!(near.is_ok(), "{near:?}");

    let ended = stuck.await.expect("no panic").expect_err("it never said anything");
    assert_eq!((ended.bound(), started.elapsed() >= HANDSHAKE_TIMEOUT), ("handshake_timeout", true));
    assert_eq!(places.available_permits(), 1);

    let (mut plain, far) = duplex(1_024);
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("room");
    let refused = access.accept("test", far, [127, 0, 0, 1].into(), &places).await;
    assert_eq!(refused.expect_err("no handshake").bound(), "tls");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let ours = Authority::new();
    for (file, content, expected) in [
        ("cert.pem", "", "cert.pem holds no certificate in PEM form"),
        ("key.pem", "", "key.pem holds no private key in PEM form"),
        ("key.pem", &*ours.server().key, "do not go together"),
        ("client-ca.pem", "nothing", "client-ca.pem holds no certificate in PEM form"),
    ] {
        let files = files(&ours, &ours);
        files.write(file, content);
        let refused = Guarded::try_new(&section(&files, ClientAuth::Required)).err().expect(expected);
        assert!(refused.contains(expected), "{refused}");
        assert!(!refused.contains("PRIVATE KEY"), "{refused}");
    }
}
