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
    /// One of the rejected, counted round; or, where there is none, this number.
    Unreject(u64),
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
    /// The files as they stand while the queue is open go on, as after SIGKILL.
    Kill,
    /// A file is flipped or cut short between closing and opening.
    Damage(Harm),
}

/// Which file is harmed, and how; the numbers are taken modulo what there is.
#[derive(Debug, Clone, Copy)]
struct Harm {
    file: usize,
    at: u64,
    cut: bool,
}

fn op() -> impl Strategy<Value = Op> {
    let size = prop_oneof![8 => 0usize..400, 1 => 800usize..3000, 1 => Just(60_000)];
    prop_oneof![
        6 => prop::collection::vec(size, 0..20).prop_map(Op::Append),
        3 => (0u64..30, 0usize..30, 0usize..5000)
            .prop_map(|(ahead, records, bytes)| Op::Read { ahead, records, bytes }),
        4 => (0u64..25).prop_map(Op::Acknowledge),
        2 => (0u64..12).prop_map(Op::Reject),
        2 => (1u64..60).prop_map(Op::Unreject),
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
        1 => Just(Op::Kill),
    ]
}

fn op_or_damage() -> impl Strategy<Value = Op> {
    let harm = (any::<usize>(), any::<u64>(), any::<bool>())
        .prop_map(|(file, at, cut)| Op::Damage(Harm { file, at, cut }));
    prop_oneof![9 => op(), 1 => harm]
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
    /// Something was damaged: what is still to be delivered may turn out to be unreadable.
    damaged: bool,
    /// So may the copies of what was rejected, the next time they are opened.
    copies_damaged: bool,
    /// Rejected ones that the receiver has taken after all.
    taken: Vec<u64>,
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

/// A generation that still takes records may turn out to be damaged when it does: the call fails,
/// and made again it goes to a fresh one.
fn again<T>(damaged: bool, mut step: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    match step() {
        Err(Error::Engine { .. }) if damaged => step(),
        result => result,
    }
}

fn run(ops: Vec<Op>, bound: Option<u64>, retain: u64, max_age: Option<u64>) {
    let mut dir = quick_dir();
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
                let range = again(model.damaged, || q.append(&records)).unwrap();
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
                let result = again(model.damaged, || q.reject(number, "no", host.stamp()));
                if number > last {
                    assert!(matches!(result, Err(Error::BeyondEnd { .. })));
                } else {
                    result.unwrap();
                    if number > 0 && model.records[number as usize - 1].state == State::Pending {
                        model.records[number as usize - 1].state = State::Rejected;
                    }
                }
            }
            Op::Unreject(which) => {
                let rejected = model.set(State::Rejected);
                let at = (which as usize).checked_rem(rejected.len());
                let number = at.map_or(which, |at| rejected[at]);
                let done = q.unreject(number).unwrap();
                let state =
                    model.records.get_mut(number as usize - 1).map(|record| &mut record.state);
                let state = state.filter(|state| **state == State::Rejected && number <= cursor);
                assert_eq!(done, state.is_some());
                if let Some(state) = state {
                    *state = State::Sent;
                    model.taken.push(number);
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
                    // What cannot be read any more is counted, and not shown.
                    let agrees = left == done.shared || (model.damaged && left < done.shared);
                    assert!(agrees, "{left} stay, {} lie beside pending ones", done.shared);
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
                assert!(report.is_clean() || model.damaged, "{report:?}");
                queue = Some(new);
            }
            Op::Kill => {
                let copy = quick_dir();
                copy_tree(dir.path(), copy.path());
                drop(queue.take());
                dir = copy;
                pins.clear();
                maintained = false;
                let (new, report) = Queue::open(dir.path(), options.clone(), host.stamp()).unwrap();
                assert!(report.missing.is_empty() || model.damaged, "{report:?}");
                queue = Some(new);
            }
            Op::Damage(harm) => {
                queue.take().unwrap().close().unwrap();
                pins.clear();
                maintained = false;
                let harmed = damage(dir.path(), harm);
                let (mut new, _) = Queue::open(dir.path(), options.clone(), host.stamp()).unwrap();
                model.take_over_damage(&mut new, &harmed);
                queue = Some(new);
            }
        }
        tell_given_up(queue.as_mut().unwrap(), &mut model, &host, max_age);
        check(queue.as_mut().unwrap(), &model, bound);
    }
}

