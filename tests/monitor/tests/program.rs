//! The standalone program and its control interface.
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

use std::io::{BufRead, BufReader, Lines};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use common::{call, get_key, plain, post, sample, seal};
use serde_json::{Value, json};

struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(arguments: &[&str]) -> (Self, Value) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_harborforge-monitor"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut program = Self { child, lines };
        let ready = program.next();
        assert_eq!(ready["event"], "ready");
        (program, ready)
    }

    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn addr(url: &Value) -> SocketAddr {
    url.as_str().unwrap().trim_start_matches("http://").parse().unwrap()
}

#[test]
fn tells_what_it_accepts_and_does_as_it_is_told() {
    let arguments = ["--control", "127.0.0.1:0", "--capabilities", "ack,resume,batch"];
    let (mut program, ready) = Program::start(&arguments);
    let monitor = addr(&ready["backend_url"]);
    let control = addr(&ready["control"]);
    let tell = |path: &str, body: &str| call(control, "POST", path, "", body.as_bytes());
    let ask = |path: &str| call(control, "GET", path, "", b"").json();
    let document = get_key(monitor).json();
    assert_eq!(document["capabilities"], json!(["ack", "resume", "batch"]));
    let pem = document["public_key_pem"].as_str().unwrap();
    let heartbeat = |challenge: &Value, seq: u64| {
        let mut body = sample("vps.t1", seq);
        let now = std::time::SystemTime::now();
        body["encrypted_payload"] =
            json!(seal(pem, &plain("vps.t1", challenge.as_str().unwrap(), now)));
        post(monitor, &body).status
    };
    assert_eq!(heartbeat(&ready["challenge_uuid"], 1), 200);
    let line = program.next();
    assert_eq!((&line["event"], &line["seq"]), (&json!("accepted"), &json!(1)));
    assert_eq!(line["telemetry"], sample("vps.t1", 1));
    assert_eq!(heartbeat(&json!("unknown"), 2), 403);
    assert_eq!(program.next(), json!({"event": "refused", "reason": "unknown_challenge"}));

    let plan = r#"{"fault":{"kind":"status","status":503},"at":"heartbeat","times":1}"#;
    assert_eq!(tell("/_monitor/fault", plan).status, 200);
    assert_eq!(heartbeat(&ready["challenge_uuid"], 2), 503);
    assert_eq!(tell("/_monitor/fault", r#"{"kind":"hang"}"#).status, 200);
    assert_eq!(tell("/_monitor/heal", "").status, 200);
    assert_eq!(tell("/_monitor/fault", r#"{"kind":"explode"}"#).status, 422);
    let fresh = tell("/_monitor/challenge", "").json()["challenge_uuid"].clone();
    assert_eq!(heartbeat(&fresh, 2), 200);
    assert_eq!(tell("/_monitor/pause", "").status, 200);
    assert!(std::net::TcpStream::connect(monitor).is_err());
    assert_eq!(tell("/_monitor/resume", "").status, 200);
    assert_eq!(tell("/_monitor/clock", r#"{"offset_seconds":600}"#).status, 200);
    assert_eq!(heartbeat(&fresh, 3), 401);
    assert_eq!(ask("/_monitor/counts")["unique"], 2);
    assert_eq!(ask("/_monitor/accepted").as_array().unwrap().len(), 2);
    assert_eq!(ask("/_monitor/requests")[0]["route"], "key");
    assert_eq!(call(control, "GET", "/", "", b"").status, 200);
    assert_eq!(call(control, "GET", "/_monitor/nothing", "", b"").status, 404);
    assert_eq!(call(monitor, "GET", "/_monitor/accepted", "", b"").status, 404);
}

#[test]
fn tls_and_api_keys_come_from_files() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, key) = (dir.path().join("ca.pem"), dir.path().join("key"));
    std::fs::write(&key, "k1\n").unwrap();
    let ca_text = ca.to_str().unwrap();
    let arguments = ["--tls", "--ca-file", ca_text, "--api-key-file", key.to_str().unwrap()];
    let (_program, ready) = Program::start(&arguments);
    assert!(ready["backend_url"].as_str().unwrap().starts_with("https://127.0.0.1:"));
    assert_eq!((&ready["challenge_uuid"], &ready["ca_file"]), (&Value::Null, &json!(ca_text)));
    assert!(std::fs::read_to_string(ca).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
}

#[test]
fn wrong_arguments_and_taken_ports_are_told() {
    let program = || Command::new(env!("CARGO_BIN_EXE_harborforge-monitor"));
    let output = program().arg("--nonsense").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--nonsense"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let output = program().args(["--listen", &addr]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&addr) && said.contains("in use"), "{said}");
}
