//! Every fault of a WebSocket, seen from a plain client.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    missing_docs
)]
// Reason: a test says in one word what must hold, and is no one's interface.
// The helpers are shared by several test programs, none of which uses all of them.
#[allow(dead_code)]
mod common;

use std::time::Duration;

use async_std::future::timeout;
use async_tungstenite::tungstenite::protocol::frame::Frame;
use async_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use async_tungstenite::tungstenite::{Bytes, Message};
use common::link::{Socket, enrolled, hear, metrics, open, say, shake_hands, start};
use common::{PATIENCE, proof, run};
use futures_util::StreamExt;
use harborforge_monitor::{Capability, Fault, Monitor};
use serde_json::{Value, json};

/// Long enough for what is not to come to have come.
const A_MOMENT: Duration = Duration::from_millis(100);

async fn ping(socket: &mut Socket, payload: &[u8]) {
    socket.send(Message::Ping(Bytes::copy_from_slice(payload))).await.unwrap();
}

/// The next message, whatever it is.
async fn next(socket: &mut Socket) -> Message {
    timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap()
}

async fn nothing_comes(socket: &mut Socket) {
    assert!(timeout(A_MOMENT, socket.next()).await.is_err());
}

fn fresh_proof(monitor: &Monitor) -> String {
    proof(monitor, "vps.t1", &monitor.issue_challenge())
}

fn code(message: Message) -> u16 {
    let Message::Close(Some(frame)) = message else { panic!("{message:?}") };
    frame.code.into()
}

#[test]
fn silence_after_the_proof_or_for_good() {
    run(async {
        let monitor = start(&[Capability::Ack]).await;
        monitor.misbehave(Fault::Silent.once());
        let mut socket = open(&monitor).await.unwrap();
        say(&mut socket, &json!({"encrypted_payload": fresh_proof(&monitor)})).await;
        say(&mut socket, &json!({"event": "server.hello", "payload": {}})).await;
        say(&mut socket, &metrics(1)).await;
        // It reads, and answers Pings: everything before this has been dealt with.
        ping(&mut socket, b"x").await;
        assert_eq!(next(&mut socket).await, Message::Pong(b"x"[..].into()));
        assert!(monitor.journal(|journal| journal.has_seq(1)));
        nothing_comes(&mut socket).await;
        let (_socket, answer) = shake_hands(&monitor, &fresh_proof(&monitor)).await;
        assert_eq!(answer["ok"], true, "once is once");
    });
}

#[test]
fn a_link_is_cut_after_so_many_messages() {
    run(async {
        let monitor = start(&[Capability::Ack]).await;
        monitor.misbehave(Fault::Cut { messages: 4 }.once());
        let (mut socket, _) = enrolled(&monitor).await;
        say(&mut socket, &metrics(1)).await;
        say(&mut socket, &metrics(2)).await;
        // Stored, and its acknowledgement lost.
        while let Some(Ok(_)) = socket.next().await {}
        monitor.wait_for(|journal| journal.counts().open == 0, PATIENCE).await.unwrap();
        assert_eq!(monitor.counts().unique, 2);
        assert_eq!(monitor.counts().faults, 1);
        // The first message is the proof: the challenge is used up, and the acceptance lost.
        monitor.misbehave(Fault::Cut { messages: 1 }.once());
        let mut socket = open(&monitor).await.unwrap();
        let proof = fresh_proof(&monitor);
        say(&mut socket, &json!({"encrypted_payload": proof})).await;
        assert!(!matches!(socket.next().await, Some(Ok(_))));
        assert_eq!(monitor.counts().links, 2);
    });
}

#[test]
fn a_half_open_link_neither_reads_nor_writes() {
    run(async {
        let monitor = start(&[Capability::Ack]).await;
        monitor.misbehave(Fault::HalfOpen { messages: 2 }.once());
        let (mut socket, _) = enrolled(&monitor).await;
        say(&mut socket, &metrics(1)).await;
        ping(&mut socket, b"x").await;
        nothing_comes(&mut socket).await;
        assert_eq!((monitor.counts().unique, monitor.counts().open), (0, 1));
        monitor.pause().await;
        assert_eq!(monitor.counts().open, 0);
    });
}

#[test]
fn pings_may_stay_unanswered() {
    run(async {
        let monitor = start(&[Capability::Ack]).await;
        monitor.misbehave(Fault::NeverPong.once());
        let (mut socket, _) = enrolled(&monitor).await;
        ping(&mut socket, b"x").await;
        say(&mut socket, &metrics(1)).await;
        let Message::Text(text) = next(&mut socket).await else { panic!("a Pong") };
        assert!(text.contains("ack"), "{text}");
        ping(&mut socket, b"y").await;
        nothing_comes(&mut socket).await;
    });
}

