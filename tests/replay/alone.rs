//! Without a daemon: the command is the sender.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use harborforge_connector::config::{Credential, Flags, Need, Sources, load};
use harborforge_connector::control::client::Client;
use harborforge_connector::enrolled::Enrolled;
use harborforge_monitor::{DuplicateAnswer, Fault, Options, Reason, Route};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{PATIENCE, Site, batching, monitor, plain, real_time, run, seqs, spawn};
use crate::{done, replay, replayed};

#[test]
fn three_thousand_go_oldest_first_and_no_challenge_is_used_up() {
    run(async {
        let monitor = monitor(batching()).await;
        let site = Site::websocket(&monitor);
        site.fill(3000);
        let summary = done(&site, &[]);
        assert_eq!(summary["samples"], 3000);
        assert_eq!(summary["delivered"], 3000);
        assert_eq!(seqs(&monitor), (1..=3000).collect::<Vec<_>>());
        let counts = monitor.counts();
        assert_eq!((counts.upgrades, counts.duplicates, counts.out_of_order), (0, 0, 0));
        let books = site.books();
        books.agree_with(&monitor);
        assert_eq!((books.pending, books.cursor), (0, 3000));
        // Nothing waits: it says so and does not even knock.
        let before = monitor.counts().requests;
        assert_eq!(done(&site, &[])["samples"], 0);
        assert_eq!(monitor.counts().requests, before);
    });
}

#[test]
fn interrupted_it_goes_on_where_it_was() {
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        site.fill(400);
        let mut command = replay(&site, &[]);
        let child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        monitor.wait_for(|books| books.has_seq(60), PATIENCE).await.unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let begun = Instant::now();
        kill_process(pid, Signal::INT).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(begun.elapsed() < PATIENCE);
        assert_eq!(output.status.code(), Some(130));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("interrupted, ") && stderr.contains("stay queued"), "{stderr}");
        let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(summary["ended"], "interrupted");
        let books = site.books();
        books.agree_with(&monitor);
        assert!(books.cursor >= 59 && books.pending > 0, "{books:?}");

        let rest = done(&site, &[]);
        assert_eq!(rest["samples"], books.pending);
        assert_eq!(seqs(&monitor), (1..=400).collect::<Vec<_>>());
        // The one that was under way, at most.
        assert!(monitor.counts().duplicates <= 1);
    });
}

#[test]
fn a_monitor_that_is_away_is_5_and_one_that_refuses_6() {
    run(async {
        let monitor = monitor(plain()).await;
        let mut site = Site::new(&monitor);
        site.fill(5);
        monitor.pause().await;
        let (code, summary, stderr) = replayed(&site, &[]);
        assert_eq!(code, 5, "{stderr}");
        assert_eq!((&summary["ended"], &summary["left"]), (&"unreachable".into(), &5.into()));
        assert_eq!(summary["next"], 1);
        for part in ["cannot be reached", "3 failures in a row", "5 samples stay queued", "check"] {
            assert!(stderr.contains(part), "{part} in {stderr}");
        }
        let (code, _, stderr) = replayed(&site, &["--sent", "--since", "1h"]);
        assert_eq!(code, 0, "none is kept, so nobody is asked: {stderr}");

        monitor.resume().await.unwrap();
        site.set_secret("challenge_uuid", "00000000-0000-4000-8000-000000000000");
        let (code, summary, stderr) = replayed(&site, &[]);
        assert_eq!(code, 6, "{stderr}");
        assert_eq!(summary["ended"], "refused");
        for part in ["does not accept", "no such challenge", "5 samples stay", "enroll"] {
            assert!(stderr.contains(part), "{part} in {stderr}");
        }
        assert!(monitor.counts().refused(Reason::UnknownChallenge) >= 3);
        assert_eq!(site.look(|queue| queue.position().pending), 5);
    });
}

#[test]
fn a_monitor_that_refuses_every_sample_is_neither() {
    run(async {
        let monitor = monitor(plain()).await;
        monitor.misbehave(Fault::status(422).at(Route::Heartbeat));
        let site = Site::new(&monitor);
        site.fill(6);
        let (code, summary, stderr) = replayed(&site, &[]);
        assert_eq!(code, 1, "{stderr}");
        assert_eq!(summary["ended"], "unacceptable");
        assert!(stderr.contains("not theirs") && stderr.contains("422"), "{stderr}");
        monitor.heal();
        // Two at most were set aside; they go when they are asked for.
        let refused = summary["refused"].as_u64().unwrap();
        assert!(refused <= 2);
        assert_eq!(done(&site, &[])["delivered"], 6 - refused);
        assert_eq!(done(&site, &["--rejected"])["delivered"], refused);
        assert_eq!(seqs(&monitor).len(), 6);
    });
}

