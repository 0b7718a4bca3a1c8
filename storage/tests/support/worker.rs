//! A child process that works on a queue until it is killed, and says what it has done.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use harborforge_storage::*;

use crate::support::*;

pub fn small() -> Options {
    Options {
        generation_max_records: 30,
        retain_sent: Duration::from_secs(60),
        retain_sent_max_bytes: 100_000,
        mark_sync_interval: Duration::from_secs(1),
        ..Options::default()
    }
}

/// What a number's payload must be, by the run that appended it.
pub fn content(run: u64, number: u64) -> Vec<u8> {
    // Now and then a large one, which takes several chunks and syncs.
    let size = if number.is_multiple_of(37) { 40_000 } else { 30 + (number % 600) as usize };
    let mut bytes = format!("run {run} ").into_bytes();
    bytes.extend(payload(number, size));
    bytes
}

/// The child's work; does nothing in a process that was not started as one.
pub fn work() {
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

/// A report: what was done with which numbers.
pub type Report = (String, u64, u64);

/// Starts this binary again with its test `child` alone, which is to call [`work`].
pub fn start(dir: &Path, run: u64) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env("HARBORFORGE_CRASH_DIR", dir)
        .env("HARBORFORGE_CRASH_RUN", run.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

/// A line of the child's output as a report; none for what the test harness says, and for a
/// line that the kill cut off.
pub fn parse(line: &str) -> Option<Report> {
    let mut words = line.strip_prefix("@ ")?.split(' ');
    let what = words.next()?.to_owned();
    let mut number = || words.next()?.parse::<u64>().ok();
    Some((what, number()?, number()?))
}
