//! Random operations against a toy model, with reopening, reboots and clocks that jump as ordinary
//! ones.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

mod support;

use std::time::Duration;

use harborforge_storage::*;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use support::host::{Host, SECOND, YEAR};
use support::*;

#[derive(Debug, Clone)]
enum Op {
    /// Sizes of the payloads.
    Append(Vec<usize>),
    Read {
        ahead: u64,
        records: usize,
        bytes: usize,
    },
    /// This many numbers above the cursor; may point beyond the end.
    Acknowledge(u64),
    Reject(u64),
    GiveUp {
        ahead: u64,
        count: u64,
    },
    Announce,
    Maintain {
        seconds: u64,
    },
    Pin {
        ahead: u64,
    },
    Unpin,
    PurgeSent,
    PurgeRejected,
    /// Cleanly or as a kill would.
    Reopen {
        clean: bool,
        /// Seconds switched off, and seconds up before the queue is opened again.
        reboot: Option<(u64, u64)>,
    },
    /// The wall clock is set by so many seconds.
    Jump(i64),
}

fn op() -> impl Strategy<Value = Op> {
    let size = prop_oneof![8 => 0usize..400, 1 => 800usize..3000, 1 => Just(60_000)];
    prop_oneof![
        6 => prop::collection::vec(size, 0..20).prop_map(Op::Append),
        3 => (0u64..30, 0usize..30, 0usize..5000)
            .prop_map(|(ahead, records, bytes)| Op::Read { ahead, records, bytes }),
        4 => (0u64..25).prop_map(Op::Acknowledge),
        2 => (0u64..12).prop_map(Op::Reject),
        1 => (0u64..12, 0u64..15).prop_map(|(ahead, count)| Op::GiveUp { ahead, count }),
        1 => Just(Op::Announce),
        3 => (0u64..50).prop_map(|seconds| Op::Maintain { seconds }),
        1 => (0u64..20).prop_map(|ahead| Op::Pin { ahead }),
        1 => Just(Op::Unpin),
        1 => Just(Op::PurgeSent),
        1 => Just(Op::PurgeRejected),
        2 => (any::<bool>(), prop::option::of((0u64..100_000, 0u64..60)))
            .prop_map(|(clean, reboot)| Op::Reopen { clean, reboot }),
        1 => (-30i64..30).prop_map(|years| Op::Jump(years * (YEAR / SECOND) as i64)),
    ]
}

