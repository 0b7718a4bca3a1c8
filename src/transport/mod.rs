//! Carries bytes to the Monitor and answers back.
//!
//! One dialer opens every connection ([`Dialer`]: DNS, TCP, proxy, TLS, under one deadline); the
//! HTTP calls of the protocol go over it ([`HttpTransport`]), and the WebSocket
//! ([`WebSocketTransport`]). What an answer means is not decided here: every status is an
//! [`Answer`], and only what is no answer is a [`TransportError`].

mod certificate;
mod codec;
mod dialer;
mod endpoint;
mod error;
mod exchange;
mod http;
mod proxy;
mod resolve;
mod tls;
mod tunnel;
mod upgrade;
mod websocket;

pub use certificate::Certificate;
pub use dialer::{Dialer, MAX_ADDRESSES, Stream};
pub use endpoint::{Deadlines, Endpoint, EndpointError, Target};
pub use error::{
    AnchorFault, AnswerPart, Cause, Phase, ProxyFault, TlsFault, TransportError, Tried,
};
pub use http::{Answer, HttpTransport};
pub use proxy::Proxy;
pub use tls::Examined;
pub use upgrade::UpgradeError;
pub use websocket::{Incoming, Reader, Socket, SocketError, WebSocketTransport, Writer};
