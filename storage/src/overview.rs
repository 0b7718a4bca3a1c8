//! The figures of a queue that no process has open.
//!
//! What the manifest tells of a closed generation is believed; only what it does not tell (the
//! newest generation, the one the cursor stands in, one with gaps in it) is read, a portion at a
//! time.

use crate::ballast;
use crate::error::Error;
use crate::files;
use crate::inspect::{Entry, Inspector};
use crate::manifest::Role;
use crate::quarantine::{QUARANTINE, set_aside_name};
use crate::record;
use crate::types::{LastSuccess, Record, Set, Stamp, Tally};

/// The figures of a queue at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    /// Records waiting for confirmation.
    pub pending: Tally,
    /// When the oldest of them was made; none if none waits.
    pub oldest_pending: Option<Stamp>,
    /// The number the next record gets, at least.
    pub next_seq: u64,
    /// Confirmed records still kept.
    pub sent: Tally,
    /// Rejected records kept.
    pub rejected: u64,
    /// Generations in quarantine.
    pub quarantined: u64,
    /// What the queue takes on disk, quarantine included; without the ballast.
    pub disk_bytes: u64,
    /// The last confirmed record, where it is still there.
    pub last_success: Option<LastSuccess>,
}

impl Inspector {
    /// The figures of this queue. What cannot be read counts as nothing and is listed in
    /// [`problems`](Self::problems).
    ///
    /// # Errors
    /// What the operating system refuses.
    pub fn overview(&mut self) -> Result<Overview, Error> {
        let (mut pending, mut sent) = (Tally::default(), Tally::default());
        let mut oldest: Option<(u64, Stamp)> = None;
        for at in 0..self.row.len() {
            let Some(g) = self.row.get(at) else { continue };
            let (first, last) = (g.first, g.last);
            let tally = Tally { records: g.records, bytes: g.bytes };
            let whole = g.sealed
                && g.excluded.is_empty()
                && self.settled.count_within(first, last) == 0
                && g.records == last.saturating_add(1).saturating_sub(first);
            let delivered = g.role == Role::Sent || last <= self.cursor;
            if whole && delivered {
                add(&mut sent, tally);
                continue;
            }
            if let (true, true, Some(stamp)) = (whole, first > self.cursor, g.first_stamp) {
                add(&mut pending, tally);
                keep_older(&mut oldest, first, stamp);
                continue;
            }
            let to = match self.row.get(at.saturating_add(1)) {
                _ if g.sealed => last,
                Some(next) => next.first.saturating_sub(1),
                None => u64::MAX,
            };
            for entry in self.records(&[Set::Pending, Set::Sent], first..=to) {
                let Entry { record, set, .. } = entry?;
                let one = Tally { records: 1, bytes: record.payload.len() as u64 };
                if set == Set::Sent {
                    add(&mut sent, one);
                } else {
                    add(&mut pending, one);
                    keep_older(&mut oldest, record.seq, record.stamp);
                }
            }
        }
        let highest = self.row.iter().map(|g| g.last).max().unwrap_or(0);
        let ballast = files::disk_usage(&self.dir.join(ballast::NAME));
        let aside = files::names(&self.dir.join(QUARANTINE)).unwrap_or_default();
        let aside = aside.iter().filter(|(name, _)| set_aside_name(name).is_some());
        Ok(Overview {
            pending,
            oldest_pending: oldest.map(|(_, stamp)| stamp),
            next_seq: highest.max(self.mark).saturating_add(1).max(self.floor),
            sent,
            rejected: self.rejected_count(),
            quarantined: aside.count() as u64,
            disk_bytes: files::disk_usage(&self.dir).saturating_sub(ballast),
            last_success: self.last_success()?,
        })
    }

    /// From the copy made when its generation went, else from the generation.
    fn last_success(&mut self) -> Result<Option<LastSuccess>, Error> {
        let Some((seq, at)) = self.confirmed else { return Ok(None) };
        let copy = files::read_if_there(&self.dir.join("last-success")).ok().flatten();
        let copied: Option<Record> = copy
            .as_deref()
            .and_then(|bytes| record::decode(bytes, seq).and_then(record::Decoded::to_record).ok());
        let record = match copied {
            Some(record) => Some(record),
            None => self.records(&[Set::Sent], seq..=seq).next().transpose()?.map(|e| e.record),
        };
        Ok(record.map(|record| LastSuccess { record, at }))
    }
}

fn add(sum: &mut Tally, more: Tally) {
    sum.records = sum.records.saturating_add(more.records);
    sum.bytes = sum.bytes.saturating_add(more.bytes);
}

fn keep_older(oldest: &mut Option<(u64, Stamp)>, seq: u64, stamp: Stamp) {
    if oldest.is_none_or(|(known, _)| seq < known) {
        *oldest = Some((seq, stamp));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Confirmation, NewRecord, Options};
    use crate::{Queue, Set};

    fn stamp(wall_ms: u64) -> Stamp {
        Stamp { wall_ms, boot_ms: wall_ms, boot_id: [1; 16] }
    }

    /// Closed generations, one half delivered, a rejected record, gaps: as the queue itself says
    /// it when it is open.
    #[test]
    fn it_says_what_the_open_queue_says() {
        let dir = tempfile::tempdir().unwrap();
        let options = || Options { generation_max_records: 16, ..Options::default() };
        for round in 0..8u64 {
            let (mut queue, _) = Queue::open(dir.path(), options(), stamp(1 + round)).unwrap();
            for number in 0..10 {
                let now = stamp(1000 * (10 * round + number + 1));
                queue.append(&[NewRecord { stamp: now, payload: b"payload" }]).unwrap();
                queue.maintain(now).unwrap();
            }
            let at = Confirmation { wall_ms: 77, tag: 1 };
            let now = stamp(1000 * (10 * round + 10));
            match round {
                2 => queue.acknowledge(3, at).unwrap(),
                3 => queue.reject(4, "no", now).unwrap(),
                5 => queue.acknowledge(21, at).unwrap(),
                6 => queue.reject(40, "no", now).unwrap(),
                _ => {}
            }
            queue.maintain(now).unwrap();
            let (stats, success) = (queue.stats(), queue.last_success().cloned());
            queue.close().unwrap();
            let mut inspector = Inspector::open(dir.path()).unwrap();
            let seen = inspector.overview().unwrap();
            assert_eq!(seen.pending, stats.pending, "round {round}");
            assert_eq!(seen.oldest_pending, stats.oldest_pending, "round {round}");
            assert_eq!(seen.next_seq, stats.next_seq, "round {round}");
            assert_eq!(seen.sent.records, stats.sent.records, "round {round}");
            assert_eq!(seen.rejected, stats.rejected.records, "round {round}");
            assert_eq!(seen.last_success, success, "round {round}");
            assert_eq!(inspector.problems(), &[], "round {round}");
            assert!(seen.disk_bytes > 0);
            let read = inspector.records(&[Set::Pending], 1..=u64::MAX).count() as u64;
            assert_eq!(read, seen.pending.records);
        }
    }
}
