//! A model of the durable queue: numbers, sizes and times instead of bytes. All of it survives a
//! restart.

use std::collections::BTreeSet;
use std::time::Duration;

use harborforge_connector::jitter;
use harborforge_connector::sender::machine::QueueView;

/// Numbers that are in a set, for months of samples.
#[derive(Debug, Default)]
pub struct Numbers(Vec<u64>);

impl Numbers {
    /// False when it was there before.
    pub fn insert(&mut self, seq: u64) -> bool {
        let (word, bit) = ((seq / 64) as usize, 1 << (seq % 64));
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    pub fn contains(&self, seq: u64) -> bool {
        self.0.get((seq / 64) as usize).is_some_and(|word| word & (1 << (seq % 64)) != 0)
    }
}

#[derive(Debug)]
pub struct Queue {
    /// Everything up to here is settled.
    cursor: u64,
    /// The number the next sample gets.
    next: u64,
    /// Rejected numbers beyond the cursor.
    rejected: BTreeSet<u64>,
    /// When each number became durable, the first at index 0.
    appended: Vec<Duration>,
    /// Largest size of a sample in bytes.
    largest: usize,
}

impl Queue {
    pub fn new(largest: usize) -> Self {
        Self { cursor: 0, next: 1, rejected: BTreeSet::new(), appended: Vec::new(), largest }
    }

    pub fn append(&mut self, now: Duration) {
        self.appended.push(now);
        self.next += 1;
    }

    pub fn next(&self) -> u64 {
        self.next
    }

    pub fn head(&self) -> u64 {
        self.cursor + 1
    }

    pub fn is_empty(&self) -> bool {
        self.head() >= self.next
    }

    pub fn view(&self) -> QueueView {
        QueueView { head: self.head(), next: self.next }
    }

    pub fn is_rejected(&self, seq: u64) -> bool {
        self.rejected.contains(&seq)
    }

    pub fn is_pending(&self, seq: u64) -> bool {
        seq > self.cursor && seq < self.next && !self.is_rejected(seq)
    }

    /// When a sample became durable.
    pub fn appended(&self, seq: u64) -> Option<Duration> {
        self.appended.get(seq.checked_sub(1)? as usize).copied()
    }

    pub fn size(&self, seq: u64) -> usize {
        let draw = jitter::spread(seq) as usize;
        // Now and then one of the largest.
        if draw.is_multiple_of(16) {
            self.largest
        } else {
            300 + draw % (self.largest - 300).max(1)
        }
    }

    /// Pending samples from `from` on with their sizes, below `end`.
    pub fn read(&self, from: u64, end: u64, records: usize, bytes: usize) -> Vec<(u64, usize)> {
        let mut found = Vec::new();
        let mut sum = 0;
        for seq in from.max(self.head())..end {
            if self.is_rejected(seq) {
                continue;
            }
            let size = self.size(seq);
            sum += size;
            if found.len() == records || (sum > bytes && !found.is_empty()) {
                break;
            }
            found.push((seq, size));
        }
        found
    }

    pub fn acknowledge(&mut self, up_to: u64) {
        self.cursor = self.cursor.max(up_to);
        self.rejected = self.rejected.split_off(&(self.cursor + 1));
        self.pass_rejected();
    }

    pub fn reject(&mut self, seq: u64) {
        if self.is_pending(seq) {
            self.rejected.insert(seq);
            self.pass_rejected();
        }
    }

    /// Gives up the oldest samples, as a full queue does.
    pub fn give_up(&mut self, samples: u64) {
        let up_to = (self.cursor + samples).min(self.next - 1);
        self.acknowledge(up_to);
    }

    fn pass_rejected(&mut self) {
        while self.rejected.remove(&(self.cursor + 1)) {
            self.cursor += 1;
        }
    }
}
