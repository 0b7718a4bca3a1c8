//! The plain WebSocket, with and without capabilities.
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

use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::{Error, Message};
use common::link::{enrolled, hear, metrics, open, say, shake_hands, start};
use common::{run, sample};
use futures_util::StreamExt;
use harborforge_monitor::{Capability, Fault, Monitor, Reason, Route, Transport};
use serde_json::json;

#[test]
fn samples_are_acknowledged_cumulatively() {
    run(async {
        let monitor = start(&[Capability::Ack]).await;
        let (mut socket, _) = enrolled(&monitor).await;
        for seq in 1..=300 {
            say(&mut socket, &metrics(seq)).await;
        }
        let mut last = 0;
        while last < 300 {
            let ack = hear(&mut socket).await;
            assert_eq!(ack["event"], "ack");
            let seq = ack["seq"].as_u64().unwrap();
            assert!(seq > last && seq <= 300);
            assert!(monitor.journal(|journal| journal.has_seq(seq)), "stored before it is said");
            last = seq;
        }
        assert_eq!(monitor.counts().unique, 300);
        assert!(monitor.accepted().iter().all(|one| one.transport == Transport::WebSocket));
        monitor.misbehave(Fault::reject([301]));
        say(&mut socket, &metrics(301)).await;
        assert_eq!(hear(&mut socket).await["event"], "reject");
    });
}

#[test]
fn a_pong_comes_after_the_samples_were_read() {
    run(async {
        let monitor = start(&[]).await;
        let (mut socket, answer) = enrolled(&monitor).await;
        assert_eq!(answer, json!({"ok": true}));
        say(&mut socket, &metrics(1)).await;
        socket.send(Message::Ping(b"window 1"[..].into())).await.unwrap();
        let Message::Pong(payload) = socket.next().await.unwrap().unwrap() else { panic!() };
        assert_eq!(&payload[..], b"window 1");
        assert!(monitor.journal(|journal| journal.has_seq(1)));
    });
}

#[test]
fn a_challenge_opens_one_websocket() {
    run(async {
        let monitor = start(&[]).await;
        let challenge = monitor.issue_challenge();
        let proof = || common::proof(&monitor, "vps.t1", &challenge);
        let (_first, answer) = shake_hands(&monitor, &proof()).await;
        assert_eq!(answer["ok"], true);
        let (mut second, answer) = shake_hands(&monitor, &proof()).await;
        assert_eq!(answer["ok"], false);
        let Message::Close(Some(frame)) = second.next().await.unwrap().unwrap() else { panic!() };
        assert_eq!(frame.code, CloseCode::Policy);
        assert_eq!(monitor.counts().refused(Reason::UsedChallenge), 1);
        // Heartbeats with it stay acceptable.
        let body = common::heartbeat(&monitor, &challenge, 1);
        assert_eq!(common::post(monitor.addr(), &body).status, 200);
    });
}

#[test]
fn a_token_brings_back_in_and_is_replaced() {
    run(async {
        let monitor = start(&[Capability::Resume]).await;
        let (_socket, answer) = enrolled(&monitor).await;
        let token = answer["resume_token"].as_str().unwrap().to_owned();
        assert!(token.len() <= 36);
        let by_token = |token: &str| {
            let now = std::time::SystemTime::now();
            let plain =
                common::plain("vps.t1", token, now).replace("challenge_uuid", "resume_token");
            common::seal(&monitor.public_key_pem(), &plain)
        };
        let (_socket, answer) = shake_hands(&monitor, &by_token(&token)).await;
        let next = answer["resume_token"].as_str().unwrap().to_owned();
        assert_ne!(next, token);
        let mut body = sample("vps.t1", 1);
        body["encrypted_payload"] = json!(by_token(&next));
        assert_eq!(common::post(monitor.addr(), &body).status, 200);
        let (_socket, answer) = shake_hands(&monitor, &by_token(&token)).await;
        assert_eq!(answer["ok"], false, "the next one was proved, this one is through");
    });
}

#[test]
fn an_upgrade_can_be_refused_and_an_outage_cuts_the_link() {
    run(async {
        let monitor = start(&[]).await;
        monitor.misbehave(Fault::status(403).once().at(Route::WebSocket));
        let Err(Error::Http(response)) = open(&monitor).await else { panic!("not refused") };
        assert_eq!(response.status().as_u16(), 403);
        let (mut socket, _) = enrolled(&monitor).await;
        run_until_hello(&monitor).await;
        monitor.pause().await;
        assert_eq!(monitor.counts().open, 0);
        assert!(!matches!(socket.next().await, Some(Ok(_))), "the link is gone");
        monitor.resume().await.unwrap();
        enrolled(&monitor).await;
    });
}

async fn run_until_hello(monitor: &Monitor) {
    monitor.wait_for(|journal| journal.counts().hellos == 1, common::PATIENCE).await.unwrap();
}
