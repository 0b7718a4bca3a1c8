//! When a replay gives up. Pure.

use std::time::Duration;

/// Failed tries in a row after which it ends.
pub const TRIES: u64 = 3;

/// Time without any progress after which it ends.
pub const WITHIN: Duration = Duration::from_secs(60);

/// Watches progress and failures.
#[derive(Debug)]
pub struct Patience {
    since: Duration,
    settled: u64,
    failures: u64,
}

impl Patience {
    /// Begins now, with so many samples dealt with and so many failures counted.
    #[must_use]
    pub fn new(now: Duration, settled: u64, failures: u64) -> Self {
        Self { since: now, settled, failures }
    }

    /// How many failures there were since the last progress, which is noticed here.
    pub fn failures(&mut self, now: Duration, settled: u64, failures: u64) -> u64 {
        if settled != self.settled {
            *self = Self { since: now, settled, failures };
        }
        failures.saturating_sub(self.failures)
    }

    /// Whether it is at its end, or would be after waiting for so long.
    #[must_use]
    pub fn is_over(&self, now: Duration, wait: Duration, failures: u64) -> bool {
        failures >= TRIES || now.saturating_add(wait) >= self.since.saturating_add(WITHIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn three_failures_in_a_row_or_a_minute_of_nothing() {
        let mut patience = Patience::new(at(0), 10, 5);
        assert_eq!(patience.failures(at(1), 10, 7), 2);
        assert!(!patience.is_over(at(1), at(0), 2));
        assert!(patience.is_over(at(1), at(0), 3));
        assert_eq!(patience.failures(at(30), 11, 7), 0, "progress starts over");
        assert!(!patience.is_over(at(89), at(0), 0));
        assert!(patience.is_over(at(90), at(0), 0));
        assert!(patience.is_over(at(31), at(60), 1), "a wait beyond it is not begun");
    }
}
