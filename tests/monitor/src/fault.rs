//! Misbehaviour on request: what can go wrong, where and how often. Pure.
//!
//! A request meets at most one fault that takes the place of its answer or spoils it, and any
//! number of those that only change what the Monitor says. Which they are is said at each fault.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::answer::Answer;
use crate::schedule::Plan;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    /// The key document.
    Key,
    /// A heartbeat, single or batch.
    Heartbeat,
    /// A WebSocket upgrade.
    WebSocket,
    /// Anything else.
    Other,
}

/// One way of misbehaving. As JSON: `{"kind":"status","status":503,"headers":[["Retry-After","7"]]}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    // --- a connection, before anything is read ------------------------------------------
    /// It is reset (RST) when the client has said its first word.
    ResetConnection,
    /// It is closed (FIN).
    CloseConnection,
    /// It is held open and never read, TLS included.
    IgnoreConnection,
    /// It is served, but everything goes out in TCP segments of one byte.
    ByteByByte,

    // --- in place of an answer: nothing of the request is done --------------------------
    /// The request is read and never answered.
    Hang,
    /// The request is read and the connection closed.
    Disconnect,
    /// This answer.
    Status {
        /// The status code.
        status: u16,
        /// Headers, name and value.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// The body.
        #[serde(default)]
        body: String,
    },
    /// 307 to this place.
    Redirect {
        /// The `Location`.
        location: String,
    },
    /// 200 with a captive portal's page.
    Portal,
    /// 200 `{"ok":false,"error":...}`.
    OkFalse,
    /// Bytes that are not HTTP.
    Garbage,
    /// 200 with a body of this many bytes of JSON that never ends properly.
    HugeBody {
        /// Bytes of the body.
        bytes: u64,
    },
    /// A head that goes on for this many bytes.
    HugeHead {
        /// Bytes of the head.
        bytes: u64,
    },

    // --- the request is done, but the answer suffers ------------------------------------
    /// The connection is closed in place of the answer.
    LoseAnswer,
    /// The answer is never sent.
    HoldAnswer,
    /// Only this many bytes of the answer are sent, then the connection is closed.
    CutAnswer {
        /// Bytes sent, head included.
        after: usize,
    },
    /// The answer is sent byte by byte.
    SlowAnswer {
        /// Milliseconds between two bytes.
        pause_ms: u64,
    },

    // --- what the Monitor says is changed -----------------------------------------------
    /// The key document shows another key, with which nothing can be opened.
    WrongKey,
    /// The `Date` header is off by this many seconds.
    DateSkew {
        /// Seconds, positive for a date ahead.
        seconds: i64,
    },
    /// There is no `Date` header.
    NoDate,
    /// There is an `Age` header, as a cache adds.
    Age {
        /// Its value.
        seconds: u64,
    },
    /// Samples with these numbers are refused, over every transport.
    Reject {
        /// The numbers.
        seqs: BTreeSet<u64>,
        /// The status of a single heartbeat's refusal, 422 for one.
        #[serde(default = "unprocessable")]
        status: u16,
        /// Whether a batch that holds one is refused as a whole with that status, in place of
        /// listing it under `rejected`.
        #[serde(default)]
        whole_batch: bool,
    },
    /// Of a batch only this many samples are dealt with.
    PartOfBatch {
        /// How many.
        samples: usize,
    },
    /// A batch is dealt with, and answered with this `acked_seq`.
    WrongAckedSeq {
        /// The number.
        seq: u64,
    },

    // --- a WebSocket that was opened; any number of them on one link ---------------------
    // `messages` counts the client's text messages since the upgrade: the proof is the first,
    // `server.hello` the second. The fault strikes when so many have been dealt with, before the
    // answer to the last of them.
    /// Everything is dealt with and nothing said: no acceptance, no acknowledgement. Pings are
    /// answered.
    Silent,
    /// The connection is closed without a goodbye.
    Cut {
        /// After so many messages.
        messages: u64,
    },
    /// Nothing more is read or written; the connection stays open.
    HalfOpen {
        /// After so many messages.
        messages: u64,
    },
    /// The link is closed with this code.
    Close {
        /// After so many messages.
        messages: u64,
        /// The code.
        code: u16,
        /// The words with it.
        #[serde(default)]
        reason: String,
    },
    /// This text is sent, whatever it is; once on each link.
    Say {
        /// After so many messages.
        messages: u64,
        /// The text.
        text: String,
    },
    /// A binary message is sent.
    Binary {
        /// After so many messages.
        messages: u64,
        /// Its bytes, all of them zero.
        bytes: usize,
    },
    /// A text message of this size is sent.
    HugeMessage {
        /// After so many messages.
        messages: u64,
        /// Its bytes.
        bytes: usize,
        /// Bytes of each fragment; one piece without.
        #[serde(default)]
        fragments: Option<usize>,
    },
    /// Every message goes out in fragments, with a Ping after each.
    Fragments {
        /// Bytes of a fragment.
        bytes: usize,
    },
    /// No Ping is answered.
    NeverPong,
    /// Nothing is acknowledged.
    NeverAck,
    /// Acknowledgements are sent late.
    AckLate {
        /// By so many milliseconds.
        millis: u64,
    },
    /// Acknowledgements are sent twice.
    AckTwice,
    /// Acknowledgements are of samples that were not sent.
    AckBeyond {
        /// By so many.
        by: u64,
    },
}

