//! Taking records off: confirmed, rejected, given up, lost.
//!
//! Whatever settles a number is durable before the number is passed over: the cursor for a
//! confirmation, the copy for a rejection, the manifest's gap for the rest.

use std::ops::RangeInclusive;

use crate::append::closed;
use crate::changes::Became;
use crate::engine::Fault;
use crate::error::Error;
use crate::generation::Generation;
use crate::manifest::Role;
use crate::queue::Queue;
use crate::record;
use crate::room::Need;
use crate::types::{Confirmation, Gap, GapReason, Record, Stamp};

impl Queue {
    /// Confirms all records up to `up_to`: the cursor moves there, durably.
    ///
    /// A number at or below the cursor does nothing.
    ///
    /// # Errors
    /// [`Error::BeyondEnd`] for a number that was never given out; else what kept the cursor
    /// from the disk, and then nothing is confirmed.
    pub fn acknowledge(&mut self, up_to: u64, confirmation: Confirmation) -> Result<(), Error> {
        self.check_given_out(up_to)?;
        self.with_room(Need::Out, |queue| queue.acknowledge_once(up_to, confirmation))
    }

    fn acknowledge_once(&mut self, up_to: u64, confirmation: Confirmation) -> Result<(), Error> {
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
            self.changes.note(from, to, Became::Sent, confirmation.wall_ms);
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
        self.tell_time(now);
        self.with_room(Need::Out, |queue| queue.reject_once(seq, reason, now))
    }

    fn reject_once(&mut self, seq: u64, reason: &str, now: Stamp) -> Result<(), Error> {
        if !self.is_pending(seq) {
            return Ok(());
        }
        let Some(record) = self.fetch_or_salvage(seq)? else {
            self.lose(&[(seq, seq)]);
            return Ok(());
        };
        let size = record.payload.len();
        self.keep_rejected(&record, reason, now)?;
        if self.unrejected.contains(seq) {
            // Its cursor was lost, so it was sent once more: the new copy counts.
            self.unrejected.remove(seq, seq);
            self.manifest_dirty = true;
        }
        self.settle_bytes(seq, seq);
        self.settled.insert(seq, seq);
        self.counters.rejected = self.counters.rejected.saturating_add(1);
        self.changes.note(seq, seq, Became::Rejected, now.wall_ms);
        tracing::debug!(seq, size, reason, "record rejected");
        self.advance();
        Ok(())
    }

    fn fetch_or_salvage(&mut self, seq: u64) -> Result<Option<Record>, Error> {
        if let Some(record) = self.fetch(seq)? {
            return Ok(Some(record));
        }
        match self.owner_of(seq) {
            Some(at) if self.can_salvage(at, &[(seq, seq)])? => {
                let text = "a record in it cannot be read".to_owned();
                self.quarantine(at, &Fault::Damaged(text))?;
                self.fetch(seq)
            }
            Some(_) | None => Ok(None),
        }
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
        let Some(active) = self.rejects.last_mut() else {
            return Err(Error::engine("keep a rejected record in", &self.dir, closed()));
        };
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
            // Without a record it would only be one more empty directory for each try.
            if active.records == 0
                && let Some(empty) = self.rejects.pop()
            {
                self.delete_directory(empty);
            }
            return Err(Error::engine("keep a rejected record in", &path, fault));
        }
        active.count(record.seq, record.payload.len(), record.stamp);
        // Its own time is the rejection's; what it holds may be of any age.
        active.note_time(self.clock.now_ms());
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
        self.tell_time(now);
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
        if let Err(error) = self.with_room(Need::Out, Self::save_manifest) {
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
            self.changes.note(from, to, Became::GivenUp(reason), now.wall_ms);
            self.settle_bytes(from, to);
            self.settled.insert(from, to);
        }
        self.advance();
        Ok(())
    }

    pub(crate) fn settle_bytes(&mut self, from: u64, to: u64) {
        for g in &mut self.row {
            if g.role != Role::Pending || g.first > to || g.last < from {
                continue;
            }
            if self.cursor >= g.last || (from <= g.first && to >= g.last) {
                // Nothing of it is left; it need not be opened to find that out.
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
                let became = Became::GivenUp(GapReason::Corrupt);
                self.changes.note(from, to, became, self.now.wall_ms);
                if self.reported {
                    tracing::error!(from, to, "records cannot be read back, listed as a gap");
                }
                self.settle_bytes(from, to);
                self.settled.insert(from, to);
            }
        }
        self.manifest_dirty = true;
        // If this fails the same numbers are found again at the next opening; until it works
        // the cursor does not pass them.
        if self.gaps_are_saved() {
            self.advance();
        }
    }

    fn gaps_are_saved(&mut self) -> bool {
        let saved = self.save_manifest_if_dirty();
        if let Err(error) = &saved {
            tracing::debug!(%error, "a gap is not on disk yet");
        }
        saved.is_ok()
    }

    /// Moves the cursor over settled numbers at the head, as soon as the gaps among them are on
    /// disk; until then maintenance tries again.
    pub(crate) fn advance(&mut self) {
        let end = self.settled.end_of_run(self.cursor.saturating_add(1));
        if let Some(end) = end
            && self.gaps_are_saved()
        {
            self.cursor = end;
            // It can be derived again, so a failure only waits for the next round.
            self.cursor_dirty = match self.cursor_file.set(self.cursor, self.success) {
                Ok(()) => false,
                Err(error) => {
                    tracing::debug!(%error, "the cursor is not on disk yet");
                    true
                }
            };
        }
        self.refresh_oldest();
    }
}
