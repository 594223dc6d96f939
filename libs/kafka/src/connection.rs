//! How to reach a Kafka cluster: addresses, encryption and credentials, and nothing about what is read or written there.
//!
//! Every client of this crate begins with [`Connection::client_config`] and adds only what its own job needs, so that a
//! new way to log in is written down once.

use std::fmt;
use std::path::PathBuf;

use rdkafka::ClientConfig;

/// A Kafka cluster and how to log in to it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Connection {
    /// `host:port` of some of its brokers; the others are found through them.
    pub brokers: Vec<String>,
    /// Encryption, if there is any.
    pub tls: Option<Tls>,
    /// Credentials, if there are any.
    pub sasl: Option<Sasl>,
    /// What the brokers' logs and quotas call this program; `headroom` if it is empty.
    pub client_id: String,
}

/// Encryption, and the client's own certificate if the brokers ask for one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tls {
    /// PEM file of the authorities that may have signed a broker's certificate. The TLS library is linked in and knows no
    /// system-wide ones, so without a file no broker is trusted.
    pub ca_file: PathBuf,
    /// PEM file of the client's certificate chain.
    pub cert_file: Option<PathBuf>,
    /// PEM file of the certificate's key.
    pub key_file: Option<PathBuf>,
}

/// How a password is proved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mechanism {
    /// Sent as it is; only sensible over TLS.
    Plain,
    /// Challenge and response over SHA-256.
    ScramSha256,
    /// Challenge and response over SHA-512.
    ScramSha512,
}

impl Mechanism {
    /// Its name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Credentials. Their debug form leaves the password out.
#[derive(Clone, PartialEq, Eq)]
pub struct Sasl {
    /// How the password is proved.
    pub mechanism: Mechanism,
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sasl")
            .field("mechanism", &self.mechanism)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// The settings that every client of this cluster has in common.
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers.join(","));
        config.set("client.id", if self.client_id.is_empty() { "headroom" } else { &self.client_id });
        config.set(
            "security.protocol",
            match (&self.tls, &self.sasl) {
                (None, None) => "plaintext",
                (Some(_), None) => "ssl",
                (None, Some(_)) => "sasl_plaintext",
                (Some(_), Some(_)) => "sasl_ssl",
            },
        );
        if let Some(tls) = &self.tls {
            config.set("ssl.ca.location", tls.ca_file.to_string_lossy());
            if let Some(file) = &tls.cert_file {
                config.set("ssl.certificate.location", file.to_string_lossy());
            }
            if let Some(file) = &tls.key_file {
                config.set("ssl.key.location", file.to_string_lossy());
            }
        }
        if let Some(sasl) = &self.sasl {
            config.set("sasl.mechanism", sasl.mechanism.name());
            config.set("sasl.username", &sasl.username);
            config.set("sasl.password", &sasl.password);
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_follows_from_what_is_given() {
        let tls = || Some(Tls { ca_file: "/ca.pem".into(), ..Tls::default() });
        let sasl =
            || Some(Sasl { mechanism: Mechanism::ScramSha512, username: "carol".into(), password: "s3cret".into() });
        for (tls, sasl, protocol) in [
            (None, None, "plaintext"),
            (tls(), None, "ssl"),
            (None, sasl(), "sasl_plaintext"),
            (tls(), sasl(), "sasl_ssl"),
        ] {
            let connection =
                Connection { brokers: vec!["a:1".into(), "b:2".into()], tls, sasl, ..Connection::default() };
            let config = connection.client_config();
            assert_eq!(config.get("bootstrap.servers"), Some("a:1,b:2"));
            assert_eq!(config.get("security.protocol"), Some(protocol));
            assert!(!format!("{connection:?}").contains("s3cret"), "a password must not reach a log");
        }
    }
}
