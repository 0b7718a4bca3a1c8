//! The Monitor refuses: the server, its proofs, its samples, or one of them. Nothing is dropped
//! that need not be, the log says what to do, and the mend works without a restart.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use futures_util::{future::join_all, join};
use harborforge_monitor::{Fault, Mode, Monitor, Options, Reason, Route, other_test_key};

use support::{Daemon, PATIENCE, Site, batching, has_all, monitor, plain, run, seqs};

/// No key's fingerprint.
const PIN: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The message of a failure worth telling.
const COMPLAINT: &str = "not delivered, samples are kept";

/// Everything that is durable by now arrives; the daemon stops and the books agree.
async fn recovers(monitor: &Monitor, site: &Site, mut daemon: Daemon) {
    let last = daemon.appended();
    has_all(monitor, last).await;
    daemon.stop().await;
    let books = site.books();
    books.agree_with(monitor);
    assert_eq!(books.rejected(), Vec::<u64>::new());
    assert_eq!(monitor.counts().out_of_order, 0);
}

/// The long one of this file: a refused proof makes the daemon look for another key once a minute
/// at most.
#[test]
fn a_wrong_key_is_looked_up_again_without_help() {
    run(async {
        let shown_by_mistake = async {
            let monitor = monitor(plain()).await;
            monitor.misbehave(Fault::WrongKey.once().at(Route::Key));
            let site = Site::new(&monitor);
            let mut daemon = site.start();
            daemon.complains(&["401", "advice"]).await;
            daemon.hears("the right key", |line| line.names(&[&monitor.fingerprint()])).await;
            recovers(&monitor, &site, daemon).await;
            assert_eq!(monitor.counts().key_fetches, 2);
        };
        let replaced = async {
            let monitor = monitor(batching()).await;
            let site = Site::new(&monitor);
            let mut daemon = site.start();
            daemon.says("acknowledged").await;
            let old = monitor.fingerprint();
            monitor.set_key(other_test_key()).unwrap();
            daemon.complains(&["401", "another key"]).await;
            let new = monitor.fingerprint();
            daemon.hears("the change", |line| line.names(&["WARN", &old, &new])).await;
            recovers(&monitor, &site, daemon).await;
            assert_eq!(monitor.counts().key_fetches, 2);
        };
        join!(shown_by_mistake, replaced);
    });
}

/// A challenge that was not used in time: everything waits, the log says once what to do, and
/// the new challenge is used without a restart.
async fn expired(in_a_file: bool) {
    let monitor = monitor(plain()).await;
    let mut site = Site::without_credential(&monitor);
    let give = |site: &mut Site, challenge: &str| {
        site.hide(challenge);
        if in_a_file {
            let file = site.write("challenge", challenge);
            site.set("challenge_uuid_file", file.to_str().unwrap());
        } else {
            site.set("challenge_uuid", challenge);
        }
    };
    give(&mut site, &monitor.issue_challenge());
    monitor.set_clock_offset(700);
    let mut daemon = site.start();
    daemon.complains(&["403", "was not used within 600 s", "new challenge", "SIGHUP"]).await;
    let refused = |times| {
        let enough = move |books: &harborforge_monitor::Journal| {
            books.counts().refused(Reason::ExpiredChallenge) >= times
        };
        monitor.wait_for(enough, PATIENCE)
    };
    refused(5).await.unwrap();
    let durable = daemon.appended();
    daemon.has_appended(durable + 1).await;
    // The tenth in a row is told again.
    let complaints = daemon.count(COMPLAINT);
    assert!(complaints <= 2, "{:#?}", daemon.for_people());
    assert_eq!((monitor.counts().unique, daemon.count("acknowledged")), (0, 0));

    give(&mut site, &monitor.issue_challenge());
    daemon.reload(&site);
    daemon.says("delivering again").await;
    recovers(&monitor, &site, daemon).await;
}

#[test]
fn an_expired_challenge_waits_for_a_new_one() {
    run(async { join!(expired(false), expired(true)) });
}

/// One sample is refused for good: it alone is set aside, after three tries, and kept.
async fn one_refused(options: Options, fault: Fault, tries: u64) {
    let monitor = monitor(options).await;
    monitor.misbehave(fault.at(Route::Heartbeat));
    let mut site = Site::new(&monitor);
    site.set("report_interval", "1h").fill(6);
    let mut daemon = site.start();
    let line = daemon
        .hears("that one is refused for good", |line| line.message().contains("for good"))
        .await;
    assert_eq!(line.number("seq"), Some(3));
    daemon.hears("the last delivery", |line| line.number("up_to") == Some(7)).await;
    daemon.stop().await;
    assert_eq!(seqs(&monitor), [1, 2, 4, 5, 6, 7]);
    assert_eq!(monitor.counts().refused(Reason::OnRequest), tries);
    let books = site.books();
    books.agree_with(&monitor);
    assert_eq!((books.rejected(), books.pending), (vec![3], 0));
    assert!(books.rejected[0].reason.contains("refused on request"), "{books:?}");
}

