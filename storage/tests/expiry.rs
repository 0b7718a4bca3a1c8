//! Age: what is given up for it, and that no clock but the proven one has a say.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use harborforge_storage::*;
use support::host::{HOUR, Host, SECOND, YEAR};
use support::*;

/// Milliseconds.
const MAX_AGE: u64 = 80 * SECOND;

fn aging() -> Options {
    Options { queue_max_age: Some(Duration::from_millis(MAX_AGE)), ..options() }
}

/// A queue on a machine, and when each of its records was really made.
struct Bench {
    dir: tempfile::TempDir,
    options: Options,
    host: Host,
    queue: Option<Queue>,
    made: Vec<u64>,
}

impl Bench {
    fn new(host: Host, options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Self { dir, options, host, queue: None, made: Vec::new() };
        bench.open();
        bench
    }

    fn open(&mut self) -> OpenReport {
        let now = self.host.stamp();
        let (queue, report) = Queue::open(self.dir.path(), self.options.clone(), now).unwrap();
        self.queue = Some(queue);
        report
    }

    fn queue(&mut self) -> &mut Queue {
        self.queue.as_mut().unwrap()
    }

    /// One record, and the upkeep that follows it.
    fn sample(&mut self) {
        let stamp = self.host.stamp();
        let payload = payload(self.made.len() as u64 + 1, 100);
        self.queue().append(&[NewRecord { stamp, payload: &payload }]).unwrap();
        self.made.push(self.host.passed);
        self.maintain();
    }

    fn maintain(&mut self) -> Maintenance {
        let now = self.host.stamp();
        let done = self.queue().maintain(now).unwrap();
        for gap in self.queue.as_ref().unwrap().gaps() {
            assert_eq!(gap.reason, GapReason::Expired);
            let youngest = self.host.passed - self.made[gap.to as usize - 1];
            assert!(youngest > self.options.queue_max_age.unwrap().as_millis() as u64);
        }
        done
    }

    fn samples(&mut self, count: u64, every: u64) {
        for _ in 0..count {
            self.host.pass(every);
            self.sample();
        }
    }

    fn restart(&mut self, clean: bool) {
        self.stop(clean);
        self.open();
    }

    fn stop(&mut self, clean: bool) {
        let queue = self.queue.take().unwrap();
        if clean { queue.close().unwrap() } else { drop(queue) }
    }

    fn pending(&mut self) -> Vec<u64> {
        numbers(self.queue(), Set::Pending)
    }

    /// Age of the oldest pending record; nothing was handed out by asking.
    fn oldest(&mut self) -> u64 {
        let cursor = self.queue().position().cursor;
        self.host.passed - self.made[cursor as usize]
    }
}

#[test]
fn what_is_too_old_is_given_up_and_at_most_an_eighth_more_is_kept() {
    let mut bench = Bench::new(Host::new(), aging());
    for _ in 0..40 {
        bench.samples(5, SECOND);
        assert!(bench.oldest() <= MAX_AGE + MAX_AGE / 8 + SECOND, "{}", bench.oldest());
    }
    assert!(bench.oldest() > MAX_AGE - SECOND);
    let gaps = bench.queue().gaps().to_vec();
    assert_eq!((gaps.len(), gaps[0].from, gaps[0].maybe_delivered), (1, 1, false));
    assert_eq!(bench.queue().stats().counters.given_up, gaps[0].to);
    // What is told is told once, and stays told over a restart.
    bench.host.pass(30 * SECOND);
    let expired = bench.maintain().expired;
    assert_eq!(expired, [gaps[0].to + 1..=bench.queue().gaps()[0].to]);
    bench.restart(false);
    assert!(bench.queue().gaps()[0].to > gaps[0].to);
}

#[test]
fn an_idle_queue_expires_to_the_last_record() {
    let mut bench = Bench::new(Host::new(), aging());
    bench.samples(20, SECOND);
    bench.host.pass(MAX_AGE);
    bench.maintain();
    assert_eq!(bench.pending().last(), Some(&20), "not older than that");
    bench.host.pass(1);
    bench.maintain();
    assert!(bench.pending().is_empty());
    bench.samples(1, SECOND);
    assert_eq!(bench.pending(), [21]);
}

#[test]
fn a_wall_clock_that_jumps_expires_nothing_and_keeps_nothing() {
    let run = |jump: &dyn Fn(u64) -> Option<u64>| {
        let mut bench = Bench::new(Host::new(), aging());
        let mut seen = Vec::new();
        for round in 0..120 {
            if let Some(wall) = jump(round) {
                bench.host.set_wall(wall);
            }
            bench.samples(1, SECOND);
            if round % 20 == 19 {
                bench.restart(round % 40 == 19);
                bench.maintain();
            }
            seen.push(bench.pending()[0]);
        }
        seen
    };
    let steady = run(&|_| None);
    assert!(steady.last() > Some(&20));
    let jumping =
        run(&|round| [None, Some(0), Some(90 * YEAR), None, Some(u64::MAX)][round as usize % 5]);
    assert_eq!(steady, jumping);
}

