//! The queue itself: append, acknowledge, reject, give up.
//!
//! Invariants:
//! - Every number from 1 to below `next_seq` is at any time exactly one of: at or below the
//!   cursor; settled (rejected, or in a gap); pending.
//! - What settles a number is durable before the number is passed over.
//! - Memory never says more than the disk: fields change after the write they stand for.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::engine::{Fault, Repairs, Store};
use crate::error::Error;
use crate::files;
use crate::gaps::Gaps;
use crate::generation::{Generation, Name};
use crate::lock::Lock;
use crate::manifest::{Manifest, Role};
use crate::marks::{CursorFile, MarkFile};
use crate::ranges::RangeSet;
use crate::record::{self, MAX_PAYLOAD};
use crate::types::{
    Confirmation, Counters, Gap, GapReason, LastSuccess, Maintenance, NewRecord, Options, Pin,
    Record, Stamp, Stats, Tally,
};

/// A durable queue of numbered records; see the crate's documentation.
///
/// Not shared between threads: one thread owns it, and every call blocks for as long as the
/// disk takes.
pub struct Queue {
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) _lock: Lock,
    pub(crate) epoch: Uuid,
    /// The latest moment the caller told of.
    pub(crate) now: Stamp,
    /// Pending and sent generations, by number.
    pub(crate) row: Vec<Generation>,
    /// Rejected generations, by age.
    pub(crate) rejects: Vec<Generation>,
    pub(crate) next_seq: u64,
    pub(crate) next_id: u64,
    pub(crate) cursor: u64,
    /// Number and confirmation of the last success.
    pub(crate) success: Option<(u64, Confirmation)>,
    pub(crate) last_success: Option<LastSuccess>,
    /// Numbers with a generation in the row that are not to be delivered, beside the cursor.
    pub(crate) settled: RangeSet,
    pub(crate) gaps: Gaps,
    /// Numbers up to this one may have reached the receiver.
    pub(crate) handed_out: u64,
    pub(crate) mark_file: MarkFile,
    pub(crate) mark_synced_at: Stamp,
    pub(crate) cursor_file: CursorFile,
    /// The manifest on disk lacks something.
    pub(crate) manifest_dirty: bool,
    /// The cursor on disk lags behind what can be derived from settled numbers.
    pub(crate) cursor_dirty: bool,
    pub(crate) pins: Vec<Pinned>,
    pub(crate) next_pin: u64,
    /// The generation read last.
    pub(crate) reading: Option<u64>,
    pub(crate) oldest: Option<Stamp>,
    pub(crate) quarantined: Tally,
    pub(crate) counters: Counters,
    /// What happened since the last maintenance.
    pub(crate) news: Maintenance,
}

/// Generations held for a reader.
pub(crate) struct Pinned {
    pub(crate) id: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) since: Stamp,
}

