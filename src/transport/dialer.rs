//! Opens connections to the Monitor: DNS, TCP, proxy, TLS, under one deadline.
//!
//! Invariants:
//! - Both transports come through here, so both see the same names, proxy and trust anchors.
//! - [`Dialer::connect`] returns within [`Deadlines::dial`], whatever the network does, and says
//!   in which phase the time ran out.
//! - No address can use up the time of the others: each gets its share of what is left.
//!
//! [`Deadlines::dial`]: super::Deadlines::dial

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_rustls::client::TlsStream;
use futures_util::io::{AsyncRead, AsyncWrite};
use rustix::net::sockopt;

use super::endpoint::{Endpoint, Target};
use super::error::{Phase, TransportError, Tried};
use super::proxy::Proxy;
use super::resolve::Resolver;
use super::tls::{Examined, Tls};
use super::tunnel;
use crate::runtime::{self, TcpStream};

/// Addresses of one host that are tried at most.
pub const MAX_ADDRESSES: usize = 8;

/// TCP asks the other side for a sign of life after this long without traffic.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// Time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Questions without an answer after which the connection is dead.
const KEEPALIVE_PROBES: u32 = 3;

/// A connection to the Monitor.
#[derive(Debug)]
pub enum Stream {
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS, the certificate verified.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Where a call stands, for the message when its time runs out.
#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<Mutex<Phase>>);

impl Progress {
    pub(super) fn new(phase: Phase) -> Self {
        Self(Arc::new(Mutex::new(phase)))
    }

    pub(super) fn set(&self, phase: Phase) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    pub(super) fn get(&self) -> Phase {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens connections to one endpoint. Clones share what they know.
#[derive(Debug, Clone)]
pub struct Dialer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    target: Target,
    proxy: Option<Proxy>,
    resolver: Resolver,
    tls: Option<Tls>,
    deadline: Duration,
}

impl Dialer {
    /// A dialer for an endpoint. Reads the trust anchors from files when the endpoint is https.
    ///
    /// # Errors
    /// [`TransportError::TrustAnchors`], or [`TransportError::Request`] when the host is no name
    /// a certificate can carry.
    pub fn new(endpoint: &Endpoint) -> Result<Self, TransportError> {
        let target = endpoint.target();
        let tls = match endpoint.is_tls() {
            true => Some(Tls::new(target.clone(), endpoint.ca_file())?),
            false => None,
        };
        let first = endpoint.proxy().map_or(&target, Proxy::target).clone();
        Ok(Self(Arc::new(Inner {
            target,
            proxy: endpoint.proxy().cloned(),
            resolver: Resolver::new(first),
            tls,
            deadline: endpoint.deadlines().dial,
        })))
    }

    /// The Monitor's host and port.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.0.target
    }

    /// The proxy on the way to it.
    #[must_use]
    pub fn proxy(&self) -> Option<&Proxy> {
        self.0.proxy.as_ref()
    }

    /// What is connected to first: the proxy, or the Monitor itself.
    #[must_use]
    pub fn first_hop(&self) -> &Target {
        self.proxy().map_or(self.target(), Proxy::target)
    }

    /// The first step by itself: the addresses of the first hop, at least one. For who looks for
    /// a fault; has no deadline of its own, like the steps below.
    ///
    /// # Errors
    /// [`TransportError::Dns`].
    pub async fn addresses(&self) -> Result<Vec<SocketAddr>, TransportError> {
        self.0.resolver.addresses().await
    }

    /// A later step by itself: the proxy's tunnel over a connection to it; without a proxy there
    /// is nothing to do.
    ///
    /// # Errors
    /// [`TransportError::Proxy`].
    pub async fn through_proxy(&self, stream: TcpStream) -> Result<TcpStream, TransportError> {
        match self.proxy() {
            Some(proxy) => tunnel::open(stream, proxy, self.target()).await,
            None => Ok(stream),
        }
    }

    /// The last step by itself: TLS as [`connect`](Self::connect) would have it, and what the
    /// server presented, accepted or not; `None` without TLS.
    pub async fn examine_tls(&self, stream: TcpStream) -> Option<Examined> {
        Some(self.0.tls.as_ref()?.examine(stream).await)
    }

    /// Opens a connection, ready for HTTP.
    ///
    /// # Errors
    /// Every variant of [`TransportError`] up to `Closed`, within the endpoint's dial deadline.
    pub async fn connect(&self) -> Result<Stream, TransportError> {
        self.connect_with(&Progress::new(Phase::Dns)).await
    }

    /// [`connect`](Self::connect), telling how far it has come.
    pub(super) async fn connect_with(&self, progress: &Progress) -> Result<Stream, TransportError> {
        let deadline = self.0.deadline;
        match runtime::timeout(deadline, self.dial(progress)).await {
            Some(result) => result,
            None => Err(self.too_slow(progress, deadline)),
        }
    }

    /// The error for a call that took longer than allowed.
    pub(super) fn too_slow(&self, progress: &Progress, after: Duration) -> TransportError {
        TransportError::Timeout { target: self.0.target.to_string(), phase: progress.get(), after }
    }

    async fn dial(&self, progress: &Progress) -> Result<Stream, TransportError> {
        let inner = &self.0;
        let begun = Instant::now();
        progress.set(Phase::Dns);
        let addresses = self.addresses().await?;
        progress.set(Phase::Connect);
        let mut stream = self.open(addresses, begun).await?;
        if inner.proxy.is_some() {
            progress.set(Phase::Proxy);
            stream = self.through_proxy(stream).await?;
        }
        match &inner.tls {
            Some(tls) => {
                progress.set(Phase::Tls);
                Ok(Stream::Tls(Box::new(tls.wrap(stream).await?)))
            }
            None => Ok(Stream::Plain(stream)),
        }
    }

    /// Tries the addresses in turn.
    async fn open(
        &self,
        addresses: Vec<SocketAddr>,
        begun: Instant,
    ) -> Result<TcpStream, TransportError> {
        let count = addresses.len().min(MAX_ADDRESSES);
        let mut tried = Vec::with_capacity(count);
        for (place, address) in addresses.into_iter().take(count).enumerate() {
            // A tenth is kept back, so that silence on the last address is told as such.
            let left = self.0.deadline.saturating_sub(begun.elapsed()) * 9 / 10;
            let shares = u32::try_from(count.saturating_sub(place)).unwrap_or(u32::MAX).max(1);
            let share = left / shares;
            let error = match runtime::timeout(share, runtime::connect_tcp(address)).await {
                Some(Ok(stream)) => {
                    // A socket that will not take an option is still a socket.
                    if let Err(error) = tune(&stream) {
                        tracing::debug!(%error, "socket option refused");
                    }
                    return Ok(stream);
                }
                Some(Err(error)) => error,
                None => io::Error::from(io::ErrorKind::TimedOut),
            };
            tried.push(Tried { address, error });
        }
        Err(TransportError::Connect { target: self.first_hop().to_string(), tried })
    }
}

/// Sends at once, and notices a peer that is gone.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    Ok(())
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf).map_err(unexpected_end),
        }
    }
}

/// The end of a connection without TLS's goodbye, in words for a log: those of rustls lead to its
/// documentation.
fn unexpected_end(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        io::Error::new(error.kind(), "without TLS's goodbye")
    } else {
        error
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_close(cx),
            Self::Tls(stream) => Pin::new(stream).poll_close(cx),
        }
    }
}

#[cfg(test)]
#[path = "dialer_tests.rs"]
mod tests;