#[test]
fn a_queue_that_somebody_holds_or_that_is_not_there_is_4() {
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        let (code, _, stderr) = replayed(&site, &[]);
        assert_eq!(code, 4);
        assert!(stderr.contains("nothing was ever queued"), "{stderr}");
        assert!(!site.data_dir().join("queue").exists(), "a mistyped directory is not made");
        site.fill(3);
        let (code, stderr) = site.look(|_held| {
            let (code, _, stderr) = replayed(&site, &[]);
            (code, stderr)
        });
        assert_eq!(code, 4);
        let socket = site.path("control.sock");
        for part in [std::process::id().to_string(), socket.to_str().unwrap().to_owned()] {
            assert!(stderr.contains(&part), "{part} in {stderr}");
        }
        assert!(Client::connect(&socket).is_err());
        assert_eq!(done(&site, &[])["delivered"], 3);
    });
}

#[test]
fn delivered_samples_go_again_marked_and_change_nothing() {
    run(async {
        let options = Options { duplicates: DuplicateAnswer::Conflict, ..plain() };
        let monitor = monitor(options).await;
        let site = Site::new(&monitor);
        site.fill(40);
        done(&site, &[]);
        site.fill(5);
        let before = site.books();
        // All of them, some by time, some by number.
        for (arguments, count) in [
            (&["--sent", "--since", "1h"][..], 40),
            (&["--sent", "--seq", "11..20"], 10),
            (&["--sent", "--since", "1h", "--until", "30m"], 0),
            (&["--sent", "--since", "1h", "--seq", "39.."], 2),
        ] {
            let replayed = monitor.counts().replayed;
            let summary = done(&site, arguments);
            assert_eq!(summary["delivered"], count, "{arguments:?}");
            assert_eq!(monitor.counts().replayed - replayed, count);
        }
        let counts = monitor.counts();
        assert_eq!((counts.unique, counts.duplicates, counts.out_of_order), (40, 0, 0));
        let after = site.books();
        assert_eq!((after.cursor, after.pending, after.sampled), (40, 5, 45));
        assert_eq!(after.last_success, before.last_success);
    });
}

#[test]
fn what_is_broken_off_can_be_gone_on_with_by_number() {
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        site.fill(30);
        done(&site, &[]);
        // The Monitor goes away in the middle.
        monitor.misbehave(Fault::status(500).at(Route::Heartbeat).after(12));
        let (code, summary, stderr) = replayed(&site, &["--sent", "--since", "1h"]);
        assert_eq!((code, &summary["ended"]), (5, &"unreachable".into()), "{stderr}");
        assert_eq!((&summary["delivered"], &summary["next"]), (&12.into(), &13.into()));
        assert!(stderr.contains("go on with --seq 13.."), "{stderr}");
        monitor.heal();
        assert_eq!(done(&site, &["--sent", "--seq", "13.."])["delivered"], 18);
        assert_eq!(monitor.counts().replayed, 30);
    });
}

#[test]
fn rejected_samples_stay_until_they_are_accepted() {
    run(async {
        let monitor = monitor(batching()).await;
        monitor.misbehave(Fault::reject([3, 5]).at(Route::Heartbeat));
        let site = Site::new(&monitor);
        site.fill(8);
        let summary = done(&site, &[]);
        assert_eq!((&summary["delivered"], &summary["refused"]), (&6.into(), &2.into()));
        let summary = done(&site, &["--rejected"]);
        assert_eq!((&summary["delivered"], &summary["refused"]), (&0.into(), &2.into()));
        assert_eq!(site.books().rejected(), [3, 5]);

        monitor.heal();
        monitor.misbehave(Fault::reject([5]).at(Route::Heartbeat));
        let summary = done(&site, &["--rejected"]);
        assert_eq!((&summary["delivered"], &summary["refused"]), (&1.into(), &1.into()));
        assert_eq!(site.books().rejected(), [5]);
        monitor.heal();
        assert_eq!(done(&site, &["--rejected"])["delivered"], 1);
        let books = site.books();
        books.agree_with(&monitor);
        assert_eq!(books.rejected(), Vec::<u64>::new());
        assert_eq!(monitor.counts().replayed, 0, "the Monitor never had them");
        assert_eq!(done(&site, &["--rejected"])["samples"], 0);
        // They count as delivered from now on.
        let (_, plan, _) = replayed(&site, &["--sent", "--since", "1h", "--dry-run"]);
        assert_eq!(plan["samples"], 8);
    });
}

