//! Reading: records of a set in order of their numbers, in bounded portions.
//!
//! Where a pending record cannot be read its generation's raw bytes are searched for it, and what
//! is not found becomes a gap, durably; among the sent and rejected ones nothing is owed any more, so a record that cannot be read is left out.

use crate::engine::{Fault, Visit};
use crate::error::Error;
use crate::manifest::Role;
use crate::mend::Repairs;
use crate::order;
use crate::queue::Queue;
use crate::ranges::RangeSet;
use crate::record::{self, Decoded};
use crate::room::Need;
use crate::types::{Limits, Record, RejectedRecord, Set};

/// Broken generations one call deals with before it leaves the rest to the next.
const RESCUES: u32 = 8;

/// Records gathered under limits; the first always fits.
struct Portion<T> {
    limits: Limits,
    bytes: usize,
    items: Vec<T>,
}

impl<T> Portion<T> {
    fn new(limits: Limits) -> Self {
        Self { limits, bytes: 0, items: Vec::new() }
    }

    fn fits(&self, size: usize) -> bool {
        self.items.is_empty()
            || (self.items.len() < self.limits.records
                && self.bytes.saturating_add(size) <= self.limits.bytes)
    }

    fn is_full(&self) -> bool {
        !self.items.is_empty()
            && (self.items.len() >= self.limits.records || self.bytes >= self.limits.bytes)
    }

    fn push(&mut self, item: T, size: usize) {
        self.bytes = self.bytes.saturating_add(size);
        self.items.push(item);
    }
}

impl Portion<Record> {
    /// Takes off what came after the first `length` records.
    fn cut(&mut self, length: usize) {
        self.items.truncate(length);
        self.bytes = self.items.iter().map(|record| record.payload.len()).sum();
    }
}

/// How far a walk through one generation came.
enum Walk {
    /// The portion is full; go on at this number.
    Full,
    /// Everything asked for was seen; go on after it.
    Through,
}

impl Queue {
    /// Records of `set` from number `from` on, oldest first.
    ///
    /// At least one comes if there is one; an empty answer means that there is none at or above
    /// `from`. Numbers may be missing: settled otherwise, or unreadable.
    ///
    /// # Errors
    /// Only what the operating system refuses and what may work later (or an engine that is
    /// broken for good); damage is passed by.
    pub fn read(&mut self, set: Set, from: u64, limits: Limits) -> Result<Vec<Record>, Error> {
        match set {
            Set::Pending => self.with_room(Need::Out, |queue| queue.read_pending(from, limits)),
            Set::Sent => self.read_sent(from, limits),
            Set::Rejected => {
                let rejected = self.rejected(from, limits)?;
                Ok(rejected.into_iter().map(|rejected| rejected.record).collect())
            }
        }
    }

    fn read_pending(&mut self, from: u64, limits: Limits) -> Result<Vec<Record>, Error> {
        let mut portion = Portion::new(limits);
        let mut lost: Vec<(u64, u64)> = Vec::new();
        let mut seq = from.max(self.cursor.saturating_add(1));
        let mut failed = None;
        let mut retried = None;
        let mut rescues = 0;
        while seq < self.next_seq && !portion.is_full() {
            if let Some(end) = self.settled.end_of_run(seq) {
                seq = end.saturating_add(1);
                continue;
            }
            // The run of pending numbers that begins here.
            let last = self.next_seq.saturating_sub(1);
            let run_end =
                self.settled.within(seq, last).next().map_or(last, |(f, _)| f.saturating_sub(1));
            let Some(at) = self.owner_of(seq) else {
                let next = self.row.iter().map(|g| g.first).find(|&first| first > seq);
                let to = next.map_or(run_end, |first| run_end.min(first.saturating_sub(1)));
                lost.push((seq, to));
                seq = to.saturating_add(1);
                continue;
            };
            let to = self.row.get(at).map_or(run_end, |g| run_end.min(g.last));
            let before = portion.items.len();
            let mut missed = Vec::new();
            match self.walk(at, seq, to, &mut portion, &mut missed) {
                Ok(walk) => {
                    match self.rescue_missed(at, &missed, &mut rescues) {
                        Ok(false) => lost.append(&mut missed),
                        Ok(true) => {
                            // In order, so all of it again, from the generation in its place.
                            portion.cut(before);
                            continue;
                        }
                        Err(error) => {
                            // What can be read before the damage may go all the same.
                            let first = missed.first().map_or(seq, |&(from, _)| from);
                            portion.cut(portion.items.partition_point(|r| r.seq < first));
                            failed = Some(error);
                            break;
                        }
                    }
                    if matches!(walk, Walk::Full) {
                        break;
                    }
                    seq = to.saturating_add(1);
                    self.close_unused();
                }
                Err(fault) if fault.is_damage() => {
                    // The loop goes on with the generation in its place, or passes over its
                    // numbers, which are settled.
                    if let Err(error) = self.rescue(at, fault, &mut rescues) {
                        failed = Some(error);
                        break;
                    }
                }
                Err(fault) => {
                    // A database that met a write error may refuse to read as well until it is
                    // opened again; so once more, afresh.
                    let Some(g) = self.row.get_mut(at) else { break };
                    g.close();
                    if retried != Some(g.id) {
                        retried = Some(g.id);
                        seq = portion.items.last().map_or(seq, |last| last.seq.saturating_add(1));
                        continue;
                    }
                    failed = Some(Error::engine("read from", &g.path(&self.dir), fault));
                    break;
                }
            }
        }
        if !lost.is_empty() {
            self.lose(&lost);
        }
        self.close_unused();
        if let Some(last) = portion.items.last() {
            self.handed_out = self.handed_out.max(last.seq);
            return Ok(portion.items);
        }
        failed.map_or(Ok(Vec::new()), Err)
    }

