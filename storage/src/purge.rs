//! Deleting on request what retention would keep: rejected records, delivered ones, what lies in
//! quarantine.
//!
//! Invariants:
//! - Nothing that waits for confirmation goes, and no number changes its state by it: before the
//!   copies of rejected records go, their numbers are written to the manifest as left out of the
//!   generations that still hold them, so they stay settled after a restart.
//! - Whole generations only. A directory is renamed to `*.deleted`, durably, before it is
//!   emptied, so a kill in between leaves nothing in doubt and opening finishes the work.
//! - What a reader has pinned stays; a generation that also holds records that wait stays.

use std::path::Path;

use crate::error::Error;
use crate::files;
use crate::generation::{DOOMED, Generation};
use crate::manifest::Role;
use crate::quarantine::QUARANTINE;
use crate::queue::Queue;
use crate::room::Need;
use crate::types::{Stamp, Tally};

/// What [`Queue::purge`] deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purge {
    /// Records that were refused for good.
    Rejected,
    /// Confirmed records that are kept.
    Sent,
    /// Broken generations that were set aside.
    Quarantine,
}

/// What a purge deletes, and what of the same kind it cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purged {
    /// Records that go (in quarantine: generations, since nobody can count the records of what
    /// cannot be read) and what they take on disk.
    pub gone: Tally,
    /// Records that stay, since a reader has them now.
    pub pinned: u64,
    /// Records that stay, since they lie in one generation with records that wait.
    pub shared: u64,
}

impl Queue {
    /// What [`purge`](Self::purge) would do now.
    pub fn purgeable(&self, what: Purge) -> Purged {
        let mut found = Purged::default();
        let mut add = |g: &Generation, records: u64| {
            if self.is_pinned(g) {
                found.pinned = found.pinned.saturating_add(records);
                return;
            }
            found.gone.records = found.gone.records.saturating_add(records);
            let on_disk = files::disk_usage(&g.path(&self.dir));
            found.gone.bytes = found.gone.bytes.saturating_add(on_disk);
        };
        match what {
            Purge::Rejected => self.rejects.iter().for_each(|g| add(g, g.rejected().records)),
            Purge::Sent => {
                let mut shared = 0u64;
                for g in self.row.iter().filter(|g| g.first <= self.cursor) {
                    let sent = self.sent_in(g);
                    if g.last <= self.cursor {
                        add(g, sent);
                    } else {
                        shared = shared.saturating_add(sent);
                    }
                }
                found.shared = shared;
            }
            Purge::Quarantine => found.gone = self.quarantined,
        }
        found
    }

    /// Deletes all of a kind that may go, durably, and tells what that was.
    ///
    /// # Errors
    /// The first refusal of the operating system; what was deleted before it stays deleted, and
    /// nothing else has changed.
    pub fn purge(&mut self, what: Purge, now: Stamp) -> Result<Purged, Error> {
        self.tell_time(now);
        self.date_generations();
        self.end_old_pins();
        self.delete_leftovers();
        let found = self.purgeable(what);
        self.with_room(Need::Out, |queue| {
            match what {
                Purge::Rejected => queue.purge_rejected()?,
                Purge::Sent => queue.purge_sent()?,
                Purge::Quarantine => queue.purge_quarantine()?,
            }
            queue.save_manifest_if_dirty()
        })?;
        Ok(found)
    }

    fn purge_rejected(&mut self) -> Result<(), Error> {
        if self.rejects.iter().all(|g| self.is_pinned(g)) {
            return Ok(());
        }
        self.exclude_settled()?;
        let mut at = 0;
        while let Some(g) = self.rejects.get_mut(at) {
            g.close();
            // Closed, it takes no more.
            g.appendable = false;
            let Some(g) = self.rejects.get(at).filter(|g| !self.is_pinned(g)) else {
                at = at.saturating_add(1);
                continue;
            };
            let path = g.path(&self.dir);
            self.purge_directory(&path)?;
            self.rejects.remove(at);
            self.manifest_dirty = true;
        }
        Ok(())
    }

    /// Notes which numbers are settled where their copies are about to go.
    pub(crate) fn exclude_settled(&mut self) -> Result<(), Error> {
        // The copies tell that the numbers are settled; the manifest has to, once they are gone,
        // and it knows sealed generations alone.
        for g in self.row.iter_mut().filter(|g| g.role == Role::Pending && !g.sealed) {
            if self.settled.within(g.first, g.last).next().is_some() {
                g.appendable = false;
            }
        }
        self.seal_closed()?;
        for g in self.row.iter_mut().filter(|g| g.role == Role::Pending && g.sealed) {
            g.excluded = self.settled.within(g.first, g.last).collect();
        }
        self.save_manifest()
    }

    fn purge_sent(&mut self) -> Result<(), Error> {
        let mut at = 0;
        while let Some(g) = self.row.get(at) {
            if g.last > self.cursor || g.is_empty() || self.is_pinned(g) {
                at = at.saturating_add(1);
                continue;
            }
            self.copy_success_out_of(at)?;
            let Some(g) = self.row.get_mut(at) else { break };
            g.close();
            g.appendable = false;
            let path = g.path(&self.dir);
            self.purge_directory(&path)?;
            self.row.remove(at);
            self.manifest_dirty = true;
        }
        Ok(())
    }

    fn purge_quarantine(&mut self) -> Result<(), Error> {
        let dir = self.dir.join(QUARANTINE);
        let found = files::names(&dir).map_err(|e| Error::io("list", &dir, e))?;
        let purged = found.iter().try_for_each(|(_, path)| self.purge_directory(path));
        self.count_quarantine();
        purged
    }

    /// Deletes a directory so that no power cut brings part of it back.
    fn purge_directory(&mut self, path: &Path) -> Result<(), Error> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let doomed = self.dir.join(format!("{name}{DOOMED}"));
        let from = path.parent().unwrap_or(&self.dir);
        std::fs::rename(path, &doomed)
            .and_then(|()| files::sync_dir(&self.dir))
            .and_then(|()| files::sync_dir(from))
            .map_err(|e| Error::io("delete", path, e))?;
        let emptied = if doomed.is_dir() {
            std::fs::remove_dir_all(&doomed)
        } else {
            std::fs::remove_file(&doomed)
        };
        if let Err(error) = emptied {
            // By its name it is deleted; maintenance and the next opening try again.
            tracing::warn!(path = %doomed.display(), %error, "cannot empty what was deleted");
            self.undeleted.push(doomed);
        }
        Ok(())
    }

    /// Confirmed records in one generation of the row.
    fn sent_in(&self, g: &Generation) -> u64 {
        let to = g.last.min(self.cursor);
        if g.first > to {
            return 0;
        }
        let excluded = match g.role {
            Role::Sent => g.excluded.iter().fold(0u64, |sum, &(from, to)| {
                sum.saturating_add(to.saturating_sub(from).saturating_add(1))
            }),
            Role::Pending | Role::Rejected => self.settled.count_within(g.first, to),
        };
        to.saturating_sub(g.first).saturating_add(1).saturating_sub(excluded)
    }
}
