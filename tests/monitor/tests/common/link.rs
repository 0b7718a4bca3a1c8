//! A plain WebSocket client.

use std::collections::BTreeSet;

use async_std::net::TcpStream;
use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::{Error, Message};
use futures_util::StreamExt;
use harborforge_monitor::{Capability, Monitor, Options};
use serde_json::{Value, json};

use super::{options, proof, sample};

pub type Socket = WebSocketStream<TcpStream>;

pub async fn open(monitor: &Monitor) -> Result<Socket, Error> {
    let url = format!("{}/monitor/server/ws", monitor.url().replace("http", "ws"));
    let tcp = TcpStream::connect(monitor.addr()).await.unwrap();
    Ok(async_tungstenite::client_async(url, tcp).await?.0)
}

pub async fn say(socket: &mut Socket, message: &Value) {
    socket.send(Message::text(message.to_string())).await.unwrap();
}

/// The next message that is not a Ping or Pong.
pub async fn hear(socket: &mut Socket) -> Value {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Binary(_) | Message::Close(_) | Message::Frame(_) => panic!("not a text"),
        }
    }
}

pub async fn shake_hands(monitor: &Monitor, proof: &str) -> (Socket, Value) {
    let mut socket = open(monitor).await.unwrap();
    say(&mut socket, &json!({"encrypted_payload": proof})).await;
    let answer = hear(&mut socket).await;
    (socket, answer)
}

pub async fn enrolled(monitor: &Monitor) -> (Socket, Value) {
    let challenge = monitor.issue_challenge();
    let (mut socket, answer) = shake_hands(monitor, &proof(monitor, "vps.t1", &challenge)).await;
    assert_eq!(answer["ok"], true);
    say(&mut socket, &json!({"event": "server.hello", "payload": {"identifier": "vps.t1"}})).await;
    (socket, answer)
}

pub fn metrics(seq: u64) -> Value {
    json!({"event": "server.metrics", "seq": seq, "payload": sample("vps.t1", seq)})
}

pub async fn start(capabilities: &[Capability]) -> Monitor {
    let capabilities: BTreeSet<_> = capabilities.iter().copied().collect();
    Monitor::start(Options { capabilities, ..options() }).await.unwrap()
}
