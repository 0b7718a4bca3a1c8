//! Keys and proofs against OpenSSL's command line: another implementation than the one that
//! reads the keys and makes the proofs.

// These are tests from end to end: clippy's leave for tests covers #[test] functions only, and
// the helpers around them may fail loudly too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harborforge_connector::crypto::{Credential, Fingerprint, KeyDocument, KeyError, prove};
use secrecy::SecretString;

/// Runs openssl with this input; its output.
fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("these tests need the openssl command");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}");
    output.stdout
}

fn private_key(arguments: &[&str]) -> Vec<u8> {
    openssl(&[&["genpkey"], arguments].concat(), b"")
}

#[test]
fn proofs_for_openssl_keys_are_decrypted_by_openssl() {
    let challenge = SecretString::from("3f2b8c1e-aaaa-4bbb-8ccc-0123456789ab");
    let at = UNIX_EPOCH + Duration::from_secs(1_773_262_800);
    for bits in ["2048", "3072"] {
        let size = format!("rsa_keygen_bits:{bits}");
        let private = private_key(&["-algorithm", "RSA", "-pkeyopt", &size]);
        let spki = openssl(&["pkey", "-pubout"], &private);
        let pkcs1 = openssl(&["rsa", "-RSAPublicKey_out"], &private);
        assert!(pkcs1.starts_with(b"-----BEGIN RSA PUBLIC KEY-----"));
        let der = openssl(&["pkey", "-pubin", "-outform", "DER"], &spki);

        let document = KeyDocument::parse(&spki).unwrap();
        assert_eq!(document, KeyDocument::parse(&pkcs1).unwrap());
        assert_eq!(document.bits.to_string(), bits);
        assert_eq!(document.fingerprint, Fingerprint::of_spki(&der));
        let digest = openssl(&["dgst", "-sha256", "-r"], &der);
        assert!(digest.starts_with(document.fingerprint.to_string().as_bytes()));

        let payload = prove(&document, "vps.t1", Credential::Challenge(&challenge), at).unwrap();
        let mut key = tempfile::NamedTempFile::new().unwrap();
        key.write_all(&private).unwrap();
        let path = key.path().to_str().unwrap();
        let plain = openssl(
            &[
                "pkeyutl",
                "-decrypt",
                "-inkey",
                path,
                "-pkeyopt",
                "rsa_padding_mode:oaep",
                "-pkeyopt",
                "rsa_oaep_md:sha256",
                "-pkeyopt",
                "rsa_mgf1_md:sha256",
            ],
            &STANDARD.decode(payload).unwrap(),
        );
        let plain = String::from_utf8(plain).unwrap();
        let (head, tail) = plain.split_once("\"nonce\":\"").unwrap();
        assert_eq!(
            head,
            r#"{"identifier":"vps.t1","challenge_uuid":"3f2b8c1e-aaaa-4bbb-8ccc-0123456789ab","#
        );
        assert_eq!(&tail[22..], r#"","ts":"2026-03-11T21:00:00Z"}"#);
    }
}

#[test]
fn keys_of_other_algorithms_and_private_keys_are_told_apart() {
    for (algorithm, oid) in [
        (&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"][..], "1.2.840.10045.2.1"),
        (&["-algorithm", "ED25519"][..], "1.3.101.112"),
        (&["-algorithm", "RSA-PSS"][..], "1.2.840.113549.1.1.10"),
    ] {
        let private = private_key(algorithm);
        let error = KeyDocument::parse(&openssl(&["pkey", "-pubout"], &private)).unwrap_err();
        assert!(matches!(&error, KeyError::NotRsa { oid: found } if found == oid), "{error}");
        let error = KeyDocument::parse(&private).unwrap_err();
        assert!(matches!(error, KeyError::PrivateKey { .. }), "{error}");
    }
}
