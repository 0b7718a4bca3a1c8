//! Spreading in time, pure: seeds go in, durations come out (leaf).
//!
//! Many servers do the same thing at the same moment (a Monitor comes back, a data centre boots);
//! what keeps them apart is a uniform draw. The seeds come from the caller, so decisions stay
//! repeatable.

use std::time::Duration;

/// A duration uniform in 0 to `ceiling`, drawn from a seed; consecutive seeds are as good as
/// random ones.
#[must_use]
pub fn uniform(ceiling: Duration, seed: u64) -> Duration {
    // The upper half of a 128-bit product: uniform without a division's bias. 64 bits of
    // nanoseconds are 584 years, more than any ceiling needs.
    let ceiling = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
    let nanos = (u128::from(ceiling) * u128::from(spread(seed))) >> 64;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Spreads a seed over all 64 bits (the finaliser of SplitMix64: Steele, Lea and Flood, "Fast
/// splittable pseudorandom number generators", 2014).
#[must_use]
pub fn spread(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_spread_over_the_whole_range() {
        // Ten bins over the ceiling: with 10,000 draws each holds about 1,000.
        let ceiling = Duration::from_secs(300);
        let mut bins = [0u32; 10];
        for seed in 0..10_000 {
            let share = uniform(ceiling, seed).as_secs_f64() / ceiling.as_secs_f64();
            bins[(share * 10.0) as usize] += 1;
        }
        assert!(bins.iter().all(|n| (850..1150).contains(n)), "{bins:?}");
    }

    #[test]
    fn the_longest_durations_do_not_overflow() {
        assert!(uniform(Duration::MAX, u64::MAX) <= Duration::MAX);
        assert_eq!(uniform(Duration::ZERO, 7), Duration::ZERO);
    }
}
