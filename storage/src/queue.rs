//! The queue's state, and what its other files share.
//!
//! `append.rs` puts records in, `read.rs` shows them, `settle.rs` takes them off, `retention.rs`
//! deletes, `recovery.rs` opens, `stats.rs` counts.
//!
//! Invariants:
//! - Every number from 1 to below `next_seq` is at any time exactly one of: at or below the
//!   cursor; settled (rejected, or in a gap); pending.
//! - What settles a number is durable before the number is passed over.
//! - Memory never says more than the disk: fields change after the write they stand for.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use crate::ballast::Ballast;
use crate::changes::Changes;
use crate::clock::Clock;
use crate::error::Error;
use crate::expiry::WORTH_STORING;
use crate::gaps::Gaps;
use crate::generation::Generation;
use crate::lock::Lock;
use crate::manifest::Manifest;
use crate::marks::{CursorFile, MarkFile};
use crate::mend::Repairs;
use crate::ranges::RangeSet;
use crate::record;
use crate::recovery::QUEUE_DIR;
use crate::room::Need;
use crate::types::{
    Confirmation, Counters, Gap, LastSuccess, Maintenance, Options, Pin, Record, Stamp, Tally,
};

/// A durable queue of numbered records; see the crate's documentation.
///
/// Not shared between threads: one thread owns it, and every call blocks for as long as the
/// disk takes.
pub struct Queue {
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    /// Shared only while opening is tried more than once.
    pub(crate) _lock: Arc<Lock>,
    pub(crate) ballast: Ballast,
    pub(crate) epoch: Uuid,
    /// The latest moment the caller told of.
    pub(crate) now: Stamp,
    /// How much time has passed, as far as that is proved.
    pub(crate) clock: Clock,
    /// Its reading in the manifest on disk; none if there is none.
    pub(crate) clock_saved_ms: Option<u64>,
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
    /// Rejected numbers that were accepted since; see `unreject.rs`.
    pub(crate) unrejected: RangeSet,
    /// Numbers up to this one may have reached the receiver.
    pub(crate) handed_out: u64,
    pub(crate) mark_file: MarkFile,
    /// By the proven clock.
    pub(crate) mark_synced_ms: u64,
    pub(crate) cursor_file: CursorFile,
    /// The manifest on disk lacks something.
    pub(crate) manifest_dirty: bool,
    /// The cursor on disk lags behind what can be derived from settled numbers.
    pub(crate) cursor_dirty: bool,
    /// Directories that hold nothing that counts and could not be deleted yet.
    pub(crate) undeleted: Vec<PathBuf>,
    pub(crate) pins: Vec<Pinned>,
    pub(crate) next_pin: u64,
    /// The generation read last.
    pub(crate) reading: Option<u64>,
    pub(crate) oldest: Option<Stamp>,
    pub(crate) quarantined: Tally,
    pub(crate) counters: Counters,
    /// What became of records lately, for those who follow.
    pub(crate) changes: Changes,
    /// What happened since the last maintenance.
    pub(crate) news: Maintenance,
    /// Opening is over: what is found missing from now on is in no report.
    pub(crate) reported: bool,
}

/// Generations held for a reader.
pub(crate) struct Pinned {
    pub(crate) id: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// By the proven clock.
    pub(crate) since_ms: u64,
}

