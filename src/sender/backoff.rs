//! Exponential backoff with full jitter (docs/PROTOCOL.md 8), one for each transport.
//!
//! Invariants: a delay is uniform in 0 to `min(cap, base * 2^failures)`, so no interval between
//! two tries exceeds the cap; only [`Backoff::reset`] makes it short again; it holds no clock and
//! no generator, the seed comes with the call.
//!
//! Source of the shape: M. Brooker, "Exponential Backoff And Jitter", 2015 ("full jitter").

use std::time::Duration;

use crate::jitter::uniform;
use crate::protocol::BACKOFF_BASE;

/// How often in a row a transport has failed, and what that means for the next try.
#[derive(Debug, Clone)]
pub struct Backoff {
    failures: u32,
    cap: Duration,
}

impl Backoff {
    /// A backoff that has seen no failure; no delay will exceed `cap`.
    #[must_use]
    pub fn new(cap: Duration) -> Self {
        Self { failures: 0, cap }
    }

    /// Failures since the last success.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Counts a failure and gives the delay before the next try.
    pub fn failed(&mut self, seed: u64) -> Duration {
        let factor = 1u32.checked_shl(self.failures.min(31)).unwrap_or(u32::MAX);
        let ceiling = BACKOFF_BASE.saturating_mul(factor).min(self.cap);
        self.failures = self.failures.saturating_add(1);
        uniform(ceiling, seed)
    }

    /// The wait before the next try was drawn from 0 to `spread` by another rule: the steps that
    /// follow double from there, so that many who were spread do not crowd together again.
    pub fn follow(&mut self, spread: Duration) {
        while self.failures < 31 && BACKOFF_BASE.saturating_mul(1 << self.failures) < spread {
            self.failures += 1;
        }
    }

    /// A success: the next failure starts from the base again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// A new cap, from a reloaded configuration; the failures seen still count.
    pub fn set_cap(&mut self, cap: Duration) {
        self.cap = cap;
    }

    /// The longest delay there can be.
    #[must_use]
    pub fn cap(&self) -> Duration {
        self.cap
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::FileFailurePersistence;

    const CAP: Duration = Duration::from_secs(300);

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
            ..ProptestConfig::default()
        })]
        #[test]
        fn no_delay_exceeds_the_cap_or_its_step(failures in 0u32..100, seed: u64) {
            let mut backoff = Backoff::new(CAP);
            for i in 0..failures {
                backoff.failed(u64::from(i));
            }
            let delay = backoff.failed(seed);
            prop_assert!(delay <= CAP);
            if failures < 8 {
                prop_assert!(delay <= BACKOFF_BASE * (1 << failures));
            }
        }
    }

    #[test]
    fn the_ceiling_doubles_until_the_cap_and_a_reset_starts_over() {
        let mut backoff = Backoff::new(CAP);
        let mut seen = Vec::new();
        for _ in 0..12 {
            // The largest of many draws from the same step shows its ceiling.
            let ceiling =
                (0..2_000).map(|seed| backoff.clone().failed(seed)).max().unwrap().as_secs_f64();
            seen.push(ceiling.ceil() as u64);
            backoff.failed(0);
        }
        assert_eq!(seen, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        backoff.reset();
        backoff.follow(Duration::from_secs(30));
        assert_eq!(backoff.failures(), 5, "the next ceiling is 32 s");
        backoff.reset();
        assert!((0..2_000).all(|seed| backoff.clone().failed(seed) <= BACKOFF_BASE));
    }
}
