//! The shapes of key documents, accepted and refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;
use rsa::pkcs1::EncodeRsaPublicKey as _;

use super::*;

/// A key of this size; not one anyone could have the private half of, but well-formed.
fn key(bits: usize, exponent: u32) -> RsaPublicKey {
    let modulus = (BigUint::from(1_u8) << (bits - 1)) + BigUint::from(1_u8);
    RsaPublicKey::new_unchecked(modulus, BigUint::from(exponent))
}

fn spki_der(key: &RsaPublicKey) -> Vec<u8> {
    key.to_public_key_der().unwrap().as_bytes().to_vec()
}

fn pem(label: &str, der: &[u8], columns: usize, end: &str) -> String {
    let base64 = STANDARD.encode(der);
    let lines: Vec<&str> =
        base64.as_bytes().chunks(columns).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----{end}{}{end}-----END {label}-----{end}", lines.join(end))
}

fn good() -> String {
    pem("PUBLIC KEY", &spki_der(&key(2048, 65537)), 64, "\n")
}

#[test]
fn every_permitted_shape_gives_the_same_key() {
    let expected = key(2048, 65537);
    let spki = spki_der(&expected);
    let pkcs1 = expected.to_pkcs1_der().unwrap().as_bytes().to_vec();
    let good = good();
    let json = |pem: &str| Value::from(pem).to_string();
    let shapes = [
        ("spki", good.clone()),
        ("pkcs1", pem("RSA PUBLIC KEY", &pkcs1, 64, "\n")),
        ("crlf", pem("PUBLIC KEY", &spki, 64, "\r\n")),
        ("cr", pem("PUBLIC KEY", &spki, 64, "\r")),
        ("76 columns", pem("PUBLIC KEY", &spki, 76, "\n")),
        ("one line", pem("PUBLIC KEY", &spki, 10_000, "\n")),
        ("one line with its markers", pem("PUBLIC KEY", &spki, 10_000, "")),
        ("spaces for line ends", pem("PUBLIC KEY", &spki, 64, " ")),
        ("no padding", good.replace('=', "")),
        ("byte order mark", format!("\u{feff}{good}")),
        ("no last line end", good.trim_end().to_owned()),
        ("spaces at line ends", good.replace('\n', "  \t\n")),
        ("blank lines", good.replace('\n', "\n\n")),
        ("indented", good.replace('\n', "\n    ")),
        ("text around", format!("Our key:\n\n{good}\nvalid until changed\n")),
        ("literal escapes", good.replace('\n', "\\n")),
        ("json, public_key_pem", format!("{{\"public_key_pem\":{}}}", json(&good))),
        ("json, public_key", format!("{{\"public_key\":{},\"x\":1}}", json(&good))),
        ("json, key", format!("\u{feff} {{\"alg\":\"RSA\",\"key\":{}}}", json(&good))),
        ("json, escaped twice", format!("{{\"key\":{}}}", json(&good.replace('\n', "\\n")))),
        (
            "json, the first name counts",
            format!("{{\"key\":\"x\",\"public_key\":{}}}", json(&good)),
        ),
    ];
    for (shape, text) in shapes {
        let document = KeyDocument::parse(text.as_bytes());
        let document = document.unwrap_or_else(|error| panic!("{shape}: {error}"));
        assert_eq!(document.key, expected, "{shape}");
        assert_eq!(document.bits, 2048, "{shape}");
        assert_eq!(document.fingerprint, Fingerprint::of_spki(&spki), "{shape}");
        assert_eq!(document.capabilities, Capabilities::default(), "{shape}");
    }
}

