//! Damage and refusals: what is lost is told, what is refused is not taken for damage. Random damage
//! is in `sweep.rs`, what is salvaged in `salvage.rs`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use harborforge_storage::*;
use support::*;

const RECORDS: u64 = 130;

fn small() -> Options {
    Options { generation_max_records: 40, ..options() }
}

/// Three sealed generations, an open one, some records confirmed, one rejected, one gap.
fn build(dir: &Path) {
    let mut queue = open(dir, &small());
    for _ in 0..RECORDS / 10 {
        append(&mut queue, 10, 300);
        queue.maintain(stamp(1)).unwrap();
    }
    queue.acknowledge(5, confirm(1)).unwrap();
    queue.reject(50, "no", stamp(2)).unwrap();
    queue.give_up(60..=62, GapReason::Expired, false, stamp(3)).unwrap();
    queue.close().unwrap();
}

/// Opens and reads everything; every number must be delivered, rejected, or told as a gap.
fn account(dir: &Path, what: &str) -> (BTreeSet<u64>, OpenReport) {
    let (mut queue, report) = match Queue::open(dir, small(), stamp(10)) {
        Ok(opened) => opened,
        Err(error) => panic!("{what}: {error}"),
    };
    let mut pending = BTreeSet::new();
    let mut from = 0;
    loop {
        let records =
            queue.read(Set::Pending, from, Limits { records: 20, bytes: 1 << 20 }).unwrap();
        let Some(last) = records.last() else { break };
        from = last.seq + 1;
        for record in records {
            assert_eq!(record.payload, payload(record.seq, 300), "{what}");
            assert!(pending.insert(record.seq), "{what}: {} twice", record.seq);
        }
    }
    let lost: BTreeSet<u64> = queue.gaps().iter().flat_map(|gap| gap.from..=gap.to).collect();
    let stats = queue.stats();
    assert_eq!(stats.next_seq, RECORDS + 1, "{what}");
    assert_eq!(stats.pending.records, pending.len() as u64, "{what}");
    for number in stats.cursor + 1..=RECORDS {
        let places = [pending.contains(&number), lost.contains(&number), number == 50];
        assert!(places.contains(&true), "{what}: {number} is gone without a word; {report:?}");
    }
    assert!(lost.is_disjoint(&pending), "{what}");
    // And it goes on.
    assert_eq!(append(&mut queue, 3, 300), RECORDS + 1..=RECORDS + 3, "{what}");
    queue.maintain(stamp(11)).unwrap();
    assert_eq!(numbers(&mut queue, Set::Pending).len(), pending.len() + 3, "{what}");
    queue.close().unwrap();
    (lost, report)
}

#[test]
fn a_lost_file_is_told() {
    let origin = tempfile::tempdir().unwrap();
    build(origin.path());
    for name in ["manifest", "mark", "cursor", "FORMAT", "LOCK"] {
        let dir = tempfile::tempdir().unwrap();
        copy_tree(origin.path(), dir.path());
        fs::remove_file(dir.path().join("queue").join(name)).unwrap();
        let (lost, _) = account(dir.path(), name);
        // Without the manifest the reason of the gap is lost, but the records are still there
        // to be delivered; nothing else may go.
        assert!(lost.is_subset(&(60..=62).collect()), "{name}: {lost:?}");
    }
    for at in 0..4 {
        for part in ["db", "conf", "."] {
            let dir = tempfile::tempdir().unwrap();
            copy_tree(origin.path(), dir.path());
            let generation = &generations(dir.path(), "pending")[at];
            match part {
                "." => fs::remove_dir_all(generation).unwrap(),
                _ => fs::remove_file(generation.join(part)).unwrap(),
            }
            let (lost, report) = account(dir.path(), &format!("{part} of generation {at}"));
            match part {
                "conf" => assert_eq!(lost.len(), 3),
                _ => assert!(lost.len() >= 10, "{lost:?} {report:?}"),
            }
        }
    }
}