#[test]
fn uptimes_add_up_over_boots_and_time_switched_off_does_not_count() {
    let mut bench = Bench::new(Host::new(), aging());
    bench.samples(10, SECOND);
    for boot in 0..3 {
        // The first time by a kill; and once with a wall clock that is years off at the start.
        bench.stop(boot > 0);
        bench.host.reboot(YEAR, 5 * SECOND);
        if boot == 2 {
            bench.host.jump(20 * YEAR as i64);
        }
        bench.open();
        bench.maintain();
        bench.host.pass(15 * SECOND);
        bench.maintain();
        assert_eq!(bench.pending().len(), 10, "boot {boot}");
    }
    // 60 s so far: three starts and three times 15 s. The records are 80 s old in a moment.
    bench.host.pass(20 * SECOND);
    bench.maintain();
    assert_eq!(bench.pending().len(), 10);
    bench.host.pass(SECOND);
    bench.maintain();
    assert!(bench.pending().is_empty());
}

#[test]
fn records_show_how_long_a_boot_lasted_that_a_power_cut_ended() {
    let mut bench = Bench::new(Host::new(), aging());
    // One generation, and no manifest after it.
    bench.options.queue_max_age = Some(Duration::from_millis(8 * HOUR));
    bench.restart(true);
    bench.samples(50, 60 * SECOND);
    bench.stop(false);
    bench.host.reboot(0, SECOND);
    bench.open();
    bench.maintain();
    bench.host.pass(8 * HOUR - 60 * SECOND);
    bench.maintain();
    assert!(bench.pending().len() >= 49, "{:?}", bench.pending());
    bench.host.pass(120 * SECOND);
    bench.maintain();
    assert!(bench.pending().is_empty());
}

#[test]
fn files_carried_to_a_machine_that_is_up_for_years_are_no_older_for_it() {
    let mut bench = Bench::new(Host::new(), aging());
    bench.samples(10, SECOND);
    bench.stop(true);
    bench.host.carried_to(5 * YEAR);
    bench.open();
    bench.maintain();
    assert_eq!(bench.pending().len(), 10);
}

#[test]
fn without_a_boot_id_only_the_time_of_this_process_counts() {
    let mut bench = Bench::new(Host::without_boot_id(), aging());
    bench.samples(10, SECOND);
    for _ in 0..4 {
        bench.host.pass(15 * SECOND);
        bench.maintain();
        assert_eq!(bench.pending().len(), 10);
        bench.stop(true);
        bench.host.pass(HOUR);
        bench.open();
    }
    bench.host.pass(MAX_AGE);
    bench.maintain();
    assert!(bench.pending().is_empty());
}

fn manifest(dir: &Path) -> std::path::PathBuf {
    dir.join("queue/manifest")
}

/// Damaged and missing: both, in the boot the records are of and in the next.
#[test]
fn a_lost_manifest_makes_nothing_older() {
    for (damaged, rebooted) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut bench = Bench::new(Host::new(), aging());
        bench.samples(60, SECOND);
        bench.stop(true);
        let path = manifest(bench.dir.path());
        if damaged {
            fs::write(&path, b"garbage").unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        if rebooted {
            bench.host.reboot(YEAR, 30 * SECOND);
        }
        bench.open();
        bench.maintain();
        assert_eq!(bench.pending().len(), 60);
        let told = bench.host.passed;
        bench.host.pass(50 * SECOND);
        bench.maintain();
        // In their own boot the records tell their age themselves; else it counts from then on.
        assert_eq!(bench.pending().len() < 60, !rebooted);
        bench.host.pass(MAX_AGE - 50 * SECOND + 1);
        bench.maintain();
        assert!(bench.pending().is_empty(), "after {}", bench.host.passed - told);
    }
}

/// As a manifest was before there was a proven clock.
fn strip_times(path: &Path) {
    let text = fs::read_to_string(path).unwrap();
    let body = text.split_once('\n').unwrap().1;
    let mut json: serde_json::Value = serde_json::from_str(body).unwrap();
    assert!(json.as_object_mut().unwrap().remove("clock").is_some());
    for generation in json["generations"].as_array_mut().unwrap() {
        let fields = generation.as_object_mut().unwrap();
        assert!(fields.remove("newest_ms").is_some());
        fields.remove("sent_ms");
    }
    let body = json.to_string();
    let crc = crc32c::crc32c(body.as_bytes());
    fs::write(path, format!("harborforge-queue 1 crc32c {crc:08x}\n{body}\n")).unwrap();
}

