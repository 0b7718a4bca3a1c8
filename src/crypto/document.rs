//! The key document (docs/PROTOCOL.md 2): the Monitor's RSA key and what it offers.
//!
//! Invariants:
//! - The document is a bare PEM text or a JSON object; nothing is guessed from other texts.
//! - Every refusal says what was found and what is expected, quoting at most
//!   [`MAX_QUOTE`] characters, escaped: the document comes from the network and goes to the log.
//! - Capabilities are an offer: one that is not understood is one not taken, never a refusal.

use rsa::pkcs1;
use rsa::pkcs8::der::Decode as _;
use rsa::pkcs8::{EncodePublicKey as _, SubjectPublicKeyInfoRef};
use rsa::traits::PublicKeyParts as _;
use rsa::{BigUint, RsaPublicKey};
use serde_json::Value;

use super::pem;
use super::pin::Fingerprint;
use crate::protocol::{Capabilities, MAX_ANSWER};

/// Bits the key must have at least (docs/PROTOCOL.md 2).
const MIN_BITS: usize = 2048;
/// Bits the key may have at most (docs/PROTOCOL.md 2).
const MAX_BITS: usize = 4096;
/// Characters of a document that an error quotes.
const MAX_QUOTE: usize = 40;
/// JSON keys that may hold the PEM, in the order they are looked at (docs/PROTOCOL.md 2).
const PEM_KEYS: [&str; 3] = ["public_key_pem", "public_key", "key"];

/// A key document that was understood and accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDocument {
    /// The Monitor's key.
    pub key: RsaPublicKey,
    /// SHA-256 of the key as SPKI DER.
    pub fingerprint: Fingerprint,
    /// Bits of the modulus, 2048 to 4096.
    pub bits: usize,
    /// What the Monitor offers.
    pub capabilities: Capabilities,
}

/// Why a key document is refused.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Larger than allowed.
    #[error("the key document has {found} bytes; at most {MAX_ANSWER} are read")]
    TooLarge {
        /// Bytes it has.
        found: usize,
    },
    /// Not text.
    #[error("the key document is not text: a PEM key, or JSON with one, is expected")]
    NotText {
        /// Where it stops being UTF-8.
        #[source]
        source: std::str::Utf8Error,
    },
    /// Nothing in it.
    #[error("the key document is empty: a PEM key, or JSON with one, is expected")]
    Empty,
    /// Begins like JSON and is none.
    #[error("the key document is broken JSON")]
    BrokenJson {
        /// The parser's words.
        #[source]
        source: serde_json::Error,
    },
    /// A JSON object without a key.
    #[error(
        "the key document has no key: one of public_key_pem, public_key, key is expected, found {found}"
    )]
    NoKey {
        /// The names it has.
        found: String,
    },
    /// The key's value is no string.
    #[error("{name} in the key document is {found}: a string with a PEM key is expected")]
    KeyNotText {
        /// The name it stands under.
        name: &'static str,
        /// Its JSON type.
        found: &'static str,
    },
    /// Neither JSON nor PEM.
    #[error(
        "the key document begins with \"{found}\": a PEM key (-----BEGIN PUBLIC KEY-----), or JSON with one, is expected; is backend_url the Monitor's?"
    )]
    Neither {
        /// Its beginning.
        found: String,
    },
    /// The JSON string holds no PEM.
    #[error("no PEM key found: -----BEGIN PUBLIC KEY----- is expected")]
    NoPem,
    /// More than one PEM block: which one counts cannot be known.
    #[error("{found} PEM blocks found: exactly one, the public key, is expected")]
    SeveralBlocks {
        /// How many.
        found: usize,
    },
    /// A PEM block that does not end.
    #[error("the PEM block {label} has no end: -----END {label}----- is expected")]
    NoEnd {
        /// Its label.
        label: String,
    },
    /// What stands between the markers is not base64.
    #[error("the PEM key is not base64 between its markers")]
    NotBase64 {
        /// Where it departs from base64.
        #[source]
        source: base64::DecodeError,
    },
    /// The private key was published.
    #[error(
        "the Monitor publishes a PRIVATE key ({label}): it is compromised and must be replaced; BEGIN PUBLIC KEY is expected"
    )]
    PrivateKey {
        /// The block's label.
        label: String,
    },
    /// Some other PEM block.
    #[error("the PEM block is {label}: PUBLIC KEY or RSA PUBLIC KEY is expected")]
    WrongLabel {
        /// The block's label.
        label: String,
    },
    /// A key, but not RSA's.
    #[error("the key is of the algorithm {oid}: RSA (1.2.840.113549.1.1.1) is expected")]
    NotRsa {
        /// Its algorithm's object identifier.
        oid: String,
    },
    /// The DER inside is broken.
    #[error("the PEM block {label} does not hold a well-formed RSA public key")]
    Malformed {
        /// The block's label.
        label: String,
        /// The decoder's words.
        #[source]
        source: Option<der::Error>,
    },
    /// Too short to be safe, or too long to be used.
    #[error("the RSA key has {bits} bits: {MIN_BITS} to {MAX_BITS} are expected")]
    Bits {
        /// Its bits.
        bits: usize,
    },
    /// An exponent or modulus that makes no key.
    #[error("the RSA key is not sane: {what}")]
    NotSane {
        /// What is wrong with it.
        what: &'static str,
    },
}

