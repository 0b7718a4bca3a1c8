//! Rejected records that the receiver has taken after all.
//!
//! Nothing is removed record by record: the manifest lists the numbers whose rejected copies count
//! no more, and it is replaced as a whole, so a kill leaves a number either rejected or taken.
//! A generation goes when none of its copies counts. Without the manifest the list is empty, and
//! what was taken is shown as rejected again: offered once more, the receiver knows it by its
//! number and epoch.

use crate::engine::Visit;
use crate::error::Error;
use crate::generation::Generation;
use crate::manifest::Role;
use crate::mend::Repairs;
use crate::queue::Queue;
use crate::ranges::RangeSet;
use crate::record;
use crate::types::Tally;

impl Queue {
    /// Takes a record out of the rejected ones, durably: the receiver has accepted it now. It
    /// counts as delivered from then on, and is kept as such where its generation is.
    ///
    /// False, and nothing is done, for a number that is not among the rejected, or that the cursor
    /// has not passed yet: until then its copy keeps it from being delivered twice.
    ///
    /// # Errors
    /// What kept the note from the disk; the record stays rejected then.
    pub fn unreject(&mut self, seq: u64) -> Result<bool, Error> {
        if seq > self.cursor || self.unrejected.contains(seq) {
            return Ok(false);
        }
        let holders = self.copies_of(seq)?;
        if holders.is_empty() {
            return Ok(false);
        }
        let before = (self.unrejected.clone(), self.settled.clone());
        let owner = self.owner_of(seq);
        let excluded = owner.and_then(|at| Some(self.row.get(at)?.excluded.clone()));
        self.unrejected.insert(seq, seq);
        self.settled.remove(seq, seq);
        if let Some(g) = owner.and_then(|at| self.row.get_mut(at))
            && g.role == Role::Sent
        {
            let mut left_out = RangeSet::default();
            g.excluded.iter().for_each(|&(from, to)| left_out.insert(from, to));
            left_out.remove(seq, seq);
            g.excluded = left_out.within(0, u64::MAX).collect();
        }
        if let Err(error) = self.save_manifest() {
            (self.unrejected, self.settled) = before;
            if let (Some(g), Some(excluded)) = (owner.and_then(|at| self.row.get_mut(at)), excluded)
            {
                g.excluded = excluded;
            }
            return Err(error);
        }
        for (at, size) in holders {
            if let Some(g) = self.rejects.get_mut(at) {
                count_off(g, size);
            }
        }
        self.drop_taken();
        tracing::debug!(seq, "a rejected record was accepted");
        Ok(true)
    }

    /// Where the readable copies of a number lie, with their sizes.
    fn copies_of(&mut self, seq: u64) -> Result<Vec<(usize, u64)>, Error> {
        let mut holders = Vec::new();
        for (at, g) in self.rejects.iter_mut().enumerate() {
            if seq < g.first || seq > g.last {
                continue;
            }
            let path = g.path(&self.dir);
            let found = g
                .store(&self.dir, self.options.cache_bytes, &mut Repairs::default())
                .and_then(|store| store.get(seq));
            g.close_unless_appendable();
            match found {
                Ok(Some(bytes)) => {
                    if let Ok(decoded) = record::decode(&bytes, seq)
                        && decoded.rejection.is_some()
                    {
                        holders.push((at, decoded.payload.len() as u64));
                    }
                }
                Ok(None) => {}
                // A copy that cannot be read is not shown as rejected either.
                Err(fault) if fault.is_damage() => {}
                Err(fault) => return Err(Error::engine("read from", &path, fault)),
            }
        }
        Ok(holders)
    }

    /// Counts, at opening, the copies that the manifest says count no more.
    pub(crate) fn count_unrejected(&mut self) -> Result<(), Error> {
        for g in &mut self.rejects {
            let gone: Vec<_> = self.unrejected.within(g.first, g.last).collect();
            let path = g.path(&self.dir);
            for (from, to) in gone {
                let mut sizes = Vec::new();
                let visited = g
                    .store(&self.dir, self.options.cache_bytes, &mut Repairs::default())
                    .and_then(|store| {
                        store.visit(from, to, to, &mut |seq, bytes| {
                            let decoded = record::decode(bytes, seq).ok();
                            if let Some(copy) = decoded.filter(|copy| copy.rejection.is_some()) {
                                sizes.push(copy.payload.len() as u64);
                            }
                            Visit::Continue
                        })
                    });
                match visited {
                    Ok(_) => {}
                    // Found out again, and dealt with, when it is read or sealed.
                    Err(fault) if fault.is_damage() => {}
                    Err(fault) => return Err(Error::engine("read from", &path, fault)),
                }
                sizes.into_iter().for_each(|size| count_off(g, size));
            }
            g.close_unless_appendable();
        }
        Ok(())
    }

    /// Generations of rejected records go when none of their copies counts any more.
    pub(crate) fn drop_taken(&mut self) {
        let mut at = 0;
        while let Some(g) = self.rejects.get(at) {
            let taken = g.records > 0 && g.taken.records >= g.records;
            if !taken || g.last > self.cursor || self.is_pinned(g) {
                at = at.saturating_add(1);
                continue;
            }
            let g = self.rejects.remove(at);
            self.delete_directory(g);
            self.manifest_dirty = true;
        }
    }

    /// What of the list still speaks of a copy.
    pub(crate) fn listed_unrejected(&self) -> Vec<(u64, u64)> {
        let mut listed = RangeSet::default();
        for g in &self.rejects {
            for (from, to) in self.unrejected.within(g.first, g.last) {
                listed.insert(from, to);
            }
        }
        listed.within(0, u64::MAX).collect()
    }
}

impl Generation {
    /// The rejected records in it that count.
    pub(crate) fn rejected(&self) -> Tally {
        Tally {
            records: self.records.saturating_sub(self.taken.records),
            bytes: self.bytes.saturating_sub(self.taken.bytes),
        }
    }
}

fn count_off(g: &mut Generation, size: u64) {
    g.taken.records = g.taken.records.saturating_add(1);
    g.taken.bytes = g.taken.bytes.saturating_add(size);
}
