//! How many files are open at most; alone in its process, since the limit is the process's.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

mod support;

use std::fs;

use harborforge_storage::*;
use rustix::process::{Resource, Rlimit, setrlimit};
use support::*;

const GENERATIONS: u64 = 200;

fn open_databases() -> usize {
    let handles = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = handles.filter_map(|handle| fs::read_link(handle.path()).ok());
    let mut databases: Vec<_> = targets.filter(|path| path.ends_with("db")).collect();
    databases.sort();
    databases.dedup();
    databases.len()
}

#[test]
fn a_long_queue_without_its_manifest_opens_with_few_handles() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = Options { generation_max_records: 2, ..options() };
    let mut queue = open(dir.path(), &tiny);
    append(&mut queue, 2 * GENERATIONS, 20);
    // Rejected ones ahead of the cursor are looked through at every opening.
    for seq in (4..=60).step_by(2) {
        queue.reject(seq, "no", stamp(1)).unwrap();
    }
    queue.maintain(stamp(1)).unwrap();
    queue.close().unwrap();

    let soft = Some(64);
    setrlimit(Resource::Nofile, Rlimit { current: soft, maximum: soft }).unwrap();
    for what in [b"".as_slice(), b"nonsense"] {
        let manifest = dir.path().join("queue/manifest");
        fs::remove_file(&manifest).unwrap();
        if !what.is_empty() {
            fs::write(&manifest, what).unwrap();
        }
        let (mut queue, report) = Queue::open(dir.path(), tiny.clone(), stamp(2)).unwrap();
        assert_eq!((report.missing.len(), report.quarantined.len()), (0, 0), "{report:?}");
        assert!(open_databases() <= 4, "{}", open_databases());
        // All of them are sealed again, and read through in one call.
        assert!(queue.maintain(stamp(3)).unwrap().sealed >= GENERATIONS as usize - 1);
        assert!(open_databases() <= 4, "{}", open_databases());
        assert_eq!(numbers(&mut queue, Set::Pending).len() as u64, 2 * GENERATIONS - 29);
        assert_eq!(numbers(&mut queue, Set::Rejected).len(), 29);
        assert!(open_databases() <= 4, "{}", open_databases());
        queue.close().unwrap();
    }
}
