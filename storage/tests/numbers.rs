//! Numbers are never used twice, not even when two things go wrong at once: the newest
//! generation cannot be read, and a power cut took the high-water mark back.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use harborforge_storage::*;
use support::*;

/// 80 records in one generation, cut off the power: the mark is back at 50, as it was synced.
fn power_cut(dir: &Path) -> PathBuf {
    let mark = dir.join("queue/mark");
    let mut queue = open(dir, &options());
    append(&mut queue, 50, 300);
    let synced = fs::read(&mark).unwrap();
    append(&mut queue, 30, 300);
    drop(queue);
    // Opened and killed once more, so that the generation has a current snapshot.
    drop(open(dir, &options()));
    fs::write(&mark, synced).unwrap();
    generations(dir, "pending").pop().unwrap()
}

/// Every number up to 80 is there or told, and the next one is a new one.
fn account(dir: &Path, what: &str) -> (u64, OpenReport) {
    let (mut queue, report) = Queue::open(dir, options(), stamp(9)).unwrap();
    let pending: BTreeSet<u64> = numbers(&mut queue, Set::Pending).into_iter().collect();
    let told: BTreeSet<u64> = queue.gaps().iter().flat_map(|gap| gap.from..=gap.to).collect();
    for number in 1..=80 {
        assert!(pending.contains(&number) != told.contains(&number), "{what}: {number}");
    }
    assert!(queue.gaps().iter().all(|gap| gap.maybe_delivered), "{what}");
    let next = *append(&mut queue, 1, 300).start();
    assert!(next > 80, "{what}: {next} was used before");
    drop(queue);
    // Known for good: another opening finds nothing new.
    let (mut queue, again) = Queue::open(dir, options(), stamp(9)).unwrap();
    assert!(again.missing.is_empty(), "{what}: {again:?}");
    assert_eq!(*append(&mut queue, 1, 300).start(), next + 1, "{what}");
    (next, report)
}

#[test]
fn a_newest_generation_that_does_not_open_hides_no_number() {
    for lost_mark in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let newest = power_cut(dir.path());
        fs::remove_file(newest.join("db")).unwrap();
        if lost_mark {
            fs::remove_file(dir.path().join("queue/mark")).unwrap();
        }
        let (next, report) = account(dir.path(), "gone");
        assert_eq!(report.quarantined.len(), 1);
        assert_eq!(report.missing, [1..=next - 1]);
        assert_eq!(!report.rebuilt.is_empty(), lost_mark);
    }
}

#[test]
fn a_newest_generation_with_damaged_pages_hides_no_number() {
    let origin = tempfile::tempdir().unwrap();
    let newest = power_cut(origin.path());
    let inside = newest.strip_prefix(origin.path()).unwrap().join("db");
    let mut random = Random(7);
    let mut hurt = 0;
    for trial in 0..60 {
        let dir = tempfile::tempdir().unwrap();
        copy_tree(origin.path(), dir.path());
        let target = dir.path().join(&inside);
        let mut bytes = fs::read(&target).unwrap();
        // Not in what was written last: damage there may look like the end of the log.
        let at = random.below(bytes.len() as u64 / 2) as usize;
        bytes[at] ^= 1 << random.below(8);
        fs::write(&target, bytes).unwrap();
        let (next, _) = account(dir.path(), &format!("trial {trial}, flipped at {at}"));
        hurt += u64::from(next > 81);
    }
    assert!(hurt > 0, "no trial hurt");
}

#[test]
fn after_a_power_cut_without_damage_nothing_is_skipped() {
    let dir = tempfile::tempdir().unwrap();
    power_cut(dir.path());
    let (next, report) = account(dir.path(), "whole");
    assert_eq!(next, 81);
    assert!(report.is_clean(), "{report:?}");
}

#[test]
fn after_a_clean_stop_it_is_known_what_a_broken_generation_held() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), &options());
    append(&mut queue, 80, 300);
    queue.close().unwrap();
    fs::remove_file(generations(dir.path(), "pending")[0].join("db")).unwrap();
    assert_eq!(account(dir.path(), "clean").0, 81);
}
