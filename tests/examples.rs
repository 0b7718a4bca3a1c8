//! `docs/examples`: each message of docs/PROTOCOL.md, made by the code that sends it or read by the
//! code that receives it, and held against the schemas beside them.
//!
//! After a change of the protocol they are made anew by
//!
//!     HARBORFORGE_WRITE_EXAMPLES=1 cargo test --workspace --test examples
//!
//! The proof has a random part: one that opens with the key beside it and says what it should is
//! kept. What validates schemas and documents is Python's; a test that is left out says so.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stderr, reason = "a test that is left out says so")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harborforge_connector::crypto::{Credential, KeyDocument, prove};
use harborforge_connector::protocol::{
    AnswerBody, HandshakeAnswer, Hello, StatusChange, WebSocketEvent as Event, batch_body,
    metrics_message, proof_message, read_answer, read_event, read_handshake,
};
use harborforge_connector::sample::{Agent, AgentStatus, Envelope, Gap, GapReason, Sample, splice};
use rsa::pkcs1::EncodeRsaPublicKey as _;
use rsa::pkcs8::{DecodePrivateKey as _, EncodePublicKey as _, LineEnding};
use rsa::{Oaep, RsaPrivateKey};
use secrecy::SecretString;
use serde_json::{Value, json};
use sha2::Sha256;

const IDENTIFIER: &str = "vps.t1";
const CHALLENGE: &str = "8f14e45f-ceea-467f-9575-1d2f3a4b5c6d";
const TOKEN: &str = "3f0c9a51-7d52-4c0e-9a43-6f1f0f0a8f11";
const EPOCH: &str = "0198f0c2-5b7e-4c1d-8a90-2f64c1d7e3aa";
const TIME: &str = "2026-03-11T21:00:00Z";

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/examples")
}

fn there(name: &str) -> Option<Vec<u8>> {
    fs::read(directory().join(name)).ok()
}

fn private_key() -> RsaPrivateKey {
    let pem = String::from_utf8(there("private-key.pem").unwrap()).unwrap();
    RsaPrivateKey::from_pkcs8_pem(&pem).unwrap()
}

/// The plain text of a proof; `None` when it does not open.
fn opened(payload: &str) -> Option<String> {
    let bytes = STANDARD.decode(payload).ok()?;
    let padding = Oaep::new_with_mgf_hash::<Sha256, Sha256>();
    String::from_utf8(private_key().decrypt(padding, &bytes).ok()?).ok()
}

