//! A long life of store and sender: samples at full speed over the WebSocket, outages, drains, over
//! and over. Memory stays flat, file descriptors and threads stay the same, the disk comes back,
//! and the Monitor has every number.
//!
//! Store and sender are those of the daemon, wired as it wires them; only the sampler is
//! replaced, since it takes at most one sample a second. The Monitor is a process of its own,
//! since its memory must not count. 20,000 samples in the ordinary run; a million, as
//! docs/BENCHMARKS.md shows it:
//! `HARBORFORGE_SOAK=1000000 cargo test --release --test soak -- --nocapture`.
//! The only test of its binary, since it looks at the whole process.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

#[path = "support/unit.rs"]
mod unit;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use harborforge_connector::collector::clock;
use harborforge_connector::config::{DiskFiles, Flags, Need, Sources, load};
use harborforge_connector::health::Health;
use harborforge_connector::runtime::{self, Clock, block_on, channel};
use harborforge_connector::sender::driver::{Driver, Order};
use harborforge_connector::sender::link::Link;
use harborforge_connector::sender::machine::{Settings, Transports};
use harborforge_connector::state::StateFile;
use harborforge_connector::store::{self, Stopped, Store};
use harborforge_monitor::{Capability, Monitor, Options, test_key};
use harborforge_storage::BALLAST_BYTES;

const CYCLES: u64 = 20;
/// Samples handed over before the store is waited for: under what its ring keeps.
const AT_ONCE: usize = 1024;
/// The runtime's second worker and a thread for blocking work come with load and go without.
const COME_AND_GO: u64 = 2;
/// Only reached when something is broken.
const PATIENCE: Duration = Duration::from_secs(300);

/// Takes orders by lines: `pause`, `resume`, `count`. Answers each with a line.
#[test]
#[ignore = "the Monitor's process of the test below, which starts it"]
fn monitor() {
    if std::env::var_os("HARBORFORGE_SOAK_MONITOR").is_none() {
        return;
    }
    let options = Options {
        key: Some(test_key()),
        capabilities: [Capability::Ack, Capability::Resume].into(),
        lenient: true,
        keep: 16,
        ..Options::default()
    };
    block_on(async {
        let monitor = Monitor::start(options).await.unwrap();
        say(&format!("{} {}", monitor.url(), monitor.issue_challenge()));
        for line in std::io::stdin().lines() {
            match line.unwrap().as_str() {
                "pause" => monitor.pause().await,
                "resume" => monitor.resume().await.unwrap(),
                _ => {}
            }
            let counts = monitor.counts();
            say(&format!("{} {}", counts.unique, counts.out_of_order));
        }
    });
}

fn say(line: &str) {
    println!("@ {line}");
}

