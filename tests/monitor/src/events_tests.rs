//! The WebSocket's events by themselves.

use serde_json::{Value, json};

use super::{Link, Reply};
use crate::error::Reason;
use crate::fault::Fault;
use crate::key::Capability;
use crate::rules::Rules;
use crate::rules::tests::{now, proof, rules, sample};

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
