//! Resume tokens: proved with, rotated, durable before they are used, and what happens when one
//! is refused.

use std::fs;

use harborforge_monitor::{Reason, Transport};

use crate::support::{Site, counted, has_all, monitor, real_time, run};
use crate::{all_by_websocket, ends_well};

fn token(site: &Site) -> String {
    site.state()["resume"]["token"].as_str().unwrap().to_owned()
}

#[test]
fn restarts_prove_with_the_token_and_use_the_challenge_once() {
    run(async {
        let monitor = monitor(real_time()).await;
        let mut site = Site::websocket(&monitor);
        let mut tokens = Vec::new();
        for start in 1..=4 {
            let mut daemon = site.start();
            daemon.hears("a sample", |line| line.appended().is_some()).await;
            if start == 3 {
                // The hard way: what was made durable is there all the same.
                daemon.is_confirmed("websocket").await;
                daemon.kill().await;
            } else {
                ends_well(&monitor, &site, daemon).await;
            }
            tokens.push(token(&site));
            site.hide(tokens.last().unwrap());
        }
        tokens.dedup();
        assert_eq!(tokens.len(), 4, "each acceptance hands out the next one");
        let counts = monitor.counts();
        assert_eq!((counts.links, counts.hellos, counts.heartbeats), (4, 4, 0), "{counts:?}");
        assert_eq!(counts.refused.len(), 0, "{counts:?}");
        assert!(all_by_websocket(&monitor));
    });
}

#[test]
fn nothing_is_sent_before_the_token_is_durable() {
    run(async {
        let monitor = monitor(real_time()).await;
        let site = Site::real_time(&monitor);
        site.fill(3);
        // In the place of a directory no file can be put, not even by root.
        let state = site.data_dir().join("state.json");
        fs::create_dir(&state).unwrap();
        let mut daemon = site.start();
        daemon.complains(&["resume token"]).await;
        counted(&monitor, "heartbeats", 5, |counts| counts.heartbeats).await;
        let counts = monitor.counts();
        assert_eq!((counts.links, counts.hellos), (1, 0), "{counts:?}");
        assert!(monitor.accepted().iter().all(|one| one.transport == Transport::Heartbeat));
        assert!(counts.refused(Reason::UsedChallenge) >= 1, "the challenge is used up");

        // The disk is well again, and the Monitor issues another challenge.
        fs::remove_dir(&state).unwrap();
        let mut site = site;
        let fresh = monitor.issue_challenge();
        site.set_secret("challenge_uuid", &fresh);
        daemon.reload(&site);
        daemon.says("the WebSocket confirms again, heartbeats end").await;
        let last = ends_well(&monitor, &site, daemon).await;
        assert!(last >= 3);
        assert_eq!((monitor.counts().links, monitor.counts().hellos), (2, 1));
        assert!(!token(&site).is_empty());
    });
}

#[test]
fn a_refused_token_falls_back_to_the_challenge_once() {
    run(async {
        let monitor = monitor(real_time()).await;
        let mut site = Site::websocket(&monitor);
        let mut daemon = site.start();
        daemon.has_appended(1).await;
        let last = ends_well(&monitor, &site, daemon).await;
        let old = token(&site);

        // The Monitor was set up again: it knows neither token nor challenge. The new challenge is
        // there at the start, but the token is tried first.
        monitor.forget_credentials();
        let fresh = monitor.issue_challenge();
        site.set_secret("challenge_uuid", &fresh);
        let mut daemon = site.start();
        daemon.has_appended(last + 1).await;
        ends_well(&monitor, &site, daemon).await;
        let counts = monitor.counts();
        assert_eq!(counts.refused(Reason::UnknownToken), 1, "{counts:?}");
        assert_eq!(counts.refused(Reason::UnknownChallenge), 0, "{counts:?}");
        assert_eq!(counts.links, 2);
        assert_ne!(token(&site), old);
    });
}

#[test]
fn a_daemon_nobody_knows_waits_for_new_credentials_and_loses_nothing() {
    run(async {
        let monitor = monitor(real_time()).await;
        let mut site = Site::real_time(&monitor);
        let mut daemon = site.start();
        daemon.has_appended(1).await;
        ends_well(&monitor, &site, daemon).await;

        monitor.forget_credentials();
        let mut daemon = site.start();
        // Token, challenge, both once more, and then an hour of rest: told by what comes after.
        let refused =
            |counts: &harborforge_monitor::Counts| counts.refused(Reason::UnknownChallenge);
        counted(&monitor, "refusals", 6, refused).await;
        let upgrades = monitor.counts().upgrades;
        assert!(upgrades <= 1 + 4, "{upgrades} upgrades: a refused challenge is not hammered");
        let durable = daemon.appended();
        daemon.has_appended(durable + 2).await;
        let counts = monitor.counts();
        assert!(counts.upgrades <= 1 + 4, "{counts:?}");
        assert_eq!(counts.links, 1);
        // One line a transport, and one when it is the tenth time.
        let lines = daemon.count("not delivered, samples are kept");
        assert!((2..=4).contains(&lines), "{lines} lines");

        let fresh = monitor.issue_challenge();
        site.set_secret("challenge_uuid", &fresh);
        daemon.reload(&site);
        daemon.says("the WebSocket confirms again, heartbeats end").await;
        let last = ends_well(&monitor, &site, daemon).await;
        has_all(&monitor, last).await;
    });
}
