//! Bounds of what is kept, and what stays open.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use harborforge_storage::*;
use support::*;

fn small() -> Options {
    Options { generation_max_records: 10, ..options() }
}

fn open_databases(dir: &Path) -> usize {
    let handles = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = handles.filter_map(|handle| fs::read_link(handle.path()).ok());
    let mut databases: Vec<_> =
        targets.filter(|path| path.starts_with(dir) && path.ends_with("db")).collect();
    databases.sort();
    databases.dedup();
    databases.len()
}

#[test]
fn few_databases_are_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &small());
    for round in 0..20 {
        append(&mut queue, 10, 100);
        queue.maintain(stamp(round)).unwrap();
        assert!(open_databases(dir.path()) <= 3);
    }
    let limits = Limits { records: 7, bytes: usize::MAX };
    let mut from = 0;
    while let Some(last) = queue.read(Set::Pending, from, limits).unwrap().last() {
        from = last.seq + 1;
        assert!(open_databases(dir.path()) <= 3);
    }
    assert_eq!(from, 201);
    queue.reject(150, "no", stamp(30)).unwrap();
    queue.acknowledge(120, confirm(31)).unwrap();
    queue.maintain(stamp(31)).unwrap();
    assert!(open_databases(dir.path()) <= 4, "{}", open_databases(dir.path()));
    drop(queue);
    let queue = open(dir.path(), &small());
    assert!(open_databases(dir.path()) <= 3, "{}", open_databases(dir.path()));
    drop(queue);
    assert_eq!(open_databases(dir.path()), 0);
}

#[test]
fn delivered_and_rejected_records_stay_within_their_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let bounded = Options {
        retain_sent: Duration::from_secs(1_000_000),
        retain_sent_max_bytes: 300_000,
        rejected_max_bytes: 300_000,
        ..small()
    };
    let mut queue = open(dir.path(), &bounded);
    for round in 0..40u64 {
        append(&mut queue, 20, 900);
        for seq in round * 20 + 1..=round * 20 + 10 {
            queue.reject(seq, "no", stamp(round)).unwrap();
        }
        queue.acknowledge(round * 20 + 20, confirm(round)).unwrap();
        queue.maintain(stamp(round)).unwrap();
    }
    let stats = queue.stats();
    assert!(stats.disk_bytes < 900_000, "{stats:?}");
    assert!(stats.sent.records > 20 && stats.sent.records < 300, "{stats:?}");
    assert!(stats.rejected.records > 20 && stats.rejected.records < 300, "{stats:?}");
    // The newest are kept, and a gap is nobody's: they were dealt with.
    assert_eq!(numbers(&mut queue, Set::Sent).last(), Some(&800));
    assert_eq!(numbers(&mut queue, Set::Rejected).last(), Some(&790));
    assert!(queue.gaps().is_empty());
}

#[test]
fn what_a_kill_leaves_half_done_is_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &small());
    append(&mut queue, 15, 100);
    drop(queue);
    let inside = dir.path().join("queue");
    // While a generation was made, while one was deleted, while the manifest was written.
    fs::create_dir_all(inside.join("00000000000000000016-00000009.pending/blobs")).unwrap();
    fs::create_dir(inside.join("00000000000000000001-00000001.sent.deleted")).unwrap();
    fs::write(inside.join("manifest.tmp"), b"half").unwrap();
    let (mut queue, report) = Queue::open(dir.path(), small(), stamp(1)).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(numbers(&mut queue, Set::Pending), (1..=15).collect::<Vec<_>>());
    assert_eq!(append(&mut queue, 1, 1), 16..=16);
    assert!(!inside.join("00000000000000000001-00000001.sent.deleted").exists());
    assert!(!inside.join("manifest.tmp").exists());
}

/// What cannot be deleted at once is tried again by each upkeep, and counted until it is gone.
#[test]
fn directories_that_could_not_be_deleted_go_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &small());
    append(&mut queue, 10, 900);
    append(&mut queue, 1, 900);
    let path = generations(dir.path(), "pending").remove(0);
    let in_the_way = path.with_extension("pending.deleted");
    fs::create_dir_all(in_the_way.join("something")).unwrap();
    queue.acknowledge(10, confirm(1)).unwrap();
    let before = queue.stats().disk_bytes;
    queue.maintain(stamp(1)).unwrap();
    assert!(path.exists());
    assert!(queue.stats().disk_bytes > before / 2);
    assert_eq!(numbers(&mut queue, Set::Pending), [11]);
    queue.maintain(stamp(2)).unwrap();
    assert!(!path.exists());
    assert!(queue.stats().disk_bytes < before);
}

#[test]
fn foreign_files_beside_the_queue_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("state.json"), b"{}").unwrap();
    let queue = open(dir.path(), &small());
    fs::write(dir.path().join("queue/notes.txt"), b"mine").unwrap();
    queue.close().unwrap();
    let mut queue = open(dir.path(), &small());
    append(&mut queue, 1, 1);
    queue.maintain(stamp(1)).unwrap();
    assert_eq!(fs::read(dir.path().join("state.json")).unwrap(), b"{}");
    assert_eq!(fs::read(dir.path().join("queue/notes.txt")).unwrap(), b"mine");
}

#[test]
fn the_queue_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &small());
    append(&mut queue, 1, 1);
    queue.maintain(stamp(1)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir.path().join("queue")), 0o700);
    for name in ["LOCK", "FORMAT", "mark", "cursor"] {
        assert_eq!(mode(&dir.path().join("queue").join(name)), 0o600, "{name}");
    }
    assert_eq!(mode(&generations(dir.path(), "pending")[0]), 0o700);
}

#[test]
fn a_queue_can_be_handed_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<Queue>();
    is_send::<Inspector>();
    is_send::<Error>();
}
