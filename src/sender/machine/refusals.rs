//! Refused samples (docs/PROTOCOL.md 5), for both transports.
//!
//! Invariants: a sample refused by status is tried three times before it is moved, one rejected
//! by number is moved at once; the third refused sample in a row is not moved, nor is anything
//! after it, until the Monitor has accepted a probe: the fault is not theirs.

use super::QueueView;
use crate::protocol::{REFUSED_IN_A_ROW, TRIES_OF_A_REFUSED_SAMPLE};

/// What to do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Try the sample again.
    Again,
    /// Move it to the rejected.
    Move,
    /// Move nothing more; try the newest until one is accepted.
    Probe,
}

/// What is held against samples, or against the Monitor.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// The refused sample that is being tried again, and its tries so far.
    suspect: Option<(u64, u32)>,
    in_a_row: u32,
    probing: bool,
    /// The newest sample, for this `next`, is no longer pending: the oldest is the probe.
    newest_gone: Option<u64>,
}

impl Refusals {
    /// A sample sent alone was refused.
    pub(super) fn refused(&mut self, seq: u64) -> Verdict {
        if self.probing {
            return Verdict::Again;
        }
        let before = self.suspect.filter(|(suspect, _)| *suspect == seq);
        let tries = before.map_or(1, |(_, tries)| tries.saturating_add(1));
        self.suspect = Some((seq, tries));
        if tries < TRIES_OF_A_REFUSED_SAMPLE {
            return Verdict::Again;
        }
        self.suspect = None;
        self.rejected()
    }

    /// A sample was rejected by its number, which is final at once.
    pub(super) fn rejected(&mut self) -> Verdict {
        self.in_a_row += 1;
        if self.probing || self.in_a_row >= REFUSED_IN_A_ROW {
            self.probing = true;
            return Verdict::Probe;
        }
        Verdict::Move
    }

    /// Whether one more rejected sample in a row would be too many.
    pub(super) fn one_more_is_too_many(&self) -> bool {
        self.probing || self.in_a_row + 1 >= REFUSED_IN_A_ROW
    }

    /// The Monitor takes samples: everything held against it, or against samples, is void. Tells
    /// whether that ends a probe.
    pub(super) fn accepted(&mut self) -> bool {
        let probing = self.probing;
        *self = Self::default();
        probing
    }

    /// Whether only a probe is to be sent.
    pub(super) fn probing(&self) -> bool {
        self.probing
    }

    /// The number of the probe.
    pub(super) fn probe(&self, queue: QueueView) -> u64 {
        if self.newest_gone == Some(queue.next) { queue.head } else { queue.next.saturating_sub(1) }
    }

    /// The probe was not pending any more; false when there is none left to try.
    pub(super) fn probe_gone(&mut self, queue: QueueView) -> bool {
        self.probing && self.newest_gone.replace(queue.next) != Some(queue.next)
    }
}
