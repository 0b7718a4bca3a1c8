//! Queues made beforehand.

use std::fs;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

use harborforge_storage::{BALLAST_BYTES, NewRecord, Options, Queue, Stamp};

use crate::samples::sample;
use crate::yardstick;

const STAMP: Stamp = Stamp { wall_ms: 1_773_262_800_000, boot_ms: 1, boot_id: [1; 16] };

/// Bytes of a sample as it is appended.
const SIZE: usize = 400;

fn open(data_dir: &Path) -> Queue {
    fs::create_dir_all(data_dir).unwrap();
    let options = Options { queue_max_bytes: 2 << 30, ..Options::default() };
    Queue::open(data_dir, options, STAMP).unwrap().0
}

/// Puts so many samples into a queue, `at_once` with one sync.
pub fn fill(data_dir: &Path, samples: u64, at_once: usize) {
    let mut queue = open(data_dir);
    let mut numbers = 0..samples;
    for _ in 0..samples / at_once as u64 {
        let payloads: Vec<_> = numbers.by_ref().take(at_once).map(|n| sample(n, SIZE)).collect();
        let records: Vec<_> =
            payloads.iter().map(|payload| NewRecord { stamp: STAMP, payload }).collect();
        queue.append(&records).unwrap();
        queue.maintain(STAMP).unwrap();
    }
    queue.close().unwrap();
}

/// Time of one durable append, as a multiple of a raw durable write's; the two take turns.
pub fn append_ratio(data_dir: &Path) -> f64 {
    let mut queue = open(data_dir);
    let raw_dir = tempfile::tempdir().unwrap();
    let mut raw_file = File::create(raw_dir.path().join("raw")).unwrap();
    let (mut raw, mut ours) = (0.0, 0.0);
    for turn in 0..40 {
        raw += yardstick::synced(&mut raw_file, 25);
        let payloads: Vec<_> = (0..25).map(|n| sample(turn * 25 + n, SIZE)).collect();
        let began = Instant::now();
        for payload in &payloads {
            queue.append(&[NewRecord { stamp: STAMP, payload }]).unwrap();
            queue.maintain(STAMP).unwrap();
        }
        ours += began.elapsed().as_secs_f64() / 25.0;
    }
    queue.close().unwrap();
    ours / raw
}

/// Bytes a queue's directory takes on disk, without the ballast.
pub fn on_disk(data_dir: &Path) -> u64 {
    fn below(dir: &Path) -> u64 {
        let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
        entries
            .map(|entry| {
                let metadata = entry.metadata().unwrap();
                let inside = if metadata.is_dir() { below(&entry.path()) } else { 0 };
                inside + metadata.blocks() * 512
            })
            .sum()
    }
    below(data_dir).saturating_sub(BALLAST_BYTES)
}
