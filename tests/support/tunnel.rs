//! A CONNECT proxy as companies have them: tells what it was asked, and carries bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use async_std::io;
use async_std::net::{TcpListener, TcpStream};
use async_std::task::{self, JoinHandle};
use futures_util::{AsyncReadExt as _, AsyncWriteExt as _};

/// Of what a client sends, so many of the last bytes are kept.
const TAIL: usize = 256;

/// What went through a proxy.
#[derive(Debug, Default)]
struct Seen {
    requests: Vec<String>,
    /// The last bytes each tunnel's client sent.
    tails: Vec<Vec<u8>>,
}

/// A proxy that opens tunnels to one place, whatever it is asked for.
pub struct Tunnel {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    task: Option<JoinHandle<()>>,
}

impl Tunnel {
    /// A proxy whose tunnels all lead to `target`.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let kept = Arc::clone(&seen);
        let task = task::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let seen = Arc::clone(&kept);
                // Either end may go at any moment; the other one is told by its own end.
                task::spawn(async move { drop(carry(client, target, &seen).await) });
            }
        });
        Self { address, seen, task: Some(task) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The heads of the requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().requests.clone()
    }

    /// The last bytes that the client of each tunnel sent, in the order of the requests.
    pub fn tails(&self) -> Vec<Vec<u8>> {
        self.seen.lock().unwrap().tails.clone()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task::spawn(task.cancel());
        }
    }
}

async fn carry(mut client: TcpStream, target: SocketAddr, seen: &Mutex<Seen>) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).await?;
        head.push(byte[0]);
    }
    let place = {
        let mut seen = seen.lock().unwrap();
        seen.requests.push(String::from_utf8(head).unwrap());
        seen.tails.push(Vec::new());
        seen.tails.len() - 1
    };
    let mut server = TcpStream::connect(target).await?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    let (mut down, mut back) = (server.clone(), client.clone());
    let downwards = task::spawn(async move {
        // Ends with the Monitor's end of the connection.
        let _ = io::copy(&mut down, &mut back).await;
        back.shutdown(std::net::Shutdown::Both)
    });
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = client.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        {
            let mut seen = seen.lock().unwrap();
            let tail = &mut seen.tails[place];
            tail.extend_from_slice(&buffer[..count]);
            let surplus = tail.len().saturating_sub(TAIL);
            tail.drain(..surplus);
        }
        server.write_all(&buffer[..count]).await?;
    }
    server.shutdown(std::net::Shutdown::Write)?;
    downwards.await
}
