//! What a broken generation still gives: all of it, once, in order, under its own numbers; whatever
//! happens in between.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may panic, and say when they are skipped"
)]

mod support;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use harborforge_storage::*;
use support::*;

fn small() -> Options {
    Options { generation_max_records: 40, ..options() }
}

/// Mostly like samples, some as large as they get.
fn size_of(number: u64) -> usize {
    if number.is_multiple_of(23) { 60_000 } else { 300 }
}

/// Three generations of 40 and one of 10; 1 to 20 are confirmed, 30 is rejected, 35 to 36 given up.
fn build(dir: &Path) -> Vec<u64> {
    let mut queue = open(dir, &small());
    for number in 1..=130 {
        let payload = payload(number, size_of(number));
        queue.append(&[NewRecord { stamp: stamp(number), payload: &payload }]).unwrap();
        if number % 10 == 0 {
            queue.maintain(stamp(1)).unwrap();
        }
    }
    queue.acknowledge(20, confirm(1)).unwrap();
    queue.reject(30, "no", stamp(2)).unwrap();
    queue.give_up(35..=36, GapReason::Expired, false, stamp(3)).unwrap();
    queue.close().unwrap();
    (21..=130).filter(|n| ![30, 35, 36].contains(n)).collect()
}

/// Makes the engine blind to everything in a database: there is no snapshot, and no segment's head
/// is what it should be.
fn blind(generation: &Path) {
    for entry in fs::read_dir(generation).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("snap.") {
            fs::remove_file(path).unwrap();
        }
    }
    let log = fs::File::options().write(true).open(generation.join("db")).unwrap();
    for segment in 0..log.metadata().unwrap().len().div_ceil(64 * 1024) {
        log.write_all_at(&[0xFF; 20], segment * 64 * 1024).unwrap();
    }
}

/// Everything pending, checked against what was appended.
fn delivered(queue: &mut Queue) -> Vec<u64> {
    let mut found = Vec::new();
    while let Some(last) = {
        let from = found.last().map_or(0, |last| last + 1);
        let records =
            queue.read(Set::Pending, from, Limits { records: 7, bytes: 100_000 }).unwrap();
        for record in &records {
            assert_eq!(record.payload, payload(record.seq, size_of(record.seq)));
            assert_eq!(record.stamp, stamp(record.seq));
        }
        found.extend(records.iter().map(|record| record.seq));
        records.last().map(|record| record.seq)
    } {
        assert!(found.is_sorted() && last <= 130);
    }
    found
}

fn quarantined(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("queue/quarantine"));
    let mut found: Vec<_> =
        entries.map_or_else(|_| Vec::new(), |entries| entries.map(|e| e.unwrap().path()).collect());
    found.sort();
    found
}

#[test]
fn every_generation_the_engine_is_blind_to_is_delivered_and_nothing_settled_comes_back() {
    for at in 0..4 {
        let dir = scratch();
        let due = build(dir.path());
        let epochs: Vec<_> = {
            let mut inspector = Inspector::open(dir.path()).unwrap();
            inspector
                .records(&[Set::Pending], 0..=u64::MAX)
                .map(|e| e.unwrap().record.epoch)
                .collect()
        };
        blind(&generations(dir.path(), "pending")[at]);
        let (mut queue, report) = Queue::open(dir.path(), small(), stamp(10)).unwrap();
        assert_eq!(queue.position().pending, due.len() as u64);
        assert_eq!(delivered(&mut queue), due, "generation {at}");
        let records = queue.read(Set::Pending, 0, ALL).unwrap();
        assert_eq!(records.iter().map(|r| r.epoch).collect::<Vec<_>>(), epochs);
        assert_eq!(queue.gaps().len(), 1, "{:?}", queue.gaps());
        assert_eq!(numbers(&mut queue, Set::Rejected), [30]);
        let done = queue.maintain(stamp(11)).unwrap();
        // Found when opening, or later when its turn came.
        let salvaged = [report.salvaged, done.salvaged].concat();
        let first = [21, 41, 81, 121][at];
        assert_eq!(salvaged.first().map(|run| *run.start()), Some(first), "{salvaged:?}");
        assert_eq!(
            salvaged.last().map(|run| *run.end()),
            due.iter().copied().filter(|n| *n < first / 40 * 40 + 41).max()
        );
        let aside = [report.quarantined, done.quarantined].concat();
        assert_eq!((quarantined(dir.path()).len(), aside), (1, quarantined(dir.path())));
        // It is a generation like any other from here on.
        queue.acknowledge(130, confirm(2)).unwrap();
        queue.maintain(stamp(12)).unwrap();
        assert_eq!(queue.stats().pending, Tally::default());
        queue.close().unwrap();
        assert!(Queue::open(dir.path(), small(), stamp(13)).unwrap().1.is_clean());
    }
}

