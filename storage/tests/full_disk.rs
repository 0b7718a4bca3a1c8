//! A full disk: an error that says so, nothing appended lost, and on it goes once there is room.
//!
//! Needs a file system of its own, so root; without it the test says that it did nothing.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may panic, and say when they are skipped"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harborforge_storage::*;
use support::*;

/// A small file system in memory, unmounted when dropped.
struct SmallDisk {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(&path)
            .output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self { path, _dir: dir })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}

fn try_append(queue: &mut Queue, size: usize) -> Result<u64, Error> {
    let payload = payload(queue.stats().next_seq, size);
    let record = NewRecord { stamp: stamp(0), payload: &payload };
    queue.append(&[record]).map(|range| *range.start())
}

fn fill(path: &Path) {
    use std::io::Write;
    let mut filler = fs::File::create(path).unwrap();
    while filler.write_all(&[1; 4096]).is_ok() {}
}

#[test]
fn a_full_disk_loses_nothing_and_is_recovered_from() {
    let Some(disk) = SmallDisk::mount("3m") else {
        eprintln!("SKIPPED: mounting a small file system needs root");
        return;
    };
    let options = Options { generation_max_records: 200, ..options() };
    let mut queue = open(&disk.path, &options);
    let filler = disk.path.join("filler");
    let mut appended = 0;
    for round in 0..4 {
        for _ in 0..100 {
            try_append(&mut queue, 300).unwrap();
            appended += 1;
        }
        fill(&filler);
        let mut failures = 0;
        // The engine's file has room in its last block for some more.
        while failures < 3 {
            match try_append(&mut queue, 300) {
                Ok(_) => appended += 1,
                Err(error) => {
                    failures += 1;
                    assert!(matches!(error, Error::Full { .. }), "round {round}: {error:?}");
                    assert!(error.is_retryable());
                }
            }
            let _ = queue.maintain(stamp(round));
        }
        assert_eq!(queue.stats().next_seq, appended + 1);
        // Reading may need the database opened afresh, which a full disk may refuse; it never
        // takes that for damage.
        match queue.read(Set::Pending, 0, ALL) {
            Ok(records) => assert!(!records.is_empty()),
            Err(error) => assert!(matches!(error, Error::Full { .. }), "round {round}: {error:?}"),
        }
        assert_eq!(queue.stats().pending.records, appended);
        if round % 2 == 0 {
            drop(queue);
            fs::remove_file(&filler).unwrap();
            let (reopened, report) = Queue::open(&disk.path, options.clone(), stamp(0)).unwrap();
            assert_eq!(report.missing, []);
            queue = reopened;
            // What failed may have reached the disk all the same; then it counts.
            appended = appended.max(queue.stats().next_seq - 1);
        } else {
            fs::remove_file(&filler).unwrap();
        }
        assert_eq!(numbers(&mut queue, Set::Pending), (1..=appended).collect::<Vec<_>>());
    }
    assert!(queue.gaps().is_empty());
    for record in queue.read(Set::Pending, 0, ALL).unwrap() {
        assert_eq!(record.payload, payload(record.seq, 300));
    }
    queue.acknowledge(appended, confirm(1)).unwrap();
    queue.maintain(stamp(10_000)).unwrap();
    assert_eq!(queue.stats().pending, Tally::default());
}

#[test]
fn a_rejection_that_fails_leaves_no_directory_behind() {
    let Some(disk) = SmallDisk::mount("3m") else {
        eprintln!("SKIPPED: a file system of its own needs root");
        return;
    };
    let mut queue = open(&disk.path, &options());
    append(&mut queue, 1, 60_000);
    append(&mut queue, 20, 40_000);
    // Room for an empty generation, not for the record.
    let filler = disk.path.join("filler");
    fill(&filler);
    let size = fs::metadata(&filler).unwrap().len();
    fs::File::options().write(true).open(&filler).unwrap().set_len(size - 40_960).unwrap();
    for _ in 0..3 {
        assert!(queue.reject(1, "no", stamp(1)).is_err());
        assert_eq!(generations(&disk.path, "rejected").len(), 0);
    }
    assert_eq!(queue.stats().rejected.records, 0);
    fs::remove_file(&filler).unwrap();
    queue.reject(1, "no", stamp(1)).unwrap();
    assert_eq!(numbers(&mut queue, Set::Rejected), [1]);
    assert_eq!(numbers(&mut queue, Set::Pending), (2..=21).collect::<Vec<_>>());
}
