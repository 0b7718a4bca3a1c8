//! Through a CONNECT proxy: with and without TLS behind it, with and without credentials, and
//! proxies that refuse, hang or lie.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harborforge_connector::runtime::block_on;
use harborforge_connector::transport::{
    Answer, Deadlines, Endpoint, HttpTransport, Phase, Proxy, ProxyFault, Target, TransportError,
};
use secrecy::SecretString;
use url::Host;

use crate::server::{HURRIED, PATIENT, Server, hold, read_request, refusing};
use crate::tls::{self, Authority};

/// A proxy that opens one tunnel to `target` after saying `answer`, and tells what it was asked.
pub fn tunnelling(target: SocketAddr, answer: &'static str) -> (Server, mpsc::Receiver<String>) {
    let (asked, requests) = mpsc::channel();
    let server = Server::once(move |mut client| {
        asked.send(read_request(&mut client)).unwrap();
        client.write_all(answer.as_bytes()).unwrap();
        let mut server = TcpStream::connect(target).unwrap();
        let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut up, &mut down));
        let _ = std::io::copy(&mut server, &mut client);
    });
    (server, requests)
}

fn through(proxy: SocketAddr, endpoint: Endpoint) -> Result<Answer, TransportError> {
    through_as(proxy, None, endpoint)
}

fn through_as(
    proxy: SocketAddr,
    credentials: Option<(&str, &str)>,
    endpoint: Endpoint,
) -> Result<Answer, TransportError> {
    let endpoint = endpoint.with_proxy(Some(at(proxy, credentials)));
    block_on(HttpTransport::new(endpoint).unwrap().key_document())
}

/// The proxy at an address.
pub fn at(proxy: SocketAddr, credentials: Option<(&str, &str)>) -> Proxy {
    let target = Target { host: Host::parse(&proxy.ip().to_string()).unwrap(), port: proxy.port() };
    let credentials = credentials.map(|(user, word)| (user, SecretString::from(word)));
    let credentials = credentials.as_ref().map(|(user, word)| (*user, word));
    Proxy::new(target, credentials)
}

fn plain() -> Endpoint {
    // Nobody resolves this name: that is the proxy's business.
    Endpoint::parse("http://monitor.invalid:8080").unwrap().with_deadlines(PATIENT)
}

#[test]
fn plain_http_goes_through_a_tunnel_too() {
    let monitor = Server::answering(tls::OK);
    let (proxy, asked) =
        tunnelling(monitor.address, "HTTP/1.1 200 Connection established\r\nvia: x\r\n\r\n");
    let answer = through(proxy.address, plain()).unwrap();
    assert_eq!(answer.body, b"true");
    assert_eq!(
        asked.recv().unwrap(),
        "CONNECT monitor.invalid:8080 HTTP/1.1\r\nhost: monitor.invalid:8080\r\n\r\n"
    );
}

#[test]
fn tls_is_spoken_with_the_monitor_not_with_the_proxy() {
    let authority = Authority::new();
    let ca = authority.file();
    let monitor = Server::new(vec![tls::answering(authority.config(), tls::OK)]);
    let (proxy, asked) = tunnelling(monitor.address, "HTTP/1.0 200 OK\r\n\r\n");
    let endpoint = Endpoint::parse("https://localhost")
        .unwrap()
        .with_deadlines(PATIENT)
        .with_ca_file(Some(ca.path().to_path_buf()));
    let answer = through_as(proxy.address, Some(("us", "p@ss")), endpoint).unwrap();
    assert_eq!(answer.body, b"true");
    let asked = asked.recv().unwrap();
    assert!(asked.starts_with("CONNECT localhost:443 HTTP/1.1\r\n"), "{asked}");
    let credentials = format!("proxy-authorization: Basic {}\r\n", STANDARD.encode("us:p@ss"));
    assert!(asked.contains(&credentials), "{asked}");
}

#[test]
fn a_refusal_names_proxy_and_status() {
    for (answer, fault, words) in [
        ("HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n", ProxyFault::Status(407), "a password"),
        ("HTTP/1.1 502 No\r\n\r\n<html>", ProxyFault::Status(502), "502"),
        ("HTTP/1.1 301 No\r\nlocation: /\r\n\r\n", ProxyFault::Status(301), "301"),
        ("", ProxyFault::Closed, "closed"),
        ("HTTP/1.1 200", ProxyFault::Closed, "closed"),
        ("SOCKS or what?\r\n\r\n", ProxyFault::NotHttp, "HTTP proxy"),
        // It says more than it was asked for.
        ("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", ProxyFault::NotHttp, "HTTP proxy"),
    ] {
        let proxy = Server::answering(answer);
        let error = through_as(proxy.address, Some(("us", "geheim")), plain()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(words) && text.contains("monitor.invalid:8080"), "{text}");
        assert!(text.contains(&proxy.address.to_string()), "{text}");
        assert!(!format!("{error:?}").contains("geheim"));
        assert!(!format!("{error:?}").contains(&STANDARD.encode("us:geheim")));
        let TransportError::Proxy { fault: seen, .. } = error else { panic!("{error:?}") };
        assert_eq!(seen, fault, "{answer:?}");
    }
}

#[test]
fn a_proxy_that_hangs_ends_at_the_dial_deadline() {
    let proxy = Server::once(hold);
    let deadlines = Deadlines { dial: HURRIED.dial, ..PATIENT };
    let error = through(proxy.address, plain().with_deadlines(deadlines)).unwrap_err();
    assert!(matches!(error, TransportError::Timeout { phase: Phase::Proxy, .. }), "{error:?}");
}

#[test]
fn a_proxy_that_is_not_there_is_the_one_named() {
    let (address, _hold) = refusing();
    let error = through(address, plain()).unwrap_err();
    let TransportError::Connect { target, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*target, address.to_string());
}
