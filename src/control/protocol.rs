//! What goes over the control socket. Pure.
//!
//! One request a connection: a line of JSON, `{"v":1,"do":"status"}`, of at most [`MAX_REQUEST`]
//! bytes. The answer is lines of JSON: any number of `{"item":..}`, then `{"end":..}` or
//! `{"error":{"kind":..,"message":..}}`. An answer without one of the two was cut off.
//!
//! Invariants: a line never exceeds [`MAX_ANSWER`] bytes; members and kinds that are not known are
//! ignored by the reader, so that programs of neighbouring versions understand each other.

use harborforge_storage::{
    Became, Change, Entry, Gap, GapReason, Problem, Purged, Record, Set, Stamp, Uuid,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use crate::replay::{Replay, Replayed};

/// The version spoken here.
pub const VERSION: u32 = 1;
/// Longest request in bytes, line end included.
pub const MAX_REQUEST: usize = 64 * 1024;
/// Longest line of an answer in bytes: the largest record, escaped, and what stands around it.
pub const MAX_ANSWER: usize = 8 * 1024 * 1024;

/// A request with the version its sender speaks.
#[derive(Debug, Serialize, Deserialize)]
pub struct Versioned {
    /// [`VERSION`].
    pub v: u32,
    /// What is asked for.
    #[serde(flatten)]
    pub request: Request,
}

/// What a client may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// One item: [`super::status::Status`]; the end is `{}`.
    Status,
    /// One item: the figures as Prometheus reads them, a string; the end is `{}`.
    Metrics,
    /// Items: [`DumpItem`]; the end is [`DumpEnd`].
    Dump(Dump),
    /// Items: [`GenerationReport`](harborforge_storage::GenerationReport); the end is
    /// [`QueueReport`](harborforge_storage::QueueReport).
    Verify,
    /// Items: [`crate::replay::Progress`]; the end is a [`crate::replay::Outcome`].
    Replay(Replay),
    /// The end is [`PurgeEnd`].
    Purge {
        /// What is to go.
        what: Purge,
        /// Only tell what would go.
        #[serde(default, skip_serializing_if = "is_false")]
        dry_run: bool,
    },
    /// The configuration has changed, and perhaps the credentials: no item; the end is
    /// [`Enrolled`].
    Enroll(Enroll),
}

/// Whether a request reads or changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Whoever can open the socket.
    Read,
    /// Root and the daemon's own user.
    Change,
}

impl Request {
    /// What it needs.
    #[must_use]
    pub fn access(&self) -> Access {
        match self {
            Self::Status | Self::Metrics | Self::Dump(_) | Self::Verify => Access::Read,
            Self::Replay(replay) if replay.dry_run => Access::Read,
            Self::Replay(_) | Self::Purge { .. } | Self::Enroll(_) => Access::Change,
        }
    }

    /// Its name, for the log.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Metrics => "metrics",
            Self::Dump(_) => "dump",
            Self::Verify => "verify",
            Self::Replay(_) => "replay",
            Self::Purge { .. } => "purge",
            Self::Enroll(_) => "enroll",
        }
    }
}

/// Which samples a dump shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dump {
    /// Pending samples.
    #[serde(default)]
    pub pending: bool,
    /// Delivered ones.
    #[serde(default)]
    pub sent: bool,
    /// Rejected ones.
    #[serde(default)]
    pub rejected: bool,
    /// The first number.
    pub from: u64,
    /// The last number.
    pub to: u64,
    /// Go on with what comes and goes.
    #[serde(default)]
    pub follow: bool,
    /// Only the newest so many: the daemon may begin there, and may begin earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u64>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

impl Dump {
    /// The sets it names.
    #[must_use]
    pub fn sets(&self) -> Vec<Set> {
        let named =
            [(self.pending, Set::Pending), (self.sent, Set::Sent), (self.rejected, Set::Rejected)];
        named.into_iter().filter(|(named, _)| *named).map(|(_, set)| set).collect()
    }
}

/// One thing a dump shows.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DumpItem {
    /// A sample.
    Sample(Box<WireEntry>),
    /// Something that could not be read.
    Problem(WireProblem),
    /// What was there has been shown; what follows happens now.
    Following,
    /// Samples that came or went.
    Change(WireChange),
}

/// How a dump ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpEnd {
    /// The gaps known when it began, oldest first.
    pub gaps: Vec<Gap>,
}

/// A stored sample.
#[derive(Debug, Serialize, Deserialize)]
pub struct WireEntry {
    seq: u64,
    epoch: String,
    stamp: Stamp,
    state: State,
    /// What was stored, as it is; or, where that is no JSON, its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<Vec<u8>>,
    /// What the Monitor said and when, for a rejected one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rejection: Option<(String, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Pending,
    Sent,
    Rejected,
}

