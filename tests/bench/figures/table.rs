//! What one daemon costs: the table.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::agent::Place;
use crate::monitor::Counted;
use crate::{Bench, median, queue};

const WAITING: u64 = 1_000_000;
const DRAINED: u64 = 200_000;
const APPENDED: u64 = 20_000;

/// Takes and prints some rows.
type Part = fn(&mut Bench);

/// The parts of the table, by the names that `--only` knows.
const PARTS: [(&str, Part); 7] = [
    ("size", size),
    ("idle", idle),
    ("sampling", sampling),
    ("start", start),
    ("disk", disk),
    ("drain", drain),
    ("waiting", waiting),
];

/// Takes and prints it, or only the parts of these names.
pub fn show(bench: &mut Bench, only: Option<&str>) {
    println!("\n{:<44}{:>10}  how it was taken", "", "");
    for (name, part) in PARTS {
        if only.is_none_or(|only| only.split(',').any(|wanted| wanted == name)) {
            part(bench);
        }
    }
}

fn row(what: &str, figure: f64, digits: usize, how: &str) {
    println!("{what:<44}{figure:>10.digits$}  {how}");
}

fn size(bench: &mut Bench) {
    let dir = tempfile::tempdir().unwrap();
    let stripped = dir.path().join("stripped");
    let done = Command::new("strip").arg("-o").arg(&stripped).arg(&bench.program).status();
    let stripped = done.is_ok_and(|status| status.success()) && stripped.exists();
    let path = if stripped { dir.path().join("stripped") } else { bench.program.clone() };
    let size = fs::metadata(path).unwrap().len() as f64 / f64::from(1 << 20);
    let how = if stripped { "strip" } else { "as it is: there is no `strip` here" };
    row("binary, stripped, MiB", size, 2, how);
}

fn idle(bench: &mut Bench) {
    let way = Counted::open(&bench.monitor.url);
    let place = Place::towards(bench, "30s", &way.url);
    let before = bench.monitor.unique();
    let agent = place.run();
    bench.monitor.ask(&format!("reaches {}", before + 1));
    // The confirmation and what the start left to do.
    sleep(Duration::from_secs(5));
    let (samples, bytes, waits) = (bench.monitor.unique(), way.bytes(), agent.waits());
    let began = Instant::now();
    sleep(bench.idle);
    let seconds = began.elapsed().as_secs_f64();
    let woken = (agent.waits() - waits) / seconds;
    let samples = (bench.monitor.unique() - samples) as f64;
    let (up, down) = way.bytes();
    let how = format!("VmRSS, a sample each 30 s, after {seconds:.0} s");
    row("RSS idle, MiB", agent.rss(), 1, &how);
    row("RSS idle, peak since the start, MiB", agent.peak(), 1, "VmHWM");
    row("threads", agent.threads(), 0, "/proc/PID/status");
    row("wake-ups per second, idle", woken, 1, "voluntary switches of all threads");
    let how = format!("TLS, {samples:.0} samples in {seconds:.0} s, keepalive included");
    row("bytes to the Monitor per sample at 30 s", (up - bytes.0) as f64 / samples, 0, &how);
    row("bytes from the Monitor", (down - bytes.1) as f64 / samples, 0, "the same");
}

fn sampling(bench: &mut Bench) {
    let place = Place::new(bench, "1s");
    let before = bench.monitor.unique();
    let agent = place.run();
    bench.monitor.ask(&format!("reaches {}", before + 1));
    sleep(Duration::from_secs(2));
    let (used, began) = (agent.cpu(), Instant::now());
    sleep(Duration::from_secs(60));
    let used = (agent.cpu() - used) / began.elapsed().as_secs_f64() * 60.0;
    let hashed = used * bench.yardstick.hashed;
    let how = format!("/proc/PID/stat over 60 s, each synced; as SHA-256 of {hashed:.0} MiB");
    row("CPU at 1 s sampling, s/min", used, 2, &how);
}

fn start(bench: &mut Bench) {
    let fresh: Vec<f64> = (0..5).map(|_| Place::new(bench, "1h").starts_within()).collect();
    let fresh = median(fresh);
    let synced = fresh / 1000.0 / bench.yardstick.synced;
    let how = format!("median of 5, the log's word; {synced:.0} times the raw synced write");
    row("start to first durable sample, new, ms", fresh, 0, &how);
    let place = Place::new(bench, "1h");
    let again: Vec<f64> = (0..6).map(|_| place.starts_within()).skip(1).collect();
    row("the same with a queue that is there, ms", median(again), 0, "median of 5");
}

fn disk(_: &mut Bench) {
    let dir = tempfile::tempdir().unwrap();
    queue::fill(dir.path(), APPENDED, 1);
    let how = format!("blocks of {APPENDED} records of 400 bytes, each appended alone");
    row("bytes on disk per waiting record", per_record(dir.path(), APPENDED), 0, &how);
}

fn per_record(dir: &Path, records: u64) -> f64 {
    queue::on_disk(dir) as f64 / records as f64
}

fn drain(bench: &mut Bench) {
    let (mut taken, mut used) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let place = Place::new(bench, "1h");
        queue::fill(&place.data(), DRAINED, 500);
        let (seconds, agent) = bench.monitor.takes(DRAINED, || place.run());
        taken.push(DRAINED as f64 / seconds);
        used.push(agent.cpu() * 1e6 / DRAINED as f64);
    }
    let rate = median(taken);
    let hashed = bench.yardstick.hashed * 1024.0 / rate;
    let how =
        format!("{DRAINED}, TLS, at the Monitor, median of 3; each as SHA-256 of {hashed:.1} KiB");
    row("drain, samples/s", rate, 0, &how);
    row("drain, processor time per sample, us", median(used), 2, "/proc/PID/stat, its start in it");
}

fn waiting(bench: &mut Bench) {
    let place = Place::new(bench, "1s");
    queue::fill(&place.data(), WAITING, 500);
    let how = "blocks of 1,000,000, appended 500 at once";
    row("bytes on disk per waiting record", per_record(&place.data(), WAITING), 0, how);
    bench.monitor.ask("pause");
    let started: Vec<f64> = (0..3).map(|_| place.starts_within()).collect();
    row("start with 1 M waiting, ms", median(started), 0, "median of 3");
    let agent = place.run();
    sleep(Duration::from_secs(20));
    row("RSS with 1 M waiting, MiB", agent.rss(), 1, "VmRSS, Monitor away, after 20 s at 1 s");
    agent.forget_peak();
    let seconds = bench.monitor.takes_again(WAITING, || agent.signal("USR1"));
    row("RSS while draining them, peak, MiB", agent.peak(), 1, "VmHWM from before to after");
    let rate = WAITING as f64 / seconds;
    row("drain of 1 M, samples/s", rate, 0, "TLS, Monitor back after an outage");
}
