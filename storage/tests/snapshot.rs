//! A live queue read as it stood at one moment.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

mod support;

use harborforge_storage::*;
use support::*;

const SETS: [Set; 3] = [Set::Pending, Set::Sent, Set::Rejected];
const FEW: Limits = Limits { records: 7, bytes: 10_000 };

fn small() -> Options {
    Options {
        generation_max_records: 20,
        retain_sent: std::time::Duration::from_secs(60),
        ..Options::default()
    }
}

/// Reads a snapshot to its end, doing something to the queue between the portions.
fn read_all(
    queue: &mut Queue,
    sets: &[Set],
    numbers: std::ops::RangeInclusive<u64>,
    mut between: impl FnMut(&mut Queue),
) -> Vec<(u64, Set)> {
    let mut snapshot = queue.snapshot(sets, numbers, stamp(0));
    let mut seen = Vec::new();
    loop {
        let shown = queue.read_snapshot(&mut snapshot, FEW).unwrap();
        assert_eq!(shown.problems, []);
        assert!(shown.entries.len() <= 2 * FEW.records);
        for entry in &shown.entries {
            assert_eq!(entry.record.payload, payload(entry.record.seq, 300));
            assert_eq!(entry.rejection.is_some(), entry.set == Set::Rejected);
        }
        seen.extend(shown.entries.iter().map(|entry| (entry.record.seq, entry.set)));
        if shown.done {
            queue.end_snapshot(snapshot);
            return seen;
        }
        between(queue);
    }
}

#[test]
fn it_shows_every_set_in_the_order_of_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &small());
    append(&mut queue, 100, 300);
    queue.reject(10, "no", stamp(1)).unwrap();
    queue.reject(60, "no", stamp(1)).unwrap();
    queue.acknowledge(45, confirm(1)).unwrap();
    queue.give_up(50..=55, GapReason::Expired, false, stamp(1)).unwrap();
    queue.maintain(stamp(2)).unwrap();
    let expected = |sets: &[Set], numbers: std::ops::RangeInclusive<u64>| {
        let of = |seq: u64| match seq {
            10 | 60 => Some(Set::Rejected),
            50..=55 => None,
            1..=45 => Some(Set::Sent),
            _ => Some(Set::Pending),
        };
        numbers
            .filter_map(|seq| Some((seq, of(seq)?)))
            .filter(|(_, set)| sets.contains(set))
            .collect::<Vec<_>>()
    };
    for sets in [&SETS[..], &SETS[..1], &SETS[1..2], &SETS[2..], &SETS[1..]] {
        assert_eq!(read_all(&mut queue, sets, 1..=u64::MAX, |_| ()), expected(sets, 1..=100));
        assert_eq!(read_all(&mut queue, sets, 40..=61, |_| ()), expected(sets, 40..=61));
        assert_eq!(read_all(&mut queue, sets, 101..=200, |_| ()), []);
    }
    let snapshot = queue.snapshot(&SETS, 1..=u64::MAX, stamp(3));
    assert_eq!((snapshot.gaps().len(), snapshot.last()), (1, 100));
    queue.end_snapshot(snapshot);
}

#[test]
fn what_happens_meanwhile_does_not_change_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { retain_sent: std::time::Duration::ZERO, ..small() };
    let mut queue = open(dir.path(), &options);
    append(&mut queue, 200, 300);
    queue.acknowledge(3, confirm(1)).unwrap();
    let mut confirmed = 3;
    let mut rounds = 0;
    let seen = read_all(&mut queue, &SETS, 1..=u64::MAX, |queue| {
        rounds += 1;
        append(queue, 5, 300);
        confirmed += 30;
        let last = queue.position().next_seq - 1;
        queue.acknowledge(confirmed.min(last), confirm(2)).unwrap();
        if rounds == 2 {
            queue.reject(150, "no", stamp(2)).unwrap();
            queue.give_up(120..=130, GapReason::Expired, false, stamp(2)).unwrap();
        }
        queue.maintain(stamp(2)).unwrap();
    });
    let expected: Vec<_> = (1..=3)
        .map(|seq| (seq, Set::Sent))
        .chain((4..=200).map(|seq| (seq, Set::Pending)))
        .collect();
    assert_eq!(seen, expected);
    assert!(rounds > 20);
    // Given back, the drained generations go.
    let last = queue.position().next_seq - 1;
    queue.acknowledge(last, confirm(3)).unwrap();
    queue.maintain(stamp(4)).unwrap();
    assert_eq!(generations(dir.path(), "sent").len(), 0);
    assert!(generations(dir.path(), "pending").len() <= 1);
}