    /// Quarantines generation `at` of the row, with what can be had of it in its place; not
    /// without end within one call.
    fn rescue(&mut self, at: usize, fault: Fault, rescues: &mut u32) -> Result<(), Error> {
        if *rescues >= RESCUES {
            let path = self.row.get(at).map_or_else(|| self.dir.clone(), |g| g.path(&self.dir));
            return Err(Error::engine("read from", &path, fault));
        }
        *rescues = rescues.saturating_add(1);
        self.quarantine(at, &fault)
    }

    /// Likewise if numbers it does not show lie in it all the same; whether that was so.
    fn rescue_missed(
        &mut self,
        at: usize,
        missed: &[(u64, u64)],
        rescues: &mut u32,
    ) -> Result<bool, Error> {
        if missed.is_empty() || !self.can_salvage(at, missed)? {
            return Ok(false);
        }
        let fault = Fault::Damaged("records in it cannot be read".to_owned());
        self.rescue(at, fault, rescues)?;
        Ok(true)
    }

    /// Reads the pending numbers `from..=to` of one generation.
    fn walk(
        &mut self,
        at: usize,
        from: u64,
        to: u64,
        portion: &mut Portion<Record>,
        lost: &mut Vec<(u64, u64)>,
    ) -> Result<Walk, Fault> {
        let Some(id) = self.row.get(at).map(|g| g.id) else { return Ok(Walk::Through) };
        self.turn_to(id);
        let (dir, cache) = (&self.dir, self.options.cache_bytes);
        let Some(g) = self.row.get_mut(at) else { return Ok(Walk::Through) };
        let mut sizes = Vec::new();
        let mut expected = from;
        let mut walk = Walk::Through;
        let store = g.store(dir, cache, &mut Repairs::default())?;
        let visited = store.visit(from, to, to, &mut |seq, bytes| {
            if portion.is_full() {
                walk = Walk::Full;
                return Visit::Stop;
            }
            let decoded = record::decode(bytes, seq);
            if let Ok(record) = &decoded
                && !portion.fits(record.payload.len())
            {
                walk = Walk::Full;
                return Visit::Stop;
            }
            if seq > expected {
                lost.push((expected, seq.saturating_sub(1)));
            }
            expected = seq.saturating_add(1);
            match decoded.and_then(Decoded::to_record) {
                Ok(record) => {
                    let size = record.payload.len();
                    sizes.push((seq, size));
                    portion.push(record, size);
                }
                Err(malformed) => {
                    tracing::debug!(seq, error = %malformed, "a record is damaged");
                    lost.push((seq, seq));
                }
            }
            Visit::Continue
        });
        for (seq, size) in sizes {
            g.note_size(seq, size);
        }
        visited?;
        if matches!(walk, Walk::Through) && expected <= to {
            lost.push((expected, to));
        }
        Ok(walk)
    }

