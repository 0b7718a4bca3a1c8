//! What goes when the file system is full, and in which order.
//!
//! An operation that meets a full disk is tried again after each thing that went:
//!
//! 1. what is worth nothing: drained generations, what is over a bound;
//! 2. sent generations, oldest first: `retain_sent` is a wish, a new record is a promise;
//! 3. the ballast, but not for an append: a record that cannot be appended waits with the caller,
//!    while what holds already must go on being delivered, since that is how space comes back.
//!    A caller that has no more time to wait gives it up itself
//!    ([`Queue::give_up_ballast`](crate::Queue::give_up_ballast)).
//!
//! What waits to be delivered, what was rejected and what is in quarantine stay within their
//! bounds: they never go for want of space.

use std::path::Path;

use crate::error::Error;
use crate::files;
use crate::generation::{DOOMED, Generation, Name};
use crate::manifest::Role;
use crate::queue::Queue;

/// Free bytes without which no generation is closed that needs some to be opened again: the
/// engine fills up the last segment then and writes a snapshot.
const REOPENING: u64 = 512 * 1024;

/// Bytes a fresh generation takes with its first records, directories included.
const FRESH: u64 = 128 * 1024;

/// The room on a queue's file system, as an operator wants to hear of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes free for this user; a quota is not taken into account.
    pub free: u64,
    /// Bytes the queue needs to take records again.
    pub needed: u64,
}

impl Room {
    /// Looks at the file system of `dir`, which need not exist yet: then at that of the nearest
    /// directory above. `waiting` are the payload bytes to be appended. None if the file system
    /// does not tell.
    pub fn look(dir: &Path, waiting: u64) -> Option<Self> {
        let free = dir.ancestors().find_map(free_bytes)?;
        // A record takes about twice its bytes on disk.
        Some(Self { free, needed: FRESH.saturating_add(waiting.saturating_mul(2)) })
    }

    /// Bytes short; zero when something else than free bytes is wanting: inodes, a quota.
    pub fn missing(&self) -> u64 {
        self.needed.saturating_sub(self.free)
    }
}

/// Bytes free for this user on the file system of `dir`.
pub(crate) fn free_bytes(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// What an operation may cost when the disk is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// It can wait.
    Append,
    /// Delivery hangs on it.
    Out,
}

impl Queue {
    /// Whether the file that is kept for a full disk is there; see [`Stats::ballast`](crate::Stats::ballast).
    pub fn has_ballast(&self) -> bool {
        self.ballast.is_whole()
    }

    /// Times the ballast was given up since this opening.
    pub fn ballast_given_up(&self) -> u64 {
        self.counters.ballast_given_up
    }

    /// Deletes the ballast, so that a caller about to stop can append what it holds; whether
    /// that gave room. Maintenance makes it again when there is plenty.
    pub fn give_up_ballast(&mut self) -> bool {
        let gave = self.ballast.give_up();
        if gave {
            self.counters.ballast_given_up = self.counters.ballast_given_up.saturating_add(1);
        }
        gave
    }

    /// Runs something; as long as the disk is full and something may go, lets it go and runs it
    /// again.
    pub(crate) fn with_room<T>(
        &mut self,
        need: Need,
        mut run: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        loop {
            match run(self) {
                Err(error) if error.is_full() => {
                    // Each of these makes the queue smaller, so this ends.
                    let gave = self.reclaim() || (need == Need::Out && self.give_up_ballast());
                    if !gave {
                        return Err(error);
                    }
                }
                done => return done,
            }
        }
    }

    /// Whether delivery hangs on something that is not on disk yet.
    pub(crate) fn is_stuck(&self) -> bool {
        self.cursor_dirty
            || self.settled.contains(self.cursor.saturating_add(1))
            || self.row.iter().any(|g| self.is_worthless(g) && !g.appendable)
    }

    /// Whether a generation that was not sealed may be closed: on a full disk it could not be
    /// opened again.
    pub(crate) fn may_reopen(&self) -> bool {
        free_bytes(&self.dir).is_none_or(|free| free >= REOPENING)
    }

    fn is_worthless(&self, g: &Generation) -> bool {
        g.role == Role::Pending && !g.is_empty() && g.last <= self.cursor && !self.is_pinned(g)
    }

    /// Deletes what is worth least; whether anything went.
    fn reclaim(&mut self) -> bool {
        let before = self.holdings();
        self.delete_leftovers();
        if !self.may_delete() {
            return self.holdings() < before;
        }
        while let Some(at) = self.row.iter().position(|g| self.is_worthless(g)) {
            self.discard(at);
        }
        // What is worth nothing goes; should that fail, the rest is tried.
        let _ = self.enforce_rejected_bound();
        // What cannot be deleted now is over the bound a little longer.
        let _ = self.enforce_quarantine_bound();
        if self.holdings() == before
            && let Some(at) =
                self.row.iter().position(|g| g.role == Role::Sent && !self.is_pinned(g))
        {
            self.discard(at);
        }
        self.holdings() < before
    }

    fn holdings(&self) -> u64 {
        let generations = self.row.len().saturating_add(self.rejects.len()) as u64;
        let leftovers = self.undeleted.len() as u64;
        generations.saturating_add(leftovers).saturating_add(self.quarantined.records)
    }

    /// Deletes a delivered generation. The copy of the last success may have to wait for the
    /// room that gives.
    fn discard(&mut self, at: usize) {
        let holds_success = self.holds_last_success(at);
        let copied = !holds_success || self.copy_success().is_ok();
        if at >= self.row.len() {
            return;
        }
        let g = self.row.remove(at);
        tracing::debug!(first = g.first, last = g.last, "the disk is full: delivered records go");
        self.delete_directory(g);
        self.manifest_dirty = true;
        if !copied && let Err(error) = self.copy_success() {
            tracing::debug!(%error, "the last success is not kept over a restart");
        }
    }
}

/// Deletes the oldest sent generation of a queue that could not be opened for want of space;
/// whether there was one.
pub(crate) fn discard_oldest_sent(dir: &Path) -> bool {
    let names = files::names(dir).unwrap_or_default();
    let mut sent = names
        .into_iter()
        .filter(|(name, _)| Name::parse(name).is_some_and(|name| name.role == Role::Sent));
    let Some((name, path)) = sent.next() else { return false };
    let doomed = dir.join(format!("{name}{DOOMED}"));
    let gone = std::fs::rename(&path, &doomed).and_then(|()| std::fs::remove_dir_all(&doomed));
    if let Err(error) = &gone {
        tracing::debug!(path = %path.display(), %error, "cannot delete a generation");
    }
    gone.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_told_for_a_directory_that_is_still_to_come() {
        let dir = tempfile::tempdir().unwrap();
        let here = Room::look(dir.path(), 0).unwrap();
        let there = Room::look(&dir.path().join("a/b"), 1000).unwrap();
        assert!(here.free > 0);
        assert_eq!(there.needed, here.needed + 2000);
        assert_eq!(Room { free: 5, needed: 7 }.missing(), 2);
        assert_eq!(Room { free: 7, needed: 5 }.missing(), 0);
    }
}
