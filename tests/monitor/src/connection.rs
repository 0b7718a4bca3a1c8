//! One connection: TLS, HTTP/1.1, and what comes after it.

use std::net::Shutdown;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_std::net::TcpStream;
use async_std::task;
use bytes::Bytes;
use futures_rustls::TlsAcceptor;
use futures_util::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response};
use smol_hyper::rt::FuturesIo;

use crate::fault::{Fault, Outcome};
use crate::notify::lock;
use crate::shared::Shared;
use crate::wire::ByteByByte;
use crate::{http, websocket};

/// Bytes a request's head may have.
const MAX_HEAD: usize = 64 * 1024;

/// A byte stream, encrypted or not.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection's bytes.
pub(crate) type Wire = Box<dyn Duplex>;

/// What is to happen when HTTP is done with a connection.
#[derive(Default)]
pub(crate) enum After {
    /// Nothing: it ends.
    #[default]
    End,
    /// It becomes a WebSocket, which meets these faults.
    Upgrade(OnUpgrade, Vec<Fault>),
    /// These bytes go out, past the HTTP library, which would not write such things.
    Raw(Outcome),
}

/// A handler's way to have [`After`] done in place of answering.
#[derive(Debug, thiserror::Error)]
#[error("the connection is taken over")]
pub(crate) struct TakenOver;

/// Counts a connection as open as long as it lives.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.change(|state, _| state.rules.journal.counts_mut().open -= 1);
    }
}

/// Serves a Monitor's connection to its end.
pub(crate) async fn serve(shared: Arc<Shared>, acceptor: Option<TlsAcceptor>, tcp: TcpStream) {
    let fault = shared.change(|state, _| {
        let fault = state.schedule.connection();
        let counts = state.rules.journal.counts_mut();
        counts.connections += 1;
        counts.open += 1;
        counts.faults += u64::from(fault.is_some());
        fault
    });
    let _open = Open(Arc::clone(&shared));
    let bytewise = fault == Some(Fault::ByteByByte);
    if let Some(fault) = fault.filter(|_| !bytewise) {
        return misbehave(&fault, tcp).await;
    }
    // Small answers are what travels here; a client gone away shows at the next read or write.
    let _ = tcp.set_nodelay(true);
    let line: Wire =
        if bytewise { Box::new(ByteByByte(tcp.clone())) } else { Box::new(tcp.clone()) };
    let wire: Wire = match acceptor {
        None => line,
        Some(acceptor) => match acceptor.accept(line).await {
            Ok(stream) => Box::new(stream),
            Err(_) => return,
        },
    };
    converse(&shared, wire, &tcp).await;
}

/// Plays a fault of the connection itself.
async fn misbehave(fault: &Fault, tcp: TcpStream) {
    if matches!(fault, Fault::IgnoreConnection) {
        return std::future::pending().await;
    }
    if matches!(fault, Fault::ResetConnection) {
        // Closing with bytes unread is what sends RST in place of FIN; the client, in HTTP as in
        // TLS, is the first to speak.
        let _ = tcp.peek(&mut [0]).await;
    }
}

async fn converse(shared: &Arc<Shared>, wire: Wire, tcp: &TcpStream) {
    let after = Arc::new(Mutex::new(After::End));
    let service = service_fn(|request: Request<Incoming>| {
        http::serve(Arc::clone(shared), request, Arc::clone(&after))
    });
    let mut connection = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .auto_date_header(false)
        .serve_connection(FuturesIo::new(wire), service)
        .with_upgrades();
    let result = (&mut connection).await;
    let then = std::mem::take(&mut *lock(&after));
    match then {
        After::End => {}
        After::Upgrade(upgrade, faults) => {
            if result.is_ok()
                && let Ok(upgraded) = upgrade.await
                && let Ok(parts) = upgraded.downcast::<FuturesIo<Wire>>()
            {
                let (wire, read) = (parts.io.into_inner(), parts.read_buf.to_vec());
                websocket::serve(shared, wire, read, faults).await;
            }
        }
        After::Raw(outcome) => {
            if let Some(parts) = connection.into_parts() {
                // A client that has gone away ends the play; that is no fault of ours.
                let _ = write_raw(&outcome, parts.io.into_inner(), tcp).await;
            }
        }
    }
}

/// Serves a side connection: HTTP/1.1 with `handle` for every request.
pub(crate) async fn serve_side<H, F>(tcp: TcpStream, handle: H)
where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Full<Bytes>>>,
{
    let service = service_fn(|request| {
        let answer = handle(request);
        async { Ok::<_, std::convert::Infallible>(answer.await) }
    });
    let _ = http1::Builder::new().serve_connection(FuturesIo::new(tcp), service).await;
}

async fn write_raw(outcome: &Outcome, mut wire: Wire, tcp: &TcpStream) -> std::io::Result<()> {
    match outcome {
        // The HTTP library writes these two.
        Outcome::Answer(_) | Outcome::Hang => {}
        Outcome::Bytes(bytes) => wire.write_all(bytes).await?,
        Outcome::Slow { bytes, pause_ms } => {
            for byte in bytes.chunks(1) {
                wire.write_all(byte).await?;
                wire.flush().await?;
                task::sleep(Duration::from_millis(*pause_ms)).await;
            }
        }
        Outcome::Endless { start, filler, bytes } => {
            wire.write_all(start).await?;
            let mut left = *bytes;
            while left > 0 {
                let part = usize::try_from(left).unwrap_or(usize::MAX).min(filler.len());
                wire.write_all(filler.get(..part).unwrap_or_default()).await?;
                left = left.saturating_sub(part as u64);
            }
        }
    }
    wire.flush().await?;
    wire.close().await?;
    // The runtime's stream sends its FIN when it is dropped, not when it is closed.
    tcp.shutdown(Shutdown::Write)?;
    // Closing while the client still sends would reset the connection, and with it what it has
    // not read yet.
    let mut rest = [0; 1024];
    while wire.read(&mut rest).await? > 0 {}
    Ok(())
}
