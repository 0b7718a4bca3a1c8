//! The proof's plain text (the protocol's sections 3 and 7). Pure.
//!
//! The Monitor is strict here, so that a connector that strays is found by its tests: the object
//! has exactly the keys of the protocol, in its order and without spaces.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::error::{Reason, Refusal};
use crate::time::parse_rfc3339;

/// What a proof proves with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A challenge's UUID.
    Challenge(String),
    /// A resume token.
    Token(String),
}

/// A proof as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Who says so.
    pub identifier: String,
    /// With what.
    pub credential: Credential,
    /// 16 random bytes as 22 characters of base64url.
    pub nonce: String,
    /// The prover's clock.
    pub at: SystemTime,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    identifier: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    challenge_uuid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resume_token: Option<String>,
    nonce: String,
    ts: String,
}

impl Proof {
    /// Reads a decrypted proof.
    ///
    /// # Errors
    /// [`Reason::UnreadableProof`] with what is wrong about it; never with what it says.
    pub fn read(plain: &[u8]) -> Result<Self, Refusal> {
        let refused = |detail: &str| Refusal::new(Reason::UnreadableProof, detail);
        let parsed: Plain = serde_json::from_slice(plain).map_err(|_| {
            refused("the proof is not a JSON object of identifier, challenge_uuid or resume_token, nonce, ts")
        })?;
        let canonical = serde_json::to_vec(&parsed).unwrap_or_default();
        if canonical != plain {
            return Err(refused("the proof's keys are out of order, or it contains spaces"));
        }
        let credential = match (parsed.challenge_uuid, parsed.resume_token) {
            (Some(challenge), None) => Credential::Challenge(challenge),
            (None, Some(token)) => Credential::Token(token),
            _ => return Err(refused("the proof needs one of challenge_uuid and resume_token")),
        };
        let url_safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if parsed.nonce.len() != 22 || !parsed.nonce.bytes().all(url_safe) {
            return Err(refused("nonce has to be 22 characters of unpadded base64url"));
        }
        let at = parse_rfc3339(&parsed.ts)
            .ok_or_else(|| refused("ts has to be like 2026-03-11T21:00:00Z"))?;
        Ok(Self { identifier: parsed.identifier, credential, nonce: parsed.nonce, at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::rfc3339;

    const NONCE: &str = "AAAAAAAAAAAAAAAAAAAA_-";

    #[test]
    fn reads_both_kinds() {
        let text = format!(
            r#"{{"identifier":"a","challenge_uuid":"c","nonce":"{NONCE}","ts":"2026-03-11T21:00:00Z"}}"#
        );
        let proof = Proof::read(text.as_bytes()).unwrap();
        assert_eq!(proof.identifier, "a");
        assert_eq!(proof.credential, Credential::Challenge("c".into()));
        assert_eq!(rfc3339(proof.at), "2026-03-11T21:00:00Z");
        let text = text.replace("challenge_uuid", "resume_token");
        let proof = Proof::read(text.as_bytes()).unwrap();
        assert_eq!(proof.credential, Credential::Token("c".into()));
    }

    #[test]
    fn refuses_what_strays_from_the_contract() {
        let ts = "2026-03-11T21:00:00Z";
        for (wrong, why) in [
            (format!(r#"{{"identifier":"a","nonce":"{NONCE}","ts":"{ts}"}}"#), "needs one of"),
            (
                format!(
                    r#"{{"challenge_uuid":"c","identifier":"a","nonce":"{NONCE}","ts":"{ts}"}}"#
                ),
                "out of order",
            ),
            (
                format!(
                    r#"{{"identifier": "a","challenge_uuid":"c","nonce":"{NONCE}","ts":"{ts}"}}"#
                ),
                "spaces",
            ),
            (
                format!(r#"{{"identifier":"a","challenge_uuid":"c","nonce":"short","ts":"{ts}"}}"#),
                "nonce",
            ),
            (
                format!(
                    r#"{{"identifier":"a","challenge_uuid":"c","nonce":"{NONCE}","ts":"now"}}"#
                ),
                "ts has to",
            ),
            (
                format!(
                    r#"{{"identifier":"a","challenge_uuid":"c","nonce":"{NONCE}","ts":"{ts}","x":1}}"#
                ),
                "not a JSON object of",
            ),
            ("\u{0}".to_owned(), "not a JSON object of"),
        ] {
            let refusal = Proof::read(wrong.as_bytes()).unwrap_err();
            assert_eq!(refusal.reason, Reason::UnreadableProof);
            assert!(refusal.detail.contains(why), "{wrong}: {}", refusal.detail);
        }
    }
}
