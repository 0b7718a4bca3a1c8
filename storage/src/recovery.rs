//! Opening: find out what is there, mend what can be mended, list what is missing.
//!
//! Order: lock, format, small files, directories. Directories are the truth; the manifest only
//! saves opening them. Opened are: the newest generation, those the manifest does not know as
//! sealed, and the head. Nothing is deleted but what a kill left half-done (`*.tmp`,
//! `*.deleted`, half-written snapshots).
//!
//! The next number is above everything any file speaks of: records found, mark, cursor,
//! manifest; and, if the newest generation cannot be read, above everything that may have been
//! in it (`marks.rs`). Numbers between that have no record are gaps.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use crate::ballast::Ballast;
use crate::census::find_generations;
use crate::changes::Changes;
use crate::clock::Clock;
use crate::cursor;
use crate::engine::{Fault, Sight, Visit};
use crate::error::Error;
use crate::files;
use crate::format;
use crate::gaps::Gaps;
use crate::lock::Lock;
use crate::manifest::{self, Manifest, Role};
use crate::marks::{Condition, CursorFile, MarkFile};
use crate::mend::Repairs;
use crate::quarantine::set_aside_name;
use crate::queue::{Queue, manifest_path};
use crate::ranges::RangeSet;
use crate::record;
use crate::rescue;
use crate::room::{self, Need};
use crate::types::{Counters, LastSuccess, Maintenance, OpenReport, Options, Stamp, Tally};

/// The queue's own directory below the data directory.
pub(crate) const QUEUE_DIR: &str = "queue";

