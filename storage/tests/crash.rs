//! A child process works on a queue and is killed with SIGKILL at random moments, 200 times.
//!
//! The test runs its own binary again as the child. The child reports each number over a pipe
//! once the call that made it so has returned; what the parent finds afterwards must hold
//! everything that was reported, and nothing that was confirmed may be handed out again.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use harborforge_storage::*;
use support::*;

const ROUNDS: u64 = 200;
/// A queue lives through this many kills before a fresh one is begun.
const ROUNDS_PER_QUEUE: u64 = 25;

fn small() -> Options {
    Options {
        generation_max_records: 30,
        retain_sent: Duration::from_secs(60),
        retain_sent_max_bytes: 100_000,
        mark_sync_interval: Duration::from_secs(1),
        ..Options::default()
    }
}

/// What a number's payload must be, by the run that appended it.
fn content(run: u64, number: u64) -> Vec<u8> {
    // Now and then a large one, which takes several chunks and syncs.
    let size = if number.is_multiple_of(37) { 40_000 } else { 30 + (number % 600) as usize };
    let mut bytes = format!("run {run} ").into_bytes();
    bytes.extend(payload(number, size));
    bytes
}

#[test]
#[ignore = "the child of the test below, which starts it"]
fn child() {
    let Some(dir) = std::env::var_os("HARBORFORGE_CRASH_DIR") else { return };
    let run: u64 = std::env::var("HARBORFORGE_CRASH_RUN").unwrap().parse().unwrap();
    let mut random = Random(run);
    let mut out = std::io::stdout();
    let (mut queue, _) = Queue::open(Path::new(&dir), small(), stamp(run)).unwrap();
    loop {
        let first = queue.stats().next_seq;
        let payloads: Vec<_> =
            (first..=first + random.below(12)).map(|n| content(run, n)).collect();
        let records: Vec<_> =
            payloads.iter().map(|payload| NewRecord { stamp: stamp(run), payload }).collect();
        let range = queue.append(&records).unwrap();
        writeln!(out, "@ appended {} {}", range.start(), range.end()).unwrap();
        let limits = Limits { records: 1 + random.below(20) as usize, bytes: 100_000 };
        let records = queue.read(Set::Pending, 0, limits).unwrap();
        if random.below(10) == 0
            && let Some(record) = records.get(random.below(records.len() as u64) as usize)
        {
            queue.reject(record.seq, "no", stamp(run)).unwrap();
            writeln!(out, "@ rejected {} {}", record.seq, record.seq).unwrap();
        }
        if let Some(last) = records.last() {
            queue.acknowledge(last.seq, confirm(run)).unwrap();
            writeln!(out, "@ confirmed {} {}", records[0].seq, last.seq).unwrap();
        }
        if random.below(3) == 0 {
            queue.maintain(stamp(run + random.below(120))).unwrap();
        }
    }
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
fn run_and_kill(dir: &Path, run: u64) -> Vec<(String, u64, u64)> {
    let mut random = Random(run ^ 0x5EED);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env("HARBORFORGE_CRASH_DIR", dir)
        .env("HARBORFORGE_CRASH_RUN", run.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut reports = Vec::new();
    // The moment is counted in reports, so that it does not hang on the machine's speed; one in
    // eight is killed while it opens.
    let wanted = if random.below(8) == 0 { 0 } else { random.below(60) };
    let take = |line: String, reports: &mut Vec<_>| {
        if let Some(text) = line.strip_prefix("@ ") {
            let mut words = text.split(' ');
            let what = words.next().unwrap().to_owned();
            let mut number = || words.next()?.parse::<u64>().ok();
            // The last line may be cut off by the kill.
            if let (Some(from), Some(to)) = (number(), number()) {
                reports.push((what, from, to));
            }
        }
    };
    // libtest's own first line says that the child has started.
    let mut seen = 0;
    while seen < wanted.max(1) {
        let Some(line) = lines.next() else { break };
        let line = line.unwrap();
        seen += u64::from(line.starts_with("@ ") || wanted == 0);
        take(line, &mut reports);
    }
    std::thread::sleep(Duration::from_micros(random.below(3000)));
    child.kill().unwrap();
    child.wait().unwrap();
    // A report whose end is missing was never made.
    let mut rest: Vec<String> = lines.map_while(Result::ok).collect();
    rest.drain(..).for_each(|line| take(line, &mut reports));
    reports
}
