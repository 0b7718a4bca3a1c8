//! Reading a live queue as it stood at one moment, while appends and confirmations go on.
//!
//! Invariants:
//! - What a snapshot shows is decided when it is taken: a record that was pending then is shown
//!   as pending, whatever became of it since, and nothing appended later is shown.
//! - Its generations are pinned, so nothing it has to show goes meanwhile; once the pin has run
//!   out ([`Options::pin_limit`](crate::Options::pin_limit)), what has gone is told as a problem.
//! - Each portion is bounded by its limits, whatever the queue's length, and changes nothing.

use std::ops::RangeInclusive;

use crate::engine::Visit;
use crate::error::Error;
use crate::inspect::{Entry, Problem};
use crate::manifest::Role;
use crate::mend::Repairs;
use crate::order;
use crate::queue::Queue;
use crate::ranges::RangeSet;
use crate::record::{self, Decoded};
use crate::types::{Gap, Limits, Pin, Set, Stamp};

/// A queue as it stood when [`Queue::snapshot`] was called.
#[derive(Debug)]
#[must_use = "a snapshot holds disk space until it is given back"]
pub struct Snapshot {
    pin: Pin,
    sets: Vec<Set>,
    cursor: u64,
    last: u64,
    settled: RangeSet,
    unrejected: RangeSet,
    gaps: Vec<Gap>,
    /// The next number to show, and the last one.
    next: u64,
    end: u64,
}

impl Snapshot {
    /// The gaps known when it was taken, oldest first.
    #[must_use]
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// The last number that had been given out when it was taken; 0 if none had.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    fn wants(&self, set: Set) -> bool {
        self.sets.contains(&set)
    }

    fn was_pending(&self, seq: u64) -> bool {
        seq > self.cursor && seq <= self.last && !self.settled.contains(seq)
    }
}

/// Some of what a snapshot shows.
#[derive(Debug, Default)]
pub struct Shown {
    /// Records in the order of their numbers.
    pub entries: Vec<Entry>,
    /// What could not be read.
    pub problems: Vec<Problem>,
    /// Nothing follows.
    pub done: bool,
}

impl Queue {
    /// Takes a snapshot of these sets and numbers, to be read with
    /// [`read_snapshot`](Self::read_snapshot) and given back with
    /// [`end_snapshot`](Self::end_snapshot).
    pub fn snapshot(&mut self, sets: &[Set], numbers: RangeInclusive<u64>, now: Stamp) -> Snapshot {
        let last = self.next_seq.saturating_sub(1);
        let end = last.min(*numbers.end());
        let next = (*numbers.start()).max(1);
        Snapshot {
            pin: self.pin(next..=end, now),
            sets: sets.to_vec(),
            cursor: self.cursor,
            last,
            settled: self.settled.clone(),
            unrejected: self.unrejected.clone(),
            gaps: self.gaps().to_vec(),
            next,
            end,
        }
    }

    /// These numbers as they were when they entered `set`, whatever became of them since: for
    /// [`Became`](crate::Became), to be read and given back like any snapshot.
    pub fn snapshot_of(&mut self, set: Set, numbers: RangeInclusive<u64>, now: Stamp) -> Snapshot {
        let (next, end) = (*numbers.start(), *numbers.end());
        Snapshot {
            pin: self.pin(next..=end, now),
            sets: vec![set],
            cursor: match set {
                Set::Pending => next.saturating_sub(1),
                Set::Sent | Set::Rejected => end,
            },
            last: end,
            settled: RangeSet::default(),
            unrejected: RangeSet::default(),
            gaps: Vec::new(),
            next,
            end,
        }
    }

    /// A number from which on the newest `count` records of these sets lie, as far up as can be
    /// told without a look at the disk.
    pub fn tail(&self, sets: &[Set], count: u64) -> u64 {
        if count == 0 {
            return self.next_seq;
        }
        let mut starts = vec![1];
        let mut left = count;
        let mut newest = |runs: Vec<(u64, u64)>, left: &mut u64| {
            for (from, to) in runs.into_iter().rev() {
                let run = to.saturating_sub(from).saturating_add(1);
                if run >= *left {
                    starts.push(to.saturating_sub(left.saturating_sub(1)));
                    *left = 0;
                    return;
                }
                *left = left.saturating_sub(run);
            }
        };
        if sets.contains(&Set::Pending) {
            let last = self.next_seq.saturating_sub(1);
            newest(self.settled.outside(self.cursor.saturating_add(1), last), &mut left);
        }
        if sets.contains(&Set::Sent) {
            for g in self.row.iter().rev().filter(|g| g.first <= self.cursor && !g.is_empty()) {
                if left == 0 {
                    break;
                }
                let excluded = match g.role {
                    Role::Sent => RangeSet::from_runs(&g.excluded),
                    Role::Pending | Role::Rejected => self.settled.clone(),
                };
                newest(excluded.outside(g.first, g.last.min(self.cursor)), &mut left);
            }
        }
        if sets.contains(&Set::Rejected) {
            let mut rejects: Vec<_> =
                self.rejects.iter().map(|g| (g.first, g.rejected().records)).collect();
            rejects.sort_unstable();
            let mut held = 0u64;
            let enough = rejects.iter().rev().find(|&&(_, records)| {
                held = held.saturating_add(records);
                held >= count
            });
            starts.extend(enough.map(|&(first, _)| first));
        }
        // Whichever of them it is: from there on at least so many follow.
        starts.into_iter().max().unwrap_or(1)
    }

