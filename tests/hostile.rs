//! Every way a Monitor can misbehave, on every route the daemon uses, with a healed end: all
//! samples arrive, memory stays bounded, and no answer makes a busy loop.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::join;
use harborforge_connector::protocol::MAX_ANSWER;
use harborforge_monitor::{Fault, KeyShape, Monitor, Options, Plan, Route, Tls};

use support::{Daemon, PATIENCE, Site, batching, has_all, monitor, plain, run};

/// Memory no misbehaviour may drive the daemon beyond, in KiB. A development build at rest takes
/// about a third; an answer taken whole would go far beyond.
const MEMORY: u64 = 40 * 1024;

/// More than any answer may have.
const GIB: u64 = 1024 * 1024 * 1024;

/// Faults after which the same request has to be made again, quickly told.
fn quick() -> Vec<Fault> {
    let mut faults = vec![
        Fault::Disconnect,
        Fault::ResetConnection,
        Fault::CloseConnection,
        Fault::Redirect { location: "https://elsewhere.example/\u{1b}[2J".to_owned() },
        Fault::Redirect { location: String::new() },
        Fault::Portal,
        Fault::OkFalse,
        Fault::Garbage,
        Fault::HugeBody { bytes: GIB },
        Fault::HugeBody { bytes: u64::try_from(MAX_ANSWER).unwrap() + 1 },
        Fault::HugeHead { bytes: GIB },
        Fault::LoseAnswer,
        Fault::CutAnswer { after: 1 },
        Fault::CutAnswer { after: 60 },
        Fault::retry_after(503, "0"),
        Fault::retry_after(429, "18446744073709551616"),
        Fault::retry_after(503, "\u{7f}soon"),
        Fault::Status {
            status: 500,
            headers: vec![("X-Long".to_owned(), "y".repeat(4096))],
            body: "\u{1b}]0;title\u{7}\0\r\n{".repeat(1000),
        },
        Fault::Status {
            status: 502,
            headers: Vec::new(),
            body: format!("{{\"detail\":{}", "[".repeat(50_000)),
        },
    ];
    faults.extend([300, 304, 402, 405, 407, 418, 451, 500, 501, 504, 599].map(Fault::status));
    faults
}

/// A fault that is an answer of these words.
fn answer(status: u16, body: &str) -> Fault {
    Fault::Status { status, headers: Vec::new(), body: body.to_owned() }
}

/// Faults of a heartbeat alone: refusals of the server, and 2xx that confirm nothing. Beside them
/// two refusals of the sample: a third would set it aside.
fn of_a_heartbeat(of_the_sample: [Fault; 2]) -> Vec<Fault> {
    let mut faults: Vec<Fault> = [401, 403, 404].map(Fault::status).into();
    faults.push(answer(200, "[]"));
    faults.push(answer(200, "{\"ok\":true,\"error\":\"no\"}"));
    faults.extend(of_the_sample);
    faults
}

/// Plays the faults one after another, each met once.
fn play(monitor: &Monitor, faults: Vec<Fault>, route: Route) -> u64 {
    let number = faults.len() as u64;
    for fault in faults {
        monitor.misbehave(fault.once().at(route));
    }
    number
}

/// The daemon lives, has stayed small, and has delivered all it had; its books agree.
async fn survives(monitor: &Monitor, site: &Site, mut daemon: Daemon) {
    let last = daemon.appended();
    has_all(monitor, last).await;
    let peak = daemon.peak_memory();
    assert!(peak < MEMORY, "{peak} KiB at the peak");
    let control = |line: &support::Line| line.text.chars().any(char::is_control);
    assert!(!daemon.heard().iter().any(control), "a stranger's control characters in the log");
    daemon.stop().await;
    let books = site.books();
    books.agree_with(monitor);
    assert_eq!(books.rejected(), Vec::<u64>::new());
    assert_eq!(monitor.counts().out_of_order, 0);
}

async fn every_fault(options: Options, faults: Vec<Fault>, route: Route) {
    let monitor = monitor(options).await;
    let mut site = Site::new(&monitor);
    site.fill(3);
    // Short waits, since there are many of them.
    site.set("report_interval", "1h");
    let number = play(&monitor, faults, route);
    let mut daemon = site.start();
    let met = monitor.wait_for(|books| books.counts().faults >= number, PATIENCE).await;
    met.unwrap_or_else(|error| panic!("{route:?}: {error}\n{:#?}", daemon.heard().last()));
    daemon.has_appended(4).await;
    survives(&monitor, &site, daemon).await;
}