#[test]
fn the_enrolled_credential_counts_as_it_does_for_a_daemon() {
    run(async {
        let monitor = monitor(plain()).await;
        let mut site = Site::without_credential(&monitor);
        site.set_secret("challenge_uuid", "00000000-0000-4000-8000-000000000000");
        site.fill(3);
        let fresh = monitor.issue_challenge();
        site.hide(&fresh);
        let flags = Flags { config: Some(site.configure()), set: Vec::new() };
        let sources = Sources { env: BTreeMap::new(), ..Sources::of_process(flags) };
        let configured = load(&sources, Need::Backend).unwrap().config;
        let credential = Credential::challenge(&fresh).unwrap();
        Enrolled::new(credential, &configured).unwrap().write(&site.data_dir()).unwrap();
        assert_eq!(done(&site, &[])["delivered"], 3);

        // What is to become of it is for the daemon to decide.
        let file = site.data_dir().join("enrolled.json");
        let kept = fs::read(&file).unwrap();
        site.set_secret("challenge_uuid", "11111111-1111-4111-8111-111111111111");
        site.fill(1);
        let (code, _, stderr) = replayed(&site, &[]);
        assert_eq!(code, 6, "the configured one has changed and counts again: {stderr}");
        assert_eq!(fs::read(&file).unwrap(), kept);
        fs::write(&file, "{").unwrap();
        let (code, _, stderr) = replayed(&site, &[]);
        assert_eq!(code, 6);
        assert!(stderr.contains("what was enrolled is not usable (it is broken)"), "{stderr}");
    });
}

#[test]
fn a_resume_token_proves_where_the_challenge_is_unknown() {
    run(async {
        let monitor = monitor(real_time()).await;
        let mut site = Site::websocket(&monitor);
        let mut daemon = site.start();
        daemon.is_confirmed("websocket").await;
        daemon.stop().await;
        let had = seqs(&monitor).len() as u64;
        assert!(site.state()["resume"]["token"].is_string());
        site.set_secret("challenge_uuid", "00000000-0000-4000-8000-000000000000");
        site.fill(4);
        done(&site, &[]);
        assert_eq!(done(&site, &["--sent", "--seq", "1..2"])["delivered"], 2);
        assert!(monitor.counts().unique >= had + 4);
        assert_eq!(monitor.counts().refused(Reason::UnknownChallenge), 0);
    });
}

/// Every file below a directory, with its bytes and when it was changed.
fn tree(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.append(&mut tree(&path));
        } else {
            let changed = fs::metadata(&path).unwrap().modified().unwrap();
            found.insert(path.clone(), (fs::read(&path).unwrap(), changed));
        }
    }
    found
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    run(async {
        let monitor = monitor(batching()).await;
        monitor.misbehave(Fault::reject([2]).at(Route::Heartbeat));
        let site = Site::new(&monitor);
        site.fill(20);
        done(&site, &[]);
        site.fill(7);
        let (before, requests) = (tree(&site.data_dir()), monitor.counts().requests);
        let asked: [(&[&str], u64, u64, u64); 4] = [
            (&["--dry-run"], 7, 21, 27),
            (&["--dry-run", "--sent", "--since", "1h"], 19, 1, 20),
            (&["--dry-run", "--sent", "--seq", "..5"], 4, 1, 5),
            (&["--dry-run", "--rejected"], 1, 2, 2),
        ];
        for (arguments, samples, first, last) in asked {
            let (code, plan, stderr) = replayed(&site, arguments);
            assert_eq!((code, stderr.as_str()), (0, ""));
            assert_eq!(plan["dry_run"], true);
            assert_eq!(
                (&plan["samples"], &plan["first_seq"], &plan["last_seq"]),
                (&samples.into(), &first.into(), &last.into()),
                "{plan}"
            );
            assert!(plan["bytes"].as_u64().unwrap() > 100 * samples);
            assert!(plan["first_at"].as_str() <= plan["last_at"].as_str(), "{plan}");
        }
        assert!(before == tree(&site.data_dir()), "a dry run has changed something");
        assert_eq!(monitor.counts().requests, requests);
    });
}
