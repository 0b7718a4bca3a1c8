//! The real daemon as a child process, for tests that look at it from outside: a directory with a
//! configuration and a queue, the process and its log, and the books to compare at the end.
//!
//! Invariants: every wait is for a condition and bounded by [`PATIENCE`], which is reached only
//! when something is broken; ports, directories and challenges are each test's own; no secret of
//! a [`Site`] may stand in any log line, which is checked whenever a daemon ends.

#![allow(dead_code, unused_imports, reason = "each test file uses its own part of these helpers")]

mod alone;
mod books;
mod daemon;
mod site;
mod terminal;
mod tunnel;

pub use alone::{alone, spawn};
pub use books::Books;
pub use daemon::{Daemon, Line};
pub use site::{Site, outcome, program};
pub use terminal::{on_terminal, on_terminal_with, terminal};
pub use tunnel::Tunnel;

use std::time::Duration;

use harborforge_monitor::{Capability, Counts, Monitor, Options, test_key};

/// How long anything may take; only reached when something is broken.
pub const PATIENCE: Duration = Duration::from_secs(100);

/// Runs a test's future.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    async_std::task::block_on(future)
}

/// Options of a Monitor with the shared key and no extension.
pub fn plain() -> Options {
    Options { key: Some(test_key()), ..Options::default() }
}

/// The same that takes batches.
pub fn batching() -> Options {
    Options { capabilities: [Capability::Batch].into(), ..plain() }
}

/// The same that acknowledges what comes over the WebSocket, and hands out resume tokens.
pub fn real_time() -> Options {
    Options { capabilities: [Capability::Ack, Capability::Resume].into(), ..plain() }
}

/// A Monitor that runs.
pub async fn monitor(options: Options) -> Monitor {
    Monitor::start(options).await.unwrap()
}

/// Waits until the Monitor has accepted every sample from 1 to `last`.
pub async fn has_all(monitor: &Monitor, last: u64) {
    has_all_within(monitor, last, PATIENCE).await;
}

/// The same with another patience.
pub async fn has_all_within(monitor: &Monitor, last: u64, patience: Duration) {
    let all = monitor.wait_for(|books| (1..=last).all(|seq| books.has_seq(seq)), patience).await;
    if let Err(error) = all {
        let missing: Vec<u64> =
            monitor.journal(|books| (1..=last).filter(|seq| !books.has_seq(*seq)).collect());
        panic!("of 1 to {last} the Monitor lacks {missing:?}: {error}");
    }
}

/// Waits until a count of the Monitor's is at least this.
pub async fn counted(monitor: &Monitor, what: &str, number: u64, count: fn(&Counts) -> u64) {
    let reached = monitor.wait_for(|books| count(books.counts()) >= number, PATIENCE).await;
    reached.unwrap_or_else(|error| panic!("{number} {what}: {error}"));
}

/// Numbers of the accepted samples in the order of their first arrival.
pub fn seqs(monitor: &Monitor) -> Vec<u64> {
    monitor.accepted().iter().map(|accepted| accepted.seq).collect()
}
