//! Every fault of the Monitor's WebSocket: afterwards the link is back, and every sample was
//! accepted exactly once in effect.

use futures_util::future::join_all;
use futures_util::join;
use harborforge_connector::protocol::MAX_MESSAGE;
use harborforge_monitor::{Fault, Monitor, Options, Route};

use crate::ends_well;
use crate::support::{Site, counted, monitor, real_time, run};

/// Somewhere in the middle of the backlog: the proof and the greeting count as messages.
const MIDDLE: u64 = 12;

/// A link that is cut after its first sample: there is a token to come back with, and the sample
/// is stored without an acknowledgement.
const BEGIN: Fault = Fault::Cut { messages: 3 };

fn say(messages: u64, text: &str) -> Fault {
    Fault::Say { messages, text: text.to_owned() }
}

fn huge(messages: u64, fragments: Option<usize>) -> Fault {
    Fault::HugeMessage { messages, bytes: MAX_MESSAGE + 1, fragments }
}

/// A daemon with a backlog whose first links meet these faults, one each.
async fn survives(options: Options, faults: Vec<Fault>) -> Monitor {
    let told = format!("{faults:?}");
    let monitor = monitor(options).await;
    let number = faults.len() as u64;
    for (link, fault) in (0..).zip(faults) {
        monitor.misbehave(fault.at(Route::WebSocket).times(1).after(link));
    }
    let site = Site::real_time(&monitor);
    site.fill(40);
    let mut daemon = site.start();
    counted(&monitor, &told, number, |counts| counts.faults).await;
    let durable = daemon.appended();
    daemon.has_appended(durable.max(40) + 1).await;
    ends_well(&monitor, &site, daemon).await;
    monitor
}

#[test]
fn links_that_end() {
    let close = |code| Fault::close(MIDDLE, code);
    run(async {
        join_all([
            survives(
                real_time(),
                vec![Fault::Cut { messages: 2 }, Fault::Cut { messages: MIDDLE }],
            ),
            survives(real_time(), vec![close(1000), close(1001), close(1011)]),
            survives(real_time(), vec![close(1012), close(4500)]),
            // Refusals in the middle of things: spaced, and tried again.
            survives(real_time(), vec![close(1008), close(4000)]),
            survives(real_time(), vec![close(4499)]),
            // Before the acceptance, with a token to come back with.
            survives(
                real_time(),
                vec![BEGIN, Fault::Cut { messages: 0 }, Fault::Cut { messages: 1 }],
            ),
            survives(real_time(), vec![BEGIN, Fault::close(0, 1011), Fault::close(1, 1000)]),
            // The acceptance with the next token was lost: the one before it still holds.
            survives(real_time(), vec![BEGIN, Fault::Cut { messages: 2 }]),
        ])
        .await
    });
}

#[test]
fn messages_that_are_no_sense() {
    let ignored = [
        "",
        "{",
        "[]",
        "null",
        "{\"event\":\"ack\"}",
        "{\"event\":\"ack\",\"seq\":-1}",
        "{\"event\":\"ack\",\"seq\":0}",
        "{\"event\":\"ack\",\"seq\":\"7\"}",
        "{\"event\":\"reject\",\"seq\":999999,\"error\":\"?\"}",
        "{\"event\":\"weather\",\"payload\":{\"sun\":true}}",
        "{\"ok\":true}",
    ];
    run(async {
        let harmless = async {
            // All of them on one link, which survives them.
            let monitor = monitor(real_time()).await;
            for text in ignored {
                monitor.misbehave(say(MIDDLE, text).once());
            }
            let deep = "[".repeat(MAX_MESSAGE - 1);
            monitor.misbehave(say(MIDDLE, &deep).once());
            monitor.misbehave(Fault::Binary { messages: MIDDLE, bytes: 5000 }.once());
            monitor.misbehave(Fault::AckTwice.once());
            let site = Site::websocket(&monitor);
            site.fill(40);
            let mut daemon = site.start();
            daemon.has_appended(42).await;
            ends_well(&monitor, &site, daemon).await;
            let counts = monitor.counts();
            assert_eq!((counts.links, counts.heartbeats, counts.duplicates), (1, 0, 0));
        };
        let beyond = say(MIDDLE, "{\"event\":\"ack\",\"seq\":18446744073709551615}");
        join!(
            harmless,
            join_all([
                survives(real_time(), vec![huge(MIDDLE, None), huge(MIDDLE, Some(100_000))]),
                survives(real_time(), vec![beyond, Fault::AckBeyond { by: 1 }]),
                // In place of the acceptance: broken links all of them.
                survives(real_time(), vec![BEGIN, say(1, "welcome"), huge(1, None)]),
                survives(real_time(), vec![BEGIN, say(0, "{\"hello\":1}")]),
                survives(real_time(), vec![BEGIN, Fault::Binary { messages: 1, bytes: 9 }]),
                // A refusal that is none: the token still holds.
                survives(real_time(), vec![BEGIN, say(1, "{\"ok\":false,\"error\":\"no\"}")]),
            ])
        );
    });
}

#[test]
fn answers_that_come_late_twice_or_in_pieces() {
    run(async {
        let unharmed = async |faults: Vec<Fault>| {
            let monitor = monitor(real_time()).await;
            faults.into_iter().for_each(|fault| monitor.misbehave(fault));
            let site = Site::websocket(&monitor);
            site.fill(300);
            let mut daemon = site.start();
            daemon.has_appended(302).await;
            ends_well(&monitor, &site, daemon).await;
            let counts = monitor.counts();
            assert_eq!((counts.links, counts.heartbeats, counts.duplicates), (1, 0, 0));
        };
        join_all([
            unharmed(vec![Fault::AckLate { millis: 1500 }]),
            unharmed(vec![Fault::AckTwice, Fault::NeverPong]),
            unharmed(vec![Fault::Fragments { bytes: 1 }]),
            unharmed(vec![Fault::Fragments { bytes: 7 }, Fault::AckLate { millis: 300 }]),
            unharmed(vec![Fault::ByteByByte]),
        ])
        .await
    });
}

#[test]
fn upgrades_that_are_refused() {
    let answer =
        |status, body: &str| Fault::Status { status, headers: Vec::new(), body: body.to_owned() };
    let elsewhere = Fault::Redirect { location: "https://elsewhere.example/".to_owned() };
    run(async {
        // One refusal of each kind that is repeated at the backoff; two in a row would be the
        // long road.
        let once = async |faults: Vec<Fault>| {
            let monitor = monitor(real_time()).await;
            let number = faults.len() as u64;
            for fault in faults {
                monitor.misbehave(fault.once().at(Route::WebSocket));
            }
            let site = Site::real_time(&monitor);
            site.fill(40);
            let mut daemon = site.start();
            counted(&monitor, "faults", number, |counts| counts.faults).await;
            daemon.has_appended(42).await;
            ends_well(&monitor, &site, daemon).await;
            let counts = monitor.counts();
            assert_eq!((counts.links, counts.upgrades), (1, number + 1), "{counts:?}");
        };
        let retry = Fault::retry_after;
        join_all([
            once(vec![Fault::status(401)]),
            once(vec![Fault::status(403)]),
            once(vec![retry(503, "1"), retry(429, "0"), Fault::status(503), retry(503, "x")]),
            once(vec![Fault::status(500), Fault::status(404), answer(200, "{\"ok\":true}")]),
            once(vec![Fault::Disconnect, Fault::Garbage, Fault::Portal, elsewhere]),
            once(vec![Fault::HugeHead { bytes: 1 << 30 }, Fault::HugeBody { bytes: 1 << 30 }]),
        ])
        .await
    });
}
