//! The machine's rules one by one, and the whole of it against a Monitor at its worst.

use std::time::SystemTime;

use super::*;
use crate::protocol::{BATCH_RECORDS, KEY_REFETCH_INTERVAL, Rejection};
use crate::sender::classify::Outcome;

const CAP: Duration = Duration::from_secs(300);
const PLAIN: Settings = Settings {
    proved: false,
    transports: Transports::Http,
    report_interval: Duration::from_secs(30),
    fallback_interval: Duration::from_secs(60),
    backoff_cap: CAP,
};
const PROVED: Settings = Settings { proved: true, ..PLAIN };
const ALL: Capabilities = Capabilities { ack: true, resume: true, batch: true };

/// A machine, the virtual time, and what it last asked for.
struct Bench {
    machine: Machine,
    now: Duration,
    seed: u64,
    commands: Vec<Command>,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        Self {
            machine: Machine::new(settings, false),
            now: Duration::ZERO,
            seed: 1,
            commands: vec![],
        }
    }

    fn tell(&mut self, event: Event) -> &[Command] {
        self.seed += 1;
        let now = Now { mono: self.now, wall: SystemTime::UNIX_EPOCH };
        self.commands = self.machine.handle(now, event, self.seed);
        &self.commands
    }

    fn queue(&mut self, head: u64, next: u64) -> &[Command] {
        self.tell(Event::Queue(QueueView { head, next }))
    }

    /// The try that is under way, by the last commands.
    fn attempt(&self) -> Attempt {
        let mut attempts = self.commands.iter().filter_map(|command| {
            if let Command::FetchKey { attempt } | Command::Post { attempt, .. } = command {
                Some(*attempt)
            } else {
                None
            }
        });
        attempts.next_back().unwrap_or_else(|| panic!("nothing was tried: {:?}", self.commands))
    }

    fn selection(&self) -> Selection {
        let mut selections = self.commands.iter().filter_map(|command| {
            if let Command::Post { selection, .. } = command { Some(*selection) } else { None }
        });
        selections.next_back().unwrap_or_else(|| panic!("nothing was posted: {:?}", self.commands))
    }

    fn fetched(&mut self, capabilities: Capabilities) -> &[Command] {
        assert!(matches!(self.commands.last(), Some(Command::FetchKey { .. })), "no key wanted");
        let attempt = self.attempt();
        let news = KeyNews { capabilities, changed: false };
        self.tell(Event::Key { attempt, result: Ok(news) })
    }

    fn answered(&mut self, first: u64, last: u64, outcome: Outcome) -> &[Command] {
        let (attempt, sent) = (self.attempt(), (first..=last).collect());
        self.tell(Event::Answer { attempt, result: Answered::Got { sent, outcome } })
    }

    fn failed(&mut self) -> &[Command] {
        let attempt = self.attempt();
        let failure = Failure { kind: FailureKind::Unreachable, reason: "down".into() };
        self.tell(Event::Answer { attempt, result: Answered::Failed(failure) })
    }

    /// Lets the time pass to the wake-up the machine asked for, and gives how long that was.
    fn sleep(&mut self) -> Duration {
        let Some(Command::WakeAt(at)) = self.commands.last() else {
            panic!("no wake-up was asked for: {:?}", self.commands)
        };
        let slept = *at - self.now;
        self.now = *at;
        self.tell(Event::Tick);
        slept
    }

    fn rejects(&self) -> Vec<u64> {
        let rejects = self.commands.iter().filter_map(|command| {
            if let Command::Reject { seq, .. } = command { Some(*seq) } else { None }
        });
        rejects.collect()
    }
}

fn acknowledged(up_to: u64) -> Command {
    Command::Acknowledge { up_to, transport: Transport::Http }
}

fn unacceptable() -> Outcome {
    Outcome::Unacceptable("HTTP 422".into())
}

fn progress(acked: u64, rejected: &[u64]) -> Outcome {
    Outcome::Progress {
        acked,
        rejected: rejected.iter().map(|s| Rejection { seq: *s, error: "no".into() }).collect(),
    }
}

