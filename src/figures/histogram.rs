//! Latencies in fixed exponential buckets. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Upper bounds of the buckets in microseconds, each four times the one before: a fast disk's
/// sync lies in the first, an outage of more than an hour beyond the last.
const BOUNDS: [u64; 13] = [
    250,
    1_000,
    4_000,
    16_000,
    64_000,
    256_000,
    1_024_000,
    4_096_000,
    16_384_000,
    65_536_000,
    262_144_000,
    1_048_576_000,
    4_194_304_000,
];

/// Counts durations.
#[derive(Debug, Default)]
pub struct Histogram {
    /// By bucket, not added up.
    counts: [u64; BOUNDS.len()],
    beyond: u64,
    sum_micros: u64,
}

/// What was counted up to a bound.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// The bound in seconds.
    pub le: f64,
    /// Durations up to it, those of the smaller buckets included.
    pub count: u64,
}

/// A histogram as it is told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The buckets, each with what is below it.
    pub buckets: Vec<Bucket>,
    /// All durations, those beyond the last bound included.
    pub count: u64,
    /// Their sum in seconds.
    pub sum_seconds: f64,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = BOUNDS.partition_point(|bound| *bound < micros);
        *self.counts.get_mut(at).unwrap_or(&mut self.beyond) += 1;
        self.sum_micros = self.sum_micros.saturating_add(micros);
    }

    /// What has been counted.
    #[must_use]
    pub fn read(&self) -> Latency {
        let mut count = 0;
        let buckets = BOUNDS.iter().zip(&self.counts).map(|(bound, own)| {
            count += own;
            Bucket { le: Duration::from_micros(*bound).as_secs_f64(), count }
        });
        let buckets = buckets.collect();
        let sum_seconds = Duration::from_micros(self.sum_micros).as_secs_f64();
        Latency { buckets, count: count + self.beyond, sum_seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_all_are_added_up() {
        let mut histogram = Histogram::default();
        for micros in [0, 250, 251, 4_194_304_000, 4_194_304_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        histogram.observe(Duration::MAX);
        let read = histogram.read();
        let counts: Vec<u64> = read.buckets.iter().map(|bucket| bucket.count).collect();
        assert_eq!(counts, [2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4]);
        assert_eq!(read.count, 6);
        assert!((read.buckets[0].le - 0.000_25).abs() < 1e-12);
    }
}
