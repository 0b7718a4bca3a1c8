//! The proven clock: how much time has passed, as far as the queue has proof of it.
//!
//! Ages decide what is given up or deleted, and the wall clock is no proof: it may be set by
//! years either way. Pure; the moments come from the caller.
//!
//! Invariants:
//! - It never runs faster than time does. Within one boot it grows by the time since boot. From
//!   one boot to the next it grows by the uptime of the new one, but by no more than the wall
//!   clocks are apart: files that were moved to another machine, which has been up for years,
//!   are no older for that. Time switched off has no proof and does not count.
//! - It never runs backwards, and nothing is counted twice.
//! - Whatever is not known (a boot without an id, files that were lost) makes things younger,
//!   never older: what it says of a moment it cannot place is "now".
//!
//! It is kept in the manifest, beside the times that were read from it, so that the two are lost
//! together. Where it begins is of no importance; it begins with the uptime, so that every moment
//! of that boot can be placed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::Stamp;

/// A reading of the clock, and when it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reading {
    /// Milliseconds of proven time.
    pub(crate) proven_ms: u64,
    pub(crate) at: Stamp,
}

impl Reading {
    /// When `stamp` was, if it is of the same boot.
    fn place(&self, stamp: &Stamp) -> Option<u64> {
        (known(stamp) && stamp.boot_id == self.at.boot_id).then(|| {
            let after = stamp.boot_ms.saturating_sub(self.at.boot_ms);
            let before = self.at.boot_ms.saturating_sub(stamp.boot_ms);
            self.proven_ms.saturating_add(after).saturating_sub(before)
        })
    }
}

/// The clock of one opening of the queue.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    now: Reading,
    /// The last reading of the boot before, by which moments of it are placed.
    before: Option<Reading>,
}

impl Clock {
    /// Goes on from the stored reading, if there is one.
    pub(crate) fn resume(stored: Option<Reading>, now: Stamp) -> Self {
        let Some(last) = stored else {
            return Self { now: Reading { proven_ms: now.boot_ms, at: now }, before: None };
        };
        if let Some(proven_ms) = last.place(&now) {
            let mut clock = Self { now: last, before: None };
            clock.now.proven_ms = proven_ms.max(last.proven_ms);
            clock.now.at = Stamp { boot_ms: now.boot_ms.max(last.at.boot_ms), ..now };
            return clock;
        }
        let uptime = if known(&now) && known(&last.at) {
            now.boot_ms.min(now.wall_ms.saturating_sub(last.at.wall_ms))
        } else {
            0
        };
        let proven_ms = last.proven_ms.saturating_add(uptime);
        Self { now: Reading { proven_ms, at: now }, before: Some(last) }
    }

    /// A record of the boot before shows that it lasted longer than the last reading says.
    pub(crate) fn learn(&mut self, stamp: &Stamp) {
        let Some(last) = self.before.as_mut() else { return };
        if known(stamp) && stamp.boot_id == last.at.boot_id {
            let more = stamp.boot_ms.saturating_sub(last.at.boot_ms);
            last.at.boot_ms = last.at.boot_ms.saturating_add(more);
            last.proven_ms = last.proven_ms.saturating_add(more);
            self.now.proven_ms = self.now.proven_ms.saturating_add(more);
        }
    }

    /// The time has come to `now`. What lies back, or is of another boot, changes nothing.
    pub(crate) fn advance(&mut self, now: &Stamp) {
        // Within one opening an unknown boot is the same one.
        if now.boot_id == self.now.at.boot_id && now.boot_ms >= self.now.at.boot_ms {
            let passed = now.boot_ms.saturating_sub(self.now.at.boot_ms);
            self.now = Reading { proven_ms: self.now.proven_ms.saturating_add(passed), at: *now };
        }
    }

    /// Milliseconds of proven time.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now.proven_ms
    }

    /// The reading to be stored.
    pub(crate) fn reading(&self) -> Reading {
        self.now
    }

    /// When `stamp` was, not later than now; now if that is not known.
    pub(crate) fn place(&self, stamp: &Stamp) -> u64 {
        let before = self.before.as_ref().and_then(|last| last.place(stamp));
        let placed = self.now.place(stamp).or(before);
        placed.map_or(self.now.proven_ms, |at| at.min(self.now.proven_ms))
    }
}

