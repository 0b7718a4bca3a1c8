//! The daemon on a file system that others fill up and free again: no restart, no sample lost
//! that has a number, a few words about it.
//!
//! Needs a small file system of its own, so root; without it the tests say that they did nothing.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr
)]

mod support;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use harborforge_connector::collector::clock::Clock;
use harborforge_connector::store::stamp;
use rustix::process::Signal;

use support::{Daemon, Line, Site, batching, has_all, monitor, run};

const REFUSES: &str = "the queue's disk refuses, samples are kept in memory meanwhile";
const STILL: &str = "the queue's disk still refuses";
const AGAIN: &str = "the queue's disk takes samples again";
const BALLAST: &str =
    "the disk is full, the ballast was given up so that what waits can be delivered";
const UNSAVED: &str = "samples in memory could not be saved";

/// A file system in memory at a site's data directory, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where it cannot be had, which is said.
    fn of(site: &Site) -> Option<Self> {
        let path = site.data_dir();
        fs::create_dir(&path).unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs"];
        let mounted = Command::new("mount").args(mount).arg(&path).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(path));
        }
        eprintln!("SKIPPED: mounting a small file system needs root");
        None
    }

    /// Takes all there is.
    fn fill(&self) {
        let path = self.0.join("filler");
        let mut filler = fs::File::options().append(true).create(true).open(path).unwrap();
        for block in [64 * 1024, 4096] {
            while filler.write_all(&vec![0xA5; block]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }

    fn has_ballast(&self) -> bool {
        self.0.join("queue/ballast").exists()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Waits for the first words about a full disk.
async fn refuses(daemon: &mut Daemon, disk: &SmallDisk) -> Line {
    let line = daemon.says(REFUSES).await;
    assert_eq!(line.json["path"], disk.0.to_str().unwrap(), "{}", line.text);
    assert!(line.number("missing_bytes") > Some(0), "{}", line.text);
    assert!(line.names(&["no space left", "free_bytes", "retry_in"]), "{}", line.text);
    line
}

/// Waits until it says that at least so many samples wait for room.
async fn keeps_in_memory(daemon: &mut Daemon, samples: u64) -> Line {
    daemon
        .hears("samples in memory", |line| {
            line.message() == STILL && line.number("in_memory") >= Some(samples)
        })
        .await
}

#[test]
fn filled_while_the_monitor_is_away_and_freed_again() {
    run(async {
        let monitor = monitor(batching()).await;
        let site = Site::new(&monitor);
        let Some(disk) = SmallDisk::of(&site) else { return };
        monitor.pause().await;
        let mut daemon = site.start();
        let pid = daemon.pid();
        // The upkeep that makes the ballast comes with the first append.
        daemon.has_appended(2).await;
        assert!(disk.has_ballast());
        disk.fill();
        refuses(&mut daemon, &disk).await;
        let still = keeps_in_memory(&mut daemon, 2).await;
        assert!(disk.has_ballast(), "samples that can wait are not worth it");
        disk.free();
        let again = daemon.says(AGAIN).await;
        assert!(again.number("waited") >= still.number("in_memory"), "{}", again.text);
        assert_eq!((again.number("dropped"), daemon.count(REFUSES)), (Some(0), 1));
        let told = daemon.for_people().iter().filter(|line| line.names(&["missing_bytes"])).count();
        assert_eq!(told, 1, "how much is missing is said once");

        monitor.resume().await.unwrap();
        let last = daemon.appended();
        daemon.has_appended(last + 2).await;
        has_all(&monitor, last + 2).await;
        assert_eq!((daemon.pid(), daemon.count("started")), (pid, 1));
        daemon.stop().await;
        let books = site.books();
        books.agree_with(&monitor);
        assert!(monitor.accepted().iter().all(|accepted| accepted.seq <= books.sampled));
        assert_eq!(monitor.counts().out_of_order, 0);
    });
}

#[test]
fn full_before_the_start_a_backlog_is_delivered_all_the_same() {
    run(async {
        let monitor = monitor(batching()).await;
        let mut site = Site::new(&monitor);
        site.set("report_interval", "1h");
        let Some(disk) = SmallDisk::of(&site) else { return };
        site.fill(1500);
        let mut queue = site.queue();
        queue.maintain(stamp(Clock::new().stamp())).unwrap();
        queue.close().unwrap();
        assert!(disk.has_ballast());
        disk.fill();
        let mut daemon = site.start();
        assert_eq!(daemon.says("started").await.number("waiting"), Some(1500));
        has_all(&monitor, 1500).await;
        disk.free();
        // Its own first sample, appended at once or when there was room.
        has_all(&monitor, 1501).await;
        assert_eq!(daemon.count("started"), 1);
        daemon.stop().await;
        site.books().agree_with(&monitor);
    });
}

#[test]
fn stopped_on_a_full_disk_it_saves_what_it_can_and_counts_what_it_cannot() {
    run(async {
        let monitor = monitor(batching()).await;
        let site = Site::new(&monitor);
        let Some(disk) = SmallDisk::of(&site) else { return };
        monitor.pause().await;
        let mut daemon = site.start();
        daemon.has_appended(2).await;
        disk.fill();
        refuses(&mut daemon, &disk).await;
        let last = daemon.appended();
        let still = keeps_in_memory(&mut daemon, 2).await;
        let waited = still.number("in_memory").unwrap();
        daemon.signal(Signal::TERM);
        daemon.says(BALLAST).await;
        let line = daemon.says(AGAIN).await;
        assert!(line.number("waited") >= Some(waited), "{}", line.text);
        assert!(daemon.ended().await.success());
        assert_eq!(daemon.count(UNSAVED), 0);
        assert!(!disk.has_ballast());

        // The same without a ballast, and with what opening takes and no more.
        disk.fill();
        let mut daemon = site.start();
        let refused = daemon.says(REFUSES).await;
        assert!(refused.number("missing_bytes") > Some(0));
        keeps_in_memory(&mut daemon, 1).await;
        daemon.signal(Signal::TERM);
        let unsaved = daemon.says(UNSAVED).await;
        assert!(unsaved.number("samples") >= Some(1), "{}", unsaved.text);
        assert_eq!(unsaved.json["path"], disk.0.to_str().unwrap());
        assert_eq!(daemon.ended().await.code(), Some(1));

        disk.free();
        let books = site.books();
        assert!(books.sampled >= last + waited, "{books:?}: {waited} waited after {last}");
        assert_eq!((books.gaps, books.pending), (0, books.sampled));
    });
}
