//! Putting records in.
//!
//! A call either appends all its records or none. What it wrote before it failed lies in
//! generations that do not count it, and the next try goes to a fresh generation, which owns
//! the numbers from then on.

use std::ops::RangeInclusive;

use crate::changes::Became;
use crate::engine::{Fault, Store};
use crate::error::Error;
use crate::generation::{Generation, Name};
use crate::manifest::Role;
use crate::queue::Queue;
use crate::record::{self, MAX_PAYLOAD};
use crate::room::Need;
use crate::types::NewRecord;

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
            self.tell_time(latest.stamp);
        }
        let incoming = records.iter().map(|r| r.payload.len() as u64).sum();
        // What goes over the bound goes as a gap, which is worth the ballast.
        self.with_room(Need::Out, |queue| queue.make_room(incoming))?;
        let appended = self.with_room(Need::Append, |queue| {
            queue.append_all(records).inspect_err(|_| queue.undo_append(first))
        });
        if let Err(error) = appended {
            self.counters.append_failures = self.counters.append_failures.saturating_add(1);
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
        let last = self.next_seq.saturating_sub(1);
        self.changes.note(first, last, Became::Pending, self.now.wall_ms);
        Ok(first..=last)
    }

    fn append_all(&mut self, records: &[NewRecord<'_>]) -> Result<(), Error> {
        let mut seq = self.next_seq;
        if !records.is_empty() {
            let last = seq.saturating_add(records.len() as u64).saturating_sub(1);
            self.mark_file.reserve(last)?;
        }
        let mut rest = records.iter().peekable();
        while rest.peek().is_some() {
            self.ensure_active(seq)?;
            let (max_records, max_bytes) =
                (self.options.generation_max_records, self.options.generation_bytes());
            let (dir, epoch) = (self.dir.clone(), self.epoch);
            let claimed = self.claimed_numbers();
            let Some(active) = self.row.last_mut() else {
                return Err(Error::engine("append to", &dir, closed()));
            };
            let path = active.path(&dir);
            let fail = |fault| Error::engine("append to", &path, fault);
            while let Some(record) = rest.peek() {
                let owned_by_another = active.label < seq && claimed.contains(&seq);
                if active.records >= max_records || active.bytes >= max_bytes || owned_by_another {
                    break;
                }
                let encoded = record::encode(seq, epoch, record.stamp, record.payload);
                let store = active.opened_mut().ok_or_else(|| fail(closed()))?;
                store.put(seq, &encoded).map_err(fail)?;
                active.count(seq, record.payload.len(), record.stamp);
                active.note_time(self.clock.place(&record.stamp));
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
                || (g.label < seq && self.claimed_numbers().contains(&seq))
        };
        let takes = |g: &Generation| g.appendable && g.is_open() && g.label <= seq && !full(g);
        if self.row.last().is_some_and(takes) {
            return Ok(());
        }
        self.retire_active();
        // One that opening found empty may begin later than what comes now: what failed would
        // have gone on in it. A number below its name's would not be found again.
        while self.row.last().is_some_and(|g| g.is_empty() && g.label > seq) {
            if let Some(empty) = self.row.pop() {
                self.delete_directory(empty);
            }
        }
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
                self.delete_path(path.clone());
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
}

pub(crate) fn closed() -> Fault {
    Fault::Io(std::io::Error::other("the database is closed"))
}
