//! How fast it goes, and how long it will take. Pure.

use std::collections::VecDeque;
use std::time::Duration;

/// The rate is that of the last so many seconds.
const OVER: Duration = Duration::from_secs(10);
/// Of them, not more than so many measurements are kept.
const MOST: usize = 64;

/// Measures how many samples are dealt with, at which times.
#[derive(Debug, Default)]
pub struct Pace {
    seen: VecDeque<(Duration, u64)>,
}

impl Pace {
    /// At this time so many were dealt with.
    pub fn note(&mut self, at: Duration, done: u64) {
        let spacing = OVER / (MOST as u32);
        // The newest replaces the one before when they lie close, so that the oldest stays.
        if self.seen.len() > 1
            && let Some(before) = self.seen.iter().rev().nth(1)
            && at.saturating_sub(before.0) < spacing
        {
            self.seen.pop_back();
        }
        self.seen.push_back((at, done));
        while self.seen.len() > 2 && self.seen.get(1).is_some_and(|(seen, _)| at - *seen >= OVER) {
            self.seen.pop_front();
        }
    }

    /// Samples a second; `None` until there is something to tell it by.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        let ((from, first), (to, last)) = (self.seen.front()?, self.seen.back()?);
        let seconds = to.saturating_sub(*from).as_secs_f64();
        (seconds > 0.0 && last > first).then(|| (last - first) as f64 / seconds)
    }

    /// Rate and time left as text, such as `512/s, 3s left`; empty when nothing moves.
    #[must_use]
    pub fn text(&self, left: u64) -> String {
        let Some(rate) = self.rate() else { return String::new() };
        let seconds = (left as f64 / rate).ceil();
        let rate = if rate < 10.0 { format!("{rate:.1}/s") } else { format!("{rate:.0}/s") };
        if !seconds.is_finite() || seconds > 1e9 {
            return rate;
        }
        let time = humantime::format_duration(Duration::from_secs(seconds as u64));
        format!("{rate}, {time} left")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_time_left_are_those_of_the_last_seconds() {
        let mut pace = Pace::default();
        assert_eq!(pace.text(100), "");
        let at = Duration::from_millis;
        for step in 0..=40 {
            pace.note(at(step * 500), step * 100);
        }
        assert_eq!(pace.text(1000), "200/s, 5s left");
        // It stands still: after a while nothing is said.
        for step in 41..=70 {
            pace.note(at(step * 500), 4000);
        }
        assert_eq!((pace.rate(), pace.text(10)), (None, String::new()));
        pace.note(at(36_000), 4001);
        assert!(pace.text(600).starts_with("0.1/s, 1h"), "{}", pace.text(600));
    }

    #[test]
    fn any_number_of_measurements_takes_little_room() {
        let mut pace = Pace::default();
        for step in 0..100_000u64 {
            pace.note(Duration::from_micros(step * 300), step);
            assert!(pace.seen.len() <= 2 * MOST, "{}", pace.seen.len());
        }
        let rate = pace.rate().unwrap();
        assert!((3300.0..3400.0).contains(&rate), "{rate}");
    }
}
