//! Decides what the answer to a replayed sample means: the next one, another try, or the end.
//!
//! Pure: time, answers and a seed go in. Invariants: one sample at a time; every failure is
//! followed by a wait from the backoff, never over its cap, or by the end; a refused resume token
//! is followed by the challenge; the key is fetched when it is not known, and once a minute at
//! most when a refusal may be its fault (docs/PROTOCOL.md 2, 5 and 7).

use std::time::Duration;

use super::Ended;
use super::patience::Patience;
use crate::jitter::uniform;
use crate::protocol::{KEY_REFETCH_INTERVAL, REFUSED_IN_A_ROW, TRIES_OF_A_REFUSED_SAMPLE};
use crate::sender::backoff::Backoff;
use crate::sender::classify::Outcome;
use crate::sender::machine::{Answered, Failure, FailureKind, Proof};

/// What a refusal of the sample itself leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Tries before it is passed over.
    pub tries: u32,
    /// So many passed over in a row end it; `None`: never.
    pub in_a_row: Option<u32>,
}

impl Rules {
    /// For samples the Monitor has had: a refusal is a surprise.
    pub const SENT: Self =
        Self { tries: TRIES_OF_A_REFUSED_SAMPLE, in_a_row: Some(REFUSED_IN_A_ROW) };
    /// For rejected ones, which have had their tries: a refusal is what is expected.
    pub const REJECTED: Self = Self { tries: 1, in_a_row: None };
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The sample is stored at the Monitor: the next one.
    Accepted,
    /// The sample is refused: the next one, after this wait.
    PassedOver {
        /// How long.
        wait: Duration,
        /// The Monitor's reason.
        reason: String,
    },
    /// The same once more, after this wait.
    Again {
        /// How long.
        wait: Duration,
        /// What went wrong.
        reason: String,
    },
    /// That is all.
    End(Ended, String),
}

/// What is remembered from answer to answer.
#[derive(Debug)]
pub struct Again {
    rules: Rules,
    backoff: Backoff,
    patience: Patience,
    settled: u64,
    failures: u64,
    /// Refusals of the sample that is being tried.
    tries: u32,
    passed_over: u32,
    token: bool,
    key_suspect: bool,
    key_fetched: Option<Duration>,
}

impl Again {
    /// Begins at the monotonic time `now`. `token`: there is a resume token to prove with.
    #[must_use]
    pub fn new(rules: Rules, cap: Duration, token: bool, now: Duration) -> Self {
        Self {
            rules,
            backoff: Backoff::new(cap),
            patience: Patience::new(now, 0, 0),
            settled: 0,
            failures: 0,
            tries: 0,
            passed_over: 0,
            token,
            key_suspect: false,
            key_fetched: None,
        }
    }

    /// What the next post is proved with.
    #[must_use]
    pub fn proof(&self) -> Proof {
        if self.token { Proof::Token } else { Proof::Challenge }
    }

    /// Whether the key has to be fetched first. `lacks_key`: proofs need one and none is known.
    #[must_use]
    pub fn wants_key(&self, now: Duration, lacks_key: bool) -> bool {
        let rested =
            self.key_fetched.is_none_or(|at| now.saturating_sub(at) >= KEY_REFETCH_INTERVAL);
        lacks_key || (self.key_suspect && rested)
    }

    /// The key document came, or did not: what to do, if it did not.
    pub fn key(&mut self, now: Duration, failure: Option<Failure>, seed: u64) -> Option<Step> {
        self.key_fetched = Some(now);
        self.key_suspect = false;
        failure.map(|failure| self.failed(now, failure, seed))
    }

    /// The answer to a post.
    pub fn answered(&mut self, now: Duration, answer: Answered, seed: u64) -> Step {
        let fail = |kind, reason| Failure { kind, reason };
        let outcome = match answer {
            Answered::Got { outcome, .. } => outcome,
            Answered::Failed(failure) => return self.failed(now, failure, seed),
            Answered::NothingToSend => Outcome::Backoff("nothing was sent".to_owned()),
        };
        match outcome {
            Outcome::Delivered => {
                self.next(now);
                self.backoff.reset();
                self.passed_over = 0;
                Step::Accepted
            }
            Outcome::Unacceptable(reason) => self.refused(now, reason, seed),
            Outcome::NotAccepted(reason) => {
                self.key_suspect = true;
                self.token = false;
                self.failed(now, fail(FailureKind::NotAccepted, reason), seed)
            }
            Outcome::Wait(Some(wait), reason) => {
                let wait = wait.min(self.backoff.cap());
                self.backoff.failed(seed);
                let wait = wait + uniform(wait / 2, seed);
                self.wait(now, wait, fail(FailureKind::Busy, reason))
            }
            Outcome::Wait(None, reason) => self.failed(now, fail(FailureKind::Busy, reason), seed),
            Outcome::Backoff(reason) => self.failed(now, fail(FailureKind::Answer, reason), seed),
            Outcome::Progress { .. } => {
                let reason = "the answer speaks of a batch".to_owned();
                self.failed(now, fail(FailureKind::Answer, reason), seed)
            }
        }
    }

