//! Requests against callers: who, how often, what for; and callers that change.

use std::sync::atomic::Ordering;

use headroom_access::{Access, CertificateNames, Denial, Peer, Scope, Surface};
use headroom_config::{Auth, SecuritySection};
use http::{HeaderMap, StatusCode, header};

use crate::support::{Files, Guarded};

fn bearing(authorization: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if !authorization.is_empty() {
        headers.insert(header::AUTHORIZATION, authorization.parse().expect("a header value"));
    }
    headers
}

fn peer(certificate: &[&str]) -> Peer {
    let certificate = (!certificate.is_empty()).then(|| CertificateNames::from_names(certificate.iter().copied()));
    Peer { address: Some([10, 0, 0, 1].into()), certificate }
}

/// Who is let in, or the reason why not.
fn admit(access: &Access, authorization: &str, certificate: &[&str], needs: Scope) -> Result<String, &'static str> {
    match access.admit(Surface::Http, &peer(certificate), &bearing(authorization), needs) {
        Ok(caller) => Ok(caller.name.as_deref().unwrap_or("-").to_owned()),
        Err(denial) => Err(denial.reason()),
    }
}

fn with_callers(files: &Files) -> SecuritySection {
    SecuritySection { auth: Auth::Tokens, callers_file: files.name("callers.yaml"), ..SecuritySection::default() }
}

const CALLERS: &str = "callers:\n\
    - {name: sender, scopes: [ingest], token_file: sender.token}\n\
    - {name: reader, scopes: [read], token_file: reader.token, expires: 1970-01-01T00:16:40Z}\n\
    - {name: root, scopes: [admin], certificate: root.example.net}\n";

fn files() -> Files {
    let files = Files::new();
    files.write("callers.yaml", CALLERS);
    files.write("sender.token", "sender-sender-sender\n");
    files.write("reader.token", "reader-reader-reader\n");
    files
}

#[test]
fn a_request_shows_who_it_is_and_may_do_what_its_scopes_say() {
    let files = files();
    let guarded = Guarded::new(&with_callers(&files));
    assert!(guarded.access.is_restricted() && !guarded.access.has_tls() && !guarded.access.has_open_metrics());
    for (authorization, certificate, needs, expected) in [
        ("", &[][..], Scope::Read, Err("no_credentials")),
        ("Basic cm9vdDpyb290", &[], Scope::Read, Err("not_bearer")),
        ("Bearer", &[], Scope::Read, Err("not_bearer")),
        ("Bearer ", &[], Scope::Read, Err("not_bearer")),
        ("Bearer reader-reader-readex", &[], Scope::Read, Err("unknown_token")),
        ("Bearer reader-reader-reader", &[], Scope::Read, Ok("reader")),
        ("bearer  reader-reader-reader ", &[], Scope::Read, Ok("reader")),
        ("Bearer reader-reader-reader", &[], Scope::Operate, Err("missing_scope")),
        ("Bearer reader-reader-reader", &[], Scope::Ingest, Err("missing_scope")),
        ("Bearer sender-sender-sender", &[], Scope::Ingest, Ok("sender")),
        ("Bearer sender-sender-sender", &[], Scope::Read, Err("missing_scope")),
        ("", &["x", "root.example.net"], Scope::Admin, Ok("root")),
        ("", &["x"], Scope::Read, Err("unknown_certificate")),
        // What is said aloud counts more than what the connection happens to have.
        ("Bearer sender-sender-sender", &["root.example.net"], Scope::Admin, Err("missing_scope")),
        ("Bearer nobody-nobody-nobody", &["root.example.net"], Scope::Read, Err("unknown_token")),
    ] {
        let found = admit(&guarded.access, authorization, certificate, needs);
        assert_eq!(found.as_deref().map_err(|reason| *reason), expected, "{authorization} {certificate:?} {needs}");
    }
    assert!(guarded.counts("headroom_access_denied_requests_total{surface=\"http\",reason=\"unknown_token\"} 2"));
}

#[test]
fn denials_say_what_to_do() {
    let files = files();
    let access = Guarded::new(&with_callers(&files)).access;
    let denial = |authorization: &str, needs| {
        access.admit(Surface::Otlp, &peer(&[]), &bearing(authorization), needs).expect_err("a denial")
    };
    for (denial, status, challenge, text) in [
        (
            denial("", Scope::Read),
            401,
            "Bearer realm=\"headroom\"",
            "nobody may ask here unnamed; send `Authorization: Bearer <token>`",
        ),
        (
            denial("Bearer nobody-nobody-nobody", Scope::Read),
            401,
            "Bearer realm=\"headroom\", error=\"invalid_token\"",
            "the token is nobody's, or no longer",
        ),
        (
            denial("Bearer reader-reader-reader", Scope::Ingest),
            403,
            "Bearer realm=\"headroom\", error=\"insufficient_scope\", scope=\"ingest\"",
            "reader may read; this needs the scope ingest",
        ),
    ] {
        assert_eq!(denial.status().as_u16(), status);
        assert_eq!((denial.challenge().as_deref(), denial.to_string().as_str()), (Some(challenge), text));
        assert_eq!(denial.retry_after_seconds(), None);
    }
}