impl From<Entry> for WireEntry {
    fn from(entry: Entry) -> Self {
        let Entry { record, set, rejection } = entry;
        let state = match set {
            Set::Pending => State::Pending,
            Set::Sent => State::Sent,
            Set::Rejected => State::Rejected,
        };
        // A line end inside would end the message: such bytes go as numbers.
        let raw = (!record.payload.contains(&b'\n'))
            .then(|| String::from_utf8(record.payload.clone()).ok())
            .flatten()
            .and_then(|text| RawValue::from_string(text).ok())
            .filter(|raw| raw.get().as_bytes() == record.payload);
        let bytes = raw.is_none().then_some(record.payload);
        let (seq, epoch, stamp) = (record.seq, record.epoch.to_string(), record.stamp);
        Self { seq, epoch, stamp, state, payload: raw, bytes, rejection }
    }
}

impl From<WireEntry> for Entry {
    fn from(wire: WireEntry) -> Self {
        let set = match wire.state {
            State::Pending => Set::Pending,
            State::Sent => Set::Sent,
            State::Rejected => Set::Rejected,
        };
        let payload = match wire.payload {
            Some(raw) => Box::<str>::from(raw).into_string().into_bytes(),
            None => wire.bytes.unwrap_or_default(),
        };
        // Only a daemon of another make sends none: it is shown as all zero.
        let epoch = Uuid::parse_str(&wire.epoch).unwrap_or_default();
        let record = Record { seq: wire.seq, epoch, stamp: wire.stamp, payload };
        Self { record, set, rejection: wire.rejection }
    }
}

/// Consecutive samples of which the same became at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireChange {
    /// The first number.
    pub from: u64,
    /// The last number.
    pub to: u64,
    /// What became of them.
    pub state: NewState,
    /// Why they were given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<GapReason>,
    /// When, wall clock in milliseconds since 1970 UTC.
    pub wall_ms: u64,
}

/// What may become of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewState {
    /// It waits for delivery.
    Pending,
    /// It is delivered.
    Sent,
    /// It was refused for good.
    Rejected,
    /// It is listed as a gap.
    GivenUp,
}

impl NewState {
    /// Its name, as the outputs have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Rejected => "rejected",
            Self::GivenUp => "given_up",
        }
    }
}

impl From<Change> for WireChange {
    fn from(change: Change) -> Self {
        let Change { from, to, became, wall_ms } = change;
        let (state, reason) = match became {
            Became::Pending => (NewState::Pending, None),
            Became::Sent => (NewState::Sent, None),
            Became::Rejected => (NewState::Rejected, None),
            Became::GivenUp(reason) => (NewState::GivenUp, Some(reason)),
        };
        Self { from, to, state, reason, wall_ms }
    }
}

/// Something that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireProblem {
    /// The file or generation.
    pub path: String,
    /// First number concerned, 0 for a file that is not a generation.
    pub from: u64,
    /// Last number concerned.
    pub to: u64,
    /// What is wrong.
    pub what: String,
}

impl From<Problem> for WireProblem {
    fn from(problem: Problem) -> Self {
        let Problem { path, from, to, what } = problem;
        Self { path: path.display().to_string(), from, to, what }
    }
}

impl From<WireProblem> for Problem {
    fn from(wire: WireProblem) -> Self {
        let WireProblem { path, from, to, what } = wire;
        Self { path: path.into(), from, to, what }
    }
}

/// What `purge` removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purge {
    /// Rejected samples.
    Rejected,
    /// Delivered samples that are kept.
    Sent,
    /// Broken generations.
    Quarantine,
}

/// What a purge removed, or would remove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeEnd {
    /// Samples; in quarantine: generations.
    pub records: u64,
    /// What they took on disk.
    pub bytes: u64,
    /// Samples that stay, since a reader has them.
    #[serde(default)]
    pub pinned: u64,
    /// Samples that stay, since they lie beside samples that wait.
    #[serde(default)]
    pub shared: u64,
}

impl From<Purged> for PurgeEnd {
    fn from(purged: Purged) -> Self {
        let Purged { gone, pinned, shared } = purged;
        Self { records: gone.records, bytes: gone.bytes, pinned, shared }
    }
}

/// New credentials, and whose they are. The daemon reads its configuration again first; what it
/// does not find there of the credentials it keeps itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enroll {
    /// The Monitor they are for: a daemon that reports to another one does not take them.
    pub backend_url: String,
    /// This server's name there, likewise.
    pub identifier: String,
    /// A challenge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge_uuid: Option<String>,
    /// Or an API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
}

/// What the daemon has taken up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Its process.
    pub pid: u32,
    /// Where the credentials in use come from.
    pub from: CredentialFrom,
    /// Why its configuration could not be read again, if so; it goes on with the old one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_reloaded: Option<String>,
}

/// Where the credentials that a daemon uses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialFrom {
    /// Its configuration.
    Configuration,
    /// What was handed to it and kept in its `data_dir`.
    DataDir,
    /// Anything else, as a newer daemon may say.
    #[serde(other)]
    Other,
}

impl std::fmt::Debug for Enroll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enroll").finish_non_exhaustive()
    }
}

/// A line of an answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line<I, E> {
    /// Some of what was asked for.
    Item(I),
    /// That was all of it.
    End(E),
    /// It could not be done.
    Error(Refusal),
}

