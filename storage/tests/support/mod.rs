//! What the integration tests share.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod all_sets;
pub mod books;
pub mod calls;
pub mod host;
pub mod image;
pub mod payloads;
pub mod random;
pub mod subscriber;
pub mod worker;

use std::path::Path;

use harborforge_storage::*;
pub use payloads::payload;
pub use random::Random;

pub fn stamp(seconds: u64) -> Stamp {
    Stamp { wall_ms: 1_700_000_000_000 + seconds * 1000, boot_ms: seconds * 1000, boot_id: [7; 16] }
}

pub fn options() -> Options {
    Options { retain_sent: std::time::Duration::ZERO, ..Options::default() }
}

pub fn open(dir: &Path, options: &Options) -> Queue {
    Queue::open(dir, options.clone(), stamp(0)).unwrap().0
}

pub fn append(queue: &mut Queue, count: u64, size: usize) -> std::ops::RangeInclusive<u64> {
    let first = queue.stats().next_seq;
    let payloads: Vec<_> = (first..first + count).map(|n| payload(n, size)).collect();
    let records: Vec<_> =
        payloads.iter().map(|payload| NewRecord { stamp: stamp(0), payload }).collect();
    queue.append(&records).unwrap()
}

pub const ALL: Limits = Limits { records: usize::MAX, bytes: usize::MAX };

pub fn numbers(queue: &mut Queue, set: Set) -> Vec<u64> {
    queue.read(set, 0, ALL).unwrap().iter().map(|record| record.seq).collect()
}

pub fn confirm(seconds: u64) -> Confirmation {
    Confirmation { wall_ms: stamp(seconds).wall_ms, tag: 1 }
}

/// Generation directories of a role.
pub fn generations(dir: &Path, role: &str) -> Vec<std::path::PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(dir.join("queue"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == role))
        .collect();
    found.sort();
    found
}

/// A directory in memory where there is room in it: a kill takes nothing that was written, synced
/// or not, so where only kills matter a disk would but slow the test down.
pub fn quick_dir() -> tempfile::TempDir {
    const ROOM: u64 = 512 << 20;
    let free = rustix::fs::statvfs("/dev/shm").map_or(0, |at| at.f_bavail * at.f_frsize);
    let quick = (free >= ROOM).then(|| tempfile::tempdir_in("/dev/shm").ok()).flatten();
    quick.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// All files below a directory, sorted.
pub fn files_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A directory for what need not survive a power cut: in memory, where there is such a place.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir()
        && let Ok(dir) = tempfile::tempdir_in(memory)
    {
        return dir;
    }
    tempfile::tempdir().unwrap()
}
