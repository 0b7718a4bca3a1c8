//! Key document, heartbeats and batches over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]
// Reason: a test says in one word what must hold, and is no one's interface.
// The helpers are shared by several test programs, none of which uses all of them.
#[allow(dead_code)]
mod common;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use common::{PATIENCE, batch, call, get_key, heartbeat, options, plain, post, run, sample};
use harborforge_monitor::{
    Capability, DuplicateAnswer, KeyShape, Mode, Monitor, Options, Reason, Transport,
};
use serde_json::json;

fn start(options: Options) -> Monitor {
    run(Monitor::start(options)).unwrap()
}

#[test]
fn the_key_document_carries_the_key_the_capabilities_and_the_date() {
    let capabilities = BTreeSet::from([Capability::Ack, Capability::Batch]);
    let monitor = start(Options { capabilities, ..options() });
    let answer = get_key(monitor.addr());
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({"public_key_pem": monitor.public_key_pem(), "capabilities": ["ack", "batch"]})
    );
    assert!(answer.header("date").unwrap().ends_with(" GMT"));
    monitor.configure(|settings| settings.key_shape = KeyShape::Pkcs1);
    let body = String::from_utf8(get_key(monitor.addr()).body).unwrap();
    assert!(body.starts_with("-----BEGIN RSA PUBLIC KEY-----\n"));
    assert_eq!(monitor.counts().key_fetches, 2);
}

#[test]
fn a_heartbeat_is_recorded_once() {
    let monitor = start(options());
    let challenge = monitor.issue_challenge();
    let answer = post(monitor.addr(), &heartbeat(&monitor, &challenge, 1));
    assert_eq!((answer.status, answer.json()), (200, json!({"ok": true})));
    let again = post(monitor.addr(), &heartbeat(&monitor, &challenge, 1));
    assert_eq!((again.status, again.json()["duplicate"].clone()), (200, json!(true)));
    monitor.configure(|settings| settings.duplicates = DuplicateAnswer::Conflict);
    let again = post(monitor.addr(), &heartbeat(&monitor, &challenge, 1));
    assert_eq!((again.status, again.json()["duplicate"].clone()), (409, json!(true)));

    let accepted = monitor.accepted();
    assert_eq!(accepted.len(), 1);
    assert_eq!((accepted[0].seq, accepted[0].arrivals), (1, 3));
    assert_eq!(accepted[0].transport, Transport::Heartbeat);
    assert_eq!(accepted[0].telemetry, sample("vps.t1", 1));
    assert_eq!((monitor.counts().unique, monitor.counts().duplicates), (1, 2));
}

