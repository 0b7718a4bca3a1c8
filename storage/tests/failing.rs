//! Writes, syncs, openings, renames and truncations fail at random, over 10,000 operations.
//!
//! The test runs its own binary again as the child, under libfiu, which makes the C library's
//! calls fail as often as it is told, by a seed. The child (`support/faulty.rs`) works on a queue,
//! keeps a model beside it, and holds one against the other after every operation and every
//! reopening; at last it has to get everything out of the queue as it then is, faults or not.
//! Without libfiu (Debian: fiu-utils) the test says that it did nothing. More:
//! `HARBORFORGE_FAULTY_OPERATIONS=100000 HARBORFORGE_FAULTY_SEED=7 cargo test -p harborforge-storage --test failing`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "tests may panic, and say when they are skipped"
)]

#[path = "support/faulty.rs"]
mod faulty;
#[path = "support/journal.rs"]
mod journal;
mod support;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use faulty::Told;
use harborforge_storage::*;
use support::{ALL, Random, stamp};

const OPERATIONS: u64 = 10_000;
/// Reached only when something hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// What fails, and how often. (Openings are many, and all but one of an operation must succeed.)
const POINTS: [(&str, f64); 7] = [
    ("posix/io/rw/write", 0.03),
    ("posix/io/rw/pwrite", 0.03),
    ("posix/io/rw/ftruncate", 0.03),
    ("posix/io/sync/fsync", 0.03),
    ("posix/io/sync/fdatasync", 0.03),
    ("posix/io/oc/open", 0.005),
    ("posix/io/dir/rename", 0.03),
];

/// With what: a queue of its own for each.
const ERRORS: [(&str, u32); 4] = [("EIO", 5), ("ENOSPC", 28), ("EROFS", 30), ("EDQUOT", 122)];

#[test]
#[ignore = "the child of the test below, which starts it"]
fn child() {
    faulty::work();
}

#[test]
fn ten_thousand_operations_with_failing_writes_and_syncs_lose_nothing() {
    let there = Command::new("fiu-run").arg("-h").output();
    if there.is_err() {
        eprintln!("SKIPPED: failing writes need libfiu (Debian: apt-get install fiu-utils)");
        return;
    }
    let wanted = number("HARBORFORGE_FAULTY_OPERATIONS").unwrap_or(OPERATIONS);
    let share = wanted / ERRORS.len() as u64;
    let base = number("HARBORFORGE_FAULTY_SEED").unwrap_or(0);
    let mut told = Told::default();
    for (kind, (name, error)) in ERRORS.into_iter().enumerate() {
        let dir = in_memory();
        let mut done = 0;
        // A child whose engine died in its own threads says so, and the next one takes over; so
        // it does where the harness itself cannot print.
        for life in 0.. {
            assert!(life < 20, "{name}: it dies again and again: {told:?}");
            let seed = base + kind as u64 * 1000 + life;
            let part = one_life(dir.path(), seed, share - done, error);
            done += part.operations;
            told.add(&part);
            if part.finished > 0 {
                break;
            }
        }
        let (mut queue, report) = Queue::open(dir.path(), faulty::small(), stamp(0)).unwrap();
        assert_eq!(report.missing, [], "{name}");
        assert_eq!(queue.read(Set::Pending, 0, ALL).unwrap(), [], "{name}: all was delivered");
        queue.close().unwrap();
    }
    println!("{told:?}");
    assert!(told.operations >= share * ERRORS.len() as u64, "{told:?}");
    // Faults were met, and did not stop the work: else this tested nothing.
    assert!(told.refused * 25 > told.operations, "{told:?}");
    assert!(told.refused * 2 < told.operations, "{told:?}");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// In memory where there is such a place: what fails is decided before the disk is reached, and
/// thousands of syncs take their time.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Runs one child to its end.
fn one_life(dir: &Path, seed: u64, operations: u64, error: u32) -> Told {
    let mut command = Command::new("fiu-run");
    command.args(["-x", "-f", ""]);
    for (name, probability) in POINTS {
        let fail = format!("name={name},probability={probability},failinfo={error}");
        command.arg("-c").arg(format!("enable_random {fail}"));
    }
    let mut child = command
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        // Its first numbers are much the same for seeds that are.
        .env("FIU_PRNG_SEED", (Random(seed).next() >> 34).to_string())
        .env("HARBORFORGE_FAILING_DIR", dir)
        .env("HARBORFORGE_FAILING_SEED", seed.to_string())
        .env("HARBORFORGE_FAILING_OPERATIONS", operations.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Read by a thread, so that a child that hangs is noticed.
    let (sender, lines) = channel();
    let out = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut told = Told::default();
    let mut begun = false;
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                begun |= line == "@ begun";
                if let Some(words) = line.strip_prefix("@ told ") {
                    told = Told::parse(words);
                } else if line.starts_with("@ panic ") {
                    eprintln!("{line}");
                } else if line.starts_with("@ engine ") {
                    told.broken = 1;
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                panic!("seed {seed}, error {error}: it hangs: {told:?}");
            }
        }
    }
    let status = child.wait().unwrap();
    let well = told.finished + told.broken > 0 || !begun;
    assert!(well, "seed {seed}, error {error}: {status}, {told:?}; it says why above");
    told
}
