//! The objects that docs/PROTOCOL.md shows are those that are made.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harborforge_connector::collector::{OpenClawView, Settings, SystemCollector};
use harborforge_connector::crypto::{Credential, KeyDocument, prove};
use harborforge_connector::protocol::{Hello, StatusChange, metrics_message};
use harborforge_connector::sample::{Agent, AgentStatus, Envelope, splice};
use harborforge_monitor::test_key;
use rsa::Oaep;
use rsa::pkcs8::{EncodePublicKey as _, LineEnding};
use secrecy::SecretString;
use serde_json::Value;
use sha2::Sha256;

use super::markdown::block;

const PROTOCOL: &str = "docs/PROTOCOL.md";

/// Whether a text is what a pattern shows, each of the holes standing for a JSON value or a part
/// of one.
fn fits<'a>(pattern: &str, text: &'a str, holes: &[&str]) -> bool {
    let mut pieces = vec![pattern.to_owned()];
    for hole in holes {
        let split = |piece: String| piece.split(hole).map(str::to_owned).collect::<Vec<_>>();
        pieces = pieces.into_iter().flat_map(split).collect();
    }
    let [first, middle @ .., last] = pieces.as_slice() else { return pattern == text };
    let inside =
        text.strip_prefix(first.as_str()).and_then(|rest| rest.strip_suffix(last.as_str()));
    let after = |rest: &'a str, piece: &String| Some(rest.split_once(piece.as_str())?.1);
    inside.and_then(|inside| middle.iter().try_fold(inside, after)).is_some()
}

#[test]
fn a_pattern_fits_what_has_its_parts_in_their_order() {
    assert!(fits(r#"{"a":..,"b":..}"#, r#"{"a":1,"b":[2]}"#, &[".."]));
    assert!(!fits(r#"{"a":..,"b":..}"#, r#"{"b":1,"a":[2]}"#, &[".."]));
    assert!(!fits(r#"{"a":..}"#, r#"{"a":1}]"#, &[".."]));
    assert!(fits("same", "same", &[]) && !fits("same", "other", &[]));
}

/// A sample as the queue keeps it.
fn stored() -> Vec<u8> {
    let mut collector = SystemCollector::new(Settings::default());
    collector.collect(SystemTime::now(), OpenClawView::default()).encode().unwrap()
}

fn envelope() -> Envelope<'static> {
    Envelope {
        identifier: "vps.t1",
        seq: 42,
        epoch: "0198f0c2-0000-4000-8000-000000000000",
        replayed: false,
        gaps: &[],
        encrypted_payload: None,
    }
}

#[test]
fn the_proof_is_the_one_that_is_made() {
    let key = test_key();
    let pem = key.to_public_key().to_public_key_pem(LineEnding::LF).unwrap();
    let document = KeyDocument::parse(pem.as_bytes()).unwrap();
    let challenge = SecretString::from("8f14e45f-ceea-467f-9575-1d2f3a4b5c6d");
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_773_262_800);
    let proof = prove(&document, "vps.t1", Credential::Challenge(&challenge), at).unwrap();
    let padding = Oaep::new_with_mgf_hash::<Sha256, Sha256>();
    let plain = key.decrypt(padding, &STANDARD.decode(proof).unwrap()).unwrap();
    let plain = String::from_utf8(plain).unwrap();
    let shown = block(PROTOCOL, r#"{"identifier":I,"challenge_uuid":C,"nonce":N,"ts":T}"#);
    let shown = shown
        .first()
        .replace(":I,", r#":"vps.t1","#)
        .replace(":C,", r#":"8f14e45f-ceea-467f-9575-1d2f3a4b5c6d","#)
        .replace(":T}", r#":"2026-03-11T21:00:00Z"}"#);
    assert!(fits(&shown.replace(":N,", r#":"..","#), &plain, &[".."]), "{plain}");
}

#[test]
fn the_messages_are_those_that_are_sent() {
    let first = r#"{"event":"server.hello","payload":{"identifier":..,"openclaw_version":..,"agents":[..],"connector_version":..}}"#;
    let shown = block(PROTOCOL, first).lines;
    let agents = [Agent { id: "a1".into(), name: "agent".into(), status: AgentStatus::Running }];
    let hello = Hello {
        identifier: "vps.t1",
        openclaw_version: None,
        agents: &agents,
        connector_version: "0.1.0",
    };
    let change = StatusChange { identifier: "vps.t1", agents: &agents };
    let sent =
        [hello.message(), metrics_message(&stored(), &envelope()).unwrap(), change.message()];
    let holes = ["<the changed ones>", "<telemetry>", "..", ":S,"];
    assert_eq!(shown.len(), sent.len());
    for (shown, sent) in shown.iter().zip(sent) {
        let sent = String::from_utf8(sent).unwrap();
        assert!(fits(shown, &sent, &holes), "{shown} is not {sent}");
    }
}

/// The members of an object and what kind each is; a figure that cannot be read is of any kind.
fn kinds(object: &Value) -> BTreeMap<String, &'static str> {
    let kind = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    object.as_object().unwrap().iter().map(|(name, value)| (name.clone(), kind(value))).collect()
}

#[test]
fn the_telemetry_object_is_the_one_that_is_sent() {
    // With comments, which JSON5 has.
    let shown: Value = json5::from_str(&block(PROTOCOL, "{").text()).unwrap();
    let sent = splice(&stored(), &envelope()).unwrap();
    let sent: Value = serde_json::from_slice(&sent).unwrap();
    let (shown, sent) = (kinds(&shown), kinds(&sent));
    assert!(shown.keys().eq(sent.keys()), "{shown:?}\n{sent:?}");
    for (name, kind) in &sent {
        assert!(*kind == "null" || *kind == shown[name], "{name}: {kind}, not {}", shown[name]);
    }
}
