//! What is known of a queue from outside: which numbers were appended, delivered, rejected, as the
//! children said; and whether what is found in the queue agrees.
//!
//! A child says what it is about to do before it does it, and that it is done after the call has
//! returned. So whatever ends it, at most one step is in doubt, and only of that step either
//! outcome is accepted.

use std::collections::{BTreeMap, BTreeSet};

use harborforge_storage::*;

use super::worker::{self, Report};
use super::*;

/// The books of one queue.
#[derive(Debug, Clone, Default)]
pub struct Books {
    /// By number: the run of the child that appended it, as reported or found.
    appended: BTreeMap<u64, u64>,
    /// The epoch of each run.
    epochs: BTreeMap<u64, Uuid>,
    delivered: BTreeSet<u64>,
    /// About to be delivered; not reported yet.
    delivering: BTreeSet<u64>,
    /// Were about to be when a child ended.
    in_doubt: BTreeSet<u64>,
    rejected: BTreeSet<u64>,
    rejecting: BTreeSet<u64>,
    /// May be lost: a file that holds it was damaged on purpose.
    damaged: BTreeSet<u64>,
    /// Numbers seen in gaps because the queue was full.
    evicted: BTreeSet<u64>,
    /// Steps that failed were tried again: a record may then be kept as rejected twice, and is
    /// counted, but not listed, as two.
    pub tried_again: bool,
}

impl Books {
    /// Enters what a child said.
    pub fn enter(&mut self, report: &Report, what: &str) {
        match *report {
            Report::Appended(run, from, to) => {
                for number in from..=to {
                    let before = self.appended.insert(number, run);
                    assert!(before.is_none(), "{what}: number {number} is used again");
                }
            }
            Report::Delivering(from, to) => self.delivering.extend(from..=to),
            Report::Delivered => {
                self.in_doubt = self.in_doubt.difference(&self.delivering).copied().collect();
                self.delivered.append(&mut self.delivering);
            }
            Report::Rejecting(number) => drop(self.rejecting.insert(number)),
            Report::Rejected(number) => drop(self.rejected.insert(number)),
            Report::Damaging(from, to) => self.damaged.extend(from..=to),
            Report::Finished => {}
        }
    }

    /// A child has ended: what it was about to do may be done or not.
    pub fn ended(&mut self) {
        self.in_doubt.append(&mut self.delivering);
    }

    pub fn delivered(&self) -> usize {
        self.delivered.len()
    }

    pub fn evicted(&self) -> usize {
        self.evicted.len()
    }

    pub fn damaged(&self) -> usize {
        self.damaged.len()
    }

    pub fn rejected(&self) -> usize {
        self.rejected.len()
    }

    /// Compares with a queue that was just opened, and takes over how the step in doubt went out.
    pub fn check(&mut self, queue: &mut Queue, report: &OpenReport, what: &str) {
        self.ended();
        for range in &report.missing {
            for number in range.clone() {
                assert!(self.damaged.contains(&number), "{what}: {number} is missing: {report:?}");
            }
        }
        let records = queue.read(Set::Pending, 0, ALL).unwrap();
        self.check_contents(&records, what);
        let refused = queue.rejected(0, ALL).unwrap();
        let refused: BTreeSet<u64> = refused.iter().map(|r| r.record.seq).collect();
        let pending: BTreeSet<u64> = records.iter().map(|r| r.seq).collect();
        assert_eq!(pending.len(), records.len(), "{what}: a number twice");
        let stats = queue.stats();
        let last = stats.next_seq - 1;
        let gaps = self.check_gaps(queue.gaps(), last, what);

        let highest = self.appended.keys().next_back().copied().unwrap_or(0);
        assert!(last >= highest, "{what}: number {highest} would be used again");
        for number in 1..=last {
            let places = [
                pending.contains(&number),
                refused.contains(&number),
                gaps.contains(&number),
                self.delivered.contains(&number),
            ];
            let in_doubt = self.in_doubt.contains(&number) && number <= stats.cursor;
            match places.iter().filter(|&&place| place).count() {
                1 => {}
                0 if in_doubt => {}
                _ => panic!(
                    "{what}: {number} is pending, rejected, in a gap, delivered: {places:?}; \
                     {stats:?}, {report:?}, {:?}",
                    queue.gaps()
                ),
            }
            assert_eq!(pending.contains(&number), number > stats.cursor && places[0], "{what}");
        }
        for number in &self.rejected {
            assert!(refused.contains(number), "{what}: the rejected {number} is not kept");
        }
        for number in &refused {
            assert!(self.rejecting.contains(number), "{what}: nobody rejected {number}");
        }

        assert_eq!(stats.pending.records, records.len() as u64, "{what}");
        let bytes: usize = records.iter().map(|r| r.payload.len()).sum();
        assert_eq!(stats.pending.bytes, bytes as u64, "{what}");
        let copies = stats.rejected.records;
        let kept = refused.len() as u64;
        assert!(copies == kept || (self.tried_again && copies > kept), "{what}: {copies}, {kept}");

        let doubted = std::mem::take(&mut self.in_doubt);
        self.delivered
            .extend(doubted.into_iter().filter(|&n| n <= stats.cursor && !gaps.contains(&n)));
        self.rejected.extend(refused);
        let success = queue.last_success().map(|success| success.record.seq);
        let expected = self.delivered.last().copied();
        let may_be_gone = expected.is_some_and(|number| self.damaged.contains(&number));
        assert!(
            success == expected || may_be_gone,
            "{what}: last success {success:?}, {expected:?}"
        );
    }

    fn check_contents(&mut self, records: &[Record], what: &str) {
        for record in records {
            let Some(run) = worker::run_of(record) else {
                panic!("{what}: {} is not what was appended", record.seq);
            };
            let reported = *self.appended.entry(record.seq).or_insert(run);
            assert_eq!(reported, run, "{what}: {} is another run's", record.seq);
            let epoch = *self.epochs.entry(run).or_insert(record.epoch);
            assert_eq!(epoch, record.epoch, "{what}: {} is of another opening", record.seq);
        }
        let epochs: BTreeSet<_> = self.epochs.values().collect();
        assert_eq!(epochs.len(), self.epochs.len(), "{what}: two openings share an epoch");
    }

    fn check_gaps(&mut self, gaps: &[Gap], last: u64, what: &str) -> BTreeSet<u64> {
        let mut all = BTreeSet::new();
        for gap in gaps {
            for number in gap.from..=gap.to {
                assert!(number <= last && all.insert(number), "{what}: {gap:?}");
                match gap.reason {
                    GapReason::QueueFull => drop(self.evicted.insert(number)),
                    GapReason::Corrupt => {
                        assert!(self.damaged.contains(&number), "{what}: {number} is lost");
                    }
                    GapReason::Expired => panic!("{what}: nothing expires here: {gap:?}"),
                }
            }
        }
        for number in &self.evicted {
            assert!(all.contains(number), "{what}: the gap at {number} is forgotten");
        }
        all
    }
}
