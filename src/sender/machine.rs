//! The link machine: decides what is tried next, and what an answer does to the queue.
//!
//! Pure: [`Machine::handle`] takes the time, one event and a seed and returns commands. It reads
//! no clock, opens no socket and draws no randomness, so tests walk it through years of bad
//! network in virtual time. It knows numbers of samples, never their bytes.
//!
//! Invariants:
//! - [`Command::Acknowledge`] is given only for what a Monitor said is stored, and never beyond
//!   the last sample that was sent.
//! - A sample leaves the pending queue otherwise only through [`Command::Reject`], after the
//!   tries docs/PROTOCOL.md 5 asks for, and never when three in a row were refused: then the
//!   fault is not theirs.
//! - At most one request is under way; answers to any other attempt than the current one are
//!   ignored.
//! - Every failure is followed by a wait: no answer, however hostile, makes a busy loop. The one
//!   exception is a refused batch, which is halved at once, and so at most
//!   log2([`BATCH_RECORDS`]) times.
//! - Samples go oldest first; only a probe (three refused in a row) sends the
//!   newest.
//!
//! Source of the rules: docs/PROTOCOL.md 2, 5, 7 and 8.

use std::time::{Duration, SystemTime};

use super::backoff::Backoff;
use super::classify::Outcome;
use crate::jitter::uniform;
use crate::protocol::{
    BATCH_BYTES, BATCH_ENVELOPE, BATCH_RECORDS, Capabilities, KEY_REFETCH_INTERVAL,
    REFUSED_IN_A_ROW, Rejection, TRIES_OF_A_REFUSED_SAMPLE,
};

/// The time, as far as decisions need it.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Since the machine's start, never backwards: all waits are measured in it.
    pub mono: Duration,
    /// The host's idea of the date; only reported, never waited by.
    pub wall: SystemTime,
}

/// Names one try, so that a late answer to an earlier one is recognised.
pub type Attempt = u64;

/// What the queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueView {
    /// Number of the oldest pending sample; equal to `next` when there is none.
    pub head: u64,
    /// Number the next sample will get.
    pub next: u64,
}

/// What the configuration says about sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Whether heartbeats are proved with the Monitor's key (mode `challenge`).
    pub proved: bool,
    /// Longest wait between two tries.
    pub backoff_cap: Duration,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The time of the last [`Command::WakeAt`] has come.
    Tick,
    /// The queue has changed.
    Queue(QueueView),
    /// The key document was fetched and its key accepted, or not.
    Key {
        /// The try this answers.
        attempt: Attempt,
        /// What the Monitor offers, or what went wrong.
        result: Result<Capabilities, Failure>,
    },
    /// A heartbeat came to an end.
    Answer {
        /// The try this answers.
        attempt: Attempt,
        /// How it ended.
        result: Answered,
    },
    /// The configuration was reloaded.
    Settings(Settings),
    /// Other credentials are in force from now on.
    Credentials,
    /// Another Monitor is to be used from now on: what is known of the old one is void.
    Endpoint,
    /// The operator, or the network coming up, asks to try now.
    TryNow,
    /// The daemon stops: start nothing more.
    Shutdown,
}

/// How a heartbeat ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// The queue had nothing to send after all; nothing was sent.
    NothingToSend,
    /// No answer came, or nothing could be sent.
    Failed(Failure),
    /// The Monitor answered.
    Got {
        /// Numbers of the samples sent, ascending; one for a single heartbeat.
        sent: Vec<u64>,
        /// What the answer means.
        outcome: Outcome,
    },
}

/// What kind of failure it was; the log speaks once of each kind in an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The Monitor was not reached, or the connection broke.
    Unreachable,
    /// The key document or its key is not usable.
    Key,
    /// The Monitor answered, but neither took nor refused the sample.
    Answer,
    /// The Monitor asks to wait.
    Busy,
    /// The Monitor does not accept this server (challenge, key, identifier).
    NotAccepted,
    /// The Monitor refuses the sample itself.
    Unacceptable,
    /// The queue, or the making of the request, failed on this side.
    Local,
}

/// A failure: its kind, and the words for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind it was.
    pub kind: FailureKind,
    /// What happened, for people.
    pub reason: String,
}

