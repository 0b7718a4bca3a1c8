//! The thread that owns the queue, over a real queue whose disk refuses and relents.

use std::fs;
use std::path::Path;

use harborforge_storage::Inspector;

use super::*;
use crate::runtime::{block_on, timeout};

/// Reached only when something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(dir: &Path) -> (Store, StoreThread) {
    super::start(dir.to_owned(), Options::default(), clock::Clock::new()).unwrap()
}

fn submit(store: &Store, count: usize) {
    for number in 0..count {
        store.submit(clock::Clock::new().stamp(), number.to_string().into_bytes());
    }
}

/// Waits for the view to be as wanted.
fn wait(store: &Store, mut wanted: impl FnMut(View) -> bool) -> View {
    let reached = async {
        while !wanted(store.view()) {
            store.changed().await;
        }
    };
    block_on(timeout(PATIENCE, reached)).unwrap_or_else(|| panic!("stuck at {:?}", store.view()));
    store.view()
}

/// A file where the queue's directory should be: it cannot be opened, and damage it is not.
fn blocked(dir: &Path) {
    fs::write(dir.join("queue"), "in the way").unwrap();
}

fn stored(dir: &Path) -> Vec<Vec<u8>> {
    let (mut queue, _) =
        Queue::open(dir, Options::default(), stamp(clock::Clock::new().stamp())).unwrap();
    let limits = harborforge_storage::Limits { records: usize::MAX, bytes: usize::MAX };
    let records = queue.read(harborforge_storage::Set::Pending, 1, limits).unwrap();
    queue.close().unwrap();
    records.into_iter().map(|record| record.payload).collect()
}

#[test]
fn samples_become_durable_in_their_order_and_a_stop_is_clean() {
    let dir = tempfile::tempdir().unwrap();
    let (store, thread) = start(dir.path());
    submit(&store, 1000);
    // Not waited for: what is in the ring is appended on the way out.
    store.stop();
    assert!(matches!(thread.join(), Stopped::Cleanly));
    let expected: Vec<_> = (0..1000).map(|number| number.to_string().into_bytes()).collect();
    assert_eq!(stored(dir.path()), expected);
    let closed = block_on(store.call(|queue| Ok(queue.position())));
    assert!(matches!(closed, Err(StoreError::Closed)));
}

#[test]
fn a_queue_that_cannot_be_opened_is_tried_again_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    blocked(dir.path());
    let (store, thread) = start(dir.path());
    submit(&store, 10);
    let refused = block_on(store.call(|queue| Ok(queue.position())));
    assert!(matches!(refused, Err(StoreError::NotOpen)));
    assert_eq!(wait(&store, |view| view.in_memory == 10).queue, None);
    fs::remove_file(dir.path().join("queue")).unwrap();
    wait(&store, |view| view.queue.is_some_and(|queue| queue.pending == 10));
    assert_eq!(store.view().in_memory, 0);
    store.stop();
    assert!(matches!(thread.join(), Stopped::Cleanly));
    assert_eq!(stored(dir.path()).len(), 10);
}

#[test]
fn memory_keeps_the_newest_and_counts_what_it_drops() {
    let dir = tempfile::tempdir().unwrap();
    blocked(dir.path());
    let (store, thread) = start(dir.path());
    submit(&store, RING + 7);
    assert_eq!((store.view().in_memory, store.view().dropped), (RING, 7));
    fs::remove_file(dir.path().join("queue")).unwrap();
    store.stop();
    assert!(matches!(thread.join(), Stopped::Cleanly), "a stop tries once more to open");
    let kept = stored(dir.path());
    assert_eq!(kept.len(), RING);
    assert_eq!(kept[0], b"7", "the oldest went");
}

#[test]
fn a_stop_that_cannot_save_what_is_in_memory_says_so() {
    let dir = tempfile::tempdir().unwrap();
    blocked(dir.path());
    let (store, thread) = start(dir.path());
    submit(&store, 1);
    store.stop();
    assert!(matches!(thread.join(), Stopped::Unclean(_)));
}

#[test]
fn readers_are_waited_for_a_moment() {
    let dir = tempfile::tempdir().unwrap();
    let (store, thread) = start(dir.path());
    store.stop();
    assert!(matches!(thread.join(), Stopped::Cleanly));
    let now = stamp(clock::Clock::new().stamp());
    let open = || Queue::open(dir.path(), Options::default(), now);
    let inspect = || Inspector::open(dir.path()).unwrap();
    // One that is done soon.
    let (mut reader, mut waits) = (Some(inspect()), 0);
    let opened = after_readers(open, |_| {
        waits += 1;
        drop(reader.take_if(|_| waits == 2));
    });
    assert!(opened.is_ok() && waits == 2);
    drop(opened);
    // One that is paused: in the end it is named.
    let (_reader, mut waited) = (inspect(), Duration::ZERO);
    let opened = after_readers(open, |wait| waited += wait);
    assert!(matches!(opened.err(), Some(Error::Reading { .. })));
    assert_eq!(waited, READERS_WITHIN);
}

#[test]
fn a_queue_held_by_another_is_never_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (store, thread) = start(dir.path());
    let second = super::start(dir.path().to_owned(), Options::default(), clock::Clock::new());
    assert!(matches!(second.err(), Some(StartError::Queue(Error::Locked { .. }))));
    store.stop();
    assert!(matches!(thread.join(), Stopped::Cleanly));
}

/// A disk that hangs is told from one that has nothing to do.
#[test]
fn what_the_thread_is_at_is_seen_while_it_lasts() {
    let dir = tempfile::tempdir().unwrap();
    let (store, thread) = start(dir.path());
    let (let_go, hangs) = std::sync::mpsc::channel::<()>();
    let (begun, has_begun) = std::sync::mpsc::channel();
    let job = store.call(move |_| {
        begun.send(()).unwrap();
        let _ = hangs.recv();
        Ok(())
    });
    let looked = async {
        has_begun.recv().unwrap();
        let at = store.busy().at();
        let_go.send(()).unwrap();
        at
    };
    let (done, at) = block_on(futures_util::future::join(job, looked));
    assert!(done.is_ok() && at.is_some());
    store.stop();
    let busy = store.busy().clone();
    assert!(matches!(thread.join(), Stopped::Cleanly));
    assert_eq!(busy.at(), None);
}
