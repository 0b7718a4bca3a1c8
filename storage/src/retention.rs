//! What goes when: rotation, sealing, drained generations. How much may stay, and for how long, is
//! for `bounds.rs` and `expiry.rs`.
//!
//! Whole generations only. A directory is first renamed, then deleted, so that a kill in between
//! leaves no half generation. A gap is durable before the generation behind it goes.

use std::io;
use std::path::{Path, PathBuf};

use crate::clock::millis;
use crate::engine::{Fault, Store};
use crate::error::Error;
use crate::expiry::STORE_CLOCK;
use crate::files;
use crate::generation::{DOOMED, Generation, Name};
use crate::manifest::Role;
use crate::mend::Repairs;
use crate::queue::Queue;
use crate::record;
use crate::rescue::check_opened;
use crate::room::Need;
use crate::types::{Maintenance, Stamp};

/// A drained generation that still takes records is replaced above this size on disk.
const DRAINED_MAX_DISK: u64 = 512 * 1024;

impl Queue {
    /// Does what is due and keeps the other calls short: closes full and old generations,
    /// deletes or keeps drained ones, enforces the bounds, syncs the high-water mark.
    ///
    /// To be called after appends and acknowledgements, and at least every 30 seconds.
    ///
    /// # Errors
    /// The first thing that could not be done; the rest is done all the same, and what failed is
    /// tried again the next time.
    pub fn maintain(&mut self, now: Stamp) -> Result<Maintenance, Error> {
        self.tell_time(now);
        self.date_generations();
        self.measure_unsealed();
        self.end_old_pins();
        self.end_costly_pins();
        let done = self.with_room(Need::Append, |queue| queue.maintain_once(now));
        let full = done.as_ref().is_err_and(Error::is_full);
        if full && self.is_stuck() {
            return self.with_room(Need::Out, |queue| queue.maintain_once(now));
        }
        if done.is_ok() {
            self.ballast.make(now);
        }
        done
    }

