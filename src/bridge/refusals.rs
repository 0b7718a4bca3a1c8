//! When the log tells of pushes that were refused.
//!
//! Invariants:
//! - There is one line in [`EVERY`] at most, with the number of those since the line before.
//! - That it is over is told once, after [`EVERY`] without a refusal: one plugin that does well
//!   beside one that does not makes no line at each turn.

use std::time::Duration;

/// Between two lines.
pub const EVERY: Duration = Duration::from_secs(300);

/// What was refused and told; times are passed in, all by one clock.
#[derive(Debug, Default)]
pub struct Refusals {
    told: Option<Duration>,
    last: Option<Duration>,
    untold: u64,
}

impl Refusals {
    /// A push was refused at `now`; how many that makes since the last line, if it is time for one.
    pub fn refused(&mut self, now: Duration) -> Option<u64> {
        self.last = Some(now);
        self.untold = self.untold.saturating_add(1);
        if self.told.is_some_and(|at| now.saturating_sub(at) < EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }

    /// A push was accepted at `now`; whether the end of refusals is to be told.
    pub fn accepted(&mut self, now: Duration) -> bool {
        let over = self.last.is_some_and(|at| now.saturating_sub(at) >= EVERY);
        if over {
            *self = Self::default();
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_and_a_bad_plugin_make_a_line_in_five_minutes() {
        let at = Duration::from_secs;
        let mut refusals = Refusals::default();
        assert!(!refusals.accepted(at(0)));
        let mut lines = Vec::new();
        for now in (10..=700).step_by(10) {
            if let Some(count) = refusals.refused(at(now)) {
                lines.push((now, count));
            }
            assert!(!refusals.accepted(at(now + 5)), "the bad one goes on");
        }
        assert_eq!(lines, [(10, 1), (310, 30), (610, 30)]);
        assert!(!refusals.accepted(at(999)));
        assert!(refusals.accepted(at(1000)), "the last was at 700");
        assert!(!refusals.accepted(at(1001)), "told once");
        assert_eq!(refusals.refused(at(1002)), Some(1), "a new row");
    }
}
