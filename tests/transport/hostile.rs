//! Servers that hang, lie, flood or fall over: each ends in a typed error, soon and cheaply.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use harborforge_connector::runtime::block_on;
use harborforge_connector::transport::{
    Answer, AnswerPart, Endpoint, HttpTransport, Phase, TransportError,
};

use crate::server::{HURRIED, PATIENT, Server, finish, hold, read_request, refusing};

/// Fetches from a server with little time.
fn hurried(server: &Server) -> Result<Answer, TransportError> {
    let begun = Instant::now();
    let result = block_on(server.transport(HURRIED).key_document());
    assert!(begun.elapsed() < Duration::from_secs(20), "took {:?}", begun.elapsed());
    result
}

/// A server that writes something again and again until the client has had enough.
fn flooding(head: &'static str, again: &'static str) -> Server {
    Server::once(move |mut stream| {
        read_request(&mut stream);
        let _ = stream.write_all(head.as_bytes());
        while stream.write_all(again.as_bytes()).is_ok() {}
    })
}

fn phase(result: Result<Answer, TransportError>) -> Phase {
    match result {
        Err(TransportError::Timeout { phase, .. }) => phase,
        other => panic!("a timeout was expected, not {other:?}"),
    }
}

#[test]
fn silence_ends_at_the_deadline() {
    assert_eq!(phase(hurried(&Server::once(hold))), Phase::Answer);
    let body = Server::once(|mut stream| {
        read_request(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel").unwrap();
        hold(stream);
    });
    let result = hurried(&body);
    let Err(error) = &result else { panic!("{result:?}") };
    assert_eq!(
        error.to_string(),
        format!("{} took longer than 1 s while its answer was being read", body.address)
    );
    assert_eq!(phase(result), Phase::Body);
}

#[test]
fn trickles_end_at_the_deadline() {
    for (head, expected) in
        [("HTTP/1.1 200 OK\r\nx: ", Phase::Answer), ("HTTP/1.1 200 OK\r\n\r\n", Phase::Body)]
    {
        let server = Server::once(move |mut stream| {
            stream.set_nodelay(true).unwrap();
            read_request(&mut stream);
            let _ = stream.write_all(head.as_bytes());
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        assert_eq!(phase(hurried(&server)), expected);
    }
}

#[test]
fn a_flood_of_interim_answers_ends_at_the_deadline() {
    assert_eq!(phase(hurried(&flooding("", "HTTP/1.1 100 Continue\r\n\r\n"))), Phase::Answer);
}

#[test]
fn a_server_that_reads_nothing_ends_at_the_deadline() {
    let server = Server::once(|stream| {
        std::thread::sleep(Duration::from_secs(2));
        drop(stream);
    });
    let transport = server.transport(HURRIED);
    // More than the sockets' buffers take.
    let result = block_on(transport.heartbeat(vec![b'x'; 32 << 20], None));
    assert_eq!(phase(result), Phase::Answer);
}

#[test]
fn answers_cut_short_are_closed_connections() {
    for (answer, expected) in [
        ("", Phase::Answer),
        ("HTTP/1.1 200 O", Phase::Answer),
        ("HTTP/1.1 200 OK\r\ncontent-le", Phase::Answer),
        ("HTTP/1.1 100 Continue\r\n\r\n", Phase::Answer),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel", Phase::Body),
        ("HTTP/1.1 422 No\r\ncontent-length: 5\r\n\r\nhel", Phase::Body),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel", Phase::Body),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", Phase::Body),
    ] {
        let server = Server::answering(answer);
        let error = server.get().unwrap_err();
        let closed = matches!(&error, TransportError::Closed { phase, .. } if *phase == expected);
        assert!(closed, "{answer:?}: {error:?}");
        assert!(error.to_string().contains(&server.address.to_string()), "{error}");
    }
}

#[test]
fn a_reset_is_a_closed_connection() {
    let server = Server::once(|stream: TcpStream| {
        // Closed over unread bytes: the client gets a reset.
        let mut one = [0];
        stream.peek(&mut one).unwrap();
    });
    let error = server.get().unwrap_err();
    assert!(matches!(error, TransportError::Closed { phase: Phase::Answer, .. }), "{error:?}");
}

#[test]
fn a_refused_port_names_the_address() {
    let (address, _hold) = refusing();
    let endpoint = Endpoint::parse(&format!("http://{address}")).unwrap();
    let transport = HttpTransport::new(endpoint.with_deadlines(PATIENT)).unwrap();
    let error = block_on(transport.key_document()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot connect to {address}: {address} refuses connections")
    );
}

#[test]
fn a_body_over_the_limit_is_not_an_answer_when_it_matters() {
    let long = "x".repeat(64 * 1024);
    let at_limit =
        Server::answering(format!("HTTP/1.1 200 OK\r\ncontent-length: 65536\r\n\r\n{long}"));
    assert_eq!(at_limit.get().unwrap().body.len(), 65536);

    let chunk = "1000\r\n".to_owned() + &"x".repeat(4096) + "\r\n";
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}1\r\nx\r\n0\r\n\r\n",
        chunk.repeat(16)
    );
    for server in [
        Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 65537\r\n\r\n"),
        Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 9223372036854775807\r\n\r\n"),
        Server::answering(chunked),
        Server::answering(format!("HTTP/1.1 200 OK\r\n\r\n{long}x")),
        flooding("HTTP/1.1 200 OK\r\n\r\n", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
    ] {
        let error = server.get().unwrap_err();
        let body = AnswerPart::Body;
        assert!(
            matches!(&error, TransportError::TooLarge { part, limit: 65536, .. } if *part == body),
            "{error:?}"
        );
    }
}

#[test]
fn a_refusal_counts_however_long_its_body_is() {
    for server in [
        flooding("HTTP/1.1 422 No\r\nretry-after: 7\r\n\r\n", "{\"detail\":\"no\"}"),
        flooding("HTTP/1.1 422 No\r\nretry-after: 7\r\ncontent-length: 999999999\r\n\r\n", "xxxx"),
    ] {
        let transport = server.transport(PATIENT);
        let answer = block_on(transport.key_document()).unwrap();
        assert_eq!((answer.status, answer.body.len()), (422, 64 * 1024));
        assert_eq!(answer.retry_after.as_deref(), Some("7"));
        // The connection is in the middle of something and is not used again.
        let _ = block_on(transport.key_document());
        assert_eq!(server.accepted(), 2);
    }
}

#[test]
fn heads_have_limits() {
    let many = "x: y\r\n".repeat(200);
    for server in [
        flooding("HTTP/1.1 200 OK\r\n", "x-flood: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n"),
        flooding("HTTP/1.1 200 OK\r\nx-endless: ", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        flooding("HTTP/1.1 200 ", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        Server::answering(format!("HTTP/1.1 200 OK\r\n{many}content-length: 0\r\n\r\n")),
    ] {
        let error = server.get().unwrap_err();
        let head = AnswerPart::Head;
        assert!(
            matches!(&error, TransportError::TooLarge { part, .. } if *part == head),
            "{error:?}"
        );
    }
}

#[test]
fn what_is_not_http_is_said_to_be_none() {
    for answer in [
        "SSH-2.0-OpenSSH_9.6\r\n",
        "\u{0}\u{1}\u{2}\u{3}garbage garbage garbage\r\n\r\n",
        "220 mail.example ESMTP\r\n",
        "<html></html>",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbroken header\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    ] {
        let error = Server::answering(answer).get().unwrap_err();
        assert!(matches!(error, TransportError::Http { .. }), "{answer:?}: {error:?}");
        assert!(error.to_string().contains("backend_url"), "{error}");
    }
}

#[test]
fn bytes_nobody_asked_for_are_never_taken_for_an_answer() {
    let good = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n";
    let server = Server::new(vec![
        Box::new(move |mut stream| {
            read_request(&mut stream);
            // A second answer, before the second question.
            let both = format!("{good}true{good}evil");
            stream.write_all(both.as_bytes()).unwrap();
            finish(stream);
        }),
        Box::new(move |mut stream| {
            read_request(&mut stream);
            stream.write_all(format!("{good}fine").as_bytes()).unwrap();
            finish(stream);
        }),
    ]);
    let transport = server.transport(PATIENT);
    block_on(async {
        assert_eq!(transport.key_document().await.unwrap().body, b"true");
        assert_eq!(transport.key_document().await.unwrap().body, b"fine");
    });
}
