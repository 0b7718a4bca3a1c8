//! The WebSocket to the Monitor (docs/PROTOCOL.md 4): opens it, carries messages and Pings, tells
//! what comes. What to send and when, and what a message means, is decided elsewhere. The only
//! file that names the WebSocket library.
//!
//! Invariants:
//! - Messages over [`MAX_MESSAGE`], whole or in fragments, end the link before they are held.
//! - Memory is bounded whatever the other end does: what is written waits for room in the socket
//!   once [`WRITE_BUFFER`] is full, so a peer that does not read makes the writer wait. If it
//!   sends Pings meanwhile, their Pongs fill no more than [`MAX_WRITE_BUFFER`]; a message that
//!   finds no room beside them ends the link.
//! - A peer that never stops sending cannot keep others from the thread: after [`TURN_BYTES`]
//!   reading makes way.
//! - Pings are answered by whoever reads next; as long as [`Reader::next`] is being waited for,
//!   Pongs go out without anything being written.
//! - A text message is masked into the write buffer, and not copied otherwise.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_tungstenite::tungstenite::handshake::client::generate_key;
use async_tungstenite::tungstenite::handshake::derive_accept_key;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use async_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use async_tungstenite::{WebSocketReceiver, WebSocketSender, WebSocketStream};
use bytes::Bytes;
use futures_util::io::{AsyncRead, AsyncWrite};
use futures_util::{FutureExt as _, SinkExt, StreamExt as _};
use url::Url;

use super::dialer::{Dialer, Stream};
use super::error::Cause;
use super::http::HttpTransport;
use super::upgrade::{self, UpgradeError};
use crate::protocol::{
    HANDSHAKE_DEADLINE, HandshakeAnswer, MAX_MESSAGE, proof_message, read_handshake, refuses,
};
use crate::runtime;

/// What is read from the socket at once. Little comes in.
const READ_BUFFER: usize = 8 * 1024;
/// What is gathered before it is written to the socket without being flushed.
const WRITE_BUFFER: usize = 64 * 1024;
/// Where the library gives up: a message on top of a full buffer fits, and some Pongs.
const MAX_WRITE_BUFFER: usize = WRITE_BUFFER + MAX_MESSAGE + 64 * 1024;
/// Bytes read in a row before other tasks get their turn.
const TURN_BYTES: usize = 256 * 1024;

/// A link that cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The connection broke, or was closed without a WebSocket's goodbye.
    #[error("{target} ended the connection")]
    Lost {
        /// Host and port of the Monitor.
        target: String,
        /// The cause, where there is one.
        #[source]
        source: Option<Cause>,
    },
    /// The Monitor closed the link.
    #[error("{target} closed the WebSocket{}", Code(*.code))]
    Closed {
        /// Host and port of the Monitor.
        target: String,
        /// The code it gave.
        code: Option<u16>,
        /// Its words, as they came: not fit for a log or a terminal yet.
        reason: String,
    },
    /// The proof was not answered.
    #[error("{target} did not answer the proof within {} s", .after.as_secs_f64())]
    Silent {
        /// Host and port of the Monitor.
        target: String,
        /// The time that was allowed.
        after: Duration,
    },
    /// A message is larger than allowed.
    #[error("{target} sends a message of more than {limit} bytes")]
    TooLarge {
        /// Host and port of the Monitor.
        target: String,
        /// Bytes allowed.
        limit: usize,
    },
    /// What comes is not WebSocket.
    #[error("what {target} sends breaks the WebSocket protocol")]
    Protocol {
        /// Host and port of the Monitor.
        target: String,
        /// Where it departs from it.
        #[source]
        source: Option<Cause>,
    },
    /// It sends Pings and does not take their answers.
    #[error("{target} sends Pings without reading the answers")]
    Flooded {
        /// Host and port of the Monitor.
        target: String,
    },
    /// A message of ours is no text or too large; nothing of it was sent.
    #[error("a message cannot be sent: {what}")]
    Unsendable {
        /// What is wrong with it.
        what: &'static str,
    },
}

/// A close code as a message ends with it.
struct Code(Option<u16>);

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(code) => write!(f, " with code {code}"),
            None => Ok(()),
        }
    }
}

/// What came over the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A text message.
    Text(String),
    /// A Pong with a payload of the length ours have.
    Pong([u8; 8]),
    /// A sign of life that says nothing: a Ping (it is answered), a binary message, another Pong.
    Alive,
    /// The Monitor closes the link. Nothing comes after it.
    Closed {
        /// The code it gave.
        code: Option<u16>,
        /// Its words, as they came: not fit for a log or a terminal yet.
        reason: String,
    },
}