#[test]
fn a_permission_ends_when_it_says() {
    let files = files();
    let Guarded { access, clock, .. } = Guarded::new(&with_callers(&files));
    let ask = || admit(&access, "Bearer reader-reader-reader", &[], Scope::Read);
    clock.store(999, Ordering::SeqCst);
    assert_eq!(ask(), Ok("reader".to_owned()));
    assert!(access.is_still_good(&peer(&[]), &bearing("Bearer reader-reader-reader"), Scope::Read));
    clock.store(1_000, Ordering::SeqCst);
    assert_eq!(ask(), Err("expired"));
    assert!(!access.is_still_good(&peer(&[]), &bearing("Bearer reader-reader-reader"), Scope::Read));
}

#[test]
fn callers_and_tokens_are_replaced_and_a_bad_file_leaves_the_old_ones() {
    let files = files();
    let guarded = Guarded::new(&with_callers(&files));
    let access = &guarded.access;
    let ask = |token: &str| admit(access, &format!("Bearer {token}"), &[], Scope::Ingest);
    let counted = |outcome: &str, times: u32| {
        guarded.counts(&format!("headroom_access_reloads_total{{files=\"callers\",outcome=\"{outcome}\"}} {times}"))
    };
    access.refresh();
    assert!(!counted("applied", 1), "nothing has changed");

    files.write("sender.token", "another-token-of-sender");
    access.refresh();
    assert_eq!(
        (ask("sender-sender-sender"), ask("another-token-of-sender")),
        (Err("unknown_token"), Ok("sender".into()))
    );
    assert!(counted("applied", 1));

    for broken in ["callers: [{name: a}]", "callers: [", "callers: [{name: a, scopes: [read], token_file: gone}]"] {
        files.write("callers.yaml", broken);
        access.refresh();
        access.refresh();
        assert_eq!(ask("another-token-of-sender"), Ok("sender".into()), "{broken}");
    }
    assert!(counted("applied", 1) && counted("refused", 3), "each mistake is told once");

    files.write("callers.yaml", "callers: [{name: a, scopes: [ingest], token_file: reader.token}]");
    access.refresh();
    assert_eq!((ask("another-token-of-sender"), ask("reader-reader-reader")), (Err("unknown_token"), Ok("a".into())));
    assert!(counted("applied", 2));
}

#[test]
fn a_service_does_not_start_on_files_that_it_cannot_use() {
    let files = Files::new();
    let refused = |security: &SecuritySection| Guarded::try_new(security).err().expect("a refusal");
    let message = refused(&with_callers(&files));
    assert!(message.starts_with("cannot read ") && message.contains("callers.yaml"), "{message}");
}

#[test]
fn each_caller_has_its_rate_and_the_unknown_share_that_of_their_address() {
    let files = files();
    let mut security = with_callers(&files);
    security.limits.requests_per_second = 1;
    security.limits.exports_per_second = 1;
    security.limits.export_bytes_per_second = 1_000;
    let guarded = Guarded::new(&security);
    let access = &guarded.access;
    let ask = |surface, authorization: &str| {
        access.admit(surface, &peer(&[]), &bearing(authorization), Scope::Read).map_err(|denial| denial.status())
    };
    let reader = "Bearer reader-reader-reader";
    // Two seconds' worth may come at once; that it takes less than a second to ask thrice is not assumed.
    let refused = std::iter::from_fn(|| Some(ask(Surface::Http, reader))).take(1_000).find_map(Result::err);
    assert_eq!(refused, Some(StatusCode::TOO_MANY_REQUESTS));
    let wrong = "Bearer nobody-nobody-nobody";
    let statuses: Vec<_> = (0..1_000).filter_map(|_| ask(Surface::Http, wrong).err()).collect();
    assert_eq!(statuses[0], StatusCode::UNAUTHORIZED, "the address has an account of its own");
    assert!(statuses.contains(&StatusCode::TOO_MANY_REQUESTS));
    assert!(ask(Surface::Otlp, reader).is_ok(), "OTLP is counted by itself");

    let sender = bearing("Bearer sender-sender-sender");
    let caller = access.admit(Surface::Otlp, &peer(&[]), &sender, Scope::Ingest).expect("the first");
    access.charge(&caller, 3_600_000_000);
    let denial = access.admit(Surface::Otlp, &peer(&[]), &sender, Scope::Ingest).expect_err("a debt");
    assert!(matches!(denial, Denial::TooMany { limit: "export_bytes_per_second", per_second: 1_000, .. }), "{denial}");
    assert_eq!((denial.retry_after_seconds(), denial.challenge()), (Some(3_600), None));
    assert!(
        guarded.counts("headroom_access_denied_requests_total{surface=\"otlp\",reason=\"export_bytes_per_second\"} 1")
    );
}

#[test]
fn without_callers_everybody_may_do_everything_under_a_name_if_there_is_one() {
    let access = Access::default();
    assert!(!access.is_restricted() && access.has_open_metrics());
    assert_eq!(admit(&access, "", &[], Scope::Admin), Ok("-".to_owned()));
    assert_eq!(admit(&access, "Bearer whatever", &["web-1"], Scope::Admin), Ok("web-1".to_owned()));
}
