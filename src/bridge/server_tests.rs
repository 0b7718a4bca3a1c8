//! Connections that keep to the limits, and some that do not.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use futures_util::future::select;

use super::*;
use crate::bridge::body;

/// Long enough that only something broken reaches it.
const NEVER: Duration = Duration::from_secs(100);

fn patient() -> Limits {
    Limits { clients: 4, head: NEVER, connection: NEVER, last_answer: NEVER }
}

/// Answers with the path and the body, of which little is read.
fn echo(request: Request<Incoming>, within: Duration) -> Answering {
    async move {
        let path = request.uri().path().to_owned();
        assert_ne!(path, "/panic", "the panic this test wants");
        let said = match body::read(request.into_body(), 64, within).await {
            Ok(body) => String::from_utf8_lossy(&body).into_owned(),
            Err(error) => error.to_string(),
        };
        // More than the kernel takes of an answer nobody reads.
        let fill = if path == "/large" { "x".repeat(32 << 20) } else { String::new() };
        Ok(Response::new(Full::from(format!("{path} {said}{fill}."))))
    }
    .boxed()
}

/// A server for the time of a test, which runs on a thread where it may block.
fn served(limits: Limits, body_within: Duration, test: impl FnOnce(SocketAddr) + Send + 'static) {
    runtime::block_on(async {
        let listener = runtime::listen_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = move |request| echo(request, body_within);
        let serving = serve(&listener, limits, &answer).boxed_local();
        select(serving, runtime::spawn_blocking(move || test(address))).await;
    });
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(NEVER)).unwrap();
    stream
}

fn say(mut stream: &TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
}

/// Everything until the server closes.
fn to_the_end(mut stream: &TcpStream) -> String {
    let mut text = Vec::new();
    // One that was reset has no end, but what came before counts.
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Everything up to this.
fn until(mut stream: &TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{text}");
        text.push(char::from(byte[0]));
    }
    text
}

/// Asks until there is an answer: a server with short limits closes on a client that was held up.
fn insist(address: SocketAddr, request: &str) -> String {
    loop {
        let mut stream = connect(address);
        if stream.write_all(request.as_bytes()).is_ok() {
            let text = to_the_end(&stream);
            if !text.is_empty() {
                return text;
            }
        }
    }
}

#[test]
fn requests_of_one_connection_are_answered_in_order() {
    served(patient(), NEVER, |address| {
        let stream = connect(address);
        say(&stream, "GET /a HTTP/1.1\r\n\r\nPOST /b HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi");
        say(&stream, "POST /c HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nho\r\n0\r\n\r\n");
        say(&stream, "GET /d HTTP/1.1\r\nconnection: close\r\n\r\n");
        let text = to_the_end(&stream);
        let places: Vec<_> =
            ["/a .", "/b hi.", "/c ho.", "/d ."].iter().map(|part| text.find(part)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{text}");
    });
}

#[test]
fn one_that_sends_no_whole_head_is_closed() {
    let limits = Limits { head: Duration::from_millis(100), ..patient() };
    served(limits, NEVER, |address| {
        let (silent, mut half) = (connect(address), connect(address));
        // Held up for so long that it was closed already, it proves as much.
        let _ = half.write_all(b"GET / HTTP/1.1\r\nx: ");
        assert_eq!(to_the_end(&silent), "");
        assert!(!to_the_end(&half).contains("200"));
        assert!(insist(address, "GET /idle HTTP/1.1\r\n\r\n").ends_with("/idle ."));
    });
}

#[test]
fn a_head_that_is_too_long_is_refused() {
    served(patient(), NEVER, |address| {
        for head in [
            format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(MAX_HEAD_BYTES)),
            format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(MAX_HEADERS + 1)),
            format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(MAX_HEAD_BYTES)),
        ] {
            let stream = connect(address);
            say(&stream, &head);
            let text = to_the_end(&stream);
            assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
        }
        let stream = connect(address);
        say(&stream, "\u{1}\u{2}\r\n\r\n");
        assert!(to_the_end(&stream).starts_with("HTTP/1.1 400 "));
    });
}

