//! One HTTP/1.1 exchange after the other with the Monitor: connections, limits, deadline. The
//! codec is hyper's.
//!
//! Invariants:
//! - An exchange ends within the request deadline, dialling and the second try included.
//! - An answer costs bounded memory: the codec's limits for its head, [`MAX_ANSWER`] for its body.
//! - At most one connection lies idle. It is kept only after an exchange that was read to its
//!   end, and dropped with whatever it still carries otherwise. A connection's task ends with it.
//! - A request is sent a second time only when it went over a kept connection that died before
//!   the first byte of an answer, and only once. The reply says so ([`Reply::resent`]), since the
//!   Monitor may have seen it twice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use std::{fmt, io};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::header::HeaderMap;
use hyper::{Request, Response};

use super::codec::{self, MAX_HEAD_BYTES};
use super::dialer::{Dialer, Progress};
use super::endpoint::Deadlines;
use super::error::{AnswerPart, Phase, TlsFault, TransportError};
use super::tls;
use crate::protocol::MAX_ANSWER;
use crate::runtime::{self, TaskGuard};

/// An answer, read to its end or to the limit.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) resent: bool,
}

/// An HTTP/1.1 client for one endpoint.
pub(super) struct Client {
    dialer: Dialer,
    deadlines: Deadlines,
    idle: Mutex<Option<Connection>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("target", self.dialer.target()).finish_non_exhaustive()
    }
}

/// A connection between two exchanges.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Bytes received on it so far, without TLS's own.
    received: Arc<AtomicU64>,
    /// When its last exchange ended.
    since: Instant,
    /// Moves the bytes; gives what the connection ended with.
    task: TaskGuard<hyper::Result<()>>,
}

/// A failed exchange.
struct Failure {
    error: TransportError,
    /// Whether the request may go out again: the connection died and not a byte had come back.
    unanswered: bool,
}

impl Client {
    pub(super) fn new(dialer: Dialer, deadlines: Deadlines) -> Self {
        Self { dialer, deadlines, idle: Mutex::new(None) }
    }

    /// Sends a request and reads its answer. The request must carry `Host` and a path for its URI.
    pub(super) async fn call(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Reply, TransportError> {
        let progress = Progress::new(Phase::Dns);
        let deadline = self.deadlines.request;
        match runtime::timeout(deadline, self.exchange(request, &progress)).await {
            Some(result) => result,
            None => Err(self.dialer.too_slow(&progress, deadline)),
        }
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        progress: &Progress,
    ) -> Result<Reply, TransportError> {
        let mut resent = false;
        if let Some(kept) = self.kept().await {
            match self.over(kept, request.clone(), progress).await {
                Ok(reply) => return Ok(reply),
                Err(Failure { error, unanswered: true }) => {
                    tracing::debug!(%error, "the kept connection was dead; using a fresh one");
                    resent = true;
                }
                Err(Failure { error, unanswered: false }) => return Err(error),
            }
        }
        let fresh = self.open(progress).await?;
        let reply = self.over(fresh, request, progress).await;
        reply.map(|reply| Reply { resent, ..reply }).map_err(|failure| failure.error)
    }

    /// The idle connection, if it can be used.
    async fn kept(&self) -> Option<Connection> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut kept = kept.filter(|kept| kept.since.elapsed() < self.deadlines.idle)?;
        // Not ready means closed: nothing is under way on an idle connection.
        kept.sender.ready().await.ok().map(|()| kept)
    }

    async fn open(&self, progress: &Progress) -> Result<Connection, TransportError> {
        let stream = self.dialer.connect_with(progress).await?;
        let (sender, connection, received) =
            codec::start(stream).await.map_err(|error| self.failed(error, Phase::Answer))?;
        let task = runtime::spawn_guarded(connection);
        Ok(Connection { sender, received, since: Instant::now(), task })
    }

    async fn over(
        &self,
        mut connection: Connection,
        request: Request<Full<Bytes>>,
        progress: &Progress,
    ) -> Result<Reply, Failure> {
        progress.set(Phase::Answer);
        let before = connection.received.load(Ordering::Acquire);
        let response = match connection.sender.send_request(request).await {
            Ok(response) => response,
            Err(mut error) => {
                // A connection that ended before the request reached it knows better why.
                if error.is_canceled()
                    && let Err(cause) = connection.task.await
                {
                    error = cause;
                }
                let received = connection.received.load(Ordering::Acquire);
                let error = self.failed(error, Phase::Answer);
                let closed = matches!(error, TransportError::Closed { .. });
                return Err(Failure { error, unanswered: closed && received == before });
            }
        };
        progress.set(Phase::Body);
        let (reply, complete) =
            self.read(response).await.map_err(|error| Failure { error, unanswered: false })?;
        if complete && !connection.sender.is_closed() {
            connection.since = Instant::now();
            *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        }
        Ok(reply)
    }

    /// Reads the body; also tells whether it was read to its end. An answer that asks for nothing
    /// but to be heard (any status but 2xx) may have more body than is read: its status counts,
    /// and a sample that is refused at length would otherwise be tried for ever.
    async fn read(&self, response: Response<Incoming>) -> Result<(Reply, bool), TransportError> {
        let (head, mut body) = response.into_parts();
        if head.status == hyper::StatusCode::SWITCHING_PROTOCOLS {
            return Err(TransportError::Http {
                target: self.dialer.target().to_string(),
                source: Some("it switches protocols although nobody asked".into()),
            });
        }
        let too_large = || TransportError::TooLarge {
            target: self.dialer.target().to_string(),
            part: AnswerPart::Body,
            limit: MAX_ANSWER,
        };
        let declared = body.size_hint().exact().unwrap_or(0);
        if head.status.is_success() && declared > MAX_ANSWER as u64 {
            return Err(too_large());
        }
        let mut read = Vec::new();
        let mut complete = true;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.failed(error, Phase::Body))?;
            // Trailers say nothing we want to know.
            let Ok(data) = frame.into_data() else { continue };
            let room = MAX_ANSWER.saturating_sub(read.len());
            read.extend_from_slice(data.get(..room).unwrap_or(&data));
            if data.len() > room {
                if head.status.is_success() {
                    return Err(too_large());
                }
                complete = false;
                break;
            }
        }
        let reply = Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            body: read.into(),
            resent: false,
        };
        Ok((reply, complete))
    }

    /// What a failure of the codec means.
    fn failed(&self, error: hyper::Error, phase: Phase) -> TransportError {
        let target = self.dialer.target().to_string();
        if let Some(fault) = tls::fault_in(&error) {
            // Where TLS stood already, what comes now breaks it.
            let fault = if fault == TlsFault::NotTls { TlsFault::Incompatible } else { fault };
            let host = self.dialer.target().host.to_string();
            return TransportError::Tls { host, fault, source: Some(Box::new(error)) };
        }
        if error.is_parse_too_large() {
            return TransportError::TooLarge {
                target,
                part: AnswerPart::Head,
                limit: MAX_HEAD_BYTES,
            };
        }
        if error.is_parse() || breaks_framing(&error) {
            return TransportError::Http { target, source: Some(Box::new(error)) };
        }
        TransportError::Closed { target, phase, source: Some(Box::new(error)) }
    }
}

/// Whether a body's framing is broken (chunk sizes that are none, say), as opposed to the
/// connection.
fn breaks_framing(error: &hyper::Error) -> bool {
    std::error::Error::source(error)
        .and_then(|cause| cause.downcast_ref::<io::Error>())
        .is_some_and(|cause| {
            matches!(cause.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
        })
}
