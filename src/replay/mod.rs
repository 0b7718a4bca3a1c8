//! Delivering what waits now, what was delivered once more, and what was refused once more.
//!
//! The backlog is drained by the sender itself ([`drain`] only looks on and knows when to give
//! up). Delivered and rejected samples are posted one by one ([`resend`]), beside the sender and
//! by rules of their own ([`again`], pure).
//!
//! Invariants:
//! - A replayed post carries one sample and its answer speaks of that one alone: it moves no
//!   cursor, counts as no new delivery, and no acknowledgement of live traffic speaks of it.
//! - Delivered samples go out marked `"replayed": true`; rejected ones are not marked, since the
//!   Monitor never had them. One of those leaves the rejected set, durably, only when accepted.
//! - Whatever happens, it ends: after [`TRIES`] failures in a row or [`WITHIN`] without progress.
//! - It can be broken off at any moment, and gone on with from [`Progress::next`].

pub mod again;
pub mod drain;
mod pages;
pub mod patience;
pub mod resend;

use std::time::Duration;

use harborforge_storage::Record;
use serde::{Deserialize, Serialize};

pub use self::patience::{TRIES, WITHIN};

/// While something is waited for, whoever watches is shown how it stands this often.
const BEAT: Duration = Duration::from_millis(250);

/// What is to be delivered, or delivered again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// Which samples.
    pub what: Replayed,
    /// Only those taken since then, wall clock in milliseconds since 1970 UTC; not for the
    /// backlog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Only those taken until then; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// Only numbers from this one on; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Only numbers up to this one; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// Only say what would go.
    #[serde(default)]
    pub dry_run: bool,
}

/// Which samples are replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Replayed {
    /// The backlog: try now, and tell how it goes.
    Pending,
    /// Delivered ones, marked as replayed.
    Sent,
    /// Rejected ones, once more.
    Rejected,
}

impl Replay {
    /// Whether a sample taken at this time, in milliseconds since 1970 UTC, is wanted.
    #[must_use]
    pub fn takes(&self, wall_ms: u64) -> bool {
        self.since_ms.is_none_or(|since| wall_ms >= since)
            && self.until_ms.is_none_or(|until| wall_ms <= until)
    }

    /// The first and last number wanted.
    #[must_use]
    pub fn numbers(&self) -> (u64, u64) {
        (self.from.unwrap_or(1).max(1), self.to.unwrap_or(u64::MAX))
    }
}

/// What would go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Samples.
    pub samples: u64,
    /// Their bytes as stored.
    pub bytes: u64,
    /// Number of the first, and when it was taken: milliseconds since 1970 UTC.
    pub first: Option<(u64, u64)>,
    /// The same of the last.
    pub last: Option<(u64, u64)>,
}

impl Plan {
    /// Counts a sample; they come in the order of their numbers.
    pub fn add(&mut self, record: &Record) {
        let here = (record.seq, record.stamp.wall_ms);
        self.samples = self.samples.saturating_add(1);
        self.bytes = self.bytes.saturating_add(record.payload.len() as u64);
        self.first.get_or_insert(here);
        self.last = Some(here);
    }
}

/// How far it is. `delivered`, `refused`, `lost` and `left` add up to `samples`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Samples there were to go.
    pub samples: u64,
    /// Accepted by the Monitor.
    pub delivered: u64,
    /// Refused for good; kept among the rejected.
    pub refused: u64,
    /// Given up or unreadable meanwhile.
    pub lost: u64,
    /// Still to go.
    pub left: u64,
    /// The lowest number that is still to go; `None` when nothing is.
    pub next: Option<u64>,
    /// Why the newest try failed; `None` while it goes on well.
    pub trouble: Option<String>,
    /// Until the next try, in milliseconds.
    pub retry_in_ms: Option<u64>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Nothing is left.
    Done,
    /// Broken off by whoever watched.
    Interrupted,
    /// The Monitor cannot be reached, or does not answer as one.
    Unreachable,
    /// The Monitor does not accept the credentials.
    Refused,
    /// The Monitor refuses one sample after the other: the fault is not theirs.
    Unacceptable,
    /// The queue cannot be read or changed.
    Storage,
    /// A request cannot be made; and what a newer daemon may say.
    #[serde(other)]
    Failed,
}

/// The end of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How far it came.
    #[serde(flatten)]
    pub progress: Progress,
    /// How it ended.
    pub ended: Ended,
    /// Why, unless all is well.
    #[serde(default)]
    pub reason: Option<String>,
}

/// The answer to a request for a replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// To a dry run.
    Plan(Plan),
    /// To a real one.
    Report(Report),
}

/// Who is shown how it goes.
pub trait Watcher {
    /// Is shown how far it is; whether it is to go on.
    fn shows(&mut self, progress: &Progress) -> impl Future<Output = bool> + Send;
}
