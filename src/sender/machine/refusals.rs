//! Refused samples (docs/PROTOCOL.md 5), for both transports.
//!
//! Invariants: a sample refused by status is tried three times before it is moved, and never on
//! the word of a Monitor whose key may have changed meanwhile; one rejected by number is moved at
//! once; the third refused sample in a row is not moved, nor is anything
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
    suspect: Option<Suspect>,
    in_a_row: u32,
    probing: bool,
    /// The newest sample, for this `next`, is no longer pending: the oldest is the probe.
    newest_gone: Option<u64>,
}

/// A refused sample that is being tried again.
#[derive(Debug, Clone, Copy)]
struct Suspect {
    seq: u64,
    tries: u32,
    /// The Monitor's key was read again since the first of the tries.
    key_read: bool,
}

impl Refusals {
    /// A sample sent alone was refused. `old_key`: what is refused may be the proof it came with,
    /// since a Monitor that has changed its key cannot read that.
    pub(super) fn refused(&mut self, seq: u64, old_key: bool) -> Verdict {
        if self.probing {
            return Verdict::Again;
        }
        let suspect = self.suspect.filter(|suspect| suspect.seq == seq);
        let mut suspect = suspect.unwrap_or(Suspect { seq, tries: 0, key_read: false });
        suspect.tries = suspect.tries.saturating_add(1);
        self.suspect = Some(suspect);
        if suspect.tries < TRIES_OF_A_REFUSED_SAMPLE || old_key {
            return Verdict::Again;
        }
        self.suspect = None;
        self.rejected()
    }

    /// Whether what is sent now and refused may be refused for an old key.
    pub(super) fn key_may_be_old(&self) -> bool {
        self.suspect.is_some_and(|suspect| !suspect.key_read)
    }

    /// The key was read: what is sent from now on is not refused for an old one.
    pub(super) fn key_read(&mut self) {
        if let Some(suspect) = &mut self.suspect {
            suspect.key_read = true;
        }
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
