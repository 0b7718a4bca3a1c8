//! What is told by a return value is not logged as well.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

mod support;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};

use harborforge_storage::*;
use support::subscriber::Listener;
use support::*;
use tracing::{Event, Level};

/// Counts lines an operator would see.
fn counter(count: Arc<AtomicUsize>) -> Listener<impl Fn(&Event<'_>)> {
    Listener {
        wanted: |metadata| *metadata.level() <= Level::INFO,
        heard: move |_: &Event<'_>| {
            count.fetch_add(1, Ordering::Relaxed);
        },
    }
}

fn lines(run: impl FnOnce()) -> usize {
    // While there is one subscriber in the process, a place that logs is asked about once, on the
    // thread that comes there first; without one of its own it would answer "nobody" for all.
    static OTHERS: Once = Once::new();
    OTHERS.call_once(|| tracing::subscriber::set_global_default(counter(Arc::default())).unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    tracing::subscriber::with_default(counter(Arc::clone(&count)), run);
    count.load(Ordering::Relaxed)
}

#[test]
fn evictions_and_repairs_are_told_once_by_what_is_returned() {
    let dir = tempfile::tempdir().unwrap();
    let bounded = Options { generation_max_records: 10, queue_max_bytes: 8000, ..options() };
    let seen = lines(|| {
        let mut queue = open(dir.path(), &bounded);
        for _ in 0..300 {
            append(&mut queue, 1, 100);
        }
        // One run, however many generations went.
        assert_eq!(queue.maintain(stamp(1)).unwrap().evicted.len(), 1);
        queue.close().unwrap();
        fs::remove_file(generations(dir.path(), "pending")[0].join("db")).unwrap();
        fs::write(dir.path().join("queue/cursor"), [7; 8192]).unwrap();
        let (queue, report) = Queue::open(dir.path(), bounded.clone(), stamp(2)).unwrap();
        assert_eq!((report.quarantined.len(), report.rebuilt.len()), (1, 1));
        assert_eq!(report.missing.len(), 1);
        drop(queue);
    });
    assert_eq!(seen, 0);
}

#[test]
fn what_is_found_missing_later_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let small = Options { generation_max_records: 10, ..options() };
    let mut queue = open(dir.path(), &small);
    append(&mut queue, 35, 100);
    queue.maintain(stamp(1)).unwrap();
    queue.close().unwrap();
    let seen = lines(|| {
        let mut queue = open(dir.path(), &small);
        fs::remove_file(generations(dir.path(), "pending")[1].join("db")).unwrap();
        for _ in 0..3 {
            assert_eq!(numbers(&mut queue, Set::Pending).len(), 25);
        }
    });
    assert_eq!(seen, 1);
}