#[test]
fn a_manifest_of_before_the_proven_clock_makes_nothing_older() {
    let mut bench = Bench::new(Host::new(), aging());
    bench.samples(60, SECOND);
    bench.stop(true);
    strip_times(&manifest(bench.dir.path()));
    bench.host.pass(10 * MAX_AGE);
    assert!(bench.open().is_clean());
    bench.maintain();
    let left = bench.pending().len();
    assert!(left > 40, "sealed ones count from now: {left}");
    // And that is kept.
    bench.host.pass(MAX_AGE - SECOND);
    bench.restart(false);
    bench.maintain();
    assert_eq!(bench.pending().len(), left);
    bench.host.pass(2 * SECOND);
    bench.maintain();
    assert!(bench.pending().is_empty());
}

#[test]
fn what_was_handed_out_may_have_been_delivered() {
    let mut bench = Bench::new(Host::new(), aging());
    bench.samples(20, SECOND);
    let limits = Limits { records: 7, bytes: usize::MAX };
    assert_eq!(bench.queue().read(Set::Pending, 1, limits).unwrap().len(), 7);
    bench.host.pass(2 * MAX_AGE);
    bench.maintain();
    let gaps: Vec<_> =
        bench.queue().gaps().iter().map(|gap| (gap.from, gap.to, gap.maybe_delivered)).collect();
    assert_eq!(gaps, [(1, 7, true), (8, 20, false)]);
    // The confirmation comes late and does no harm.
    bench.queue().acknowledge(7, confirm(0)).unwrap();
    assert_eq!(bench.queue().stats().cursor, 20);
    assert_eq!(bench.queue().last_success(), None);
}

/// A Monitor's confirmations go on, and a part of a generation is all that is left to expire.
#[test]
fn the_rest_of_a_generation_expires() {
    let mut bench = Bench::new(Host::new(), Options { generation_max_records: 10, ..aging() });
    bench.samples(20, SECOND);
    bench.queue().acknowledge(4, confirm(1)).unwrap();
    let now = bench.host.stamp();
    bench.queue().reject(6, "no", now).unwrap();
    bench.host.pass(2 * MAX_AGE);
    bench.maintain();
    let gaps: Vec<_> = bench.queue().gaps().iter().map(|gap| (gap.from, gap.to)).collect();
    assert_eq!(gaps, [(5, 5), (7, 20)]);
    assert_eq!(numbers(bench.queue(), Set::Rejected), [6]);
}

fn keeping() -> Options {
    Options { retain_sent: Duration::from_secs(60), queue_max_age: None, ..Options::default() }
}

fn sent(bench: &mut Bench) -> usize {
    let now = bench.host.stamp();
    bench.queue().maintain(now).unwrap();
    numbers(bench.queue(), Set::Sent).len()
}

/// Ten delivered records in a generation that is closed.
fn delivered() -> Bench {
    let mut bench = Bench::new(Host::new(), Options { generation_max_records: 10, ..keeping() });
    bench.samples(11, SECOND);
    bench.queue().acknowledge(10, confirm(1)).unwrap();
    assert_eq!(sent(&mut bench), 10);
    bench
}

#[test]
fn delivered_records_are_kept_by_the_proven_clock() {
    let mut bench = delivered();
    bench.stop(true);
    bench.host.reboot(SECOND, 20 * SECOND);
    bench.host.jump(30 * YEAR as i64);
    bench.open();
    assert_eq!(sent(&mut bench), 10, "a jump forward throws nothing away");
    bench.host.jump(-50 * YEAR as i64);
    bench.host.pass(39 * SECOND);
    assert_eq!(sent(&mut bench), 10);
    bench.host.pass(SECOND);
    assert_eq!(sent(&mut bench), 0, "nor does one back keep anything");
}

#[test]
fn a_lost_manifest_makes_delivered_records_no_older() {
    for old in [false, true] {
        let mut bench = delivered();
        bench.stop(true);
        let path = manifest(bench.dir.path());
        if old {
            strip_times(&path)
        } else {
            fs::remove_file(&path).unwrap()
        }
        bench.host.reboot(YEAR, 20 * SECOND);
        bench.open();
        assert_eq!(sent(&mut bench), 10);
        bench.host.pass(59 * SECOND);
        assert_eq!(sent(&mut bench), 10);
        bench.restart(false);
        bench.host.pass(SECOND);
        assert_eq!(sent(&mut bench), 0);
    }
}
