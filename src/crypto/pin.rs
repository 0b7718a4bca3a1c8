//! Whether a key is the right one: its fingerprint against the pinned or the remembered one
//! (docs/PROTOCOL.md 2).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// SHA-256 of a public key as SPKI DER; 64 lower-case hexadecimal digits in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

/// A text that is no fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found} is not a SHA-256 fingerprint: 64 hexadecimal digits are expected (openssl pkey -pubin -in key.pem -outform DER | sha256sum)"
)]
pub struct FingerprintError {
    /// What is wrong with it, in words: it is not repeated, since it may be anything.
    found: String,
}

impl Fingerprint {
    /// The fingerprint of a key given as SPKI DER.
    #[must_use]
    pub fn of_spki(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl From<[u8; 32]> for Fingerprint {
    fn from(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// Reads 64 hexadecimal digits of either case; colons between them, as some tools print
    /// them, and a `sha256:` before them are left out.
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let text = text.trim();
        let lower = text.to_ascii_lowercase();
        let digits = lower.strip_prefix("sha256:").unwrap_or(&lower).replace(':', "");
        let wrong = |found: String| FingerprintError { found };
        let values: Option<Vec<u8>> = digits
            .chars()
            .map(|digit| digit.to_digit(16).and_then(|value| u8::try_from(value).ok()))
            .collect();
        let values = values.ok_or_else(|| wrong("a text with other characters".to_owned()))?;
        let count = values.len();
        let bytes: Vec<u8> = values
            .chunks_exact(2)
            .filter_map(|pair| match pair {
                [high, low] => Some(high * 16 + low),
                _ => None,
            })
            .collect();
        match <[u8; 32]>::try_from(bytes) {
            Ok(bytes) if count == 64 => Ok(Self(bytes)),
            Ok(_) | Err(_) => Err(wrong(format!("a text of {count} digits"))),
        }
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = FingerprintError;

    fn try_from(text: String) -> Result<Self, FingerprintError> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

/// What to do with a key that was just seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Use it, and remember it.
    Accept,
    /// Use it and remember it, and warn: another one was remembered.
    AcceptChanged {
        /// The one remembered.
        old: Fingerprint,
        /// The one seen.
        new: Fingerprint,
    },
    /// Do not use it: another one is pinned.
    Refuse {
        /// The one pinned (`public_key_sha256`).
        pinned: Fingerprint,
        /// The one seen.
        seen: Fingerprint,
    },
}

/// Judges a key by its fingerprint. A pin decides alone; without one the first key is accepted,
/// and a later change too, with a warning.
#[must_use]
pub fn judge(
    seen: Fingerprint,
    pinned: Option<Fingerprint>,
    remembered: Option<Fingerprint>,
) -> Verdict {
    match (pinned, remembered) {
        (Some(pinned), _) if pinned != seen => Verdict::Refuse { pinned, seen },
        (None, Some(old)) if old != seen => Verdict::AcceptChanged { old, new: seen },
        (Some(_) | None, _) => Verdict::Accept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_decides_alone_and_a_change_is_told() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|der| Fingerprint::of_spki(der));
        for (pinned, remembered, verdict) in [
            (None, None, Verdict::Accept),
            (None, Some(a), Verdict::Accept),
            (None, Some(b), Verdict::AcceptChanged { old: b, new: a }),
            (Some(a), None, Verdict::Accept),
            (Some(a), Some(a), Verdict::Accept),
            (Some(a), Some(b), Verdict::Accept),
            (Some(b), None, Verdict::Refuse { pinned: b, seen: a }),
            (Some(b), Some(a), Verdict::Refuse { pinned: b, seen: a }),
            (Some(b), Some(c), Verdict::Refuse { pinned: b, seen: a }),
        ] {
            assert_eq!(judge(a, pinned, remembered), verdict, "{pinned:?} {remembered:?}");
        }
    }

    #[test]
    fn fingerprints_are_read_in_the_forms_tools_print() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let expected = Fingerprint::of_spki(b"abc");
        assert_eq!(expected.to_string(), hex);
        let colons: Vec<String> =
            hex.as_bytes().chunks(2).map(|c| String::from_utf8_lossy(c).into_owned()).collect();
        for form in
            [hex.to_owned(), hex.to_uppercase(), format!(" SHA256:{hex}\n"), colons.join(":")]
        {
            assert_eq!(form.parse(), Ok(expected), "{form}");
        }
        for bad in [
            "",
            "ab",
            &hex[1..],
            &format!("{hex}0"),
            &format!("{hex}00"),
            &hex.replace('b', "x"),
            &hex.replace('b', "ü"),
        ] {
            let error = bad.parse::<Fingerprint>().unwrap_err().to_string();
            assert!(error.contains("64 hexadecimal digits"), "{error}");
        }
        let json = serde_json::to_string(&expected).unwrap();
        assert_eq!(json, format!("\"{hex}\""));
        assert_eq!(serde_json::from_str::<Fingerprint>(&json).unwrap(), expected);
        assert!(serde_json::from_str::<Fingerprint>("\"00\"").is_err());
    }
}
