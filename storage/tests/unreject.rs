//! Rejected records that are accepted after all.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

mod support;

use std::time::Duration;

use harborforge_storage::*;
use support::*;

const SETS: [Set; 2] = [Set::Sent, Set::Rejected];

fn keeping() -> Options {
    Options {
        generation_max_records: 10,
        retain_sent: Duration::from_secs(1000),
        ..Options::default()
    }
}

fn inspected(dir: &std::path::Path, sets: &[Set]) -> Vec<u64> {
    let mut inspector = Inspector::open(dir).unwrap();
    let seqs = inspector.records(sets, 1..=u64::MAX).map(|entry| entry.unwrap().record.seq);
    seqs.collect()
}

#[test]
fn what_is_accepted_after_all_counts_as_delivered_and_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &keeping());
    append(&mut queue, 25, 50);
    for seq in [3, 12, 13, 22, 24] {
        queue.reject(seq, "no", stamp(0)).unwrap();
    }
    queue.acknowledge(23, confirm(1)).unwrap();
    // 1 to 20 are sent generations now, 21 to 25 are not.
    queue.maintain(stamp(1)).unwrap();
    assert_eq!(generations(dir.path(), "sent").len(), 2);
    queue.reject(25, "no", stamp(1)).unwrap();
    let old = queue.snapshot(&SETS, 1..=u64::MAX, stamp(1));

    for (seq, done) in [(3, true), (3, false), (22, true), (4, false), (99, false)] {
        assert_eq!(queue.unreject(seq).unwrap(), done, "{seq}");
    }
    let check = |queue: &mut Queue, rejected: &[u64]| {
        assert_eq!(numbers(queue, Set::Rejected), rejected);
        let sent: Vec<u64> = (1..=25).filter(|seq| !rejected.contains(seq)).collect();
        assert_eq!(numbers(queue, Set::Sent), sent);
        let stats = queue.stats();
        let count = rejected.len() as u64;
        assert_eq!(stats.rejected, Tally { records: count, bytes: 50 * count });
        assert_eq!((stats.sent.records, stats.pending.records), (25 - count, 0));
    };
    check(&mut queue, &[12, 13, 24, 25]);
    // One that was begun before shows it as it was.
    let mut old = old;
    let shown = queue.read_snapshot(&mut old, ALL).unwrap();
    queue.end_snapshot(old);
    let seen: Vec<_> = shown.entries.iter().map(|entry| (entry.record.seq, entry.set)).collect();
    let was = |seq| if [3, 12, 13, 22, 24, 25].contains(&seq) { Set::Rejected } else { Set::Sent };
    assert_eq!(seen, (1..=25).map(|seq| (seq, was(seq))).collect::<Vec<_>>());

    for clean in [false, true] {
        if clean {
            queue.close().unwrap();
        } else {
            drop(queue);
        }
        assert_eq!(inspected(dir.path(), &[Set::Rejected]), [12, 13, 24, 25]);
        assert_eq!(inspected(dir.path(), &SETS), (1..=25).collect::<Vec<_>>());
        let (reopened, report) = Queue::open(dir.path(), keeping(), stamp(2)).unwrap();
        assert!(report.is_clean(), "{report:?}");
        queue = reopened;
        check(&mut queue, &[12, 13, 24, 25]);
    }
    for seq in [12, 13, 24] {
        assert!(queue.unreject(seq).unwrap());
    }
    check(&mut queue, &[25]);
    assert!(queue.unreject(25).unwrap());
    queue.maintain(stamp(3)).unwrap();
    assert_eq!(generations(dir.path(), "rejected"), Vec::<String>::new(), "the space comes back");
    queue.close().unwrap();
    let mut queue = open(dir.path(), &keeping());
    check(&mut queue, &[]);
}

#[test]
fn one_that_the_cursor_has_not_passed_stays_until_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &keeping());
    append(&mut queue, 5, 50);
    queue.reject(4, "no", stamp(0)).unwrap();
    assert!(!queue.unreject(4).unwrap());
    queue.acknowledge(3, confirm(1)).unwrap();
    assert!(queue.unreject(4).unwrap());
    drop(queue);
    let mut queue = open(dir.path(), &keeping());
    assert_eq!(numbers(&mut queue, Set::Pending), [5]);
    assert_eq!(numbers(&mut queue, Set::Sent), [1, 2, 3, 4]);
}

#[test]
fn without_the_manifest_it_is_rejected_again_and_nothing_else_changes() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &keeping());
    append(&mut queue, 5, 50);
    queue.reject(2, "no", stamp(0)).unwrap();
    queue.reject(3, "no", stamp(0)).unwrap();
    queue.acknowledge(5, confirm(1)).unwrap();
    assert!(queue.unreject(2).unwrap());
    queue.close().unwrap();
    std::fs::remove_file(dir.path().join("queue/manifest")).unwrap();
    let mut queue = open(dir.path(), &keeping());
    assert_eq!(numbers(&mut queue, Set::Rejected), [2, 3]);
    assert_eq!(queue.stats().pending.records, 0);
    assert!(queue.unreject(2).unwrap());
    assert_eq!(numbers(&mut queue, Set::Rejected), [3]);
}
