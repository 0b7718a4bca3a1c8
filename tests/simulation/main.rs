//! The link machine in years of bad network: the real machine, window, backoff and classification
//! against a model network, model Monitors and a model queue, in virtual time, each run from one
//! seed.
//!
//! A run is a row of storms and calms. In a storm anything may happen: latency and loss, cuts at
//! every step of a link, half-open links, lost answers, refusals, expired and new challenges,
//! forgotten tokens, other keys and capabilities, another Monitor, settings, clock jumps, stops
//! and kills (what is durable stays, the rest is gone). In a calm all is well, and at its end the
//! queue has to be empty. The invariants (`rules.rs`, and where the world sees more: `world.rs`,
//! `http.rs`, `wire.rs`) are checked at every step.
//!
//! By the environment:
//! - `SIM_DAYS=10000`: how many seeds of a virtual day (default 200);
//! - `SIM_MONTHS=200`: how many seeds of a virtual month (default 0);
//! - `SIM_SEED=7`: the first seed, so that `SIM_SEED=7 SIM_DAYS=1` replays one, with a trace of
//!   its last steps if it fails.
//!
//! The large run: `SIM_DAYS=10000 SIM_MONTHS=200 cargo test --release --test simulation years`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing model is a failing test, and the test says so"
)]

mod dice;
mod due;
mod fleet;
mod http;
mod monitor;
mod queue;
mod rules;
mod saboteur;
mod scenario;
mod summary;
mod wire;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use saboteur::Bug;
use scenario::Scenario;
use summary::Summary;
use world::{Checked, World};

const DAY: Duration = Duration::from_secs(86_400);
const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// Days that have failed once: each showed a fault of the machine.
const REGRESSIONS: [u64; 10] = [2, 6, 7, 8, 10, 49, 77, 417, 673, 1366];

fn run(seed: u64, length: Duration, bug: Option<Bug>) -> Checked<Summary> {
    let scenario = Scenario::drawn(seed, length);
    let failed = match World::new(scenario.clone(), bug, false).run() {
        Ok(summary) => return Ok(summary),
        Err(failed) => failed,
    };
    // Once more, since a trace is dear.
    Err(World::new(scenario, bug, true).run().err().unwrap_or(failed))
}

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text}: not a number")),
        Err(_) => default,
    }
}

/// Runs seeds on all processors; each run is a world of its own.
fn run_all(seeds: &[u64], length: Duration, replay: &str) -> Summary {
    let next = AtomicU64::new(0);
    let total = Mutex::new(Summary::default());
    let failed = Mutex::new(None);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(seed) =
                    seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize).copied()
                {
                    match run(seed, length, None) {
                        Ok(summary) => {
                            total.lock().unwrap_or_else(PoisonError::into_inner).add(&summary);
                        }
                        Err(broken) => {
                            *failed.lock().unwrap_or_else(PoisonError::into_inner) =
                                Some((seed, broken));
                            return;
                        }
                    }
                }
            });
        }
    });
    if let Some((seed, broken)) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        panic!(
            "seed {seed}: {broken}\nreplay: SIM_SEED={seed} {replay} cargo test --test simulation \
             years"
        );
    }
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn years_of_bad_network() {
    let first = number("SIM_SEED", 0);
    let days: Vec<u64> = (first..first + number("SIM_DAYS", 200)).collect();
    let months: Vec<u64> = (first..first + number("SIM_MONTHS", 0)).collect();
    let mut total = run_all(&months, MONTH, "SIM_DAYS=0 SIM_MONTHS=1");
    total.add(&run_all(&days, DAY, "SIM_DAYS=1"));
    println!("{} days, {} months: {total:#?}", days.len(), months.len());
    if days.len() < 100 {
        return;
    }
    // A world in which nothing happens proves nothing.
    for (what, times) in [
        ("delivered by link", total.by_link),
        ("delivered by heartbeat", total.by_heartbeat),
        ("rejected", total.rejected),
        ("links", total.links),
        ("refused links", total.refused_links),
        ("restarts", total.restarts),
        ("fallbacks", total.fallbacks),
        ("probes", total.probes),
        ("sent by heartbeat for what it did to links", total.forced),
        ("calms that ended well", total.verdicts),
    ] {
        assert!(times > 10, "{what}: only {times} times");
    }
}

#[test]
fn days_that_failed_once() {
    run_all(&REGRESSIONS, DAY, "SIM_DAYS=1");
}

#[test]
fn a_run_is_repeatable() {
    let one = run(3, DAY, None).unwrap();
    let other = run(3, DAY, None).unwrap();
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
}

#[test]
fn deliberate_faults_are_found() {
    for bug in Bug::ALL {
        let found = (0..60).find_map(|seed| run(seed, DAY, Some(bug)).err());
        let broken = found.unwrap_or_else(|| panic!("{bug:?} is not found in 60 days"));
        let said = broken.lines().next().unwrap_or_default();
        assert!(bug.told_by().iter().any(|words| said.contains(words)), "{bug:?}: {said}");
    }
}
