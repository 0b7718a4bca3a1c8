//! Every fault, seen from a client's side of the socket.
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

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use common::{connect, exchange, get_key, heartbeat, options, post, request, run};
use harborforge_monitor::{Fault, Monitor, Reason, Route};
use serde_json::json;

const KEY: &str = "/monitor/public/server-public-key";

fn start() -> Monitor {
    run(Monitor::start(options())).unwrap()
}

/// Everything the Monitor sends back to a request for the key, until it closes.
fn bytes(monitor: &Monitor) -> Vec<u8> {
    exchange(monitor.addr(), &request("GET", KEY, "", b"")).unwrap()
}

#[test]
fn answers_in_place_of_the_proper_one() {
    let monitor = start();
    let addr = monitor.addr();
    monitor.misbehave(Fault::retry_after(503, "7").once());
    let answer = get_key(addr);
    assert_eq!((answer.status, answer.header("retry-after").as_deref()), (503, Some("7")));
    assert_eq!(get_key(addr).status, 200, "once is once");

    monitor.misbehave(Fault::Redirect { location: "https://elsewhere.example/".into() }.once());
    let answer = get_key(addr);
    assert_eq!(answer.status, 307);
    assert_eq!(answer.header("location").as_deref(), Some("https://elsewhere.example/"));

    monitor.misbehave(Fault::Portal.once());
    let answer = get_key(addr);
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").unwrap().starts_with("text/html"));

    monitor.misbehave(Fault::OkFalse.at(Route::Heartbeat));
    assert_eq!(get_key(addr).status, 200, "another route is left alone");
    let challenge = monitor.issue_challenge();
    assert_eq!(post(addr, &heartbeat(&monitor, &challenge, 1)).json()["ok"], false);
    assert_eq!(monitor.counts().unique, 0, "nothing was done");
    monitor.heal();
    assert_eq!(post(addr, &heartbeat(&monitor, &challenge, 1)).json()["ok"], true);
    assert_eq!(monitor.counts().faults, 4);
}

#[test]
fn connections_are_reset_closed_and_ignored() {
    let monitor = start();
    let ask = request("GET", KEY, "", b"");
    monitor.misbehave(Fault::ResetConnection.once());
    let reset = exchange(monitor.addr(), &ask).unwrap_err();
    assert!(matches!(reset.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{reset}");

    monitor.misbehave(Fault::CloseConnection.once());
    let mut closed = connect(monitor.addr());
    assert_eq!(closed.read(&mut [0]).unwrap(), 0);

    monitor.misbehave(Fault::IgnoreConnection.once());
    let mut ignored = connect(monitor.addr());
    ignored.write_all(&ask).unwrap();
    run(monitor.wait_for(|journal| journal.counts().open == 1, common::PATIENCE)).unwrap();
    ignored.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let silent = ignored.read(&mut [0]).unwrap_err();
    assert!(matches!(silent.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{silent}");
    assert_eq!(monitor.counts().requests, 0);
}

#[test]
fn a_hanging_request_is_not_done_and_a_held_answer_is() {
    let monitor = start();
    let challenge = monitor.issue_challenge();
    let post = |seq: u64| {
        let body = heartbeat(&monitor, &challenge, seq).to_string();
        let headers = "content-type: application/json\r\n";
        let mut stream = connect(monitor.addr());
        stream
            .write_all(&request("POST", "/monitor/server/heartbeat", headers, body.as_bytes()))
            .unwrap();
        stream
    };
    monitor.misbehave(Fault::HoldAnswer.once());
    let held = post(1);
    run(monitor.wait_for(|journal| journal.has_seq(1), common::PATIENCE)).unwrap();
    monitor.misbehave(Fault::Hang.once());
    let hung = post(2);
    run(monitor.wait_for(|journal| journal.counts().heartbeats == 2, common::PATIENCE)).unwrap();
    for stream in [&held, &hung] {
        stream.set_nonblocking(true).unwrap();
        assert_eq!(stream.peek(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    // A client that gives up frees the connection.
    drop((held, hung));
    run(monitor.wait_for(|journal| journal.counts().open == 0, common::PATIENCE)).unwrap();
    assert!(!monitor.journal(|journal| journal.has_seq(2)));
}

#[test]
fn answers_are_lost_cut_and_slow() {
    let monitor = start();
    let challenge = monitor.issue_challenge();
    monitor.misbehave(Fault::LoseAnswer.once().at(Route::Heartbeat));
    let body = heartbeat(&monitor, &challenge, 1).to_string();
    let headers = "content-type: application/json\r\n";
    let ask = request("POST", "/monitor/server/heartbeat", headers, body.as_bytes());
    assert_eq!(exchange(monitor.addr(), &ask).unwrap(), b"");
    assert!(monitor.journal(|journal| journal.has_seq(1)), "the sample is stored all the same");

    let whole = bytes(&monitor);
    monitor.misbehave(Fault::CutAnswer { after: 100 }.once());
    assert_eq!(bytes(&monitor).len(), 100);
    monitor.misbehave(Fault::Disconnect.once());
    assert_eq!(bytes(&monitor), b"");
    monitor.misbehave(Fault::SlowAnswer { pause_ms: 0 }.once());
    let slow = common::parse(&bytes(&monitor));
    assert_eq!(slow.body, common::parse(&whole).body);
}

#[test]
fn garbage_and_floods_come_as_asked() {
    let monitor = start();
    monitor.misbehave(Fault::Garbage.once());
    assert!(bytes(&monitor).starts_with(b"\x16\x03\x01"));
    monitor.misbehave(Fault::HugeBody { bytes: 3_000_000 }.once());
    let huge = common::parse(&bytes(&monitor));
    assert_eq!((huge.status, huge.body.len()), (200, 3_000_000));
    monitor.misbehave(Fault::HugeHead { bytes: 1_000_000 }.once());
    let head = bytes(&monitor);
    assert!(head.len() > 1_000_000 && !head.windows(4).any(|four| four == b"\r\n\r\n"));
}

#[test]
fn what_is_said_can_be_wrong() {
    let monitor = start();
    let addr = monitor.addr();
    monitor.misbehave(Fault::WrongKey.once());
    let wrong = get_key(addr).json()["public_key_pem"].as_str().unwrap().to_owned();
    assert_ne!(wrong, monitor.public_key_pem());
    let challenge = monitor.issue_challenge();
    let mut body = common::sample("vps.t1", 1);
    let plain = common::plain("vps.t1", &challenge, std::time::SystemTime::now());
    body["encrypted_payload"] = json!(common::seal(&wrong, &plain));
    assert_eq!(post(addr, &body).status, 401);
    assert_eq!(monitor.counts().refused(Reason::UnreadableProof), 1);

    monitor.misbehave(Fault::DateSkew { seconds: 86_400 * 365 }.once());
    monitor.misbehave(Fault::Age { seconds: 30 }.once());
    let answer = get_key(addr);
    assert_eq!(answer.header("age").as_deref(), Some("30"));
    let next_year = std::time::SystemTime::now() + Duration::from_secs(86_400 * 365);
    let next_year = humantime::format_rfc3339_seconds(next_year).to_string();
    assert!(answer.header("date").unwrap().contains(&next_year[..4]));
    monitor.misbehave(Fault::NoDate.once());
    assert_eq!(get_key(addr).header("date"), None);

    monitor.misbehave(Fault::reject([2]));
    assert_eq!(post(addr, &heartbeat(&monitor, &challenge, 2)).status, 422);
    assert_eq!(post(addr, &heartbeat(&monitor, &challenge, 3)).status, 200);
    assert_eq!(monitor.counts().refused(Reason::OnRequest), 1);
}
