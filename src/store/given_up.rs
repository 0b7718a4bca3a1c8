//! The log of what the queue gave up for a bound.

use std::ops::RangeInclusive;

/// How often samples were given up for one bound, and how many they were.
///
/// Told are the first time and then the 10th, 100th, ...: a queue at its bound gives up its oldest
/// again and again. Every gap is listed, said or not.
#[derive(Debug)]
pub(super) struct GivenUp {
    /// The key of the configuration that is reached.
    bound: &'static str,
    times: u64,
    samples: u64,
}

impl GivenUp {
    pub(super) fn new(bound: &'static str) -> Self {
        Self { bound, times: 0, samples: 0 }
    }

    pub(super) fn tell(&mut self, lost: &[RangeInclusive<u64>]) {
        for lost in lost {
            self.times += 1;
            self.samples += lost.end().saturating_sub(*lost.start()) + 1;
            if 10u64.checked_pow(self.times.ilog10()) == Some(self.times) {
                tracing::warn!(
                    from = lost.start(),
                    to = lost.end(),
                    given_up = self.samples,
                    "{} reached, the oldest samples were given up",
                    self.bound
                );
            }
        }
    }
}
