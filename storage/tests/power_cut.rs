//! Power cuts: the queue lies in a file system image; the image is copied while a child works on
//! it, and the copy, which lacks everything that was not synced, is mounted and looked into.
//!
//! The child is stopped while the image is copied, so that the copy is of one moment. Needs
//! root and a loop device; without them the test says that it did nothing. More cuts:
//! `HARBORFORGE_POWER_CUTS=100 cargo test -p harborforge-storage --test power_cut`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may panic, and say when they are skipped"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harborforge_storage::*;
use support::worker::{self, content, small};
use support::*;

#[test]
#[ignore = "the child of the test below, which starts it"]
fn child() {
    worker::work();
}

#[test]
fn what_was_reported_survives_a_power_cut() {
    let cuts = std::env::var("HARBORFORGE_POWER_CUTS").ok().and_then(|n| n.parse().ok());
    let root = tempfile::tempdir().unwrap();
    for cut in 0..cuts.unwrap_or(8) {
        let image = root.path().join("image");
        if !make_image(&image) {
            eprintln!(
                "SKIPPED: a loop-mounted file system needs root, mkfs.ext4 and a loop device"
            );
            return;
        }
        let Some(disk) = Mounted::mount(&image, &root.path().join("disk")) else {
            eprintln!(
                "SKIPPED: a loop-mounted file system needs root, mkfs.ext4 and a loop device"
            );
            return;
        };
        // Several levels that were just made and not synced.
        let deep = Path::new("some/levels/data");
        fs::create_dir_all(disk.path.join(deep)).unwrap();
        let (mut child, mut lines) = worker::start(&disk.path.join(deep), cut);
        let mut reports = Vec::new();
        let wanted = 20 + Random(cut).below(200);
        while (reports.len() as u64) < wanted {
            reports.extend(worker::parse(&lines.next().unwrap().unwrap()));
        }
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
        let copy = root.path().join("copy");
        fs::copy(&image, &copy).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        reports.extend(lines.map_while(Result::ok).filter_map(|line| worker::parse(&line)));
        drop(disk);

        let copied = Mounted::mount(&copy, &root.path().join("copied")).unwrap();
        let (mut queue, report) =
            Queue::open(&copied.path.join(deep), small(), stamp(cut)).unwrap();
        assert_eq!(report.missing, [], "cut {cut}: {report:?}");
        let numbers_of = |what: &str| {
            let chosen = reports.iter().filter(move |report| report.0 == what);
            chosen.flat_map(|report| report.1..=report.2).collect::<Vec<_>>()
        };
        let confirmed = numbers_of("confirmed").into_iter().max().unwrap_or(0);
        assert!(queue.stats().cursor >= confirmed, "cut {cut}");
        let pending: BTreeMap<u64, Vec<u8>> = queue
            .read(Set::Pending, 0, ALL)
            .unwrap()
            .into_iter()
            .map(|r| (r.seq, r.payload))
            .collect();
        let rejected = numbers(&mut queue, Set::Rejected);
        for number in numbers_of("rejected") {
            assert!(rejected.contains(&number), "cut {cut}: rejected {number}");
        }
        for number in numbers_of("appended") {
            if number > queue.stats().cursor && !rejected.contains(&number) {
                assert_eq!(pending.get(&number), Some(&content(cut, number)), "cut {cut}");
            }
        }
        assert_eq!(queue.gaps(), [], "cut {cut}");
        queue.close().unwrap();
    }
}

/// A fresh file system in a file; false where that cannot be had.
fn make_image(path: &Path) -> bool {
    let file = fs::File::create(path).unwrap();
    file.set_len(48 << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(path).status();
    made.is_ok_and(|status| status.success())
}

struct Mounted {
    path: PathBuf,
}

impl Mounted {
    fn mount(image: &Path, at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let output = Command::new("mount").args(["-o", "loop"]).arg(image).arg(at).output();
        output.is_ok_and(|output| output.status.success()).then(|| Self { path: at.to_path_buf() })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}