/// Harms one file, but for the one that states the format; its name and that of its directory.
fn damage(dir: &std::path::Path, harm: Harm) -> String {
    let mut files = files_below(dir);
    files.retain(|path| !path.ends_with("FORMAT") && std::fs::metadata(path).unwrap().len() > 0);
    let path = &files[harm.file % files.len()];
    let mut bytes = std::fs::read(path).unwrap();
    let at = (harm.at % bytes.len() as u64) as usize;
    if harm.cut {
        bytes.truncate(at);
    } else {
        bytes[at] ^= 1 << (harm.at % 8);
    }
    std::fs::write(path, bytes).unwrap();
    path.strip_prefix(dir.join("queue")).unwrap().display().to_string()
}

impl Model {
    /// After damage to a file the model goes on from what the queue says now; but only what that
    /// file vouches for may have changed, and every number must be somewhere.
    fn take_over_damage(&mut self, queue: &mut Queue, harmed: &str) {
        self.damaged = true;
        self.copies_damaged |= harmed.contains(".rejected/");
        let pending = numbers(queue, Set::Pending);
        let rejected = numbers(queue, Set::Rejected);
        let gaps: Vec<u64> = queue.gaps().iter().flat_map(|gap| gap.from..=gap.to).collect();
        let stats = queue.stats();
        let last = stats.next_seq - 1;
        assert!(last >= self.records.len() as u64, "{harmed}: numbers would be used again");
        for number in 1..=last {
            let known = self.records.get(number as usize - 1).map(|record| record.state);
            let found = if pending.contains(&number) {
                State::Pending
            } else if gaps.contains(&number) {
                State::Gap
            } else if rejected.contains(&number) {
                State::Rejected
            } else if known == Some(State::Gone) {
                State::Gone
            } else {
                assert!(number <= stats.cursor, "{harmed}: {number} is gone without a word");
                State::Sent
            };
            let fits = match (known, found) {
                // Numbers that nobody knows to have been given out.
                (None, found) => found == State::Gap,
                (Some(State::Pending), State::Gap) => true,
                // Twice is better than never; and what was delivered may be unreadable by now.
                (Some(State::Sent), State::Pending | State::Gap) => harmed == "cursor",
                // The manifest says that its copy counts no more.
                (Some(State::Sent), State::Rejected) => {
                    harmed == "manifest" && self.taken.contains(&number)
                }
                // The manifest says that it was purged; without a word it may count as it did before.
                (Some(State::Gone), State::Pending | State::Gap) => {
                    harmed == "manifest" || harmed == "cursor"
                }
                // What would not be delivered may be, if that is what is not known any more.
                (Some(State::Gap), State::Pending) => harmed == "manifest",
                // The reason is lost, and with it that it was not delivered.
                (Some(State::Gap), State::Sent) => harmed == "manifest",
                (Some(State::Rejected), State::Pending | State::Sent | State::Gap) => {
                    self.copies_damaged
                }
                (Some(known), found) => known == found,
            };
            assert!(fits, "{harmed}: {number} was {known:?} and is {found:?}");
            match self.records.get_mut(number as usize - 1) {
                Some(record) => record.state = found,
                None => self.records.push(Known { size: 0, state: found, made: 0, since: 0 }),
            }
        }
        self.success = queue.last_success().map(|success| success.record.seq);
    }

