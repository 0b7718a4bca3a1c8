//! A fixed sequence of steps of every kind, ended or disturbed at chosen system calls: killed
//! before the call, killed in the middle of a write, or the call refused with an error.
//!
//! The calls are those that change files: between two of them a kill finds nothing new. A sample
//! of them in the ordinary run, all with
//! `HARBORFORGE_EVERY_CALL=1 cargo test -p harborforge-storage --test every_call`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may panic, and say when they are skipped"
)]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use harborforge_storage::*;
use support::books::Books;
use support::calls::{Action, Control, layer};
use support::worker::{self, AT_RANDOM, ENGINE_DIED, Report, SCRIPT, STUBBORN};
use support::*;

/// So many of the calls in the ordinary run.
const SAMPLE: usize = 120;

#[test]
#[ignore = "the child of the tests below, which start it"]
fn child() {
    worker::work();
}

/// A queue's directory, a place for what steers the child beside it, and the books.
struct Place {
    dir: tempfile::TempDir,
    control: Control,
    books: Books,
}

impl Place {
    fn new() -> Self {
        let dir = quick_dir();
        let control = Control::new(dir.path(), &dir.path().join("data"));
        std::fs::create_dir(dir.path().join("data")).unwrap();
        Self { dir, control, books: Books::default() }
    }

    /// Runs a child to its end; whether it came through, and whether the engine died under it.
    fn run(&mut self, run: u64, task: &str, what: &str) -> (bool, bool) {
        let data = self.dir.path().join("data");
        let (reports, status) = worker::finish(&data, run, task, &self.control, false);
        for report in &reports {
            self.books.enter(report, what);
        }
        self.books.ended();
        (reports.last() == Some(&Report::Finished), status.code() == Some(ENGINE_DIED))
    }

    fn check(&mut self, what: &str) {
        let (mut queue, report) =
            match Queue::open(&self.dir.path().join("data"), worker::small(), stamp(0)) {
                Ok(opened) => opened,
                Err(error) => panic!("{what}: {error:?}"),
            };
        self.books.check(&mut queue, &report, what);
        let next = queue.stats().next_seq;
        assert_eq!(*append(&mut queue, 1, 10).start(), next, "{what}: it does not go on");
    }
}

/// The calls of the whole script, by name and path; none where the layer cannot be had.
fn calls() -> Option<Vec<(String, String)>> {
    if layer().is_none() {
        eprintln!("SKIPPED: choosing system calls needs Linux, glibc and a C compiler (cc)");
        return None;
    }
    let mut place = Place::new();
    let data = place.dir.path().join("data");
    let (reports, status) = worker::finish(&data, 1000, SCRIPT, &place.control, true);
    assert!(status.success(), "{status}");
    reports.iter().for_each(|report| place.books.enter(report, "undisturbed"));
    assert_eq!(reports.last(), Some(&Report::Finished));
    let books = &place.books;
    // The script does what it is there for.
    let did = (books.delivered(), books.rejected(), books.damaged());
    assert!(did.0 > 100 && did.1 == 3 && did.2 > 5, "{did:?}");
    place.check("undisturbed");
    assert!(place.books.evicted() > 100, "{}", place.books.evicted());

    let calls = place.control.logged();
    // And the layer sees what it is there for.
    let names: BTreeSet<&str> = calls.iter().map(|(name, _)| name.as_str()).collect();
    for name in [
        "mkdir",
        "open64",
        "write",
        "pwrite64",
        "ftruncate64",
        "fsync",
        "fdatasync",
        "sync_file_range",
        "rename",
        "unlink",
        "unlinkat",
    ] {
        assert!(names.contains(name), "no {name} was seen: {names:?}");
    }
    for part in ["mark", "cursor", "manifest", "/db", "/snap.", ".rejected", "quarantine"] {
        assert!(calls.iter().any(|(_, path)| path.contains(part)), "nothing about {part}");
    }
    Some(calls)
}

/// Which calls to try, counted from 1: evenly spread, or all.
fn chosen(calls: &[(String, String)]) -> Vec<usize> {
    let all = std::env::var_os("HARBORFORGE_EVERY_CALL").is_some();
    let step = if all { 1.0 } else { (calls.len() as f64 / SAMPLE as f64).max(1.0) };
    let count = (calls.len() as f64 / step) as usize;
    (0..count).map(|at| 1 + (at as f64 * step) as usize).collect()
}

/// Takes turns on two threads.
fn in_two_lanes(points: &[usize], try_one: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(&point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    try_one(point);
                }
            });
        }
    });
}

#[test]
fn killed_at_any_call_nothing_is_lost() {
    let Some(calls) = calls() else { return };
    let points = chosen(&calls);
    in_two_lanes(&points, |point| {
        let (name, path) = &calls[point - 1];
        let mut place = Place::new();
        let action = match point % 3 {
            _ if !name.contains("write") => Action::KillBefore,
            0 => Action::KillBefore,
            _ => Action::KillAmid,
        };
        let what = format!("{action:?} of call {point}, {name} {}", tail(path));
        place.control.act(point as u64, point as u64, action);
        let (finished, _) = place.run(1000, SCRIPT, &what);
        // Threads of the engine may make a call more or less than the first time.
        assert!(!finished || point + 20 > calls.len(), "{what}: was not killed");
        // What mends may be killed too, most often while it opens.
        if point.is_multiple_of(3) {
            let again = 1 + Random(point as u64).below(60);
            place.control.act(again, again, Action::KillBefore);
            place.run(1_000_000, AT_RANDOM, &format!("{what}, then at call {again}"));
        }
        place.check(&what);
    });
    println!("killed at {} of {} calls", points.len(), calls.len());
}

fn tail(path: &str) -> &str {
    path.find("/data/").map_or(path, |at| &path[at..])
}

#[test]
fn refused_any_call_nothing_is_lost() {
    let Some(calls) = calls() else { return };
    let points = chosen(&calls);
    let died = AtomicUsize::new(0);
    in_two_lanes(&points, |point| {
        let (name, path) = &calls[point - 1];
        let mut place = Place::new();
        // EIO, or ENOSPC; once, or a while.
        let error = if point.is_multiple_of(2) { 5 } else { 28 };
        let last = point + [0, 0, 6][point % 3];
        let what = format!("error {error} from call {point} to {last}, {name} {}", tail(path));
        place.control.act(point as u64, last as u64, Action::Refuse(error));
        place.books.tried_again = true;
        let (finished, engine_died) = place.run(1000, STUBBORN, &what);
        assert!(finished || engine_died, "{what}: {}", place.control.said());
        died.fetch_add(usize::from(engine_died), Ordering::Relaxed);
        place.check(&what);
    });
    println!(
        "refused {} of {} calls; the engine's threads died {} times",
        points.len(),
        calls.len(),
        died.into_inner()
    );
}