/// Opens WebSockets to one endpoint.
#[derive(Debug, Clone)]
pub struct WebSocketTransport {
    dialer: Dialer,
    url: Url,
    deadline: Duration,
}

impl WebSocketTransport {
    /// To the endpoint of an HTTP transport, over its dialer: same names, proxy, trust anchors.
    #[must_use]
    pub fn new(http: &HttpTransport) -> Self {
        Self {
            dialer: http.dialer().clone(),
            url: http.endpoint().websocket_url(),
            deadline: http.endpoint().deadlines().dial,
        }
    }

    /// Opens a WebSocket, within [`Deadlines::dial`](super::Deadlines::dial).
    ///
    /// # Errors
    /// See [`UpgradeError`].
    pub async fn connect(&self) -> Result<Socket, UpgradeError> {
        let key = generate_key();
        let accept = derive_accept_key(key.as_bytes());
        let (stream, read) =
            upgrade::open(&self.dialer, &self.url, self.deadline, &key, &accept).await?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(MAX_WRITE_BUFFER)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let paced = Paced { stream, read: 0 };
        let stream =
            WebSocketStream::from_partially_read(paced, read, Role::Client, Some(config)).await;
        let (sender, receiver) = stream.split();
        let target = self.dialer.target().to_string();
        Ok(Socket {
            reader: Reader { receiver, target: target.clone() },
            writer: Writer { sender, target },
        })
    }
}

/// An open WebSocket. Dropping it, both halves if it was split, closes the connection at once.
#[derive(Debug)]
pub struct Socket {
    reader: Reader,
    writer: Writer,
}

impl Socket {
    /// Proves who we are and waits for the verdict, at most [`HANDSHAKE_DEADLINE`]
    /// (docs/PROTOCOL.md 4, steps 2 and 3). `encrypted_payload` is the proof.
    ///
    /// # Errors
    /// The link broke, or was closed with a code that is no refusal, or there was no answer.
    pub async fn prove(&mut self, encrypted_payload: &str) -> Result<HandshakeAnswer, SocketError> {
        self.prove_within(encrypted_payload, HANDSHAKE_DEADLINE).await
    }

    /// [`prove`](Self::prove) with another deadline.
    ///
    /// # Errors
    /// As [`prove`](Self::prove).
    pub async fn prove_within(
        &mut self,
        encrypted_payload: &str,
        after: Duration,
    ) -> Result<HandshakeAnswer, SocketError> {
        let ask = async {
            // A Monitor that has its answer ready may close before it has read the proof: what it
            // said counts then, not that writing failed.
            let sent = self.writer.send(proof_message(encrypted_payload)).await;
            loop {
                match self.reader.next().await {
                    Ok(Incoming::Text(text)) => return Ok(read_handshake(&text)),
                    Ok(Incoming::Closed { code: Some(code), reason }) if refuses(code) => {
                        let said = if reason.is_empty() {
                            format!("it closed the link with code {code}")
                        } else {
                            reason
                        };
                        return Ok(HandshakeAnswer::Refused { said });
                    }
                    Ok(Incoming::Closed { code, reason }) => {
                        let target = self.reader.target.clone();
                        return Err(SocketError::Closed { target, code, reason });
                    }
                    Ok(Incoming::Pong(_) | Incoming::Alive) => {}
                    Err(error) => return Err(sent.err().unwrap_or(error)),
                }
            }
        };
        match runtime::timeout(after, ask).await {
            Some(result) => result,
            None => Err(SocketError::Silent { target: self.reader.target.clone(), after }),
        }
    }

    /// The two directions, to be used by two tasks or by two futures of one.
    #[must_use]
    pub fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }
}

/// The incoming half.
#[derive(Debug)]
pub struct Reader {
    receiver: WebSocketReceiver<Paced>,
    target: String,
}

