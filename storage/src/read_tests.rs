//! Tests of reading that need bytes no appending writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::engine::Store;
use crate::inspect::Inspector;
use crate::testing::payloads::samples;
use crate::types::{Confirmation, GapReason, NewRecord, Options, Stamp};

const STAMP: Stamp = Stamp { wall_ms: 1, boot_ms: 2, boot_id: [3; 16] };
const CACHE: u64 = 256 * 1024;
const ALL: Limits = Limits { records: usize::MAX, bytes: usize::MAX };

fn open(dir: &Path) -> Queue {
    let retain_sent = Duration::from_secs(1_000_000);
    Queue::open(dir, Options { retain_sent, ..Options::default() }, STAMP).unwrap().0
}

/// The one generation.
fn generation(dir: &Path) -> PathBuf {
    let mut entries = fs::read_dir(dir.join("queue")).unwrap().map(|entry| entry.unwrap().path());
    entries.find(|path| path.extension().is_some_and(|ext| ext == "pending")).unwrap()
}

/// Five packed records; the block of the third is none, under a right checksum.
fn with_a_bad_third(dir: &Path) {
    let mut queue = open(dir);
    for seq in 1..=5 {
        let payload = samples(seq, 400);
        queue.append(&[NewRecord { stamp: STAMP, payload: &payload }]).unwrap();
    }
    queue.close().unwrap();
    let path = generation(dir);
    let store = Store::open(&path, CACHE, &mut Repairs::default()).unwrap();
    let mut stored: Vec<_> = (1..=5).map(|seq| store.get(seq).unwrap().unwrap()).collect();
    drop(store);
    stored[2] = record::with_bad_block(&stored[2]);
    // From the beginning, so that no good copy is left to be found among the bytes.
    fs::remove_dir_all(&path).unwrap();
    let mut store = Store::create(&path, CACHE).unwrap();
    for (seq, bytes) in (1..).zip(&stored) {
        store.put(seq, bytes).unwrap();
    }
    store.sync().unwrap();
}

#[test]
fn a_record_that_cannot_be_unpacked_is_told_by_whoever_looks() {
    let dir = tempfile::tempdir().unwrap();
    with_a_bad_third(dir.path());
    let mut inspector = Inspector::open(dir.path()).unwrap();
    let shown = inspector.records(&[Set::Pending], 1..=u64::MAX);
    let shown: Vec<_> = shown.map(|entry| entry.unwrap().record.seq).collect();
    assert_eq!(shown, [1, 2, 4, 5]);
    let problems = inspector.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!((problems[0].from, problems[0].to), (3, 3));
    assert!(problems[0].what.contains("unpacked"), "{problems:?}");
    let report = inspector.verify().finish().unwrap();
    assert_eq!((report.good, report.lost, report.pending), (false, 1, 4), "{report:?}");
}

#[test]
fn a_record_that_cannot_be_unpacked_is_a_gap_and_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    with_a_bad_third(dir.path());
    let mut queue = open(dir.path());
    let read = queue.read(Set::Pending, 1, ALL).unwrap();
    assert_eq!(read.iter().map(|record| record.seq).collect::<Vec<_>>(), [1, 2, 4, 5]);
    assert!(read.iter().all(|record| record.payload == samples(record.seq, 400)));
    let gaps: Vec<_> = queue.gaps().iter().map(|gap| (gap.from, gap.to, gap.reason)).collect();
    assert_eq!(gaps, [(3, 3, GapReason::Corrupt)]);
    assert_eq!(queue.stats().quarantined.records, 0, "there is nothing more to be had of it");
    queue.acknowledge(5, Confirmation { wall_ms: 1, tag: 1 }).unwrap();
    assert_eq!(queue.position().pending, 0);
    let sent = queue.read(Set::Sent, 1, ALL).unwrap();
    assert_eq!(sent.iter().map(|record| record.seq).collect::<Vec<_>>(), [1, 2, 4, 5]);
}
