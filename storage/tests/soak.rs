//! Samples through append, outage and drain at full speed, over and over: memory stays flat, file
//! descriptors and threads stay the same, the disk comes back.
//!
//! 20,000 in the ordinary run, with small generations so that as many come and go as in a long
//! one. A million, as docs/BENCHMARKS.md shows it:
//! `HARBORFORGE_SOAK=1000000 cargo test --release -p harborforge-storage --test soak -- --nocapture`.
//! The only test of its binary, since it looks at the whole process.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use harborforge_storage::*;
use support::*;

const CYCLES: u64 = 20;
const PAYLOAD: usize = 400;
const WINDOW: Limits = Limits { records: 512, bytes: 1 << 20 };

#[test]
fn a_long_life_costs_no_more_than_a_short_one() {
    let samples = std::env::var("HARBORFORGE_SOAK").ok().and_then(|n| n.parse().ok());
    // A short life is still taking what it needs. In a long one some threads of the engine's pool
    // come and go within a cycle, and others with the next one.
    let (samples, generation, growth, come_and_go) =
        samples.map_or((20_000, 250, 16, 0), |samples| (samples, 4096, 8, 4));
    let options = Options {
        generation_max_records: generation,
        retain_sent: Duration::from_secs(60),
        ..Options::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let mut life = Life { queue: open(dir.path(), &options), now: 0 };
    let begun = Instant::now();
    let mut after = Vec::new();
    for cycle in 0..CYCLES {
        let share = samples / CYCLES;
        // In step with the receiver, then an outage, then it is back.
        life.run(share / 2, true);
        life.run(share - share / 2, false);
        life.drain();
        // What was delivered is kept for a minute.
        life.now += 120;
        life.queue.maintain(stamp(life.now)).unwrap();
        let stats = life.queue.stats();
        assert_eq!((stats.pending.records, stats.cursor), (0, (cycle + 1) * share));
        assert_eq!(life.queue.gaps(), []);
        after.push(Figures::now(dir.path()));
    }
    let took = begun.elapsed().as_secs_f64();
    // The first cycles fill the allocator's and the engine's pools.
    let (first, rest) = (after[1], &after[2..]);
    let (low, high) = (figure(rest, |f| f.memory, u64::min), figure(rest, |f| f.memory, u64::max));
    let disk = figure(&after, |f| f.disk, u64::max);
    println!(
        "{samples} samples of {PAYLOAD} bytes in {CYCLES} cycles, {took:.1} s\n\
         resident after a cycle       {:.1} to {:.1} MiB\n\
         file descriptors, threads    {}, {}\n\
         on disk after a cycle        at most {} KiB",
        mib(low.min(first.memory)),
        mib(high),
        first.descriptors,
        first.threads,
        disk >> 10,
    );
    for figures in rest {
        assert_eq!(figures.descriptors, first.descriptors, "{after:?}");
        assert!(figures.threads.abs_diff(first.threads) <= come_and_go, "{after:?}");
    }
    assert!(disk < 1 << 20, "{after:?}");
    assert!(high <= first.memory + (growth << 20), "{after:?}");
    life.queue.close().unwrap();
}

struct Life {
    queue: Queue,
    now: u64,
}

impl Life {
    fn run(&mut self, count: u64, online: bool) {
        for _ in 0..count / 50 {
            self.now += 1;
            append(&mut self.queue, 50, PAYLOAD);
            if online {
                self.deliver();
            }
            self.queue.maintain(stamp(self.now)).unwrap();
        }
        append(&mut self.queue, count % 50, PAYLOAD);
    }

    fn deliver(&mut self) -> bool {
        let records = self.queue.read(Set::Pending, 0, WINDOW).unwrap();
        let Some(last) = records.last() else { return false };
        assert_eq!(last.payload, payload(last.seq, PAYLOAD));
        self.queue.acknowledge(last.seq, confirm(self.now)).unwrap();
        true
    }

    fn drain(&mut self) {
        while self.deliver() {
            self.queue.maintain(stamp(self.now)).unwrap();
        }
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
    fn now(dir: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let number = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let blocks =
            files_below(dir).iter().map(|file| fs::metadata(file).unwrap().blocks()).sum::<u64>();
        Self {
            memory: number("VmRSS:") << 10,
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count() as u64,
            threads: number("Threads:"),
            disk: (blocks * 512).saturating_sub(BALLAST_BYTES),
        }
    }
}

fn figure(of: &[Figures], which: fn(&Figures) -> u64, pick: fn(u64, u64) -> u64) -> u64 {
    of.iter().map(which).reduce(pick).unwrap()
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