#[test]
fn one_refused_sample_is_set_aside_and_kept() {
    let whole = Fault::Reject { seqs: [3].into(), status: 422, whole_batch: true };
    run(async {
        join!(
            one_refused(plain(), Fault::reject([3]), 3),
            // Named by the Monitor, it needs no second try.
            one_refused(batching(), Fault::reject([3]), 1),
            one_refused_with_its_batch(whole),
        );
    });
}

/// The same when the Monitor refuses the batch and does not say for which sample's sake: the batch
/// is halved until the culprit is alone, and grows again.
async fn one_refused_with_its_batch(fault: Fault) {
    let monitor = monitor(batching()).await;
    monitor.misbehave(fault.at(Route::Heartbeat));
    let mut site = Site::new(&monitor);
    site.set("report_interval", "1h").fill(40);
    let mut daemon = site.start();
    daemon.hears("the last delivery", |line| line.number("up_to") == Some(41)).await;
    daemon.stop().await;
    assert_eq!(seqs(&monitor), [1, 2].into_iter().chain(4..=41).collect::<Vec<_>>());
    let books = site.books();
    books.agree_with(&monitor);
    assert_eq!((books.rejected(), books.pending), (vec![3], 0));
    assert!(monitor.counts().heartbeats < 30, "{:?}", monitor.counts());
}

/// Every sample is refused: that is not the samples' fault, so at most two are set aside.
async fn all_refused(options: Options, status: u16) {
    let monitor = monitor(options).await;
    monitor.misbehave(Fault::status(status).at(Route::Heartbeat));
    let site = Site::new(&monitor);
    site.fill(10);
    let mut daemon = site.start();
    let line = daemon
        .hears("that it is not the samples' fault", |line| line.message().contains("not theirs"))
        .await;
    assert_eq!(line.json["level"], "ERROR");
    let before = monitor.counts().heartbeats;
    monitor.wait_for(|books| books.counts().heartbeats >= before + 4, PATIENCE).await.unwrap();
    let set_aside = daemon
        .heard()
        .iter()
        .filter(|line| line.message().contains("for good"))
        .map(|line| line.number("seq").unwrap())
        .collect::<Vec<_>>();
    assert!(set_aside.len() <= 2, "{set_aside:?}");

    monitor.heal();
    daemon.says("the Monitor takes samples again").await;
    let last = daemon.appended();
    let wanted = |books: &harborforge_monitor::Journal| {
        (1..=last).all(|seq| set_aside.contains(&seq) || books.has_seq(seq))
    };
    monitor.wait_for(wanted, PATIENCE).await.unwrap();
    daemon.stop().await;
    let books = site.books();
    books.agree_with(&monitor);
    assert_eq!(books.rejected(), set_aside);
}

#[test]
fn when_all_are_refused_at_most_two_are_set_aside() {
    run(async {
        join!(all_refused(plain(), 422), all_refused(batching(), 400), all_refused(plain(), 413));
    });
}

#[test]
fn a_clock_that_is_hours_off_is_no_hindrance() {
    run(async {
        let from_the_start = async |offset: i64| {
            let monitor = monitor(Options { clock_offset: offset, ..plain() }).await;
            let site = Site::new(&monitor);
            let mut daemon = site.start();
            let line = daemon.hears("the skew", |line| line.message().contains("clock")).await;
            let skew = line.json["skew_ms"].as_i64().unwrap();
            assert!((skew - offset * 1000).abs() < 60_000, "{skew} for {offset}");
            daemon.says("acknowledged").await;
            recovers(&monitor, &site, daemon).await;
            assert_eq!(monitor.counts().refused(Reason::Clock), 0);
        };
        let later = async {
            let monitor = monitor(plain()).await;
            let site = Site::new(&monitor);
            let mut daemon = site.start();
            daemon.says("acknowledged").await;
            monitor.set_clock_offset(3 * 3600);
            daemon.hears("the skew", |line| line.message().contains("set up NTP")).await;
            daemon.says("acknowledged").await;
            // And back, as when the Monitor's own clock is mended.
            monitor.set_clock_offset(0);
            daemon.hears("its end", |line| line.message().contains("agrees")).await;
            daemon.says("acknowledged").await;
            recovers(&monitor, &site, daemon).await;
            assert!(monitor.counts().refused(Reason::Clock) <= 2, "{:?}", monitor.counts());
        };
        join!(from_the_start(5 * 3600), from_the_start(-5 * 3600), later);
    });
}

