//! What became of records lately, for readers that follow a live queue.
//!
//! A short list in memory: each entry is a run of numbers that came or went together. Appending
//! and confirming cost an entry or nothing, however many records are concerned and whether or not
//! anybody reads; a reader that falls behind is told that it missed something.
//!
//! Invariants: entries are in the order in which things happened; the list never holds more than
//! [`KEPT`]; an entry that a reader has seen does not change any more.

use std::collections::VecDeque;

use crate::queue::Queue;
use crate::types::GapReason;

/// Entries kept.
const KEPT: usize = 1024;

/// What became of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    /// Appended: they wait for confirmation.
    Pending,
    /// Confirmed.
    Sent,
    /// Refused for good and kept.
    Rejected,
    /// Listed as a gap.
    GivenUp(GapReason),
}

/// Consecutive numbers of which the same became at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The first number.
    pub from: u64,
    /// The last number.
    pub to: u64,
    /// What became of them.
    pub became: Became,
    /// When the last of it happened, wall clock in milliseconds since 1970 UTC, as the caller
    /// told it.
    pub wall_ms: u64,
}

/// How far a reader has seen; see [`Queue::watch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    next: u64,
}

/// What happened since a reader looked last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    /// In the order in which it happened.
    pub changes: Vec<Change>,
    /// Something happened before them that is not known any more.
    pub missed: bool,
}

/// The list.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    kept: VecDeque<Change>,
    /// Entries that were dropped: the place of the first one kept.
    dropped: u64,
    /// Entries before this place have been seen by some reader.
    seen: u64,
}

impl Changes {
    pub(crate) fn note(&mut self, from: u64, to: u64, became: Became, wall_ms: u64) {
        if from > to {
            return;
        }
        let end = self.end();
        if let Some(last) = self.kept.back_mut()
            && end > self.seen
            && last.became == became
            && last.to.checked_add(1) == Some(from)
        {
            (last.to, last.wall_ms) = (to, wall_ms);
            return;
        }
        if self.kept.len() >= KEPT {
            self.kept.pop_front();
            self.dropped = self.dropped.saturating_add(1);
        }
        self.kept.push_back(Change { from, to, became, wall_ms });
    }

    fn end(&self) -> u64 {
        self.dropped.saturating_add(self.kept.len() as u64)
    }

    fn since(&mut self, watch: &mut Watch, most: usize) -> News {
        let missed = watch.next < self.dropped;
        let from = watch.next.max(self.dropped);
        let skipped = usize::try_from(from.saturating_sub(self.dropped)).unwrap_or(usize::MAX);
        let changes: Vec<_> = self.kept.iter().skip(skipped).take(most).copied().collect();
        watch.next = from.saturating_add(changes.len() as u64);
        self.seen = self.seen.max(watch.next);
        News { changes, missed }
    }
}

impl Queue {
    /// Begins to follow what becomes of records from now on.
    pub fn watch(&mut self) -> Watch {
        let next = self.changes.end();
        self.changes.seen = next;
        Watch { next }
    }

    /// What happened since the last call with this watch, at most so many runs of it. It costs
    /// no look at the disk.
    pub fn changes(&mut self, watch: &mut Watch, most: usize) -> News {
        self.changes.since(watch, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(from: u64, to: u64, became: Became) -> Change {
        Change { from, to, became, wall_ms: to }
    }

    fn note(list: &mut Changes, from: u64, to: u64, became: Became) {
        list.note(from, to, became, to);
    }

    #[test]
    fn neighbours_are_one_entry_until_somebody_has_seen_it() {
        let mut list = Changes::default();
        let mut watch = Watch { next: 0 };
        for seq in 1..=5 {
            note(&mut list, seq, seq, Became::Pending);
        }
        note(&mut list, 1, 3, Became::Sent);
        note(&mut list, 9, 8, Became::Sent);
        let news = list.since(&mut watch, 99);
        assert_eq!(news.changes, [run(1, 5, Became::Pending), run(1, 3, Became::Sent)]);
        assert!(!news.missed);
        note(&mut list, 4, 4, Became::Sent);
        note(&mut list, 6, 6, Became::Sent);
        let news = list.since(&mut watch, 1);
        assert_eq!(news.changes, [run(4, 4, Became::Sent)]);
        assert_eq!(list.since(&mut watch, 9).changes, [run(6, 6, Became::Sent)]);
        assert_eq!(list.since(&mut watch, 9), News::default());
    }

    #[test]
    fn who_falls_behind_is_told_and_the_list_stays_short() {
        let mut list = Changes::default();
        let mut watch = Watch { next: 0 };
        let far = 3 * KEPT as u64;
        for seq in 1..=far {
            note(&mut list, 2 * seq, 2 * seq, Became::Sent);
        }
        assert_eq!(list.kept.len(), KEPT);
        let news = list.since(&mut watch, usize::MAX);
        assert!(news.missed);
        assert_eq!(news.changes.len(), KEPT);
        assert_eq!(news.changes.last().map(|c| c.to), Some(2 * far));
        assert_eq!(list.since(&mut watch, 9), News::default());
    }
}
