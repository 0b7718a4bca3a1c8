//! A queue with something in each set, and what a verification says of it.

use std::path::Path;
use std::time::Duration;

use harborforge_storage::*;

use super::{append, confirm, open, stamp};

/// Small generations, and what is delivered is kept.
pub fn keeping() -> Options {
    Options {
        generation_max_records: 40,
        retain_sent: Duration::from_secs(100_000),
        ..Options::default()
    }
}

/// 130 records in 4 generations: 1-45 delivered but 30 rejected, so one generation sent and the
/// next in part; 60-62 given up, 100 rejected, 121-130 in the one that goes on being written.
pub fn filled(dir: &Path) -> Queue {
    let mut queue = open(dir, &keeping());
    for _ in 0..13 {
        append(&mut queue, 10, 300);
        queue.maintain(stamp(1)).unwrap();
    }
    queue.reject(30, "no", stamp(2)).unwrap();
    queue.acknowledge(45, confirm(1)).unwrap();
    queue.reject(100, "never", stamp(2)).unwrap();
    queue.give_up(60..=62, GapReason::Expired, false, stamp(3)).unwrap();
    queue.maintain(stamp(4)).unwrap();
    queue
}

/// A verification of a queue that no process has open.
pub fn at_rest(dir: &Path) -> (Vec<GenerationReport>, QueueReport) {
    let mut inspector = Inspector::open(dir).unwrap();
    let mut verification = inspector.verify();
    let found: Vec<_> = verification.by_ref().map(|report| report.unwrap()).collect();
    (found, verification.finish().unwrap())
}
