//! The Monitor's RSA key: its public document (the protocol's section 2) and the opening of
//! proofs made with it (section 3).
//!
//! The timing weakness known of this RSA implementation concerns decryption, which only this
//! reference Monitor does; a Monitor that faces the internet should decrypt with another one.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rsa::pkcs1::EncodeRsaPublicKey;
use rsa::pkcs8::{EncodePublicKey, LineEnding};
use rsa::rand_core::OsRng;
use rsa::{Oaep, RsaPrivateKey};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::error::{Error, Reason, Refusal};

/// An extension a Monitor may offer (the protocol's section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// Samples over the WebSocket are acknowledged by number.
    Ack,
    /// Acceptances carry a token with which to come back.
    Resume,
    /// Heartbeats may carry up to 500 samples.
    Batch,
}

/// How the key document looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyShape {
    /// A bare `BEGIN PUBLIC KEY` PEM; it has no room for capabilities.
    Spki,
    /// A bare `BEGIN RSA PUBLIC KEY` PEM; it has no room for capabilities.
    Pkcs1,
    /// A JSON object with an SPKI PEM under this name, and the capabilities.
    Json(String),
    /// The same with a PKCS#1 PEM.
    JsonPkcs1(String),
    /// Exactly this body, whatever it is, under this content type.
    Raw {
        /// The `Content-Type`.
        content_type: String,
        /// The body.
        body: String,
    },
}

impl Default for KeyShape {
    fn default() -> Self {
        Self::Json("public_key_pem".to_owned())
    }
}

/// An RSA key with its public forms.
pub struct Key {
    private: RsaPrivateKey,
    spki: String,
    pkcs1: String,
    fingerprint: String,
}

impl Key {
    /// Takes a private key over.
    ///
    /// # Errors
    /// When its public half cannot be encoded.
    pub fn new(private: RsaPrivateKey) -> Result<Self, Error> {
        let failed = |cause: &dyn std::fmt::Display| Error::Key(cause.to_string());
        let public = private.to_public_key();
        let der = public.to_public_key_der().map_err(|cause| failed(&cause))?;
        Ok(Self {
            spki: public.to_public_key_pem(LineEnding::LF).map_err(|cause| failed(&cause))?,
            pkcs1: public.to_pkcs1_pem(LineEnding::LF).map_err(|cause| failed(&cause))?,
            fingerprint: hex(&Sha256::digest(der.as_bytes())),
            private,
        })
    }

    /// Makes a fresh key; takes up to seconds of processor time.
    ///
    /// # Errors
    /// When the system generator fails or the size is not one RSA can have.
    pub fn generate(bits: usize) -> Result<RsaPrivateKey, Error> {
        RsaPrivateKey::new(&mut OsRng, bits)
            .map_err(|cause| Error::Key(format!("making one of {bits} bits: {cause}")))
    }

    /// The SPKI PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.spki
    }

    /// Hex SHA-256 of the SPKI DER: what `public_key_sha256` pins.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The key document: content type and body.
    #[must_use]
    pub fn document(
        &self,
        shape: &KeyShape,
        capabilities: &BTreeSet<Capability>,
    ) -> (String, String) {
        let pem_type = "application/x-pem-file".to_owned();
        let object = |field: &str, pem: &str| {
            let mut object = json!({ field: pem });
            if let Some(map) = object.as_object_mut().filter(|_| !capabilities.is_empty()) {
                map.insert("capabilities".to_owned(), json!(capabilities));
            }
            ("application/json".to_owned(), object.to_string())
        };
        match shape {
            KeyShape::Spki => (pem_type, self.spki.clone()),
            KeyShape::Pkcs1 => (pem_type, self.pkcs1.clone()),
            KeyShape::Json(field) => object(field, &self.spki),
            KeyShape::JsonPkcs1(field) => object(field, &self.pkcs1),
            KeyShape::Raw { content_type, body } => (content_type.clone(), body.clone()),
        }
    }

    /// Opens an `encrypted_payload`: the proof's plain text.
    ///
    /// # Errors
    /// [`Reason::UnreadableProof`] when it is not padded standard base64 or was not encrypted for
    /// this key with RSA-OAEP, SHA-256 for the hash and for MGF1, and an empty label.
    pub fn open(&self, encrypted_payload: &str) -> Result<Vec<u8>, Refusal> {
        let refused = |detail: &str| Refusal::new(Reason::UnreadableProof, detail);
        let cipher = STANDARD
            .decode(encrypted_payload)
            .map_err(|_| refused("encrypted_payload is not base64 (standard, padded)"))?;
        self.private.decrypt(Oaep::new::<Sha256>(), &cipher).map_err(|_| {
            refused("encrypted_payload does not decrypt: it was made for another key, or not with RSA-OAEP and SHA-256")
        })
    }
}

