//! Reading: records of a set in order of their numbers, in bounded portions.
//!
//! A record that cannot be read is passed by. Among the pending ones it becomes a gap, durably;
//! among the sent and rejected ones nothing is owed any more, so it is only left out.

use crate::engine::{Fault, Visit};
use crate::error::Error;
use crate::manifest::Role;
use crate::mend::Repairs;
use crate::queue::Queue;
use crate::ranges::RangeSet;
use crate::record::{self, Decoded};
use crate::room::Need;
use crate::types::{Limits, Record, RejectedRecord, Set};

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
            match self.walk(at, seq, to, &mut portion, &mut lost) {
                Ok(Walk::Full) => break,
                Ok(Walk::Through) => {
                    seq = to.saturating_add(1);
                    self.close_unused();
                }
                Err(fault) if fault.is_damage() => {
                    // Its numbers are settled by that, so the loop passes over them.
                    if let Err(error) = self.quarantine(at, &fault) {
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

    /// Reads the pending numbers `from..=to` of one generation.
    fn walk(
        &mut self,
        at: usize,
        from: u64,
        to: u64,
        portion: &mut Portion<Record>,
        lost: &mut Vec<(u64, u64)>,
    ) -> Result<Walk, Fault> {
        let (dir, cache) = (&self.dir, self.options.cache_bytes);
        let Some(g) = self.row.get_mut(at) else { return Ok(Walk::Through) };
        self.reading = Some(g.id);
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
            match decoded {
                Ok(record) => {
                    sizes.push((seq, record.payload.len()));
                    portion.push(record.to_record(), record.payload.len());
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
        while let Some(g) = self.row.get_mut(at)
            && g.first <= self.cursor
            && !portion.is_full()
        {
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
            self.reading = Some(g.id);
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
                        let Ok(record) = record::decode(bytes, seq) else { return Visit::Continue };
                        if !portion.fits(record.payload.len()) {
                            portion.limits.bytes = 0;
                            return Visit::Stop;
                        }
                        portion.push(record.to_record(), record.payload.len());
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
        // Rejections come in any order, so each generation gives its lowest ones and the lowest
        // of all are taken.
        let mut found: Vec<RejectedRecord> = Vec::new();
        // Below this number every generation has given all it holds.
        let mut ceiling = u64::MAX;
        for at in 0..self.rejects.len() {
            let Some(g) = self.rejects.get_mut(at) else { continue };
            if g.last < from || g.is_empty() {
                continue;
            }
            self.reading = Some(g.id);
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
        found.sort_by_key(|rejected| rejected.record.seq);
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
