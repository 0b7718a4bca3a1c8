//! Age: what the proven clock (`clock.rs`) says of generations, and what goes by it.
//!
//! Invariants:
//! - A generation is as old as its newest record, so nothing goes before its time; one is closed
//!   to appends after an eighth of [`Options::queue_max_age`](crate::Options::queue_max_age), so
//!   no record stays more than that eighth (and the time between two rounds of maintenance)
//!   longer than asked.
//! - No generation spans two boots: a record's time can be told only by the clock of its boot.
//! - What cannot be told is taken for now.

use crate::clock::{Reading, millis};
use crate::error::Error;
use crate::manifest::Role;
use crate::queue::Queue;
use crate::types::{GapReason, Stamp};

/// Parts of the age after which a generation takes no more records.
const PARTS: u32 = 8;

/// The clock is stored this often at least, in milliseconds: a power cut costs so much of it at
/// most, and less where records tell.
pub(crate) const STORE_CLOCK: u64 = 3600 * 1000;

/// Less than this is not worth a write at the end.
pub(crate) const WORTH_STORING: u64 = 1000;

impl Queue {
    /// The caller says how late it is.
    pub(crate) fn tell_time(&mut self, now: Stamp) {
        self.clock.advance(&now);
        self.now = now;
    }

    /// Dates what an opening found; `stored` is what the manifest says of the clock.
    pub(crate) fn date_what_was_found(&mut self, stored: Option<Reading>) {
        for g in self.row.iter().filter(|g| !g.sealed) {
            if let Some(stamp) = &g.last_stamp {
                self.clock.learn(stamp);
            }
        }
        self.date_generations();
        self.mark_synced_ms = self.clock.now_ms();
        let boot_id = self.now.boot_id;
        let begun_in_another = |stamp: &Stamp| stamp.boot_id != boot_id && stamp.boot_id != [0; 16];
        if self.row.last().and_then(|g| g.first_stamp.as_ref()).is_some_and(begun_in_another) {
            self.retire_active();
        }
        // The new boot is on disk before another one can come.
        if stored.is_some_and(|reading| reading.at.boot_id != boot_id) {
            self.manifest_dirty = true;
        }
    }

    /// Dates generations that are not yet: those just found, or mended.
    pub(crate) fn date_generations(&mut self) {
        let clock = &self.clock;
        for g in self.row.iter_mut().filter(|g| !g.is_empty()) {
            if g.newest_ms.is_none() {
                let newest = g.last_stamp.map_or(clock.now_ms(), |stamp| clock.place(&stamp));
                g.newest_ms = Some(newest);
                self.manifest_dirty |= g.sealed;
            }
            if g.since_ms.is_none() && !g.sealed {
                g.since_ms = Some(g.first_stamp.map_or(clock.now_ms(), |s| clock.place(&s)));
            }
            if g.role == Role::Sent && g.sent_ms.is_none() {
                g.sent_ms = Some(g.sent_at.map_or(clock.now_ms(), |stamp| clock.place(&stamp)));
                self.manifest_dirty |= g.sealed;
            }
        }
        // What a rejected one holds may be of any age; its own counts from now.
        for g in self.rejects.iter_mut().filter(|g| !g.is_empty() && g.since_ms.is_none()) {
            g.since_ms = Some(clock.now_ms());
        }
    }

    /// Gives up the generations whose newest record is too old.
    pub(crate) fn expire(&mut self) -> Result<(), Error> {
        let Some(max_age) = self.options.queue_max_age.map(millis) else { return Ok(()) };
        loop {
            let now = self.clock.now_ms();
            let cursor = self.cursor;
            let oldest = self.row.iter().find(|g| g.role == Role::Pending && g.last > cursor);
            let newest_ms = oldest.and_then(|g| g.newest_ms).unwrap_or(now);
            if now.saturating_sub(newest_ms) <= max_age
                || !self.give_up_oldest(GapReason::Expired)?
            {
                return Ok(());
            }
        }
    }

    /// How long a generation takes records, in milliseconds of proven time.
    pub(crate) fn rotate_after_ms(&self) -> u64 {
        let habit = millis(self.options.generation_max_age);
        let part = self.options.queue_max_age.map(|age| millis(age / PARTS).max(1));
        part.map_or(habit, |part| part.min(habit))
    }

    /// Stores the clock if the reading on disk is so far behind. Without it things are younger at
    /// the next opening, no more; so a failure is none of the caller's.
    pub(crate) fn save_clock(&mut self, behind_ms: u64) {
        let behind = self.clock_saved_ms.map(|saved| self.clock.now_ms().saturating_sub(saved));
        let due = behind.map_or(!self.row.is_empty(), |behind| behind >= behind_ms);
        let dirty = self.manifest_dirty;
        if due && let Err(error) = self.save_manifest() {
            tracing::debug!(%error, "the clock could not be stored");
            self.manifest_dirty = dirty;
        }
    }
}