#[test]
fn every_fault_of_an_answer_is_survived() {
    let status = Fault::status;
    let conflict = || answer(409, "{\"duplicate\":false}");
    let (front, back) = (quick()[..15].to_vec(), quick()[15..].to_vec());
    let with = |faults: &[Fault], more: Vec<Fault>| [faults, &more].concat();
    let of_a_key = [400, 401, 403, 404, 409, 413, 422, 429, 503].map(status).to_vec();
    run(async {
        let heartbeat = Route::Heartbeat;
        join_all([
            every_fault(
                plain(),
                with(&front, of_a_heartbeat([status(400), conflict()])),
                heartbeat,
            ),
            every_fault(
                plain(),
                with(&back, of_a_heartbeat([status(413), status(422)])),
                heartbeat,
            ),
            every_fault(
                batching(),
                with(&front, of_a_heartbeat([status(409), status(413)])),
                heartbeat,
            ),
            every_fault(
                batching(),
                with(&back, of_a_heartbeat([status(422), conflict()])),
                heartbeat,
            ),
            every_fault(plain(), front.clone(), Route::Key),
            every_fault(plain(), with(&back, of_a_key), Route::Key),
        ])
        .await
    });
}

/// Nothing but time ends these; each costs the daemon one of its limits, once.
async fn times_out(fault: Fault, route: Route, limit: &str) {
    let monitor = monitor(plain()).await;
    let mut site = Site::new(&monitor);
    site.fill(2);
    monitor.misbehave(fault.once().at(route));
    // One of the samples that come meanwhile, and not all of them, would be waited for.
    site.set("report_interval", "2s");
    let mut daemon = site.start();
    daemon.complains(&[limit]).await;
    survives(&monitor, &site, daemon).await;
}

#[test]
fn what_never_ends_is_ended() {
    let forever = || Fault::SlowAnswer { pause_ms: 1000 };
    run(async {
        join_all([
            times_out(Fault::Hang, Route::Heartbeat, "15 s"),
            times_out(Fault::Hang, Route::Key, "s while"),
            times_out(Fault::HoldAnswer, Route::Heartbeat, "15 s"),
            times_out(Fault::IgnoreConnection, Route::Other, "s while"),
            times_out(forever(), Route::Heartbeat, "15 s"),
            times_out(forever(), Route::Key, "s while"),
        ])
        .await
    });
}

/// The same answer for ever: the daemon tries at its backoff and no more, and recovers at once
/// when it ends.
async fn no_busy_loop(options: Options, plan: Plan) {
    const TRIES: u64 = 8;
    let told = format!("{plan:?}");
    let monitor = monitor(options).await;
    let site = Site::new(&monitor);
    site.fill(3);
    monitor.misbehave(plan);
    let begun = Instant::now();
    let mut daemon = site.start();
    let tries = |books: &harborforge_monitor::Journal| {
        books.counts().requests.max(books.counts().connections)
    };
    monitor.wait_for(|books| tries(books) >= TRIES, PATIENCE).await.unwrap();
    while begun.elapsed() < Duration::from_secs(4) {
        let durable = daemon.appended();
        daemon.has_appended(durable + 1).await;
    }
    let (seconds, tries) = (begun.elapsed().as_secs_f64(), monitor.journal(tries));
    // Waits are uniform in 0 to 1 second, so about two tries a second are due, or four where a
    // kept connection makes it two requests a try; a batch is halved nine times at once. A busy
    // loop would make hundreds a second.
    let most = 20.0 + 8.0 * seconds;
    let few = (tries as f64) < most;
    assert!(few, "{tries} tries in {seconds} s: {told}");
    monitor.heal();
    let last = daemon.appended();
    monitor
        .wait_for(|books| books.has_seq(last), PATIENCE)
        .await
        .unwrap_or_else(|error| panic!("{told}: {error}"));
    daemon.stop().await;
    site.books().agree_with(&monitor);
}

