//! Several addresses for one host.

use std::net::{TcpListener, TcpStream as StdStream};

use super::*;
use crate::transport::Deadlines;

fn dialer(deadline: Duration) -> Dialer {
    let deadlines = Deadlines { dial: deadline, ..Deadlines::default() };
    let endpoint = Endpoint::parse("http://m.example").unwrap().with_deadlines(deadlines);
    Dialer::new(&endpoint).unwrap()
}

fn open(dialer: &Dialer, addresses: Vec<SocketAddr>) -> Result<TcpStream, TransportError> {
    runtime::block_on(dialer.open(addresses, Instant::now()))
}

/// An address that refuses connections, as long as the second value lives: its port is taken,
/// but nobody listens.
fn refusing() -> (SocketAddr, impl Sized) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    (getsockname(&socket).unwrap().try_into().unwrap(), socket)
}

/// An address that does not answer: its queue of connections not yet accepted is full.
fn silent() -> (SocketAddr, impl Sized) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let short = Duration::from_millis(200);
    let mut queued = Vec::new();
    while let Ok(stream) = StdStream::connect_timeout(&address, short) {
        queued.push(stream);
    }
    (address, (listener, queued))
}

#[test]
fn a_later_address_is_used_when_the_first_refuse_or_stay_silent() {
    let (refusing, _refused) = refusing();
    let (silent, _queued) = silent();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let good = listener.local_addr().unwrap();
    let begun = Instant::now();
    let stream = open(&dialer(Duration::from_secs(4)), vec![refusing, silent, good]).unwrap();
    assert_eq!(stream.peer_addr().unwrap(), good);
    assert!(begun.elapsed() > Duration::from_secs(1), "the silent address had its share");
    assert!(stream.nodelay().unwrap());
    assert!(sockopt::socket_keepalive(&stream).unwrap());
    assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), KEEPALIVE_IDLE);
}

#[test]
fn when_none_takes_the_connection_each_is_named_with_its_reason() {
    let (refusing, _refused) = refusing();
    let (silent, _queued) = silent();
    let error = open(&dialer(Duration::from_millis(300)), vec![refusing, silent]).unwrap_err();
    let expected = format!(
        "cannot connect to m.example:80: {refusing} refuses connections; {silent} does not answer"
    );
    assert_eq!(error.to_string(), expected);
    let TransportError::Connect { tried, .. } = error else { panic!("{error:?}") };
    assert_eq!(tried[1].error.kind(), io::ErrorKind::TimedOut);
}

#[test]
fn a_host_with_very_many_addresses_is_tried_at_few() {
    let (refusing, _refused) = refusing();
    let error = open(&dialer(Duration::from_secs(30)), vec![refusing; 100]).unwrap_err();
    let TransportError::Connect { tried, .. } = error else { panic!("{error:?}") };
    assert_eq!(tried.len(), MAX_ADDRESSES);
}
