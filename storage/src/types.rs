//! The values that go in and out.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a queue takes beside its bounds, to be given back when the disk is full.
pub const BALLAST_BYTES: u64 = 1024 * 1024;

/// A moment, as the caller knows it; this crate has no clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Wall clock in milliseconds since 1970 UTC. It may jump either way.
    pub wall_ms: u64,
    /// Milliseconds since boot, suspend included. It only grows within one boot.
    pub boot_ms: u64,
    /// Tells boots apart: `boot_ms` of two stamps compare only if this is equal. All zero means
    /// unknown, which is equal to nothing.
    pub boot_id: [u8; 16],
}

impl Stamp {
    /// How long ago `self` was at `now`: by the time since boot within one boot, else by the
    /// wall clock; zero if that ran backwards. For show and for waits: what is deleted for its age
    /// goes by the queue's own clock, see [`Options::queue_max_age`].
    pub fn age_at(&self, now: &Self) -> Duration {
        let same_boot = self.boot_id == now.boot_id && self.boot_id != [0; 16];
        let (then, now) =
            if same_boot { (self.boot_ms, now.boot_ms) } else { (self.wall_ms, now.wall_ms) };
        Duration::from_millis(now.saturating_sub(then))
    }
}

/// A record to append.
#[derive(Debug, Clone, Copy)]
pub struct NewRecord<'a> {
    /// When it was made.
    pub stamp: Stamp,
    /// Its bytes, at most [`MAX_PAYLOAD`](crate::MAX_PAYLOAD).
    pub payload: &'a [u8],
}

/// A stored record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number: counts from 1, never used twice in one queue.
    pub seq: u64,
    /// The writable opening it was appended under; with `seq` unique in the world.
    pub epoch: Uuid,
    /// When it was made, as the caller said.
    pub stamp: Stamp,
    /// Its bytes, as they were given.
    pub payload: Vec<u8>,
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Set {
    /// Appended, not confirmed yet.
    Pending,
    /// Confirmed and still kept.
    Sent,
    /// Refused for good by the receiver and kept.
    Rejected,
}

/// How much one read returns at most. At least one record comes if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Number of records.
    pub records: usize,
    /// Sum of their payloads in bytes.
    pub bytes: usize,
}

/// How and when records were confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmation {
    /// Wall clock in milliseconds since 1970 UTC.
    pub wall_ms: u64,
    /// The caller's own mark, kept as it is (which transport, say).
    pub tag: u8,
}

/// The last record that was confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastSuccess {
    /// The record itself.
    pub record: Record,
    /// Its confirmation.
    pub at: Confirmation,
}

/// Why numbers have no record to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The queue was at its bound.
    QueueFull,
    /// The records were too old.
    Expired,
    /// The records could not be read back.
    Corrupt,
}

/// A run of numbers that will not be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// First number.
    pub from: u64,
    /// Last number.
    pub to: u64,
    /// Why.
    pub reason: GapReason,
    /// Whether they may have reached the receiver all the same, unconfirmed.
    pub maybe_delivered: bool,
    /// When it was recorded, wall clock in milliseconds since 1970 UTC.
    pub wall_ms: u64,
    /// Whether the receiver is known to have been told.
    pub announced: bool,
}

/// A record the receiver refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRecord {
    /// The record itself.
    pub record: Record,
    /// What the receiver said, at most 1024 bytes.
    pub reason: String,
    /// When it was refused, wall clock in milliseconds since 1970 UTC.
    pub wall_ms: u64,
}

/// A number of records and their payload bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Records.
    pub records: u64,
    /// Their payloads in bytes.
    pub bytes: u64,
}

/// Bounds and habits of a queue.
#[derive(Debug, Clone)]
pub struct Options {
    /// Payload bytes kept for sending; above it the oldest generations are given up.
    ///
    /// They take up to three times that on disk, which is a bound of its own; see
    /// [`disk_bound`](Self::disk_bound).
    pub queue_max_bytes: u64,
    /// How long records are kept for sending; none for ever. Older ones are given up by whole
    /// generations, so that at most an eighth more than asked is kept.
    ///
    /// Age is what the queue has proof of: the time since boot, added up over boots. A wall clock
    /// that jumps changes nothing, and time switched off does not count.
    pub queue_max_age: Option<Duration>,
    /// How long confirmed records are kept, in the same sense; zero deletes them at once.
    pub retain_sent: Duration,
    /// Bytes on disk of confirmed records kept; above it the oldest generations go.
    pub retain_sent_max_bytes: u64,
    /// Bytes on disk of rejected records kept; above it the oldest generations go.
    pub rejected_max_bytes: u64,
    /// Bytes on disk of broken generations kept for inspection; above it the oldest go.
    pub quarantine_max_bytes: u64,
    /// Records in one generation.
    pub generation_max_records: u64,
    /// Payload bytes in one generation; an eighth of `queue_max_bytes` if that is less.
    pub generation_max_bytes: u64,
    /// A generation takes no more records after this time, or an eighth of `queue_max_age` if that
    /// is less. Small generations cost space: one that holds 120 records of 300 bytes takes up to 6
    /// bytes on disk for each of them, one of 1440 up to 2.8.
    pub generation_max_age: Duration,
    /// The engine's page cache for each open generation, in bytes.
    pub cache_bytes: u64,
    /// How often the high-water mark is synced while records come in.
    pub mark_sync_interval: Duration,
    /// A pin that was not given back ends by itself after this time.
    pub pin_limit: Duration,
}