#[test]
fn a_reader_that_takes_too_long_is_told_what_has_gone() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        retain_sent: std::time::Duration::ZERO,
        pin_limit: std::time::Duration::from_secs(10),
        ..small()
    };
    let mut queue = open(dir.path(), &options);
    append(&mut queue, 100, 300);
    let mut snapshot = queue.snapshot(&SETS, 1..=u64::MAX, stamp(0));
    let first = queue.read_snapshot(&mut snapshot, FEW).unwrap();
    assert_eq!(first.entries.len(), 7);
    queue.acknowledge(60, confirm(1)).unwrap();
    queue.maintain(stamp(100)).unwrap();
    let (mut seen, mut told) = (7u64, 0);
    loop {
        let shown = queue.read_snapshot(&mut snapshot, FEW).unwrap();
        seen += shown.entries.len() as u64;
        told += shown.problems.iter().map(|p| p.to - p.from + 1).sum::<u64>();
        if shown.done {
            break;
        }
    }
    assert_eq!((told, seen), (60 - 7, 47), "8 to 60 have gone, the rest is there");
    queue.end_snapshot(snapshot);
}

#[test]
fn the_tail_begins_where_enough_follow() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &small());
    append(&mut queue, 100, 300);
    for seq in [10, 60, 61, 99] {
        queue.reject(seq, "no", stamp(1)).unwrap();
    }
    queue.acknowledge(45, confirm(1)).unwrap();
    queue.give_up(50..=55, GapReason::Expired, false, stamp(1)).unwrap();
    queue.maintain(stamp(2)).unwrap();
    for sets in [&SETS[..], &SETS[..1], &SETS[1..2], &SETS[2..], &SETS[1..], &SETS[..2]] {
        let all = read_all(&mut queue, sets, 1..=u64::MAX, |_| ());
        for count in [1, 2, 3, 5, 20, 40, 60, 99, 200, u64::MAX] {
            let from = queue.tail(sets, count);
            let wanted = all.len().saturating_sub(usize::try_from(count).unwrap());
            let newest = &all[wanted..];
            let found = read_all(&mut queue, sets, from..=u64::MAX, |_| ());
            assert!(found.ends_with(newest), "{sets:?} {count}: from {from}: {found:?}");
            // Numbers alone tell it for what is not rejected.
            if !sets.contains(&Set::Rejected) {
                assert_eq!(found, newest, "{sets:?} {count}");
            }
        }
    }
    assert_eq!(queue.tail(&SETS, 0), 101);
}

#[test]
fn what_came_and_went_is_told_in_order_and_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &small());
    append(&mut queue, 10, 300);
    let mut watch = queue.watch();
    assert_eq!(queue.changes(&mut watch, 99), News::default());
    append(&mut queue, 5, 300);
    queue.reject(3, "no", stamp(1)).unwrap();
    queue.acknowledge(12, confirm(2)).unwrap();
    queue.give_up(13..=14, GapReason::Expired, false, stamp(3)).unwrap();
    let change =
        |from, to, became, at: u64| Change { from, to, became, wall_ms: stamp(at).wall_ms };
    let news = queue.changes(&mut watch, 99);
    assert!(!news.missed);
    assert_eq!(
        news.changes,
        [
            change(11, 15, Became::Pending, 0),
            change(3, 3, Became::Rejected, 1),
            change(1, 2, Became::Sent, 2),
            change(4, 12, Became::Sent, 2),
            change(13, 14, Became::GivenUp(GapReason::Expired), 3),
        ]
    );
    for (set, numbers) in
        [(Set::Pending, 11..=15), (Set::Sent, 4..=12), (Set::Rejected, 3..=3), (Set::Sent, 1..=2)]
    {
        let mut snapshot = queue.snapshot_of(set, numbers.clone(), stamp(4));
        let shown = queue.read_snapshot(&mut snapshot, ALL).unwrap();
        assert!(shown.done && shown.problems.is_empty(), "{shown:?}");
        let found: Vec<_> = shown.entries.iter().map(|e| (e.record.seq, e.set)).collect();
        assert_eq!(found, numbers.map(|seq| (seq, set)).collect::<Vec<_>>());
        queue.end_snapshot(snapshot);
    }
    queue.close().unwrap();
}
