//! HTTP/1.1 as a client speaks it, by hyper: for exchanges, for the upgrade to a WebSocket and for a
//! tunnel.
//!
//! Invariants:
//! - What a peer can make it hold is bounded: [`MAX_HEADERS`] and [`MAX_HEAD_BYTES`] for the head of
//!   an answer, [`BUFFER_BYTES`] at once.
//! - There is one kind of connection, with TLS and without, with a body and without: hyper's code is
//!   compiled anew for each.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::io::{AsyncRead, AsyncWrite};
use http_body_util::Full;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper::upgrade::Upgraded;
use smol_hyper::rt::FuturesIo;

use super::dialer::Stream;

/// Header lines an answer may have.
pub(super) const MAX_HEADERS: usize = 100;
/// Bytes an answer's head may take.
pub(super) const MAX_HEAD_BYTES: usize = 16 * 1024;
/// The codec's buffer; what a peer can make it hold at once.
pub(super) const BUFFER_BYTES: usize = 32 * 1024;

/// What asks, what moves the bytes meanwhile, and how many have come in, without TLS's own.
type Started =
    (SendRequest<Full<Bytes>>, Connection<FuturesIo<Metered>, Full<Bytes>>, Arc<AtomicU64>);

/// Starts on a fresh connection.
pub(super) async fn start(stream: Stream) -> hyper::Result<Started> {
    let received = Arc::new(AtomicU64::new(0));
    let io = FuturesIo::new(Metered { stream, received: Arc::clone(&received) });
    let (sender, connection) = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(BUFFER_BYTES)
        .handshake(io)
        .await?;
    Ok((sender, connection, received))
}

/// The connection behind an upgrade, and what has come on it already; `None` for one that was not
/// started here.
pub(super) fn taken_over(upgraded: Upgraded) -> Option<(Stream, Bytes)> {
    let parts = upgraded.downcast::<FuturesIo<Metered>>().ok()?;
    Some((parts.io.into_inner().stream, parts.read_buf))
}

/// A stream that counts what comes in.
pub(super) struct Metered {
    stream: Stream,
    received: Arc<AtomicU64>,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Ok(count)) = &result {
            self.received.fetch_add(*count as u64, Ordering::Release);
        }
        result
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
