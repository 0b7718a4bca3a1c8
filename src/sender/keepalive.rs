//! Whether the other end of a link is still there (docs/PROTOCOL.md 4): a Ping when it has been
//! silent, and the verdict when that changes nothing.
//!
//! Pure: times go in. Invariant: a link is called dead only when nothing was heard for
//! [`SILENCE_LIMIT`] *and* a Ping has been out for [`PING_GRACE`], so neither a suspended machine
//! nor a late wake-up kills a link that was not asked.

use std::time::Duration;

use crate::protocol::{PING_GRACE, SILENCE_LIMIT};

/// What was heard on one link, and asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    heard: Duration,
    /// The first Ping since something was heard.
    pinged: Option<Duration>,
}

impl Keepalive {
    /// The link has just been opened.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self { heard: now, pinged: None }
    }

    /// A frame came, of whatever kind.
    pub fn heard(&mut self, now: Duration) {
        *self = Self::new(now);
    }

    /// A Ping was sent, for whatever reason.
    pub fn pinged(&mut self, now: Duration) {
        self.pinged.get_or_insert(now);
    }

    /// Whether a Ping is to be sent to break the silence.
    #[must_use]
    pub fn ping_due(&self, now: Duration) -> bool {
        self.pinged.is_none() && self.ping_at() <= now
    }

    /// Whether the link is dead and to be dropped.
    #[must_use]
    pub fn dead(&self, now: Duration) -> bool {
        self.dead_at().is_some_and(|at| at <= now)
    }

    /// When [`ping_due`](Self::ping_due) or [`dead`](Self::dead) will say yes if nothing is heard.
    #[must_use]
    pub fn next_deadline(&self) -> Duration {
        self.dead_at().unwrap_or_else(|| self.ping_at())
    }

    fn ping_at(&self) -> Duration {
        self.heard + SILENCE_LIMIT.saturating_sub(PING_GRACE)
    }

    fn dead_at(&self) -> Option<Duration> {
        self.pinged.map(|pinged| (pinged + PING_GRACE).max(self.heard + SILENCE_LIMIT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn silence_is_broken_at_30_seconds_and_deadly_at_45() {
        let mut link = Keepalive::new(s(100));
        assert_eq!(link.next_deadline(), s(130));
        assert!(!link.ping_due(s(129)) && link.ping_due(s(130)));
        link.pinged(s(130));
        assert!(!link.ping_due(s(140)), "once is enough");
        assert_eq!(link.next_deadline(), s(145));
        assert!(!link.dead(s(144)) && link.dead(s(145)));
        link.heard(s(144));
        assert!(!link.dead(s(188)));
        assert_eq!(link.next_deadline(), s(174));
    }

    #[test]
    fn a_link_that_was_not_asked_is_not_dead() {
        let mut link = Keepalive::new(s(0));
        // The machine was suspended for an hour.
        assert!(!link.dead(s(3600)) && link.ping_due(s(3600)));
        link.pinged(s(3600));
        assert!(!link.dead(s(3614)) && link.dead(s(3615)));
    }

    #[test]
    fn pings_for_other_reasons_count() {
        let mut link = Keepalive::new(s(0));
        link.pinged(s(2));
        link.pinged(s(40));
        assert!(!link.ping_due(s(44)));
        assert!(link.dead(s(45)), "the first of them has been out for long");
    }
}