/// Lower-case hex.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A 2048-bit key made once per process, for tests that start many Monitors.
///
/// # Panics
/// When the system generator fails: a test cannot go on without a key.
#[must_use]
pub fn test_key() -> RsaPrivateKey {
    static KEY: OnceLock<RsaPrivateKey> = OnceLock::new();
    or_panic(cached(&KEY))
}

/// A second such key: the wrong one.
///
/// # Panics
/// As [`test_key`].
#[must_use]
pub fn other_test_key() -> RsaPrivateKey {
    or_panic(wrong_key())
}

/// The key that a Monitor shows by mistake, made once per process.
pub(crate) fn wrong_key() -> Result<RsaPrivateKey, Error> {
    static KEY: OnceLock<RsaPrivateKey> = OnceLock::new();
    cached(&KEY)
}

fn cached(key: &OnceLock<RsaPrivateKey>) -> Result<RsaPrivateKey, Error> {
    if let Some(key) = key.get() {
        return Ok(key.clone());
    }
    let fresh = Key::generate(2048)?;
    Ok(key.get_or_init(|| fresh).clone())
}

#[allow(
    clippy::panic,
    reason = "for tests alone, where a system generator that fails has no other mend"
)]
fn or_panic(key: Result<RsaPrivateKey, Error>) -> RsaPrivateKey {
    key.unwrap_or_else(|cause| panic!("{cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_carries_the_key() {
        let key = Key::new(test_key()).unwrap();
        let all = BTreeSet::from([Capability::Batch, Capability::Ack, Capability::Resume]);
        let none = BTreeSet::new();
        assert!(key.document(&KeyShape::Spki, &all).1.starts_with("-----BEGIN PUBLIC KEY-----"));
        assert!(
            key.document(&KeyShape::Pkcs1, &all).1.starts_with("-----BEGIN RSA PUBLIC KEY-----")
        );
        let (kind, body) = key.document(&KeyShape::Json("key".into()), &all);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(kind, "application/json");
        assert_eq!(body["key"], key.pem());
        assert_eq!(body["capabilities"], json!(["ack", "resume", "batch"]));
        let (_, body) = key.document(&KeyShape::default(), &none);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body, json!({"public_key_pem": key.pem()}));
    }

    #[test]
    fn opens_what_was_made_for_it_and_nothing_else() {
        let key = Key::new(test_key()).unwrap();
        let made = |key: &RsaPrivateKey| {
            let public = key.to_public_key();
            let cipher = public.encrypt(&mut OsRng, Oaep::new::<Sha256>(), b"hello").unwrap();
            STANDARD.encode(cipher)
        };
        assert_eq!(key.open(&made(&test_key())).unwrap(), b"hello");
        for wrong in [made(&other_test_key()), "%%%".to_owned(), String::new(), "aGk=".to_owned()] {
            assert_eq!(key.open(&wrong).unwrap_err().reason, Reason::UnreadableProof);
        }
    }
}
