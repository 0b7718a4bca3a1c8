//! Deleting kept records on request: what waits stays, and nothing comes back.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

mod support;

use std::path::Path;
use std::time::Duration;

use harborforge_storage::*;
use support::*;

fn keeping() -> Options {
    Options {
        generation_max_records: 20,
        retain_sent: Duration::from_secs(100_000),
        ..Options::default()
    }
}

/// 100 records: 1 to 45 settled, of them 10 rejected; 60 and 95 rejected far from the head, 70 to
/// 72 given up.
fn filled(dir: &Path) -> Queue {
    let mut queue = open(dir, &keeping());
    for _ in 0..10 {
        append(&mut queue, 10, 300);
        queue.maintain(stamp(1)).unwrap();
    }
    for seq in [10, 60, 95] {
        queue.reject(seq, "no", stamp(2)).unwrap();
    }
    queue.give_up(70..=72, GapReason::Expired, false, stamp(2)).unwrap();
    queue.acknowledge(45, confirm(1)).unwrap();
    queue.maintain(stamp(3)).unwrap();
    queue
}

fn pending() -> Vec<u64> {
    (46..=100).filter(|seq| ![60, 95].contains(seq) && !(70..=72).contains(seq)).collect()
}

fn reopened(queue: Queue, dir: &Path) -> Queue {
    queue.close().unwrap();
    let (queue, report) = Queue::open(dir, keeping(), stamp(9)).unwrap();
    assert!(report.is_clean(), "{report:?}");
    queue
}

#[test]
fn rejected_ones_go_wherever_they_lie_and_stay_settled() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = filled(dir.path());
    let could = queue.purgeable(Purge::Rejected);
    assert_eq!((could.gone.records, could.pinned, could.shared), (3, 0, 0));
    assert!(could.gone.bytes > 900);
    assert_eq!(queue.stats().rejected.records, 3, "looking deletes nothing");
    assert_eq!(queue.purge(Purge::Rejected, stamp(4)).unwrap(), could);
    for _ in 0..2 {
        assert_eq!(queue.stats().rejected.records, 0);
        assert_eq!(numbers(&mut queue, Set::Rejected), [0; 0]);
        assert_eq!(numbers(&mut queue, Set::Pending), pending());
        let sent: Vec<_> = (1..=45).filter(|seq| *seq != 10).collect();
        assert_eq!(numbers(&mut queue, Set::Sent), sent);
        assert_eq!(queue.stats().pending.records, pending().len() as u64);
        assert_eq!(generations(dir.path(), "rejected").len(), 0);
        queue = reopened(queue, dir.path());
    }
    // It goes on as before: the next record, the next refusal.
    assert_eq!(append(&mut queue, 1, 300), 101..=101);
    queue.reject(101, "no", stamp(5)).unwrap();
    assert_eq!(numbers(&mut queue, Set::Rejected), [101]);
    queue.acknowledge(100, confirm(6)).unwrap();
    assert_eq!(queue.position().cursor, 101);
    queue.close().unwrap();
    let mut inspector = Inspector::open(dir.path()).unwrap();
    let shown: Vec<_> =
        inspector.records(&[Set::Sent], 1..=u64::MAX).map(|e| e.unwrap().record.seq).collect();
    let sent = (1..=100).filter(|s| ![10, 60, 95].contains(s) && !(70..=72).contains(s));
    assert_eq!(shown, sent.collect::<Vec<_>>());
}