impl Default for Options {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            queue_max_bytes: 256 * MIB,
            queue_max_age: None,
            retain_sent: Duration::from_secs(24 * 3600),
            retain_sent_max_bytes: 32 * MIB,
            rejected_max_bytes: 64 * MIB,
            quarantine_max_bytes: 256 * MIB,
            generation_max_records: 4096,
            generation_max_bytes: 2 * MIB,
            generation_max_age: Duration::from_secs(12 * 3600),
            cache_bytes: 256 * 1024,
            mark_sync_interval: Duration::from_secs(30),
            pin_limit: Duration::from_secs(600),
        }
    }
}

impl Options {
    /// Payload bytes after which a generation is full.
    pub(crate) fn generation_bytes(&self) -> u64 {
        self.generation_max_bytes.min(self.queue_max_bytes / 8).max(1)
    }
}

/// What opening found and mended. Empty after a clean stop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Half-written snapshots that were deleted; they hold nothing the log does not.
    pub removed_snapshots: Vec<PathBuf>,
    /// Unreadable snapshots and engine settings that were moved aside.
    pub moved_aside: Vec<PathBuf>,
    /// Broken generations, where they lie now.
    pub quarantined: Vec<PathBuf>,
    /// Numbers found in the raw bytes of broken generations; they are delivered like any other.
    pub salvaged: Vec<RangeInclusive<u64>>,
    /// Numbers that should be there and are not; each is listed as a gap too.
    pub missing: Vec<RangeInclusive<u64>>,
    /// Small files of the queue that were unreadable and were rebuilt.
    pub rebuilt: Vec<PathBuf>,
}

impl OpenReport {
    /// Whether there was nothing to mend.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// How far a queue has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// All numbers up to this one are confirmed, rejected or in a gap.
    pub cursor: u64,
    /// The number the next record gets.
    pub next_seq: u64,
    /// Records waiting for confirmation.
    pub pending: u64,
}

/// The figures of a queue at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Records waiting for confirmation.
    pub pending: Tally,
    /// When the oldest of them was made, or a little before; none if none waits.
    pub oldest_pending: Option<Stamp>,
    /// The number the next record gets.
    pub next_seq: u64,
    /// All numbers up to this one are confirmed, rejected or in a gap.
    pub cursor: u64,
    /// Confirmed records still kept.
    pub sent: Tally,
    /// Rejected records kept.
    pub rejected: Tally,
    /// Generations on disk, all sets together.
    pub generations: usize,
    /// Generations in quarantine (`records`) and their size on disk.
    pub quarantined: Tally,
    /// What the queue takes on disk, quarantine included; without the ballast.
    pub disk_bytes: u64,
    /// Whether [`BALLAST_BYTES`] are set aside on disk, to be given back when it is full.
    pub ballast: bool,
    /// The epoch of this opening.
    pub epoch: Uuid,
    /// What happened since this opening.
    pub counters: Counters,
}

/// Counts since opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Records appended.
    pub appended: u64,
    /// Appends that failed.
    pub append_failures: u64,
    /// Records confirmed.
    pub acknowledged: u64,
    /// Records rejected.
    pub rejected: u64,
    /// Numbers given up because the queue was full or they were too old.
    pub given_up: u64,
    /// Numbers that could not be read back.
    pub corrupt: u64,
    /// Times the ballast was given up because the disk was full.
    pub ballast_given_up: u64,
}

/// What one maintenance round did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// Generations closed for good, with a current snapshot.
    pub sealed: usize,
    /// Drained generations kept as sent.
    pub kept: usize,
    /// Generations deleted.
    pub deleted: usize,
    /// Numbers given up since the last round because the queue was full.
    pub evicted: Vec<RangeInclusive<u64>>,
    /// Numbers given up since the last round because they were too old.
    pub expired: Vec<RangeInclusive<u64>>,
    /// Numbers salvaged from generations that were quarantined since the last round.
    pub salvaged: Vec<RangeInclusive<u64>>,
    /// Generations quarantined since the last round.
    pub quarantined: Vec<PathBuf>,
    /// Whether the high-water mark was synced.
    pub mark_synced: bool,
}

/// Keeps the generations of a range of numbers on disk; see [`Queue::pin`](crate::Queue::pin).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a pin holds disk space until it is given back"]
pub struct Pin(pub(crate) u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_survives_a_clock_jump_within_one_boot() {
        let then = Stamp { wall_ms: 1_000_000, boot_ms: 5_000, boot_id: [1; 16] };
        let now = Stamp { wall_ms: 9, boot_ms: 65_000, boot_id: [1; 16] };
        assert_eq!(then.age_at(&now), Duration::from_secs(60));
        let other_boot = Stamp { boot_id: [2; 16], ..now };
        assert_eq!(then.age_at(&other_boot), Duration::ZERO);
    }

    #[test]
    fn an_unknown_boot_compares_with_nothing() {
        let then = Stamp { wall_ms: 1_000, boot_ms: 500_000, boot_id: [0; 16] };
        let now = Stamp { wall_ms: 61_000, boot_ms: 9_000, boot_id: [0; 16] };
        assert_eq!(then.age_at(&now), Duration::from_secs(60));
    }
}
