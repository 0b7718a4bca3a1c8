//! A scripted server: what it does with each connection is written down in the test.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harborforge_connector::runtime::block_on;
use harborforge_connector::transport::{
    Answer, Deadlines, Endpoint, HttpTransport, TransportError,
};

/// What is done with one connection; it is closed afterwards.
pub type Script = Box<dyn FnOnce(TcpStream) + Send>;

/// A listening server on a port of its own.
pub struct Server {
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Server {
    /// Runs one script for each connection, in the order they come; more connections than
    /// scripts are closed at once.
    pub fn new(scripts: Vec<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        std::thread::spawn(move || {
            let mut scripts = scripts.into_iter();
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                if let (Ok(stream), Some(script)) = (stream, scripts.next()) {
                    std::thread::spawn(move || script(stream));
                }
            }
        });
        Self { address, accepted }
    }

    /// One script for one connection.
    pub fn once(script: impl FnOnce(TcpStream) + Send + 'static) -> Self {
        Self::new(vec![Box::new(script)])
    }

    /// Answers one request with these bytes, then closes.
    pub fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::once(move |mut stream| {
            read_request(&mut stream);
            let _ = stream.write_all(&answer);
            finish(stream);
        })
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// A plain transport to it.
    pub fn transport(&self, deadlines: Deadlines) -> HttpTransport {
        let url = format!("http://{}", self.address);
        HttpTransport::new(Endpoint::parse(&url).unwrap().with_deadlines(deadlines)).unwrap()
    }

    /// Fetches the key document from it.
    pub fn get(&self) -> Result<Answer, TransportError> {
        block_on(self.transport(PATIENT).key_document())
    }
}

/// Time enough for any answer that comes at all.
pub const PATIENT: Deadlines = Deadlines {
    dial: Duration::from_secs(30),
    request: Duration::from_secs(30),
    idle: Duration::from_secs(30),
};

/// Little time, for answers that never come.
pub const HURRIED: Deadlines = Deadlines {
    dial: Duration::from_millis(800),
    request: Duration::from_secs(1),
    idle: Duration::from_secs(30),
};

/// Reads one request, head and body; empty when the client has gone.
pub fn read_request(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => text.push(byte[0]),
            _ => return String::new(),
        }
    }
    let head = String::from_utf8_lossy(&text).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    text.extend(body);
    String::from_utf8(text).unwrap()
}

/// An address that refuses connections, as long as the second value lives: its port is taken,
/// but nobody listens.
pub fn refusing() -> (SocketAddr, impl Sized) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    (getsockname(&socket).unwrap().try_into().unwrap(), socket)
}

/// Waits until the client has closed.
pub fn hold(mut stream: TcpStream) {
    let mut sink = [0; 4096];
    while matches!(stream.read(&mut sink), Ok(1..)) {}
}

/// Closes the sending side and takes in what still comes, so that the client reads everything
/// that was sent: a socket closed over unread bytes is reset.
pub fn finish(stream: TcpStream) {
    let _ = stream.shutdown(std::net::Shutdown::Write);
    hold(stream);
}