    /// The next portion of a snapshot.
    ///
    /// # Errors
    /// What the operating system refuses; the same portion may be asked for again. Damage is a
    /// [`Problem`], and passed by.
    pub fn read_snapshot(
        &mut self,
        snapshot: &mut Snapshot,
        limits: Limits,
    ) -> Result<Shown, Error> {
        let mut shown = Shown::default();
        let from = snapshot.next;
        let mut seen_to = snapshot.end;
        if from <= snapshot.end && (snapshot.wants(Set::Pending) || snapshot.wants(Set::Sent)) {
            seen_to = self.show_row(snapshot, limits, &mut shown)?;
        }
        if from <= snapshot.end && snapshot.wants(Set::Rejected) {
            let rejected = self.rejected_but(&snapshot.unrejected, from, limits)?;
            // More may follow directly behind the last one, but not before it.
            if let Some(last) = rejected.last().filter(|last| last.record.seq < seen_to) {
                let known = rejected.len() < limits.records
                    && self
                        .rejected_but(
                            &snapshot.unrejected,
                            last.record.seq.saturating_add(1),
                            limits,
                        )?
                        .is_empty();
                if !known {
                    seen_to = last.record.seq;
                }
            }
            let rejected = rejected
                .into_iter()
                .filter(|r| r.record.seq <= snapshot.end && !snapshot.was_pending(r.record.seq));
            shown.entries.extend(rejected.map(|r| Entry {
                record: r.record,
                set: Set::Rejected,
                rejection: Some((r.reason, r.wall_ms)),
            }));
            shown.entries.retain(|entry| entry.record.seq <= seen_to);
            order::by_number(&mut shown.entries, |entry| entry.record.seq);
        }
        snapshot.next = seen_to.saturating_add(1);
        shown.done = snapshot.next > snapshot.end;
        Ok(shown)
    }

    /// Gives a snapshot back.
    pub fn end_snapshot(&mut self, snapshot: Snapshot) {
        self.unpin(snapshot.pin);
    }

    /// Shows pending and sent records from the snapshot's next number on; how far that came.
    fn show_row(
        &mut self,
        snapshot: &Snapshot,
        limits: Limits,
        shown: &mut Shown,
    ) -> Result<u64, Error> {
        let mut bytes = 0usize;
        let mut at = self.row.partition_point(|g| g.last < snapshot.next);
        // Pending numbers below this have been shown, or told as missing.
        let mut expected = snapshot.next;
        let full = |entries: &Vec<Entry>, bytes: usize| {
            entries.len() >= limits.records || bytes >= limits.bytes
        };
        // What was accepted since it was taken is shown as the rejected it was.
        let mut taken_since = self.unrejected.clone();
        for (from, to) in snapshot.unrejected.within(0, u64::MAX) {
            taken_since.remove(from, to);
        }
        while let Some(g) = self.row.get(at)
            && g.first <= snapshot.end
        {
            let (id, low, high) = (g.id, snapshot.next.max(g.first), g.last.min(snapshot.end));
            at = at.saturating_add(1);
            if low > high {
                continue;
            }
            self.turn_to(id);
            let Some(g) = self.row.get_mut(at.saturating_sub(1)) else { break };
            missing(snapshot, expected, low.saturating_sub(1), &mut shown.problems);
            expected = low;
            let path = g.path(&self.dir);
            let excluded = if g.role == Role::Sent { g.excluded.clone() } else { Vec::new() };
            let is_left_out = |seq: u64| {
                snapshot.settled.contains(seq)
                    || taken_since.contains(seq)
                    || excluded.iter().any(|&(from, to)| (from..=to).contains(&seq))
            };
            let mut stopped = None;
            let visited = g
                .store(&self.dir, self.options.cache_bytes, &mut Repairs::default())
                .and_then(|store| {
                    store.visit(low, high, high, &mut |seq, stored| {
                        if full(&shown.entries, bytes) {
                            stopped = Some(seq);
                            return Visit::Stop;
                        }
                        missing(snapshot, expected, seq.saturating_sub(1), &mut shown.problems);
                        expected = seq.saturating_add(1);
                        let set = if seq <= snapshot.cursor { Set::Sent } else { Set::Pending };
                        if is_left_out(seq) || !snapshot.wants(set) {
                            return Visit::Continue;
                        }
                        match record::decode(stored, seq).and_then(Decoded::to_record) {
                            Ok(record) => {
                                bytes = bytes.saturating_add(record.payload.len());
                                shown.entries.push(Entry { record, set, rejection: None });
                            }
                            Err(malformed) => shown.problems.push(Problem {
                                path: path.clone(),
                                from: seq,
                                to: seq,
                                what: malformed.to_string(),
                            }),
                        }
                        Visit::Continue
                    })
                });
            match visited {
                Ok(_) => {}
                Err(fault) if fault.is_damage() => {
                    let what = fault.text().to_owned();
                    shown.problems.push(Problem { path, from: expected, to: high, what });
                    expected = high.saturating_add(1);
                }
                Err(fault) => {
                    if let Some(g) = self.row.get_mut(at.saturating_sub(1)) {
                        g.close();
                    }
                    self.close_unused();
                    return Err(Error::engine("read from", &path, fault));
                }
            }
            self.close_unused();
            if let Some(seq) = stopped {
                return Ok(seq.saturating_sub(1));
            }
            if full(&shown.entries, bytes) {
                return Ok(high);
            }
        }
        missing(snapshot, expected, snapshot.end, &mut shown.problems);
        Ok(snapshot.end)
    }
}

/// Tells the numbers of a run that were pending and are not there.
fn missing(snapshot: &Snapshot, from: u64, to: u64, problems: &mut Vec<Problem>) {
    if from > to || !snapshot.wants(Set::Pending) {
        return;
    }
    let from = from.max(snapshot.cursor.saturating_add(1));
    for (from, to) in snapshot.settled.outside(from, to) {
        let what = "not there any more: damaged, or the reading took too long".to_owned();
        problems.push(Problem { path: "queue".into(), from, to, what });
    }
}
