//! Serves HTTP/1.1 connections within limits; what is answered is not its concern.
//!
//! Invariants: at most [`Limits::clients`] are served at once, further ones wait in the kernel's
//! backlog; a connection without a whole head for [`Limits::head`] is closed, idle ones too; after
//! [`Limits::connection`] it gets no further request, and [`Limits::last_answer`] later it ends
//! whatever it is at, so that a client that reads nothing is bounded; what a peer can have held for
//! it is [`BUFFER_BYTES`], a body and an answer. All connections end with the future that serves
//! them.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::net::Shutdown;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::io::AsyncReadExt as _;
use futures_util::select_biased;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use smol_hyper::rt::FuturesIo;

use super::timer::RuntimeTimer;
use crate::runtime::{self, TcpListener, TcpStream};

/// Bytes of a request's head.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Header lines of a request.
const MAX_HEADERS: usize = 64;
/// The codec's buffer.
const BUFFER_BYTES: usize = 32 * 1024;
/// After the last answer, what the client still says is read for so long, and up to so many bytes.
const UNREAD_WITHIN: Duration = Duration::from_millis(500);
const MAX_UNREAD: usize = 1024 * 1024;
/// How long nothing is accepted after the system refused to.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What a client may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections served at once.
    pub(super) clients: usize,
    /// How long a head may take to come, from the connection or the answer before it.
    pub(super) head: Duration,
    /// How long a connection takes requests.
    pub(super) connection: Duration,
    /// How long its last answer may take after that.
    pub(super) last_answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: MOST_CLIENTS,
            head: Duration::from_secs(10),
            connection: Duration::from_secs(60),
            last_answer: Duration::from_secs(10),
        }
    }
}

/// Connections served at once.
pub const MOST_CLIENTS: usize = 16;

/// One answer in the making.
pub(super) type Answering = BoxFuture<'static, Result<Response<Full<Bytes>>, Infallible>>;

/// Accepts and serves for ever.
pub(super) async fn serve<A>(listener: &TcpListener, limits: Limits, answer: &A) -> Infallible
where
    A: Fn(Request<Incoming>) -> Answering,
{
    // In this one future: all of them end with it.
    let mut clients = FuturesUnordered::new();
    loop {
        let full = clients.len() >= limits.clients;
        let next = async {
            if full {
                pending::<()>().await;
            }
            listener.accept().await
        };
        let accepted = select_biased! {
            _ended = clients.select_next_some() => continue,
            accepted = next.fuse() => accepted,
        };
        match accepted {
            // Forwarded from elsewhere, although it was meant for this host alone.
            Ok((_, peer)) if !peer.ip().is_loopback() => {
                tracing::debug!(%peer, "the bridge refuses a peer that is not on this host");
            }
            Ok((stream, _)) => {
                // A fault of ours costs this connection; the panic's hook has told of it.
                let conversing = AssertUnwindSafe(converse(stream, limits, answer));
                clients.push(conversing.catch_unwind());
            }
            Err(error) => {
                // Out of descriptors, say: it is not asked again at once.
                tracing::debug!(%error, "the bridge accepts no connection");
                let pause = runtime::sleep(ACCEPT_PAUSE);
                futures_util::pin_mut!(pause);
                loop {
                    select_biased! {
                        _ended = clients.select_next_some() => {}
                        () = (&mut pause).fuse() => break,
                    }
                }
            }
        }
    }
}

/// One connection, from its first request to its end.
async fn converse<A>(stream: TcpStream, limits: Limits, answer: &A)
where
    A: Fn(Request<Incoming>) -> Answering,
{
    // Answers are small and wait for nothing.
    let _ = stream.set_nodelay(true);
    let service = service_fn(answer);
    let mut connection = http1::Builder::new()
        .timer(RuntimeTimer)
        .header_read_timeout(limits.head)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(FuturesIo::new(stream), service);
    let to_its_end = poll_fn(|cx| connection.poll_without_shutdown(cx));
    // How it ended, by a fault or well, makes no difference to anybody here.
    if runtime::timeout(limits.connection, to_its_end).await.is_none() {
        Pin::new(&mut connection).graceful_shutdown();
        let last = poll_fn(|cx| connection.poll_without_shutdown(cx));
        if runtime::timeout(limits.last_answer, last).await.is_none() {
            return;
        }
    }
    farewell(connection.into_parts().io.into_inner()).await;
}

/// Closes so that the last answer arrives: a close with something unread would reset the
/// connection, and take with it what the client has not read yet.
async fn farewell(mut stream: TcpStream) {
    if stream.shutdown(Shutdown::Write).is_err() {
        return;
    }
    let rest = async {
        let mut buffer = [0; 4096];
        let mut left = MAX_UNREAD;
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            left = left.saturating_sub(count);
            if left == 0 {
                return;
            }
        }
    };
    let _ = runtime::timeout(UNREAD_WITHIN, rest).await;
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