#[test]
fn an_empty_queue_asks_for_nothing() {
    let mut b = Bench::new(PROVED);
    assert_eq!(b.queue(1, 1), []);
    assert_eq!(b.tell(Event::Tick), []);
}

#[test]
fn the_key_comes_first_and_then_the_oldest_sample() {
    let mut b = Bench::new(PROVED);
    assert_eq!(b.queue(5, 7), [Command::FetchKey { attempt: 1 }]);
    b.fetched(Capabilities::default());
    assert_eq!(b.selection(), Selection::Single { from: 5 });
    b.answered(5, 5, Outcome::Delivered);
    assert_eq!(b.commands[0], acknowledged(5));
    assert_eq!(b.selection(), Selection::Single { from: 6 });
    b.answered(6, 6, Outcome::Delivered);
    assert_eq!(
        b.commands.last(),
        Some(&Command::Report(Report::Delivered { transport: Transport::Http })),
        "drained: rest"
    );
}

#[test]
fn without_a_proof_no_key_is_fetched_and_no_batch_sent() {
    let mut b = Bench::new(PLAIN);
    b.queue(1, 900);
    assert_eq!(b.selection(), Selection::Single { from: 1 });
}

#[test]
fn a_batch_is_used_where_it_is_offered_and_confirmed_only_as_far_as_it_was_stored() {
    let mut b = Bench::new(PROVED);
    b.queue(1, 1001);
    b.fetched(ALL);
    assert!(matches!(b.selection(), Selection::Batch { from: 1, records: BATCH_RECORDS, .. }));
    b.answered(1, 500, progress(300, &[7]));
    assert_eq!(
        b.commands[..2],
        [Command::Reject { seq: 7, reason: "no".into() }, acknowledged(300)],
        "the rejected is kept before the cursor passes it"
    );
    assert!(matches!(b.selection(), Selection::Batch { from: 301, .. }));
}

#[test]
fn failures_wait_with_backoff_for_ever_and_a_success_resets_it() {
    let mut b = Bench::new(PLAIN);
    b.queue(1, 2);
    let mut longest = Duration::ZERO;
    for _ in 0..10_000 {
        b.failed();
        longest = longest.max(b.sleep());
    }
    assert!(longest <= CAP && longest > CAP / 2, "{longest:?}");
    b.answered(1, 1, Outcome::Delivered);
    b.queue(2, 3);
    b.failed();
    assert!(b.sleep() <= Duration::from_secs(1));
}

#[test]
fn a_late_answer_is_ignored() {
    let mut b = Bench::new(PLAIN);
    b.queue(1, 3);
    let late = b.attempt();
    b.failed();
    b.sleep();
    assert_ne!(b.attempt(), late);
    let answer = Answered::Got { sent: vec![1], outcome: Outcome::Delivered };
    assert_eq!(b.tell(Event::Answer { attempt: late, result: answer }), []);
}

#[test]
fn retry_after_is_waited_and_up_to_half_more_but_capped() {
    for (asked, least, most) in [(100, 100, 150), (100_000, 300, 450)] {
        let mut b = Bench::new(PLAIN);
        b.queue(1, 2);
        b.answered(1, 1, Outcome::Wait(Some(Duration::from_secs(asked)), "HTTP 503".into()));
        let slept = b.sleep();
        assert!((least..=most).contains(&slept.as_secs()), "{asked}: {slept:?}");
    }
}

#[test]
fn a_refused_sample_moves_after_three_tries_and_the_queue_goes_on() {
    let mut b = Bench::new(PLAIN);
    b.queue(1, 3);
    for _ in 0..2 {
        b.answered(1, 1, unacceptable());
        assert!(b.rejects().is_empty());
        b.sleep();
        assert_eq!(b.selection(), Selection::Single { from: 1 });
    }
    b.answered(1, 1, unacceptable());
    assert_eq!(b.rejects(), [1]);
    b.sleep();
    assert_eq!(b.selection(), Selection::Single { from: 2 });
    b.answered(2, 2, Outcome::Delivered);
    assert_eq!(b.commands[0], acknowledged(2));
}

