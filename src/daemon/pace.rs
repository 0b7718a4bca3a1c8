//! Something that is due every so often, whatever else happens in between.
//!
//! Invariant: looking when it is due postpones nothing; only doing it does. (A wait that begins
//! anew at each turn of a loop never ends while the loop is busy.)

use std::time::Duration;

/// When it is due; times are passed in, all by one clock.
#[derive(Debug)]
pub struct Pace {
    every: Duration,
    next: Duration,
}

impl Pace {
    /// Due for the first time `every` after `now`.
    pub fn new(every: Duration, now: Duration) -> Self {
        Self { every, next: now.saturating_add(every) }
    }

    /// How long there is to wait; zero when it is due.
    pub fn left(&self, now: Duration) -> Duration {
        self.next.saturating_sub(now)
    }

    /// It was done.
    pub fn done(&mut self, now: Duration) {
        self.next = now.saturating_add(self.every);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_in_between_postpones_nothing() {
        let at = Duration::from_secs;
        let mut pace = Pace::new(at(60), at(1000));
        // A loop that turns every five seconds.
        let due = (1000..2000).step_by(5).find(|now| pace.left(at(*now)).is_zero());
        assert_eq!(due, Some(1060));
        assert_eq!(pace.left(at(1100)), Duration::ZERO, "overdue is due");
        pace.done(at(1100));
        assert_eq!(pace.left(at(1101)), at(59));
    }
}
