//! The heartbeat's side of the machine: one request at a time, single or batch, oldest first.
//!
//! Source of the rules: docs/PROTOCOL.md 2, 5, 7 and 8.

use std::time::Duration;

use super::refusals::Verdict;
use super::{
    Answered, Attempt, Command, Failure, FailureKind, KeyNews, Now, Proof, Report, Selection,
    Shared, Transport,
};
use crate::jitter::uniform;
use crate::protocol::{
    BATCH_BYTES, BATCH_ENVELOPE, BATCH_RECORDS, KEY_REFETCH_INTERVAL, Rejection,
};
use crate::sender::backoff::Backoff;
use crate::sender::classify::Outcome;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnderWay {
    Key,
    Post { probe: bool, proof: Proof },
}

/// The heartbeat's state.
#[derive(Debug)]
pub(super) struct Heartbeat {
    under_way: Option<(Attempt, UnderWay)>,
    /// The credentials or the Monitor changed while a request was under way: its failure says
    /// nothing about the new ones.
    outdated: bool,
    backoff: Backoff,
    not_before: Duration,
    key_suspect: bool,
    key_fetched: Option<Duration>,
    batch_limit: usize,
    /// The resume token was refused: the challenge is tried, and stays in use until it is refused
    /// too or there is another token. Else each sample of a backlog would be refused first.
    with_challenge: bool,
}

impl Heartbeat {
    pub(super) fn new(cap: Duration) -> Self {
        Self {
            under_way: None,
            outdated: false,
            backoff: Backoff::new(cap),
            not_before: Duration::ZERO,
            key_suspect: false,
            key_fetched: None,
            batch_limit: BATCH_RECORDS,
            with_challenge: false,
        }
    }

    pub(super) fn busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// A shorter cap holds for the wait that is already under way.
    pub(super) fn set_cap(&mut self, now: Now, cap: Duration) {
        self.backoff.set_cap(cap);
        self.not_before = self.not_before.min(now.mono.saturating_add(cap));
    }

    pub(super) fn try_now(&mut self, now: Now) {
        self.not_before = now.mono;
    }

    /// It stands in for a WebSocket that many others may have lost at the same moment: should it
    /// fail too, its tries are spread from the beginning.
    pub(super) fn stand_in(&mut self, spread: Duration) {
        self.backoff.follow(spread * 2);
    }

    /// New credentials, or another Monitor: what was refused before says nothing any more.
    pub(super) fn start_over(&mut self, now: Now) {
        self.backoff.reset();
        self.not_before = now.mono;
        self.with_challenge = false;
        self.outdated = self.under_way.is_some();
    }

    /// There is another token: it has not been refused.
    pub(super) fn new_token(&mut self) {
        self.with_challenge = false;
    }

    /// Another Monitor: its key is not known.
    pub(super) fn forget_key(&mut self) {
        self.key_suspect = false;
        self.key_fetched = None;
        self.batch_limit = BATCH_RECORDS;
    }

    /// Starts what is due, or tells when it will be; `None`: nothing to do until something
    /// happens. To be called only while this transport may send.
    pub(super) fn advance(
        &mut self,
        now: Now,
        shared: &mut Shared,
        out: &mut Vec<Command>,
    ) -> Option<Duration> {
        if self.under_way.is_some() || shared.queue.head >= shared.queue.next {
            return None;
        }
        if now.mono < self.not_before {
            return Some(self.not_before);
        }
        let attempt = shared.attempt();
        if self.needs_key(now, shared) {
            self.key_fetched = Some(now.mono);
            self.under_way = Some((attempt, UnderWay::Key));
            out.push(Command::FetchKey { attempt });
        } else {
            let proof = shared.proof(self.with_challenge);
            let probe = shared.refusals.probing();
            self.under_way = Some((attempt, UnderWay::Post { probe, proof }));
            out.push(Command::Post { attempt, selection: self.selection(shared), proof });
        }
        None
    }

    fn needs_key(&self, now: Now, shared: &Shared) -> bool {
        if !shared.settings.proved {
            return false;
        }
        let rested =
            self.key_fetched.is_none_or(|at| now.mono.saturating_sub(at) >= KEY_REFETCH_INTERVAL);
        shared.capabilities.is_none() || (self.key_suspect && rested)
    }

    fn selection(&self, shared: &Shared) -> Selection {
        let queue = shared.queue;
        if shared.refusals.probing() {
            return Selection::Single { from: shared.refusals.probe(queue) };
        }
        // A sample that links keep dying with goes alone: it may be what they die of.
        let forced = shared.forced.is_some();
        let batches = shared.settings.proved && shared.capabilities.is_some_and(|c| c.batch);
        if batches && !forced && self.batch_limit > 1 && queue.next - queue.head > 1 {
            Selection::Batch {
                from: queue.head,
                records: self.batch_limit,
                bytes: BATCH_BYTES - BATCH_ENVELOPE,
            }
        } else {
            Selection::Single { from: queue.head }
        }
    }

