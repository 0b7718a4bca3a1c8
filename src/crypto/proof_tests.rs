//! The proof's text, its limits, and what becomes of it.

use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use rsa::RsaPrivateKey;
use rsa::pkcs8::EncodePublicKey as _;

use super::*;

const NONCE: [u8; 16] = [0xfb, 0xff, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// One key for all tests: making one takes a while.
static PRIVATE: LazyLock<RsaPrivateKey> =
    LazyLock::new(|| RsaPrivateKey::new(&mut OsRng, 2048).unwrap());

fn document() -> KeyDocument {
    let pem = PRIVATE.to_public_key().to_public_key_pem(rsa::pkcs8::LineEnding::LF).unwrap();
    KeyDocument::parse(pem.as_bytes()).unwrap()
}

fn at() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_773_262_800_999)
}

fn challenge() -> SecretString {
    SecretString::from("3f2b8c1e-aaaa-4bbb-8ccc-0123456789ab")
}

fn text(identifier: &str, credential: Credential<'_>) -> Result<String, ProofError> {
    plain_text(2048, identifier, credential, at(), NONCE)
        .map(|plain| String::from_utf8(plain.to_vec()).unwrap())
}

fn decrypted(payload: &str) -> String {
    let padding = Oaep::new_with_mgf_hash::<Sha256, Sha256>();
    let plain = PRIVATE.decrypt(padding, &STANDARD.decode(payload).unwrap()).unwrap();
    String::from_utf8(plain).unwrap()
}

#[test]
fn the_text_is_the_protocols_to_the_byte() {
    assert_eq!(
        text("vps.t1", Credential::Challenge(&challenge())).unwrap(),
        r#"{"identifier":"vps.t1","challenge_uuid":"3f2b8c1e-aaaa-4bbb-8ccc-0123456789ab","nonce":"-_8CAwQFBgcICQoLDA0ODw","ts":"2026-03-11T21:00:00Z"}"#
    );
    assert_eq!(
        text("a\"\\\u{1}ü", Credential::ResumeToken(&SecretString::from("r\"1"))).unwrap(),
        r#"{"identifier":"a\"\\\u0001ü","resume_token":"r\"1","nonce":"-_8CAwQFBgcICQoLDA0ODw","ts":"2026-03-11T21:00:00Z"}"#
    );
}

#[test]
fn the_room_is_what_oaep_leaves() {
    for (bits, bytes) in [(2048, 190), (2049, 191), (3072, 318), (4096, 446), (512, 0), (0, 0)] {
        assert_eq!(proof_bytes(bits), bytes, "{bits}");
    }
    assert_eq!(room_for_identifier(2048), 56);
    assert_eq!(room_for_identifier(3072), 184);
    assert_eq!(room_for_identifier(1024), 0);
}

#[test]
fn an_identifier_fits_to_the_last_byte_and_is_never_cut() {
    let document = document();
    let challenge = challenge();
    let credential = Credential::Challenge(&challenge);
    // Quotes cost two bytes, umlauts too, control characters six.
    for (unit, cost) in [("a", 1), ("\"", 2), ("ü", 2), ("\u{1}", 6)] {
        let most = unit.repeat(56 / cost);
        let most = format!("{most}{}", "x".repeat(56 - most.chars().count() * cost));
        check_identifier(2048, &most).unwrap();
        let payload = prove(&document, &most, credential, at()).unwrap();
        let plain = decrypted(&payload);
        assert_eq!(plain.len(), 190);
        let json: serde_json::Value = serde_json::from_str(&plain).unwrap();
        assert_eq!(json["identifier"], most);

        let over = format!("{most}x");
        for error in [
            check_identifier(2048, &over).unwrap_err(),
            prove(&document, &over, credential, at()).unwrap_err(),
        ] {
            assert!(
                matches!(error, ProofError::IdentifierTooLong { found: 57, room: 56, bits: 2048 }),
                "{error:?}"
            );
            let error = error.to_string();
            assert!(error.contains("57") && error.contains("56") && error.contains("shorter"));
        }
    }
    // A resume token leaves the identifier two bytes more: its name is shorter.
    let token = SecretString::from("t".repeat(36));
    let token = Credential::ResumeToken(&token);
    assert!(prove(&document, &"a".repeat(58), token, at()).is_ok());
    assert!(prove(&document, &"a".repeat(59), token, at()).is_err());
}

#[test]
fn a_credential_that_fits_no_proof_is_named_and_not_shown() {
    let secret = SecretString::from("geheim".repeat(40));
    for (credential, name) in [
        (Credential::Challenge(&secret), "challenge_uuid"),
        (Credential::ResumeToken(&secret), "resume_token"),
    ] {
        let error = prove(&document(), "a", credential, at()).unwrap_err();
        let shown = format!("{error} {error:?} {credential:?}");
        assert!(shown.contains(name) && shown.contains("240"), "{shown}");
        assert!(!shown.contains("geheim"), "{shown}");
    }
}

#[test]
fn a_clock_beyond_all_years_is_an_error() {
    let challenge = challenge();
    for wrong in
        [UNIX_EPOCH - Duration::from_secs(1), UNIX_EPOCH + Duration::from_secs(253_402_300_800)]
    {
        let error = prove(&document(), "a", Credential::Challenge(&challenge), wrong).unwrap_err();
        assert!(matches!(error, ProofError::Clock), "{error:?}");
    }
}

#[test]
fn every_proof_is_fresh() {
    let document = document();
    let challenge = challenge();
    let credential = Credential::Challenge(&challenge);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..20 {
        let payload = prove(&document, "vps.t1", credential, at()).unwrap();
        assert_eq!(payload.len(), 344, "256 bytes in padded base64");
        let plain = decrypted(&payload);
        let json: serde_json::Value = serde_json::from_str(&plain).unwrap();
        let nonce = json["nonce"].as_str().unwrap().to_owned();
        assert_eq!(nonce.len(), 22);
        assert_eq!(URL_SAFE_NO_PAD.decode(&nonce).unwrap().len(), 16);
        assert!(seen.insert(nonce) && seen.insert(payload));
    }
}
