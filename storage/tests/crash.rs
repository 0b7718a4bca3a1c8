//! Child processes work on queues and are killed with SIGKILL at random moments, 1,000 times.
//!
//! The test runs its own binary again as the child. The child says over a pipe what it is about to
//! do and what is done; what the parent finds afterwards must agree with that, number by number
//! (`support/books.rs`). More kills:
//! `HARBORFORGE_KILLS=20000 cargo test -p harborforge-storage --test crash`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may panic; a child says what it tries again"
)]

mod support;

use std::path::Path;
use std::time::Duration;

use harborforge_storage::*;
use support::books::Books;
use support::worker::{self, AT_RANDOM};
use support::*;

/// A queue lives through this many kills before a fresh one is begun.
const KILLS_PER_QUEUE: u64 = 25;

#[test]
#[ignore = "the child of the test below, which starts it"]
fn child() {
    worker::work();
}

#[test]
fn nothing_is_lost_or_told_twice_over_1000_kills() {
    let kills = std::env::var("HARBORFORGE_KILLS").ok().and_then(|n| n.parse().ok());
    let queues = kills.unwrap_or(1000u64).div_ceil(KILLS_PER_QUEUE);
    // Two at a time: most of the time goes into waiting for the disk.
    let lives: Vec<Life> = std::thread::scope(|scope| {
        let threads = [0, 1].map(|lane| {
            scope.spawn(move || (lane..queues).step_by(2).map(live).collect::<Vec<_>>())
        });
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let sum = |figure: fn(&Life) -> usize| lives.iter().map(figure).sum::<usize>();
    let (delivered, evicted) = (sum(|l| l.books.delivered()), sum(|l| l.books.evicted()));
    let rejected = sum(|l| l.books.rejected());
    println!(
        "{} kills: {delivered} delivered, {evicted} given up, {rejected} rejected; {} openings \
         had something to mend",
        queues * KILLS_PER_QUEUE,
        sum(|l| l.mended)
    );
    assert!(delivered > 10_000 && evicted > 1000 && rejected > 100, "the children hardly worked");
}

#[derive(Default)]
struct Life {
    books: Books,
    mended: usize,
}

/// One queue, through all its kills.
fn live(queue: u64) -> Life {
    // One in five on a disk.
    let dir = if queue.is_multiple_of(5) { tempfile::tempdir().unwrap() } else { quick_dir() };
    let mut life = Life::default();
    for round in 0..KILLS_PER_QUEUE {
        let kill = queue * KILLS_PER_QUEUE + round;
        run_and_kill(dir.path(), kill, &mut life.books);
        let (mut opened, report) = Queue::open(dir.path(), worker::small(), stamp(0)).unwrap();
        life.mended += usize::from(!report.is_clean());
        life.books.check(&mut opened, &report, &format!("kill {kill}"));
    }
    life
}

/// Starts a child and kills it at a random moment.
fn run_and_kill(dir: &Path, kill: u64, books: &mut Books) {
    let mut random = Random(kill ^ 0x5EED);
    let (mut child, mut lines) = worker::start(worker::command(dir, kill * 1000, AT_RANDOM));
    // The moment is counted in what the child says, so that it does not hang on the machine's
    // speed; one in eight is killed while it opens, which the harness's own first line announces.
    let wanted = if random.below(8) == 0 { 0 } else { 1 + random.below(20) };
    let what = format!("kill {kill}");
    let mut heard = 0;
    for line in lines.by_ref() {
        if let Some(report) = worker::parse(&line.unwrap()) {
            books.enter(&report, &what);
            heard += 1;
        }
        if heard >= wanted {
            break;
        }
    }
    std::thread::sleep(Duration::from_micros(random.below(3000)));
    child.kill().unwrap();
    child.wait().unwrap();
    for report in lines.map_while(Result::ok).filter_map(|line| worker::parse(&line)) {
        books.enter(&report, &what);
    }
    assert!(heard >= wanted, "{what}: the child ended by itself");
}