fn unprocessable() -> u16 {
    422
}

/// What a fault comes to.
enum Effect {
    /// It concerns the connection, before anything is read.
    Connection,
    /// This, in place of dealing with the request.
    Instead(Outcome),
    /// The request is dealt with, and its answer suffers.
    Spoil(Spoil),
    /// What is said changes, where it is said.
    Change,
    /// It concerns an opened WebSocket.
    Link,
}

/// How an answer suffers.
enum Spoil {
    Lose,
    Hold,
    Cut(usize),
    Slow(u64),
}

impl Fault {
    /// A close with this code after so many messages, without words.
    #[must_use]
    pub fn close(messages: u64, code: u16) -> Self {
        Self::Close { messages, code, reason: String::new() }
    }

    /// A plain status without headers and body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::Status { status, headers: Vec::new(), body: String::new() }
    }

    /// A status with a `Retry-After` header.
    #[must_use]
    pub fn retry_after(status: u16, value: &str) -> Self {
        let headers = vec![("Retry-After".to_owned(), value.to_owned())];
        Self::Status { status, headers, body: String::new() }
    }

    /// A refusal of these samples with 422, listed one by one in a batch.
    #[must_use]
    pub fn reject(seqs: impl IntoIterator<Item = u64>) -> Self {
        Self::Reject { seqs: seqs.into_iter().collect(), status: 422, whole_batch: false }
    }

    /// Every time, at every route.
    #[must_use]
    pub fn always(self) -> Plan {
        Plan { fault: self, at: None, times: None, after: 0 }
    }

    /// The next time only.
    #[must_use]
    pub fn once(self) -> Plan {
        self.always().times(1)
    }

    /// At one route only.
    #[must_use]
    pub fn at(self, route: Route) -> Plan {
        self.always().at(route)
    }

    /// When in a connection's or request's life the fault strikes.
    pub(crate) fn stage(&self) -> Stage {
        match self.effect() {
            Effect::Connection => Stage::Connection,
            Effect::Instead(_) | Effect::Spoil(_) => Stage::Answer,
            Effect::Change => Stage::Change,
            Effect::Link => Stage::Link,
        }
    }

    /// What is sent in place of dealing with the request; `None` when it is dealt with.
    pub(crate) fn instead(&self) -> Option<Outcome> {
        if let Effect::Instead(outcome) = self.effect() { Some(outcome) } else { None }
    }

    /// What becomes of the answer to a request that was dealt with.
    pub(crate) fn spoil(&self, answer: Answer) -> Outcome {
        let Effect::Spoil(spoil) = self.effect() else { return Outcome::Answer(answer) };
        match spoil {
            Spoil::Lose => Outcome::Bytes(Vec::new()),
            Spoil::Hold => Outcome::Hang,
            Spoil::Cut(after) => {
                let mut bytes = answer.to_bytes();
                bytes.truncate(after);
                Outcome::Bytes(bytes)
            }
            Spoil::Slow(pause_ms) => Outcome::Slow { bytes: answer.to_bytes(), pause_ms },
        }
    }

    fn effect(&self) -> Effect {
        let answer = |answer| Effect::Instead(Outcome::Answer(answer));
        match self {
            Self::ResetConnection
            | Self::CloseConnection
            | Self::IgnoreConnection
            | Self::ByteByByte => Effect::Connection,
            Self::Hang => Effect::Instead(Outcome::Hang),
            Self::Disconnect => Effect::Instead(Outcome::Bytes(Vec::new())),
            Self::Status { status, headers, body } => answer(Answer {
                status: *status,
                headers: headers.clone(),
                body: body.clone().into_bytes(),
            }),
            Self::Redirect { location } => {
                answer(Answer::detail(307, "moved").with("location", location))
            }
            Self::Portal => answer(Answer::typed(
                200,
                "text/html; charset=utf-8",
                "<!doctype html><title>Welcome</title><p>Please accept our terms.".to_owned(),
            )),
            Self::OkFalse => {
                let body = json!({"ok": false, "error": "refused on request"});
                answer(Answer::json(200, &body))
            }
            Self::Garbage => {
                let bytes = b"\x16\x03\x01 this is not HTTP \xff\xfe\r\n\r\n".to_vec();
                Effect::Instead(Outcome::Bytes(bytes))
            }
            Self::HugeBody { bytes } => {
                let head = Answer::typed(200, "application/json", String::new()).head();
                Effect::Instead(Outcome::Endless {
                    start: format!("{head}content-length: {bytes}\r\n\r\n").into_bytes(),
                    filler: b"[0,".repeat(4096),
                    bytes: *bytes,
                })
            }
            Self::HugeHead { bytes } => Effect::Instead(Outcome::Endless {
                start: b"HTTP/1.1 200 OK\r\n".to_vec(),
                filler: b"x-filler: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(64),
                bytes: *bytes,
            }),
            Self::LoseAnswer => Effect::Spoil(Spoil::Lose),
            Self::HoldAnswer => Effect::Spoil(Spoil::Hold),
            Self::CutAnswer { after } => Effect::Spoil(Spoil::Cut(*after)),
            Self::SlowAnswer { pause_ms } => Effect::Spoil(Spoil::Slow(*pause_ms)),
            Self::WrongKey
            | Self::DateSkew { .. }
            | Self::NoDate
            | Self::Age { .. }
            | Self::Reject { .. }
            | Self::PartOfBatch { .. }
            | Self::WrongAckedSeq { .. } => Effect::Change,
            Self::Silent
            | Self::Cut { .. }
            | Self::HalfOpen { .. }
            | Self::Close { .. }
            | Self::Say { .. }
            | Self::Binary { .. }
            | Self::HugeMessage { .. }
            | Self::Fragments { .. }
            | Self::NeverPong
            | Self::NeverAck
            | Self::AckLate { .. }
            | Self::AckTwice
            | Self::AckBeyond { .. } => Effect::Link,
        }
    }
}

