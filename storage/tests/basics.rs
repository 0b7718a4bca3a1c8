//! The queue's ordinary life: append, read, acknowledge, reject, give up, reopen.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

mod support;

use std::time::Duration;

use harborforge_storage::*;
use support::*;

fn small() -> Options {
    Options { generation_max_records: 10, ..options() }
}

#[test]
fn what_was_appended_is_read_in_order_until_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &small());
    assert_eq!(append(&mut queue, 25, 100), 1..=25);
    assert_eq!(append(&mut queue, 1, 100), 26..=26);
    let records = queue.read(Set::Pending, 0, Limits { records: 7, bytes: usize::MAX }).unwrap();
    assert_eq!(records.iter().map(|r| r.seq).collect::<Vec<_>>(), (1..=7).collect::<Vec<_>>());
    assert_eq!(records[6].payload, payload(7, 100));
    assert_eq!(records[6].stamp, stamp(0));
    assert_eq!(records[6].epoch, queue.stats().epoch);
    // By bytes: two of 100 fit into 250, one comes whatever the limit.
    assert_eq!(queue.read(Set::Pending, 5, Limits { records: 9, bytes: 250 }).unwrap().len(), 2);
    assert_eq!(queue.read(Set::Pending, 5, Limits { records: 0, bytes: 0 }).unwrap().len(), 1);

    queue.acknowledge(12, confirm(5)).unwrap();
    queue.acknowledge(3, confirm(6)).unwrap();
    assert_eq!(numbers(&mut queue, Set::Pending), (13..=26).collect::<Vec<_>>());
    assert_eq!(queue.last_success().unwrap().record.seq, 12);
    let stats = queue.stats();
    assert_eq!((stats.pending, stats.cursor), (Tally { records: 14, bytes: 1400 }, 12));
    match queue.acknowledge(27, confirm(7)) {
        Err(Error::BeyondEnd { seq: 27, last: 26 }) => {}
        other => panic!("{other:?}"),
    }

    let epoch = stats.epoch;
    drop(queue);
    let (mut queue, report) = Queue::open(dir.path(), small(), stamp(9)).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_ne!(queue.stats().epoch, epoch);
    assert_eq!(queue.stats().pending, Tally { records: 14, bytes: 1400 });
    assert_eq!(numbers(&mut queue, Set::Pending), (13..=26).collect::<Vec<_>>());
    let success = queue.last_success().unwrap();
    assert_eq!((success.record.seq, success.at), (12, confirm(5)));
    assert_eq!(append(&mut queue, 1, 10), 27..=27);
    assert!(queue.gaps().is_empty());
}

#[test]
fn numbers_are_never_used_twice_and_the_disk_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &small());
    for round in 0..3u64 {
        append(&mut queue, 40, 2000);
        queue.acknowledge(40 * (round + 1), confirm(1)).unwrap();
        queue.maintain(stamp(round)).unwrap();
    }
    // Too old to take more: it goes as well, and nothing is left but the small files.
    queue.maintain(stamp(100_000)).unwrap();
    assert_eq!(queue.stats().generations, 0);
    assert!(queue.stats().disk_bytes < 100_000, "{}", queue.stats().disk_bytes);
    queue.close().unwrap();
    let mut queue = open(dir.path(), &small());
    assert_eq!(queue.last_success().unwrap().record.payload, payload(120, 2000));
    assert_eq!(append(&mut queue, 1, 1), 121..=121);
}

#[test]
fn a_drained_generation_that_is_large_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &options());
    append(&mut queue, 1000, 800);
    queue.acknowledge(1000, confirm(1)).unwrap();
    queue.maintain(stamp(1)).unwrap();
    assert!(queue.stats().disk_bytes < 1024 * 1024, "{}", queue.stats().disk_bytes);
    assert_eq!(append(&mut queue, 1, 1), 1001..=1001);
}

#[test]
fn rejected_records_are_kept_with_their_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &small());
    append(&mut queue, 15, 50);
    queue.reject(5, "too strange", stamp(3)).unwrap();
    queue.reject(1, "first", stamp(4)).unwrap();
    assert_eq!(queue.stats().cursor, 1);
    queue.reject(1, "again", stamp(5)).unwrap();
    assert_eq!(queue.stats().pending, Tally { records: 13, bytes: 650 });
    queue.acknowledge(4, confirm(5)).unwrap();
    // The cursor passes the one rejected ahead of it.
    assert_eq!(queue.stats().cursor, 5);
    assert_eq!(queue.last_success().unwrap().record.seq, 4);
    drop(queue);
    let mut queue = open(dir.path(), &small());
    queue.reject(9, "ahead", stamp(6)).unwrap();
    drop(queue);
    let mut queue = open(dir.path(), &small());
    assert_eq!(numbers(&mut queue, Set::Pending), [6, 7, 8, 10, 11, 12, 13, 14, 15]);
    assert_eq!(queue.stats().pending, Tally { records: 9, bytes: 450 });
    assert_eq!(numbers(&mut queue, Set::Sent), [2, 3, 4]);
    let rejected = queue.rejected(0, ALL).unwrap();
    let told: Vec<_> = rejected.iter().map(|r| (r.record.seq, r.reason.as_str())).collect();
    assert_eq!(told, [(1, "first"), (5, "too strange"), (9, "ahead")]);
    assert_eq!(rejected[1].record.payload, payload(5, 50));
    assert_eq!(rejected[1].wall_ms, stamp(3).wall_ms);
    assert_eq!(queue.rejected(2, Limits { records: 1, bytes: 0 }).unwrap()[0].record.seq, 5);
    assert_eq!(queue.stats().rejected.records, 3);
}

