//! What goes over the wire, and what well-behaved servers may answer.

use std::io::Write as _;
use std::sync::mpsc;
use std::time::{Duration, UNIX_EPOCH};

use harborforge_connector::runtime::block_on;
use harborforge_connector::sample::CONNECTOR_VERSION;
use harborforge_connector::transport::{Deadlines, Endpoint, HttpTransport, TransportError};
use secrecy::SecretString;

use crate::server::{PATIENT, Server, finish, read_request};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

#[test]
fn a_heartbeat_is_posted_as_the_protocol_says() {
    let (seen, requests) = mpsc::channel();
    let server = Server::once(move |mut stream| {
        seen.send(read_request(&mut stream)).unwrap();
        stream.write_all(OK).unwrap();
        finish(stream);
    });
    let url = format!("http://{}/harbor", server.address);
    let transport = HttpTransport::new(Endpoint::parse(&url).unwrap()).unwrap();
    let key = SecretString::from("k-123");
    let answer = block_on(transport.heartbeat(b"{\"seq\":1}".to_vec(), Some(&key))).unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"{}"[..]));
    let request = requests.recv().unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "{\"seq\":1}");
    let mut lines: Vec<String> = head.lines().map(str::to_owned).collect();
    assert_eq!(lines.remove(0), "POST /harbor/monitor/server/heartbeat HTTP/1.1");
    lines.sort();
    assert_eq!(
        lines,
        [
            "content-length: 9".to_owned(),
            "content-type: application/json".to_owned(),
            format!("host: {}", server.address),
            format!("user-agent: harborforge-connector/{CONNECTOR_VERSION}"),
            "x-api-key: k-123".to_owned(),
        ]
    );
}

#[test]
fn the_key_document_is_fetched_without_a_body_or_a_key() {
    let (seen, requests) = mpsc::channel();
    let server = Server::once(move |mut stream| {
        seen.send(read_request(&mut stream)).unwrap();
        stream.write_all(OK).unwrap();
        finish(stream);
    });
    assert_eq!(server.get().unwrap().status, 200);
    let request = requests.recv().unwrap();
    assert!(request.starts_with("GET /monitor/public/server-public-key HTTP/1.1\r\n"), "{request}");
    assert!(!request.contains("x-api-key"), "{request}");
    assert!(request.ends_with("\r\n\r\n"), "{request}");
}

#[test]
fn an_api_key_that_breaks_the_header_is_refused_and_not_shown() {
    let server = Server::new(Vec::new());
    for key in ["schlüssel-geheim", "geheim\r\nx-evil: 1"] {
        let transport = server.transport(PATIENT);
        let error =
            block_on(transport.heartbeat(Vec::new(), Some(&SecretString::from(key)))).unwrap_err();
        assert!(matches!(error, TransportError::Request { .. }), "{error:?}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("geheim"), "{shown}");
        assert!(shown.contains("API key"), "{shown}");
    }
    assert_eq!(server.accepted(), 0);
}

#[test]
fn headers_that_matter_are_handed_on() {
    let server = Server::answering(
        "HTTP/1.1 503 Later\r\nretry-after: 120\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         age: 0\r\nx-odd: \u{fc}\r\ncontent-length: 4\r\n\r\nbusy",
    );
    let answer = server.get().unwrap();
    assert_eq!(answer.status, 503);
    assert_eq!(answer.body, b"busy");
    assert_eq!(answer.retry_after.as_deref(), Some("120"));
    assert_eq!(answer.date, Some(UNIX_EPOCH + Duration::from_secs(784_111_777)));
    assert_eq!(answer.location, None);
    assert!(!answer.resent);
}

#[test]
fn a_date_out_of_a_cache_is_no_clock() {
    for age in ["1", "9999", "x"] {
        let server = Server::answering(format!(
            "HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\nage: {age}\r\n\
             content-length: 0\r\n\r\n"
        ));
        assert_eq!(server.get().unwrap().date, None, "{age}");
    }
}

#[test]
fn every_status_is_an_answer_registered_or_not() {
    for status in [200_u16, 204, 299, 304, 401, 409, 422, 499, 520, 599, 799, 999] {
        let length = if matches!(status, 204 | 304) { "" } else { "content-length: 0\r\n" };
        let server = Server::answering(format!("HTTP/1.1 {status} X\r\n{length}\r\n"));
        assert_eq!(server.get().unwrap().status, status);
    }
}

#[test]
fn redirects_are_not_followed() {
    let other = Server::answering(OK);
    for status in [301, 302, 303, 307, 308] {
        let server = Server::answering(format!(
            "HTTP/1.1 {status} Moved\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n",
            other.address
        ));
        let answer = server.get().unwrap();
        assert_eq!(answer.status, status);
        assert_eq!(answer.location, Some(format!("http://{}/", other.address)));
    }
    assert_eq!(other.accepted(), 0);
}

#[test]
fn bodies_end_in_every_way_http_allows() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nt: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\n\r\nhello",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    ] {
        assert_eq!(Server::answering(answer).get().unwrap().body, b"hello", "{answer}");
    }
}