#[test]
fn acknowledgements_are_withheld_late_doubled_and_wrong() {
    run(async {
        let monitor = start(&[Capability::Ack]).await;
        monitor.misbehave(Fault::NeverAck.once());
        let (mut socket, _) = enrolled(&monitor).await;
        say(&mut socket, &metrics(1)).await;
        monitor.wait_for(|journal| journal.has_seq(1), PATIENCE).await.unwrap();
        nothing_comes(&mut socket).await;

        monitor.misbehave(Fault::AckTwice.once());
        monitor.misbehave(Fault::AckBeyond { by: 3 }.once());
        let (mut socket, _) = enrolled(&monitor).await;
        say(&mut socket, &metrics(2)).await;
        for _ in 0..2 {
            assert_eq!(hear(&mut socket).await, json!({"event": "ack", "seq": 5}));
        }

        monitor.misbehave(Fault::AckLate { millis: 50 }.once());
        let (mut socket, _) = enrolled(&monitor).await;
        let begun = std::time::Instant::now();
        say(&mut socket, &metrics(3)).await;
        monitor.wait_for(|journal| journal.has_seq(3), PATIENCE).await.unwrap();
        say(&mut socket, &metrics(4)).await;
        let mut last = 0;
        while last < 4 {
            last = hear(&mut socket).await["seq"].as_u64().unwrap();
            assert!(begun.elapsed() >= Duration::from_millis(50));
        }
    });
}

#[test]
fn links_are_closed_with_any_code() {
    run(async {
        let monitor = start(&[]).await;
        for (messages, code_asked) in [(0, 1013), (1, 1008), (1, 4000), (1, 4499), (2, 1001)] {
            monitor.misbehave(Fault::close(messages, code_asked).once());
            let mut socket = open(&monitor).await.unwrap();
            say(&mut socket, &json!({"encrypted_payload": fresh_proof(&monitor)})).await;
            if messages == 2 {
                assert_eq!(hear(&mut socket).await["ok"], true);
                say(&mut socket, &json!({"event": "server.hello", "payload": {}})).await;
            }
            assert_eq!(code(next(&mut socket).await), code_asked);
        }
        let reason = "out of order".to_owned();
        monitor.misbehave(Fault::Close { messages: 0, code: 1001, reason }.once());
        let mut socket = open(&monitor).await.unwrap();
        let Message::Close(Some(frame)) = next(&mut socket).await else { panic!() };
        assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Away, "out of order"));
    });
}

#[test]
fn anything_may_be_said_in_any_form() {
    run(async {
        let monitor = start(&[]).await;
        monitor.misbehave(Fault::Say { messages: 1, text: "\u{fffd} {".into() }.once());
        monitor.misbehave(Fault::Binary { messages: 1, bytes: 3 }.once());
        let huge = Fault::HugeMessage { messages: 2, bytes: 3_000_000, fragments: Some(1000) };
        monitor.misbehave(huge.once());
        let mut socket = open(&monitor).await.unwrap();
        say(&mut socket, &json!({"encrypted_payload": fresh_proof(&monitor)})).await;
        assert_eq!(next(&mut socket).await, Message::text("\u{fffd} {"));
        assert_eq!(next(&mut socket).await, Message::binary(vec![0; 3]));
        assert_eq!(hear(&mut socket).await["ok"], true);
        say(&mut socket, &json!({"event": "server.hello", "payload": {}})).await;
        let mut pings = 0;
        let text = loop {
            match next(&mut socket).await {
                Message::Ping(_) => pings += 1,
                Message::Text(text) => break text,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((text.len(), pings), (3_000_000, 2999), "one behind each fragment");
    });
}

#[test]
fn messages_may_come_in_fragments() {
    run(async {
        let monitor = start(&[Capability::Ack]).await;
        monitor.misbehave(Fault::Fragments { bytes: 1 }.once());
        let (mut socket, answer) = enrolled(&monitor).await;
        assert_eq!(answer, json!({"ok": true}));
        // Its own samples may come in fragments just as well.
        let text = metrics(1).to_string();
        let (left, right) = text.split_at(10);
        for (part, kind, last) in [(left, Data::Text, false), (right, Data::Continue, true)] {
            let frame = Frame::message(part.to_owned().into_bytes(), OpCode::Data(kind), last);
            socket.send(Message::Frame(frame)).await.unwrap();
        }
        assert_eq!(hear(&mut socket).await, json!({"event": "ack", "seq": 1}));
    });
}

#[test]
fn bytes_may_come_one_by_one() {
    run(async {
        let monitor = start(&[Capability::Ack, Capability::Resume]).await;
        monitor.misbehave(Fault::ByteByByte.always());
        let key = common::get_key(monitor.addr());
        assert_eq!(key.json()["capabilities"], json!(["ack", "resume"]));
        assert_eq!(monitor.counts().faults, 1);
    });
}

#[test]
fn capabilities_change_under_a_running_link() {
    run(async {
        let monitor = start(&[]).await;
        let (mut socket, answer) = enrolled(&monitor).await;
        assert_eq!(answer.get("resume_token"), None);
        let offered = |capabilities: &[Capability]| {
            let capabilities = capabilities.iter().copied().collect();
            monitor.configure(|settings| settings.capabilities = capabilities);
            common::get_key(monitor.addr()).json()["capabilities"].clone()
        };
        assert_eq!(offered(&[Capability::Ack]), json!(["ack"]));
        say(&mut socket, &metrics(1)).await;
        assert_eq!(hear(&mut socket).await, json!({"event": "ack", "seq": 1}));
        assert_eq!(offered(&[Capability::Resume]), json!(["resume"]));
        say(&mut socket, &metrics(2)).await;
        ping(&mut socket, b"x").await;
        assert_eq!(next(&mut socket).await, Message::Pong(b"x"[..].into()), "no acknowledgement");
        let (_socket, answer) = enrolled(&monitor).await;
        assert!(matches!(answer["resume_token"], Value::String(_)));
        assert_eq!(offered(&[Capability::Batch]), json!(["batch"]));
    });
}
