//! Bounds on space: what the queue may take, and who goes when it would take more.
//!
//! Invariants:
//! - Every set has a bound on disk: rejected and sent records and the quarantine the one of the
//!   options, pending ones [`OVERHEAD`] times the bound on their payload, with an allowance for
//!   what a generation takes however little is in it. So all of it together stays under
//!   [`Options::disk_bound`], whatever the size of the records, as long as maintenance follows
//!   each append.
//! - A gap is durable before the generation behind it goes.
//!
//! Sizes of sealed generations are known; those still written to are looked up once for each
//! round of maintenance.

use crate::clock::millis;
use crate::error::Error;
use crate::files;
use crate::generation::Generation;
use crate::manifest::Role;
use crate::queue::Queue;
use crate::record::MAX_PAYLOAD;
use crate::types::{BALLAST_BYTES, GapReason, Options};

/// Bytes on disk for each payload byte of pending records, at most: at this the oldest go.
///
/// Measured in full generations of records that cannot be packed: 2.5 to 2.7 with 250 to 300 bytes,
/// 1.8 to 2.2 with 600 bytes, 1.9 with 60 KiB (`cargo test -p harborforge-storage --test disk_bound
/// -- --nocapture` shows it again). Generations closed early take more: 2.8 with 1440 records of
/// 300 bytes, 3.8 with 360. Packed ones take less: samples of 300 bytes 1.5, of 600 bytes 1.0, of
/// 60 KiB 0.4; so for them this is never what gives way.
const OVERHEAD: u64 = 3;

/// What a generation takes at least: the engine's files, its first segment and its directory, which
/// is 80 KiB with a single record; rounded up to two segments.
const LEAST_GENERATION: u64 = 128 * 1024;

/// Generations of the least size the bound on pending records has room for beside [`OVERHEAD`]:
/// twice as many as a full queue is made of.
const LEAST_GENERATIONS: u64 = 16;

/// The manifest's share of a generation: its entry, in the file, in the one that replaces it and
/// in one that was set aside.
const MANIFEST_SHARE: u64 = 1024;

/// Bytes on disk for each record whatever its size, headers and keys included; with 4096 empty
/// records it is 293.
const RECORD_OVERHEAD: u64 = 300;

/// Lock, format, mark, cursor, last success, an empty manifest with its gaps, and what the caller
/// keeps beside the queue.
const SMALL_FILES: u64 = 1024 * 1024;

impl Options {
    /// The most the data directory takes on disk with every set full: pending, sent and rejected
    /// records, quarantine, the ballast, the engine's overhead, and for each set one generation
    /// that is on its way. In bytes.
    ///
    /// Pending records are counted with three bytes on disk for each of `queue_max_bytes`, and at
    /// that the oldest go too: records of 300 bytes and more reach `queue_max_bytes` first, tiny
    /// ones, or generations closed early, this bound. How much that really is was measured, see
    /// `OVERHEAD` in `bounds.rs`; a test fills every set and compares. Holds for what was appended
    /// in calls that each [`maintain`](crate::Queue::maintain) followed.
    pub fn disk_bound(&self) -> u64 {
        let sent = if self.retain_sent.is_zero() { 0 } else { self.retain_sent_max_bytes };
        [
            self.pending_disk_bytes(),
            sent,
            self.rejected_max_bytes,
            self.quarantine_max_bytes,
            BALLAST_BYTES,
            self.generation_disk_bytes().saturating_mul(4),
            SMALL_FILES,
        ]
        .iter()
        .fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// What pending records may take on disk.
    fn pending_disk_bytes(&self) -> u64 {
        self.queue_max_bytes.saturating_mul(OVERHEAD).saturating_add(ALLOWANCE)
    }

    /// What one generation takes on disk at most.
    fn generation_disk_bytes(&self) -> u64 {
        // The record that fills it may go beyond.
        let payload = self.generation_bytes().saturating_add(MAX_PAYLOAD as u64);
        let records = self.generation_max_records.min(self.queue_max_bytes);
        payload
            .saturating_mul(OVERHEAD)
            .saturating_add(records.saturating_mul(RECORD_OVERHEAD))
            .saturating_add(LEAST_GENERATION)
    }
}

const ALLOWANCE: u64 = LEAST_GENERATION * LEAST_GENERATIONS;

impl Queue {
    /// Gives up the oldest generations until `incoming` more payload bytes are within the bounds.
    pub(crate) fn make_room(&mut self, incoming: u64) -> Result<(), Error> {
        let bound = self.options.queue_max_bytes;
        let disk_bound = self.options.pending_disk_bytes();
        let growth = incoming.saturating_mul(OVERHEAD);
        while self.pending_bytes().saturating_add(incoming) > bound
            || self.pending_disk().saturating_add(growth) > disk_bound
        {
            if !self.give_up_oldest(GapReason::QueueFull)? {
                break;
            }
        }
        Ok(())
    }

