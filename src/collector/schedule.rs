//! When samples are taken: a pure decision over a clock that is passed in.
//!
//! The clock is CLOCK_BOOTTIME ([`super::clock::since_boot`]), not the wall clock, which people
//! and NTP set, and not CLOCK_MONOTONIC, which stands still in suspend: after a suspend the slot
//! has long been due, so a sample is taken as soon as the process gets to ask again, and what
//! was slept through is counted instead of unknown. (A timer of the runtime runs on
//! CLOCK_MONOTONIC, so after a suspend it asks within what was left of its wait, which is at
//! most 1.5 intervals.)
//!
//! Invariants:
//! - The first sample is taken at once, so that a restart is seen early; what it says of the CPU
//!   is [`super::baseline`]'s. The slots follow at
//!   `start + phase + n * interval`, where `phase` lies in `[interval/2, 3*interval/2)` and comes
//!   from the seed alone: hosts that boot together do not sample in the same instant.
//! - Slots are computed from slots, never from when a sample happened to be taken: lateness does
//!   not add up, there is no drift.
//! - Two samples are never closer than half the interval in force at the later one.
//! - A slot that was missed, or that is less than half an interval away when a late sample is
//!   taken, is skipped and counted, never made up: samples after the first and skipped slots
//!   together are the slots there were.
//! - A new interval makes new slots from the last sample on, by the same rule; it brings no
//!   sample of its own.
//! - A wait is never longer than 1.5 intervals, even when the clock goes back (a process
//!   restored from a checkpoint): then the slots start anew from there.

use std::time::Duration;

use crate::jitter;

/// Shorter intervals count as this one, so that no caller's mistake makes a busy loop. (The
/// configuration allows 1 s to 1 h.)
pub const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Take a sample now. `skipped` is how many slots before the next one this sample stands for
    /// besides its own.
    Due {
        /// Slots that get no sample of their own.
        skipped: u64,
    },
    /// Nothing is due; ask again after this long.
    Wait(Duration),
}

/// The slots of one sampler. Times are read from a clock that no one sets, as the time since any
/// fixed moment; they are kept as nanoseconds, which last 584 years.
#[derive(Debug, Clone)]
pub struct Schedule {
    interval: u64,
    seed: u64,
    /// The last sample and the slot after it; `None` until the first sample.
    position: Option<Position>,
    skipped: u64,
}

#[derive(Debug, Clone, Copy)]
struct Position {
    last: u64,
    next: u64,
}

impl Schedule {
    /// A schedule whose first sample is due at the first [`Schedule::poll`]. Any seed will do;
    /// different seeds give evenly spread phases, even when they are consecutive numbers.
    #[must_use]
    pub fn new(interval: Duration, jitter_seed: u64) -> Self {
        Self { interval: nanoseconds(interval), seed: jitter_seed, position: None, skipped: 0 }
    }

    /// The interval in force.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_nanos(self.interval)
    }

    /// Slots skipped since the start.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Whether a sample is due at `now`; an answer of [`Decision::Due`] counts it as taken.
    pub fn poll(&mut self, now: Duration) -> Decision {
        let now = clock(now);
        let Some(Position { next, .. }) = self.position else {
            self.position = Some(self.slots_from(now));
            return Decision::Due { skipped: 0 };
        };
        if now < next {
            let wait = next - now;
            if wait <= self.longest_wait() {
                return Decision::Wait(Duration::from_nanos(wait));
            }
            // Only a clock that went back gets here.
            let position = self.slots_from(now);
            self.position = Some(position);
            return Decision::Wait(Duration::from_nanos(position.next.saturating_sub(now)));
        }
        let earliest = now.saturating_add(self.interval / 2);
        // At least 1, since `earliest` lies after `next`.
        let passed = (earliest - next).div_ceil(self.interval);
        let next = next.saturating_add(passed.saturating_mul(self.interval));
        self.position = Some(Position { last: now, next });
        let skipped = passed.saturating_sub(1);
        self.skipped = self.skipped.saturating_add(skipped);
        Decision::Due { skipped }
    }

    /// Changes the interval. The next sample is due at the first new slot at or after `now`; the
    /// same interval again changes nothing, so that reloads cannot put sampling off.
    pub fn set_interval(&mut self, now: Duration, interval: Duration) {
        let interval = nanoseconds(interval);
        if interval == self.interval {
            return;
        }
        self.interval = interval;
        if let Some(Position { last, .. }) = self.position {
            let mut position = self.slots_from(last);
            // Rounded up to a slot, so that a fleet that is reloaded together stays spread.
            let behind = clock(now).saturating_sub(position.next).div_ceil(interval);
            position.next = position.next.saturating_add(behind.saturating_mul(interval));
            self.position = Some(position);
        }
    }

    /// The position of a schedule whose first sample is taken at `start`.
    fn slots_from(&self, start: u64) -> Position {
        let jitter = clock(jitter::uniform(Duration::from_nanos(self.interval), self.seed));
        let phase = (self.interval / 2).saturating_add(jitter);
        Position { last: start, next: start.saturating_add(phase) }
    }

    fn longest_wait(&self) -> u64 {
        self.interval.saturating_add(self.interval.div_ceil(2))
    }
}

fn clock(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn nanoseconds(interval: Duration) -> u64 {
    clock(interval.max(MIN_INTERVAL))
}

#[cfg(test)]
mod tests;
