//! What can go wrong in setting a Monitor up, and why a Monitor refuses what it was sent.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

/// A Monitor could not be started, resumed or awaited.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: is another program using the port?")]
    Listen {
        /// What was asked for.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The RSA key cannot be made or written down.
    #[error("the RSA key cannot be used: {0}")]
    Key(String),
    /// The certificates cannot be made.
    #[error("the TLS certificates cannot be made: {0}")]
    Tls(String),
    /// What was waited for did not come.
    #[error("still not so after {after:?}; the Monitor's counts are {counts}")]
    Timeout {
        /// How long was waited.
        after: Duration,
        /// The counts at that moment, as JSON.
        counts: String,
    },
}

/// Why something was refused; the key under which it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No `encrypted_payload`, or no `X-API-Key`.
    NoProof,
    /// The proof is not base64, does not decrypt, or is not the JSON object it has to be.
    UnreadableProof,
    /// `ts` is further from the Monitor's clock than it may be.
    Clock,
    /// The nonce was seen shortly before.
    Nonce,
    /// No such challenge was issued.
    UnknownChallenge,
    /// The challenge was not used in its lifetime.
    ExpiredChallenge,
    /// The challenge has had its WebSocket handshake.
    UsedChallenge,
    /// The challenge or token belongs to another identifier.
    OtherIdentifier,
    /// The resume token is none that is honoured.
    UnknownToken,
    /// The API key is another one.
    WrongApiKey,
    /// The telemetry object is not what the protocol's section 6 asks for.
    BadSample,
    /// The body or a sample is larger than it may be.
    TooLarge,
    /// The Monitor was told to refuse this sample.
    OnRequest,
    /// A thing this Monitor does not offer: batch without the capability, a WebSocket in API-key
    /// mode.
    NotOffered,
    /// Not a request of this protocol.
    BadRequest,
}

impl Reason {
    /// The HTTP status that says so.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::NoProof
            | Self::UnreadableProof
            | Self::Clock
            | Self::Nonce
            | Self::WrongApiKey => 401,
            Self::UnknownChallenge
            | Self::ExpiredChallenge
            | Self::UsedChallenge
            | Self::OtherIdentifier
            | Self::UnknownToken => 403,
            Self::BadSample | Self::OnRequest => 422,
            Self::TooLarge => 413,
            Self::NotOffered | Self::BadRequest => 400,
        }
    }
}

/// A refusal: its reason and what to tell the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// In words, without a secret.
    pub detail: String,
}

impl Refusal {
    /// A refusal for `reason`, put as `detail`.
    #[must_use]
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}
