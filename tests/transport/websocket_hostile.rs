//! The WebSocket against servers that break its rules on the bytes' level.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::pin::pin;
use std::time::Duration;

use async_tungstenite::tungstenite::handshake::derive_accept_key;
use futures_util::future::{Either, select};
use harborforge_connector::runtime::{self, block_on};
use harborforge_connector::transport::{
    Incoming, Reader, SocketError, UpgradeError, WebSocketTransport, Writer,
};

use crate::server::{PATIENT, Server, finish, hold, read_request};

const PATIENCE: Duration = Duration::from_secs(60);

/// The answer to an upgrade request.
fn switching(request: &str) -> String {
    let key = request
        .lines()
        .find_map(|line| line.strip_prefix("sec-websocket-key: "))
        .unwrap_or_else(|| panic!("no key: {request}"));
    let accept = derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: keep-alive, Upgrade\r\n\
         upgrade: WebSocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
    )
}

/// A server that upgrades, sends `first` in the same breath, and goes on with `script`.
fn upgrading(first: &[u8], script: impl FnOnce(TcpStream) + Send + 'static) -> Server {
    let first = first.to_vec();
    Server::once(move |mut stream| {
        let answer = switching(&read_request(&mut stream));
        let _ = stream.write_all(&[answer.as_bytes(), &first].concat());
        script(stream);
    })
}

async fn open(server: &Server) -> (Reader, Writer) {
    let http = server.transport(PATIENT);
    WebSocketTransport::new(&http).connect().await.unwrap().split()
}

/// What comes of these bytes, sent along with the upgrade.
fn after(bytes: &[u8]) -> Result<Incoming, SocketError> {
    let server = upgrading(bytes, finish);
    block_on(async { open(&server).await.0.next().await })
}

#[test]
fn the_request_is_a_proper_upgrade() {
    let (seen, requests) = std::sync::mpsc::channel();
    let server = Server::once(move |mut stream| {
        seen.send(read_request(&mut stream)).unwrap();
        finish(stream);
    });
    let http = server.transport(PATIENT);
    block_on(WebSocketTransport::new(&http).connect()).unwrap_err();
    let request = requests.recv().unwrap();
    assert!(request.starts_with("GET /monitor/server/ws HTTP/1.1\r\n"), "{request}");
    for line in [
        format!("host: {}\r\n", server.address),
        "connection: Upgrade\r\n".to_owned(),
        "upgrade: websocket\r\n".to_owned(),
        "sec-websocket-version: 13\r\n".to_owned(),
        "user-agent: harborforge-connector/".to_owned(),
    ] {
        assert!(request.contains(&line), "{line} in {request}");
    }
    assert!(!request.contains("extensions") && !request.contains("cookie"), "{request}");
}

#[test]
fn an_improper_101_is_no_websocket() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        let server = Server::answering(answer);
        let http = server.transport(PATIENT);
        let error = block_on(WebSocketTransport::new(&http).connect()).unwrap_err();
        assert!(matches!(error, UpgradeError::Improper(_)), "{answer}: {error:?}");
    }
}

#[test]
fn what_comes_along_with_the_upgrade_is_not_lost() {
    assert_eq!(after(b"\x81\x02hi").unwrap(), Incoming::Text("hi".to_owned()));
    assert_eq!(after(b"\x8a\x0812345678").unwrap(), Incoming::Pong(*b"12345678"));
    assert_eq!(after(b"\x8a\x0212").unwrap(), Incoming::Alive, "no Pong to a Ping of ours");
    let closed = Incoming::Closed { code: Some(1013), reason: "later".to_owned() };
    assert_eq!(after(b"\x88\x07\x03\xf5later").unwrap(), closed);
    assert_eq!(after(b"\x88\x00").unwrap(), Incoming::Closed { code: None, reason: String::new() });
}