impl Queue {
    /// Whether something was ever queued in `dir`.
    ///
    /// # Errors
    /// When the operating system does not let it be seen.
    pub fn is_there(dir: &Path) -> Result<bool, Error> {
        let lock = dir.join(QUEUE_DIR).join("LOCK");
        lock.try_exists().map_err(|error| Error::io("look at", &lock, error))
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
            self.with_room(Need::Out, Self::save_manifest)?;
        }
        Ok(())
    }

    /// The last record that was confirmed; it survives restarts.
    pub fn last_success(&self) -> Option<&LastSuccess> {
        self.last_success.as_ref()
    }

    /// Keeps the directories of all generations that hold a number of `range` until
    /// [`unpin`](Self::unpin), or until [`Options::pin_limit`] is over: they are neither deleted
    /// nor renamed, so a slow reader sees everything it began with. A pin ends early when what it
    /// holds would take the queue over [`Options::disk_bound`].
    pub fn pin(&mut self, range: RangeInclusive<u64>, now: Stamp) -> Pin {
        let id = self.next_pin;
        self.next_pin = id.wrapping_add(1);
        self.tell_time(now);
        let since_ms = self.clock.now_ms();
        self.pins.push(Pinned { id, from: *range.start(), to: *range.end(), since_ms });
        Pin(id)
    }

    /// Gives a pin back.
    #[allow(clippy::needless_pass_by_value, reason = "a pin is given back, so it is consumed")]
    pub fn unpin(&mut self, pin: Pin) {
        self.pins.retain(|pinned| pinned.id != pin.0);
    }

    /// Stops cleanly: what is synced lazily is synced now.
    ///
    /// # Errors
    /// The first thing that kept some of it from the disk; the rest is done all the same.
    /// Nothing appended is lost by that.
    pub fn close(mut self) -> Result<(), Error> {
        self.delete_leftovers();
        let manifest = self.with_room(Need::Out, Self::save_manifest_if_dirty);
        self.save_clock(WORTH_STORING);
        let cursor = self.with_room(Need::Out, Self::save_cursor_if_dirty);
        let mark = self.mark_file.close();
        manifest.and(cursor).and(mark)
    }

    pub(crate) fn check_given_out(&self, seq: u64) -> Result<(), Error> {
        let last = self.next_seq.saturating_sub(1);
        if seq > last { Err(Error::BeyondEnd { seq, last }) } else { Ok(()) }
    }

    pub(crate) fn is_pending(&self, seq: u64) -> bool {
        seq > self.cursor && seq < self.next_seq && !self.settled.contains(seq)
    }

    /// The place in the row of the generation that owns `seq`.
    pub(crate) fn owner_of(&self, seq: u64) -> Option<usize> {
        let after = self.row.partition_point(|g| g.first <= seq);
        let at = after.checked_sub(1)?;
        self.row.get(at).filter(|g| seq <= g.last).map(|_| at)
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
            clock: Some(self.clock.reading()),
            generations: generations.map(Generation::to_sealed).collect(),
            gaps: self.gaps.as_slice().to_vec(),
            unrejected: self.listed_unrejected(),
        };
        self.manifest_dirty = true;
        manifest.write(&manifest_path(&self.dir))?;
        self.manifest_dirty = false;
        self.clock_saved_ms = Some(self.clock.now_ms());
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
                record::decode(&bytes, seq).and_then(record::Decoded::to_record).ok()
            })),
            Err(fault) if fault.is_damage() => Ok(None),
            Err(fault) => {
                // Opened afresh it may read again, see `read.rs`.
                g.close();
                Err(Error::engine("read from", &path, fault))
            }
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

    /// Closes all databases but the head's, the newest and the one being read; on a full disk
    /// also not those that it would not let open again.
    /// A reading comes to this generation: what it read before is closed first, since an open
    /// database takes several MiB and one of them at a time is enough.
    pub(crate) fn turn_to(&mut self, id: u64) {
        self.reading = Some(id);
        self.close_unused();
    }

    pub(crate) fn close_unused(&mut self) {
        let head = self.row.iter().find(|g| g.last > self.cursor).map(|g| g.id);
        let reading = self.reading;
        let idle = |g: &Generation| g.is_open() && !g.appendable && Some(g.id) != reading;
        let mut unsealed = self.row.iter().chain(&self.rejects).filter(|g| idle(g) && !g.sealed);
        let may_reopen = unsealed.next().is_none() || self.may_reopen();
        for g in &mut self.row {
            if idle(g) && Some(g.id) != head && (g.sealed || may_reopen) {
                g.close();
            }
        }
        for g in &mut self.rejects {
            if idle(g) && (g.sealed || may_reopen) {
                g.close();
            }
        }
    }
}

pub(crate) fn manifest_path(dir: &Path) -> PathBuf {
    dir.join("manifest")
}