impl KeyError {
    /// Whether the document is one and the fault is the key's: else something else answers in its
    /// place.
    #[must_use]
    pub fn is_of_the_key(&self) -> bool {
        match self {
            Self::TooLarge { .. }
            | Self::NotText { .. }
            | Self::Empty
            | Self::BrokenJson { .. }
            | Self::NoKey { .. }
            | Self::KeyNotText { .. }
            | Self::Neither { .. } => false,
            Self::NoPem
            | Self::SeveralBlocks { .. }
            | Self::NoEnd { .. }
            | Self::NotBase64 { .. }
            | Self::PrivateKey { .. }
            | Self::WrongLabel { .. }
            | Self::NotRsa { .. }
            | Self::Malformed { .. }
            | Self::Bits { .. }
            | Self::NotSane { .. } => true,
        }
    }
}

impl KeyDocument {
    /// Reads a key document.
    ///
    /// # Errors
    /// [`KeyError`] says what was found and what is expected.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() > MAX_ANSWER {
            return Err(KeyError::TooLarge { found: bytes.len() });
        }
        let text = std::str::from_utf8(bytes).map_err(|source| KeyError::NotText { source })?;
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        if text.starts_with('{') {
            return Self::from_json(text);
        }
        // A marker inside a line is no PEM: a JSON string or a web page may quote one.
        if text.split(['\n', '\r']).any(|line| line.trim_start().starts_with("-----BEGIN ")) {
            return Self::from_pem(text, Capabilities::default());
        }
        Err(KeyError::Neither { found: quote(text) })
    }

    fn from_json(text: &str) -> Result<Self, KeyError> {
        let json: Value =
            serde_json::from_str(text).map_err(|source| KeyError::BrokenJson { source })?;
        let named = |name: &'static str| Some((name, json.get(name)?));
        let with_value = |name| named(name).filter(|(_, value)| !value.is_null());
        let found = PEM_KEYS.into_iter().find_map(with_value);
        let Some((name, value)) = found.or_else(|| PEM_KEYS.into_iter().find_map(named)) else {
            let names = json.as_object().into_iter().flat_map(|object| object.keys());
            let names: Vec<&str> = names.map(String::as_str).collect();
            let found = if names.is_empty() { "none".to_owned() } else { quote(&names.join(", ")) };
            return Err(KeyError::NoKey { found });
        };
        let Value::String(pem) = value else {
            return Err(KeyError::KeyNotText { name, found: type_name(value) });
        };
        Self::from_pem(pem, capabilities(json.get("capabilities")))
    }

    fn from_pem(text: &str, capabilities: Capabilities) -> Result<Self, KeyError> {
        let pem::Block { label, der } = pem::only_block(text)?;
        let (modulus, exponent) = match label.as_str() {
            "PUBLIC KEY" => spki(&label, &der)?,
            "RSA PUBLIC KEY" => pkcs1_parts(&label, &der)?,
            _ if label.contains("PRIVATE KEY") => return Err(KeyError::PrivateKey { label }),
            _ => return Err(KeyError::WrongLabel { label }),
        };
        let key = checked(modulus, exponent)?;
        let bits = key.n().bits();
        let der =
            key.to_public_key_der().map_err(|_| KeyError::Malformed { label, source: None })?;
        Ok(Self { fingerprint: Fingerprint::of_spki(der.as_bytes()), key, bits, capabilities })
    }
}

fn spki(label: &str, der: &[u8]) -> Result<(BigUint, BigUint), KeyError> {
    let malformed = |source| KeyError::Malformed { label: label.to_owned(), source };
    let spki = SubjectPublicKeyInfoRef::from_der(der).map_err(|error| malformed(Some(error)))?;
    if spki.algorithm.oid != pkcs1::ALGORITHM_OID {
        return Err(KeyError::NotRsa { oid: spki.algorithm.oid.to_string() });
    }
    let inner = spki.subject_public_key.as_bytes().ok_or_else(|| malformed(None))?;
    pkcs1_parts(label, inner)
}

fn pkcs1_parts(label: &str, der: &[u8]) -> Result<(BigUint, BigUint), KeyError> {
    let key = pkcs1::RsaPublicKey::from_der(der)
        .map_err(|error| KeyError::Malformed { label: label.to_owned(), source: Some(error) })?;
    Ok((
        BigUint::from_bytes_be(key.modulus.as_bytes()),
        BigUint::from_bytes_be(key.public_exponent.as_bytes()),
    ))
}

fn checked(modulus: BigUint, exponent: BigUint) -> Result<RsaPublicKey, KeyError> {
    let bits = modulus.bits();
    if !(MIN_BITS..=MAX_BITS).contains(&bits) {
        return Err(KeyError::Bits { bits });
    }
    let odd = |number: &BigUint| number.to_bytes_le().first().is_some_and(|byte| byte % 2 == 1);
    if !odd(&modulus) {
        return Err(KeyError::NotSane { what: "its modulus is even" });
    }
    if exponent < BigUint::from(3_u8) || !odd(&exponent) {
        return Err(KeyError::NotSane {
            what: "its public exponent is even or below 3; 65537 is customary",
        });
    }
    // The library's own bounds, above all that on the exponent's size.
    RsaPublicKey::new_with_max_size(modulus, exponent, MAX_BITS)
        .map_err(|_| KeyError::NotSane { what: "its public exponent is too large" })
}

fn capabilities(value: Option<&Value>) -> Capabilities {
    let offered = value.and_then(Value::as_array).into_iter().flatten();
    Capabilities::from_names(offered.filter_map(Value::as_str))
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The beginning of a text, safe to print.
fn quote(text: &str) -> String {
    let mut quoted: String = text.chars().take(MAX_QUOTE).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_QUOTE).is_some() {
        quoted.push_str("...");
    }
    quoted
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