/// When a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// As a connection is made.
    Connection,
    /// In place of a request's answer, or upon it.
    Answer,
    /// In what is said.
    Change,
    /// On a WebSocket, once it is open.
    Link,
}

/// What goes back over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A proper answer.
    Answer(Answer),
    /// Nothing, ever.
    Hang,
    /// These bytes, then the connection is closed.
    Bytes(Vec<u8>),
    /// These bytes one by one, then the connection is closed.
    Slow { bytes: Vec<u8>, pause_ms: u64 },
    /// `start`, then `filler` again and again for `bytes` bytes, then the connection is closed.
    Endless { start: Vec<u8>, filler: Vec<u8>, bytes: u64 },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_spoiled_as_asked() {
        let answer = Answer::detail(200, "fine");
        let cut = Fault::CutAnswer { after: 4 }.spoil(answer.clone());
        assert_eq!(cut, Outcome::Bytes(b"HTTP".to_vec()));
        assert_eq!(Fault::LoseAnswer.spoil(answer.clone()), Outcome::Bytes(Vec::new()));
        assert_eq!(Fault::NoDate.spoil(answer.clone()), Outcome::Answer(answer));
        assert_eq!(Fault::Hang.instead(), Some(Outcome::Hang));
        assert_eq!(Fault::LoseAnswer.instead(), None);
    }
}