#[test]
fn a_proof_made_by_openssl_is_accepted() {
    let monitor = start(options());
    let challenge = monitor.issue_challenge();
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("k.pem");
    std::fs::write(&key, monitor.public_key_pem()).unwrap();
    let mut openssl = Command::new("openssl")
        .args(["pkeyutl", "-encrypt", "-pubin", "-inkey"])
        .arg(&key)
        .args(["-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256"])
        .args(["-pkeyopt", "rsa_mgf1_md:sha256"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl's command line");
    let proof = plain("vps.t1", &challenge, SystemTime::now());
    openssl.stdin.take().unwrap().write_all(proof.as_bytes()).unwrap();
    let output = openssl.wait_with_output().unwrap();
    assert!(output.status.success());
    let mut body = sample("vps.t1", 7);
    let sealed = base64::engine::general_purpose::STANDARD.encode(output.stdout);
    body["encrypted_payload"] = json!(sealed);
    assert_eq!(post(monitor.addr(), &body).status, 200);
    assert!(monitor.journal(|journal| journal.has_seq(7)));
}

#[test]
fn what_is_wrong_is_refused_with_its_reason() {
    let monitor = start(options());
    let addr = monitor.addr();
    let challenge = monitor.issue_challenge();
    let refused = |body: &serde_json::Value, status: u16, reason: Reason| {
        let before = monitor.counts().refused(reason);
        let answer = post(addr, body);
        assert_eq!(answer.status, status, "{reason:?}");
        assert!(answer.json().get("detail").is_some());
        assert_eq!(monitor.counts().refused(reason), before + 1, "{reason:?}");
    };
    refused(&sample("vps.t1", 1), 401, Reason::NoProof);
    refused(&heartbeat(&monitor, "not-a-challenge", 1), 403, Reason::UnknownChallenge);
    let mut stranger = sample("other", 1);
    stranger["encrypted_payload"] = json!(common::proof(&monitor, "vps.t1", &challenge));
    refused(&stranger, 403, Reason::OtherIdentifier);
    let mut garbled = sample("vps.t1", 1);
    garbled["encrypted_payload"] = json!("AAAA");
    refused(&garbled, 401, Reason::UnreadableProof);
    let mut late = sample("vps.t1", 1);
    let minutes_ago = SystemTime::now() - Duration::from_secs(180);
    late["encrypted_payload"] =
        json!(common::seal(&monitor.public_key_pem(), &plain("vps.t1", &challenge, minutes_ago)));
    refused(&late, 401, Reason::Clock);
    let good = heartbeat(&monitor, &challenge, 1);
    assert_eq!(post(addr, &good).status, 200);
    refused(&good, 401, Reason::Nonce);
    let mut bad = heartbeat(&monitor, &challenge, 2);
    bad["cpu_pct"] = json!(180);
    refused(&bad, 422, Reason::BadSample);
    let mut huge = heartbeat(&monitor, &challenge, 2);
    huge["openclaw_version"] = json!("x".repeat(3 * 1024 * 1024));
    refused(&huge, 413, Reason::TooLarge);
    refused(&batch(&monitor, &challenge, &[sample("vps.t1", 2)]), 400, Reason::NotOffered);
    assert_eq!(call(addr, "GET", "/elsewhere", "", b"").status, 404);
    assert_eq!(call(addr, "PUT", "/monitor/server/heartbeat", "", b"").status, 405);
    assert_eq!(monitor.counts().unique, 1);
}

#[test]
fn an_expired_challenge_is_refused_and_a_bound_one_is_not() {
    let monitor = start(options());
    let (bound, unused) = (monitor.issue_challenge(), monitor.issue_challenge());
    assert_eq!(post(monitor.addr(), &heartbeat(&monitor, &bound, 1)).status, 200);
    // The Monitor's clock goes on by eleven minutes; the proofs are made by that clock.
    monitor.set_clock_offset(660);
    let by_its_clock = |challenge: &str, seq: u64| {
        let now = SystemTime::now() + Duration::from_secs(660);
        let mut body = sample("vps.t1", seq);
        body["encrypted_payload"] =
            json!(common::seal(&monitor.public_key_pem(), &plain("vps.t1", challenge, now)));
        post(monitor.addr(), &body)
    };
    assert_eq!(by_its_clock(&unused, 2).status, 403);
    assert_eq!(monitor.counts().refused(Reason::ExpiredChallenge), 1);
    assert_eq!(by_its_clock(&bound, 3).status, 200);
}

#[test]
fn a_batch_is_acknowledged_cumulatively_and_its_faulty_samples_are_listed() {
    let capabilities = BTreeSet::from([Capability::Batch]);
    let monitor = start(Options { capabilities, ..options() });
    let challenge = monitor.issue_challenge();
    let mut samples: Vec<_> = (1..=5).map(|seq| sample("vps.t1", seq)).collect();
    samples[1]["cpu_pct"] = json!(-1);
    samples[4]["agents"] = json!("none");
    let answer = post(monitor.addr(), &batch(&monitor, &challenge, &samples)).json();
    assert_eq!(answer["acked_seq"], 5);
    let rejected: Vec<_> =
        answer["rejected"].as_array().unwrap().iter().map(|one| &one["seq"]).collect();
    assert_eq!(rejected, [2, 5]);
    let seqs: Vec<_> = monitor.accepted().iter().map(|one| one.seq).collect();
    assert_eq!(seqs, [1, 3, 4]);
    assert!(monitor.accepted().iter().all(|one| one.transport == Transport::Batch));

    let backwards = [sample("vps.t1", 9), sample("vps.t1", 8)];
    assert_eq!(post(monitor.addr(), &batch(&monitor, &challenge, &backwards)).status, 422);
    let many: Vec<_> = (10..=510).map(|seq| sample("vps.t1", seq)).collect();
    assert_eq!(post(monitor.addr(), &batch(&monitor, &challenge, &many)).status, 413);
    let answer = post(monitor.addr(), &batch(&monitor, &challenge, &many[..500])).json();
    assert_eq!(answer, json!({"ok": true, "acked_seq": 509}));
    assert_eq!(monitor.counts().out_of_order, 0);
}

#[test]
fn api_keys_are_the_other_way_in() {
    let monitor = start(Options { mode: Mode::ApiKey("k1".to_owned()), ..options() });
    let with_key = |headers: &str| {
        let headers = format!("content-type: application/json\r\n{headers}");
        let body = sample("vps.t1", 1).to_string();
        call(monitor.addr(), "POST", "/monitor/server/heartbeat", &headers, body.as_bytes()).status
    };
    assert_eq!(with_key(""), 401);
    assert_eq!(with_key("x-api-key: k2\r\n"), 401);
    assert_eq!(with_key("X-API-Key: k1\r\n"), 200);
    assert_eq!(get_key(monitor.addr()).status, 404);
    assert_eq!(call(monitor.addr(), "GET", "/monitor/server/ws", "", b"").status, 403);
}

#[test]
fn a_path_prefix_is_part_of_the_url() {
    let monitor = start(Options { path_prefix: "/harbor/".to_owned(), ..options() });
    assert!(monitor.url().ends_with("/harbor"));
    assert_eq!(get_key(monitor.addr()).status, 404);
    let path = "/harbor/monitor/public/server-public-key";
    assert_eq!(call(monitor.addr(), "GET", path, "", b"").status, 200);
}

#[test]
fn an_outage_keeps_port_key_challenges_and_samples() {
    let monitor = start(options());
    let addr = monitor.addr();
    let challenge = monitor.issue_challenge();
    assert_eq!(post(addr, &heartbeat(&monitor, &challenge, 1)).status, 200);
    let idle = common::connect(addr);
    for _ in 0..3 {
        run(monitor.pause());
        assert_eq!(monitor.counts().open, 0);
        let refused = std::net::TcpStream::connect(addr).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        run(monitor.resume()).unwrap();
    }
    assert_eq!(idle.peek(&mut [0]).unwrap_or(0), 0, "the connection of before is gone");
    assert_eq!(post(addr, &heartbeat(&monitor, &challenge, 2)).status, 200);
    let snapshot = run(monitor.stop());
    assert_eq!(snapshot.counts.unique, 2);
    assert_eq!(snapshot.accepted.iter().map(|one| one.seq).collect::<Vec<_>>(), [1, 2]);
    assert!(std::net::TcpStream::connect(addr).is_err());
}

#[test]
fn waiting_ends_with_the_change_or_tells_the_counts() {
    let monitor = start(options());
    let challenge = monitor.issue_challenge();
    let body = heartbeat(&monitor, &challenge, 1);
    let addr = monitor.addr();
    let sender = std::thread::spawn(move || post(addr, &body).status);
    run(monitor.wait_for(|journal| journal.has_seq(1), PATIENCE)).unwrap();
    assert_eq!(sender.join().unwrap(), 200);
    let error = run(monitor.wait_for(|journal| journal.has_seq(2), Duration::ZERO)).unwrap_err();
    assert!(error.to_string().contains("\"unique\":1"), "{error}");
}
