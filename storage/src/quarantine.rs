//! Generations that cannot be read: moved out of the way, kept for inspection, never wiped.
//!
//! Only damage brings one here, never a refusal of the operating system. What can be had of it
//! goes to a fresh generation first (`rescue.rs`); what it still owed beside that is listed as a
//! gap. At most [`KEPT`] are kept, and as many bytes as the bound says; the oldest go, and one
//! that is larger than the bound by itself goes as well. Whatever else lies in the directory is
//! not ours and is left alone.

use std::io;
use std::path::{Path, PathBuf};

use crate::engine::Fault;
use crate::error::Error;
use crate::files;
use crate::generation::{Name, born};
use crate::manifest::Role;
use crate::queue::Queue;
use crate::salvage::Wanted;
use crate::types::Tally;

/// Below the queue's directory.
pub(crate) const QUARANTINE: &str = "quarantine";

/// How many generations are kept in it.
const KEPT: u64 = 16;

impl Queue {
    /// Moves a generation that cannot be read out of the way. A fresh one with what can be had of it
    /// takes its place; the rest is listed as a gap.
    ///
    /// # Errors
    /// What kept it from being done; nothing has changed then.
    pub(crate) fn quarantine(&mut self, at: usize, fault: &Fault) -> Result<(), Error> {
        let end = self.end_of_share(at);
        let Some(g) = self.row.get_mut(at) else { return Ok(()) };
        let store = g.take_store();
        g.appendable = false;
        let (name, first, last, role) = (g.name(), g.first, g.last, g.role);
        let path = g.path(&self.dir);
        tracing::debug!(path = %path.display(), error = fault.text(), "a generation is broken and goes to quarantine");
        let owed = self.owed(first, end);
        let rescued = if role == Role::Pending && !owed.is_empty() {
            let wanted = Wanted { from: first, to: end, rejected: false };
            self.salvage(name, wanted, store, &owed)?
        } else {
            drop(store);
            None
        };
        let Some(rescued) = rescued else {
            self.move_to_quarantine(&path)?;
            if at < self.row.len() {
                self.row.remove(at);
            }
            self.manifest_dirty = true;
            if role == Role::Pending && first <= last && self.next_seq > last {
                self.lose(&[(first, last)]);
            }
            return Ok(());
        };
        self.put_in_place(&path, &rescued)?;
        let mut fresh = rescued.generation;
        for &(from, to) in &owed {
            let found = rescued.numbers.within(from, to).map(|(from, to)| from..=to);
            self.news.salvaged.extend(found);
        }
        let missing = rescued.numbers.outside(first, last.max(fresh.last));
        if self.reported {
            // It stands for what the broken one stood for, its settled numbers included.
            let settled: Vec<_> = self.settled.within(fresh.first, fresh.last).collect();
            let delivered = (fresh.first, self.cursor.min(fresh.last));
            let beyond = settled.into_iter().map(|(from, to)| (from.max(delivered.1 + 1), to));
            for (from, to) in std::iter::once(delivered).chain(beyond) {
                fresh.settle_bytes(from, to, &self.dir, self.options.cache_bytes);
            }
        } else {
            fresh.missing.clone_from(&missing);
        }
        if let Some(g) = self.row.get_mut(at) {
            *g = fresh;
        }
        self.manifest_dirty = true;
        if self.reported {
            self.lose(&missing);
        }
        Ok(())
    }

