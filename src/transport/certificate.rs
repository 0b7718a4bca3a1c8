//! What a server's certificate says of itself, for messages: names and dates. Pure.
//!
//! Nothing is decided by it: whether a certificate is trusted is the TLS library's to say.
//! Invariant: texts taken from a certificate are free of control characters and bounded.

use std::fmt;
use std::time::SystemTime;

use der::asn1::{AnyRef, GeneralizedTime, ObjectIdentifier, UtcTime};
use der::{Decode as _, Reader, SliceReader, Tag, Tagged as _};

use crate::crypto::rfc3339;

/// Characters of a name that are shown.
const MAX_NAME: usize = 200;

/// Names and dates of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whom it is for, such as `CN=monitor.example`.
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// Not valid before.
    pub begins: SystemTime,
    /// Not valid after.
    pub ends: SystemTime,
}

impl Certificate {
    /// Reads a certificate in DER; `None` when it is none that can be read.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let outer = AnyRef::from_der(der).ok()?;
        outer.tag().assert_eq(Tag::Sequence).ok()?;
        let mut outer = SliceReader::new(outer.value()).ok()?;
        // RFC 5280, 4.1: what is signed comes first; the rest is of no use here.
        let signed = AnyRef::decode(&mut outer).ok()?;
        signed.tag().assert_eq(Tag::Sequence).ok()?;
        let mut signed = SliceReader::new(signed.value()).ok()?;
        if signed.peek_tag().ok()?.is_context_specific() {
            let _version = AnyRef::decode(&mut signed).ok()?;
        }
        let _serial = AnyRef::decode(&mut signed).ok()?;
        let _algorithm = AnyRef::decode(&mut signed).ok()?;
        let issuer = name(AnyRef::decode(&mut signed).ok()?)?;
        let validity = AnyRef::decode(&mut signed).ok()?;
        let subject = name(AnyRef::decode(&mut signed).ok()?)?;
        let mut validity = SliceReader::new(validity.value()).ok()?;
        let (begins, ends) = (time(&mut validity)?, time(&mut validity)?);
        Some(Self { subject, issuer, begins, ends })
    }

    /// Whether it names itself as its issuer.
    #[must_use]
    pub fn is_self_signed(&self) -> bool {
        self.subject == self.issuer
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = |at| rfc3339(at).unwrap_or_else(|| "an impossible time".to_owned());
        let (begins, ends) = (day(self.begins), day(self.ends));
        let Self { subject, issuer, .. } = self;
        write!(f, "certificate of {subject}, issued by {issuer}, valid from {begins} to {ends}")
    }
}

fn time<'a>(reader: &mut SliceReader<'a>) -> Option<SystemTime> {
    let since = if reader.peek_tag().ok()? == Tag::GeneralizedTime {
        GeneralizedTime::decode(reader).ok()?.to_unix_duration()
    } else {
        UtcTime::decode(reader).ok()?.to_unix_duration()
    };
    SystemTime::UNIX_EPOCH.checked_add(since)
}

/// A distinguished name as `CN=.., O=..`, in the order it has.
fn name(value: AnyRef<'_>) -> Option<String> {
    let mut parts = Vec::new();
    let mut sets = SliceReader::new(value.value()).ok()?;
    while !sets.is_finished() {
        let set = AnyRef::decode(&mut sets).ok()?;
        let mut set = SliceReader::new(set.value()).ok()?;
        while !set.is_finished() {
            let pair = AnyRef::decode(&mut set).ok()?;
            let mut pair = SliceReader::new(pair.value()).ok()?;
            let kind = ObjectIdentifier::decode(&mut pair).ok()?;
            let value = AnyRef::decode(&mut pair).ok()?;
            parts.push(format!("{}={}", short(kind), String::from_utf8_lossy(value.value())));
        }
    }
    if parts.is_empty() {
        return Some("nobody".to_owned());
    }
    let shown = parts.join(", ");
    let cut = shown.chars().take(MAX_NAME);
    Some(cut.map(|c| if c.is_control() { '?' } else { c }).collect())
}

/// The usual abbreviation (RFC 4514, 3).
fn short(kind: ObjectIdentifier) -> String {
    let kind = kind.to_string();
    match kind.as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        other => other,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    #[test]
    fn names_and_dates_are_read_in_both_forms_of_time() {
        for (from, to, says) in [
            (2020, 2021, "valid from 2020-01-01T00:00:00Z to 2021-01-01T00:00:00Z"),
            // From 2050 on a certificate writes its times in another form.
            (2049, 4000, "valid from 2049-01-01T00:00:00Z to 4000-01-01T00:00:00Z"),
        ] {
            let mut parameters =
                CertificateParams::new(vec!["monitor.example".to_owned()]).unwrap();
            parameters.distinguished_name.push(DnType::CommonName, "mon\u{1b}itor");
            parameters.distinguished_name.push(DnType::OrganizationName, "Größe & Co");
            parameters.not_before = date_time_ymd(from, 1, 1);
            parameters.not_after = date_time_ymd(to, 1, 1);
            let made = parameters.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let read = Certificate::read(made.der()).unwrap();
            assert!(read.is_self_signed());
            for part in ["CN=mon?itor", "O=Größe & Co"] {
                assert!(read.subject.contains(part), "{read}");
            }
            assert!(read.to_string().ends_with(says), "{read}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_none_and_never_a_panic() {
        let made = CertificateParams::new(Vec::new())
            .unwrap()
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap();
        let der: &[u8] = made.der();
        for cut in 0..der.len() {
            assert_eq!(Certificate::read(&der[..cut]), None, "{cut}");
        }
        // Whatever a flipped byte makes of it: an answer.
        for at in 0..der.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut broken = der.to_vec();
                broken[at] ^= flip;
                let _ = Certificate::read(&broken).map(|read| read.to_string());
            }
        }
    }
}
