//! What goes into the machine and what comes out of it.

use std::time::{Duration, SystemTime};

use crate::protocol::Capabilities;
use crate::sender::classify::Outcome;

/// The time, as far as decisions need it.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Since the machine's start, never backwards: all waits are measured in it.
    pub mono: Duration,
    /// The host's idea of the date; only reported, never waited by.
    pub wall: SystemTime,
}

/// Names one try, so that a late answer to an earlier one is recognised.
pub type Attempt = u64;

/// What the queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueView {
    /// Number of the oldest pending sample; equal to `next` when there is none.
    pub head: u64,
    /// Number the next sample will get.
    pub next: u64,
}

/// What the configuration says about sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Whether heartbeats are proved with the Monitor's key (mode `challenge`).
    pub proved: bool,
    /// Which transports are used.
    pub transports: Transports,
    /// Time between two samples.
    pub report_interval: Duration,
    /// Time between two rounds of heartbeats while the WebSocket is unavailable.
    pub fallback_interval: Duration,
    /// Longest wait between two tries.
    pub backoff_cap: Duration,
}

/// Which transports are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transports {
    /// Heartbeats alone, at each sample.
    Http,
    /// The WebSocket alone.
    Websocket,
    /// The WebSocket, and heartbeats while it is unavailable.
    Both,
}

/// One of the two ways to the Monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// The heartbeat.
    Http,
    /// The WebSocket.
    Websocket,
}

/// What a proof proves the possession of (docs/PROTOCOL.md 3 and 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The challenge (or the API key, where nothing is proved).
    Challenge,
    /// The resume token.
    Token,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The time of the last [`Command::WakeAt`] has come.
    Tick,
    /// The queue has changed.
    Queue(QueueView),
    /// The key document was fetched and its key accepted, or not.
    Key {
        /// The try this answers.
        attempt: Attempt,
        /// What it says, or what went wrong.
        result: Result<KeyNews, Failure>,
    },
    /// A WebSocket handshake came to an end.
    Handshake {
        /// The link this is about.
        link: Attempt,
        /// How it ended.
        result: Handshake,
    },
    /// The resume token is durable, or could not be made so.
    TokenSaved {
        /// The link it came over.
        link: Attempt,
        /// Whether it is durable.
        saved: bool,
    },
    /// Something came over, or happened to, an accepted WebSocket.
    Link {
        /// The link this is about.
        link: Attempt,
        /// What it was.
        event: LinkEvent,
    },
    /// A heartbeat came to an end.
    Answer {
        /// The try this answers.
        attempt: Attempt,
        /// How it ended.
        result: Answered,
    },
    /// The configuration was reloaded.
    Settings(Settings),
    /// Other credentials are in force from now on.
    Credentials,
    /// Another Monitor is to be used from now on: what is known of the old one is void.
    Endpoint {
        /// Whether a resume token of that Monitor is there.
        token: bool,
    },
    /// The operator, or the network coming up, asks to try now.
    TryNow,
    /// The daemon stops: start nothing more.
    Shutdown,
}

/// What a key document says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyNews {
    /// What the Monitor offers.
    pub capabilities: Capabilities,
    /// Whether the key is another than the one known before.
    pub changed: bool,
}

/// How a heartbeat ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// The queue had nothing to send after all; nothing was sent.
    NothingToSend,
    /// No answer came, or nothing could be sent.
    Failed(Failure),
    /// The Monitor answered.
    Got {
        /// Numbers of the samples sent, ascending; one for a single heartbeat.
        sent: Vec<u64>,
        /// What the answer means.
        outcome: Outcome,
    },
}

/// How a WebSocket handshake ended (docs/PROTOCOL.md 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handshake {
    /// The Monitor accepts this server.
    Accepted {
        /// Whether it handed out a resume token, which has to be saved first.
        token: bool,
    },
    /// The Monitor does not accept this server, in its words.
    Refused(String),
    /// The Monitor asks to wait: this long, or the backoff when it does not say.
    Busy(Option<Duration>, String),
    /// Anything else: a broken link.
    Broken(Failure),
}

/// What happens on an accepted link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// Samples are about to be written: numbers and bytes, ascending. Told before the first byte
    /// is on the wire, so that no acknowledgement comes before it.
    Sending(Vec<(u64, usize)>),
    /// The writing asked for is done.
    Written {
        /// The queue had nothing to send after all.
        nothing: bool,
    },
    /// `{"event":"ack"}` with this number.
    Ack(u64),
    /// `{"event":"reject"}` with this number and these words.
    Reject(u64, String),
    /// `{"ok":false}`, with these words.
    NotOk(String),
    /// A Pong with the payload of one of our Pings.
    Pong([u8; 8]),
    /// Any other frame: the other side lives.
    Frame,
    /// The link broke, or was closed.
    Lost(String),
    /// The Monitor closed the link with a code that refuses this server.
    Refused(String),
}

