//! The queue's figures.

use crate::files;
use crate::manifest::Role;
use crate::queue::Queue;
use crate::types::{Counters, Position, Stats, Tally};

const SMALL_FILES: [&str; 7] =
    ["LOCK", "FORMAT", "manifest", "aside.manifest", "mark", "cursor", "last-success"];

impl Queue {
    /// How far the queue has come; unlike [`stats`](Self::stats) it costs nothing.
    pub fn position(&self) -> Position {
        Position { cursor: self.cursor, next_seq: self.next_seq, pending: self.pending_records() }
    }

    /// What happened since opening; it costs nothing either.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The figures of this moment.
    pub fn stats(&self) -> Stats {
        let mut pending_bytes = 0u64;
        let mut sent = Tally::default();
        let mut disk = self.quarantined.bytes.saturating_add(self.small_files_bytes());
        for g in &self.row {
            let delivered_to = g.last.min(self.cursor);
            let excluded = match g.role {
                Role::Sent => g.excluded.iter().fold(0u64, |sum, &(f, t)| {
                    sum.saturating_add(t.saturating_sub(f)).saturating_add(1)
                }),
                Role::Pending | Role::Rejected => self.settled.count_within(g.first, delivered_to),
            };
            let live =
                if g.role == Role::Pending && g.last > self.cursor { g.live_bytes } else { 0 };
            pending_bytes = pending_bytes.saturating_add(live);
            let share = delivered_to.saturating_add(1).saturating_sub(g.first);
            sent.records = sent.records.saturating_add(share.saturating_sub(excluded));
            sent.bytes = sent.bytes.saturating_add(g.bytes.saturating_sub(live));
        }
        let mut rejected = Tally::default();
        for g in &self.rejects {
            rejected.records = rejected.records.saturating_add(g.records);
            rejected.bytes = rejected.bytes.saturating_add(g.bytes);
        }
        for g in self.row.iter().chain(&self.rejects) {
            let bytes = if g.sealed { g.disk_bytes } else { files::disk_usage(&g.path(&self.dir)) };
            disk = disk.saturating_add(bytes);
        }
        for path in &self.undeleted {
            disk = disk.saturating_add(files::disk_usage(path));
        }
        let pending = Tally { records: self.pending_records(), bytes: pending_bytes };
        Stats {
            pending,
            oldest_pending: self.oldest.filter(|_| pending.records > 0),
            next_seq: self.next_seq,
            cursor: self.cursor,
            sent,
            rejected,
            generations: self.row.len().saturating_add(self.rejects.len()),
            quarantined: self.quarantined,
            disk_bytes: disk,
            ballast: self.has_ballast(),
            epoch: self.epoch,
            counters: self.counters,
        }
    }

    pub(crate) fn pending_records(&self) -> u64 {
        let last = self.next_seq.saturating_sub(1);
        let settled = self.settled.count_within(self.cursor.saturating_add(1), last);
        last.saturating_sub(self.cursor).saturating_sub(settled)
    }

    fn small_files_bytes(&self) -> u64 {
        SMALL_FILES
            .iter()
            .fold(0u64, |sum, name| sum.saturating_add(files::disk_usage(&self.dir.join(name))))
    }
}