    fn maintain_once(&mut self, now: Stamp) -> Result<Maintenance, Error> {
        let mut first_error = None;
        let mut note = |result: Result<(), Error>| {
            if let Err(error) = result
                && first_error.is_none()
            {
                first_error = Some(error);
            }
        };
        note(self.save_manifest_if_dirty());
        if self.settled.contains(self.cursor.saturating_add(1)) {
            // A gap at the head that could not be saved when it was found.
            self.advance();
        }
        note(self.save_cursor_if_dirty());
        note(self.expire());
        note(self.make_room(0));
        self.rotate();
        self.delete_leftovers();
        note(self.dispose_of_drained(now));
        note(self.seal_closed());
        note(self.enforce_sent_bounds());
        self.drop_taken();
        note(self.enforce_rejected_bound());
        note(self.enforce_quarantine_bound());
        note(self.sync_mark());
        note(self.save_manifest_if_dirty());
        self.save_clock(STORE_CLOCK);
        self.close_unused();
        match first_error {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut self.news)),
        }
    }

    pub(crate) fn save_cursor_if_dirty(&mut self) -> Result<(), Error> {
        if self.cursor_dirty {
            self.cursor_file.set(self.cursor, self.success)?;
            self.cursor_dirty = false;
        }
        Ok(())
    }

    fn sync_mark(&mut self) -> Result<(), Error> {
        let now_ms = self.clock.now_ms();
        let interval = millis(self.options.mark_sync_interval);
        let due = now_ms.saturating_sub(self.mark_synced_ms) >= interval;
        if due && !self.mark_file.is_synced() {
            self.mark_file.sync()?;
            self.mark_synced_ms = now_ms;
            self.news.mark_synced = true;
        }
        Ok(())
    }

    /// Closes the active generations to appends when they are full, old or drained and large.
    fn rotate(&mut self) {
        let (max_records, max_bytes) =
            (self.options.generation_max_records, self.options.generation_bytes());
        let (now_ms, max_age) = (self.clock.now_ms(), self.rotate_after_ms());
        let due = |g: &Generation| {
            g.records >= max_records
                || g.bytes >= max_bytes
                || g.since_ms.is_some_and(|since| now_ms.saturating_sub(since) >= max_age)
        };
        let cursor = self.cursor;
        if let Some(active) = self.row.last_mut()
            && active.appendable
            && !active.is_empty()
        {
            let drained = active.last <= cursor;
            if due(active) || (drained && active.disk_bytes > DRAINED_MAX_DISK) {
                active.appendable = false;
            }
        }
        if let Some(active) = self.rejects.last_mut()
            && active.appendable
            && due(active)
        {
            active.appendable = false;
        }
    }

    /// Reopens generations that were closed to appends, so that each has a current snapshot:
    /// with one, damage shows as an error where it lies instead of silently costing the tail.
    pub(crate) fn seal_closed(&mut self) -> Result<(), Error> {
        let cache = self.options.cache_bytes;
        let mut sealed = 0;
        let mut broken = Vec::new();
        let cursor = self.cursor;
        if !self.may_reopen() {
            // What is open can be read; closed on a full disk it could not.
            return Ok(());
        }
        let mut head_passed = false;
        for (at, g) in self.row.iter_mut().enumerate() {
            let is_head = !head_passed && g.last > cursor;
            head_passed |= is_head;
            if g.sealed || g.appendable {
                continue;
            }
            match seal(g, &self.dir, cache) {
                Ok(()) => {
                    sealed += 1;
                    // There may be any number of them.
                    if !is_head {
                        g.close();
                    }
                }
                Err(fault) if fault.is_damage() => broken.push((at, fault)),
                Err(fault) => return Err(Error::engine("seal", &g.path(&self.dir), fault)),
            }
        }
        let mut broken_rejects = Vec::new();
        for (at, g) in self.rejects.iter_mut().enumerate() {
            if g.sealed || g.appendable {
                continue;
            }
            match seal(g, &self.dir, cache) {
                Ok(()) => {
                    sealed += 1;
                    g.close();
                }
                Err(fault) if fault.is_damage() => broken_rejects.push((at, fault)),
                Err(fault) => return Err(Error::engine("seal", &g.path(&self.dir), fault)),
            }
        }
        for (at, fault) in broken_rejects.into_iter().rev() {
            self.quarantine_rejected(at, &fault)?;
        }
        for (at, fault) in broken.into_iter().rev() {
            self.quarantine(at, &fault)?;
        }
        if sealed > 0 {
            self.news.sealed = self.news.sealed.saturating_add(sealed);
            self.manifest_dirty = true;
            // What is sealed is never counted again, so the mark must be right by now.
            self.mark_file.sync()?;
        }
        Ok(())
    }

    /// Drained generations become sent ones or go.
    fn dispose_of_drained(&mut self, now: Stamp) -> Result<(), Error> {
        let mut at = if self.may_delete() { 0 } else { self.row.len() };
        while let Some(g) = self.row.get(at) {
            let drained = g.role == Role::Pending && !g.appendable && g.last <= self.cursor;
            if !drained || self.is_pinned(g) {
                at = at.saturating_add(1);
                continue;
            }
            let excluded: Vec<_> = self.settled.within(g.first, g.last).collect();
            let nothing_sent = self.settled.count_within(g.first, g.last)
                > g.last.saturating_sub(g.first)
                || g.is_empty();
            // On a full disk the undelivered need the room more.
            if self.options.retain_sent.is_zero() || nothing_sent || !self.may_reopen() {
                self.remove_from_row(at)?;
            } else {
                self.keep_as_sent(at, excluded, now)?;
                at = at.saturating_add(1);
            }
        }
        let low = self.row.iter().find(|g| g.role == Role::Pending).map(|g| g.first);
        let floor = self.cursor.saturating_add(1);
        self.settled.forget_below(low.map_or(floor, |low| low.min(floor)));
        Ok(())
    }

    fn keep_as_sent(
        &mut self,
        at: usize,
        excluded: Vec<(u64, u64)>,
        now: Stamp,
    ) -> Result<(), Error> {
        let cache = self.options.cache_bytes;
        let Some(g) = self.row.get_mut(at) else { return Ok(()) };
        let old = g.path(&self.dir);
        if !g.sealed {
            match seal(g, &self.dir, cache) {
                Ok(()) => self.news.sealed = self.news.sealed.saturating_add(1),
                // Everything in it is delivered; it is kept as it is.
                Err(fault) if fault.is_damage() => {
                    tracing::debug!(path = %old.display(), error = fault.text(), "a drained generation is damaged");
                }
                Err(fault) => return Err(Error::engine("seal", &old, fault)),
            }
        }
        g.close();
        // What was excluded must be known before the name says sent.
        (g.excluded, g.sent_at, g.sent_ms) = (excluded, Some(now), Some(self.clock.now_ms()));
        g.sealed = true;
        self.save_manifest()?;
        let Some(g) = self.row.get_mut(at) else { return Ok(()) };
        g.role = Role::Sent;
        let new = g.path(&self.dir);
        if let Err(error) = std::fs::rename(&old, &new) {
            g.role = Role::Pending;
            return Err(Error::io("rename", &old, error));
        }
        g.live_bytes = 0;
        self.news.kept = self.news.kept.saturating_add(1);
        self.manifest_dirty = true;
        // It has its new name whether or not that is on disk; if not, this is done once more
        // after a power cut.
        files::sync_dir(&self.dir).map_err(|e| Error::io("sync", &self.dir, e))
    }

    pub(crate) fn remove_from_row(&mut self, at: usize) -> Result<(), Error> {
        self.copy_success_out_of(at)?;
        if at < self.row.len() {
            let g = self.row.remove(at);
            self.delete_directory(g);
            self.manifest_dirty = true;
        }
        Ok(())
    }

    /// The last success outlives its generation in a small file of its own.
    pub(crate) fn copy_success_out_of(&mut self, at: usize) -> Result<(), Error> {
        if self.holds_last_success(at) { self.copy_success() } else { Ok(()) }
    }

    pub(crate) fn holds_last_success(&self, at: usize) -> bool {
        let last = self.last_success.as_ref().map(|last| last.record.seq);
        self.row.get(at).is_some_and(|g| last.is_some_and(|seq| g.first <= seq && seq <= g.last))
    }

    pub(crate) fn copy_success(&self) -> Result<(), Error> {
        let Some(last) = &self.last_success else { return Ok(()) };
        let record = &last.record;
        let encoded = record::encode_plain(record.seq, record.epoch, record.stamp, &record.payload);
        let path = self.dir.join("last-success");
        files::replace(&path, &encoded).map_err(|e| Error::io("write", &path, e))
    }

    /// Deletes a generation that no list holds any more. What fails is tried again.
    pub(crate) fn delete_directory(&mut self, mut g: Generation) {
        g.close();
        self.delete_path(g.path(&self.dir));
        self.news.deleted = self.news.deleted.saturating_add(1);
    }

    pub(crate) fn delete_path(&mut self, path: PathBuf) {
        match delete(&path) {
            Ok(()) => {}
            Err((left, error)) => {
                tracing::warn!(path = %path.display(), %error, "cannot delete a generation, it is tried again");
                self.undeleted.push(left);
            }
        }
    }

    /// Tries again to delete what could not be.
    pub(crate) fn delete_leftovers(&mut self) {
        let leftovers = std::mem::take(&mut self.undeleted);
        for path in leftovers.iter().filter(|path| !is_doomed(path)) {
            // What is left of another of this name would be in the way again; if it cannot go
            // either, the next line says so.
            let _ = std::fs::remove_dir_all(doomed_name(path));
        }
        self.undeleted =
            leftovers.iter().filter_map(|path| delete(path).err()).map(|(left, _)| left).collect();
    }

    /// Where generations that could not be deleted begin: from there on they would own the
    /// numbers at the next opening, unless a younger one begins there as well.
    pub(crate) fn claimed_numbers(&self) -> Vec<u64> {
        let names = self.undeleted.iter().filter_map(|path| path.file_name()?.to_str());
        names
            .filter_map(Name::parse)
            .filter(|name| name.role == Role::Pending)
            .map(|name| name.first)
            .collect()
    }

    /// Whether a generation may go. One that could not be deleted, not even by its name, still
    /// claims its numbers; only the one that owns them by now tells the next opening that it
    /// does not count.
    pub(crate) fn may_delete(&self) -> bool {
        self.undeleted.iter().all(|path| is_doomed(path))
    }

    pub(crate) fn end_old_pins(&mut self) {
        let (now_ms, limit) = (self.clock.now_ms(), millis(self.options.pin_limit));
        self.pins.retain(|pin| now_ms.saturating_sub(pin.since_ms) < limit);
    }

    pub(crate) fn is_pinned(&self, g: &Generation) -> bool {
        self.pins.iter().any(|pin| pin.from <= g.last && g.first <= pin.to)
    }
}