#[test]
fn frames_that_break_the_rules_end_the_link() {
    for (what, bytes) in [
        ("HTTP in place of frames", &b"HTTP/1.1 200 OK\r\n\r\n"[..]),
        ("a masked frame", b"\x81\x82\x00\x00\x00\x00hi"),
        ("reserved bits", b"\xc1\x02hi"),
        ("an unknown opcode", b"\x83\x02hi"),
        ("text that is not UTF-8", b"\x81\x02\xff\xfe"),
        ("UTF-8 cut off by the last fragment", b"\x01\x01\xc3\x80\x01x"),
        ("a continuation of nothing", b"\x80\x02hi"),
        ("a new message within another", b"\x01\x01h\x81\x01i"),
        ("a fragmented Ping", b"\x09\x00"),
        ("a Ping too long", b"\x89\x7e\x00\x7exxxxxxxxxx"),
        ("a close with half a code", b"\x88\x01\x03"),
    ] {
        // A frame whose end does not come must not be waited for longer than the connection.
        let result = after(bytes);
        assert!(
            matches!(result, Err(SocketError::Protocol { .. } | SocketError::Lost { .. })),
            "{what}: {result:?}"
        );
    }
    for length in [1 << 20 | 1, u64::MAX >> 1, u64::MAX] {
        // Told by its length alone: not a byte of it is waited for or made room for.
        let head = [&b"\x81\x7f"[..], &length.to_be_bytes()].concat();
        let result = after(&head);
        assert!(matches!(result, Err(SocketError::TooLarge { .. })), "{length}: {result:?}");
    }
}

#[test]
fn a_ping_is_answered_while_only_reading() {
    let server = upgrading(b"\x89\x05hello", |mut stream| {
        let mut pong = [0; 11];
        stream.read_exact(&mut pong).unwrap();
        let mask = &pong[2..6];
        let payload: Vec<u8> = pong[6..].iter().zip(mask).map(|(a, b)| a ^ b).collect();
        let fits = pong[..2] == [0x8a, 0x85] && payload == b"hell";
        stream.write_all(if fits { b"\x81\x03yes" } else { b"\x81\x02no" }).unwrap();
        hold(stream);
    });
    block_on(async {
        let (mut reader, _writer) = open(&server).await;
        let answer = async {
            assert_eq!(reader.next().await.unwrap(), Incoming::Alive);
            reader.next().await.unwrap()
        };
        let answer = runtime::timeout(PATIENCE, answer).await.expect("the Pong went out");
        assert_eq!(answer, Incoming::Text("yes".to_owned()));
    });
}

/// A server that upgrades and then only writes, as fast as it can.
fn flooding(first: &[u8], frames: Vec<u8>) -> Server {
    upgrading(first, move |mut stream| while stream.write_all(&frames).is_ok() {})
}

#[test]
fn a_flood_leaves_room_for_others() {
    // Short messages; and a message of empty fragments that never ends.
    for (first, frame) in [(&b""[..], &b"\x81\x01x"[..]), (b"\x01\x00", b"\x00\x00")] {
        let server = flooding(first, frame.repeat(10_000));
        block_on(async {
            let (mut reader, _writer) = open(&server).await;
            let read = async { while reader.next().await.is_ok() {} };
            let timer = runtime::sleep(Duration::from_millis(50));
            let timer_wins = matches!(select(pin!(read), pin!(timer)).await, Either::Right(_));
            assert!(timer_wins, "a timer on the same thread has its turn");
        });
    }
}

/// Bytes that two sockets can take between a writer and a peer that does not read.
fn kernel_buffers() -> usize {
    let largest = |name: &str| {
        let limits = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok()?;
        limits.split_whitespace().last()?.parse::<usize>().ok()
    };
    largest("tcp_rmem").unwrap_or(32 << 20) + largest("tcp_wmem").unwrap_or(32 << 20)
}

#[test]
fn pings_without_end_whose_answers_are_not_read_end_the_link() {
    // The largest Pings: their Pongs fill the kernel's buffers, and then ours up to its limit.
    let pings = [&[0x89, 125][..], &[b'p'; 125]].concat().repeat(500);
    let enough = (kernel_buffers() + (4 << 20)) / 131;
    let attempt = || {
        let server = flooding(b"", pings.clone());
        block_on(async {
            let (mut reader, mut writer) = open(&server).await;
            for _ in 0..enough {
                let next = runtime::timeout(Duration::from_secs(5), reader.next()).await?;
                assert_eq!(next.unwrap(), Incoming::Alive);
            }
            Some(writer.feed(vec![b' '; 700_000]).await)
        })
    };
    // A kernel that is short of memory for a window it has promised drops segments, and the two
    // ends may stall each other for minutes: that is TCP's, and another connection may fare better.
    let result = (0..5).find_map(|_| attempt()).expect("a connection that does not stall");
    assert!(matches!(result, Err(SocketError::Flooded { .. })), "{result:?}");
}