    /// A key document came, or did not; false when it is not what is waited for here.
    pub(super) fn key(
        &mut self,
        now: Now,
        attempt: Attempt,
        result: &Result<KeyNews, Failure>,
        seed: u64,
        out: &mut Vec<Command>,
    ) -> bool {
        if self.under_way != Some((attempt, UnderWay::Key)) {
            return false;
        }
        self.under_way = None;
        if std::mem::take(&mut self.outdated) {
            // A document of the Monitor before the change is of no use to the new one, nor is
            // what it says of its capabilities.
            self.key_fetched = None;
            return false;
        }
        match result {
            Ok(_) => self.key_suspect = false,
            Err(failure) => self.failed(now, failure.clone(), seed, out),
        }
        true
    }

    /// A request came to its end.
    pub(super) fn answer(
        &mut self,
        now: Now,
        shared: &mut Shared,
        attempt: Attempt,
        result: Answered,
        seed: u64,
        out: &mut Vec<Command>,
    ) {
        let Some((current, UnderWay::Post { probe, proof })) = self.under_way else {
            return;
        };
        if current != attempt {
            return;
        }
        self.under_way = None;
        let outdated = std::mem::take(&mut self.outdated);
        let (sent, outcome) = match result {
            Answered::NothingToSend if probe && shared.refusals.probe_gone(shared.queue) => return,
            // The view was older than the queue: its next change says what there is to send.
            Answered::NothingToSend => {
                shared.queue.head = shared.queue.next;
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
            Outcome::Delivered => {
                // A probe overtakes the samples before it: only when there are none is it the
                // cursor's.
                if !probe || first == shared.queue.head {
                    shared.confirmed(last, Transport::Http, out);
                }
                self.accepted(shared, out);
            }
            Outcome::Progress { acked, rejected } => {
                self.progress(now, shared, &sent, acked.min(last), rejected, seed, out);
            }
            Outcome::Unacceptable(_)
            | Outcome::NotAccepted(_)
            | Outcome::Wait(..)
            | Outcome::Backoff(_)
                if outdated => {}
            Outcome::Unacceptable(reason) => {
                self.key_suspect = true;
                if sent.len() > 1 {
                    self.batch_limit = (sent.len() / 2).max(1);
                    let records = self.batch_limit;
                    out.push(Command::Report(Report::BatchHalved { records }));
                } else {
                    self.refused(now, shared, first, reason, seed, out);
                }
            }
            Outcome::NotAccepted(reason) => {
                self.key_suspect = true;
                self.with_challenge = proof == Proof::Token;
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

    fn accepted(&mut self, shared: &mut Shared, out: &mut Vec<Command>) {
        self.backoff.reset();
        self.batch_limit = (self.batch_limit * 2).min(BATCH_RECORDS);
        if shared.accepted(Transport::Http, out) {
            // Whoever refused three in a row is asked one by one again.
            self.batch_limit = 1;
        }
    }

    #[allow(clippy::too_many_arguments, reason = "all of it is the answer")]
    fn progress(
        &mut self,
        now: Now,
        shared: &mut Shared,
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
                shared.reject(seq, error, out);
            }
            shared.confirmed(acked, Transport::Http, out);
            self.accepted(shared, out);
            return;
        }
        if rejected.is_empty() {
            let reason = "the answer is about none of the samples sent".to_owned();
            return self.failed(now, Failure { kind: FailureKind::Answer, reason }, seed, out);
        }
        for Rejection { seq, error } in rejected {
            match shared.refusals.rejected() {
                Verdict::Again | Verdict::Move => shared.reject(seq, error, out),
                Verdict::Probe => return self.start_probing(now, error, seed, out),
            }
        }
    }

    /// One sample, sent alone, was refused for what it is.
    fn refused(
        &mut self,
        now: Now,
        shared: &mut Shared,
        seq: u64,
        reason: String,
        seed: u64,
        out: &mut Vec<Command>,
    ) {
        match shared.refusals.refused(seq) {
            Verdict::Again => {
                let failure = Failure { kind: FailureKind::Unacceptable, reason };
                self.failed(now, failure, seed, out);
            }
            Verdict::Probe => self.start_probing(now, reason, seed, out),
            Verdict::Move => {
                // The sample is dealt with, so the next one is owed nothing of its backoff but a
                // wait.
                self.backoff.reset();
                self.not_before = now.mono + self.backoff.failed(seed);
                shared.reject(seq, reason, out);
                shared.moved(seq);
            }
        }
    }

    fn start_probing(&mut self, now: Now, reason: String, seed: u64, out: &mut Vec<Command>) {
        out.push(Command::Report(Report::Probing { reason: reason.clone() }));
        self.failed(now, Failure { kind: FailureKind::Unacceptable, reason }, seed, out);
    }

    fn failed(&mut self, now: Now, failure: Failure, seed: u64, out: &mut Vec<Command>) {
        let wait = self.backoff.failed(seed);
        self.wait(now, wait, failure, out);
    }

    fn wait(&mut self, now: Now, wait: Duration, failure: Failure, out: &mut Vec<Command>) {
        self.not_before = now.mono + wait;
        let (transport, retry_in) = (Transport::Http, wait);
        out.push(Command::Report(Report::Failed { transport, failure, retry_in }));
    }
}
