//! The daemon is killed, stopped and started again: nothing durable is lost, no number is used
//! twice, a stop is quick whatever hangs, and what is to be remembered is remembered.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use async_std::task::sleep;
use futures_util::join;
use harborforge_connector::collector::baseline::LONGEST;
use harborforge_connector::collector::clock::since_boot;
use harborforge_connector::sender::driver::ConfirmedBy;
use harborforge_monitor::{Fault, Monitor, Route, other_test_key};
use rustix::process::Signal;

use support::{Daemon, PATIENCE, Site, batching, has_all, monitor, plain, run};

/// How often the daemon is killed.
const KILLS: u64 = 15;

#[test]
fn kill_minus_9_at_any_moment_costs_nothing() {
    run(async {
        let monitor = monitor(batching()).await;
        let site = Site::new(&monitor);
        let mut durable = 0;
        for round in 0..KILLS {
            // An outage in the middle, so that kills hit a backlog and its drain as well.
            match round {
                5 => monitor.pause().await,
                10 => monitor.resume().await.unwrap(),
                _ => {}
            }
            let mut daemon = site.start();
            let first = daemon.hears("a first sample", |line| line.appended().is_some()).await;
            let from = first.number("from").unwrap();
            assert!(from > durable, "{from} is given out again, {durable} was durable");
            // Moments of the sample's way to the Monitor: they are what this test is about.
            let moment = u64::from(getrandom::u32().unwrap() % 80);
            sleep(Duration::from_millis(moment)).await;
            durable = daemon.kill().await;
        }
        let mut daemon = site.start();
        let last = daemon.has_appended(durable + 1).await;
        has_all(&monitor, last).await;
        daemon.stop().await;

        let books = site.books();
        books.agree_with(&monitor);
        let epochs: BTreeSet<String> = monitor
            .accepted()
            .iter()
            .map(|accepted| accepted.sample_id.rsplit_once('-').unwrap().0.to_owned())
            .collect();
        assert_eq!(epochs.len() as u64, KILLS + 1, "each start has an epoch of its own");
        assert_eq!(monitor.counts().out_of_order, 0);
    });
}

/// Starts a daemon that has a sample waiting which nobody takes.
async fn in_trouble(monitor: &Monitor, trouble: &str) -> (Site, Daemon) {
    let site = Site::new(monitor);
    let mut daemon = site.start();
    match trouble {
        "" => daemon.has_appended(1).await,
        _ => {
            daemon.complains(&[trouble]).await;
            daemon.has_appended(1).await
        }
    };
    (site, daemon)
}

/// The stop is clean, quick, and leaves what was not delivered in the queue.
async fn stops_well(site: Site, daemon: Daemon, signal: Signal) {
    daemon.stop_by(signal).await;
    let books = site.books();
    assert!(books.pending >= 1, "{books:?}");
    assert_eq!((books.cursor, books.gaps), (0, 0));
}

#[test]
fn a_stop_is_clean_and_quick_whatever_hangs() {
    run(async {
        let away = async {
            let monitor = monitor(plain()).await;
            monitor.pause().await;
            let (site, daemon) = in_trouble(&monitor, "onnect").await;
            stops_well(site, daemon, Signal::TERM).await;
        };
        let hanging = async |fault: Fault, route| {
            let monitor = monitor(plain()).await;
            monitor.misbehave(fault.at(route));
            let (site, daemon) = in_trouble(&monitor, "").await;
            monitor.wait_for(|books| books.counts().faults > 0, PATIENCE).await.unwrap();
            stops_well(site, daemon, Signal::INT).await;
        };
        join!(
            away,
            hanging(Fault::Hang, Route::Heartbeat),
            hanging(Fault::Hang, Route::Key),
            hanging(Fault::IgnoreConnection, Route::Other),
        );
    });
}