#[test]
fn tries_interrupted_by_an_outage_still_count_for_their_sample_alone() {
    let mut b = Bench::new(PLAIN);
    b.queue(1, 3);
    b.answered(1, 1, unacceptable());
    b.sleep();
    b.failed();
    b.sleep();
    b.answered(1, 1, unacceptable());
    b.sleep();
    b.answered(1, 1, unacceptable());
    assert_eq!(b.rejects(), [1]);
}

#[test]
fn three_refused_in_a_row_are_not_the_samples_fault() {
    let mut b = Bench::new(PLAIN);
    b.queue(1, 100);
    let mut moved = Vec::new();
    for seq in 1..=3 {
        for _ in 0..3 {
            b.answered(seq, seq, unacceptable());
            moved.extend(b.rejects());
            b.sleep();
        }
    }
    assert_eq!(moved, [1, 2], "the third is not moved");
    // From here on nothing moves, however long it lasts: the newest is the probe.
    for next in 101..200 {
        assert_eq!(b.selection(), Selection::Single { from: next - 2 });
        b.answered(next - 2, next - 2, unacceptable());
        assert!(b.rejects().is_empty());
        b.queue(3, next);
        b.sleep();
    }
    b.answered(198, 198, Outcome::Delivered);
    assert!(b.commands.contains(&Command::Report(Report::ProbeAccepted)));
    assert!(
        !b.commands.iter().any(|c| matches!(c, Command::Acknowledge { .. })),
        "a probe that overtook others confirms none of them"
    );
    assert_eq!(b.selection(), Selection::Single { from: 3 }, "the oldest is next again");
}

#[test]
fn a_refused_batch_is_halved_until_the_culprit_is_alone() {
    // 64 samples, number 23 is the culprit.
    let mut b = Bench::new(PROVED);
    b.queue(1, 65);
    b.fetched(Capabilities { batch: true, ..Default::default() });
    let mut head = 1;
    let mut requests = 0;
    loop {
        requests += 1;
        assert!(requests < 60, "halving does not end");
        let (first, last) = match b.selection() {
            Selection::Single { from } => (from, from),
            Selection::Batch { from, records, .. } => (from, (from + records as u64 - 1).min(64)),
        };
        assert_eq!(first, head);
        if (first..=last).contains(&23) {
            b.answered(first, last, unacceptable());
            if b.rejects() == [23] {
                head = 24;
            }
        } else if first == last {
            b.answered(first, last, Outcome::Delivered);
            head = last + 1;
        } else {
            b.answered(first, last, progress(last, &[]));
            head = last + 1;
        }
        if head > 64 {
            break;
        }
        if matches!(b.commands.last(), Some(Command::WakeAt(_))) {
            b.sleep();
        }
        if matches!(b.commands.last(), Some(Command::FetchKey { .. })) {
            b.fetched(Capabilities { batch: true, ..Default::default() });
        }
    }
}

#[test]
fn a_monitor_that_rejects_whole_batches_by_name_is_stopped_at_three() {
    let mut b = Bench::new(PROVED);
    b.queue(1, 11);
    b.fetched(ALL);
    b.answered(1, 10, progress(10, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]));
    assert_eq!(b.rejects(), [1, 2]);
    assert!(!b.commands.iter().any(|c| matches!(c, Command::Acknowledge { .. })));
    b.sleep();
    assert_eq!(b.selection(), Selection::Single { from: 10 });
}