#[test]
fn no_answer_makes_a_busy_loop() {
    let heartbeat = |fault: Fault| fault.at(Route::Heartbeat);
    run(async {
        join_all([
            no_busy_loop(plain(), heartbeat(Fault::Portal)),
            no_busy_loop(plain(), heartbeat(Fault::Disconnect)),
            no_busy_loop(plain(), heartbeat(Fault::status(422))),
            no_busy_loop(plain(), heartbeat(Fault::retry_after(503, "0"))),
            no_busy_loop(plain(), heartbeat(Fault::LoseAnswer)),
            no_busy_loop(plain(), Fault::ResetConnection.always()),
            no_busy_loop(plain(), Fault::status(500).at(Route::Key)),
            no_busy_loop(plain(), Fault::Portal.at(Route::Key)),
            no_busy_loop(batching(), heartbeat(Fault::status(413))),
            no_busy_loop(batching(), heartbeat(Fault::WrongAckedSeq { seq: 0 })),
            no_busy_loop(batching(), heartbeat(Fault::WrongAckedSeq { seq: u64::MAX })),
            no_busy_loop(batching(), heartbeat(Fault::PartOfBatch { samples: 0 })),
        ])
        .await
    });
}

#[test]
fn a_monitor_that_takes_little_of_a_batch_gets_the_rest_again() {
    run(async {
        let monitor = monitor(batching()).await;
        monitor.misbehave(Fault::PartOfBatch { samples: 3 }.at(Route::Heartbeat).times(4));
        let mut site = Site::new(&monitor);
        site.set("report_interval", "1h").fill(40);
        let mut daemon = site.start();
        daemon.hears("the end", |line| line.number("up_to") == Some(41)).await;
        assert_eq!(monitor.counts().duplicates, 0);
        survives(&monitor, &site, daemon).await;
    });
}

#[test]
fn answers_with_strange_dates_are_no_hindrance() {
    run(async {
        let told = async |faults: Vec<Plan>| {
            let monitor = monitor(plain()).await;
            faults.into_iter().for_each(|plan| monitor.misbehave(plan));
            let site = Site::new(&monitor);
            let mut daemon = site.start();
            daemon.has_appended(2).await;
            survives(&monitor, &site, daemon).await;
        };
        join!(
            told(vec![Fault::NoDate.always()]),
            // A cache's date is old: it says nothing about the Monitor's clock.
            told(vec![
                Fault::Age { seconds: 3600 }.always(),
                Fault::DateSkew { seconds: -3600 }.always(),
            ]),
            // A lie costs a refused proof each time, until the truth is told.
            told(vec![Fault::DateSkew { seconds: 7200 }.always().times(3)]),
        );
    });
}

#[test]
fn a_key_document_that_is_none_is_named() {
    run(async {
        let shown = async |body: String, parts: &[&str]| {
            let monitor = monitor(plain()).await;
            let content_type = "application/json".to_owned();
            monitor.configure(|settings| settings.key_shape = KeyShape::Raw { content_type, body });
            let site = Site::new(&monitor);
            let mut daemon = site.start();
            daemon.complains(&[&["key document"], parts].concat()).await;
            daemon.has_appended(2).await;
            assert_eq!(monitor.counts().heartbeats, 0, "nothing is sent without a key");
            monitor.configure(|settings| settings.key_shape = KeyShape::default());
            survives(&monitor, &site, daemon).await;
        };
        join!(
            shown(String::new(), &[]),
            shown("{}".to_owned(), &["public_key"]),
            shown("[".repeat(60_000), &[]),
            shown("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".to_owned(), &[]),
        );
    });
}

#[test]
fn a_good_certificate_is_trusted_and_a_bad_one_named() {
    run(async {
        let good = async {
            let monitor = monitor(Options { tls: Tls::Good, ..batching() }).await;
            let site = Site::new(&monitor);
            site.fill(100);
            let mut daemon = site.start();
            daemon.has_appended(102).await;
            survives(&monitor, &site, daemon).await;
        };
        let bad = async |tls: Tls, trusted: bool, parts: &[&str]| {
            let monitor = monitor(Options { tls, ..plain() }).await;
            let mut site = Site::new(&monitor);
            if !trusted {
                site.unset("ca_file");
            }
            let mut daemon = site.start();
            daemon.complains(&[&["TLS with 127.0.0.1"], parts].concat()).await;
            daemon.has_appended(2).await;
            assert_eq!(monitor.counts().requests, 0, "nothing is sent to {tls:?}");
            daemon.stop().await;
            assert_eq!(site.books().cursor, 0);
        };
        join!(
            good,
            bad(Tls::Expired, true, &["expired"]),
            bad(Tls::NotYetValid, true, &["not valid yet"]),
            bad(Tls::WrongHost, true, &["elsewhere.example"]),
            bad(Tls::UnknownCa, true, &["ca_file"]),
            bad(Tls::SelfSigned, true, &["ca_file"]),
            bad(Tls::Good, false, &["ca_file"]),
        );
    });
}
