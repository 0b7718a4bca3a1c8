//! Power cuts: the queue lies in a file system image, and a child works on it. At a moment the
//! child is stopped and the image copied; the copy, which lacks everything that was not
//! synced, is mounted and looked into, while the child goes on towards the next cut.
//!
//! The moment is just before a sync, just after it, or within: then some of the sectors the sync
//! wrote are missing. Some of the copies are damaged as well, and the power is cut once more while
//! the queue is opened and mended. Needs root and a loop device, and a C compiler to choose the
//! moments; without them the test says so. More cuts:
//! `HARBORFORGE_POWER_CUTS=1000 cargo test -p harborforge-storage --test power_cut`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may panic, and say when they are skipped"
)]

mod support;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout};
use std::sync::atomic::{AtomicU64, Ordering};

use harborforge_storage::*;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use support::books::Books;
use support::calls::{Action, Control, layer};
use support::image::{self, Mounted};
use support::worker::{self, AT_RANDOM};
use support::*;

/// So many on the way of one child.
const CUTS_PER_CHILD: u64 = 10;
/// Several levels that were just made and not synced.
const DEEP: &str = "some/levels/data";

#[test]
#[ignore = "the child of the test below, which starts it"]
fn child() {
    worker::work();
}

#[test]
fn what_was_reported_survives_100_power_cuts() {
    let room = quick_dir();
    if !image::make(&room.path().join("try"))
        || Mounted::mount(&room.path().join("try"), &room.path().join("mounted")).is_none()
    {
        eprintln!("SKIPPED: a loop-mounted file system needs root, mkfs.ext4 and a loop device");
        return;
    }
    if layer().is_none() {
        eprintln!("SKIPPED: choosing moments needs Linux, glibc and a C compiler (cc)");
        return;
    }
    let cuts = std::env::var("HARBORFORGE_POWER_CUTS").ok().and_then(|n| n.parse().ok());
    let children = cuts.unwrap_or(100u64).div_ceil(CUTS_PER_CHILD);
    let next = AtomicU64::new(0);
    let figures = Figures::default();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= children {
                        break;
                    }
                    cut_one_child(number, &figures);
                }
            });
        }
    });
    println!("{} cuts: {figures:?}", children * CUTS_PER_CHILD);
    let count = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
    assert!(count(&figures.torn) * 4 > children * CUTS_PER_CHILD, "hardly a sync was cut short");
    assert!(count(&figures.evicted) > 0 && count(&figures.rejected) > 0, "hardly any load");
}

/// What the cuts met.
#[derive(Debug, Default)]
struct Figures {
    /// Cuts with a part of a sync missing.
    torn: AtomicU64,
    /// Cuts while opening.
    opening: AtomicU64,
    /// Openings that had something to mend.
    mended: AtomicU64,
    delivered: AtomicU64,
    evicted: AtomicU64,
    rejected: AtomicU64,
}

