//! Dumping a live queue over a real socket: a real store, a writer beside it, slow readers.

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use harborforge_storage::{Confirmation, GapReason, NewRecord, Options, Purge};
use serde_json::Value;

use super::*;
use crate::collector::clock;
use crate::runtime::{Task, block_on};
use crate::store;

/// A running store and what was appended to it.
struct Live {
    store: Store,
    thread: store::StoreThread,
}

impl Live {
    fn start(dir: &Path) -> Self {
        let (store, thread) =
            store::start(dir.to_owned(), Options::default(), clock::Clock::new()).unwrap();
        Self { store, thread }
    }

    fn with<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Queue, harborforge_storage::Stamp) -> T + Send + 'static,
    ) -> T {
        let now = self.store.now();
        block_on(self.store.call(move |queue| Ok(job(queue, now)))).unwrap()
    }

    fn append(&self, count: u64, size: usize) {
        self.with(move |queue, stamp| {
            let payload = format!("{{\"a\":\"{}\"}}", "x".repeat(size));
            let record = NewRecord { stamp, payload: payload.as_bytes() };
            queue.append(&vec![record; usize::try_from(count).unwrap()]).unwrap();
        });
    }

    fn acknowledge(&self, up_to: u64) {
        self.with(move |queue, now| {
            queue.acknowledge(up_to, Confirmation { wall_ms: now.wall_ms, tag: 1 }).unwrap();
        });
    }

    /// Asks for a dump; the other end of the connection.
    fn dump(&self, dump: Dump) -> (UnixStream, Task<bool>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let store = self.store.clone();
        let answering = runtime::spawn(async move {
            let mut client = Client::new(runtime::UnixStream::from(theirs));
            matches!(answer(&mut client, &dump, &store).await, Ok(Ok(())))
        });
        (ours, answering)
    }

    fn stop(self) {
        self.store.stop();
        assert!(matches!(self.thread.join(), store::Stopped::Cleanly));
    }
}

fn all(follow: bool) -> Dump {
    Dump { pending: true, sent: true, rejected: true, from: 1, to: u64::MAX, follow, tail: None }
}

fn lines(stream: &UnixStream) -> impl Iterator<Item = Value> + use<> {
    let reader = BufReader::new(stream.try_clone().unwrap());
    reader.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap())
}

/// A line in short.
fn told(line: &Value) -> String {
    let item = &line["item"];
    let of = |value: &Value, key: &str| value[key].to_string().replace('"', "");
    if let Some(word) = item.as_str() {
        return word.to_owned();
    }
    let (sample, change) = (&item["sample"], &item["change"]);
    if sample.is_object() {
        format!("{} {}", of(sample, "seq"), of(sample, "state"))
    } else if change.is_object() {
        format!("{}..{} {}", of(change, "from"), of(change, "to"), of(change, "state"))
    } else {
        line.to_string()
    }
}

#[test]
fn a_dump_beside_a_writer_at_full_speed_is_contiguous() {
    let dir = tempfile::tempdir().unwrap();
    let live = Live::start(dir.path());
    live.append(5_000, 200);
    let stop = Arc::new(AtomicBool::new(false));
    let (store, stopped) = (live.store.clone(), stop.clone());
    let writer = std::thread::spawn(move || {
        let mut written = 0u64;
        while !stopped.load(Ordering::Relaxed) {
            store.submit(clock::Clock::new().stamp(), b"{}".to_vec());
            while store.view().in_memory > 0 {
                block_on(store.changed());
            }
            written += 1;
        }
        written
    });
    let before = live.store.view().queue.unwrap().next_seq;
    let (stream, answering) = live.dump(all(false));
    let mut expected = 1;
    let mut end = None;
    for line in lines(&stream) {
        if let Some(seq) = line["item"]["sample"]["seq"].as_u64() {
            assert_eq!(seq, expected);
            expected += 1;
            if seq % 500 == 0 {
                // Confirmed behind the reader, and ahead of it.
                live.acknowledge((seq * 2).min(5_000));
            }
            assert_eq!(line["item"]["sample"]["state"], "pending", "as it stood at the start");
        } else {
            end = Some(line);
        }
    }
    assert!(end.unwrap()["end"].is_object());
    assert!(expected >= before);
    stop.store(true, Ordering::Relaxed);
    assert!(writer.join().unwrap() > 0, "nothing was written meanwhile");
    assert!(block_on(answering));
    live.stop();
}