fn is_doomed(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(DOOMED.as_bytes())
}

fn doomed_name(path: &Path) -> PathBuf {
    let mut doomed = path.to_path_buf();
    doomed.as_mut_os_string().push(DOOMED);
    doomed
}

/// Renames a generation's directory, then deletes it; what is left of it under which name, if
/// that fails.
fn delete(path: &Path) -> Result<(), (PathBuf, io::Error)> {
    let mut doomed = path.to_path_buf();
    if !is_doomed(path) {
        doomed = doomed_name(path);
        match std::fs::rename(path, &doomed) {
            Ok(()) => {}
            // It was never made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err((path.to_path_buf(), error)),
        }
    }
    match std::fs::remove_dir_all(&doomed) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err((doomed, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Reopens one generation so that it has a current snapshot.
fn seal(g: &mut Generation, dir: &Path, cache: u64) -> Result<(), Fault> {
    let path = g.path(dir);
    g.close();
    let mut repairs = Repairs::default();
    let mut store = Store::open(&path, cache, &mut repairs)?;
    if let Err(fault) = check_opened(&path, &store, &repairs, g.wanted(), &|_| true) {
        if fault.is_damage() {
            // What it does show is wanted by whoever rescues the rest.
            g.attach(store);
        }
        return Err(fault);
    }
    let synced = store.sync();
    g.attach(store);
    synced?;
    files::sync_dir(&path)?;
    g.sealed = true;
    g.disk_bytes = files::disk_usage(&path);
    Ok(())
}
