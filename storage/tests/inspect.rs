//! Looking at a queue that no process has open.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

mod support;

use std::time::Duration;

use harborforge_storage::*;
use support::*;

fn keeping() -> Options {
    Options {
        generation_max_records: 10,
        retain_sent: Duration::from_secs(1000),
        ..Options::default()
    }
}

/// 1-3 sent with 2 rejected, ... 35 records; 20-22 given up, 31 rejected ahead.
fn build(dir: &std::path::Path) {
    let mut queue = open(dir, &keeping());
    append(&mut queue, 35, 300);
    queue.reject(2, "no", stamp(1)).unwrap();
    queue.acknowledge(13, confirm(1)).unwrap();
    queue.reject(31, "never", stamp(2)).unwrap();
    queue.reject(15, "late", stamp(2)).unwrap();
    queue.give_up(20..=22, GapReason::Expired, false, stamp(3)).unwrap();
    queue.maintain(stamp(4)).unwrap();
    queue.close().unwrap();
}

fn snapshot(dir: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let files = files_below(dir);
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn all(inspector: &mut Inspector, sets: &[Set], from: u64, to: u64) -> Vec<(u64, Set)> {
    let records = inspector.records(sets, from..=to);
    records.map(|entry| entry.unwrap()).map(|entry| (entry.record.seq, entry.set)).collect()
}

#[test]
fn everything_is_shown_in_order_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let before = snapshot(dir.path());
    let mut inspector = Inspector::open(dir.path()).unwrap();
    let found = all(&mut inspector, &[Set::Pending, Set::Sent, Set::Rejected], 0, u64::MAX);
    let expected: Vec<_> = (1..=35)
        .filter(|n| !(20..=22).contains(n))
        .map(|n| match n {
            2 | 15 | 31 => (n, Set::Rejected),
            1..=13 => (n, Set::Sent),
            _ => (n, Set::Pending),
        })
        .collect();
    assert_eq!(found, expected);
    assert_eq!(inspector.problems(), []);
    assert_eq!(inspector.gaps()[0].from, 20);
    let only = |set| expected.iter().copied().filter(|e| e.1 == set).collect::<Vec<_>>();
    for set in [Set::Pending, Set::Sent, Set::Rejected] {
        assert_eq!(all(&mut inspector, &[set], 0, u64::MAX), only(set));
    }
    let window = all(&mut inspector, &[Set::Pending, Set::Rejected], 14, 17);
    assert_eq!(window.iter().map(|e| e.0).collect::<Vec<_>>(), [14, 15, 16, 17]);
    let entry = inspector.records(&[Set::Rejected], 31..=31).next().unwrap().unwrap();
    assert_eq!(entry.rejection, Some(("never".to_owned(), stamp(2).wall_ms)));
    assert_eq!(entry.record.payload, payload(31, 300));
    drop(inspector);
    assert!(snapshot(dir.path()) == before, "the inspector wrote into the data directory");
}

#[test]
fn it_stays_away_from_a_live_queue_and_keeps_a_writer_out() {
    let dir = tempfile::tempdir().unwrap();
    match Inspector::open(dir.path()) {
        Err(Error::NoQueue { .. }) => {}
        other => panic!("{:?}", other.err()),
    }
    let queue = open(dir.path(), &keeping());
    match Inspector::open(dir.path()) {
        Err(Error::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{:?}", other.err()),
    }
    queue.close().unwrap();
    let one = Inspector::open(dir.path()).unwrap();
    let two = Inspector::open(dir.path()).unwrap();
    assert!(matches!(Queue::open(dir.path(), keeping(), stamp(0)), Err(Error::Reading { .. })));
    drop((one, two));
    open(dir.path(), &keeping()).close().unwrap();
}

#[test]
fn a_queue_as_a_kill_leaves_it_is_read_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &keeping());
    append(&mut queue, 15, 300);
    let copy = tempfile::tempdir().unwrap();
    copy_tree(dir.path(), copy.path());
    let mut inspector = Inspector::open(copy.path()).unwrap();
    assert_eq!(all(&mut inspector, &[Set::Pending], 0, u64::MAX).len(), 15);
    assert_eq!(inspector.problems(), []);
    drop(inspector);
    // The tail gone without a trace: the high-water mark tells.
    let newest = generations(copy.path(), "pending").pop().unwrap();
    let db = std::fs::OpenOptions::new().write(true).open(newest.join("db")).unwrap();
    db.set_len(db.metadata().unwrap().len() / 2).unwrap();
    let mut inspector = Inspector::open(copy.path()).unwrap();
    let found = all(&mut inspector, &[Set::Pending], 0, u64::MAX);
    let told: u64 = inspector.problems().iter().map(|p| p.to - p.from + 1).sum();
    assert!(told > 0, "{:?}", inspector.problems());
    assert_eq!(found.len() as u64 + told, 15, "{:?}", inspector.problems());
}
