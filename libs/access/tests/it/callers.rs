//! The callers' file: what is refused, in which words, and that no word of it is a token.

use headroom_access::{Callers, CertificateNames, Scope};

const HASH: &str = "936a185caaa266bb9cbe981e9e05cb78cd732b0b3280eb944412bb6f8f8f07af";

fn token_of(file: &str) -> Result<Vec<u8>, String> {
    match file {
        "good" => Ok(b"  a token of forty bytes or somewhat more \n".to_vec()),
        "short" => Ok(b"hunter2\n".to_vec()),
        _ => Err(format!("cannot read {file}")),
    }
}

fn parse(text: &str) -> Result<Callers, String> {
    Callers::parse("c.yaml", text, &token_of)
}

#[test]
fn callers_are_found_by_token_and_by_certificate() {
    let text = format!(
        "callers:\n\
         - {{name: a, scopes: [read], sha256: {HASH}}}\n\
         - {{name: b, scopes: [operate, ingest], token_file: good, expires: 2027-01-31T00:00:00+01:00}}\n\
         - {{name: c, scopes: [ingest], certificate: 'spiffe://x/collector'}}\n"
    );
    let callers = parse(&text).expect("a valid file");
    assert_eq!((callers.len(), callers.is_empty()), (3, false));
    let name = |token: &str| callers.by_token(token.as_bytes()).map(|grant| grant.name.to_string());
    assert_eq!(name("helloworld"), Some("a".to_owned()));
    assert_eq!(name("a token of forty bytes or somewhat more"), Some("b".to_owned()));
    assert_eq!([name("helloworl"), name("helloworld "), name(""), name(HASH)], [None, None, None, None]);
    let b = callers.by_token(b"a token of forty bytes or somewhat more").expect("b");
    assert_eq!(b.expires, Some(1_801_350_000));
    assert!(b.scopes.allow(Scope::Read) && !b.scopes.allow(Scope::Admin));
    let found = |names: &[&str]| {
        let names = CertificateNames::from_names(names.iter().copied());
        callers.by_certificate(&names).map(|grant| grant.name.to_string())
    };
    assert_eq!(found(&["collector", "spiffe://x/collector"]), Some("c".to_owned()));
    assert_eq!([found(&["collector"]), found(&[])], [None, None]);
}

#[test]
fn what_is_wrong_is_said_without_a_secret() {
    for (text, expected) in [
        ("", "c.yaml:1:1: the file lacks the key `callers`"),
        ("callers: []", "c.yaml:1:10: `callers` must not be empty"),
        (
            "callers: [{name: a, scopes: [raed], sha256: x}]",
            "`callers.0.scopes.0` must be one of ingest, read, operate, admin, not `raed`; did you mean `read`?",
        ),
        ("callers: [{name: a, scopes: []}]", "`callers.0.scopes` must not be empty"),
        ("callers: [{name: a, scopes: [read]}]", "callers.0 (a): give one of sha256, token_file and certificate"),
        (
            "callers: [{name: a, scopes: [read], certificate: x, token_file: good}]",
            "callers.0 (a): give one of sha256, token_file and certificate",
        ),
        ("callers: [{name: a, scopes: [read], sha256: 12ab}]", "callers.0 (a): sha256 must be 64 hexadecimal digits"),
        ("callers: [{name: a, scopes: [read], token_file: none}]", "callers.0 (a): cannot read none"),
        ("callers: [{name: a, scopes: [read], token_file: short}]", "must have 16 to 4096 bytes"),
        ("callers: [{name: 'a b', scopes: [read], certificate: x}]", "printable ASCII"),
        ("callers: [{name: a, scopes: [read], certificate: x, expires: tomorrow}]", "`tomorrow` is no time"),
        (
            "callers: [{name: a, scopes: [read], token: hunter2}]",
            "unknown key `token` in `callers.0`; did you mean `token_file`?",
        ),
        (
            "callers:\n- {name: a, scopes: [read], token_file: good}\n- {name: b, scopes: [read], token_file: good}",
            "callers.1 (b): its token is another entry's already",
        ),
        (
            "callers:\n- {name: a, scopes: [read], certificate: x}\n- {name: b, scopes: [read], certificate: x}",
            "callers.1 (b): the certificate name x is another entry's already",
        ),
    ] {
        let message = parse(text).expect_err(text);
        assert!(message.contains(expected), "{text}: {message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}
