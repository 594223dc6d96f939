//! The names in a client's certificate. The handshake has checked the certificate; here it is only read out.

use std::sync::Arc;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Names kept of one certificate: some authorities issue lists of hundreds.
const NAMES_MAX: usize = 64;

/// Who a certificate says its holder is: the subject's common name, then the DNS, URI and e-mail alternative names.
/// All of them are attested by the authority that the operator configured, so any of them may name a caller.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CertificateNames(Arc<[Arc<str>]>);

impl CertificateNames {
    /// The names in a DER certificate; none if it cannot be read.
    pub fn of(der: &[u8]) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Self::default() };
        let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        let alternatives = alternatives.iter().flat_map(|extension| &extension.value.general_names);
        let alternatives = alternatives.filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => Some(*name),
            _ => None,
        });
        Self(common.chain(alternatives).filter(|name| !name.is_empty()).take(NAMES_MAX).map(Arc::from).collect())
    }

    /// These names.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self(names.into_iter().map(Arc::from).collect())
    }

    /// All names, the common name first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter()
    }
}

/// When a DER certificate ends, in Unix seconds.
pub(crate) fn not_after(der: &[u8]) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}
