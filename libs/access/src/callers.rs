//! The callers: who they are, how they show it, and what each may do.
//!
//! The file holds no secret. A token is named by its SHA-256 or by a file of its own, so that the list itself can lie in
//! version control, and no message about it can tell a token. A presented token is hashed and compared with every known
//! hash in constant time: there are few, and how long it takes says nothing about any of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use schemars::JsonSchema;
use serde::Deserialize;
use subtle::ConstantTimeEq;

use crate::certificate::CertificateNames;
use crate::files::read;
use crate::scope::{Scope, Scopes};

/// Entries of a callers' file.
pub const CALLERS_MAX: usize = 1_024;

/// Characters of a caller's name.
const NAME_CHARS_MAX: usize = 64;

/// A token shorter than this could be found by trying.
const TOKEN_BYTES_MIN: usize = 16;

/// No token is longer.
pub(crate) const TOKEN_BYTES_MAX: usize = 4_096;

/// Who may ask, and for what: the file that `security.callers_file` names. It holds no secret and is read again when it
/// or a token's file changes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallersFile {
    /// The callers. One may have several entries, as while its token is replaced.
    #[schemars(length(min = 1, max = 1_024))]
    pub callers: Vec<CallerEntry>,
}

/// One way for one caller to show who it is: by exactly one of `sha256`, `token_file` and `certificate`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallerEntry {
    /// The caller's name: in logs, in the audit, and what its rates are counted by.
    #[schemars(length(min = 1))]
    pub name: String,
    /// What it may do. `admin` implies all, `operate` implies `read`.
    #[schemars(length(min = 1))]
    pub scopes: Vec<Scope>,
    /// The SHA-256 of its token, in hexadecimal: `printf %s "$TOKEN" | sha256sum`.
    #[serde(default)]
    pub sha256: Option<String>,
    /// A file that holds its token and nothing else. A relative path starts at this file's folder.
    #[serde(default)]
    pub token_file: Option<String>,
    /// A name in its client certificate: the subject's common name, or a DNS, URI or e-mail alternative name.
    #[serde(default)]
    pub certificate: Option<String>,
    /// When its permission ends, such as `2027-01-31T00:00:00Z`.
    #[serde(default)]
    pub expires: Option<String>,
}

/// What one entry grants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// The caller's name.
    pub name: Arc<str>,
    /// What it may do.
    pub scopes: Scopes,
    /// When that ends, in Unix seconds.
    pub expires: Option<i64>,
}

type Hash = [u8; SHA256_OUTPUT_LEN];

/// The callers of a file, ready to be looked up.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Callers {
    tokens: Vec<(Hash, Arc<Grant>)>,
    certificates: BTreeMap<Arc<str>, Arc<Grant>>,
}

impl Callers {
    /// Reads a callers' file and the token files that it names.
    ///
    /// # Errors
    /// All that is wrong with it, for people; never a token.
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = String::from_utf8(read(path)?).map_err(|_| format!("{} is not UTF-8", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&path.display().to_string(), &text, &|file| read(&folder.join(file)))
    }

    /// Makes the callers of a text; `token_of` reads a token's file.
    ///
    /// # Errors
    /// All that is wrong with it, for people; never a token.
    pub fn parse(name: &str, text: &str, token_of: &dyn Fn(&str) -> Result<Vec<u8>, String>) -> Result<Self, String> {
        // No snippets: somebody will write a token into the file, where a misspelt key is reported with its line.
        let file: CallersFile = headroom_config::load_file(name, text).map_err(|errors| errors.without_snippets())?;
        let mut callers = Self::default();
        let mut problems = Vec::new();
        for (at, entry) in file.callers.iter().enumerate() {
            if let Err(problem) = callers.add(entry, token_of) {
                problems.push(format!("{name}: callers.{at} ({}): {problem}", entry.name));
            }
        }
        if problems.is_empty() { Ok(callers) } else { Err(problems.join("\n")) }
    }

    fn add(&mut self, entry: &CallerEntry, token_of: &dyn Fn(&str) -> Result<Vec<u8>, String>) -> Result<(), String> {
        let is_plain = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
        if entry.name.chars().count() > NAME_CHARS_MAX || !entry.name.chars().all(is_plain) {
            return Err(format!("a name has 1 to {NAME_CHARS_MAX} printable ASCII characters, no space, no quote"));
        }
        let expires = entry.expires.as_deref().map(|text| {
            let parsed: Result<jiff::Timestamp, _> = text.parse();
            parsed
                .map(jiff::Timestamp::as_second)
                .map_err(|_| format!("`{text}` is no time; write 2027-01-31T00:00:00Z"))
        });
        let grant = Arc::new(Grant {
            name: entry.name.as_str().into(),
            scopes: entry.scopes.iter().copied().collect(),
            expires: expires.transpose()?,
        });
        match (&entry.sha256, &entry.token_file, &entry.certificate) {
            (Some(hash), None, None) => self.add_token(parse_hash(hash)?, grant),
            (None, Some(file), None) => {
                let bytes = token_of(file)?;
                let token = bytes.trim_ascii();
                if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) {
                    return Err(format!(
                        "the token in {file} must have {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} bytes; \
                         `openssl rand -hex 32` makes one"
                    ));
                }
                self.add_token(hash_of(token), grant)
            }
            (None, None, Some(certificate)) if !certificate.is_empty() => {
                match self.certificates.insert(certificate.as_str().into(), grant) {
                    Some(_) => Err(format!("the certificate name {certificate} is another entry's already")),
                    None => Ok(()),
                }
            }
            _ => Err("give one of sha256, token_file and certificate".to_owned()),
        }
    }

    fn add_token(&mut self, hash: Hash, grant: Arc<Grant>) -> Result<(), String> {
        if self.tokens.iter().any(|(other, _)| *other == hash) {
            return Err("its token is another entry's already".to_owned());
        }
        self.tokens.push((hash, grant));
        Ok(())
    }

    /// Whose token it is.
    pub fn by_token(&self, token: &[u8]) -> Option<&Arc<Grant>> {
        let hash = hash_of(token);
        let mut found = None;
        // No early end: the time it takes must not say how far a guess came.
        for (known, grant) in &self.tokens {
            if bool::from(known.ct_eq(&hash)) {
                found = Some(grant);
            }
        }
        found
    }

    /// Whose certificate it is: the first of its names that is a caller's.
    pub fn by_certificate(&self, names: &CertificateNames) -> Option<&Arc<Grant>> {
        names.iter().find_map(|name| self.certificates.get(name))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.tokens.len() + self.certificates.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Hashes are no secret, and yet of no use in a log.
impl std::fmt::Debug for Callers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Callers({} tokens, {} certificates)", self.tokens.len(), self.certificates.len())
    }
}

fn hash_of(token: &[u8]) -> Hash {
    let mut hash = [0; SHA256_OUTPUT_LEN];
    hash.copy_from_slice(digest(&SHA256, token).as_ref());
    hash
}

fn parse_hash(text: &str) -> Result<Hash, String> {
    let wrong = || "sha256 must be 64 hexadecimal digits".to_owned();
    let text = text.trim();
    if text.len() != 2 * SHA256_OUTPUT_LEN || !text.is_ascii() {
        return Err(wrong());
    }
    let mut hash = [0; SHA256_OUTPUT_LEN];
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
    }
    Ok(hash)
}