#[test]
fn the_key_is_fetched_again_after_a_refusal_but_at_most_once_a_minute() {
    let mut b = Bench::new(PROVED);
    b.queue(1, 2);
    b.fetched(Capabilities::default());
    let mut fetches = vec![Duration::ZERO];
    while b.now < Duration::from_secs(7200) {
        if let Some(Command::FetchKey { .. }) = b.commands.last() {
            fetches.push(b.now);
            b.fetched(Capabilities::default());
        }
        b.answered(1, 1, Outcome::NotAccepted("HTTP 401".into()));
        b.sleep();
    }
    assert!(fetches.len() > 20, "{fetches:?}");
    assert!(fetches.windows(2).all(|w| w[1] - w[0] >= KEY_REFETCH_INTERVAL), "{fetches:?}");
}

#[test]
fn new_credentials_are_used_at_once() {
    let mut b = Bench::new(PLAIN);
    b.queue(1, 2);
    for _ in 0..20 {
        b.answered(1, 1, Outcome::NotAccepted("HTTP 403".into()));
        b.sleep();
    }
    b.answered(1, 1, Outcome::NotAccepted("HTTP 403".into()));
    b.tell(Event::Credentials);
    assert_eq!(b.selection(), Selection::Single { from: 1 });
    let under_way = b.attempt();
    // And when they change while a try with the old ones is under way, its refusal says nothing.
    b.tell(Event::Credentials);
    let refused = Outcome::NotAccepted("HTTP 403".into());
    let result = Answered::Got { sent: vec![1], outcome: refused };
    b.tell(Event::Answer { attempt: under_way, result });
    assert_eq!(b.selection(), Selection::Single { from: 1 });
}

#[test]
fn another_monitor_means_another_key() {
    let mut b = Bench::new(PROVED);
    b.queue(1, 3);
    b.fetched(ALL);
    b.answered(1, 1, Outcome::Delivered);
    b.failed();
    b.tell(Event::Endpoint { token: false });
    assert!(matches!(b.commands.last(), Some(Command::FetchKey { .. })));
}

#[test]
fn try_now_does_not_wait_and_shutdown_waits_for_what_is_under_way() {
    let mut b = Bench::new(PLAIN);
    b.queue(1, 2);
    for _ in 0..12 {
        b.failed();
        b.sleep();
    }
    b.failed();
    b.tell(Event::TryNow);
    let attempt = b.attempt();
    assert_eq!(b.tell(Event::Shutdown), []);
    let answer = Answered::Got { sent: vec![1], outcome: Outcome::Delivered };
    let commands = b.tell(Event::Answer { attempt, result: answer });
    assert_eq!(commands.first(), Some(&acknowledged(1)));
    assert_eq!(commands.last(), Some(&Command::Finished));
}

#[test]
fn shutdown_at_rest_is_finished_at_once() {
    let mut b = Bench::new(PLAIN);
    assert_eq!(b.tell(Event::Shutdown), [Command::Finished]);
}

mod given_up;
mod websocket;

mod against_a_monitor_at_its_worst {
    //! Random answers, then a good network: nothing is confirmed that was not stored, nothing is
    //! asked in a busy loop, and in the end everything is delivered or kept as rejected.

    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use proptest::sample::Index;
    use proptest::test_runner::FileFailurePersistence;

    use super::*;

    const SAMPLES: u64 = 40;

    /// One answer of the Monitor, to whatever is asked when its turn comes.
    fn answer(sent: &[u64], (kind, acked, refused): &(u8, Index, Vec<Index>)) -> Answered {
        let got = |outcome| Answered::Got { sent: sent.to_vec(), outcome };
        match kind {
            0..=2 if sent.len() == 1 => got(Outcome::Delivered),
            0..=2 => {
                let refused: BTreeSet<u64> = refused.iter().map(|i| *i.get(sent)).collect();
                got(progress(*acked.get(sent), &refused.into_iter().collect::<Vec<_>>()))
            }
            3..=5 => got(unacceptable()),
            6 => got(Outcome::NotAccepted(String::new())),
            7 => got(Outcome::Wait(Some(Duration::from_secs(9)), String::new())),
            8 => got(Outcome::Backoff(String::new())),
            _ => {
                Answered::Failed(Failure { kind: FailureKind::Unreachable, reason: String::new() })
            }
        }
    }

