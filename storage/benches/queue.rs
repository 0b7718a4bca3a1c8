//! The queue against a raw write + fdatasync on the same disk, in one run:
//! `cargo bench -p harborforge-storage`, or `... -- DIR` for a directory on another disk.
//!
//! The yardstick and the one-by-one append take turns, so that a disk or a machine whose speed
//! drifts slows both alike.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    reason = "a program that measures and stops at the first fault"
)]

#[path = "../../tests/bench/samples.rs"]
mod samples;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harborforge_storage::{Confirmation, Limits, NewRecord, Options, Queue, Set, Stamp};

const PAYLOAD: usize = 400;
/// Raw and queued together.
const ONE_BY_ONE: u64 = 8_000;
/// Records before the other has its turn.
const TURN: u64 = 50;
const BATCHED: u64 = 100_000;
const BATCH: u64 = 100;
const WINDOW: usize = 512;
/// Names the data directory to drain in a process of its own.
const DRAIN: &str = "HARBORFORGE_BENCH_DRAIN";

fn main() {
    if let Some(data) = std::env::var_os(DRAIN) {
        return drain(Path::new(&data));
    }
    let given = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let base = given.map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = base.join(format!("harborforge-queue-bench-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    println!("{:<44}{:>14}", format!("{PAYLOAD}-byte records in {}", base.display()), "per second");
    run(&dir);
    fs::remove_dir_all(&dir).unwrap();
}

fn run(dir: &Path) {
    let options = options();
    let mut queue = open(&dir.join("one"), &options);
    let mut file = File::create(dir.join("raw")).unwrap();
    let (mut raw, mut single) = (Duration::ZERO, Duration::ZERO);
    for number in 0..ONE_BY_ONE {
        let payload = payload(number);
        if number % (2 * TURN) < TURN {
            let started = Instant::now();
            file.write_all(&payload).unwrap();
            file.sync_data().unwrap();
            raw += started.elapsed();
        } else {
            let started = Instant::now();
            queue.append(&[NewRecord { stamp: stamp(number), payload: &payload }]).unwrap();
            queue.maintain(stamp(number)).unwrap();
            single += started.elapsed();
        }
    }
    line("raw write + fdatasync", rate(ONE_BY_ONE / 2, raw), "the yardstick");
    let ratio = single.as_secs_f64() / raw.as_secs_f64();
    let note = format!("{ratio:.2} times the raw time, goal 1.5");
    line("append one by one, durable each", rate(ONE_BY_ONE / 2, single), &note);
    let taken = queue.stats().disk_bytes / (ONE_BY_ONE / 2);
    text("on disk per record, one by one", &format!("{taken} bytes"), "goal 800");
    queue.close().unwrap();

    let data = dir.join("many");
    let mut queue = open(&data, &options);
    let mut batched = Duration::ZERO;
    for batch in 0..BATCHED / BATCH {
        // Not timed: whoever appends has its samples.
        let payloads: Vec<_> = (batch * BATCH..(batch + 1) * BATCH).map(payload).collect();
        let started = Instant::now();
        let records: Vec<_> =
            payloads.iter().map(|payload| NewRecord { stamp: stamp(batch), payload }).collect();
        queue.append(&records).unwrap();
        queue.maintain(stamp(batch)).unwrap();
        batched += started.elapsed();
    }
    line(&format!("append in batches of {BATCH}"), rate(BATCHED, batched), "goal 30,000");
    let full = queue.stats();
    queue.close().unwrap();

    text("on disk per record, in batches", &format!("{} bytes", full.disk_bytes / BATCHED), "");
    text("resident, peak while appending", &format!("{:.1} MiB", memory("VmHWM")), "");
    // A process of its own, so that its memory is what a restarted daemon would have.
    let status =
        std::process::Command::new(std::env::current_exe().unwrap()).env(DRAIN, &data).status();
    assert!(status.unwrap().success());
}

/// The second half, in a fresh process: reopen, read, acknowledge.
fn drain(data: &Path) {
    let started = Instant::now();
    let mut queue = open(data, &options());
    let opened = started.elapsed().as_secs_f64() * 1e3;
    assert_eq!(queue.stats().pending.records, BATCHED);
    text(&format!("reopen with {BATCHED} records"), &format!("{opened:.1} ms"), "goal 200 ms");
    text("resident, reopened", &format!("{:.1} MiB", memory("VmRSS")), "");

    let started = Instant::now();
    let limits = Limits { records: WINDOW, bytes: 1 << 20 };
    let (mut next, mut seen, mut reading) = (0, 0u64, Duration::ZERO);
    loop {
        let begun = Instant::now();
        let records = queue.read(Set::Pending, next, limits).unwrap();
        reading += begun.elapsed();
        let Some(last) = records.last() else { break };
        seen += records.len() as u64;
        next = last.seq + 1;
        queue.acknowledge(last.seq, Confirmation { wall_ms: 0, tag: 0 }).unwrap();
        queue.maintain(stamp(0)).unwrap();
    }
    assert_eq!(seen, BATCHED);
    line("read in order", rate(BATCHED, reading), "goal 300,000");
    line(&format!("drain, acknowledged per {WINDOW}"), rate(BATCHED, started.elapsed()), "");
    let left = queue.stats().disk_bytes;
    text("on disk when drained", &format!("{} KiB", left / 1024), "goal under 1024 KiB");
    text("resident, drained", &format!("{:.1} MiB", memory("VmRSS")), "");
    text("resident, peak while draining", &format!("{:.1} MiB", memory("VmHWM")), "");
    queue.close().unwrap();
}

fn options() -> Options {
    Options { retain_sent: Duration::ZERO, ..Options::default() }
}

fn open(dir: &Path, options: &Options) -> Queue {
    Queue::open(dir, options.clone(), stamp(0)).unwrap().0
}

fn payload(number: u64) -> Vec<u8> {
    samples::sample(number, PAYLOAD)
}

fn stamp(seconds: u64) -> Stamp {
    Stamp { wall_ms: seconds, boot_ms: seconds, boot_id: [0; 16] }
}

fn rate(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

/// A figure of this process in MiB.
fn memory(field: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    let kib: f64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0.0);
    kib / 1024.0
}

fn line(what: &str, per_second: f64, note: &str) {
    println!("{what:<44}{per_second:>14.0}  {note}");
}

fn text(what: &str, figure: &str, note: &str) {
    println!("{what:<44}{figure:>14}  {note}");
}