fn options_of(bound: Option<u64>, retain: u64, max_age: Option<u64>) -> Options {
    Options {
        generation_max_records: 12,
        generation_max_age: Duration::from_secs(100),
        retain_sent: Duration::from_secs(retain),
        queue_max_bytes: bound.unwrap_or(u64::MAX),
        queue_max_age: max_age.map(Duration::from_secs),
        ..Options::default()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Pending,
    Sent,
    Rejected,
    Gap,
    /// Rejected and then purged.
    Gone,
}

/// What the queue must be: a list.
#[derive(Default)]
struct Model {
    /// By number - 1.
    records: Vec<Known>,
    success: Option<u64>,
    /// Milliseconds the queue was open.
    open: u64,
}

struct Known {
    size: usize,
    state: State,
    /// When it was made: all time counts.
    made: u64,
    /// From when on the queue cannot but know its age: only time with the queue open counts.
    since: u64,
}

impl Model {
    fn set(&self, state: State) -> Vec<u64> {
        let of_state =
            |(at, record): (usize, &Known)| (record.state == state).then_some(at as u64 + 1);
        self.records.iter().enumerate().filter_map(of_state).collect()
    }

    fn cursor(&self) -> u64 {
        let head = self.records.iter().position(|r| r.state == State::Pending);
        head.unwrap_or(self.records.len()) as u64
    }

    fn bytes(&self, numbers: &[u64]) -> u64 {
        numbers.iter().map(|&n| self.records[n as usize - 1].size as u64).sum()
    }
}

fn run(ops: Vec<Op>, bound: Option<u64>, retain: u64, max_age: Option<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let options = options_of(bound, retain, max_age);
    let mut host = Host::new();
    let mut queue = Some(Queue::open(dir.path(), options.clone(), host.stamp()).unwrap().0);
    // Since the last opening.
    let mut maintained = false;
    let mut model = Model::default();
    let mut pins = Vec::new();
    for op in ops {
        let q = queue.as_mut().unwrap();
        let cursor = model.cursor();
        let last = model.records.len() as u64;
        match op {
            Op::Append(sizes) => {
                let payloads: Vec<_> = sizes
                    .iter()
                    .enumerate()
                    .map(|(at, &size)| payload(last + 1 + at as u64, size))
                    .collect();
                let records: Vec<_> = payloads
                    .iter()
                    .map(|payload| NewRecord { stamp: host.stamp(), payload })
                    .collect();
                let range = q.append(&records).unwrap();
                assert_eq!(range, last + 1..=last + sizes.len() as u64);
                let (made, since) = (host.passed, model.open);
                model.records.extend(payloads.iter().map(|payload| Known {
                    size: payload.len(),
                    state: State::Pending,
                    made,
                    since,
                }));
            }
            Op::Read { ahead, records, bytes } => {
                let from = cursor + ahead;
                let got = q.read(Set::Pending, from, Limits { records, bytes }).unwrap();
                let wanted = model.set(State::Pending).into_iter().filter(|&n| n >= from);
                let mut sum = 0;
                let mut expected = Vec::new();
                for number in wanted {
                    let size = model.records[number as usize - 1].size;
                    if !expected.is_empty() && (expected.len() >= records || sum + size > bytes) {
                        break;
                    }
                    sum += size;
                    expected.push(number);
                    if expected.len() >= records || sum >= bytes {
                        break;
                    }
                }
                assert_eq!(got.iter().map(|r| r.seq).collect::<Vec<_>>(), expected);
                for record in got {
                    let size = model.records[record.seq as usize - 1].size;
                    assert_eq!(record.payload, payload(record.seq, size));
                }
            }
            Op::Acknowledge(ahead) => {
                let up_to = cursor + ahead;
                let result = q.acknowledge(up_to, confirm(0));
                if up_to > last {
                    assert!(matches!(result, Err(Error::BeyondEnd { .. })));
                } else {
                    result.unwrap();
                    for number in cursor + 1..=up_to {
                        let state = &mut model.records[number as usize - 1].state;
                        if *state == State::Pending {
                            *state = State::Sent;
                            model.success = Some(number);
                        }
                    }
                }
            }
            Op::Reject(ahead) => {
                let number = cursor + ahead;
                let result = q.reject(number, "no", host.stamp());
                if number > last {
                    assert!(matches!(result, Err(Error::BeyondEnd { .. })));
                } else {
                    result.unwrap();
                    if number > 0 && model.records[number as usize - 1].state == State::Pending {
                        model.records[number as usize - 1].state = State::Rejected;
                    }
                }
            }
            Op::GiveUp { ahead, count } => {
                let (from, to) = (cursor + ahead, cursor + ahead + count);
                let result = q.give_up(from..=to, GapReason::Expired, false, host.stamp());
                if to > last {
                    assert!(matches!(result, Err(Error::BeyondEnd { .. })));
                } else {
                    result.unwrap();
                    for number in from.max(1)..=to {
                        let state = &mut model.records[number as usize - 1].state;
                        if *state == State::Pending {
                            *state = State::Gap;
                        }
                    }
                }
            }
            Op::Announce => {
                let told = q.unannounced_gaps();
                q.gaps_announced(&told).unwrap();
                assert_eq!(q.unannounced_gaps(), []);
            }
            Op::Maintain { seconds } => {
                host.pass(seconds * SECOND);
                model.open += seconds * SECOND;
                q.maintain(host.stamp()).unwrap();
                maintained = true;
                tell_given_up(q, &mut model, &host, max_age);
                if let Some(max_age) = max_age {
                    // An eighth more at most.
                    let limit = max_age * SECOND * 9 / 8;
                    let waits = |r: &&Known| r.state == State::Pending;
                    for known in model.records.iter().filter(waits) {
                        assert!(model.open - known.since <= limit, "kept too long");
                    }
                }
            }
            Op::Pin { ahead } => pins.push(q.pin(cursor..=cursor + ahead, host.stamp())),
            Op::Unpin => {
                if let Some(pin) = pins.pop() {
                    q.unpin(pin);
                }
            }
            Op::PurgeSent => {
                let done = q.purge(Purge::Sent, host.stamp()).unwrap();
                let left = numbers(q, Set::Sent).len() as u64;
                assert!(pins.is_empty() || left >= done.pinned);
                if pins.is_empty() {
                    assert_eq!(left, done.shared, "only what lies beside pending ones stays");
                }
            }
            // A pin keeps whole generations, which the model does not know.
            Op::PurgeRejected if !pins.is_empty() => {}
            Op::PurgeRejected => {
                let done = q.purge(Purge::Rejected, host.stamp()).unwrap();
                let rejected = model.set(State::Rejected);
                assert_eq!(done.gone.records, rejected.len() as u64);
                for number in rejected {
                    model.records[number as usize - 1].state = State::Gone;
                }
            }
            Op::Jump(seconds) => host.jump(seconds * SECOND as i64),
            Op::Reopen { clean, reboot } => {
                let old = queue.take().unwrap();
                if clean {
                    old.close().unwrap();
                } else {
                    drop(old);
                }
                pins.clear();
                if let Some((off, up)) = reboot {
                    host.reboot(off * SECOND, up * SECOND);
                    if !clean || !maintained {
                        // What was known of the boot before went with it.
                        let open = model.open;
                        model.records.iter_mut().for_each(|known| known.since = open);
                    }
                }
                maintained = false;
                let (new, report) = Queue::open(dir.path(), options.clone(), host.stamp()).unwrap();
                assert!(report.is_clean(), "{report:?}");
                queue = Some(new);
            }
        }
        tell_given_up(queue.as_ref().unwrap(), &mut model, &host, max_age);
        check(queue.as_mut().unwrap(), &model, bound);
    }
}

/// What the bounds took: only the oldest pending ones, as told, and for age only what is older.
fn tell_given_up(queue: &Queue, model: &mut Model, host: &Host, max_age: Option<u64>) {
    let known = model.set(State::Gap);
    for gap in queue.gaps() {
        for number in gap.from..=gap.to {
            if !known.contains(&number) {
                assert_eq!(model.set(State::Pending).first(), Some(&number));
                let record = &mut model.records[number as usize - 1];
                record.state = State::Gap;
                if gap.reason == GapReason::Expired {
                    let age = host.passed - record.made;
                    assert!(max_age.is_some_and(|max| age > max * SECOND), "{number}: {age} ms");
                } else {
                    assert_eq!(gap.reason, GapReason::QueueFull);
                }
            }
        }
    }
}

fn check(queue: &mut Queue, model: &Model, bound: Option<u64>) {
    let gaps: Vec<u64> = queue.gaps().iter().flat_map(|gap| gap.from..=gap.to).collect();
    assert_eq!(gaps, model.set(State::Gap));
    let pending = model.set(State::Pending);
    assert_eq!(numbers(queue, Set::Pending), pending);
    let stats = queue.stats();
    assert_eq!(stats.next_seq, model.records.len() as u64 + 1);
    assert_eq!(stats.cursor, model.cursor());
    assert_eq!(stats.pending.records, pending.len() as u64);
    assert_eq!(stats.pending.bytes, model.bytes(&pending));
    assert_eq!(stats.oldest_pending.is_some(), !pending.is_empty());
    if let Some(bound) = bound {
        // The newest append is kept even if it is over the bound alone.
        assert!(stats.pending.bytes <= bound.max(20 * 60_000));
    }
    let rejected = model.set(State::Rejected);
    assert_eq!(numbers(queue, Set::Rejected), rejected);
    assert_eq!(stats.rejected.records, rejected.len() as u64);
    // Delivered records may go, but nothing else may appear among them, and in order.
    let sent = numbers(queue, Set::Sent);
    assert!(
        sent.is_sorted() && sent.iter().all(|n| model.set(State::Sent).contains(n)),
        "{sent:?}"
    );
    assert_eq!(stats.sent.records, sent.len() as u64);
    assert_eq!(queue.last_success().map(|s| s.record.seq), model.success);
}

/// How many cases each test draws; `MODEL_CASES=2000` for a long run.
fn cases() -> u32 {
    std::env::var("MODEL_CASES").map_or(24, |text| text.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        max_shrink_iters: 300,
        // Beside this file, to be committed: a failure stays a test.
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn behaves_as_the_model(ops in prop::collection::vec(op(), 1..50), retain in prop_oneof![Just(0u64), Just(60)],
                            max_age in prop::option::of(20u64..200)) {
        run(ops, None, retain, max_age);
    }

    #[test]
    fn behaves_as_the_model_with_a_bound(ops in prop::collection::vec(op(), 1..50), bound in 1000u64..30_000,
                                         max_age in prop::option::of(20u64..200)) {
        run(ops, Some(bound), 30, max_age);
    }
}