#[test]
fn a_connection_is_used_again() {
    let server = Server::once(|mut stream| {
        for _ in 0..3 {
            read_request(&mut stream);
            stream.write_all(OK).unwrap();
        }
        // Without a body in the answer the connection lives on too.
        read_request(&mut stream);
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        read_request(&mut stream);
        stream.write_all(OK).unwrap();
        finish(stream);
    });
    let transport = server.transport(PATIENT);
    block_on(async {
        for status in [200, 200, 200, 204, 200] {
            // A clone shares the connection.
            let answer = transport.clone().heartbeat(vec![b'x'; 1000], None).await.unwrap();
            assert_eq!((answer.status, answer.resent), (status, false));
        }
    });
    assert_eq!(server.accepted(), 1);
}

#[test]
fn a_connection_is_not_used_again_when_told_or_when_old() {
    let close = Server::new(
        (0..2)
            .map(|_| -> crate::server::Script {
                Box::new(|mut stream| {
                    read_request(&mut stream);
                    let answer =
                        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                    stream.write_all(answer).unwrap();
                    finish(stream);
                })
            })
            .collect(),
    );
    let old = Server::new(
        (0..2)
            .map(|_| -> crate::server::Script {
                Box::new(|mut stream| {
                    read_request(&mut stream);
                    stream.write_all(OK).unwrap();
                    finish(stream);
                })
            })
            .collect(),
    );
    let never_idle = Deadlines { idle: Duration::ZERO, ..PATIENT };
    for (server, deadlines) in [(&close, PATIENT), (&old, never_idle)] {
        let transport = server.transport(deadlines);
        block_on(async {
            for _ in 0..2 {
                assert_eq!(transport.key_document().await.unwrap().status, 200);
            }
        });
        assert_eq!(server.accepted(), 2);
    }
}

#[test]
fn a_kept_connection_that_dies_is_replaced_once() {
    let (seen, requests) = mpsc::channel();
    let again = seen.clone();
    let server = Server::new(vec![
        Box::new(move |mut stream| {
            read_request(&mut stream);
            stream.write_all(OK).unwrap();
            // Takes the second request and dies of it.
            seen.send(read_request(&mut stream)).unwrap();
        }),
        Box::new(move |mut stream| {
            again.send(read_request(&mut stream)).unwrap();
            stream.write_all(OK).unwrap();
            finish(stream);
        }),
    ]);
    let transport = server.transport(PATIENT);
    block_on(async {
        assert!(!transport.heartbeat(b"first".to_vec(), None).await.unwrap().resent);
        let answer = transport.heartbeat(b"second".to_vec(), None).await.unwrap();
        assert_eq!((answer.status, answer.resent), (200, true));
    });
    let requests: Vec<String> = requests.iter().collect();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0], requests[1]);
    assert_eq!(server.accepted(), 2);
}

#[test]
fn a_second_death_or_a_begun_answer_is_not_tried_again() {
    // Dies of the second request, and the fresh connection dies too.
    let twice = Server::new(vec![
        Box::new(|mut stream| {
            read_request(&mut stream);
            stream.write_all(OK).unwrap();
            read_request(&mut stream);
        }),
        Box::new(|mut stream| {
            read_request(&mut stream);
        }),
    ]);
    // Dies in the middle of the second answer's head.
    let begun = Server::new(vec![Box::new(|mut stream| {
        read_request(&mut stream);
        stream.write_all(OK).unwrap();
        read_request(&mut stream);
        stream.write_all(b"HTTP/1.1 200 O").unwrap();
        finish(stream);
    })]);
    for (server, connections) in [(twice, 2), (begun, 1)] {
        let transport = server.transport(PATIENT);
        block_on(async {
            transport.key_document().await.unwrap();
            let error = transport.key_document().await.unwrap_err();
            assert!(matches!(error, TransportError::Closed { .. }), "{error:?}");
        });
        assert_eq!(server.accepted(), connections);
    }
}

#[test]
fn the_connection_ends_with_the_client() {
    let (closed, wait) = mpsc::channel();
    let server = Server::once(move |mut stream| {
        read_request(&mut stream);
        stream.write_all(OK).unwrap();
        crate::server::hold(stream);
        closed.send(()).unwrap();
    });
    let transport = server.transport(PATIENT);
    block_on(transport.key_document()).unwrap();
    assert!(wait.try_recv().is_err());
    drop(transport);
    wait.recv_timeout(Duration::from_secs(30)).unwrap();
}
