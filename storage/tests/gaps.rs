//! Gaps that cannot be put on disk at once.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

mod support;

use std::fs;
use std::path::Path;

use harborforge_storage::*;
use support::*;

fn small() -> Options {
    Options { generation_max_records: 10, ..options() }
}

/// 45 records, the first 10 confirmed, the next 10 in a generation that has lost its database.
fn broken_head(dir: &Path, options: &Options) -> Queue {
    let mut queue = open(dir, options);
    append(&mut queue, 45, 100);
    queue.close().unwrap();
    let mut queue = open(dir, options);
    queue.acknowledge(10, confirm(1)).unwrap();
    fs::remove_file(generations(dir, "pending")[1].join("db")).unwrap();
    queue
}

/// A directory where the manifest's next version is to be written: refused, for root too.
fn block_manifest(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("queue/manifest.tmp");
    fs::create_dir(&path).unwrap();
    path
}

#[test]
fn the_cursor_follows_once_a_gap_at_the_head_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = broken_head(dir.path(), &small());
    let block = block_manifest(dir.path());
    assert_eq!(numbers(&mut queue, Set::Pending), (21..=45).collect::<Vec<_>>());
    // Not passed over, not even when its neighbour is settled durably.
    queue.reject(21, "no", stamp(2)).unwrap();
    assert_eq!(queue.stats().cursor, 10);
    assert!(queue.maintain(stamp(2)).is_err());
    assert_eq!(queue.stats().cursor, 10);
    fs::remove_dir(block).unwrap();
    queue.maintain(stamp(3)).unwrap();
    assert_eq!(queue.stats().cursor, 21);
    drop(queue);
    let queue = open(dir.path(), &small());
    assert_eq!((queue.stats().cursor, queue.gaps().len()), (21, 1));
    assert_eq!((queue.gaps()[0].from, queue.gaps()[0].to), (11, 20));
}

#[test]
fn nothing_is_told_as_evicted_that_was_not_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let bounded = Options { queue_max_bytes: 8000, ..small() };
    let mut queue = broken_head(dir.path(), &bounded);
    let block = block_manifest(dir.path());
    assert_eq!(numbers(&mut queue, Set::Pending).len(), 25);
    // The oldest generation is settled as a whole, but cannot be passed over yet.
    let oldest = queue.read(Set::Pending, 0, ALL).unwrap()[0].seq;
    for seq in oldest..oldest + 10 {
        queue.reject(seq, "no", stamp(2)).unwrap();
    }
    // Over the bound, and nothing to give up where it looks.
    append(&mut queue, 1, 7000);
    fs::remove_dir(block).unwrap();
    queue.acknowledge(45, confirm(3)).unwrap();
    assert_eq!(queue.maintain(stamp(3)).unwrap().evicted, []);
    assert_eq!(queue.stats().counters.given_up, 0);
}

#[test]
fn a_stop_does_what_it_can_and_tells_the_first_failure() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = broken_head(dir.path(), &small());
    append(&mut queue, 1, 100);
    let block = block_manifest(dir.path());
    assert_eq!(numbers(&mut queue, Set::Pending).len(), 26);
    match queue.close() {
        Err(Error::Io { path, .. }) => assert!(path.ends_with("manifest"), "{path:?}"),
        other => panic!("{other:?}"),
    }
    fs::remove_dir(block).unwrap();
    // The mark is exact although the manifest failed: a broken tail is known to end at 46.
    fs::remove_file(generations(dir.path(), "pending").pop().unwrap().join("db")).unwrap();
    assert_eq!(open(dir.path(), &small()).stats().next_seq, 47);
}
