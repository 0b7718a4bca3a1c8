//! The wire contract with a Monitor (docs/PROTOCOL.md): paths, limits and messages.
//!
//! Pure: no socket, no clock, no runtime. Every number the contract names stands here once;
//! what decides with them (`sender`) and what carries the bytes (`transport`) take it from here.
//! The heartbeat's messages are in `http`, the WebSocket's in `websocket`.

mod http;
mod websocket;

pub use http::{AnswerBody, AnswerObject, batch_body, read_answer};
pub use websocket::{
    Event as WebSocketEvent, HandshakeAnswer, Hello, StatusChange, metrics_message,
    metrics_message_into, proof_message, read_event, read_handshake, refuses,
};

use std::time::Duration;

use serde::Deserialize;

use crate::sample::MAX_ENCODED;

/// Path of the key document, relative to `backend_url` (the protocol's section 1).
pub const KEY_PATH: &str = "monitor/public/server-public-key";
/// Path of the WebSocket (section 1).
pub const WEBSOCKET_PATH: &str = "monitor/server/ws";
/// Path of the heartbeat (section 1).
pub const HEARTBEAT_PATH: &str = "monitor/server/heartbeat";

/// DNS, TCP, proxy, TLS and, for the WebSocket, the upgrade together (section 4).
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// One HTTP request, connecting included (section 5).
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(15);
/// Bytes of an HTTP answer that are read at most (sections 2 and 5).
pub const MAX_ANSWER: usize = 64 * 1024;

/// How long the answer to the WebSocket's proof may take (section 4).
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of an incoming WebSocket message; more drops the link (section 4).
pub const MAX_MESSAGE: usize = 1024 * 1024;
/// Samples in flight on a WebSocket at most (section 4).
pub const WINDOW_SAMPLES: usize = 512;
/// Bytes of samples in flight on a WebSocket at most (section 4).
pub const WINDOW_BYTES: usize = 1024 * 1024;
/// A link is dropped when nothing was confirmed for this long although samples were waiting for
/// it (section 4).
pub const CONFIRMATION_DEADLINE: Duration = Duration::from_secs(60);
/// Without capability `ack`, samples that were read are confirmed by a Pong to a Ping sent this
/// much later (section 4).
pub const BARRIER_DELAY: Duration = Duration::from_secs(5);
/// So many links lost in a row with the same oldest unconfirmed sample send it by heartbeat
/// (section 4).
pub const LINKS_LOST_WITH_ONE_SAMPLE: u32 = 3;
/// A link on which no frame came for this long is dead, if a Ping has been out for
/// [`PING_GRACE`] (section 4).
pub const SILENCE_LIMIT: Duration = Duration::from_secs(45);
/// How long a Ping must have been out before silence counts as death (section 4).
pub const PING_GRACE: Duration = Duration::from_secs(15);
/// Characters of a resume token at most (section 7).
pub const MAX_RESUME_TOKEN: usize = 36;

/// Samples in one batch heartbeat (section 7).
pub const BATCH_RECORDS: usize = 500;
/// Bytes of one batch heartbeat's body (section 7).
pub const BATCH_BYTES: usize = 1024 * 1024;
/// Bytes of a batch's body kept free for its identifier, proof and punctuation.
pub const BATCH_ENVELOPE: usize = 8 * 1024;

/// How often a refused sample is tried before it moves to the rejected (section 5).
pub const TRIES_OF_A_REFUSED_SAMPLE: u32 = 3;
/// So many refused samples in a row are not the samples' fault (section 5).
pub const REFUSED_IN_A_ROW: u32 = 3;
/// The key document is fetched again for refused heartbeats at most this often (section 2).
pub const KEY_REFETCH_INTERVAL: Duration = Duration::from_secs(60);

/// First step of the backoff (section 8).
pub const BACKOFF_BASE: Duration = Duration::from_secs(1);
/// A skew of the own clock beyond this makes the proof carry the Monitor's time (section 2).
pub const SKEW_TOLERANCE: Duration = Duration::from_secs(5);
/// The first try after a link that had confirmed something was lost is spread over this, or the
/// report interval if that is less (section 8).
pub const RECONNECT_SPREAD: Duration = Duration::from_secs(30);
/// A challenge whose handshake was refused twice is tried once in this time (section 3).
pub const REFUSED_RETRY: Duration = Duration::from_secs(3600);
/// A Monitor calls a server offline when it has been silent for this long (section 8).
pub const OFFLINE_THRESHOLD: Duration = Duration::from_secs(7 * 60);

// A single sample always fits a batch, so that halving a batch always ends.
const _: () = assert!(MAX_ENCODED + BATCH_ENVELOPE <= BATCH_BYTES);
// Silence is judged only after a Ping that it could have been broken by.
const _: () = assert!(PING_GRACE.as_secs() < SILENCE_LIMIT.as_secs());

/// Extensions a Monitor may offer (section 7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Samples on the WebSocket are acknowledged by number.
    pub ack: bool,
    /// Acceptances hand out tokens that stand in for the challenge.
    pub resume: bool,
    /// A heartbeat may carry many samples.
    pub batch: bool,
}

impl Capabilities {
    /// Takes what is known out of a key document's `capabilities`; unknown names are ignored,
    /// since a newer Monitor may offer more.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut found = Self::default();
        for name in names {
            match name {
                "ack" => found.ack = true,
                "resume" => found.resume = true,
                "batch" => found.batch = true,
                _ => {}
            }
        }
        found
    }
}

/// A sample a Monitor says it will never accept (sections 4 and 7).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Rejection {
    /// The sample's number.
    pub seq: u64,
    /// The Monitor's words.
    #[serde(default)]
    pub error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_taken_by_name_and_unknown_ones_ignored() {
        let all = Capabilities::from_names(["ack", "resume", "batch", "teleport"]);
        assert_eq!(all, Capabilities { ack: true, resume: true, batch: true });
        assert_eq!(Capabilities::from_names([]), Capabilities::default());
    }
}