/// Which samples a heartbeat carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// The oldest pending sample numbered `from` or higher, alone.
    Single {
        /// Lowest number wanted.
        from: u64,
    },
    /// The oldest pending samples from `from` on.
    Batch {
        /// Lowest number wanted.
        from: u64,
        /// Samples at most.
        records: usize,
        /// Bytes of encoded samples at most.
        bytes: usize,
    },
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Fetch the key document; answer with [`Event::Key`].
    FetchKey {
        /// The try's name.
        attempt: Attempt,
    },
    /// Send a heartbeat; answer with [`Event::Answer`].
    Post {
        /// The try's name.
        attempt: Attempt,
        /// What it carries.
        selection: Selection,
    },
    /// Everything up to and including this number is stored at the Monitor.
    Acknowledge {
        /// Last number that is stored.
        up_to: u64,
    },
    /// Move one sample to the rejected.
    Reject {
        /// Its number.
        seq: u64,
        /// The Monitor's reason.
        reason: String,
    },
    /// Call again with [`Event::Tick`] at this monotonic time, unless something happens before.
    WakeAt(Duration),
    /// Something the operator may want to know.
    Report(Report),
    /// Shutdown is complete: nothing is under way.
    Finished,
}

/// A change worth a log line or a place in `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A try failed; the next one is `retry_in` away.
    Failed {
        /// What went wrong.
        failure: Failure,
        /// Until the next try.
        retry_in: Duration,
    },
    /// Samples were delivered.
    Delivered,
    /// Three samples in a row were refused: nothing more is moved, the newest is the probe.
    Probing {
        /// The Monitor's reason for the last of them.
        reason: String,
    },
    /// The Monitor takes samples again after a probe.
    ProbeAccepted,
    /// A refused batch is tried again with fewer samples.
    BatchHalved {
        /// Samples in the next batch at most.
        records: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnderWay {
    Key,
    Post { probe: bool },
}

/// The machine. See the module's invariants.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    queue: QueueView,
    attempts: Attempt,
    under_way: Option<(Attempt, UnderWay)>,
    /// The credentials or the Monitor changed while a request was under way: its failure says
    /// nothing about the new ones.
    outdated: bool,
    stopping: bool,
    backoff: Backoff,
    not_before: Duration,
    capabilities: Option<Capabilities>,
    key_suspect: bool,
    key_fetched: Option<Duration>,
    batch_limit: usize,
    /// The refused sample that is being tried again, and its tries so far.
    suspect: Option<(u64, u32)>,
    refused_in_a_row: u32,
    probing: bool,
    /// The newest sample, for this `next`, is no longer pending: the oldest is the probe.
    newest_gone: Option<u64>,
}