/// A duration as the clock counts.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn known(stamp: &Stamp) -> bool {
    stamp.boot_id != [0; 16]
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: u64 = 365 * 86_400_000;

    fn stamp(boot: u8, boot_ms: u64, wall_ms: u64) -> Stamp {
        Stamp { wall_ms, boot_ms, boot_id: [boot; 16] }
    }

    /// Milliseconds from one moment to another, the queue closed in between.
    fn passed(from: Stamp, to: Stamp) -> u64 {
        let clock = Clock::resume(None, from);
        Clock::resume(Some(clock.reading()), to).now_ms() - clock.now_ms()
    }

    #[test]
    fn within_a_boot_only_the_time_since_boot_counts() {
        let then = stamp(1, 5_000, 50 * YEAR);
        for wall in [0, 49 * YEAR, 50 * YEAR, 90 * YEAR, u64::MAX] {
            assert_eq!(passed(then, stamp(1, 65_000, wall)), 60_000, "wall {wall}");
            let mut clock = Clock::resume(None, then);
            clock.advance(&stamp(1, 65_000, wall));
            assert_eq!(clock.now_ms(), 65_000, "wall {wall}");
        }
        assert_eq!(passed(then, stamp(1, 4_000, 50 * YEAR)), 0, "a machine taken back");
    }

    #[test]
    fn over_a_reboot_the_new_uptime_counts_and_time_switched_off_does_not() {
        let then = stamp(1, 900_000, YEAR);
        assert_eq!(passed(then, stamp(2, 20_000, YEAR + 86_400_000)), 20_000);
        assert_eq!(passed(then, stamp(2, 20_000, 60 * YEAR)), 20_000, "a jump forward");
        assert_eq!(passed(then, stamp(2, 20_000, 0)), 0, "a jump back");
        assert_eq!(passed(then, stamp(2, 3 * YEAR, YEAR + 5_000)), 5_000, "another machine");
    }

    #[test]
    fn an_unknown_boot_counts_only_while_the_queue_is_open() {
        let then = stamp(0, 900_000, YEAR);
        assert_eq!(passed(then, stamp(0, 980_000, 2 * YEAR)), 0);
        assert_eq!(passed(then, stamp(2, 980_000, 2 * YEAR)), 0);
        assert_eq!(passed(stamp(2, 900_000, YEAR), stamp(0, 980_000, 2 * YEAR)), 0);
        let mut clock = Clock::resume(None, then);
        let began = clock.now_ms();
        clock.advance(&stamp(0, 980_000, 0));
        assert_eq!(clock.now_ms() - began, 80_000);
        assert_eq!(clock.place(&then), clock.now_ms(), "it may be of any boot");
    }

    #[test]
    fn nothing_is_counted_twice() {
        let mut clock = Clock::resume(None, stamp(1, 10_000, 0));
        for boot_ms in [20_000, 15_000, 20_000, 12_000, 21_000] {
            clock.advance(&stamp(1, boot_ms, 0));
        }
        clock.advance(&stamp(2, 50_000, YEAR));
        assert_eq!(clock.now_ms(), 21_000);
    }

    #[test]
    fn moments_of_this_boot_and_of_the_one_before_are_placed() {
        let stored = Clock::resume(None, stamp(1, 100_000, YEAR)).reading();
        let mut clock = Clock::resume(Some(stored), stamp(2, 30_000, 2 * YEAR));
        assert_eq!(clock.now_ms(), 130_000);
        assert_eq!(clock.place(&stamp(1, 90_000, 0)), 90_000);
        assert_eq!(clock.place(&stamp(2, 20_000, 0)), 120_000);
        assert_eq!(clock.place(&stamp(2, 99_000, 0)), 130_000, "not later than now");
        assert_eq!(clock.place(&stamp(3, 5, 0)), 130_000);
        // A record written after the last reading: the boot before lasted longer.
        clock.learn(&stamp(1, 160_000, 0));
        assert_eq!(clock.now_ms(), 190_000);
        assert_eq!(clock.place(&stamp(1, 160_000, 0)), 160_000);
        assert_eq!(clock.place(&stamp(2, 20_000, 0)), 180_000);
        clock.learn(&stamp(1, 150_000, 0));
        clock.learn(&stamp(3, 950_000, 0));
        assert_eq!(clock.now_ms(), 190_000);
    }

    #[test]
    fn without_a_stored_reading_this_boot_is_known_and_no_other() {
        let clock = Clock::resume(None, stamp(2, 30_000, YEAR));
        assert_eq!(clock.place(&stamp(2, 10_000, 0)), 10_000);
        assert_eq!(clock.place(&stamp(1, 10_000, 0)), 30_000);
    }
}
