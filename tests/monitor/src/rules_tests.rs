//! The rules by themselves: batches under faults, and the WebSocket's events.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Heartbeat, Link, Reply, Rules, Settings, Shown};
use crate::book::{Book, CHALLENGE_LIFETIME};
use crate::error::Reason;
use crate::fault::Fault;
use crate::journal::Journal;
use crate::key::Capability;
use crate::proof::{Credential, Proof};

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_773_262_800)
}

fn rules(capabilities: &[Capability]) -> Rules {
    let capabilities = capabilities.iter().copied().collect();
    let settings = Settings { capabilities, lenient: true, ..Settings::default() };
    let mut book = Book::new(CHALLENGE_LIFETIME);
    book.issue("c".to_owned(), now());
    Rules { settings, book, journal: Journal::new(100) }
}

fn proof(nonce: u32) -> Proof {
    let credential = Credential::Challenge("c".to_owned());
    Proof { identifier: "a".to_owned(), credential, nonce: nonce.to_string(), at: now() }
}

fn sample(seq: u64) -> Value {
    let id = format!("0198f0c2-0000-4000-8000-0000000000aa-{seq}");
    json!({"identifier": "a", "seq": seq, "sample_id": id})
}

/// Posts samples 1 to 4 as a batch under these faults: status, body, and what was recorded.
fn batch(faults: &[Fault]) -> (u16, Value, Vec<u64>) {
    let mut rules = rules(&[Capability::Batch]);
    let samples: Vec<Value> = (1..=4).map(sample).collect();
    let body = json!({"identifier": "a", "encrypted_payload": "", "samples": samples});
    let heartbeat = Heartbeat::read(body.to_string().into_bytes()).unwrap();
    let answer = rules.heartbeat(&heartbeat, &Shown::Proof(proof(1)), faults, now());
    let recorded = rules.journal.accepted().iter().map(|one| one.seq).collect();
    (answer.status, serde_json::from_slice(&answer.body).unwrap(), recorded)
}

fn link(rules: &mut Rules) -> Link {
    rules.handshake(&proof(1), "token".to_owned(), now()).unwrap().0
}

fn event(rules: &mut Rules, link: &mut Link, text: &str) -> Reply {
    rules.event(link, text, &[], now())
}

fn metrics(seq: u64) -> String {
    json!({"event": "server.metrics", "seq": seq, "payload": sample(seq)}).to_string()
}

const HELLO: &str = r#"{"event":"server.hello","payload":{"identifier":"a"}}"#;

#[test]
fn a_batch_answers_as_its_faults_ask() {
    assert_eq!(batch(&[]), (200, json!({"ok": true, "acked_seq": 4}), vec![1, 2, 3, 4]));
    let (_, body, recorded) = batch(&[Fault::PartOfBatch { samples: 2 }]);
    assert_eq!((body["acked_seq"].as_u64(), recorded), (Some(2), vec![1, 2]));
    let (_, body, recorded) = batch(&[Fault::PartOfBatch { samples: 0 }]);
    assert_eq!((body["acked_seq"].as_u64(), recorded), (Some(0), vec![]));
    let (_, body, recorded) = batch(&[Fault::WrongAckedSeq { seq: 99 }]);
    assert_eq!((body["acked_seq"].as_u64(), recorded), (Some(99), vec![1, 2, 3, 4]));
    let (_, body, recorded) = batch(&[Fault::reject([2, 4])]);
    assert_eq!(body["acked_seq"], 4);
    assert_eq!(body["rejected"][1], json!({"seq": 4, "error": "refused on request"}));
    assert_eq!(recorded, [1, 3]);
    let whole = Fault::Reject { seqs: BTreeSet::from([3]), status: 413, whole_batch: true };
    let (status, _, recorded) = batch(&[whole]);
    assert_eq!((status, recorded), (413, vec![]));
}

#[test]
fn events_are_stored_and_acknowledged_where_offered() {
    let mut rules = rules(&[Capability::Ack, Capability::Resume]);
    let (mut link, acceptance) = rules.handshake(&proof(1), "token".to_owned(), now()).unwrap();
    let acceptance: Value = serde_json::from_str(&acceptance).unwrap();
    assert_eq!(acceptance, json!({"ok": true, "resume_token": "token"}));
    assert_eq!(event(&mut rules, &mut link, HELLO), Reply::Quiet);
    assert_eq!(event(&mut rules, &mut link, &metrics(1)), Reply::Stored(1));
    assert_eq!(event(&mut rules, &mut link, &metrics(1)), Reply::Stored(1));
    assert_eq!(rules.acknowledgement(1).unwrap(), r#"{"event":"ack","seq":1}"#);
    assert_eq!((rules.journal.counts().unique, rules.journal.counts().duplicates), (1, 1));
    let refused = rules.event(&mut link, &metrics(2), &[Fault::reject([2])], now());
    let Reply::Say(refused) = refused else { panic!("{refused:?}") };
    let refused: Value = serde_json::from_str(&refused).unwrap();
    assert_eq!(refused, json!({"event": "reject", "seq": 2, "error": "refused on request"}));
}

#[test]
fn without_acknowledgements_a_refusal_is_ok_false() {
    let mut rules = rules(&[]);
    let mut link = link(&mut rules);
    assert_eq!(rules.acknowledgement(1), None);
    assert!(matches!(event(&mut rules, &mut link, &metrics(1)), Reply::Say(_)), "hello is first");
    event(&mut rules, &mut link, HELLO);
    for wrong in ["{}", "[]", r#"{"event":"server.metrics","seq":2,"payload":{}}"#, "x"] {
        let Reply::Say(message) = event(&mut rules, &mut link, wrong) else { panic!("{wrong}") };
        let message: Value = serde_json::from_str(&message).unwrap();
        assert_eq!(message["ok"], false, "{wrong}");
    }
    let other = json!({"event": "server.metrics", "seq": 2, "payload": sample(1)}).to_string();
    assert!(matches!(event(&mut rules, &mut link, &other), Reply::Say(_)), "{other}");
    assert_eq!(rules.journal.counts().unique, 0);
}

#[test]
fn a_refused_handshake_hands_out_nothing() {
    let mut rules = rules(&[Capability::Resume]);
    link(&mut rules);
    let refusal = rules.handshake(&proof(2), "next".to_owned(), now()).unwrap_err();
    assert_eq!(refusal.reason, Reason::UsedChallenge);
    assert_eq!(rules.journal.counts().links, 1);
}
