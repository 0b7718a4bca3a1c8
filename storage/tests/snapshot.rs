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