/// The Monitor's process.
struct Away {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Away {
    fn start() -> (Self, String, String) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "monitor", "--ignored", "--nocapture"])
            .env("HARBORFORGE_SOAK_MONITOR", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut away = Self { child, orders, answers: BufReader::new(answers) };
        let place = away.answer();
        let (url, challenge) = place.split_once(' ').unwrap();
        (away, url.to_owned(), challenge.to_owned())
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the Monitor has ended");
            // The harness may have begun the line.
            if let Some((_, said)) = line.trim_end().split_once("@ ") {
                return said.to_owned();
            }
        }
    }

    /// Gives an order; samples it has had, and how many came out of order.
    fn order(&mut self, order: &str) -> (u64, u64) {
        writeln!(self.orders, "{order}").unwrap();
        let answer = self.answer();
        let (unique, out_of_order) = answer.split_once(' ').unwrap();
        (unique.parse().unwrap(), out_of_order.parse().unwrap())
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the test below in the environment of the unit, which the C library reads when a process
/// starts: without it memory goes back to the kernel at one time and stays at another.
fn as_the_unit_runs_it() {
    let own = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_long_life_costs_no_more_than_a_short_one", "--nocapture"])
        .env("HARBORFORGE_SOAK_IN_UNIT", "1")
        .envs(unit::environment())
        .status();
    assert!(own.unwrap().success(), "what it says stands above");
}

#[test]
fn a_long_life_costs_no_more_than_a_short_one() {
    if std::env::var_os("HARBORFORGE_SOAK_IN_UNIT").is_none() {
        return as_the_unit_runs_it();
    }
    let samples = std::env::var("HARBORFORGE_SOAK").ok().and_then(|n| n.parse().ok());
    // A short life is still taking what it needs.
    let (samples, growth) = samples.map_or((20_000, 32), |samples: u64| (samples, 8));
    let (mut monitor, url, challenge) = Away::start();
    let dir = tempfile::tempdir().unwrap();
    runtime::start();
    let clock = clock::Clock::new();
    let options = harborforge_storage::Options {
        retain_sent: Duration::ZERO,
        queue_max_bytes: 1 << 30,
        ..harborforge_storage::Options::default()
    };
    let (store, thread) = store::start(dir.path().to_path_buf(), options, clock).unwrap();
    let (orders, receiver) = channel::unbounded();
    let driver = driver(dir.path(), &url, &challenge, &store, receiver);
    let sender = runtime::spawn_watched(driver.run());

    let begun = Instant::now();
    let mut after = Vec::new();
    for cycle in 0..CYCLES {
        let share = samples / CYCLES;
        submit(&store, clock, share / 2);
        monitor.order("pause");
        submit(&store, clock, share - share / 2);
        monitor.order("resume");
        orders.try_send(Order::TryNow).unwrap();
        wait_until("everything is confirmed", || {
            store.view().queue.is_some_and(|queue| queue.pending == 0)
        });
        let expected = (cycle + 1) * share;
        assert_eq!(store.view().queue.unwrap().next_seq, expected + 1);
        assert_eq!(monitor.order("count"), (expected, 0));
        let at_rest = Figures::at_rest(&store, dir.path(), after.get(1));
        after.push(at_rest);
    }
    let took = begun.elapsed().as_secs_f64();
    let (first, rest) = (after[1], &after[2..]);
    let high = rest.iter().map(|f| f.memory).max().unwrap();
    let disk = after.iter().map(|f| f.disk).max().unwrap();
    println!(
        "{samples} samples in {CYCLES} cycles with an outage each, {took:.1} s\n\
         resident after a cycle       {:.1} to {:.1} MiB\n\
         file descriptors, threads    {}, {}\n\
         on disk after a cycle        at most {} KiB",
        mib(rest.iter().map(|f| f.memory).min().unwrap().min(first.memory)),
        mib(high),
        first.descriptors,
        first.threads,
        disk >> 10,
    );
    for figures in rest {
        assert_eq!(figures.descriptors, first.descriptors, "{after:?}");
        assert!(figures.threads.abs_diff(first.threads) <= COME_AND_GO, "{after:?}");
    }
    assert!(disk < 1 << 20, "{after:?}");
    assert!(high <= first.memory + (growth << 20), "{after:?}");

    orders.try_send(Order::Shutdown).unwrap();
    assert!(!block_on(sender), "the sender panicked");
    store.stop();
    assert!(matches!(thread.join(), Stopped::Cleanly));
}

/// The daemon's sender, over the WebSocket alone.
fn driver(
    data_dir: &Path,
    url: &str,
    challenge: &str,
    store: &Store,
    orders: channel::Receiver<Order>,
) -> Driver {
    let env = [
        ("BACKEND_URL", url.into()),
        ("IDENTIFIER", "soak".into()),
        ("CHALLENGE_UUID", challenge.into()),
        ("DATA_DIR", data_dir.into()),
    ];
    let sources = Sources {
        flags: Flags::default(),
        env: env.map(|(key, value)| (format!("HARBORFORGE_{key}"), value)).into(),
        host_name: None,
        uid: 1000,
        files: &DiskFiles,
    };
    let loaded = load(&sources, Need::Backend).unwrap();
    let link = Link::new(&loaded.config).unwrap();
    let state = StateFile::load(data_dir, link.backend_url());
    let settings = Settings {
        proved: true,
        transports: Transports::Websocket,
        report_interval: Duration::from_secs(1),
        fallback_interval: Duration::from_secs(1),
        backoff_cap: Duration::from_secs(1),
    };
    let health = Health::new(SystemTime::now(), settings.transports);
    Driver::new(settings, link, store.clone(), state, Clock::start(), health, orders)
}

/// A sample of 400 bytes with a name that no packing shortens: each cycle's share takes more of the
/// disk than a drained part of the queue may keep, so that all cycles end alike.
fn sample(number: u64) -> Vec<u8> {
    let mut state = number;
    let letters = (0..170).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'a' + (state >> 33) as u8 % 26)
    });
    let name: String = letters.collect();
    format!(
        r#"{{"openclaw_version":null,"cpu_pct":12.5,"mem_pct":41.2,"disk_pct":62.0,"swap_pct":0.0,"uptime_seconds":12345,"load_avg":[0.1,0.1,0.1],"agents":[{{"id":"a","name":"{name}","status":"idle"}}],"last_seen_at":"2026-03-11T21:00:00Z","connector_version":"0.1.0"}}"#
    )
    .into_bytes()
}

/// Hands samples over as fast as the disk takes them.
fn submit(store: &Store, clock: clock::Clock, count: u64) {
    let first = store.view().queue.unwrap().next_seq;
    let end = first + count;
    for number in first..end {
        if store.view().in_memory >= AT_ONCE {
            wait_until("the disk has them", || store.view().in_memory == 0);
        }
        store.submit(clock.stamp(), sample(number));
    }
    wait_until("all are durable", || store.view().queue.is_some_and(|q| q.next_seq == end));
    assert_eq!(store.view().dropped, 0);
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never came about that {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// What this process takes.
#[derive(Debug, Clone, Copy)]
struct Figures {
    /// Bytes resident.
    memory: u64,
    descriptors: u64,
    threads: u64,
    /// Bytes allocated on disk for the queue, beside its ballast.
    disk: u64,
}

impl Figures {
    /// As soon as it is as it was before: threads for blocking work stay for a moment. Upkeep is
    /// asked for, which else would come within 30 seconds.
    fn at_rest(store: &Store, dir: &Path, before: Option<&Self>) -> Self {
        let now = store.now();
        block_on(store.call(move |queue| queue.maintain(now))).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut last = Self::now(dir);
        let mut steady = 0;
        // Before there is anything to compare with, it must stay the same for a second.
        while steady < 20 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
            let now = Self::now(dir);
            let same = |other: &Self| {
                now.descriptors == other.descriptors
                    && now.threads.abs_diff(other.threads) <= COME_AND_GO
            };
            steady = match before {
                Some(before) if same(before) => 20,
                None if same(&last) => steady + 1,
                _ => 0,
            };
            last = now;
        }
        last
    }

    fn now(dir: &Path) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let number = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        Self {
            memory: number("VmRSS:") << 10,
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count() as u64,
            threads: number("Threads:"),
            disk: usage(&dir.join("queue")).saturating_sub(BALLAST_BYTES),
        }
    }
}

/// Bytes allocated for the files below; what vanishes meanwhile counts as nothing.
fn usage(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => usage(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
