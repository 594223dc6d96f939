//! Why a request is not let in, in the words of HTTP; OTLP/gRPC has its own for the same.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::scope::{Scope, Scopes};

/// Why a request is not let in. No text of it repeats what was presented.
#[derive(Clone, PartialEq, Debug)]
pub enum Denial {
    /// It says nothing about who asks.
    NoCredentials,
    /// Its `Authorization` is not a bearer token.
    NotBearer,
    /// Nobody has that token.
    UnknownToken,
    /// The caller's token, or its permission to come by certificate, has ended.
    Expired(Arc<str>),
    /// The certificate is good, but none of its names is a caller's.
    UnknownCertificate(Arc<str>),
    /// The caller may not do this.
    MissingScope {
        /// Who.
        caller: Arc<str>,
        /// What it may do.
        has: Scopes,
        /// What this needs.
        needs: Scope,
    },
    /// The caller asks too often, or sends too much.
    TooMany {
        /// The setting that bounds it.
        limit: &'static str,
        /// Its value.
        per_second: u64,
        /// When to come back.
        retry_after: Duration,
    },
}

impl Denial {
    /// A metric's label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::NotBearer => "not_bearer",
            Self::UnknownToken => "unknown_token",
            Self::Expired(_) => "expired",
            Self::UnknownCertificate(_) => "unknown_certificate",
            Self::MissingScope { .. } => "missing_scope",
            Self::TooMany { limit, .. } => limit,
        }
    }

    /// 401 if another credential would help, 403 if another permission would, 429 if waiting does.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::MissingScope { .. } => StatusCode::FORBIDDEN,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::UNAUTHORIZED,
        }
    }

    /// The header `WWW-Authenticate` (RFC 6750) of a 401 or 403.
    pub fn challenge(&self) -> Option<String> {
        const REALM: &str = "Bearer realm=\"headroom\"";
        match self {
            Self::NoCredentials | Self::NotBearer | Self::UnknownCertificate(_) => Some(REALM.to_owned()),
            Self::UnknownToken | Self::Expired(_) => Some(format!("{REALM}, error=\"invalid_token\"")),
            Self::MissingScope { needs, .. } => {
                Some(format!("{REALM}, error=\"insufficient_scope\", scope=\"{needs}\""))
            }
            Self::TooMany { .. } => None,
        }
    }

    /// When to come back, in whole seconds, where waiting helps.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::TooMany { retry_after, .. } => Some((retry_after.as_secs_f64().ceil() as u64).clamp(1, 3_600)),
            _ => None,
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCredentials => {
                formatter.write_str("nobody may ask here unnamed; send `Authorization: Bearer <token>`")
            }
            Self::NotBearer => formatter.write_str("the header Authorization is not `Bearer <token>`"),
            Self::UnknownToken => formatter.write_str("the token is nobody's, or no longer"),
            Self::Expired(caller) => write!(formatter, "the permission of {caller} has expired"),
            Self::UnknownCertificate(name) => {
                write!(formatter, "the certificate of {name} is valid, but none of its names is a caller's")
            }
            Self::MissingScope { caller, has, needs } => {
                write!(formatter, "{caller} may {has}; this needs the scope {needs}")
            }
            Self::TooMany { limit, per_second, .. } => {
                write!(formatter, "more than the {per_second} that one caller may have ({limit}); try again later")
            }
        }
    }
}