impl Figures {
    fn add(figure: &AtomicU64, count: usize) {
        figure.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// One child at work, and all the cuts on its way.
fn cut_one_child(number: u64, figures: &Figures) {
    let room = quick_dir();
    let image = room.path().join("image");
    assert!(image::make(&image));
    let disk = Mounted::mount(&image, &room.path().join("disk")).unwrap();
    fs::create_dir_all(disk.path.join(DEEP)).unwrap();
    let mut random = Random(number);
    let mut books = Books::default();
    let control = Control::new(room.path(), &disk.path);
    let ahead = 1 + random.below(80);
    let mut work = Work::start(&disk.path.join(DEEP), number * 1000, &control, ahead);
    for cut in 0..CUTS_PER_CHILD {
        let what = format!("cut {}", number * CUTS_PER_CHILD + cut);
        let copy = room.path().join(format!("copy-{cut}"));
        let torn = work.cut(&image, &copy, &mut random, &mut books, &what);
        Figures::add(&figures.torn, usize::from(torn));
        let mut then = books.clone();
        then.ended();
        if cut % 5 == 4 {
            let again = cut_while_opening(&copy, room.path(), cut, &mut random, &mut then, &what);
            Figures::add(&figures.opening, usize::from(again));
        }
        look_into(&copy, &room.path().join(format!("copied-{cut}")), &mut then, figures, &what);
        fs::remove_file(&copy).unwrap();
        if cut + 1 == CUTS_PER_CHILD {
            Figures::add(&figures.delivered, then.delivered());
            Figures::add(&figures.evicted, then.evicted());
            Figures::add(&figures.rejected, then.rejected());
        } else {
            work.go_on_to(1 + random.below(80));
        }
    }
}

/// Mounts what a cut left and compares it with the books of that moment.
fn look_into(copy: &Path, at: &Path, books: &mut Books, figures: &Figures, what: &str) {
    let disk = Mounted::mount(copy, at).unwrap();
    let (mut queue, report) = match Queue::open(&disk.path.join(DEEP), worker::small(), stamp(0)) {
        Ok(opened) => opened,
        Err(error) => panic!("{what}: {error:?}"),
    };
    Figures::add(&figures.mended, usize::from(!report.is_clean()));
    books.check(&mut queue, &report, what);
    queue.close().unwrap();
}

/// Damages one generation in a copy, and cuts the power again while a child opens and mends what
/// is there; whether it was still at that.
fn cut_while_opening(
    copy: &Path,
    room: &Path,
    cut: u64,
    random: &mut Random,
    books: &mut Books,
    what: &str,
) -> bool {
    let what = format!("{what}, opened and cut again");
    let disk = Mounted::mount(copy, &room.join(format!("opened-{cut}"))).unwrap();
    let data = disk.path.join(DEEP);
    if data.join("queue").exists()
        && let [first, .., last] = &generations(&data, "pending")[..]
    {
        let file = fs::File::options().write(true).open(first.join("db")).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        file.sync_all().unwrap();
        let number = |path: &PathBuf| -> u64 {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.split_once('-').unwrap().0.parse().unwrap()
        };
        let range = worker::Report::Damaging(number(first), number(last) - 1);
        books.enter(&range, &what);
    }
    let again = room.join(format!("again-{cut}"));
    fs::create_dir(&again).unwrap();
    let control = Control::new(&again, &disk.path);
    let mut work = Work::start(&data, 1_000_000 + cut, &control, 1 + random.below(12));
    let second = again.join("copy");
    work.cut(copy, &second, random, books, &what);
    books.ended();
    let opening = !work.said_anything;
    drop(work);
    drop(disk);
    fs::rename(&second, copy).unwrap();
    opening
}

/// A child at work in a mounted image.
struct Work<'a> {
    child: Child,
    said: ChildStdout,
    /// What was read of the line it is in the middle of.
    line: Vec<u8>,
    said_anything: bool,
    control: &'a Control,
}

impl<'a> Work<'a> {
    /// Starts a child that stops before its sync number `ahead`.
    fn start(dir: &Path, run: u64, control: &'a Control, ahead: u64) -> Self {
        let mut command = worker::command(dir, run, AT_RANDOM);
        control.apply(&mut command, false);
        command.env("CALLS_ONLY", "sync").stderr(control.words());
        control.act(ahead, ahead, Action::StopAround);
        let mut child = command.spawn().unwrap();
        let said = child.stdout.take().unwrap();
        fcntl_setfl(&said, OFlags::NONBLOCK).unwrap();
        Self { child, said, line: Vec::new(), said_anything: false, control }
    }

    /// Waits for the child to come to its chosen sync, and copies the image as it is before it,
    /// after it, or within; whether a part of the sync is missing. The child stands still then.
    fn cut(
        &mut self,
        image: &Path,
        copy: &Path,
        random: &mut Random,
        books: &mut Books,
        what: &str,
    ) -> bool {
        self.wait_for_stop(what);
        self.enter_reports(books, what);
        image::copy(image, copy);
        self.go_on();
        self.wait_for_stop(what);
        match random.below(4) {
            0 => false,
            kind => {
                let after = copy.with_extension("after");
                image::copy(image, &after);
                if kind == 1 {
                    fs::rename(&after, copy).unwrap();
                    return false;
                }
                let (_, missing) = image::tear(copy, &after, random);
                fs::remove_file(&after).unwrap();
                missing > 0
            }
        }
    }

    /// Lets the child go on to the sync that is so many ahead.
    fn go_on_to(&self, ahead: u64) {
        self.control.act(ahead, ahead, Action::StopAround);
        self.go_on();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn go_on(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    /// Until all its threads stand still.
    fn wait_for_stop(&self, what: &str) {
        let (_, status) = waitpid(Some(self.pid()), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped(), "{what}: the child ended: {status:?} {}", self.control.said());
    }

    /// Everything the stopped child has said.
    fn enter_reports(&mut self, books: &mut Books, what: &str) {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = self.said.read(&mut buffer) {
            for &byte in &buffer[..count] {
                if byte != b'\n' {
                    self.line.push(byte);
                    continue;
                }
                let line = String::from_utf8(std::mem::take(&mut self.line)).unwrap();
                if let Some(report) = worker::parse(&line) {
                    self.said_anything = true;
                    books.enter(&report, what);
                }
            }
        }
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