/// The proof in this file, if it is one of `secret`; else a new one.
fn proof(file: &str, name: &str, secret: &str) -> String {
    let kept = there(file).and_then(|bytes| {
        let message: Value = serde_json::from_slice(&bytes).ok()?;
        Some(message["encrypted_payload"].as_str()?.to_owned())
    });
    let good = |payload: &String| {
        let start = format!(r#"{{"identifier":"{IDENTIFIER}","{name}":"{secret}","nonce":""#);
        opened(payload).is_some_and(|plain| {
            plain.starts_with(&start) && plain.ends_with(&format!(r#"","ts":"{TIME}"}}"#))
        })
    };
    kept.filter(good).unwrap_or_else(|| {
        let public = private_key().to_public_key();
        let pem = public.to_public_key_pem(LineEnding::LF).unwrap();
        let document = KeyDocument::parse(pem.as_bytes()).unwrap();
        let secret = SecretString::from(secret);
        let credential = match name {
            "challenge_uuid" => Credential::Challenge(&secret),
            _ => Credential::ResumeToken(&secret),
        };
        prove(&document, IDENTIFIER, credential, time()).unwrap()
    })
}

fn time() -> SystemTime {
    humantime::parse_rfc3339(TIME).unwrap()
}

fn agents() -> Vec<Agent> {
    [("main", "Main", AgentStatus::Running), ("mail", "Mail", AgentStatus::Idle)]
        .map(|(id, name, status)| Agent { id: id.to_owned(), name: name.to_owned(), status })
        .to_vec()
}

fn sample(after: u64) -> Sample {
    let taken = time() + Duration::from_secs(after);
    Sample {
        openclaw_version: Some("2026.3.13".to_owned()),
        cpu_pct: Some(12.5),
        mem_pct: Some(41.2),
        disk_pct: Some(62.0),
        swap_pct: Some(0.0),
        uptime_seconds: Some(12_345 + after),
        load_avg: Some([0.12, 0.09, 0.03]),
        agents: agents(),
        last_seen_at: humantime::format_rfc3339_seconds(taken).to_string(),
        connector_version: "0.1.0".to_owned(),
        agents_truncated: None,
        plugin_version: None,
        nginx_installed: None,
        nginx_sites: None,
    }
}

fn envelope(seq: u64) -> Envelope<'static> {
    Envelope {
        identifier: IDENTIFIER,
        seq,
        epoch: EPOCH,
        replayed: false,
        gaps: &[],
        encrypted_payload: None,
    }
}

/// What the connector sends, made by its own code.
fn sent() -> BTreeMap<&'static str, Vec<u8>> {
    let stored = |after| sample(after).encode().unwrap();
    let told = |after, envelope: &Envelope<'_>| splice(&stored(after), envelope).unwrap();
    let by_challenge = proof("handshake.json", "challenge_uuid", CHALLENGE);
    let by_token = proof("handshake-resume.json", "resume_token", TOKEN);
    let nothing_readable = Sample {
        openclaw_version: None,
        cpu_pct: None,
        mem_pct: None,
        disk_pct: None,
        swap_pct: None,
        uptime_seconds: None,
        load_avg: None,
        agents: Vec::new(),
        nginx_installed: Some(None),
        nginx_sites: Some(None),
        ..sample(0)
    };
    let everything = Sample {
        agents_truncated: Some(3),
        plugin_version: Some("1.2.0".to_owned()),
        nginx_installed: Some(Some(true)),
        nginx_sites: Some(Some(vec!["default".to_owned(), "monitor.example".to_owned()])),
        ..sample(0)
    };
    let gaps = [
        Gap { from: 812, to: 901, reason: GapReason::QueueFull, maybe_delivered: false },
        Gap { from: 950, to: 950, reason: GapReason::Corrupt, maybe_delivered: true },
        Gap { from: 960, to: 964, reason: GapReason::Expired, maybe_delivered: false },
    ];
    let with_gaps = Envelope { gaps: &gaps, replayed: true, ..envelope(1042) };
    let heartbeat = Envelope { encrypted_payload: Some(&by_challenge), ..envelope(42) };
    let hello = Hello {
        identifier: IDENTIFIER,
        openclaw_version: Some("2026.3.13"),
        agents: &agents(),
        connector_version: "0.1.0",
    };
    let changed = StatusChange { identifier: IDENTIFIER, agents: &agents()[..1] };
    let batch = [told(0, &envelope(42)), told(30, &envelope(43))];
    let everything = everything.encode().unwrap();
    let nothing_readable = nothing_readable.encode().unwrap();
    BTreeMap::from([
        ("proof.json", opened(&by_challenge).unwrap().into_bytes()),
        ("proof-resume.json", opened(&by_token).unwrap().into_bytes()),
        ("handshake.json", proof_message(&by_challenge)),
        ("handshake-resume.json", proof_message(&by_token)),
        ("server.hello.json", hello.message()),
        ("server.metrics.json", metrics_message(&stored(0), &envelope(42)).unwrap()),
        ("agent.status_changed.json", changed.message()),
        ("telemetry.json", told(0, &envelope(42))),
        ("telemetry-nothing-readable.json", splice(&nothing_readable, &envelope(42)).unwrap()),
        ("telemetry-everything.json", splice(&everything, &with_gaps).unwrap()),
        ("heartbeat.json", told(0, &heartbeat)),
        ("heartbeat-batch.json", batch_body(IDENTIFIER, &by_challenge, &batch).unwrap()),
    ])
}

/// What a Monitor says.
fn received() -> BTreeMap<&'static str, Vec<u8>> {
    let public = private_key().to_public_key();
    let spki = public.to_public_key_pem(LineEnding::LF).unwrap();
    let pkcs1 = public.to_pkcs1_pem(LineEnding::LF).unwrap();
    let json = |value: Value| value.to_string().into_bytes();
    BTreeMap::from([
        ("server-public-key.pem", spki.clone().into_bytes()),
        ("server-public-key-pkcs1.pem", pkcs1.into_bytes()),
        (
            "server-public-key.json",
            json(json!({"public_key_pem": spki, "capabilities": ["ack", "resume", "batch"]})),
        ),
        ("accepted.json", json(json!({"ok": true}))),
        ("accepted-resume.json", json(json!({"ok": true, "resume_token": TOKEN}))),
        ("refused.json", json(json!({"ok": false, "error": "the challenge has expired"}))),
        ("ack.json", json(json!({"event": "ack", "seq": 42}))),
        ("reject.json", json(json!({"event": "reject", "seq": 42, "error": "unknown agent"}))),
        ("not-ok.json", json(json!({"ok": false, "error": "out of disk"}))),
        ("delivered.json", json(json!({"ok": true}))),
        ("duplicate.json", json(json!({"ok": true, "duplicate": true}))),
        ("batch-delivered.json", json(json!({"ok": true, "acked_seq": 43}))),
        (
            "batch-rejected.json",
            json(
                json!({"ok": true, "acked_seq": 43, "rejected": [{"seq": 42, "error": "unknown agent"}]}),
            ),
        ),
    ])
}