    /// Gives up the oldest generation that holds a pending record, durably. False when there is
    /// none, or when it could not be passed over.
    pub(crate) fn give_up_oldest(&mut self, reason: GapReason) -> Result<bool, Error> {
        let cursor = self.cursor;
        let Some(oldest) = self.row.iter().find(|g| holds_pending(g, cursor)) else {
            return Ok(false);
        };
        let (id, from, to) = (oldest.id, oldest.first.max(cursor.saturating_add(1)), oldest.last);
        if self.row.last().is_some_and(|g| g.id == id) {
            self.retire_active();
        }
        let given_up = self.counters.given_up;
        // What was handed out may have arrived; what was not has not.
        let now = self.now;
        let known = to.min(self.handed_out);
        if from <= known {
            self.give_up(from..=known, reason, true, now)?;
        }
        let fresh = from.max(known.saturating_add(1));
        if fresh <= to {
            self.give_up(fresh..=to, reason, false, now)?;
        }
        if self.counters.given_up > given_up {
            tracing::debug!(from, to, ?reason, "the oldest records are given up");
            let told = match reason {
                GapReason::Expired => &mut self.news.expired,
                GapReason::QueueFull | GapReason::Corrupt => &mut self.news.evicted,
            };
            match told.last_mut() {
                // Rounds may fail for long; the list does not grow by that.
                Some(before) if before.end().checked_add(1) == Some(from) => {
                    *before = *before.start()..=to;
                }
                Some(_) | None => told.push(from..=to),
            }
        }
        // Not passed over means that a gap before it is not on disk. Better over the bound than
        // for ever here.
        Ok(self.cursor >= to)
    }

    fn pending_bytes(&self) -> u64 {
        self.pending().fold(0, |sum, g| sum.saturating_add(g.live_bytes))
    }

    /// What generations with pending records take on disk, as last looked up.
    fn pending_disk(&self) -> u64 {
        disk_of(self.pending())
    }

    fn pending(&self) -> impl Iterator<Item = &Generation> {
        self.row.iter().filter(|g| holds_pending(g, self.cursor))
    }

    /// Looks up what the generations take that are still written to.
    pub(crate) fn measure_unsealed(&mut self) {
        for g in self.row.iter_mut().chain(&mut self.rejects).filter(|g| !g.sealed) {
            g.disk_bytes = files::disk_usage(&g.path(&self.dir));
        }
    }

    /// Pins end when what they hold would take the queue over its bound: a reader that is slow
    /// must not fill the disk.
    pub(crate) fn end_costly_pins(&mut self) {
        let (options, taken) = (&self.options, disk_of(self.row.iter()));
        let bound = options
            .pending_disk_bytes()
            .saturating_add(options.retain_sent_max_bytes)
            .saturating_add(options.generation_disk_bytes());
        if taken > bound && !self.pins.is_empty() {
            tracing::debug!(pins = self.pins.len(), taken, bound, "pins end, they hold too much");
            self.pins.clear();
        }
    }

    pub(crate) fn enforce_sent_bounds(&mut self) -> Result<(), Error> {
        let retain = millis(self.options.retain_sent);
        loop {
            let total = disk_of(self.row.iter().filter(|g| g.role == Role::Sent));
            let Some(at) = self.row.iter().position(|g| g.role == Role::Sent) else {
                return Ok(());
            };
            let Some(oldest) = self.row.get(at) else { return Ok(()) };
            let age = self.clock.now_ms().saturating_sub(oldest.sent_ms.unwrap_or(u64::MAX));
            let due = age >= retain || total > self.options.retain_sent_max_bytes;
            if !due || self.is_pinned(oldest) {
                return Ok(());
            }
            self.remove_from_row(at)?;
        }
    }

    pub(crate) fn enforce_rejected_bound(&mut self) -> Result<(), Error> {
        while disk_of(self.rejects.iter()) > self.options.rejected_max_bytes {
            // One that is written to stays. One whose numbers the cursor has not passed goes last.
            let may_go = |g: &Generation| !g.appendable && !self.is_pinned(g);
            let passed = self.rejects.iter().position(|g| may_go(g) && g.last <= self.cursor);
            let Some(at) = passed.or_else(|| self.rejects.iter().position(may_go)) else { break };
            if passed.is_none() {
                self.exclude_settled()?;
            }
            if at >= self.rejects.len() {
                break;
            }
            let g = self.rejects.remove(at);
            tracing::warn!(
                records = g.records,
                "the oldest rejected records go, their bound is reached"
            );
            self.delete_directory(g);
            self.manifest_dirty = true;
        }
        Ok(())
    }
}

fn holds_pending(g: &Generation, cursor: u64) -> bool {
    g.role == Role::Pending && g.last > cursor
}

fn disk_of<'a>(generations: impl Iterator<Item = &'a Generation>) -> u64 {
    generations.fold(0, |sum, g| sum.saturating_add(g.disk_bytes).saturating_add(MANIFEST_SHARE))
}