/// The first sample is taken at once, so its share of the processors is that since the last stop.
#[test]
fn the_first_sample_speaks_of_the_time_since_the_last_stop() {
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        let kept = site.data_dir().join("cpu.json");
        let share = async |seq| {
            has_all(&monitor, seq).await;
            let accepted = monitor.accepted();
            accepted.iter().find(|one| one.seq == seq).unwrap().telemetry["cpu_pct"].clone()
        };
        let long_after_boot = since_boot() > LONGEST;
        let mut daemon = site.start();
        daemon.has_appended(2).await;
        let (first, second) = (share(1).await, share(2).await);
        if long_after_boot {
            assert!(first.is_null(), "nothing is known that it could speak of: {first}");
        }
        // Where a sandbox does not count, there is never a figure.
        let counts = second.is_number();
        assert!(counts || second.is_null());
        let quiet = |daemon: &mut Daemon| {
            let said = daemon.for_people();
            assert!(!said.iter().any(|line| line.names(&["cpu.json"])), "{said:?}");
            assert_eq!(said.iter().any(|line| line.names(&["cpu_pct"])), !counts, "{said:?}");
        };
        quiet(&mut daemon);
        daemon.kill().await;
        assert!(!kept.exists(), "no sample writes it");

        // Two samples at least, so that the second has told whether it can be read.
        let two = async |daemon: &mut Daemon| {
            let first = daemon.hears("a first sample", |line| line.appended().is_some()).await;
            let from = first.number("from").unwrap();
            daemon.has_appended(from + 1).await;
            from
        };
        let mut daemon = site.start();
        two(&mut daemon).await;
        daemon.stop().await;
        assert_eq!(kept.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        // A shorter interval would be none.
        sleep(Duration::from_millis(200)).await;
        let mut daemon = site.start();
        let after_the_stop = two(&mut daemon).await;
        assert_eq!(share(after_the_stop).await.is_number(), counts);
        quiet(&mut daemon);
        daemon.stop().await;

        for damaged in [&b""[..], b"\0\0\0", b"{\"boot_id\":7}", b"[[[["] {
            std::fs::write(&kept, damaged).unwrap();
            let mut daemon = site.start();
            let after_the_damage = two(&mut daemon).await;
            if long_after_boot {
                assert!(share(after_the_damage).await.is_null());
            }
            quiet(&mut daemon);
            daemon.stop().await;
            assert_ne!(std::fs::read(&kept).unwrap(), damaged, "it is written anew");
        }
        site.books().agree_with(&monitor);
    });
}

#[test]
fn the_last_success_survives() {
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        let mut daemon = site.start();
        daemon.hears("a second delivery", |line| line.number("up_to") == Some(2)).await;
        // From here on nothing gets through.
        monitor.pause().await;
        daemon.stop().await;
        let before = site.books().last_success.unwrap();
        assert!(before.record.seq >= 2);
        assert_eq!(before.at.tag, ConfirmedBy::Http as u8);
        let accepted = monitor.accepted();
        let sent = accepted.iter().find(|one| one.seq == before.record.seq).unwrap();
        let kept: serde_json::Value = serde_json::from_slice(&before.record.payload).unwrap();
        assert_eq!(kept["last_seen_at"], sent.telemetry["last_seen_at"]);
        assert_eq!(kept["cpu_pct"], sent.telemetry["cpu_pct"]);
        let received = sent.received_at.duration_since(std::time::UNIX_EPOCH).unwrap();
        assert!(Duration::from_millis(before.at.wall_ms + 1) >= received);

        // A start that delivers nothing, and ends the hard way, changes nothing about it.
        let mut daemon = site.start();
        let durable = daemon.has_appended(before.record.seq + 1).await;
        assert!(durable > before.record.seq);
        daemon.kill().await;
        assert_eq!(site.books().last_success.unwrap(), before);
    });
}

#[test]
fn the_key_is_remembered_its_change_is_told_and_a_pin_is_kept() {
    run(async {
        let monitor = monitor(plain()).await;
        let first = monitor.fingerprint();
        let mut site = Site::new(&monitor);
        let mut daemon = site.start();
        daemon.says("acknowledged").await;
        daemon.stop().await;
        assert_eq!(site.state()["key_fingerprint"], first);
        let mode = site.data_dir().join("state.json").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        // Another key without a pin: used, and said with both fingerprints.
        monitor.set_key(other_test_key()).unwrap();
        let second = monitor.fingerprint();
        assert_ne!(first, second);
        let mut daemon = site.start();
        let warning = daemon.hears("the key's change", |line| line.names(&[&first, &second])).await;
        assert_eq!(warning.json["level"], "WARN");
        daemon.says("acknowledged").await;
        daemon.stop().await;
        assert_eq!(site.state()["key_fingerprint"], second);

        // A pin of the first key: nothing is sent to the holder of the second.
        let (heartbeats, delivered) = (monitor.counts().heartbeats, monitor.counts().unique);
        site.set("public_key_sha256", &first);
        let mut daemon = site.start();
        daemon.complains(&["public_key_sha256", &first, &second]).await;
        let begun = daemon.appended();
        daemon.has_appended(begun.max(delivered) + 2).await;
        assert_eq!(monitor.counts().heartbeats, heartbeats);

        // The right pin, by a reload: everything that waited arrives.
        site.set("public_key_sha256", &second);
        daemon.reload(&site);
        let last = daemon.appended();
        has_all(&monitor, last).await;
        daemon.stop().await;
        site.books().agree_with(&monitor);
    });
}