#[test]
fn they_are_what_the_code_sends() {
    let all: BTreeMap<_, _> = sent().into_iter().chain(received()).collect();
    let write = std::env::var_os("HARBORFORGE_WRITE_EXAMPLES").is_some();
    for (name, made) in &all {
        let mut made = made.clone();
        if made.last() != Some(&b'\n') {
            made.push(b'\n');
        }
        if write {
            fs::write(directory().join(name), &made).unwrap();
        }
        let kept = there(name).unwrap_or_default();
        let same = kept == made;
        assert!(same, "{name} is not what the code makes: see the head of tests/examples.rs");
    }
    let besides =
        ["README.md", "private-key.pem", "telemetry.schema.json", "openapi.json", "asyncapi.json"];
    for entry in fs::read_dir(directory()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = all.contains_key(name.as_str()) || besides.contains(&name.as_str());
        assert!(known, "nothing makes {name}");
    }
}

#[test]
fn what_a_monitor_says_is_read_as_it_is_meant() {
    let received = received();
    let text = |name: &str| String::from_utf8(received[name].clone()).unwrap();
    let fingerprint = |name: &str| KeyDocument::parse(&received[name]).unwrap().fingerprint;
    assert_eq!(fingerprint("server-public-key.pem"), fingerprint("server-public-key.json"));
    assert_eq!(fingerprint("server-public-key.pem"), fingerprint("server-public-key-pkcs1.pem"));
    let document = KeyDocument::parse(&received["server-public-key.json"]).unwrap();
    let offered = document.capabilities;
    assert!(offered.ack && offered.resume && offered.batch);
    let accepted = |resume_token| HandshakeAnswer::Accepted { resume_token };
    assert_eq!(read_handshake(&text("accepted.json")), accepted(None));
    assert_eq!(read_handshake(&text("accepted-resume.json")), accepted(Some(TOKEN.to_owned())));
    let refused = read_handshake(&text("refused.json"));
    assert!(matches!(refused, HandshakeAnswer::Refused { said } if said.contains("expired")));
    assert_eq!(read_event(&text("ack.json")), Event::Ack { seq: 42 });
    let rejected = read_event(&text("reject.json"));
    assert!(matches!(rejected, Event::Reject(rejection) if rejection.seq == 42));
    assert!(matches!(read_event(&text("not-ok.json")), Event::NotOk { .. }));
    let object = |name: &str| match read_answer(&received[name]) {
        AnswerBody::Object(object) => object,
        AnswerBody::Empty | AnswerBody::Foreign => panic!("{name} is no answer"),
    };
    assert_eq!(object("delivered.json").ok, Some(true));
    assert_eq!(object("duplicate.json").duplicate, Some(true));
    assert_eq!(object("batch-delivered.json").acked_seq, Some(43));
    assert_eq!(object("batch-rejected.json").rejected[0].seq, 42);
}

/// The command that its README shows to try a decryption with.
#[test]
fn the_command_shown_prints_the_proof() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/examples/README.md")).unwrap();
    let (_, after) = text.split_once("This prints `proof.json`:\n\n").unwrap();
    let command: Vec<&str> = after.lines().map_while(|line| line.strip_prefix("    ")).collect();
    assert_eq!(command.len(), 3, "{after}");
    let printed =
        Command::new("sh").args(["-c", &command.join("\n")]).current_dir(root).output().unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let shown = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().trim_end().to_owned();
    assert_eq!(shown(&printed.stdout), shown(&there("proof.json").unwrap()));
}

fn schema() -> Value {
    serde_json::from_slice(&there("telemetry.schema.json").unwrap()).unwrap()
}

/// The schema names what is sent, all of it and nothing else.
#[test]
fn the_schema_names_each_member() {
    let schema = schema();
    let members = |value: &Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let sent = sent();
    let parsed = |name: &str| serde_json::from_slice::<Value>(&sent[name]).unwrap();
    let everything = members(&parsed("telemetry-everything.json"));
    assert_eq!(everything, members(&schema["properties"]));
    let always: BTreeSet<String> = schema["required"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(always, members(&parsed("telemetry.json")));
    let asked_for = ["nginx_installed", "nginx_sites"].map(str::to_owned);
    let unreadable = members(&parsed("telemetry-nothing-readable.json"));
    assert_eq!(unreadable, always.iter().cloned().chain(asked_for).collect());
    let statuses = schema["$defs"]["agent"]["properties"]["status"]["enum"].as_array().unwrap();
    for status in ["running", "idle", "stopped", "starting", "unknown"] {
        assert!(statuses.contains(&json!(status)));
        assert!(serde_json::from_value::<AgentStatus>(json!(status)).is_ok());
    }
    assert_eq!(statuses.len(), 5);
}

/// Judges examples and documents with Python's validators, where they are installed.
#[test]
fn the_documents_are_valid_and_the_examples_fit_them() {
    const JUDGE: &str = include_str!("examples.py");
    let output = Command::new("python3").arg("-c").arg(JUDGE).arg(directory()).output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            eprintln!("SKIPPED: there is no python3 here ({error})");
            return;
        }
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    eprintln!("{said}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
}