impl Reader {
    /// Waits for what comes next. Can be dropped and called again without losing anything.
    ///
    /// # Errors
    /// The link is at its end; so after [`Incoming::Closed`].
    pub async fn next(&mut self) -> Result<Incoming, SocketError> {
        let message = match self.receiver.next().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(failed(&self.target, error)),
            None => return Err(SocketError::Lost { target: self.target.clone(), source: None }),
        };
        Ok(match message {
            Message::Text(text) => Incoming::Text(text.as_str().to_owned()),
            Message::Pong(payload) => {
                <[u8; 8]>::try_from(payload.as_ref()).map_or(Incoming::Alive, Incoming::Pong)
            }
            Message::Close(frame) => {
                // The goodbye in return is queued, and goes out with the next look.
                let _ = self.receiver.next().now_or_never();
                let (code, reason) = match frame {
                    Some(CloseFrame { code, reason }) => {
                        (Some(code.into()), reason.as_str().to_owned())
                    }
                    None => (None, String::new()),
                };
                Incoming::Closed { code, reason }
            }
            Message::Ping(_) | Message::Binary(_) | Message::Frame(_) => Incoming::Alive,
        })
    }
}

/// The outgoing half. Whoever waits for it to take something has to keep the [`Reader`] going
/// meanwhile: two peers that only write wait for each other.
#[derive(Debug)]
pub struct Writer {
    sender: WebSocketSender<Paced>,
    target: String,
}

impl Writer {
    /// Takes a text message: JSON. It may stay in the buffer until [`flush`](Self::flush), and
    /// waits as long as the buffer is full and the socket takes nothing.
    ///
    /// # Errors
    /// The link is at its end, or the message is not UTF-8 or over [`MAX_MESSAGE`].
    pub async fn feed(&mut self, text: impl Into<Bytes>) -> Result<(), SocketError> {
        let text = text.into();
        if text.len() > MAX_MESSAGE {
            return Err(SocketError::Unsendable { what: "it is too large" });
        }
        let text = Utf8Bytes::try_from(text)
            .map_err(|_| SocketError::Unsendable { what: "it is not UTF-8" })?;
        let fed = self.sender.feed(Message::Text(text)).await;
        fed.map_err(|error| failed(&self.target, error))
    }

    /// Hands everything taken so far to the operating system.
    ///
    /// # Errors
    /// The link is at its end.
    pub async fn flush(&mut self) -> Result<(), SocketError> {
        let flushed = SinkExt::<Message>::flush(&mut self.sender).await;
        flushed.map_err(|error| failed(&self.target, error))
    }

    /// [`feed`](Self::feed) and [`flush`](Self::flush).
    ///
    /// # Errors
    /// As they.
    pub async fn send(&mut self, text: impl Into<Bytes>) -> Result<(), SocketError> {
        self.feed(text).await?;
        self.flush().await
    }

    /// Sends a Ping behind everything taken so far.
    ///
    /// # Errors
    /// The link is at its end.
    pub async fn ping(&mut self, payload: [u8; 8]) -> Result<(), SocketError> {
        let message = Message::Ping(payload.to_vec().into());
        let sent = self.sender.send(message).await;
        sent.map_err(|error| failed(&self.target, error))
    }

    /// Says goodbye behind everything taken so far: nothing can be sent afterwards. The Monitor's
    /// goodbye comes as [`Incoming::Closed`].
    ///
    /// # Errors
    /// The link is at its end already.
    pub async fn close(&mut self, code: u16, reason: &str) -> Result<(), SocketError> {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        let sent = self.sender.close(Some(frame)).await;
        sent.map_err(|error| failed(&self.target, error))
    }
}

/// What an error of the library means.
fn failed(target: &str, error: Error) -> SocketError {
    let target = target.to_owned();
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "the library's list is long; what is left can only come from a broken peer"
    )]
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => {
            SocketError::Lost { target, source: None }
        }
        Error::Io(source) => SocketError::Lost { target, source: Some(Box::new(source)) },
        Error::Protocol(
            async_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake
            | async_tungstenite::tungstenite::error::ProtocolError::SendAfterClosing,
        ) => SocketError::Lost { target, source: None },
        Error::Capacity(_) => SocketError::TooLarge { target, limit: MAX_MESSAGE },
        Error::WriteBufferFull(_) => SocketError::Flooded { target },
        other => SocketError::Protocol { target, source: Some(Box::new(other)) },
    }
}

/// A stream whose reader makes way for others now and then: sockets with something to read are
/// always ready, and a peer that sends without end would never let go of the thread.
#[derive(Debug)]
struct Paced {
    stream: Stream,
    /// Bytes read since it last made way.
    read: usize,
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.read >= TURN_BYTES {
            self.read = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        match &result {
            Poll::Ready(Ok(count)) => self.read = self.read.saturating_add(*count),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.read = 0,
        }
        result
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