    /// A Monitor that takes everything.
    fn kind_answer(sent: &[u64]) -> Answered {
        let outcome = match sent {
            [_] => Outcome::Delivered,
            _ => progress(*sent.last().unwrap(), &[]),
        };
        Answered::Got { sent: sent.to_vec(), outcome }
    }

    /// What the model Monitor has stored by an answer.
    fn stored_by(result: &Answered) -> Vec<u64> {
        let Answered::Got { sent, outcome } = result else { return vec![] };
        match outcome {
            Outcome::Delivered => sent.clone(),
            Outcome::Progress { acked, rejected } => sent
                .iter()
                .filter(|s| **s <= *acked && !rejected.iter().any(|r| r.seq == **s))
                .copied()
                .collect(),
            Outcome::Unacceptable(_)
            | Outcome::NotAccepted(_)
            | Outcome::Wait(..)
            | Outcome::Backoff(_) => vec![],
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 300,
            failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
            ..ProptestConfig::default()
        })]
        #[test]
        fn nothing_is_lost_and_everything_ends(
            batch: bool,
            bad in proptest::collection::vec(
                (0u8..10, any::<Index>(), proptest::collection::vec(any::<Index>(), 0..4)),
                0..400,
            ),
        ) {
            let mut bad = bad.into_iter();
            let mut b = Bench::new(PROVED);
            let mut pending: BTreeSet<u64> = (1..=SAMPLES).collect();
            let (mut stored, mut rejected) = (BTreeSet::new(), BTreeSet::new());
            b.queue(1, SAMPLES + 1);
            let mut steps = 0u32;
            while !pending.is_empty() {
                steps += 1;
                prop_assert!(steps < 5_000, "it does not end: {:?}", pending);
                match b.commands.last().cloned() {
                    Some(Command::FetchKey { .. }) => {
                        b.fetched(Capabilities { batch, ..Default::default() });
                    }
                    Some(Command::Post { attempt, selection, .. }) => {
                        let (from, most) = match selection {
                            Selection::Single { from } => (from, 1),
                            Selection::Batch { from, records, .. } => (from, records),
                        };
                        let sent: Vec<u64> = pending.range(from..).take(most).copied().collect();
                        let result = if sent.is_empty() {
                            Answered::NothingToSend
                        } else if let Some(bad) = bad.next() {
                            answer(&sent, &bad)
                        } else {
                            kind_answer(&sent)
                        };
                        stored.extend(stored_by(&result));
                        b.tell(Event::Answer { attempt, result });
                    }
                    Some(Command::WakeAt(at)) => {
                        prop_assert!(at > b.now && at - b.now <= CAP + CAP / 2);
                        b.sleep();
                    }
                    // At rest with samples pending: the queue's next change goes on.
                    other => {
                        prop_assert!(!matches!(other, Some(Command::Finished)));
                        b.queue(*pending.first().unwrap(), SAMPLES + 1);
                    }
                }
                for command in b.commands.clone() {
                    match command {
                        Command::Reject { seq, .. } => {
                            prop_assert!(pending.remove(&seq), "{} was not pending", seq);
                            rejected.insert(seq);
                        }
                        Command::Acknowledge { up_to, .. } => {
                            let still: BTreeSet<u64> = pending.split_off(&(up_to + 1));
                            for seq in std::mem::replace(&mut pending, still) {
                                prop_assert!(stored.contains(&seq), "{} was never stored", seq);
                            }
                        }
                        Command::FetchKey { .. }
                        | Command::Post { .. }
                        | Command::Connect { .. }
                        | Command::SaveToken { .. }
                        | Command::Hello { .. }
                        | Command::Send { .. }
                        | Command::Ping { .. }
                        | Command::CloseLink { .. }
                        | Command::WakeAt(_)
                        | Command::Report(_)
                        | Command::Finished => {}
                    }
                }
            }
            prop_assert_eq!(stored.union(&rejected).count() as u64, SAMPLES);
        }
    }
}
