//! What a caller may do, in four words.
//!
//! `admin` implies all. `operate` implies `read`, because nobody should act on what they cannot see. `ingest` and `read`
//! imply nothing: a sender's token that leaks shows no data, and a dashboard's brings none in.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One thing that a caller may be allowed to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Send telemetry.
    Ingest,
    /// Read scores, decisions, the policy and `/metrics`, and acknowledge decisions.
    Read,
    /// What `read` may; and set modes and overrides, remove servers, advance the clock.
    Operate,
    /// Everything.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ingest, Self::Read, Self::Operate, Self::Admin];

    /// Its word, as in files and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A set of scopes, with what they imply.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Scopes {
    given: u8,
    implied: u8,
}

impl Scopes {
    /// Everything: what a caller has where nobody has to show who he is.
    pub const ALL: Self = Self { given: 0b1000, implied: 0b1111 };

    /// Whether they include a scope, given or implied.
    pub fn allow(self, scope: Scope) -> bool {
        self.implied & scope.bit() != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        scopes.into_iter().fold(Self::default(), |Self { given, implied }, scope| {
            let with = match scope {
                Scope::Ingest | Scope::Read => scope.bit(),
                Scope::Operate => scope.bit() | Scope::Read.bit(),
                Scope::Admin => Self::ALL.implied,
            };
            Self { given: given | scope.bit(), implied: implied | with }
        })
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = Scope::ALL.into_iter().filter(|scope| self.given & scope.bit() != 0);
        let words: Vec<&str> = given.map(Scope::as_str).collect();
        formatter.write_str(if words.is_empty() { "nothing" } else { "" })?;
        formatter.write_str(&words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_implies_what() {
        for (given, allowed, text) in [
            (vec![], vec![], "nothing"),
            (vec![Scope::Ingest], vec![Scope::Ingest], "ingest"),
            (vec![Scope::Read], vec![Scope::Read], "read"),
            (vec![Scope::Operate], vec![Scope::Read, Scope::Operate], "operate"),
            (vec![Scope::Read, Scope::Ingest], vec![Scope::Ingest, Scope::Read], "ingest, read"),
            (vec![Scope::Admin], Scope::ALL.to_vec(), "admin"),
        ] {
            let scopes: Scopes = given.into_iter().collect();
            let found: Vec<Scope> = Scope::ALL.into_iter().filter(|scope| scopes.allow(*scope)).collect();
            assert_eq!((found, scopes.to_string().as_str()), (allowed, text));
        }
        assert_eq!([Scope::Admin].into_iter().collect::<Scopes>(), Scopes::ALL);
    }
}