    fn refused(&mut self, now: Duration, reason: String, seed: u64) -> Step {
        self.key_suspect = true;
        self.tries += 1;
        if self.tries < self.rules.tries {
            let wait = self.backoff.failed(seed);
            return Step::Again { wait, reason };
        }
        self.next(now);
        self.passed_over += 1;
        if self.rules.in_a_row.is_some_and(|most| self.passed_over >= most) {
            return Step::End(Ended::Unacceptable, reason);
        }
        // It is dealt with, so the next one is owed nothing of its backoff but a wait.
        self.backoff.reset();
        Step::PassedOver { wait: self.backoff.failed(seed), reason }
    }

    /// The sample is dealt with.
    fn next(&mut self, now: Duration) {
        self.tries = 0;
        self.settled += 1;
        self.patience.failures(now, self.settled, self.failures);
    }

    fn failed(&mut self, now: Duration, failure: Failure, seed: u64) -> Step {
        let wait = self.backoff.failed(seed);
        self.wait(now, wait, failure)
    }

    fn wait(&mut self, now: Duration, wait: Duration, failure: Failure) -> Step {
        let Failure { kind, reason } = failure;
        self.failures += 1;
        let failures = self.patience.failures(now, self.settled, self.failures);
        if !self.patience.is_over(now, wait, failures) {
            return Step::Again { wait, reason };
        }
        let ended = match kind {
            FailureKind::Unreachable
            | FailureKind::Key
            | FailureKind::Answer
            | FailureKind::Busy => Ended::Unreachable,
            FailureKind::NotAccepted => Ended::Refused,
            FailureKind::Unacceptable => Ended::Unacceptable,
            FailureKind::Local => Ended::Failed,
        };
        Step::End(ended, reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: Duration = Duration::from_secs(300);

    fn again(rules: Rules) -> Again {
        Again::new(rules, CAP, true, Duration::ZERO)
    }

    fn got(outcome: Outcome) -> Answered {
        Answered::Got { sent: vec![1], outcome }
    }

    fn unacceptable() -> Answered {
        got(Outcome::Unacceptable("no".into()))
    }

    fn ended(step: &Step) -> Option<Ended> {
        if let Step::End(ended, _) = step { Some(*ended) } else { None }
    }

    #[test]
    fn a_refused_token_is_followed_by_the_challenge_and_a_look_at_the_key() {
        let mut again = again(Rules::SENT);
        assert_eq!((again.proof(), again.wants_key(CAP, false)), (Proof::Token, false));
        assert!(again.wants_key(CAP, true));
        let no = || got(Outcome::NotAccepted("403".into()));
        let now = Duration::from_secs(1);
        assert!(matches!(again.answered(now, no(), 1), Step::Again { .. }));
        assert_eq!((again.proof(), again.wants_key(now, false)), (Proof::Challenge, true));
        assert_eq!(again.key(now, None, 1), None);
        assert!(matches!(again.answered(now, no(), 1), Step::Again { .. }));
        assert!(!again.wants_key(now, false), "once a minute");
        assert_eq!(again.answered(now, no(), 1), Step::End(Ended::Refused, "403".into()));
    }

    #[test]
    fn failures_in_a_row_end_it_and_success_starts_over() {
        let gone = || {
            Answered::Failed(Failure { kind: FailureKind::Unreachable, reason: "refused".into() })
        };
        let mut again = again(Rules::SENT);
        let now = Duration::from_secs(1);
        for _ in 0..5 {
            assert!(matches!(again.answered(now, gone(), 7), Step::Again { .. }));
            assert!(matches!(again.answered(now, gone(), 7), Step::Again { .. }));
            assert_eq!(again.answered(now, got(Outcome::Delivered), 7), Step::Accepted);
        }
        let steps: Vec<_> = (0..3).map(|_| again.answered(now, gone(), 7)).collect();
        assert_eq!(steps.iter().map(ended).collect::<Vec<_>>()[2], Some(Ended::Unreachable));
    }

    #[test]
    fn a_monitor_that_asks_for_more_than_a_minute_is_not_waited_for() {
        let mut patient = again(Rules::SENT);
        let wait =
            |seconds| got(Outcome::Wait(Some(Duration::from_secs(seconds)), "HTTP 429".into()));
        let Step::Again { wait: first, .. } = patient.answered(Duration::ZERO, wait(10), 3) else {
            panic!("10 s are waited for")
        };
        assert!((10..=15).contains(&first.as_secs()), "{first:?}");
        let step = patient.answered(Duration::from_secs(15), wait(60), 3);
        assert_eq!(ended(&step), Some(Ended::Unreachable));
    }

    #[test]
    fn refused_samples_are_passed_over_until_it_is_not_their_fault() {
        let mut sent = again(Rules::SENT);
        let now = Duration::ZERO;
        let mut passed = Vec::new();
        loop {
            match sent.answered(now, unacceptable(), 5) {
                Step::Again { wait, .. } => assert!(wait <= CAP),
                Step::PassedOver { .. } => passed.push(()),
                Step::End(ended, _) => {
                    assert_eq!((ended, passed.len()), (Ended::Unacceptable, 2));
                    break;
                }
                Step::Accepted => panic!("it was refused"),
            }
        }
        let mut rejected = again(Rules::REJECTED);
        for _ in 0..100 {
            let step = rejected.answered(now, unacceptable(), 5);
            let Step::PassedOver { wait, .. } = step else { panic!("{step:?}") };
            assert!(wait <= Duration::from_secs(1));
        }
    }
}
