//! A child process works on a queue and is killed with SIGKILL at random moments, 200 times.
//!
//! The test runs its own binary again as the child. The child reports each number over a pipe
//! once the call that made it so has returned; what the parent finds afterwards must hold
//! everything that was reported, and nothing that was confirmed may be handed out again.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use harborforge_storage::*;
use support::worker::{self, Report, content, small};
use support::*;

const ROUNDS: u64 = 200;
/// A queue lives through this many kills before a fresh one is begun.
const ROUNDS_PER_QUEUE: u64 = 25;

#[test]
#[ignore = "the child of the test below, which starts it"]
fn child() {
    worker::work();
}

#[test]
fn nothing_reported_is_lost_over_200_kills() {
    let mut dir = tempfile::tempdir().unwrap();
    let mut appended = BTreeMap::new();
    let (mut confirmed, mut rejected, mut repaired) = (0, Vec::new(), 0);
    let mut reported = 0;
    for round in 0..ROUNDS {
        if round.is_multiple_of(ROUNDS_PER_QUEUE) {
            dir = tempfile::tempdir().unwrap();
            appended.clear();
            confirmed = 0;
            rejected.clear();
        }
        for (what, from, to) in run_and_kill(dir.path(), round) {
            reported += 1;
            match what.as_str() {
                "appended" => appended.extend((from..=to).map(|n| (n, round))),
                "rejected" => rejected.push(from),
                _ => confirmed = confirmed.max(to),
            }
        }
        let (mut queue, report) = Queue::open(dir.path(), small(), stamp(round)).unwrap();
        repaired += usize::from(!report.is_clean());
        assert_eq!(report.missing, [], "round {round}");
        assert_eq!(queue.gaps(), [], "round {round}");
        let stats = queue.stats();
        let last_appended = appended.keys().next_back().copied().unwrap_or(0);
        assert!(
            stats.next_seq > last_appended,
            "round {round}: number {last_appended} is used again"
        );
        assert!(stats.cursor >= confirmed, "round {round}: {confirmed} was confirmed");
        let pending = queue.read(Set::Pending, 0, ALL).unwrap();
        let refused: Vec<u64> =
            queue.rejected(0, ALL).unwrap().iter().map(|r| r.record.seq).collect();
        for number in &rejected {
            assert!(refused.contains(number), "round {round}: rejected {number}");
        }
        let expected: Vec<u64> =
            (stats.cursor + 1..stats.next_seq).filter(|n| !refused.contains(n)).collect();
        assert_eq!(pending.iter().map(|r| r.seq).collect::<Vec<_>>(), expected, "round {round}");
        for record in &pending {
            if let Some(&run) = appended.get(&record.seq) {
                assert_eq!(record.payload, content(run, record.seq), "round {round}");
            }
        }
        assert_eq!(stats.pending.records, pending.len() as u64, "round {round}");
        let bytes: usize = pending.iter().map(|r| r.payload.len()).sum();
        assert_eq!(stats.pending.bytes, bytes as u64, "round {round}");
        if confirmed > 0 {
            let success = &queue.last_success().unwrap().record;
            assert!(success.seq >= confirmed.saturating_sub(20), "round {round}");
        }
        // A number found appended but not reported stays what it is from now on.
        for record in pending {
            let run = record.payload.strip_prefix(b"run ").unwrap();
            let run = std::str::from_utf8(run.split(|&b| b == b' ').next().unwrap()).unwrap();
            appended.entry(record.seq).or_insert_with(|| run.parse().unwrap());
        }
        confirmed = stats.cursor;
    }
    assert!(reported > ROUNDS, "the children hardly worked: {reported} reports");
    println!("{reported} reports over {ROUNDS} kills, {repaired} openings had something to mend");
}

/// Starts a child, kills it at a random moment, and returns what it reported.
fn run_and_kill(dir: &Path, run: u64) -> Vec<Report> {
    let mut random = Random(run ^ 0x5EED);
    let (mut child, mut lines) = worker::start(dir, run);
    let mut reports = Vec::new();
    // The moment is counted in reports, so that it does not hang on the machine's speed; one in
    // eight is killed while it opens, which the harness's own first line announces.
    let wanted = if random.below(8) == 0 { 0 } else { random.below(60) };
    while (reports.len() as u64) < wanted.max(1) {
        let Some(line) = lines.next() else { break };
        reports.extend(worker::parse(&line.unwrap()));
        if wanted == 0 {
            break;
        }
    }
    std::thread::sleep(Duration::from_micros(random.below(3000)));
    child.kill().unwrap();
    child.wait().unwrap();
    reports.extend(lines.map_while(Result::ok).filter_map(|line| worker::parse(&line)));
    reports
}
