//! Exponential backoff with full jitter (docs/PROTOCOL.md 8), one for each transport.
//!
//! Invariants: a delay is uniform in 0 to `min(cap, base * 2^failures)`, so no interval between
//! two tries exceeds the cap; only [`Backoff::reset`] makes it short again; it holds no clock and
//! no generator, the seed comes with the call.
//!
//! Source of the shape: M. Brooker, "Exponential Backoff And Jitter", 2015 ("full jitter").

use std::time::Duration;

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

/// A duration uniform in 0 to `ceiling`, drawn from a seed that is itself uniform in 64 bits.
#[must_use]
pub fn uniform(ceiling: Duration, seed: u64) -> Duration {
    // 128-bit product keeps the draw uniform without a division that rounds to a bias.
    let nanos = (ceiling.as_nanos() * u128::from(mix(seed))) >> 64;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Spreads a seed over all 64 bits, so that a caller's counter is as good a seed as random bytes
/// (the finaliser of SplitMix64, Steele, Lea and Flood 2014).
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CAP: Duration = Duration::from_secs(300);

    proptest! {
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
    fn delays_are_spread_over_the_whole_range() {
        // Ten bins over the ceiling: with 10,000 draws each holds about 1,000.
        let mut bins = [0u32; 10];
        for seed in 0..10_000 {
            let share = uniform(CAP, seed).as_secs_f64() / CAP.as_secs_f64();
            bins[(share * 10.0) as usize] += 1;
        }
        assert!(bins.iter().all(|n| (850..1150).contains(n)), "{bins:?}");
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
        assert!((0..2_000).all(|seed| backoff.clone().failed(seed) <= BACKOFF_BASE));
    }
}
