//! Queues made beforehand.

use std::fs;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

use harborforge_storage::{BALLAST_BYTES, NewRecord, Options, Queue, Stamp};

use crate::yardstick;

const STAMP: Stamp = Stamp { wall_ms: 1_773_262_800_000, boot_ms: 1, boot_id: [1; 16] };

/// A sample of 400 bytes as it is stored.
fn payload() -> Vec<u8> {
    let head = r#"{"openclaw_version":null,"cpu_pct":12.5,"mem_pct":41.2,"disk_pct":62.0,"swap_pct":0.0,"uptime_seconds":12345,"load_avg":[0.1,0.1,0.1],"agents":[{"id":"a","name":""#;
    let tail =
        r#"","status":"idle"}],"last_seen_at":"2026-03-11T21:00:00Z","connector_version":"0.1.0"}"#;
    let name = "n".repeat(400 - head.len() - tail.len());
    format!("{head}{name}{tail}").into_bytes()
}

fn open(data_dir: &Path) -> Queue {
    fs::create_dir_all(data_dir).unwrap();
    let options = Options { queue_max_bytes: 2 << 30, ..Options::default() };
    Queue::open(data_dir, options, STAMP).unwrap().0
}

/// Puts so many samples into a queue, `at_once` with one sync.
pub fn fill(data_dir: &Path, samples: u64, at_once: usize) {
    let mut queue = open(data_dir);
    let payload = payload();
    let records = vec![NewRecord { stamp: STAMP, payload: &payload }; at_once];
    for _ in 0..samples / at_once as u64 {
        queue.append(&records).unwrap();
        queue.maintain(STAMP).unwrap();
    }
    queue.close().unwrap();
}

/// Time of one durable append, as a multiple of a raw durable write's; the two take turns.
pub fn append_ratio(data_dir: &Path) -> f64 {
    let mut queue = open(data_dir);
    let payload = payload();
    let raw_dir = tempfile::tempdir().unwrap();
    let mut raw_file = File::create(raw_dir.path().join("raw")).unwrap();
    let (mut raw, mut ours) = (0.0, 0.0);
    for _ in 0..40 {
        raw += yardstick::synced(&mut raw_file, 25);
        let began = Instant::now();
        for _ in 0..25 {
            queue.append(&[NewRecord { stamp: STAMP, payload: &payload }]).unwrap();
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