#[test]
fn what_it_takes_is_counted_right() {
    let dir = scratch();
    build(dir.path());
    let before = open(dir.path(), &small()).stats();
    let mut queue = open(dir.path(), &small());
    for generation in generations(dir.path(), "pending") {
        blind(&generation);
    }
    // While it is open: found out by reading, each in its turn.
    delivered(&mut queue);
    let after = queue.stats();
    assert_eq!((after.pending, after.oldest_pending), (before.pending, before.oldest_pending));
    assert_eq!(after.generations, before.generations);
    drop(queue);
    let reopened = open(dir.path(), &small()).stats();
    assert_eq!((reopened.pending, reopened.next_seq), (before.pending, before.next_seq));
}

/// The states a kill leaves, one for each step.
#[test]
fn a_kill_at_any_step_costs_nothing() {
    let origin = scratch();
    let due = build(origin.path());
    let second = |dir: &Path| generations(dir, "pending")[1].clone();
    blind(&second(origin.path()));
    // How it ends when nobody interferes.
    let done = scratch();
    copy_tree(origin.path(), done.path());
    let mut queue = open(done.path(), &small());
    assert_eq!(delivered(&mut queue), due);
    queue.close().unwrap();
    let fresh = second(done.path());
    let name = second(origin.path()).file_name().unwrap().to_owned();
    let built = |dir: &Path, suffix: &str| {
        let name = format!("{}{suffix}", fresh.file_name().unwrap().to_str().unwrap());
        dir.join("queue").join(name)
    };
    for step in ["opened", "copied", "half made", "made", "moved", "in place"] {
        let dir = scratch();
        copy_tree(origin.path(), dir.path());
        let broken = second(dir.path());
        match step {
            // The engine has erased what it did not see, and then the process died.
            "opened" => {
                let size = fs::metadata(broken.join("db")).unwrap().len();
                fs::copy(broken.join("db"), broken.join("before.db")).unwrap();
                fs::write(broken.join("db"), vec![0; size as usize]).unwrap();
            }
            "copied" => fs::write(broken.join("before.tmp"), b"half").unwrap(),
            "half made" => {
                copy_tree(&fresh, &built(dir.path(), ".salvaging"));
                fs::write(built(dir.path(), ".salvaging").join("db"), b"").unwrap();
            }
            "made" => copy_tree(&fresh, &built(dir.path(), ".salvaged")),
            "moved" => {
                copy_tree(&fresh, &built(dir.path(), ".salvaged"));
                fs::create_dir(dir.path().join("queue/quarantine")).unwrap();
                fs::rename(&broken, dir.path().join("queue/quarantine").join(&name)).unwrap();
            }
            _ => {
                copy_tree(&fresh, &built(dir.path(), ""));
                fs::create_dir(dir.path().join("queue/quarantine")).unwrap();
                fs::rename(&broken, dir.path().join("queue/quarantine").join(&name)).unwrap();
            }
        }
        for round in 0..2 {
            let (mut queue, report) = Queue::open(dir.path(), small(), stamp(10)).unwrap();
            assert_eq!(delivered(&mut queue), due, "{step}, round {round}: {report:?}");
            assert_eq!(queue.gaps().len(), 1, "{step}: {:?}", queue.gaps());
            queue.maintain(stamp(11)).unwrap();
            queue.close().unwrap();
        }
        let aside = quarantined(dir.path());
        assert_eq!(aside.len(), 1, "{step}");
        assert_eq!(aside[0].file_name().unwrap(), name);
        assert_eq!(
            generations(dir.path(), "salvaging").len() + generations(dir.path(), "salvaged").len(),
            0
        );
    }
}

#[test]
fn rejected_records_keep_their_reasons_and_are_not_delivered_again() {
    let dir = scratch();
    let due = build(dir.path());
    blind(&generations(dir.path(), "rejected")[0]);
    let (mut queue, report) = Queue::open(dir.path(), small(), stamp(10)).unwrap();
    assert_eq!(report.quarantined.len(), 1, "{report:?}");
    let rejected = queue.rejected(0, ALL).unwrap();
    assert_eq!(rejected.len(), 1);
    assert_eq!((rejected[0].record.seq, rejected[0].reason.as_str()), (30, "no"));
    assert_eq!(delivered(&mut queue), due);
    queue.reject(21, "neither", stamp(11)).unwrap();
    assert_eq!(numbers(&mut queue, Set::Rejected), [21, 30]);
}

#[test]
fn a_record_that_is_rejected_is_salvaged_first() {
    let dir = scratch();
    build(dir.path());
    let mut queue = open(dir.path(), &small());
    // Its generation is not open yet, so what is on the disk counts.
    blind(&generations(dir.path(), "pending")[2]);
    queue.reject(100, "bad", stamp(5)).unwrap();
    assert_eq!(numbers(&mut queue, Set::Rejected), [30, 100]);
    assert_eq!(queue.gaps().len(), 1);
}