impl Queue {
    /// Appends records and returns their numbers once they are on disk.
    ///
    /// An error means that none of them counts as appended: the same call can be made again,
    /// and then the same numbers are given. No records give an empty range.
    ///
    /// # Errors
    /// [`Error::TooLarge`] before anything is written; else what kept them from the disk.
    pub fn append(&mut self, records: &[NewRecord<'_>]) -> Result<RangeInclusive<u64>, Error> {
        let first = self.next_seq;
        if let Some(size) = records.iter().map(|r| r.payload.len()).find(|&size| size > MAX_PAYLOAD)
        {
            return Err(Error::TooLarge { size, limit: MAX_PAYLOAD });
        }
        if let Some(latest) = records.last() {
            self.now = latest.stamp;
        }
        let incoming = records.iter().map(|r| r.payload.len() as u64).sum();
        self.make_room(incoming)?;
        if let Err(error) = self.append_all(records) {
            self.counters.append_failures = self.counters.append_failures.saturating_add(1);
            self.undo_append(first);
            return Err(error);
        }
        self.next_seq = first.saturating_add(records.len() as u64);
        self.counters.appended = self.counters.appended.saturating_add(records.len() as u64);
        if self.oldest.is_none() {
            self.oldest = records.first().map(|r| r.stamp);
        }
        if !records.is_empty() {
            // The records are durable whether or not the mark could be moved.
            self.mark_file.set(self.next_seq.saturating_sub(1));
        }
        Ok(first..=self.next_seq.saturating_sub(1))
    }

    fn append_all(&mut self, records: &[NewRecord<'_>]) -> Result<(), Error> {
        let mut seq = self.next_seq;
        let mut rest = records.iter().peekable();
        while rest.peek().is_some() {
            self.ensure_active(seq)?;
            let (max_records, max_bytes) =
                (self.options.generation_max_records, self.options.generation_bytes());
            let (dir, epoch) = (self.dir.clone(), self.epoch);
            let Some(active) = self.row.last_mut() else { continue };
            let path = active.path(&dir);
            let fail = |fault| Error::engine("append to", &path, fault);
            while let Some(record) = rest.peek() {
                if active.records >= max_records || active.bytes >= max_bytes {
                    break;
                }
                let encoded = record::encode(seq, epoch, record.stamp, record.payload);
                let store = active.opened_mut().ok_or_else(|| fail(closed()))?;
                store.put(seq, &encoded).map_err(fail)?;
                active.count(seq, record.payload.len(), record.stamp);
                seq = seq.saturating_add(1);
                rest.next();
            }
            active.opened_mut().ok_or_else(|| fail(closed()))?.sync().map_err(fail)?;
            if rest.peek().is_some() {
                active.appendable = false;
            }
        }
        Ok(())
    }

    /// Sees to it that the last of the row takes the record `seq`.
    fn ensure_active(&mut self, seq: u64) -> Result<(), Error> {
        let full = |g: &Generation| {
            g.records >= self.options.generation_max_records
                || g.bytes >= self.options.generation_bytes()
        };
        if self.row.last().is_some_and(|g| g.appendable && g.is_open() && !full(g)) {
            return Ok(());
        }
        self.retire_active();
        let active = self.create_generation(seq, Role::Pending)?;
        self.row.push(active);
        Ok(())
    }

    /// The last of the row takes no more records; sealing it is left to maintenance.
    pub(crate) fn retire_active(&mut self) {
        if let Some(active) = self.row.last_mut() {
            active.appendable = false;
        }
    }

    pub(crate) fn create_generation(
        &mut self,
        first: u64,
        role: Role,
    ) -> Result<Generation, Error> {
        let name = Name { first, id: self.next_id, role };
        let mut generation = Generation::unknown(name);
        let path = generation.path(&self.dir);
        match Store::create(&path, self.options.cache_bytes) {
            Ok(store) => {
                // An id that was used once is not used again, not even after a failure.
                self.next_id = self.next_id.saturating_add(1);
                generation.attach(store);
                generation.appendable = true;
                Ok(generation)
            }
            Err(fault) => {
                self.next_id = self.next_id.saturating_add(1);
                // Nothing is in it; what stays would be an empty generation at the next opening.
                let _ = std::fs::remove_dir_all(&path);
                Err(Error::engine("create", &path, fault))
            }
        }
    }

    /// After a failed append: no generation counts a number from `first` on, and the next try
    /// goes to a fresh one, which then owns these numbers.
    fn undo_append(&mut self, first: u64) {
        self.retire_active();
        while self.row.last().is_some_and(|g| g.first >= first && g.role == Role::Pending) {
            if let Some(empty) = self.row.pop() {
                self.delete_directory(empty);
            }
        }
        let dir = self.dir.clone();
        let Some(partly) = self.row.last_mut().filter(|g| g.last >= first) else { return };
        let surplus = partly.last.saturating_sub(first).saturating_add(1);
        partly.records = partly.records.saturating_sub(surplus);
        let sizes_before = partly.live_bytes;
        partly.settle_bytes(first, partly.last, &dir, self.options.cache_bytes);
        let gone = sizes_before.saturating_sub(partly.live_bytes);
        partly.bytes = partly.bytes.saturating_sub(gone);
        partly.last = first.saturating_sub(1);
    }

    /// Confirms all records up to `up_to`: the cursor moves there, durably.
    ///
    /// A number at or below the cursor does nothing.
    ///
    /// # Errors
    /// [`Error::BeyondEnd`] for a number that was never given out; else what kept the cursor
    /// from the disk, and then nothing is confirmed.
    pub fn acknowledge(&mut self, up_to: u64, confirmation: Confirmation) -> Result<(), Error> {
        self.check_given_out(up_to)?;
        if up_to <= self.cursor {
            return Ok(());
        }
        // Gaps the cursor is about to pass must be on disk first.
        self.save_manifest_if_dirty()?;
        let confirmed = self.settled.outside(self.cursor.saturating_add(1), up_to);
        let success = confirmed.last().map(|&(_, to)| (to, confirmation)).or(self.success);
        let cursor = self.settled.end_of_run(up_to.saturating_add(1)).unwrap_or(up_to);
        self.cursor_file.set(cursor, success)?;
        self.cursor_dirty = false;
        self.cursor = cursor;
        for &(from, to) in &confirmed {
            let run = to.saturating_sub(from).saturating_add(1);
            self.counters.acknowledged = self.counters.acknowledged.saturating_add(run);
            self.settle_bytes(from, to);
        }
        if success != self.success {
            self.success = success;
            self.remember_success();
        }
        self.refresh_oldest();
        self.close_unused();
        Ok(())
    }

    /// Moves one record to the rejected ones, durably; the cursor passes it when it is at the
    /// head, now or when everything before it is settled.
    ///
    /// Any pending number may be named, in any order. A number that is not pending any more
    /// does nothing; a record that cannot be read becomes a gap instead.
    ///
    /// # Errors
    /// [`Error::BeyondEnd`] for a number that was never given out; else what kept the copy from
    /// the disk, and then the record stays pending.
    pub fn reject(&mut self, seq: u64, reason: &str, now: Stamp) -> Result<(), Error> {
        self.check_given_out(seq)?;
        self.now = now;
        if !self.is_pending(seq) {
            return Ok(());
        }
        let Some(record) = self.fetch(seq)? else {
            self.lose(&[(seq, seq)]);
            return Ok(());
        };
        let size = record.payload.len();
        self.keep_rejected(&record, reason, now)?;
        self.settle_bytes(seq, seq);
        self.settled.insert(seq, seq);
        self.counters.rejected = self.counters.rejected.saturating_add(1);
        tracing::debug!(seq, size, reason, "record rejected");
        self.advance();
        Ok(())
    }

    fn keep_rejected(&mut self, record: &Record, reason: &str, now: Stamp) -> Result<(), Error> {
        let (max_records, max_bytes) =
            (self.options.generation_max_records, self.options.generation_bytes());
        let takes = |g: &Generation| {
            g.appendable && g.is_open() && g.records < max_records && g.bytes < max_bytes
        };
        if !self.rejects.last().is_some_and(takes) {
            if let Some(last) = self.rejects.last_mut() {
                last.appendable = false;
            }
            let fresh = self.create_generation(record.seq, Role::Rejected)?;
            self.rejects.push(fresh);
        }
        let Some(active) = self.rejects.last_mut() else { return Ok(()) };
        let path = active.path(&self.dir);
        let encoded = record::encode_rejected(record, reason, now.wall_ms);
        let written = match active.opened_mut() {
            Some(store) => store.put(record.seq, &encoded).and_then(|()| store.sync()),
            None => Err(closed()),
        };
        if let Err(fault) = written {
            // As with an append: the next try goes to a fresh generation. If this copy did
            // reach the disk the record counts as rejected after a restart, which is right.
            active.appendable = false;
            return Err(Error::engine("keep a rejected record in", &path, fault));
        }
        active.count(record.seq, record.payload.len(), record.stamp);
        Ok(())
    }

    /// Gives up numbers: they are listed as a gap, durably, and will not be delivered.
    ///
    /// Only what is still pending in the range is given up.
    ///
    /// # Errors
    /// [`Error::BeyondEnd`] for a number that was never given out; else what kept the gap from
    /// the disk, and then nothing is given up.
    pub fn give_up(
        &mut self,
        range: RangeInclusive<u64>,
        reason: GapReason,
        maybe_delivered: bool,
        now: Stamp,
    ) -> Result<(), Error> {
        self.now = now;
        let (from, to) = (*range.start(), *range.end());
        if from > to {
            return Ok(());
        }
        self.check_given_out(to)?;
        let runs = self.settled.outside(from.max(self.cursor.saturating_add(1)), to);
        if runs.is_empty() {
            return Ok(());
        }
        let before = self.gaps.clone();
        for &(from, to) in &runs {
            let wall_ms = now.wall_ms;
            self.gaps.add(Gap { from, to, reason, maybe_delivered, wall_ms, announced: false });
        }
        if let Err(error) = self.save_manifest() {
            self.gaps = before;
            return Err(error);
        }
        for (from, to) in runs {
            let run = to.saturating_sub(from).saturating_add(1);
            match reason {
                GapReason::QueueFull | GapReason::Expired => {
                    self.counters.given_up = self.counters.given_up.saturating_add(run);
                }
                GapReason::Corrupt => {
                    self.counters.corrupt = self.counters.corrupt.saturating_add(run);
                }
            }
            self.settle_bytes(from, to);
            self.settled.insert(from, to);
        }
        self.advance();
        Ok(())
    }

    /// All gaps known, oldest first. Announced ones are kept up to a bounded number.
    pub fn gaps(&self) -> &[Gap] {
        self.gaps.as_slice()
    }

    /// Gaps the receiver is not known to have been told of, oldest first.
    pub fn unannounced_gaps(&self) -> Vec<Gap> {
        self.gaps.unannounced()
    }

    /// Notes, durably, that a confirmed record carried these gaps. They stay listed; a gap that
    /// has grown since keeps its new part unannounced.
    ///
    /// # Errors
    /// What kept the note from the disk; the gaps may then be told once more.
    pub fn gaps_announced(&mut self, told: &[Gap]) -> Result<(), Error> {
        if self.gaps.announce(told) {
            self.save_manifest()?;
        }
        Ok(())
    }

    /// The last record that was confirmed; it survives restarts.
    pub fn last_success(&self) -> Option<&LastSuccess> {
        self.last_success.as_ref()
    }

    /// Keeps the directories of all generations that hold a number of `range` until
    /// [`unpin`](Self::unpin), or until [`Options::pin_limit`] is over: they are neither deleted
    /// nor renamed, so a slow reader sees everything it began with.
    pub fn pin(&mut self, range: RangeInclusive<u64>, now: Stamp) -> Pin {
        let id = self.next_pin;
        self.next_pin = id.wrapping_add(1);
        self.pins.push(Pinned { id, from: *range.start(), to: *range.end(), since: now });
        Pin(id)
    }

    /// Gives a pin back.
    #[allow(clippy::needless_pass_by_value, reason = "a pin is given back, so it is consumed")]
    pub fn unpin(&mut self, pin: Pin) {
        self.pins.retain(|pinned| pinned.id != pin.0);
    }

    /// The figures of this moment.
    pub fn stats(&self) -> Stats {
        let mut pending_bytes = 0u64;
        let mut sent = Tally::default();
        let mut disk = self.quarantined.bytes.saturating_add(self.small_files_bytes());
        for g in &self.row {
            let delivered_to = g.last.min(self.cursor);
            let excluded = match g.role {
                Role::Sent => g.excluded.iter().fold(0u64, |sum, &(f, t)| {
                    sum.saturating_add(t.saturating_sub(f)).saturating_add(1)
                }),
                Role::Pending | Role::Rejected => self.settled.count_within(g.first, delivered_to),
            };
            let live =
                if g.role == Role::Pending && g.last > self.cursor { g.live_bytes } else { 0 };
            pending_bytes = pending_bytes.saturating_add(live);
            let share = delivered_to.saturating_add(1).saturating_sub(g.first);
            sent.records = sent.records.saturating_add(share.saturating_sub(excluded));
            sent.bytes = sent.bytes.saturating_add(g.bytes.saturating_sub(live));
        }
        let mut rejected = Tally::default();
        for g in &self.rejects {
            rejected.records = rejected.records.saturating_add(g.records);
            rejected.bytes = rejected.bytes.saturating_add(g.bytes);
        }
        for g in self.row.iter().chain(&self.rejects) {
            let bytes = if g.sealed { g.disk_bytes } else { files::disk_usage(&g.path(&self.dir)) };
            disk = disk.saturating_add(bytes);
        }
        let pending = Tally { records: self.pending_records(), bytes: pending_bytes };
        Stats {
            pending,
            oldest_pending: self.oldest.filter(|_| pending.records > 0),
            next_seq: self.next_seq,
            cursor: self.cursor,
            sent,
            rejected,
            generations: self.row.len().saturating_add(self.rejects.len()),
            quarantined: self.quarantined,
            disk_bytes: disk,
            epoch: self.epoch,
            counters: self.counters,
        }
    }

    /// Stops cleanly: what is synced lazily is synced now.
    ///
    /// # Errors
    /// What kept it from the disk. Nothing appended is lost by that.
    pub fn close(mut self) -> Result<(), Error> {
        self.save_manifest_if_dirty()?;
        if self.cursor_dirty {
            self.cursor_file.set(self.cursor, self.success)?;
        }
        self.mark_file.sync()
    }

    // --- shared by the other files of the queue ---------------------------------------------

    pub(crate) fn check_given_out(&self, seq: u64) -> Result<(), Error> {
        let last = self.next_seq.saturating_sub(1);
        if seq > last { Err(Error::BeyondEnd { seq, last }) } else { Ok(()) }
    }

    pub(crate) fn is_pending(&self, seq: u64) -> bool {
        seq > self.cursor && seq < self.next_seq && !self.settled.contains(seq)
    }

    pub(crate) fn pending_records(&self) -> u64 {
        let last = self.next_seq.saturating_sub(1);
        let settled = self.settled.count_within(self.cursor.saturating_add(1), last);
        last.saturating_sub(self.cursor).saturating_sub(settled)
    }

    /// The place in the row of the generation that owns `seq`.
    pub(crate) fn owner_of(&self, seq: u64) -> Option<usize> {
        let after = self.row.partition_point(|g| g.first <= seq);
        let at = after.checked_sub(1)?;
        self.row.get(at).filter(|g| seq <= g.last).map(|_| at)
    }

    pub(crate) fn settle_bytes(&mut self, from: u64, to: u64) {
        for g in &mut self.row {
            if g.role != Role::Pending || g.first > to || g.last < from {
                continue;
            }
            if self.cursor >= g.last {
                g.live_bytes = 0;
            } else {
                g.settle_bytes(from, to, &self.dir, self.options.cache_bytes);
            }
        }
    }

    /// Lists numbers that cannot be read as gaps and passes over them.
    pub(crate) fn lose(&mut self, runs: &[(u64, u64)]) {
        for &(from, to) in runs {
            for (from, to) in self.settled.outside(from.max(self.cursor.saturating_add(1)), to) {
                // Numbers up to `handed_out` may have been on the wire before.
                let parts = [
                    (from, to.min(self.handed_out), true),
                    (from.max(self.handed_out.saturating_add(1)), to, false),
                ];
                for (from, to, maybe_delivered) in parts {
                    let (reason, wall_ms) = (GapReason::Corrupt, self.now.wall_ms);
                    self.gaps.add(Gap {
                        from,
                        to,
                        reason,
                        maybe_delivered,
                        wall_ms,
                        announced: false,
                    });
                }
                let run = to.saturating_sub(from).saturating_add(1);
                self.counters.corrupt = self.counters.corrupt.saturating_add(run);
                tracing::error!(from, to, "records cannot be read back and are listed as a gap");
                self.settle_bytes(from, to);
                self.settled.insert(from, to);
            }
        }
        self.manifest_dirty = true;
        // If this fails the same numbers are found again at the next opening; until it works
        // the cursor does not pass them.
        match self.save_manifest_if_dirty() {
            Ok(()) => self.advance(),
            Err(error) => tracing::warn!(%error, "the gap is not on disk yet"),
        }
    }

    /// Moves the cursor over settled numbers at the head.
    pub(crate) fn advance(&mut self) {
        if let Some(end) = self.settled.end_of_run(self.cursor.saturating_add(1)) {
            self.cursor = end;
            // It can be derived again, so a failure only waits for the next round.
            self.cursor_dirty = match self.cursor_file.set(self.cursor, self.success) {
                Ok(()) => false,
                Err(error) => {
                    tracing::warn!(%error, "the cursor is not on disk yet");
                    true
                }
            };
        }
        self.refresh_oldest();
    }

    pub(crate) fn save_manifest_if_dirty(&mut self) -> Result<(), Error> {
        if self.manifest_dirty { self.save_manifest() } else { Ok(()) }
    }

    pub(crate) fn save_manifest(&mut self) -> Result<(), Error> {
        if !self.cursor_dirty {
            self.gaps.trim(self.cursor);
        }
        let generations = self.row.iter().chain(&self.rejects).filter(|g| g.sealed);
        let manifest = Manifest {
            next_seq: self.next_seq,
            next_id: self.next_id,
            generations: generations.map(Generation::to_sealed).collect(),
            gaps: self.gaps.as_slice().to_vec(),
        };
        self.manifest_dirty = true;
        manifest.write(&manifest_path(&self.dir))?;
        self.manifest_dirty = false;
        Ok(())
    }

    /// One record by number, wherever it stands; none if it cannot be read.
    pub(crate) fn fetch(&mut self, seq: u64) -> Result<Option<Record>, Error> {
        let Some(at) = self.owner_of(seq) else { return Ok(None) };
        let Some(g) = self.row.get_mut(at) else { return Ok(None) };
        let path = g.path(&self.dir);
        let mut repairs = Repairs::default();
        let bytes = g
            .store(&self.dir, self.options.cache_bytes, &mut repairs)
            .and_then(|store| store.get(seq));
        match bytes {
            Ok(bytes) => Ok(bytes.and_then(|bytes| {
                record::decode(&bytes, seq).ok().map(record::Decoded::to_record)
            })),
            Err(fault) if fault.is_damage() => Ok(None),
            Err(fault) => Err(Error::engine("read from", &path, fault)),
        }
    }

    pub(crate) fn remember_success(&mut self) {
        let Some((seq, at)) = self.success else { return };
        match self.fetch(seq) {
            Ok(Some(record)) => self.last_success = Some(LastSuccess { record, at }),
            Ok(None) => tracing::warn!(seq, "the last confirmed record cannot be read"),
            Err(error) => tracing::warn!(seq, %error, "the last confirmed record cannot be read"),
        }
    }

    pub(crate) fn refresh_oldest(&mut self) {
        let head = self.cursor.saturating_add(1);
        let head = self.settled.end_of_run(head).map_or(head, |end| end.saturating_add(1));
        if head >= self.next_seq {
            self.oldest = None;
            return;
        }
        let at_start = self.owner_of(head).and_then(|at| self.row.get(at));
        let fallback = at_start.and_then(|g| g.first_stamp);
        self.oldest = if at_start.is_some_and(|g| g.first == head) && fallback.is_some() {
            fallback
        } else {
            self.fetch(head).ok().flatten().map(|record| record.stamp).or(fallback)
        };
    }

    /// Closes all databases but the head's, the newest and the one being read.
    pub(crate) fn close_unused(&mut self) {
        let head = self.row.iter().find(|g| g.last > self.cursor).map(|g| g.id);
        for g in &mut self.row {
            if g.is_open() && !g.appendable && Some(g.id) != head && Some(g.id) != self.reading {
                g.close();
            }
        }
        for g in &mut self.rejects {
            if g.is_open() && !g.appendable && Some(g.id) != self.reading {
                g.close();
            }
        }
    }

    fn small_files_bytes(&self) -> u64 {
        SMALL_FILES
            .iter()
            .fold(0u64, |sum, name| sum.saturating_add(files::disk_usage(&self.dir.join(name))))
    }
}

pub(crate) const SMALL_FILES: [&str; 6] =
    ["LOCK", "FORMAT", "manifest", "mark", "cursor", "last-success"];

pub(crate) fn manifest_path(dir: &Path) -> PathBuf {
    dir.join("manifest")
}

fn closed() -> Fault {
    Fault::Io(std::io::Error::other("the database is closed"))
}