    /// Likewise while opening: what cannot be moved for now, since the disk is full say, stays in
    /// the row and stands for all numbers up to `last`; reading it tries again.
    pub(crate) fn quarantine_or_leave(
        &mut self,
        at: usize,
        fault: &Fault,
        last: u64,
    ) -> Result<(), Error> {
        match self.quarantine(at, fault) {
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, "a broken generation stays where it is for now");
                if let Some(g) = self.row.get_mut(at) {
                    g.last = last;
                }
                Ok(())
            }
            done => done,
        }
    }

    /// Likewise for rejected records, which nobody is owed.
    pub(crate) fn quarantine_rejected(&mut self, at: usize, fault: &Fault) -> Result<(), Error> {
        let Some(g) = self.rejects.get_mut(at) else { return Ok(()) };
        let store = g.take_store();
        g.appendable = false;
        let (name, path) = (g.name(), g.path(&self.dir));
        tracing::debug!(path = %path.display(), error = fault.text(), "rejected records are broken and go to quarantine");
        let wanted = Wanted { from: 1, to: u64::MAX, rejected: true };
        match self.salvage(name, wanted, store, &[(1, u64::MAX)])? {
            Some(rescued) => {
                self.put_in_place(&path, &rescued)?;
                if let Some(g) = self.rejects.get_mut(at) {
                    *g = rescued.generation;
                }
            }
            None => {
                self.move_to_quarantine(&path)?;
                if at < self.rejects.len() {
                    self.rejects.remove(at);
                }
            }
        }
        self.manifest_dirty = true;
        Ok(())
    }

    /// Likewise while opening: what cannot be moved for now stays, and what was rejected is
    /// delivered once more rather than nothing at all.
    pub(crate) fn quarantine_rejected_or_leave(
        &mut self,
        at: usize,
        fault: &Fault,
    ) -> Result<(), Error> {
        match self.quarantine_rejected(at, fault) {
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, "broken rejected records stay where they are for now");
                Ok(())
            }
            done => done,
        }
    }

    /// The last number that may lie in this generation of the row.
    pub(crate) fn end_of_share(&self, at: usize) -> u64 {
        match self.row.get(at.saturating_add(1)) {
            _ if self.row.get(at).is_some_and(|g| g.sealed) => {
                self.row.get(at).map_or(0, |g| g.last)
            }
            Some(next) => next.first.saturating_sub(1),
            None => u64::MAX,
        }
    }

    /// Moves a generation's directory to quarantine and returns where it lies now.
    pub(crate) fn move_to_quarantine(&mut self, path: &Path) -> Result<PathBuf, Error> {
        let target =
            set_aside_in(&self.dir, path).map_err(|e| Error::io("move to quarantine", path, e))?;
        self.quarantined.records = self.quarantined.records.saturating_add(1);
        self.quarantined.bytes = self.quarantined.bytes.saturating_add(files::disk_usage(&target));
        self.news.quarantined.push(target.clone());
        Ok(target)
    }

    pub(crate) fn count_quarantine(&mut self) {
        self.quarantined =
            self.quarantined_generations().iter().fold(Tally::default(), |sum, (_, path)| Tally {
                records: sum.records.saturating_add(1),
                bytes: sum.bytes.saturating_add(files::disk_usage(path)),
            });
    }

    pub(crate) fn enforce_quarantine_bound(&mut self) -> Result<(), Error> {
        let over = |held: &Tally, most: u64| held.bytes > most || held.records > KEPT;
        if !over(&self.quarantined, self.options.quarantine_max_bytes) {
            return Ok(());
        }
        for (_, path) in self.quarantined_generations() {
            if !over(&self.quarantined, self.options.quarantine_max_bytes) {
                break;
            }
            let size = files::disk_usage(&path);
            std::fs::remove_dir_all(&path).map_err(|e| Error::io("delete", &path, e))?;
            self.quarantined.records = self.quarantined.records.saturating_sub(1);
            self.quarantined.bytes = self.quarantined.bytes.saturating_sub(size);
        }
        Ok(())
    }

    /// What of ours lies in quarantine, oldest first: ids grow.
    fn quarantined_generations(&self) -> Vec<(Name, PathBuf)> {
        let names = files::names(&self.dir.join(QUARANTINE)).unwrap_or_default();
        let mut found: Vec<_> = names
            .into_iter()
            .filter(|(_, path)| path.is_dir())
            .filter_map(|(name, path)| Some((set_aside_name(&name)?, path)))
            .collect();
        // More than one may have had the same name.
        found.sort_unstable_by(|(a, path), (b, other)| {
            (born(a.id), a.id, path).cmp(&(born(b.id), b.id, other))
        });
        found
    }
}

/// Moves a generation's directory to the quarantine of the queue in `dir`, durably.
pub(crate) fn set_aside_in(dir: &Path, path: &Path) -> io::Result<PathBuf> {
    let quarantine = dir.join(QUARANTINE);
    files::ensure_private_dir(&quarantine)?;
    let target = free_name(&quarantine, path);
    std::fs::rename(path, &target)?;
    // It has moved, synced or not: should a power cut bring it back, it is set aside again.
    if let Err(error) = files::sync_dir(&quarantine).and_then(|()| files::sync_dir(dir)) {
        tracing::warn!(path = %target.display(), %error, "set aside, but not synced");
    }
    Ok(target)
}

/// The name a generation had before it was set aside.
pub(crate) fn set_aside_name(name: &str) -> Option<Name> {
    Name::parse(name).or_else(|| {
        let (name, count) = name.rsplit_once('.')?;
        count.parse::<u32>().ok()?;
        Name::parse(name)
    })
}

/// A name in quarantine that is not taken: one generation may have been set aside under an id
/// that a lost manifest made free again.
fn free_name(quarantine: &Path, path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let numbered = (2u32..).map(|count| quarantine.join(format!("{name}.{count}")));
    let mut candidates = std::iter::once(quarantine.join(&name)).chain(numbered);
    let free = candidates.find(|candidate| std::fs::symlink_metadata(candidate).is_err());
    free.unwrap_or_else(|| quarantine.join(&name))
}