/// A queue of which most was delivered and deleted, and some is kept as sent.
fn delivered(dir: &Path, keep: u64) -> Options {
    let keeping = Options { retain_sent: std::time::Duration::from_secs(keep), ..small() };
    let mut queue = open(dir, &keeping);
    append(&mut queue, 200, 100);
    queue.acknowledge(150, confirm(1)).unwrap();
    queue.maintain(stamp(1)).unwrap();
    queue.close().unwrap();
    keeping
}

#[test]
fn a_lost_cursor_makes_no_gap_of_what_was_delivered() {
    for keep in [0, 1000] {
        for lost in ["missing", "empty", "torn"] {
            let dir = tempfile::tempdir().unwrap();
            let keeping = delivered(dir.path(), keep);
            let cursor = dir.path().join("queue/cursor");
            match lost {
                "missing" => fs::remove_file(&cursor).unwrap(),
                "empty" => fs::write(&cursor, b"").unwrap(),
                _ => fs::write(&cursor, [7; 8192]).unwrap(),
            }
            let mut inspector = Inspector::open(dir.path()).unwrap();
            assert_eq!(inspector.cursor(), 120, "{lost}");
            let shown: Vec<_> =
                inspector.records(&[Set::Pending], 0..=u64::MAX).map(|e| e.unwrap()).collect();
            assert_eq!(shown.first().unwrap().record.seq, 121, "{lost}");
            let paths: Vec<_> = inspector.problems().iter().map(|p| p.path.clone()).collect();
            assert_eq!(paths, std::slice::from_ref(&cursor), "{lost}");
            drop(inspector);

            let (mut queue, report) = Queue::open(dir.path(), keeping.clone(), stamp(2)).unwrap();
            assert_eq!(report.rebuilt, std::slice::from_ref(&cursor), "{lost}");
            assert_eq!((queue.gaps().len(), report.missing.len()), (0, 0), "{lost}");
            // The head in part once more, nothing before it.
            assert_eq!(numbers(&mut queue, Set::Pending), (121..=200).collect::<Vec<_>>());
            drop(queue);
            let (_, report) = Queue::open(dir.path(), keeping, stamp(3)).unwrap();
            assert!(report.is_clean(), "{report:?}");
        }
    }
}

#[test]
fn a_lost_cursor_hides_no_broken_head() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &small());
    append(&mut queue, 100, 100);
    drop(queue);
    fs::remove_file(dir.path().join("queue/cursor")).unwrap();
    fs::remove_file(generations(dir.path(), "pending")[0].join("db")).unwrap();
    let (queue, report) = Queue::open(dir.path(), small(), stamp(2)).unwrap();
    assert_eq!(report.missing, [1..=40]);
    assert_eq!((queue.gaps()[0].from, queue.gaps()[0].to), (1, 40));
}

#[test]
fn a_queue_never_acknowledged_has_lost_no_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &small());
    append(&mut queue, 3, 100);
    drop(queue);
    let inspector = Inspector::open(dir.path()).unwrap();
    assert_eq!((inspector.cursor(), inspector.problems().len()), (0, 0));
    drop(inspector);
    assert!(Queue::open(dir.path(), small(), stamp(2)).unwrap().1.is_clean());
}

#[test]
fn damaged_settings_and_half_snapshots_cost_nothing() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    for generation in generations(dir.path(), "pending") {
        fs::write(generation.join("snap.FFFFFFFFFFFFFFFF.generating"), b"").unwrap();
        fs::write(generation.join("conf"), b"segment_size: 7\nnonsense").unwrap();
    }
    let (lost, report) = account(dir.path(), "settings");
    assert_eq!(lost, (60..=62).collect());
    assert!(!report.removed_snapshots.is_empty() && !report.moved_aside.is_empty(), "{report:?}");
    assert_eq!(report.quarantined, Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_generation_that_does_not_open_is_kept_for_inspection_within_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    // Not a database at all: not even the engine's header can be read.
    let head = generations(dir.path(), "pending")[1].clone();
    fs::remove_file(head.join("db")).unwrap();
    let (lost, _) = account(dir.path(), "second generation");
    assert_eq!(lost, (41..=80).filter(|n| *n != 50).collect());
    let quarantine = dir.path().join("queue/quarantine");
    assert_eq!(fs::read_dir(&quarantine).unwrap().count(), 1);
    let mut queue = open(dir.path(), &Options { quarantine_max_bytes: 0, ..small() });
    assert_eq!(queue.stats().quarantined.records, 1);
    queue.maintain(stamp(1)).unwrap();
    assert_eq!(queue.stats().quarantined, Tally::default());
    assert_eq!(fs::read_dir(&quarantine).unwrap().count(), 0);
}

