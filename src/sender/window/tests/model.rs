//! Random operations against a model that keeps every sample and Ping by itself and asks the
//! protocol's sentences of each of them.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use super::*;

#[derive(Debug, Clone)]
enum Operation {
    /// Sends up to so many samples of so many bytes, as far as there is room, and skips so many
    /// numbers before each; then sends the Ping that is due.
    Send { samples: usize, bytes: usize, skip: u64 },
    /// An acknowledgement, this far (in 1/8) along what was sent, and so much beyond it.
    Ack { eighths: u64, beyond: u64 },
    /// A rejection, this far (in 1/8) along what was sent.
    Reject { eighths: u64 },
    /// A Pong to one of the Pings sent so far, answered or not.
    Pong { eighths: usize },
    /// A Pong to no Ping of ours.
    Stranger,
    /// `"ok":false`.
    NotOk,
    /// A Ping for other reasons.
    Ping,
    /// Time passes; then the Ping that is due is sent.
    Wait { millis: u64 },
    /// The link is lost and another one opens; or it was given up.
    Reopen { give_up: bool },
}

fn operation() -> impl Strategy<Value = Operation> {
    let size = prop_oneof![8 => 1usize..2000, 1 => Just(MAX_ENCODED)];
    prop_oneof![
        6 => (1usize..200, size, prop_oneof![9 => Just(0u64), 1 => 1u64..5])
            .prop_map(|(samples, bytes, skip)| Operation::Send { samples, bytes, skip }),
        4 => (0u64..=8, prop_oneof![9 => Just(0u64), 1 => 1u64..3])
            .prop_map(|(eighths, beyond)| Operation::Ack { eighths, beyond }),
        1 => (0u64..=8).prop_map(|eighths| Operation::Reject { eighths }),
        6 => (0usize..=8).prop_map(|eighths| Operation::Pong { eighths }),
        1 => Just(Operation::Stranger),
        1 => Just(Operation::NotOk),
        1 => Just(Operation::Ping),
        6 => (0u64..7000).prop_map(|millis| Operation::Wait { millis }),
        1 => any::<bool>().prop_map(|give_up| Operation::Reopen { give_up }),
    ]
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum State {
    InFlight,
    Read(Duration),
    Gone,
}

#[derive(Debug)]
struct Sample {
    seq: u64,
    bytes: usize,
    /// Pings sent before it.
    pings_before: usize,
    state: State,
}

/// One link as the protocol tells it, without any cleverness.
#[derive(Debug)]
struct Model {
    mode: Mode,
    samples: Vec<Sample>,
    /// Payload and time of each Ping.
    pings: Vec<([u8; 8], Duration)>,
    /// Pings before this index are answered.
    answered: usize,
}

impl Model {
    fn new(mode: Mode) -> Self {
        Self { mode, samples: Vec::new(), pings: Vec::new(), answered: 0 }
    }

    fn last_sent(&self) -> u64 {
        self.samples.last().map_or(0, |sample| sample.seq)
    }

    /// Takes away what `stored` says is stored, and tells what that confirms.
    fn confirm(&mut self, stored: impl Fn(&Sample) -> bool) -> Option<Confirmed> {
        let mut result: Option<Confirmed> = None;
        for sample in &mut self.samples {
            if sample.state != State::Gone && stored(sample) {
                let so_far = result.get_or_insert(Confirmed { up_to: 0, samples: 0, bytes: 0 });
                so_far.up_to = sample.seq;
                so_far.samples += 1;
                so_far.bytes += sample.bytes;
                sample.state = State::Gone;
            }
        }
        result
    }

    fn pong(&mut self, now: Duration, index: usize) -> Option<Confirmed> {
        if index < self.answered {
            return None;
        }
        self.answered = index + 1;
        let (_, ping_at) = self.pings[index];
        let confirmed = self.confirm(
            |sample| matches!(sample.state, State::Read(at) if at + BARRIER_DELAY <= ping_at),
        );
        for sample in &mut self.samples {
            if sample.state == State::InFlight && sample.pings_before <= index {
                sample.state = State::Read(now);
            }
        }
        confirmed
    }

    fn count(&self, which: impl Fn(&State) -> bool) -> Limits {
        let mut sum = Limits::default();
        for sample in self.samples.iter().filter(|sample| which(&sample.state)) {
            sum.add(1, sample.bytes);
        }
        sum
    }
}

fn ping(window: &mut Window, model: &mut Model, now: Duration, due: bool) {
    let payload = if due { window.ping_due(now) } else { Some(window.ping(now)) };
    let Some(payload) = payload else { return };
    assert!(model.pings.iter().all(|(known, _)| *known != payload), "each Ping has its own name");
    if model.mode == Mode::Ping {
        model.pings.push((payload, now));
    }
}

fn run(mode: Mode, operations: Vec<Operation>) {
    let mut window = open(mode);
    let mut model = Model::new(mode);
    let mut now = Duration::ZERO;
    let mut next = 1;
    // Every number ever confirmed; a number is confirmed once, whatever became of the links.
    let mut stored = 0;
    // A refusal without a number came, and the window has not been whole since.
    let mut suspicious = false;
    for operation in operations {
        let mut confirmed = None;
        let mut expected = None;
        match operation {
            Operation::Send { samples, bytes, skip } => {
                let room = window.room();
                let fit = room.samples.min(room.bytes / bytes).min(samples);
                let sent: Vec<_> = (0..fit as u64).map(|i| (next + skip + i, bytes)).collect();
                window.sent(now, &sent);
                model.samples.extend(sent.iter().map(|&(seq, bytes)| Sample {
                    seq,
                    bytes,
                    pings_before: model.pings.len(),
                    state: State::InFlight,
                }));
                next = sent.last().map_or(next, |(seq, _)| seq + 1);
                ping(&mut window, &mut model, now, true);
                let open = model.mode == Mode::Ping && !sent.is_empty();
                assert!(!open || model.pings.last().unwrap().1 == now, "a barrier closes it");
            }
            Operation::Ack { eighths, beyond } => {
                let last = model.last_sent();
                let seq = if beyond > 0 { last + beyond } else { last * eighths / 8 };
                match window.acked(now, seq) {
                    Err(_) => assert!(mode == Mode::Ack && beyond > 0),
                    Ok(result) if mode == Mode::Ping => assert_eq!(result, None),
                    Ok(result) => {
                        assert_eq!(beyond, 0);
                        confirmed = result;
                        expected = model.confirm(|sample| sample.seq <= seq);
                    }
                }
            }
            Operation::Reject { eighths } => {
                let seq = model.last_sent() * eighths / 8;
                let here =
                    |sample: &&mut Sample| sample.seq == seq && sample.state == State::InFlight;
                let there = model.samples.iter_mut().find(here);
                assert_eq!(window.rejected(seq), there.is_some());
                there.into_iter().for_each(|sample| sample.state = State::Gone);
            }
            Operation::Pong { eighths } => {
                let index = model.pings.len() * eighths / 8;
                if let Some((payload, _)) = model.pings.get(index) {
                    confirmed = window.ponged(now, *payload);
                    expected = model.pong(now, index);
                }
            }
            Operation::Stranger => confirmed = window.ponged(now, *b"stranger"),
            Operation::NotOk => {
                let before = window.oldest_unconfirmed();
                let (Refusal::Halved { oldest: again } | Refusal::Sample(again)) =
                    window.refused(now)
                else {
                    continue;
                };
                assert_eq!(Some(again), before);
                next = again;
                suspicious = true;
                model.samples.clear();
            }
            Operation::Ping => ping(&mut window, &mut model, now, false),
            Operation::Wait { millis } => {
                now += Duration::from_millis(millis);
                ping(&mut window, &mut model, now, true);
                assert!(window.next_deadline().is_none_or(|at| at > now || window.expired(now)));
            }
            Operation::Reopen { give_up } => {
                next = window.oldest_unconfirmed().unwrap_or(next);
                if give_up {
                    window.give_up()
                } else {
                    window.close()
                }
                assert_eq!(window.unconfirmed(), Limits::default());
                window.open(mode);
                model = Model::new(mode);
                suspicious = false;
            }
        }
        suspicious &= window.limit() != Limits::FULL;
        assert_eq!(confirmed, expected);
        if let Some(Confirmed { up_to, .. }) = confirmed {
            assert!(up_to > stored, "each number once, and in order");
            stored = up_to;
        }
        let unconfirmed = model.count(|state| *state != State::Gone);
        assert_eq!(window.unconfirmed(), unconfirmed);
        assert_eq!(window.in_flight(), model.count(|state| *state == State::InFlight));
        let oldest = model.samples.iter().find(|sample| sample.state != State::Gone);
        assert_eq!(window.oldest_unconfirmed(), oldest.map(|sample| sample.seq));
        assert!(window.in_flight().samples <= window.limit().samples);
        assert!(window.in_flight().bytes <= window.limit().bytes);
        assert!(window.limit().samples <= WINDOW_SAMPLES && window.limit().bytes <= WINDOW_BYTES);
        assert!(!suspicious || unconfirmed.samples <= window.limit().samples);
        let waits = unconfirmed.samples > 0 || window.settling.is_some();
        assert_eq!(window.expires_at().is_some(), waits);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]
    #[test]
    fn acknowledgements_keep_the_invariants(
        operations in prop::collection::vec(operation(), 1..200),
    ) {
        run(Mode::Ack, operations);
    }

    #[test]
    fn the_ping_barrier_keeps_the_invariants(
        operations in prop::collection::vec(operation(), 1..200),
    ) {
        run(Mode::Ping, operations);
    }
}