impl LinkEvent {
    /// Whether it shows that the other side lives.
    pub(super) fn is_frame(&self) -> bool {
        match self {
            Self::Ack(_) | Self::Reject(..) | Self::NotOk(_) | Self::Pong(_) | Self::Frame => true,
            Self::Sending(_) | Self::Written { .. } | Self::Lost(_) | Self::Refused(_) => false,
        }
    }
}

/// What kind of failure it was; the log speaks once of each kind in an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The Monitor was not reached, or the connection broke.
    Unreachable,
    /// The key document or its key is not usable.
    Key,
    /// The Monitor answered, but neither took nor refused the sample.
    Answer,
    /// The Monitor asks to wait.
    Busy,
    /// The Monitor does not accept this server (challenge, key, identifier).
    NotAccepted,
    /// The Monitor refuses the sample itself.
    Unacceptable,
    /// The queue, or the making of the request, failed on this side.
    Local,
}

/// A failure: its kind, and the words for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind it was.
    pub kind: FailureKind,
    /// What happened, for people.
    pub reason: String,
}

/// Which samples a heartbeat carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// The oldest pending sample numbered `from` or higher, alone.
    Single {
        /// Lowest number wanted.
        from: u64,
    },
    /// The oldest pending samples from `from` on.
    Batch {
        /// Lowest number wanted.
        from: u64,
        /// Samples at most.
        records: usize,
        /// Bytes of encoded samples at most.
        bytes: usize,
    },
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Fetch the key document; answer with [`Event::Key`].
    FetchKey {
        /// The try's name.
        attempt: Attempt,
    },
    /// Send a heartbeat; answer with [`Event::Answer`].
    Post {
        /// The try's name.
        attempt: Attempt,
        /// What it carries.
        selection: Selection,
        /// What it is proved with.
        proof: Proof,
    },
    /// Open a WebSocket and shake hands; answer with [`Event::Handshake`].
    Connect {
        /// The link's name.
        link: Attempt,
        /// What is proved.
        proof: Proof,
    },
    /// Make the resume token that came with the acceptance durable; answer with
    /// [`Event::TokenSaved`].
    SaveToken {
        /// The link it came over.
        link: Attempt,
    },
    /// Send `server.hello`.
    Hello {
        /// The link.
        link: Attempt,
    },
    /// Send the oldest pending samples from `from` on; tell [`LinkEvent::Sending`] before and
    /// [`LinkEvent::Written`] after.
    Send {
        /// The link.
        link: Attempt,
        /// Lowest number wanted.
        from: u64,
        /// Samples at most.
        records: usize,
        /// Bytes of telemetry objects at most, but at least one sample.
        bytes: usize,
    },
    /// Send a Ping.
    Ping {
        /// The link.
        link: Attempt,
        /// Its payload.
        payload: [u8; 8],
    },
    /// Close the link, if it is still open, and forget it.
    CloseLink {
        /// The link.
        link: Attempt,
    },
    /// Everything up to and including this number is stored at the Monitor.
    Acknowledge {
        /// Last number that is stored.
        up_to: u64,
        /// How that is known.
        transport: Transport,
    },
    /// Move one sample to the rejected.
    Reject {
        /// Its number.
        seq: u64,
        /// The Monitor's reason.
        reason: String,
    },
    /// Call again with [`Event::Tick`] at this monotonic time, unless something happens before.
    WakeAt(Duration),
    /// Something the operator may want to know.
    Report(Report),
    /// Shutdown is complete: nothing is under way.
    Finished,
}

/// A change worth a log line or a place in `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A try failed; the next one is `retry_in` away.
    Failed {
        /// On which way.
        transport: Transport,
        /// What went wrong.
        failure: Failure,
        /// Until the next try.
        retry_in: Duration,
    },
    /// Samples were delivered.
    Delivered {
        /// By which way.
        transport: Transport,
    },
    /// The WebSocket is accepted; nothing is confirmed yet.
    Linked,
    /// The WebSocket has been away too long: heartbeats take over.
    FallbackBegan,
    /// The WebSocket confirms again: heartbeats end.
    FallbackEnded,
    /// Three samples in a row were refused: nothing more is moved, the newest is the probe.
    Probing {
        /// The Monitor's reason for the last of them.
        reason: String,
    },
    /// The Monitor takes samples again after a probe.
    ProbeAccepted,
    /// A refused batch is tried again with fewer samples.
    BatchHalved {
        /// Samples in the next batch at most.
        records: usize,
    },
}