#[test]
fn everything_else_is_refused_with_a_reason() {
    let good = good();
    let spki = spki_der(&key(2048, 65537));
    let body = |inner: &str| format!("{{\"public_key\":{inner}}}");
    let cut = &spki[..spki.len() - 3];
    let refused: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "empty"),
        (b"\xef\xbb\xbf \n".to_vec(), "empty"),
        (vec![0xff, 0xfe], "not text"),
        (vec![b' '; MAX_ANSWER + 1], "65537 bytes"),
        (b"<!DOCTYPE html>\n<title>Please log in to our network".to_vec(), "<!DOCTYPE html>"),
        (b"\x1b[31mred".to_vec(), "\\u{1b}[31mred"),
        (format!("\"{}\"", good.replace('\n', "\\n")).into_bytes(), "begins with"),
        (format!("[\"{}\"]", good.replace('\n', "\\n")).into_bytes(), "begins with"),
        (b"{\"public_key\":".to_vec(), "broken JSON"),
        (format!("{{\"a\":{}}}", "[".repeat(1000)).into_bytes(), "broken JSON"),
        (b"{}".to_vec(), "found none"),
        (b"{\"pub\":1,\"status\":2}".to_vec(), "found pub, status"),
        (body("7").into_bytes(), "public_key in the key document is a number"),
        (body("null").into_bytes(), "is null"),
        (body("[]").into_bytes(), "is an array"),
        (body("\"\"").into_bytes(), "no PEM key found"),
        (body("\"MIIB\"").into_bytes(), "no PEM key found"),
        (b"-----BEGIN ".to_vec(), "begins with"),
        (b"-----BEGIN PUBLIC KEY".to_vec(), "no PEM key found"),
        (format!("{good}{good}").into_bytes(), "2 PEM blocks"),
        (good.replace("-----END PUBLIC KEY-----", "").into_bytes(), "has no end"),
        (good.replace("END PUBLIC", "END RSA PUBLIC").into_bytes(), "has no end"),
        (good.replace("KEY-----\nM", "KEY-----\nProc-Type: 4\n\nM").into_bytes(), "not base64"),
        (pem("PRIVATE KEY", &spki, 64, "\n").into_bytes(), "PRIVATE key (PRIVATE KEY)"),
        (pem("RSA PRIVATE KEY", &spki, 64, "\n").into_bytes(), "must be replaced"),
        (pem("CERTIFICATE", &spki, 64, "\n").into_bytes(), "the PEM block is CERTIFICATE"),
        (pem("RSA PUBLIC KEY", &spki, 64, "\n").into_bytes(), "well-formed"),
        (pem("PUBLIC KEY", cut, 64, "\n").into_bytes(), "well-formed"),
        (pem("PUBLIC KEY", &[&spki[..], &[0]].concat(), 64, "\n").into_bytes(), "well-formed"),
        (pem("PUBLIC KEY", &[], 64, "\n").into_bytes(), "well-formed"),
        (pem("PUBLIC KEY", &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], 64, "\n").into(), "well-formed"),
    ];
    for (document, words) in refused {
        let shown = String::from_utf8_lossy(&document).chars().take(60).collect::<String>();
        let error = match KeyDocument::parse(&document) {
            Ok(_) => panic!("accepted: {shown}"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(words), "{shown}: {error}");
        assert!(!error.contains('\x1b') && error.len() < 250, "{error}");
    }
}

#[test]
fn sizes_and_exponents_have_bounds() {
    let parse = |key: &RsaPublicKey| {
        KeyDocument::parse(pem("PUBLIC KEY", &spki_der(key), 64, "\n").as_bytes())
    };
    for bits in [2048, 2049, 3072, 4095, 4096] {
        assert_eq!(parse(&key(bits, 65537)).unwrap().bits, bits);
    }
    for bits in [17, 512, 1024, 2047, 4097, 8192, 16384] {
        let error = parse(&key(bits, 65537)).unwrap_err();
        assert!(matches!(error, KeyError::Bits { bits: found } if found == bits), "{error}");
        assert!(error.to_string().contains("2048 to 4096"), "{error}");
    }
    assert!(parse(&key(2048, 3)).is_ok());
    for exponent in [0, 1, 2, 4, 65536] {
        let error = parse(&key(2048, exponent)).unwrap_err();
        assert!(matches!(error, KeyError::NotSane { .. }), "{exponent}: {error}");
    }
    let huge = RsaPublicKey::new_unchecked(
        key(2048, 3).n().clone(),
        (BigUint::from(1_u8) << 40_usize) + BigUint::from(1_u8),
    );
    assert!(parse(&huge).unwrap_err().to_string().contains("too large"));
    let even =
        RsaPublicKey::new_unchecked(BigUint::from(1_u8) << 2047_usize, BigUint::from(65537_u32));
    assert!(parse(&even).unwrap_err().to_string().contains("modulus is even"));
}

#[test]
fn capabilities_are_an_offer() {
    let with = |capabilities: &str| {
        let key = Value::from(good());
        let text = format!("{{\"key\":{key},\"capabilities\":{capabilities}}}");
        let all = KeyDocument::parse(text.as_bytes()).unwrap().capabilities;
        (all.ack, all.resume, all.batch)
    };
    for (text, expected) in [
        (r#"["ack","resume","batch"]"#, (true, true, true)),
        (r#"["batch","teleport",7,null,["ack"],"ACK"]"#, (false, false, true)),
        ("[]", (false, false, false)),
        ("null", (false, false, false)),
        (r#""ack""#, (false, false, false)),
        (r#"{"ack":true}"#, (false, false, false)),
    ] {
        assert_eq!(with(text), expected, "{text}");
    }
}

/// Whatever comes over the network: an error or a key within the bounds, never a panic.
fn holds(document: &[u8]) -> Result<(), TestCaseError> {
    match KeyDocument::parse(document) {
        Ok(document) => prop_assert!((MIN_BITS..=MAX_BITS).contains(&document.bits)),
        Err(error) => prop_assert!(!error.to_string().chars().any(char::is_control)),
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_survived(document in vec(any::<u8>(), 0..300)) {
        holds(&document)?;
    }

    #[test]
    fn any_der_is_survived(der in vec(any::<u8>(), 0..300), label in "(RSA )?PUBLIC KEY") {
        holds(pem(&label, &der, 64, "\n").as_bytes())?;
    }

    #[test]
    fn any_change_of_a_good_key_is_survived(at in any::<Index>(), byte in any::<u8>()) {
        let mut der = spki_der(&key(2048, 65537));
        *at.get_mut(&mut der) = byte;
        holds(pem("PUBLIC KEY", &der, 64, "\n").as_bytes())?;
        let mut text = good().into_bytes();
        *at.get_mut(&mut text) = byte;
        holds(&text)?;
    }
}
