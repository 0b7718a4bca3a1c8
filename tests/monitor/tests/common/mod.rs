//! A small client of plain sockets, which shares no code with the Monitor's side.

pub mod link;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harborforge_monitor::{Monitor, Options, test_key};
use rsa::rand_core::OsRng;
use rsa::{Oaep, RsaPublicKey, pkcs8::DecodePublicKey};
use serde_json::{Value, json};
use sha2::Sha256;

/// How long anything may take; only reached when something is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An epoch.
pub const EPOCH: &str = "0198f0c2-0000-4000-8000-0000000000aa";

/// Runs a test's future.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    async_std::task::block_on(future)
}

/// Options with the shared key.
pub fn options() -> Options {
    Options { key: Some(test_key()), ..Options::default() }
}

/// An answer as it came over the wire.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<String> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }
}

/// A connection that was made.
pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The bytes of a request.
pub fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Everything that comes back until the Monitor closes.
pub fn exchange(addr: SocketAddr, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = connect(addr);
    stream.write_all(bytes)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Reads the bytes of an answer.
pub fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head") + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: bytes[end..].to_vec() }
}

/// A request and its answer, on a connection of their own.
pub fn call(addr: SocketAddr, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    parse(&exchange(addr, &request(method, path, headers, body)).unwrap())
}

pub fn get_key(addr: SocketAddr) -> Answer {
    call(addr, "GET", "/monitor/public/server-public-key", "", b"")
}

pub fn post(addr: SocketAddr, body: &Value) -> Answer {
    let headers = "content-type: application/json\r\n";
    call(addr, "POST", "/monitor/server/heartbeat", headers, body.to_string().as_bytes())
}

/// A proof's plain text at this time, with a fresh nonce.
pub fn plain(identifier: &str, challenge: &str, at: SystemTime) -> String {
    let ts = humantime::format_rfc3339_seconds(at);
    let nonce = &uuid::Uuid::new_v4().simple().to_string()[..22];
    format!(
        r#"{{"identifier":"{identifier}","challenge_uuid":"{challenge}","nonce":"{nonce}","ts":"{ts}"}}"#
    )
}

/// Encrypts for a key.
pub fn seal(pem: &str, plain: &str) -> String {
    let key = RsaPublicKey::from_public_key_pem(pem).unwrap();
    STANDARD.encode(key.encrypt(&mut OsRng, Oaep::new::<Sha256>(), plain.as_bytes()).unwrap())
}

/// A proof for this Monitor, now.
pub fn proof(monitor: &Monitor, identifier: &str, challenge: &str) -> String {
    seal(&monitor.public_key_pem(), &plain(identifier, challenge, SystemTime::now()))
}

/// A telemetry object as the protocol's section 6 shows it.
pub fn sample(identifier: &str, seq: u64) -> Value {
    json!({
        "identifier": identifier, "openclaw_version": null, "cpu_pct": 12.5, "mem_pct": 41.2,
        "disk_pct": 62.0, "swap_pct": 0.0, "uptime_seconds": 12345, "load_avg": [0.12, 0.09, 0.03],
        "agents": [{"id": "a1", "name": "agent", "status": "running"}],
        "last_seen_at": "2026-03-11T21:00:00Z", "connector_version": "0.1.0",
        "sample_id": format!("{EPOCH}-{seq}"), "seq": seq
    })
}

/// A single heartbeat's body.
pub fn heartbeat(monitor: &Monitor, challenge: &str, seq: u64) -> Value {
    let mut body = sample("vps.t1", seq);
    body["encrypted_payload"] = json!(proof(monitor, "vps.t1", challenge));
    body
}

/// A batch's body.
pub fn batch(monitor: &Monitor, challenge: &str, samples: &[Value]) -> Value {
    let proof = proof(monitor, "vps.t1", challenge);
    json!({"identifier": "vps.t1", "encrypted_payload": proof, "samples": samples})
}
