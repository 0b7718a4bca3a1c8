//! How far the own clock is from the Monitor's (docs/PROTOCOL.md 2).
//!
//! Pure. `Date` has whole seconds, so a skew below [`SKEW_TOLERANCE`] says nothing; beyond it the
//! proof carries the Monitor's time, since a wrong clock here would make every proof stale.

use std::time::{Duration, SystemTime};

use crate::protocol::SKEW_TOLERANCE;

/// The skew last measured: what has to be added to the own clock to get the Monitor's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skew {
    /// Milliseconds; positive when the own clock is behind.
    pub millis: i64,
}

impl Skew {
    /// Compares the `Date` of an answer with the own clock when it arrived.
    #[must_use]
    pub fn measure(theirs: SystemTime, ours: SystemTime) -> Self {
        let millis = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        let millis = match theirs.duration_since(ours) {
            Ok(behind) => millis(behind),
            Err(ahead) => -millis(ahead.duration()),
        };
        Self { millis }
    }

    /// Whether the skew is beyond what a `Date` of whole seconds and a slow line explain.
    #[must_use]
    pub fn matters(self) -> bool {
        u128::from(self.millis.unsigned_abs()) > SKEW_TOLERANCE.as_millis()
    }

    /// Whether to call the clock wrong, after it was called so or not: a skew near the tolerance
    /// must not change the verdict with every answer.
    #[must_use]
    pub fn is_wrong(self, before: bool) -> bool {
        const SLACK: u128 = 1_000;
        let least = SKEW_TOLERANCE.as_millis() - if before { SLACK } else { 0 };
        u128::from(self.millis.unsigned_abs()) > least
    }

    /// The time for a proof: the Monitor's when the skew matters, else the own.
    #[must_use]
    pub fn correct(self, ours: SystemTime) -> SystemTime {
        if !self.matters() {
            return ours;
        }
        let by = Duration::from_millis(self.millis.unsigned_abs());
        let corrected = if self.millis >= 0 { ours.checked_add(by) } else { ours.checked_sub(by) };
        corrected.filter(|at| *at >= SystemTime::UNIX_EPOCH).unwrap_or(ours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_small_skew_is_left_alone_and_a_large_one_corrected_both_ways() {
        assert_eq!(Skew::measure(at(1_005), at(1_000)).correct(at(2_000)), at(2_000));
        assert_eq!(Skew::measure(at(1_006), at(1_000)).correct(at(2_000)), at(2_006));
        assert_eq!(Skew::measure(at(1_000), at(1_006)).correct(at(2_000)), at(1_994));
        let years = Skew::measure(at(1_773_262_800), at(0));
        assert_eq!(years.correct(at(10)), at(1_773_262_810));
    }

    #[test]
    fn the_verdict_does_not_flap() {
        let skew = |millis| Skew { millis };
        assert!(!skew(5_000).is_wrong(false) && skew(5_001).is_wrong(false));
        assert!(skew(-4_001).is_wrong(true) && !skew(-4_000).is_wrong(true));
    }

    #[test]
    fn a_correction_to_before_the_epoch_is_not_made() {
        assert_eq!(Skew { millis: i64::MIN }.correct(at(1)), at(1));
    }
}