    fn read_sent(&mut self, from: u64, limits: Limits) -> Result<Vec<Record>, Error> {
        let mut portion = Portion::new(limits);
        let mut at = self.row.partition_point(|g| g.last < from);
        while let Some(g) = self.row.get(at)
            && g.first <= self.cursor
            && !portion.is_full()
        {
            let id = g.id;
            self.turn_to(id);
            let Some(g) = self.row.get_mut(at) else { break };
            at = at.saturating_add(1);
            let to = g.last.min(self.cursor);
            let excluded = match g.role {
                Role::Sent => {
                    let mut set = RangeSet::default();
                    g.excluded.iter().for_each(|&(from, to)| set.insert(from, to));
                    set
                }
                Role::Pending | Role::Rejected => self.settled.clone(),
            };
            let path = g.path(&self.dir);
            let low = from.max(g.first);
            let visited = g
                .store(&self.dir, self.options.cache_bytes, &mut Repairs::default())
                .and_then(|store| {
                    store.visit(low, to, to, &mut |seq, bytes| {
                        if portion.is_full() {
                            return Visit::Stop;
                        }
                        if excluded.contains(seq) {
                            return Visit::Continue;
                        }
                        let Ok(stored) = record::decode(bytes, seq) else { return Visit::Continue };
                        let size = stored.payload.len();
                        if !portion.fits(size) {
                            portion.limits.bytes = 0;
                            return Visit::Stop;
                        }
                        if let Ok(record) = stored.to_record() {
                            portion.push(record, size);
                        }
                        Visit::Continue
                    })
                });
            match visited {
                Ok(_) => {}
                Err(fault) if fault.is_damage() => {
                    tracing::warn!(path = %path.display(), error = fault.text(), "delivered records cannot be read");
                }
                Err(fault) if portion.items.is_empty() => {
                    return Err(Error::engine("read from", &path, fault));
                }
                Err(_) => break,
            }
            self.close_unused();
        }
        Ok(portion.items)
    }

    /// Rejected records from number `from` on, in order of their numbers, with their reasons.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn rejected(&mut self, from: u64, limits: Limits) -> Result<Vec<RejectedRecord>, Error> {
        let unrejected = self.unrejected.clone();
        self.rejected_but(&unrejected, from, limits)
    }

    /// The same with all copies but those of these numbers.
    pub(crate) fn rejected_but(
        &mut self,
        unrejected: &RangeSet,
        from: u64,
        limits: Limits,
    ) -> Result<Vec<RejectedRecord>, Error> {
        // Rejections come in any order, so each generation gives its lowest ones and the lowest
        // of all are taken.
        let mut found: Vec<RejectedRecord> = Vec::new();
        // Below this number every generation has given all it holds.
        let mut ceiling = u64::MAX;
        for at in 0..self.rejects.len() {
            let wanted = self.rejects.get(at).filter(|g| g.last >= from && !g.is_empty());
            let Some(id) = wanted.map(|g| g.id) else { continue };
            self.turn_to(id);
            let Some(g) = self.rejects.get_mut(at) else { continue };
            let path = g.path(&self.dir);
            let (low, high) = (from.max(g.first), g.last);
            let mut portion = Portion::new(limits);
            let visited = g
                .store(&self.dir, self.options.cache_bytes, &mut Repairs::default())
                .and_then(|store| {
                    store.visit(low, high, high, &mut |seq, bytes| {
                        if portion.is_full() {
                            ceiling = ceiling.min(seq);
                            return Visit::Stop;
                        }
                        if unrejected.contains(seq) {
                            return Visit::Continue;
                        }
                        let decoded = record::decode(bytes, seq).ok();
                        if let Some(rejected) = decoded.and_then(Decoded::to_rejected) {
                            let size = rejected.record.payload.len();
                            if !portion.fits(size) {
                                ceiling = ceiling.min(seq);
                                return Visit::Stop;
                            }
                            portion.push(rejected, size);
                        }
                        Visit::Continue
                    })
                });
            match visited {
                Ok(_) => found.append(&mut portion.items),
                Err(fault) if fault.is_damage() => {
                    tracing::warn!(path = %path.display(), error = fault.text(), "rejected records cannot be read");
                }
                Err(fault) => return Err(Error::engine("read from", &path, fault)),
            }
            self.close_unused();
        }
        order::by_number(&mut found, |rejected| rejected.record.seq);
        found.dedup_by_key(|rejected| rejected.record.seq);
        let mut portion = Portion::new(limits);
        for rejected in found {
            let size = rejected.record.payload.len();
            if rejected.record.seq >= ceiling || portion.is_full() || !portion.fits(size) {
                break;
            }
            portion.push(rejected, size);
        }
        Ok(portion.items)
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