impl Queue {
    /// Opens the queue in `dir` for writing, making it if there is none.
    ///
    /// It lives in `dir/queue`; what else lies in `dir` is left alone. Damage is contained and
    /// reported, never a reason to fail.
    ///
    /// # Errors
    /// [`Error::Locked`] with the holder, [`Error::Reading`], [`Error::NewerFormat`], [`Error::EngineBroken`]; else
    /// a refusal of the operating system, after which opening may be tried again.
    pub fn open(dir: &Path, options: Options, now: Stamp) -> Result<(Self, OpenReport), Error> {
        let dir = dir.join(QUEUE_DIR);
        files::ensure_private_dir(&dir).map_err(|e| Error::io("create", &dir, e))?;
        let lock = Arc::new(Lock::take(&dir.join("LOCK"))?);
        let mut given_up = 0;
        loop {
            // Nothing is known yet of what is worth least, so here the ballast goes first.
            match Self::open_locked(dir.clone(), &lock, options.clone(), now) {
                Err(error) if error.is_full() => {
                    if Ballast::find(&dir).give_up() {
                        given_up = 1;
                    } else if !room::discard_oldest_sent(&dir) {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
                Ok((mut queue, report)) => {
                    queue.counters.ballast_given_up =
                        queue.counters.ballast_given_up.saturating_add(given_up);
                    return Ok((queue, report));
                }
            }
        }
    }

    fn open_locked(
        dir: PathBuf,
        lock: &Arc<Lock>,
        options: Options,
        now: Stamp,
    ) -> Result<(Self, OpenReport), Error> {
        let statement = dir.join("FORMAT");
        // Written only after this, so it tells that the way here is on disk.
        if !statement.try_exists().map_err(|e| Error::io("look at", &statement, e))? {
            files::sync_way_to(&dir).map_err(|e| Error::io("sync the way to", &dir, e))?;
        }
        format::settle(&dir)?;

        let mut report = OpenReport::default();
        let mark_file = MarkFile::open(&dir.join("mark"))?;
        let (cursor_file, stored, cursor_found) = CursorFile::open(&dir.join("cursor"))?;
        let manifest_path = manifest_path(&dir);
        let (manifest, manifest_damaged) = match Manifest::read(&manifest_path)? {
            manifest::Found::Manifest(manifest) => (manifest, false),
            manifest::Found::Nothing => (Manifest::default(), false),
            manifest::Found::Damaged => {
                // Kept for whoever wants to look at it.
                let aside = dir.join("aside.manifest");
                std::fs::rename(&manifest_path, &aside)
                    .map_err(|e| Error::io("move aside", &manifest_path, e))?;
                (Manifest::default(), true)
            }
        };
        let set_aside = rescue::finish(&dir)?;
        let found = find_generations(&dir, &manifest.generations)?;
        let cursor_lost =
            cursor::is_lost(cursor_found, mark_file.value(), manifest.next_seq, &found.row);
        // It is written before the first generation is made.
        let mark_lost = match mark_file.condition() {
            Condition::Good => false,
            Condition::Blank => !found.row.is_empty() || manifest.next_seq > 1,
            Condition::Damaged => true,
        };
        let damaged =
            [(mark_lost, "mark"), (cursor_lost, "cursor"), (manifest_damaged, "manifest")];
        report.rebuilt = damaged.iter().filter(|d| d.0).map(|d| dir.join(d.1)).collect();

        let mut settled = RangeSet::default();
        for gap in &manifest.gaps {
            settled.insert(gap.from, gap.to);
        }
        let mut queue = Self {
            epoch: Uuid::new_v4(),
            now,
            clock_saved_ms: manifest.clock.map(|reading| reading.proven_ms),
            clock: Clock::resume(manifest.clock, now),
            row: found.row,
            rejects: found.rejects,
            next_seq: 1,
            next_id: manifest.next_id.max(found.next_id),
            cursor: stored.cursor,
            success: stored.success,
            last_success: None,
            settled,
            gaps: Gaps::from_stored(manifest.gaps),
            unrejected: RangeSet::default(),
            handed_out: 0,
            mark_file,
            mark_synced_ms: 0,
            cursor_file,
            manifest_dirty: manifest_damaged,
            // A new queue's cursor is written too: see `cursor.rs`.
            cursor_dirty: cursor_found != Condition::Good,
            undeleted: Vec::new(),
            pins: Vec::new(),
            next_pin: 0,
            reading: None,
            oldest: None,
            quarantined: Tally::default(),
            counters: Counters::default(),
            changes: Changes::default(),
            news: Maintenance { quarantined: set_aside, ..Maintenance::default() },
            reported: false,
            ballast: Ballast::find(&dir),
            dir,
            options,
            _lock: lock.clone(),
        };
        for (from, to) in manifest.unrejected {
            queue.unrejected.insert(from, to);
        }
        queue.count_quarantine();
        queue.count_unsealed(&mut report)?;
        if !queue.may_delete() {
            // An empty generation that could not be deleted claims its numbers at the next
            // opening, so they must not go into an older one.
            queue.retire_active();
        }
        queue.date_what_was_found(manifest.clock);
        queue.count_unrejected()?;
        queue.settle_what_is_known(manifest.next_seq, cursor_lost, &mut report)?;
        queue.prepare_head(&mut report)?;
        queue.load_success();
        queue.close_unused();
        let mut saved = queue.with_room(Need::Out, |queue| {
            queue.save_manifest_if_dirty().and_then(|()| queue.save_cursor_if_dirty())
        });
        if mark_lost {
            saved = saved.and_then(|()| queue.mark_file.raise(queue.next_seq.saturating_sub(1)));
        }
        let new = cursor_found == Condition::Blank && !cursor_lost;
        if let Err(error) = saved {
            if new && queue.cursor_dirty {
                // Nothing is in it yet; and from the first record on a blank one is a lost one.
                return Err(error);
            }
            // A full disk must not keep what is there from being delivered.
            tracing::warn!(%error, "opened, but what was found out is not on disk yet");
        }
        let path = queue.dir.clone();
        report.quarantined = std::mem::take(&mut queue.news.quarantined);
        report.salvaged = std::mem::take(&mut queue.news.salvaged);
        queue.reported = true;
        if !report.is_clean() {
            tracing::debug!(path = %path.display(), ?report, "the queue was mended");
        }
        Ok((queue, report))
    }

    /// Opens the queue in `dir` for writing if there is one; none is made.
    ///
    /// # Errors
    /// [`Error::NoQueue`]; else as for [`open`](Self::open).
    pub fn open_existing(
        dir: &Path,
        options: Options,
        now: Stamp,
    ) -> Result<(Self, OpenReport), Error> {
        let lock = dir.join(QUEUE_DIR).join("LOCK");
        match lock.try_exists() {
            Ok(true) => Self::open(dir, options, now),
            Ok(false) => Err(Error::NoQueue { path: lock }),
            Err(error) => Err(Error::io("look at", &lock, error)),
        }
    }

    /// Finds the next number, and which numbers are settled beside the cursor.
    fn settle_what_is_known(
        &mut self,
        floor: u64,
        cursor_lost: bool,
        report: &mut OpenReport,
    ) -> Result<(), Error> {
        let found = self.row.iter().map(|g| g.last).max().unwrap_or(0);
        let vouched = self.gaps.as_slice().last().map_or(0, |gap| gap.to);
        let last = found
            .max(vouched)
            .max(self.mark_file.value())
            .max(self.cursor)
            .max(floor.saturating_sub(1));
        self.next_seq = last.saturating_add(1);
        self.handed_out = last;
        if cursor_lost {
            let names = self.news.quarantined.iter().filter_map(|path| path.file_name()?.to_str());
            let set_aside = names.filter_map(set_aside_name).filter(|n| n.role == Role::Pending);
            self.cursor = cursor::derive(&self.row, last, set_aside.map(|n| n.first).min());
        }
        // The cursor may have gone back behind the generations, if its newest slot was lost.
        let low = self.row.iter().find(|g| g.role == Role::Pending).map_or(u64::MAX, |g| g.first);
        let low = low.min(self.cursor.saturating_add(1));
        // Rejected ones whose copies were purged.
        for g in self.row.iter().filter(|g| g.role == Role::Pending) {
            g.excluded.iter().for_each(|&(from, to)| self.settled.insert(from, to));
        }
        self.settle_rejected(low)?;
        self.settled.forget_below(low.min(self.cursor.saturating_add(1)));

        // Pending numbers that no generation holds.
        let mut missing = Vec::new();
        let mut next = self.cursor.saturating_add(1);
        for g in self.row.iter().filter(|g| g.role == Role::Pending && !g.is_empty()) {
            if next < g.first {
                missing.extend(self.settled.outside(next, g.first.saturating_sub(1)));
            }
            next = next.max(g.last.saturating_add(1));
        }
        for at in 0..self.row.len() {
            let holes = self.row.get_mut(at).map(|g| std::mem::take(&mut g.missing));
            for (from, to) in holes.unwrap_or_default() {
                missing.extend(self.owed(from, to));
            }
        }
        if next <= last {
            missing.extend(self.settled.outside(next, last));
        }
        if !missing.is_empty() {
            report.missing = missing.iter().map(|&(from, to)| from..=to).collect();
            self.lose(&missing);
            // The tail of a database that lost records is not to be trusted with more.
            self.retire_active();
        }
        self.advance();
        Ok(())
    }

    /// Numbers of rejected records from `low` on are settled.
    fn settle_rejected(&mut self, low: u64) -> Result<(), Error> {
        for at in (0..self.rejects.len()).rev() {
            // Once more if it was broken, with what was salvaged from it.
            if self.settle_rejected_of(at, low)? == Sight::InPart {
                self.settle_rejected_of(at, low)?;
            }
        }
        Ok(())
    }

    fn settle_rejected_of(&mut self, at: usize, low: u64) -> Result<Sight, Error> {
        let Some(g) = self.rejects.get_mut(at) else { return Ok(Sight::Whole) };
        if g.last < low || g.is_empty() {
            return Ok(Sight::Whole);
        }
        // A copy below the first that counts is of a rejection that failed: no reading shows it, so
        // the record itself is still to be delivered.
        let (path, low, last) = (g.path(&self.dir), low.max(g.first), g.last);
        let mut numbers = Vec::new();
        let visited = g
            .store(&self.dir, self.options.cache_bytes, &mut Repairs::default())
            .and_then(|store| {
                store.visit(low, last, last, &mut |seq, bytes| {
                    // A damaged copy must not keep the record itself from being delivered.
                    if record::decode(bytes, seq).is_ok_and(|r| r.rejection.is_some()) {
                        numbers.push(seq);
                    }
                    Visit::Continue
                })
            });
        g.close_unless_appendable();
        let fault = match visited {
            Ok(Sight::Whole) => {
                for seq in numbers.into_iter().filter(|seq| !self.unrejected.contains(*seq)) {
                    self.settled.insert(seq, seq);
                }
                return Ok(Sight::Whole);
            }
            // The copies go out of sight, so the records are delivered: better than lost.
            Ok(Sight::InPart) => Fault::Damaged("some of it cannot be read".to_owned()),
            Err(fault) if fault.is_damage() => fault,
            Err(fault) => return Err(Error::engine("read from", &path, fault)),
        };
        self.quarantine_rejected_or_leave(at, &fault)?;
        Ok(Sight::InPart)
    }

    /// Opens the head, and takes off what of it is settled already.
    fn prepare_head(&mut self, report: &mut OpenReport) -> Result<(), Error> {
        let head = |queue: &Self| {
            queue.row.iter().position(|g| g.role == Role::Pending && g.last > queue.cursor)
        };
        while let Some(at) = head(self) {
            let Some(g) = self.row.get_mut(at) else { break };
            let path = g.path(&self.dir);
            let mut repairs = Repairs::default();
            let opened = g.store(&self.dir, self.options.cache_bytes, &mut repairs).map(drop);
            take_repairs(report, repairs);
            match opened {
                Ok(()) => break,
                Err(fault) if fault.is_damage() => {
                    let (from, to) = self.row.get(at).map_or((1, 0), |g| (g.first, g.last));
                    let owed = self.owed(from, to);
                    match self.quarantine(at, &fault) {
                        Ok(()) => {}
                        // It stays, and reading it tries again.
                        Err(error) if error.is_retryable() => {
                            tracing::warn!(%error, "a broken generation stays where it is for now");
                            break;
                        }
                        Err(error) => return Err(error),
                    }
                    let holes = self.row.get_mut(at).map(|g| std::mem::take(&mut g.missing));
                    self.lose(&holes.unwrap_or_default());
                    for (from, to) in owed {
                        let lost = self.settled.within(from, to).map(|(from, to)| from..=to);
                        report.missing.extend(lost);
                    }
                }
                Err(fault) => return Err(Error::engine("open", &path, fault)),
            }
        }
        let (cursor, last) = (self.cursor, self.next_seq.saturating_sub(1));
        if cursor > 0 {
            let low = self.row.iter().find(|g| g.last > cursor).map_or(cursor, |g| g.first);
            self.settle_bytes(low, cursor);
        }
        // By generation, so that each is opened once and closed before the next.
        for at in 0..self.row.len() {
            let Some((first, end)) = self.row.get(at).map(|g| (g.first, g.last)) else { break };
            let (low, high) = (first.max(cursor.saturating_add(1)), end.min(last));
            let ahead: Vec<_> = self.settled.within(low, high).collect();
            for (from, to) in ahead {
                self.settle_bytes(from, to);
            }
            self.close_unused();
        }
        self.refresh_oldest();
        for g in self.row.iter_mut().chain(&mut self.rejects) {
            g.disk_bytes = files::disk_usage(&g.path(&self.dir));
        }
        Ok(())
    }

    /// The last success: from its generation, else from the copy made when that one went.
    fn load_success(&mut self) {
        let Some((seq, at)) = self.success else { return };
        let copy = files::read_if_there(&self.dir.join("last-success")).ok().flatten();
        let copied = copy
            .as_deref()
            .and_then(|bytes| record::decode(bytes, seq).and_then(record::Decoded::to_record).ok());
        match copied {
            Some(record) => self.last_success = Some(LastSuccess { record, at }),
            None => self.remember_success(),
        }
    }
}

pub(crate) fn take_repairs(report: &mut OpenReport, repairs: Repairs) {
    report.removed_snapshots.extend(repairs.removed_snapshots);
    report.moved_aside.extend(repairs.moved_aside);
}