#[test]
fn who_follows_is_told_what_comes_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let live = Live::start(dir.path());
    live.append(3, 10);
    let (stream, answering) = live.dump(Dump { sent: false, ..all(true) });
    let mut lines = lines(&stream);
    let mut next = move || told(&lines.next().unwrap());
    for line in ["1 pending", "2 pending", "3 pending", "following"] {
        assert_eq!(next(), line);
    }
    live.append(2, 10);
    assert_eq!((next(), next()), ("4 pending".to_owned(), "5 pending".to_owned()));
    live.with(|queue, now| queue.reject(2, "odd", now).unwrap());
    live.acknowledge(4);
    live.with(|queue, now| queue.give_up(5..=5, GapReason::Expired, false, now).unwrap());
    for line in ["2 rejected", "1..1 sent", "3..4 sent", "5..5 given_up"] {
        assert_eq!(next(), line);
    }
    live.append(1000, 10);
    for seq in 6..=1005 {
        assert_eq!(next(), format!("{seq} pending"));
    }
    live.acknowledge(1005);
    assert_eq!(next(), "6..1005 sent", "one line for a thousand");
    // Who leaves is noticed although nothing happens any more.
    drop((next, stream));
    assert!(!block_on(answering));
    assert_eq!(live.with(|queue, _| queue.purgeable(Purge::Sent).pinned), 0);
    live.stop();
}

#[test]
fn only_what_enters_the_sets_asked_for_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let live = Live::start(dir.path());
    live.append(5, 10);
    let sent = Dump { pending: false, rejected: false, from: 2, to: 3, ..all(true) };
    let (stream, _answering) = live.dump(sent);
    let mut lines = lines(&stream);
    assert_eq!(told(&lines.next().unwrap()), "following");
    live.append(1, 10);
    live.acknowledge(6);
    assert_eq!(told(&lines.next().unwrap()), "2 sent");
    assert_eq!(told(&lines.next().unwrap()), "3 sent");
    drop((lines, stream));
    live.stop();
}

#[test]
fn the_newest_are_found_without_reading_all() {
    let dir = tempfile::tempdir().unwrap();
    let live = Live::start(dir.path());
    live.append(1000, 10);
    let (stream, _answering) = live.dump(Dump { tail: Some(3), ..all(false) });
    let lines: Vec<_> = lines(&stream).map(|line| told(&line)).collect();
    assert_eq!(lines[..3], ["998 pending", "999 pending", "1000 pending"]);
    assert_eq!(lines.len(), 4);
    live.stop();
}

#[test]
fn a_slow_reader_costs_a_portion_and_is_told_what_it_missed() {
    let dir = tempfile::tempdir().unwrap();
    let live = Live::start(dir.path());
    // More than the socket's buffer takes: the answer waits for its reader from here on.
    live.append(30, 60_000);
    let (stream, answering) = live.dump(Dump { sent: false, rejected: false, ..all(true) });
    let mut lines = lines(&stream);
    assert_eq!(told(&lines.next().unwrap()), "1 pending");
    live.with(|queue, stamp| {
        let record = NewRecord { stamp, payload: b"{}" };
        for round in 1..=600 {
            queue.append(&[record]).unwrap();
            queue.acknowledge(round, Confirmation { wall_ms: 0, tag: 1 }).unwrap();
        }
    });
    for seq in 2..=30 {
        assert_eq!(told(&lines.next().unwrap()), format!("{seq} pending"), "the snapshot is whole");
    }
    assert_eq!(told(&lines.next().unwrap()), "following");
    let missed = told(&lines.next().unwrap());
    assert!(missed.contains("too slow"), "{missed}");
    let rest: Vec<_> = lines.by_ref().map(|line| told(&line)).take(1024).collect();
    assert_eq!(rest.last().unwrap(), "600..600 sent");
    assert!(rest.contains(&"630 pending".to_owned()));
    // From there on it is complete again.
    live.append(1, 10);
    assert_eq!(told(&lines.next().unwrap()), "631 pending");
    drop((lines, stream));
    assert!(!block_on(answering));
    live.stop();
}

#[test]
fn who_leaves_in_the_middle_holds_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let live = Live::start(dir.path());
    live.append(30, 60_000);
    let (stream, answering) = live.dump(all(false));
    assert_eq!(told(&lines(&stream).next().unwrap()), "1 pending");
    live.acknowledge(30);
    assert_eq!(live.with(|queue, _| queue.purgeable(Purge::Sent).pinned), 30);
    drop(stream);
    assert!(!block_on(answering));
    assert_eq!(live.with(|queue, _| queue.purgeable(Purge::Sent).pinned), 0);
    live.stop();
}
