//! The daemon over a damaged data directory: it starts, or ends with the code that has it started
//! again, and everything that can be had is delivered.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use support::{Site, batching, has_all, monitor, plain, real_time, run};

/// Exit code of the queue's own failures, see docs/OPERATIONS.md.
const STORAGE: i32 = 4;

/// The databases of samples that wait.
fn databases(site: &Site) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(site.data_dir().join("queue"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|role| role == "pending"))
        .map(|path| path.join("db"))
        .collect();
    found.sort();
    found
}

/// A segment's head the engine has no answer to: intact, and with the highest place in the log
/// there can be. The thread of the engine that reads it panics, and with it ends every database.
const DEADLY: [u8; 20] = [0xAA, 0xB4, 0x44, 0x13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn when_the_engine_dies_the_next_start_delivers() {
    run(async {
        let monitor = monitor(batching()).await;
        let site = Site::new(&monitor);
        site.fill(300);
        let database = databases(&site).pop().unwrap();
        let log = fs::File::options().write(true).open(&database).unwrap();
        log.write_all_at(&DEADLY, 0).unwrap();

        let mut daemon = site.start();
        let status = daemon.ended().await;
        assert_eq!(status.code(), Some(STORAGE), "{status}");

        // As a supervisor does, and the same thing does not happen again.
        let mut daemon = site.start();
        daemon.says("part of the queue is damaged and was set aside").await;
        has_all(&monitor, 300).await;
        let last = daemon.has_appended(301).await;
        has_all(&monitor, last).await;
        assert_eq!(daemon.count("samples are missing from the queue"), 0);
        daemon.stop().await;
        site.books().agree_with(&monitor);
    });
}

#[test]
fn what_is_salvaged_is_said_and_delivered_in_order() {
    run(async {
        let monitor = monitor(batching()).await;
        let site = Site::new(&monitor);
        site.fill(200);
        for database in databases(&site) {
            let log = fs::File::options().write(true).open(&database).unwrap();
            log.write_all_at(&[0xFF; 20], 0).unwrap();
        }
        let mut daemon = site.start();
        let line = daemon.says("samples were salvaged from a damaged part of the queue").await;
        assert_eq!((line.number("from"), line.number("to")), (Some(1), Some(200)));
        has_all(&monitor, 200).await;
        daemon.stop().await;
        assert_eq!(monitor.counts().out_of_order, 0);
        site.books().agree_with(&monitor);
    });
}

#[test]
fn a_damaged_state_file_stops_nothing() {
    run(async {
        let monitor = monitor(real_time()).await;
        let site = Site::real_time(&monitor);
        let mut daemon = site.start();
        daemon.is_confirmed("websocket").await;
        daemon.stop().await;
        let path = site.data_dir().join("state.json");
        let good = fs::read(&path).unwrap();
        let mut delivered = monitor.counts().unique;
        let middle = good.len() / 2;
        let mut flipped = good.clone();
        flipped[middle] ^= 0x81;
        for broken in [flipped, good[..middle].to_vec(), Vec::new()] {
            fs::write(&path, &broken).unwrap();
            // The challenge is used up and the token is gone: heartbeats carry on.
            let mut daemon = site.start();
            let last = daemon.has_appended(delivered + 1).await;
            has_all(&monitor, last).await;
            daemon.stop().await;
            delivered = last;
        }
        site.books().agree_with(&monitor);
    });
}

#[test]
fn an_empty_data_directory_of_a_used_name_is_a_new_queue() {
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        fs::create_dir(site.data_dir()).unwrap();
        fs::create_dir(site.data_dir().join("queue")).unwrap();
        fs::write(site.data_dir().join("queue/LOCK"), b"").unwrap();
        let mut daemon = site.start();
        let last = daemon.has_appended(1).await;
        has_all(&monitor, last).await;
        daemon.stop().await;
        site.books().agree_with(&monitor);
    });
}
