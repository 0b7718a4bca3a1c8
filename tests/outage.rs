//! The Monitor goes away, comes back, is slow, asks to wait: nothing is lost, nothing comes out
//! of order, and the log stays short.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use futures_util::join;
use harborforge_monitor::{Fault, Options, Reason, Route, Transport};

use support::{Site, batching, has_all, monitor, plain, run, seqs};

/// Samples go on while the Monitor is away, and all of them arrive when it is back.
async fn outage(options: Options) {
    let monitor = monitor(options).await;
    let site = Site::new(&monitor);
    let mut daemon = site.start();
    has_all(&monitor, 1).await;
    daemon.says("acknowledged").await;

    monitor.pause().await;
    let before = daemon.appended();
    daemon.has_appended(before + 4).await;
    daemon.complains(&["onnect"]).await;
    assert_eq!(daemon.count("delivering again"), 0);
    monitor.resume().await.unwrap();
    daemon.says("delivering again").await;
    let last = daemon.appended();
    has_all(&monitor, last).await;

    let lines = daemon.for_people();
    assert!(lines.len() <= 8, "an outage is a handful of lines: {lines:#?}");
    assert_eq!(daemon.count("delivering again"), 1);
    daemon.stop().await;
    site.books().agree_with(&monitor);
    let counts = monitor.counts();
    assert_eq!(counts.out_of_order, 0);
    // The request the outage may have cut off after it was stored, and no other.
    assert!(counts.duplicates <= 1, "{counts:?}");
}

#[test]
fn an_outage_costs_nothing_and_says_little() {
    run(async { join!(outage(plain()), outage(batching())) });
}

/// A backlog from before the start, met by an outage, is drained oldest first.
async fn backlog(options: Options, count: u64) -> (u64, Vec<Transport>) {
    let monitor = monitor(options).await;
    let mut site = Site::new(&monitor);
    site.set("report_interval", "1h").fill(count);
    monitor.pause().await;
    let mut daemon = site.start();
    assert_eq!(daemon.says("started").await.number("waiting"), Some(count));
    daemon.complains(&["onnect"]).await;
    monitor.resume().await.unwrap();
    // The daemon's own first sample is the last.
    has_all(&monitor, count + 1).await;
    daemon.stop().await;

    assert_eq!(seqs(&monitor), (1..=count + 1).collect::<Vec<_>>(), "oldest first");
    let counts = monitor.counts();
    assert_eq!((counts.duplicates, counts.out_of_order), (0, 0));
    let books = site.books();
    books.agree_with(&monitor);
    assert_eq!((books.pending, books.sampled), (0, count + 1));
    (counts.heartbeats, monitor.accepted().iter().map(|accepted| accepted.transport).collect())
}

#[test]
fn a_backlog_of_hundreds_is_drained_oldest_first() {
    run(async {
        let ((singles, by_single), (batches, by_batch)) =
            join!(backlog(plain(), 300), backlog(batching(), 1200));
        assert_eq!(singles, 301, "one sample a heartbeat");
        assert!(by_single.iter().all(|transport| *transport == Transport::Heartbeat));
        assert!(batches <= 5, "1201 samples took {batches} heartbeats");
        assert!(by_batch[..1000].iter().all(|transport| *transport == Transport::Batch));
    });
}

/// Answers that come slowly or not at all: what was stored and not confirmed is sent again.
async fn spoiled_answers(options: Options) {
    let monitor = monitor(options).await;
    let mut site = Site::new(&monitor);
    site.set("report_interval", "1h").fill(5);
    monitor.misbehave(Fault::LoseAnswer.at(Route::Heartbeat).times(3));
    monitor.misbehave(Fault::CutAnswer { after: 40 }.at(Route::Heartbeat).times(2));
    monitor.misbehave(Fault::SlowAnswer { pause_ms: 5 }.once().at(Route::Heartbeat));
    let daemon = site.start();
    has_all(&monitor, 6).await;
    monitor.wait_for(|books| books.counts().faults == 6, support::PATIENCE).await.unwrap();
    // The last answer may still be on its way; a stop waits for it.
    daemon.stop().await;
    let counts = monitor.counts();
    assert_eq!((counts.unique, counts.out_of_order), (6, 0));
    // Each of the five lost answers costs an arrival more: a duplicate, or the second copy of a
    // request whose kept connection died, refused for its nonce.
    let more = counts.duplicates + counts.refused(Reason::Nonce);
    assert!(more >= 5, "{counts:?}");
    let books = site.books();
    books.agree_with(&monitor);
}

#[test]
fn lost_answers_cost_duplicates_and_no_sample() {
    run(async { join!(spoiled_answers(plain()), spoiled_answers(batching())) });
}

/// Between the answer with `Retry-After` and the next heartbeat lies what was asked for, however
/// many samples come meanwhile.
async fn asked_to_wait(status: u16, header: String, cap: &str, at_least: Duration) {
    let monitor = monitor(plain()).await;
    let mut site = Site::new(&monitor);
    site.set("backoff_cap", cap);
    monitor.misbehave(Fault::retry_after(status, &header).once().at(Route::Heartbeat));
    let mut daemon = site.start();
    has_all(&monitor, 1).await;
    let heartbeats: Vec<SystemTime> = monitor
        .requests()
        .iter()
        .filter(|seen| seen.route == Route::Heartbeat)
        .map(|seen| seen.at)
        .collect();
    let waited = heartbeats[1].duration_since(heartbeats[0]).unwrap();
    assert!(waited >= at_least, "{header}: waited {waited:?}");
    daemon.complains(&[&status.to_string(), "retry_in"]).await;
    daemon.stop().await;
    site.books().agree_with(&monitor);
}

#[test]
fn retry_after_is_honoured_up_to_the_cap() {
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(5));
    let seconds = Duration::from_secs;
    run(async {
        join_all([
            asked_to_wait(503, "2".to_owned(), "10s", seconds(2)),
            asked_to_wait(429, "3".to_owned(), "10s", seconds(3)),
            // The daemon's start and the whole seconds of a date take their part of the five.
            asked_to_wait(503, date, "10s", seconds(1)),
            // A day is not waited for: the cap is.
            asked_to_wait(503, "86400".to_owned(), "2s", seconds(2)),
        ])
        .await
    });
}