#[test]
fn what_the_system_refuses_is_retried_and_never_quarantined() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    // A directory where the engine wants a file: EISDIR, for root too.
    let second = generations(dir.path(), "pending")[1].clone();
    fs::rename(second.join("db"), second.join("kept")).unwrap();
    fs::create_dir(second.join("db")).unwrap();
    let mut queue = open(dir.path(), &small());
    let head = queue.read(Set::Pending, 0, ALL).unwrap();
    assert_eq!(head.last().unwrap().seq, 40);
    match queue.read(Set::Pending, 41, ALL) {
        Err(error @ Error::Io { .. }) => assert!(error.is_retryable()),
        other => panic!("{other:?}"),
    }
    assert_eq!(queue.stats().quarantined, Tally::default());
    // Mended, it goes on where it was.
    fs::remove_dir(second.join("db")).unwrap();
    fs::rename(second.join("kept"), second.join("db")).unwrap();
    assert_eq!(queue.read(Set::Pending, 41, ALL).unwrap()[0].seq, 41);
    assert_eq!(queue.gaps().len(), 1);
}

#[test]
fn a_failed_append_keeps_its_number_and_the_queue_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &small());
    append(&mut queue, 45, 300);
    // No new generation can be made: a batch that needs one fails as a whole.
    let blocked = dir.path().join("queue/00000000000000000081-00000003.pending");
    fs::write(&blocked, b"in the way").unwrap();
    let payloads: Vec<_> = (46..=90).map(|n| payload(n, 300)).collect();
    let records: Vec<_> =
        payloads.iter().map(|payload| NewRecord { stamp: stamp(0), payload }).collect();
    let failed = queue.append(&records).unwrap_err();
    assert!(failed.is_retryable(), "{failed}");
    assert_eq!(queue.stats().next_seq, 46);
    assert_eq!(queue.stats().pending, Tally { records: 45, bytes: 45 * 300 });
    assert_eq!(numbers(&mut queue, Set::Pending), (1..=45).collect::<Vec<_>>());
    // Part of it is on disk; the numbers now mean the second try.
    let second: Vec<_> = (46..=90).map(|n| payload(n, 200)).collect();
    let again: Vec<_> =
        second.iter().map(|payload| NewRecord { stamp: stamp(0), payload }).collect();
    assert_eq!(queue.append(&again).unwrap(), 46..=90);
    drop(queue);
    let (mut queue, report) = Queue::open(dir.path(), small(), stamp(0)).unwrap();
    assert!(report.is_clean(), "{report:?}");
    let records = queue.read(Set::Pending, 0, ALL).unwrap();
    assert_eq!(records.iter().map(|r| r.seq).collect::<Vec<_>>(), (1..=90).collect::<Vec<_>>());
    for record in records {
        let size = if record.seq <= 45 { 300 } else { 200 };
        assert_eq!(record.payload, payload(record.seq, size));
    }
    assert_eq!(queue.stats().pending.bytes, 45 * 500);
    assert!(queue.gaps().is_empty());
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    fs::write(dir.path().join("queue/FORMAT"), "harborforge-queue 2\n").unwrap();
    match Queue::open(dir.path(), small(), stamp(0)) {
        Err(error @ Error::NewerFormat { found: 2, supported: 1, .. }) => {
            assert!(!error.is_retryable());
        }
        other => panic!("{:?}", other.err()),
    }
    assert!(matches!(Inspector::open(dir.path()), Err(Error::NewerFormat { .. })));
}