#[test]
fn delivered_ones_go_but_for_those_beside_records_that_wait() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = filled(dir.path());
    let done = queue.purge(Purge::Sent, stamp(4)).unwrap();
    // 41 to 45 lie in one generation with 46 to 60.
    assert_eq!((done.gone.records, done.pinned, done.shared), (39, 0, 5));
    for _ in 0..2 {
        assert_eq!(numbers(&mut queue, Set::Sent), [41, 42, 43, 44, 45]);
        assert_eq!(numbers(&mut queue, Set::Pending), pending());
        assert_eq!(numbers(&mut queue, Set::Rejected), [10, 60, 95]);
        assert_eq!(queue.last_success().unwrap().record.seq, 45);
        queue = reopened(queue, dir.path());
    }
    // All of it, the generation that goes on being written included.
    queue.acknowledge(100, confirm(5)).unwrap();
    let done = queue.purge(Purge::Sent, stamp(6)).unwrap();
    assert_eq!((done.gone.records, done.shared), (5 + pending().len() as u64, 0));
    queue = reopened(queue, dir.path());
    assert_eq!(queue.stats().sent.records, 0);
    assert_eq!(queue.last_success().unwrap().record.seq, 100);
    assert_eq!(append(&mut queue, 1, 300), 101..=101, "no number is used twice");
    queue.close().unwrap();
}

#[test]
fn what_a_reader_has_stays_until_it_gives_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = filled(dir.path());
    let snapshot = queue.snapshot(&[Set::Sent], 1..=20, stamp(4));
    let done = queue.purge(Purge::Sent, stamp(4)).unwrap();
    assert_eq!((done.gone.records, done.pinned), (20, 19), "20 to 40 go, 1 to 20 stay");
    let done = queue.purge(Purge::Rejected, stamp(4)).unwrap();
    assert_eq!((done.gone.records, done.pinned), (0, 3), "they are kept in one generation");
    queue.end_snapshot(snapshot);
    assert_eq!(queue.purge(Purge::Sent, stamp(4)).unwrap().gone.records, 19);
    assert_eq!(queue.purge(Purge::Rejected, stamp(4)).unwrap().gone.records, 3);
    assert_eq!(queue.purge(Purge::Rejected, stamp(4)).unwrap(), Purged::default());
    queue.close().unwrap();
}

#[test]
fn what_was_set_aside_goes() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).close().unwrap();
    let broken = &generations(dir.path(), "pending")[1];
    std::fs::remove_file(broken.join("db")).unwrap();
    std::fs::write(dir.path().join("queue/manifest"), "broken").unwrap();
    let mut queue = Queue::open(dir.path(), keeping(), stamp(9)).unwrap().0;
    let waiting = numbers(&mut queue, Set::Pending);
    assert_eq!(queue.stats().quarantined.records, 1);
    let done = queue.purge(Purge::Quarantine, stamp(9)).unwrap();
    assert_eq!(done.gone.records, 1);
    assert_eq!(queue.stats().quarantined, Tally::default());
    assert_eq!(files_below(&dir.path().join("queue/quarantine")), Vec::<std::path::PathBuf>::new());
    assert_eq!(numbers(&mut queue, Set::Pending), waiting);
    queue.close().unwrap();
}

/// A kill after any step of a purge: the files as they are at that moment are opened again.
#[test]
fn a_kill_in_between_leaves_a_sound_queue() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = filled(dir.path());
    // What a purge does last, undone by hand: a directory renamed but not emptied.
    queue.purge(Purge::Rejected, stamp(4)).unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_tree(dir.path(), copy.path());
    let sent = &generations(copy.path(), "sent")[0];
    let mut doomed = sent.clone().into_os_string();
    doomed.push(".deleted");
    std::fs::rename(sent, &doomed).unwrap();
    let (mut other, report) = Queue::open(copy.path(), keeping(), stamp(9)).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert!(!Path::new(&doomed).exists(), "opening finishes the work");
    assert_eq!(numbers(&mut other, Set::Pending), pending());
    assert_eq!(numbers(&mut other, Set::Sent)[0], 21);
    other.close().unwrap();
    queue.close().unwrap();
}

#[test]
fn a_purge_makes_no_queue() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Queue::open_existing(dir.path(), keeping(), stamp(0));
    assert!(matches!(opened, Err(Error::NoQueue { .. })));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(!is_free(dir.path()));
    let queue = filled(dir.path());
    assert!(!is_free(dir.path()));
    queue.close().unwrap();
    assert!(is_free(dir.path()));
}