/// A small file system in memory, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(dir.path())
            .output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn without_room_nothing_is_given_up_and_with_room_everything_comes() {
    let Some(disk) = SmallDisk::mount("4m") else {
        eprintln!("SKIPPED: mounting a small file system needs root");
        return;
    };
    let dir = disk.0.path();
    let due = build(dir);
    blind(&generations(dir, "pending")[1]);
    let filler = dir.join("filler");
    // With the ballast there would be room.
    fs::remove_file(dir.join("queue/ballast")).unwrap();
    let mut queue = open(dir, &small());
    fs::write(&filler, vec![1; 8 << 20]).unwrap_err();
    let head = queue.read(Set::Pending, 0, ALL).unwrap();
    assert_eq!(head.last().unwrap().seq, 40, "what lies before it goes all the same");
    for _ in 0..3 {
        let error = queue.read(Set::Pending, 41, ALL).unwrap_err();
        assert!(matches!(error, Error::Full { .. }), "{error:?}");
        assert!(error.is_retryable());
        let _ = queue.maintain(stamp(11));
    }
    assert_eq!(queue.gaps().len(), 1);
    assert_eq!(quarantined(dir).len(), 0);
    fs::remove_file(&filler).unwrap();
    assert_eq!(delivered(&mut queue), due);
    assert_eq!((queue.gaps().len(), quarantined(dir).len()), (1, 1));
}

/// The number of snapshots, and their names, by generation.
fn snapshots(dir: &Path) -> Vec<Vec<String>> {
    generations(dir, "pending")
        .iter()
        .map(|generation| {
            let entries = fs::read_dir(generation).unwrap();
            let names = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
            names.filter(|name| name.starts_with("snap.")).collect()
        })
        .collect()
}

#[test]
fn a_sealed_generation_has_a_current_snapshot_and_damage_in_it_is_never_silent() {
    let origin = scratch();
    let due = build(origin.path());
    let before = snapshots(origin.path());
    assert!(before[..3].iter().all(|names| names.len() == 1), "{before:?}");
    // Opening one again finds nothing newer to write down.
    let mut queue = open(origin.path(), &small());
    assert_eq!(delivered(&mut queue), due);
    queue.close().unwrap();
    assert_eq!(snapshots(origin.path())[..3], before[..3]);
    let mut random = Random(7);
    let mut set_aside = 0;
    for trial in 0..40 {
        let dir = scratch();
        copy_tree(origin.path(), dir.path());
        let path = generations(dir.path(), "pending")[1].join("db");
        let at = random.below(fs::metadata(&path).unwrap().len());
        let log = fs::File::options().read(true).write(true).open(&path).unwrap();
        let mut byte = [0];
        log.read_exact_at(&mut byte, at).unwrap();
        log.write_all_at(&[byte[0] ^ 1], at).unwrap();
        let (mut queue, _) = Queue::open(dir.path(), small(), stamp(10)).unwrap();
        let found = delivered(&mut queue);
        let told: Vec<u64> = queue.gaps().iter().flat_map(|gap| gap.from..=gap.to).collect();
        for number in &due {
            assert!(found.contains(number) != told.contains(number), "trial {trial}: {number}");
        }
        set_aside += quarantined(dir.path()).len();
    }
    assert!(set_aside > 3, "flips in what is live are noticed: {set_aside} of 40");
}

#[test]
fn quarantine_is_bounded_in_number_and_bytes_and_leaves_alone_what_is_not_ours() {
    let dir = scratch();
    let options = Options { generation_max_records: 2, ..options() };
    let mut queue = open(dir.path(), &options);
    for _ in 0..20 {
        append(&mut queue, 2, 100);
        queue.maintain(stamp(1)).unwrap();
    }
    queue.close().unwrap();
    let quarantine = dir.path().join("queue/quarantine");
    fs::create_dir(&quarantine).unwrap();
    fs::write(quarantine.join("notes.txt"), b"look at 7").unwrap();
    fs::create_dir(quarantine.join("copy of 3")).unwrap();
    fs::write(quarantine.join("00000000000000000001-00000001.pending"), b"a file").unwrap();
    for generation in generations(dir.path(), "pending") {
        fs::remove_file(generation.join("db")).unwrap();
    }
    let (mut queue, report) = Queue::open(dir.path(), options.clone(), stamp(0)).unwrap();
    assert_eq!(report.quarantined.len(), 20, "{report:?}");
    assert_eq!(queue.stats().quarantined.records, 20);
    queue.maintain(stamp(2)).unwrap();
    assert_eq!(queue.stats().quarantined.records, 16);
    // The oldest went; the first met a file of its name and took another.
    let left = quarantined(dir.path());
    assert_eq!(left.len(), 16 + 3, "{left:?}");
    assert!(left.contains(&quarantine.join("00000000000000000039-00000020.pending")));
    assert!(!left.contains(&quarantine.join("00000000000000000007-00000004.pending")));
    queue.close().unwrap();
    // Each of them is larger than this bound.
    let mut queue = open(dir.path(), &Options { quarantine_max_bytes: 1, ..options });
    queue.maintain(stamp(3)).unwrap();
    assert_eq!(queue.stats().quarantined, Tally::default());
    assert_eq!(quarantined(dir.path()).len(), 3);
}