#[test]
fn an_api_key_is_all_it_takes_and_a_wrong_one_waits() {
    const RIGHT: &str = "hf-right-0123456789";
    const WRONG: &str = "hf-wrong-0123456789";
    run(async {
        let options = Options { mode: Mode::ApiKey(RIGHT.to_owned()), ..plain() };
        let right = async {
            let monitor = monitor(options.clone()).await;
            let mut site = Site::without_credential(&monitor);
            site.set_secret("api_key", RIGHT).fill(3);
            let mut daemon = site.start();
            daemon.has_appended(5).await;
            recovers(&monitor, &site, daemon).await;
            assert_eq!(monitor.counts().key_fetches, 0);
            assert!(monitor.accepted().iter().all(|one| one.telemetry["sample_id"].is_string()));
        };
        let wrong = async {
            let monitor = monitor(options.clone()).await;
            let mut site = Site::without_credential(&monitor);
            site.set_secret("api_key", WRONG);
            let mut daemon = site.start();
            daemon.complains(&["401", "advice", "API key"]).await;
            daemon.has_appended(3).await;
            assert_eq!(monitor.counts().unique, 0);
            site.set_secret("api_key", RIGHT);
            daemon.reload(&site);
            daemon.says("delivering again").await;
            recovers(&monitor, &site, daemon).await;
        };
        join!(right, wrong);
    });
}

#[test]
fn an_identifier_that_leaves_no_room_for_the_proof_is_named_and_nothing_is_sent() {
    run(async {
        let monitor = monitor(plain()).await;
        let mut site = Site::new(&monitor);
        site.set("identifier", &"x".repeat(100));
        let mut daemon = site.start();
        let line = daemon.complains(&["identifier takes 100 bytes", "room for 56"]).await;
        assert_eq!(line.json["level"], "WARN");
        daemon.has_appended(3).await;
        assert_eq!(monitor.counts().heartbeats, 0);
        assert!(daemon.count(COMPLAINT) <= 2, "{:#?}", daemon.for_people());

        site.set("identifier", "vps.t1");
        daemon.reload(&site);
        daemon.says("delivering again").await;
        recovers(&monitor, &site, daemon).await;
        assert!(monitor.accepted().iter().all(|one| one.identifier == "vps.t1"));
    });
}

#[test]
fn a_monitor_that_forgot_everybody_is_waited_for() {
    run(async {
        let waits = async |options: Options| {
            let monitor = monitor(options).await;
            let mut site = Site::new(&monitor);
            let mut daemon = site.start();
            daemon.says("acknowledged").await;
            monitor.forget_credentials();
            daemon.complains(&["403", "no such challenge"]).await;
            daemon.has_appended(3).await;
            site.set_secret("challenge_uuid", &monitor.issue_challenge());
            daemon.reload(&site);
            daemon.says("delivering again").await;
            recovers(&monitor, &site, daemon).await;
        };
        join_all([waits(plain()), waits(batching())]).await;
    });
}

/// What comes in the key's place is no key to compare with the pinned one.
#[test]
fn advice_about_the_key_is_given_where_there_is_one() {
    run(async {
        let complaint = async |fault: Fault, pin: Option<&str>| {
            let monitor = monitor(plain()).await;
            monitor.misbehave(fault.at(Route::Key));
            let mut site = Site::new(&monitor);
            if let Some(pin) = pin {
                site.set("public_key_sha256", pin);
            }
            let mut daemon = site.start();
            let line = daemon.complains(&["ey", "advice"]).await;
            daemon.stop().await;
            line.json["advice"].as_str().unwrap().to_owned()
        };
        let redirect = Fault::Status {
            status: 302,
            headers: vec![("location".into(), "https://login.example/".into())],
            body: String::new(),
        };
        let (portal, redirect, away, pinned) = join!(
            complaint(Fault::Portal, None),
            complaint(redirect, None),
            complaint(Fault::status(404), None),
            complaint(Fault::WrongKey, Some(PIN)),
        );
        for advice in [portal, redirect, away] {
            assert!(advice.contains("what stands between here and the Monitor"), "{advice}");
            assert!(!advice.contains("public_key_sha256"), "{advice}");
        }
        assert!(pinned.contains("public_key_sha256"), "{pinned}");
    });
}