#[test]
fn a_body_that_is_large_slow_or_cut_off_is_refused() {
    fn refused(address: SocketAddr, request: &str, because: &str) {
        let stream = connect(address);
        say(&stream, request);
        let text = to_the_end(&stream);
        assert!(text.contains(because), "{request}: {text}");
    }
    let post = "POST / HTTP/1.1\r\nconnection: close\r\n";
    served(patient(), NEVER, move |address| {
        let refused = |request: &str, because: &str| refused(address, request, because);
        let large = "at most 64 bytes";
        let body = "x".repeat(65);
        refused(&format!("{post}content-length: 65\r\n\r\n{body}"), large);
        // It is not waited for either.
        refused(&format!("{post}content-length: 99999999999\r\n\r\n"), large);
        let chunked = format!("{post}transfer-encoding: chunked\r\n\r\n");
        refused(&format!("{chunked}41\r\n{body}\r\n0\r\n\r\n"), large);
        let endless = "3f\r\n".to_owned() + &"x".repeat(63) + "\r\n";
        refused(&format!("{chunked}{}", endless.repeat(1000)), large);
        refused(&format!("{chunked}zz\r\n"), "incomplete");
    });
    served(patient(), Duration::from_millis(100), move |address| {
        let slow = format!("{post}content-length: 10\r\n\r\nxx");
        refused(address, &slow, "did not come within 100ms");
    });
}

#[test]
fn more_clients_than_there_are_places_wait() {
    served(Limits { clients: 2, ..patient() }, NEVER, |address| {
        let (one, two) = (connect(address), connect(address));
        for stream in [&one, &two] {
            say(stream, "GET /held HTTP/1.1\r\n\r\n");
            until(stream, "/held .");
        }
        let waiting = connect(address);
        say(&waiting, "GET /waited HTTP/1.1\r\nconnection: close\r\n\r\n");
        // Both are served on, so the third is not yet.
        for stream in [&one, &two] {
            say(stream, "GET /again HTTP/1.1\r\n\r\n");
            until(stream, "/again .");
        }
        waiting.set_nonblocking(true).unwrap();
        assert!((&waiting).read(&mut [0]).is_err(), "it was answered although there was no place");
        waiting.set_nonblocking(false).unwrap();
        drop(one);
        assert!(to_the_end(&waiting).ends_with("/waited ."));
    });
}

#[test]
fn a_connection_ends_even_if_nothing_is_read() {
    let short = Duration::from_millis(100);
    let limits = Limits { clients: 1, connection: short, last_answer: short, ..patient() };
    served(limits, NEVER, |address| {
        // The only place is taken by a client that reads nothing: who is answered next has its place.
        let mut deaf = connect(address);
        let _ = deaf.write_all(b"GET /large HTTP/1.1\r\n\r\n");
        assert!(insist(address, "GET /last HTTP/1.1\r\n\r\n").ends_with("/last ."));
        assert!(to_the_end(&deaf).len() < 32 << 20);
    });
}

#[test]
fn a_panic_costs_its_own_connection_alone() {
    served(patient(), NEVER, |address| {
        let (held, broken) = (connect(address), connect(address));
        say(&held, "GET /held HTTP/1.1\r\n\r\n");
        until(&held, "/held .");
        say(&broken, "GET /panic HTTP/1.1\r\n\r\n");
        assert_eq!(to_the_end(&broken), "");
        say(&held, "GET /again HTTP/1.1\r\n\r\n");
        until(&held, "/again .");
    });
}

#[test]
fn all_connections_end_with_the_future() {
    let held = Arc::new(std::sync::Mutex::new(None));
    let keeper = held.clone();
    served(patient(), NEVER, move |address| {
        let stream = connect(address);
        say(&stream, "GET /held HTTP/1.1\r\n\r\n");
        until(&stream, "/held .");
        *keeper.lock().unwrap() = Some(stream);
    });
    let stream = held.lock().unwrap().take().unwrap();
    assert_eq!(to_the_end(&stream), "");
}