#[test]
fn rejected_records_come_in_order_however_they_lie() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &Options { generation_max_records: 2, ..options() });
    for size in [10, 10, 10, 10, 1000, 10, 10] {
        append(&mut queue, 1, size);
    }
    // Two to a generation: 1 and 5, then 7 and 3.
    for seq in [1, 5, 7, 3] {
        queue.reject(seq, "no", stamp(0)).unwrap();
    }
    let limits = Limits { records: 9, bytes: 100 };
    let mut next = 0;
    let mut portions = Vec::new();
    while let Some(last) = queue.rejected(next, limits).unwrap().last() {
        let portion = queue.rejected(next, limits).unwrap();
        portions.push(portion.iter().map(|r| r.record.seq).collect::<Vec<_>>());
        next = last.record.seq + 1;
    }
    assert_eq!(portions, [vec![1, 3], vec![5], vec![7]]);
}

#[test]
fn what_is_given_up_is_a_gap_until_it_is_announced() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &small());
    append(&mut queue, 30, 50);
    queue.acknowledge(2, confirm(1)).unwrap();
    queue.give_up(1..=14, GapReason::Expired, true, stamp(2)).unwrap();
    let gap = queue.unannounced_gaps()[0];
    assert_eq!(
        (gap.from, gap.to, gap.reason, gap.maybe_delivered),
        (3, 14, GapReason::Expired, true)
    );
    assert_eq!(queue.stats().cursor, 14);
    drop(queue);
    let mut queue = open(dir.path(), &small());
    assert_eq!(queue.unannounced_gaps(), [gap]);
    queue.gaps_announced(&[gap]).unwrap();
    drop(queue);
    let mut queue = open(dir.path(), &small());
    assert_eq!(queue.unannounced_gaps(), []);
    assert_eq!(queue.gaps(), [Gap { announced: true, ..gap }]);
    assert_eq!(numbers(&mut queue, Set::Pending), (15..=30).collect::<Vec<_>>());
    queue.maintain(stamp(3)).unwrap();
    assert_eq!(queue.stats().generations, 2);
}

#[test]
fn the_bound_gives_up_the_oldest_and_never_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let bounded = Options { queue_max_bytes: 8000, ..small() };
    let mut queue = open(dir.path(), &bounded);
    for _ in 0..300 {
        append(&mut queue, 1, 100);
        queue.maintain(stamp(1)).unwrap();
        assert!(queue.stats().pending.bytes <= 8000);
    }
    let pending = numbers(&mut queue, Set::Pending);
    assert!(pending.len() >= 70 && pending.last() == Some(&300), "{pending:?}");
    let gaps = queue.gaps();
    assert_eq!(gaps.len(), 1);
    assert_eq!((gaps[0].from, gaps[0].to), (1, pending[0] - 1));
    assert_eq!((gaps[0].reason, gaps[0].maybe_delivered), (GapReason::QueueFull, false));
    // One that is over the bound all alone is kept nevertheless.
    let at = append(&mut queue, 1, 20_000);
    assert_eq!(numbers(&mut queue, Set::Pending), [*at.start()]);
}

#[test]
fn delivered_records_are_kept_for_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let keeping = Options { retain_sent: Duration::from_secs(100), ..small() };
    let mut queue = open(dir.path(), &keeping);
    append(&mut queue, 35, 50);
    queue.reject(3, "no", stamp(0)).unwrap();
    queue.acknowledge(33, confirm(1)).unwrap();
    let done = queue.maintain(stamp(1)).unwrap();
    assert_eq!((done.kept, done.sealed), (3, 3));
    let sent: Vec<u64> = (1..=33).filter(|n| *n != 3).collect();
    assert_eq!(numbers(&mut queue, Set::Sent), sent);
    assert_eq!(queue.stats().sent.records, 32);
    assert_eq!(generations(dir.path(), "sent").len(), 3);
    drop(queue);
    let mut queue = open(dir.path(), &keeping);
    assert_eq!(numbers(&mut queue, Set::Sent), sent);
    queue.maintain(stamp(102)).unwrap();
    assert_eq!(numbers(&mut queue, Set::Sent), [31, 32, 33]);
    assert_eq!(numbers(&mut queue, Set::Pending), [34, 35]);
}

#[test]
fn a_pinned_generation_outlives_its_acknowledgement() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &small());
    append(&mut queue, 30, 50);
    let pin = queue.pin(1..=5, stamp(0));
    let held = queue.pin(11..=11, stamp(0));
    queue.acknowledge(30, confirm(1)).unwrap();
    queue.maintain(stamp(1)).unwrap();
    assert_eq!(generations(dir.path(), "pending").len(), 2);
    queue.unpin(pin);
    queue.maintain(stamp(2)).unwrap();
    assert_eq!(generations(dir.path(), "pending").len(), 1);
    // One that is never given back ends by itself.
    queue.maintain(stamp(601)).unwrap();
    assert_eq!(generations(dir.path(), "pending").len(), 0);
    drop(held);
}

#[test]
fn the_second_process_is_told_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let _queue = open(dir.path(), &small());
    match Queue::open(dir.path(), small(), stamp(0)) {
        Err(Error::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn a_record_too_large_is_refused_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &options());
    let large = vec![1; MAX_PAYLOAD + 1];
    let record = NewRecord { stamp: stamp(0), payload: &large };
    assert!(matches!(queue.append(&[record]), Err(Error::TooLarge { .. })));
    let at_limit = NewRecord { stamp: stamp(0), payload: &large[1..] };
    assert_eq!(queue.append(&[at_limit]).unwrap(), 1..=1);
    assert!(queue.append(&[]).unwrap().is_empty());
    assert_eq!(queue.read(Set::Pending, 0, ALL).unwrap()[0].payload, large[1..]);
}