    /// What damage may still take: a record that is to be delivered, when it is read.
    fn lose_what_was_damaged(&mut self, queue: &mut Queue) {
        // Reading finds it.
        let _ = numbers(queue, Set::Pending);
        for gap in queue.gaps().iter().filter(|gap| gap.reason == GapReason::Corrupt) {
            for number in gap.from..=gap.to {
                let state = &mut self.records[number as usize - 1].state;
                if *state == State::Pending {
                    *state = State::Gap;
                }
            }
        }
    }
}

/// What the bounds took: only the oldest pending ones, as told, and for age only what is older.
fn tell_given_up(queue: &mut Queue, model: &mut Model, host: &Host, max_age: Option<u64>) {
    if model.damaged {
        model.lose_what_was_damaged(queue);
    }
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
    // What cannot be read any more is not known by its size, nor missed among what was delivered.
    let agrees = |stated, actual| stated == actual || (model.damaged && stated > actual);
    assert!(agrees(stats.pending.bytes, model.bytes(&pending)));
    assert_eq!(stats.oldest_pending.is_some(), !pending.is_empty());
    if let Some(bound) = bound {
        // The newest append is kept even if it is over the bound alone.
        assert!(stats.pending.bytes <= bound.max(20 * 60_000));
    }
    let rejected = model.set(State::Rejected);
    assert_eq!(numbers(queue, Set::Rejected), rejected);
    assert!(agrees(stats.rejected.records, rejected.len() as u64));
    // Delivered records may go, but nothing else may appear among them, and in order.
    let sent = numbers(queue, Set::Sent);
    let mut owed_nothing = model.set(State::Sent);
    if model.damaged {
        // The manifest says which of them were not delivered but rejected, purged or given up.
        let settled = [State::Rejected, State::Gone, State::Gap];
        owed_nothing.extend(settled.into_iter().flat_map(|state| model.set(state)));
    }
    assert!(sent.is_sorted() && sent.iter().all(|n| owed_nothing.contains(n)), "{sent:?}");
    assert!(agrees(stats.sent.records, sent.len() as u64));
    let success = queue.last_success().map(|s| s.record.seq);
    assert!(success == model.success || model.damaged);
}

/// Found by the model: with the newest slot of the cursor gone the one before it counts, and a
/// record that was rejected in between was a gap as well.
#[test]
fn a_cursor_gone_back_makes_no_gap_of_what_was_rejected() {
    for slot in [0, 4096] {
        let dir = quick_dir();
        let options = options_of(None, 0, None);
        let mut queue = open(dir.path(), &options);
        append(&mut queue, 24, 100);
        queue.acknowledge(5, confirm(1)).unwrap();
        queue.reject(12, "no", stamp(1)).unwrap();
        queue.acknowledge(11, confirm(1)).unwrap();
        queue.maintain(stamp(1)).unwrap();
        assert_eq!((queue.stats().cursor, generations(dir.path(), "pending").len()), (12, 1));
        queue.close().unwrap();
        let path = dir.path().join("queue/cursor");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[slot + 20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let mut queue = open(dir.path(), &options);
        assert!(queue.gaps().iter().all(|gap| gap.to < 12), "{:?}", queue.gaps());
        assert_eq!(numbers(&mut queue, Set::Rejected), [12]);
        assert_eq!(numbers(&mut queue, Set::Pending), (13..=24).collect::<Vec<_>>());
    }
}

/// More: `HARBORFORGE_MODEL_CASES=2000 cargo test -p harborforge-storage --test model`.
fn cases() -> u32 {
    std::env::var("HARBORFORGE_MODEL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(24)
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
    fn behaves_as_the_model_but_for_what_is_damaged(ops in prop::collection::vec(op_or_damage(), 1..50), retain in prop_oneof![Just(0u64), Just(60)]) {
        run(ops, None, retain, None);
    }

    #[test]
    fn behaves_as_the_model_with_a_bound(ops in prop::collection::vec(op(), 1..50), bound in 1000u64..30_000,
                                         max_age in prop::option::of(20u64..200)) {
        run(ops, Some(bound), 30, max_age);
    }
}
