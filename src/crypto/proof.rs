//! The proof (docs/PROTOCOL.md 3): that the connector holds its challenge or resume token,
//! encrypted for the Monitor's key alone.
//!
//! Invariants:
//! - The plain text is `{"identifier":I,"challenge_uuid":C,"nonce":N,"ts":T}`, or the same with
//!   `"resume_token":R` for the challenge: this order, no spaces.
//! - Every proof has a nonce of its own, 16 bytes of the system's generator.
//! - An identifier that leaves no room is an error that names the limit; nothing is truncated.
//! - The plain text is written once into a buffer that is never moved to a larger one, and wiped.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rsa::rand_core::{CryptoRngCore, OsRng};
use rsa::traits::PublicKeyParts as _;
use rsa::{Oaep, RsaPublicKey};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::document::KeyDocument;
use super::timestamp::rfc3339;

/// Random bytes in a nonce.
const NONCE_BYTES: usize = 16;
/// Characters of a challenge: a UUID's.
const CHALLENGE_CHARS: usize = 36;
/// Bytes that OAEP with SHA-256 takes of the modulus: two hashes and two bytes (RFC 8017 7.1.1).
const OAEP_OVERHEAD: usize = 2 * 32 + 2;

/// What the proof proves the possession of.
#[derive(Debug, Clone, Copy)]
pub enum Credential<'a> {
    /// The challenge the operator was given.
    Challenge(&'a SecretString),
    /// The token of the last acceptance.
    ResumeToken(&'a SecretString),
}

impl Credential<'_> {
    /// Its name in the proof.
    fn name(&self) -> &'static str {
        match self {
            Self::Challenge(_) => "challenge_uuid",
            Self::ResumeToken(_) => "resume_token",
        }
    }

    fn secret(&self) -> &str {
        match self {
            Self::Challenge(secret) | Self::ResumeToken(secret) => secret.expose_secret(),
        }
    }
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The identifier leaves no room for the rest.
    #[error(
        "identifier takes {found} bytes in the proof; the Monitor's key of {bits} bits leaves room for {room}: choose a shorter identifier"
    )]
    IdentifierTooLong {
        /// Bytes it takes as JSON, without the quotes.
        found: usize,
        /// Bytes there are for it.
        room: usize,
        /// Bits of the key.
        bits: usize,
    },
    /// The credential is too long for any identifier.
    #[error(
        "{name} takes {found} bytes: it does not fit a proof for the Monitor's key of {bits} bits"
    )]
    CredentialTooLong {
        /// `challenge_uuid` or `resume_token`.
        name: &'static str,
        /// Bytes it takes as JSON, without the quotes.
        found: usize,
        /// Bits of the key.
        bits: usize,
    },
    /// A time that RFC 3339 cannot write.
    #[error("the clock shows a time outside the years 1970 to 9999: set this machine's clock")]
    Clock,
    /// The system gives no random bytes.
    #[error("the system's random generator does not answer")]
    Random {
        /// Its error.
        #[source]
        source: getrandom::Error,
    },
    /// The identifier or credential cannot be written as JSON, or the encryption failed.
    #[error("the proof cannot be made")]
    Failed {
        /// The library's words.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Bytes of plain text a key of so many bits can carry: 190 for 2048 bits.
#[must_use]
pub fn proof_bytes(key_bits: usize) -> usize {
    key_bits.div_ceil(8).saturating_sub(OAEP_OVERHEAD)
}

/// Bytes an identifier may take as JSON, without its quotes, in a proof with a challenge: 56 for
/// a key of 2048 bits.
#[must_use]
pub fn room_for_identifier(key_bits: usize) -> usize {
    proof_bytes(key_bits).saturating_sub(frame_bytes("challenge_uuid") + CHALLENGE_CHARS)
}

/// Checks that an identifier fits a proof for a key of so many bits, with a challenge of the
/// proper length. For the configuration's check, before there is a proof to make.
///
/// # Errors
/// [`ProofError::IdentifierTooLong`].
pub fn check_identifier(key_bits: usize, identifier: &str) -> Result<(), ProofError> {
    let found = json_bytes(identifier)?.len().saturating_sub(2);
    let room = room_for_identifier(key_bits);
    if found > room {
        return Err(ProofError::IdentifierTooLong { found, room, bits: key_bits });
    }
    Ok(())
}

/// Makes a proof for the key: the `encrypted_payload`, base64 with padding.
///
/// `at` is the Monitor's time, as well as it is known.
///
/// # Errors
/// The identifier or the credential is too long, the time cannot be written, or the system gives
/// no random bytes.
pub fn prove(
    document: &KeyDocument,
    identifier: &str,
    credential: Credential<'_>,
    at: SystemTime,
) -> Result<String, ProofError> {
    let mut nonce = [0_u8; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|source| ProofError::Random { source })?;
    // OsRng has no way to report an error; it asks the same generator, which has just answered.
    prove_with(&document.key, identifier, credential, at, nonce, &mut OsRng)
}

fn prove_with(
    key: &RsaPublicKey,
    identifier: &str,
    credential: Credential<'_>,
    at: SystemTime,
    nonce: [u8; NONCE_BYTES],
    rng: &mut impl CryptoRngCore,
) -> Result<String, ProofError> {
    let plain = plain_text(key.n().bits(), identifier, credential, at, nonce)?;
    let padding = Oaep::new_with_mgf_hash::<Sha256, Sha256>();
    let encrypted = key
        .encrypt(rng, padding, &plain)
        .map_err(|error| ProofError::Failed { source: Box::new(error) })?;
    Ok(STANDARD.encode(encrypted))
}

/// The plain text, at most as long as the key can carry.
fn plain_text(
    bits: usize,
    identifier: &str,
    credential: Credential<'_>,
    at: SystemTime,
    nonce: [u8; NONCE_BYTES],
) -> Result<Zeroizing<Vec<u8>>, ProofError> {
    let name = credential.name();
    let at = rfc3339(at).ok_or(ProofError::Clock)?;
    let identifier = json_bytes(identifier)?;
    let secret = json_bytes(credential.secret())?;
    // Room for the identifier between its quotes, if the secret leaves any.
    let taken = frame_bytes(name) + secret.len().saturating_sub(2);
    let Some(room) = proof_bytes(bits).checked_sub(taken) else {
        let found = secret.len().saturating_sub(2);
        return Err(ProofError::CredentialTooLong { name, found, bits });
    };
    let found = identifier.len().saturating_sub(2);
    if found > room {
        return Err(ProofError::IdentifierTooLong { found, room, bits });
    }
    let mut plain = Zeroizing::new(Vec::with_capacity(taken + found));
    plain.extend_from_slice(b"{\"identifier\":");
    plain.extend_from_slice(&identifier);
    plain.extend_from_slice(b",\"");
    plain.extend_from_slice(name.as_bytes());
    plain.extend_from_slice(b"\":");
    plain.extend_from_slice(&secret);
    plain.extend_from_slice(b",\"nonce\":\"");
    plain.extend_from_slice(URL_SAFE_NO_PAD.encode(nonce).as_bytes());
    plain.extend_from_slice(b"\",\"ts\":\"");
    plain.extend_from_slice(at.as_bytes());
    plain.extend_from_slice(b"\"}");
    Ok(plain)
}

/// Bytes of a proof without what stands between the quotes of identifier and credential.
fn frame_bytes(name: &str) -> usize {
    const FRAME: &str =
        r#"{"identifier":"","":"","nonce":"0123456789012345678901","ts":"2026-03-11T21:00:00Z"}"#;
    FRAME.len() + name.len()
}

/// A text as JSON, quotes included, in a buffer that is wiped and large enough from the start:
/// JSON makes at most six bytes of one.
fn json_bytes(text: &str) -> Result<Zeroizing<Vec<u8>>, ProofError> {
    let mut json = Zeroizing::new(Vec::with_capacity(text.len() * 6 + 2));
    serde_json::to_writer(&mut *json, text)
        .map_err(|error| ProofError::Failed { source: Box::new(error) })?;
    Ok(json)
}

#[cfg(test)]
#[path = "proof_tests.rs"]
mod tests;
