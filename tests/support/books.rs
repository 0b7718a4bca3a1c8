//! What the queue says when a daemon has ended, to be held against what the Monitor says.

use std::collections::{BTreeMap, BTreeSet};

use harborforge_monitor::Monitor;
use harborforge_storage::{LastSuccess, Limits, Queue, RejectedRecord};

/// The books of a queue.
#[derive(Debug)]
pub struct Books {
    /// Number of the last sample that is durable; as many were taken.
    pub sampled: u64,
    /// Samples that wait.
    pub pending: u64,
    /// Everything up to this number is settled.
    pub cursor: u64,
    /// Samples set aside, with the Monitor's reasons.
    pub rejected: Vec<RejectedRecord>,
    /// Runs of numbers given up.
    pub gaps: usize,
    /// The last confirmed sample.
    pub last_success: Option<LastSuccess>,
}

impl Books {
    /// Reads and closes a queue.
    pub fn read(mut queue: Queue) -> Self {
        let stats = queue.stats();
        let limits = Limits { records: usize::MAX, bytes: usize::MAX };
        let books = Self {
            sampled: stats.next_seq - 1,
            pending: stats.pending.records,
            cursor: stats.cursor,
            rejected: queue.rejected(1, limits).unwrap(),
            gaps: queue.gaps().len(),
            last_success: queue.last_success().cloned(),
        };
        queue.close().unwrap();
        books
    }

    /// Numbers of the samples set aside.
    pub fn rejected(&self) -> Vec<u64> {
        self.rejected.iter().map(|rejected| rejected.record.seq).collect()
    }

    /// Holds them against the Monitor's: nothing given up; what is settled was accepted or set
    /// aside; what was neither still waits; no number stands for two samples.
    pub fn agree_with(&self, monitor: &Monitor) {
        assert_eq!(self.gaps, 0, "{self:?}");
        assert_eq!(self.pending, self.sampled - self.cursor, "{self:?}");
        let aside: BTreeSet<u64> = self.rejected().into_iter().collect();
        let mut ids: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
        for accepted in monitor.accepted() {
            ids.entry(accepted.seq).or_default().insert(accepted.sample_id);
        }
        for seq in 1..=self.cursor {
            let accepted = ids.contains_key(&seq);
            assert!(accepted || aside.contains(&seq), "{seq} is lost: {self:?}");
        }
        for (seq, ids) in ids {
            assert!(seq <= self.sampled, "{seq} was accepted and never sampled: {self:?}");
            assert_eq!(ids.len(), 1, "{seq} was given out more than once: {ids:?}");
        }
    }
}