/// Why something is not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of reason.
    pub kind: RefusalKind,
    /// The reason, and what to do.
    pub message: String,
}

impl Refusal {
    /// A refusal of this kind.
    #[must_use]
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// Kinds of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// The request is not understood: of another version, or malformed.
    Request,
    /// The one who asks may not.
    Denied,
    /// Too many ask at once.
    Busy,
    /// The queue refuses.
    Storage,
    /// The Monitor cannot be reached.
    Unreachable,
    /// The Monitor refuses.
    Refused,
    /// Anything else, and what a newer daemon may say.
    #[serde(other)]
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(payload: &[u8]) -> Entry {
        let stamp = Stamp { wall_ms: 1, boot_ms: 2, boot_id: [3; 16] };
        let record = Record { seq: 42, epoch: Uuid::nil(), stamp, payload: payload.to_vec() };
        Entry { record, set: Set::Rejected, rejection: Some(("no".to_owned(), 9)) }
    }

    #[test]
    fn stored_bytes_come_out_as_they_went_in_whatever_they_are() {
        let payloads: [&[u8]; 6] =
            [br#"{"a": 1}"#, b" {\"a\":1}", b"{\n}", b"\xff\xfe", b"", b"no json"];
        for payload in payloads {
            let item = DumpItem::Sample(Box::new(entry(payload).into()));
            let line = serde_json::to_string(&Line::<_, DumpEnd>::Item(item)).unwrap();
            assert!(!line.contains('\n') && line.len() < MAX_ANSWER);
            let line: Line<DumpItem, DumpEnd> = serde_json::from_str(&line).unwrap();
            let Line::Item(DumpItem::Sample(wire)) = line else { panic!("{line:?}") };
            assert_eq!(Entry::from(*wire), entry(payload));
        }
    }

    #[test]
    fn requests_are_pinned() {
        let dump = Dump {
            pending: true,
            sent: false,
            rejected: true,
            from: 1,
            to: 9,
            follow: false,
            tail: None,
        };
        for (request, text, access) in [
            (Request::Status, r#"{"v":1,"do":"status"}"#, Access::Read),
            (
                Request::Dump(dump),
                r#"{"v":1,"do":"dump","pending":true,"sent":false,"rejected":true,"from":1,"to":9,"follow":false}"#,
                Access::Read,
            ),
            (Request::Verify, r#"{"v":1,"do":"verify"}"#, Access::Read),
            (
                Request::Purge { what: Purge::Quarantine, dry_run: false },
                r#"{"v":1,"do":"purge","what":"quarantine"}"#,
                Access::Change,
            ),
            (
                Request::Replay(Replay {
                    what: Replayed::Sent,
                    since_ms: Some(5),
                    until_ms: None,
                    from: None,
                    to: Some(9),
                    dry_run: false,
                }),
                r#"{"v":1,"do":"replay","what":"sent","since_ms":5,"to":9,"dry_run":false}"#,
                Access::Change,
            ),
        ] {
            assert_eq!(request.access(), access);
            let versioned = Versioned { v: VERSION, request: request.clone() };
            assert_eq!(serde_json::to_string(&versioned).unwrap(), text);
            let back: Versioned = serde_json::from_str(text).unwrap();
            assert_eq!(back.request, request);
        }
    }

    #[test]
    fn enrolment_is_pinned() {
        let request = Request::Enroll(Enroll {
            backend_url: "https://m.example/".into(),
            identifier: "vps.t1".into(),
            challenge_uuid: None,
            api_key: Some("k".into()),
        });
        assert_eq!((request.access(), request.name()), (Access::Change, "enroll"));
        let text = r#"{"v":1,"do":"enroll","backend_url":"https://m.example/","identifier":"vps.t1","api_key":"k"}"#;
        let versioned = Versioned { v: VERSION, request };
        assert_eq!(serde_json::to_string(&versioned).unwrap(), text);
        let enrolled = Enrolled { pid: 7, from: CredentialFrom::DataDir, not_reloaded: None };
        let text = r#"{"pid":7,"from":"data_dir"}"#;
        assert_eq!(serde_json::to_string(&enrolled).unwrap(), text);
        let newer = r#"{"pid":7,"from":"the moon","more":1}"#;
        let newer: Enrolled = serde_json::from_str(newer).unwrap();
        assert_eq!(newer.from, CredentialFrom::Other);
    }

    #[test]
    fn a_secret_is_in_no_debug_output() {
        let request = Request::Enroll(Enroll {
            backend_url: "https://m.example/".into(),
            identifier: "a".into(),
            challenge_uuid: Some("s3cret".into()),
            api_key: None,
        });
        assert!(!format!("{request:?}").contains("s3cret"));
    }

    #[test]
    fn what_a_newer_daemon_says_is_understood() {
        let refusal: Refusal =
            serde_json::from_str(r#"{"kind":"moonphase","message":"no","more":1}"#).unwrap();
        assert_eq!(refusal.kind, RefusalKind::Failed);
    }
}