impl Machine {
    /// A machine that has seen nothing yet; it starts with the first [`Event::Queue`].
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            queue: QueueView { head: 0, next: 0 },
            attempts: 0,
            under_way: None,
            outdated: false,
            stopping: false,
            backoff: Backoff::new(settings.backoff_cap),
            not_before: Duration::ZERO,
            capabilities: None,
            key_suspect: false,
            key_fetched: None,
            batch_limit: BATCH_RECORDS,
            suspect: None,
            refused_in_a_row: 0,
            probing: false,
            newest_gone: None,
        }
    }

    /// Takes one event and tells what to do about it. `seed` is uniform in 64 bits and fresh for
    /// every call.
    pub fn handle(&mut self, now: Now, event: Event, seed: u64) -> Vec<Command> {
        let mut out = Vec::new();
        match event {
            Event::Tick => {}
            Event::Queue(view) => self.queue = view,
            Event::Key { attempt, result } => {
                if self.take(attempt, &UnderWay::Key) {
                    self.key(now, result, seed, &mut out);
                }
            }
            Event::Answer { attempt, result } => {
                let probe = matches!(self.under_way, Some((_, UnderWay::Post { probe: true })));
                if self.take(attempt, &UnderWay::Post { probe }) {
                    self.answer(now, probe, result, seed, &mut out);
                }
            }
            Event::Settings(settings) => {
                self.settings = settings;
                self.backoff.set_cap(settings.backoff_cap);
                // A shorter cap holds for the wait that is already under way.
                self.not_before = self.not_before.min(now.mono + settings.backoff_cap);
            }
            Event::Credentials => self.start_over(now),
            Event::Endpoint => {
                self.capabilities = None;
                self.key_suspect = false;
                self.key_fetched = None;
                self.batch_limit = BATCH_RECORDS;
                self.start_over(now);
            }
            Event::TryNow => self.not_before = now.mono,
            Event::Shutdown => self.stopping = true,
        }
        self.advance(now, &mut out);
        out
    }

    /// New credentials or another Monitor: what was refused before says nothing any more.
    fn start_over(&mut self, now: Now) {
        self.backoff.reset();
        self.not_before = now.mono;
        self.suspect = None;
        self.refused_in_a_row = 0;
        self.probing = false;
        self.outdated = self.under_way.is_some();
    }

    fn take(&mut self, attempt: Attempt, expected: &UnderWay) -> bool {
        let current = self.under_way == Some((attempt, *expected));
        if current {
            self.under_way = None;
        }
        current
    }

    /// Starts what is due, or asks to be woken when it will be.
    fn advance(&mut self, now: Now, out: &mut Vec<Command>) {
        if self.under_way.is_some() {
            return;
        }
        if self.stopping {
            out.push(Command::Finished);
            return;
        }
        if self.queue.head >= self.queue.next {
            return;
        }
        if now.mono < self.not_before {
            out.push(Command::WakeAt(self.not_before));
            return;
        }
        self.attempts += 1;
        let attempt = self.attempts;
        if self.needs_key(now) {
            self.key_fetched = Some(now.mono);
            self.under_way = Some((attempt, UnderWay::Key));
            out.push(Command::FetchKey { attempt });
        } else {
            self.under_way = Some((attempt, UnderWay::Post { probe: self.probing }));
            out.push(Command::Post { attempt, selection: self.selection() });
        }
    }

    fn needs_key(&self, now: Now) -> bool {
        if !self.settings.proved {
            return false;
        }
        let rested =
            self.key_fetched.is_none_or(|at| now.mono.saturating_sub(at) >= KEY_REFETCH_INTERVAL);
        self.capabilities.is_none() || (self.key_suspect && rested)
    }

    fn selection(&self) -> Selection {
        if self.probing && self.newest_gone != Some(self.queue.next) {
            return Selection::Single { from: self.queue.next.saturating_sub(1) };
        }
        if self.probing {
            return Selection::Single { from: self.queue.head };
        }
        let batches = self.settings.proved && self.capabilities.is_some_and(|c| c.batch);
        let waiting = self.queue.next - self.queue.head;
        if batches && self.batch_limit > 1 && waiting > 1 {
            Selection::Batch {
                from: self.queue.head,
                records: self.batch_limit,
                bytes: BATCH_BYTES - BATCH_ENVELOPE,
            }
        } else {
            Selection::Single { from: self.queue.head }
        }
    }

    fn key(
        &mut self,
        now: Now,
        result: Result<Capabilities, Failure>,
        seed: u64,
        out: &mut Vec<Command>,
    ) {
        let outdated = std::mem::take(&mut self.outdated);
        match result {
            // A document of the Monitor before the change is of no use to the new one.
            _ if outdated => self.key_fetched = None,
            Ok(capabilities) => {
                self.capabilities = Some(capabilities);
                self.key_suspect = false;
            }
            Err(failure) => self.failed(now, failure, seed, out),
        }
    }

    fn answer(
        &mut self,
        now: Now,
        probe: bool,
        result: Answered,
        seed: u64,
        out: &mut Vec<Command>,
    ) {
        let outdated = std::mem::take(&mut self.outdated);
        let (sent, outcome) = match result {
            // The view was older than the queue: its next change says what there is to send.
            Answered::NothingToSend if probe && self.newest_gone != Some(self.queue.next) => {
                self.newest_gone = Some(self.queue.next);
                return;
            }
            Answered::NothingToSend => {
                self.queue.head = self.queue.next;
                return;
            }
            Answered::Failed(_) if outdated => return,
            Answered::Failed(failure) => return self.failed(now, failure, seed, out),
            Answered::Got { sent, outcome } => (sent, outcome),
        };
        let (Some(first), Some(last)) = (sent.first().copied(), sent.last().copied()) else {
            return;
        };
        match outcome {
            Outcome::Delivered if probe => self.probe_accepted(first, out),
            Outcome::Delivered => {
                self.confirmed(last, out);
                self.accepted(out);
            }
            Outcome::Progress { acked, rejected } => {
                self.progress(now, &sent, acked.min(last), rejected, seed, out);
            }
            Outcome::Unacceptable(_)
            | Outcome::NotAccepted(_)
            | Outcome::Wait(..)
            | Outcome::Backoff(_)
                if outdated => {}
            Outcome::Unacceptable(reason) => {
                self.key_suspect = true;
                if last > first {
                    self.batch_refused(sent.len(), out);
                } else {
                    self.refused(now, probe, first, reason, seed, out);
                }
            }
            Outcome::NotAccepted(reason) => {
                self.key_suspect = true;
                self.failed(now, Failure { kind: FailureKind::NotAccepted, reason }, seed, out);
            }
            Outcome::Wait(None, reason) => {
                self.failed(now, Failure { kind: FailureKind::Busy, reason }, seed, out);
            }
            Outcome::Wait(Some(wait), reason) => {
                let wait = wait.min(self.backoff.cap());
                self.backoff.failed(seed);
                let wait = wait + uniform(wait / 2, seed);
                self.wait(now, wait, Failure { kind: FailureKind::Busy, reason }, out);
            }
            Outcome::Backoff(reason) => {
                self.failed(now, Failure { kind: FailureKind::Answer, reason }, seed, out);
            }
        }
    }

    /// Samples up to and including `up_to` are stored at the Monitor.
    fn confirmed(&mut self, up_to: u64, out: &mut Vec<Command>) {
        self.queue.head = self.queue.head.max(up_to + 1);
        out.push(Command::Acknowledge { up_to });
    }

    /// The Monitor takes samples: everything held against it, or against samples, is void.
    fn accepted(&mut self, out: &mut Vec<Command>) {
        self.backoff.reset();
        self.suspect = None;
        self.refused_in_a_row = 0;
        self.batch_limit = (self.batch_limit * 2).min(BATCH_RECORDS);
        out.push(Command::Report(Report::Delivered));
    }

    fn probe_accepted(&mut self, seq: u64, out: &mut Vec<Command>) {
        self.probing = false;
        // The probe overtook the samples before it: only when there were none is it the cursor's.
        if seq == self.queue.head {
            self.confirmed(seq, out);
        }
        out.push(Command::Report(Report::ProbeAccepted));
        self.accepted(out);
        // Whoever refused three in a row is asked one by one again.
        self.batch_limit = 1;
    }

    fn progress(
        &mut self,
        now: Now,
        sent: &[u64],
        acked: u64,
        mut rejected: Vec<Rejection>,
        seed: u64,
        out: &mut Vec<Command>,
    ) {
        rejected.retain(|r| sent.binary_search(&r.seq).is_ok());
        let stored = |seq: &&u64| **seq <= acked && !rejected.iter().any(|r| r.seq == **seq);
        if sent.iter().any(|seq| stored(&seq)) {
            // A Monitor that takes some of a batch means what it says about the others.
            for Rejection { seq, error } in rejected {
                out.push(Command::Reject { seq, reason: error });
            }
            self.confirmed(acked, out);
            self.accepted(out);
            return;
        }
        if rejected.is_empty() {
            let reason = "the answer is about none of the samples sent".to_owned();
            return self.failed(now, Failure { kind: FailureKind::Answer, reason }, seed, out);
        }
        for Rejection { seq, error } in rejected {
            self.refused_in_a_row += 1;
            if self.refused_in_a_row >= REFUSED_IN_A_ROW {
                return self.start_probing(now, error, seed, out);
            }
            out.push(Command::Reject { seq, reason: error });
        }
    }

    fn batch_refused(&mut self, sent: usize, out: &mut Vec<Command>) {
        self.batch_limit = (sent / 2).max(1);
        out.push(Command::Report(Report::BatchHalved { records: self.batch_limit }));
    }

    /// One sample, sent alone, was refused for what it is.
    fn refused(
        &mut self,
        now: Now,
        probe: bool,
        seq: u64,
        reason: String,
        seed: u64,
        out: &mut Vec<Command>,
    ) {
        let failure = Failure { kind: FailureKind::Unacceptable, reason: reason.clone() };
        if probe {
            return self.failed(now, failure, seed, out);
        }
        let tries = match self.suspect {
            Some((suspect, tries)) if suspect == seq => tries + 1,
            Some(_) | None => 1,
        };
        self.suspect = Some((seq, tries));
        if tries < TRIES_OF_A_REFUSED_SAMPLE {
            return self.failed(now, failure, seed, out);
        }
        self.suspect = None;
        self.refused_in_a_row += 1;
        if self.refused_in_a_row >= REFUSED_IN_A_ROW {
            return self.start_probing(now, reason, seed, out);
        }
        // The sample is dealt with, so the next one is owed nothing of its backoff but a wait.
        self.backoff.reset();
        self.not_before = now.mono + self.backoff.failed(seed);
        self.queue.head = self.queue.head.max(seq + 1);
        out.push(Command::Reject { seq, reason });
    }

    fn start_probing(&mut self, now: Now, reason: String, seed: u64, out: &mut Vec<Command>) {
        self.probing = true;
        out.push(Command::Report(Report::Probing { reason: reason.clone() }));
        self.failed(now, Failure { kind: FailureKind::Unacceptable, reason }, seed, out);
    }

    fn failed(&mut self, now: Now, failure: Failure, seed: u64, out: &mut Vec<Command>) {
        let wait = self.backoff.failed(seed);
        self.wait(now, wait, failure, out);
    }

    fn wait(&mut self, now: Now, wait: Duration, failure: Failure, out: &mut Vec<Command>) {
        self.not_before = now.mono + wait;
        out.push(Command::Report(Report::Failed { failure, retry_in: wait }));
    }
}

#[cfg(test)]
mod tests;
