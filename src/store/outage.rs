//! What is said, and how long is waited, while the queue's disk refuses.
//!
//! The first refusal is said in full: which path, why, and, when the disk is full, how many bytes
//! are missing. After that each doubling of the wait is a short line, until the longest wait is
//! reached; then the end of it, with how long it took and how many samples waited in memory.

use std::path::Path;
use std::time::{Duration, Instant};

use harborforge_storage::{Error, Room};

use super::chain;

/// Waits between two tries of a disk that refuses: doubling between these.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A disk that refuses, from the first refusal on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outage {
    since: Instant,
    wait: Duration,
    again_at: Instant,
}

/// What waits in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Samples.
    pub samples: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Samples that had to be dropped since the start.
    pub dropped: u64,
}

impl Outage {
    /// Takes note of a refusal and says what is worth saying about it.
    pub fn refused(
        before: Option<Self>,
        now: Instant,
        error: &Error,
        dir: &Path,
        held: Held,
    ) -> Self {
        let outage = Self::after(before, now);
        let retry_in = humantime::format_duration(outage.wait);
        if before.is_none() {
            let room = error.is_full().then(|| Room::look(dir, held.bytes)).flatten();
            tracing::error!(
                path = %dir.display(),
                error = %chain(error),
                free_bytes = room.map(|room| room.free),
                missing_bytes = room.map(|room| room.missing()),
                %retry_in,
                "the queue's disk refuses, samples are kept in memory meanwhile"
            );
        } else if outage.wait < RETRY.1 {
            tracing::error!(
                error = %chain(error),
                in_memory = held.samples,
                %retry_in,
                "the queue's disk still refuses"
            );
        }
        outage
    }

    fn after(before: Option<Self>, now: Instant) -> Self {
        let wait = before.map_or(RETRY.0, |before| (before.wait * 2).min(RETRY.1));
        Self { since: before.map_or(now, |before| before.since), wait, again_at: now + wait }
    }

    /// When the disk is asked again.
    pub fn again_at(&self) -> Instant {
        self.again_at
    }

    /// The queue could be opened; whether it takes samples is asked at once.
    pub fn ask_now(&mut self, now: Instant) {
        self.again_at = now;
    }

    /// Says that it is over; `waited` samples were in memory at the end.
    pub fn over(self, now: Instant, waited: usize, dropped: u64) {
        let took = Duration::from_secs(now.saturating_duration_since(self.since).as_secs());
        tracing::info!(
            after = %humantime::format_duration(took),
            waited,
            dropped,
            "the queue's disk takes samples again"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_the_beginning_is_kept() {
        let begun = Instant::now();
        let mut outage = Outage::after(None, begun);
        let mut now = begun;
        let mut waits = Vec::new();
        for _ in 0..8 {
            waits.push(outage.wait.as_millis());
            assert_eq!(outage.again_at(), now + outage.wait);
            now = outage.again_at();
            outage = Outage::after(Some(outage), now);
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(outage.since, begun);
        outage.ask_now(now);
        assert_eq!(Outage::after(Some(outage), now).since, begun);
    }
}
