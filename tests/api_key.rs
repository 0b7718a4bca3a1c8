//! Mode `api_key`: heartbeats with `X-API-Key` and nothing else, with the same queue, order and
//! answers as with a challenge, against a Monitor that offers every extension.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::process::Command;

use futures_util::join;
use harborforge_monitor::{
    Capability, Fault, Journal, Mode, Monitor, Options, Reason, Route, Transport,
};
use serde_json::Value;

use support::{PATIENCE, Site, counted, has_all, monitor, outcome, plain, program, run, seqs};

const RIGHT: &str = "hf-right-0123456789";
const WRONG: &str = "hf-wrong-0123456789";

/// A Monitor that lets in who shows the right key, whatever else it could do.
fn keyed() -> Options {
    let capabilities = [Capability::Ack, Capability::Resume, Capability::Batch].into();
    Options { mode: Mode::ApiKey(RIGHT.to_owned()), capabilities, ..plain() }
}

/// A place for a daemon with this key that may choose its transport.
fn site(monitor: &Monitor, key: &str) -> Site {
    let mut site = Site::without_credential(monitor);
    site.set("transport", "auto").set_secret("api_key", key);
    site
}

/// Nothing but heartbeats has been asked of the Monitor, and each brought one sample.
fn heartbeats_alone(monitor: &Monitor) {
    assert!(monitor.requests().iter().all(|seen| seen.route == Route::Heartbeat));
    let accepted = monitor.accepted();
    assert!(!accepted.is_empty());
    assert!(accepted.iter().all(|one| one.transport == Transport::Heartbeat));
    let counts = monitor.counts();
    assert_eq!((counts.key_fetches, counts.upgrades, counts.out_of_order), (0, 0, 0));
}

#[test]
fn an_outage_with_a_kill_in_it_costs_nothing() {
    run(async {
        let monitor = monitor(keyed()).await;
        let site = site(&monitor, RIGHT);
        let mut daemon = site.start();
        daemon.says("acknowledged").await;
        monitor.pause().await;
        let before = daemon.appended();
        daemon.complains(&["onnect"]).await;
        daemon.has_appended(before + 2).await;
        let durable = daemon.kill().await;

        let mut daemon = site.start();
        daemon.complains(&["onnect"]).await;
        daemon.has_appended(durable + 2).await;
        monitor.resume().await.unwrap();
        daemon.says("delivering again").await;
        let last = daemon.appended();
        has_all(&monitor, last).await;
        daemon.stop().await;
        site.books().agree_with(&monitor);
        heartbeats_alone(&monitor);
        let seqs = seqs(&monitor);
        assert!(seqs.is_sorted(), "oldest first: {seqs:?}");
    });
}

#[test]
fn answers_mean_what_they_mean_with_a_challenge() {
    run(async {
        let monitor = monitor(keyed()).await;
        let mut site = site(&monitor, RIGHT);
        site.set("report_interval", "1h").fill(6);
        // One is unacceptable, the next is asked to wait and stored with its answer lost.
        monitor.misbehave(Fault::status(422).at(Route::Heartbeat).times(3));
        monitor.misbehave(Fault::retry_after(503, "1").once().at(Route::Heartbeat));
        monitor.misbehave(Fault::LoseAnswer.once().at(Route::Heartbeat));
        let daemon = site.start();
        // The daemon's own first sample is the last.
        let all = |books: &Journal| (2..=7).all(|seq| books.has_seq(seq));
        monitor.wait_for(all, PATIENCE).await.unwrap();
        daemon.stop().await;
        let books = site.books();
        books.agree_with(&monitor);
        assert_eq!((books.pending, books.rejected()), (0, vec![1]));
        assert_eq!(monitor.counts().faults, 5);
        heartbeats_alone(&monitor);
    });
}

/// `status` in a pipe.
fn status(site: &Site) -> Value {
    let (_, stdout, stderr) = outcome(&mut site.command("status"));
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"))
}

/// The wait between two tries of refused heartbeats may be ten minutes here, and the test's
/// patience is less: the new key was used at once.
#[test]
fn a_wrong_key_is_refused_and_the_right_one_enrolled_is_used_at_once() {
    run(async {
        let monitor = monitor(keyed()).await;
        let mut site = site(&monitor, WRONG);
        site.set("backoff_cap", "10m").hide(RIGHT);
        let mut daemon = site.start();
        daemon.complains(&["401", "new API key", "enroll --api-key"]).await;
        daemon.has_appended(3).await;
        let said = status(&site);
        assert_eq!(said["challenge"]["kind"], "api_key");
        assert_eq!(said["challenge"]["condition"], "refused");
        assert_eq!(said["link"]["state"], "refused");
        assert_eq!((monitor.counts().unique, monitor.counts().key_fetches), (0, 0));
        // It does not hammer: the first tries, and then the long road.
        assert!(monitor.counts().refused(Reason::WrongApiKey) <= 5, "{:?}", monitor.counts());

        let file = site.write("key", &format!("{RIGHT}\n"));
        let mut enroll = site.command("enroll");
        let (code, stdout, stderr) = outcome(enroll.arg("--api-key-file").arg(&file));
        assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
        for part in ["api_key set", "uses it from now on", "tried with the first heartbeat"] {
            assert!(stdout.contains(part), "{part} in {stdout}");
        }
        assert!(!stdout.contains(RIGHT), "{stdout}");
        daemon.says("delivering again").await;
        let last = daemon.appended();
        has_all(&monitor, last).await;
        daemon.hears("the last confirmation", |line| line.number("up_to") >= Some(last)).await;
        // From here on the file holds what `enroll` has written, and is not written anew.
        site.set_secret("api_key", RIGHT);
        let said = status(&site);
        assert_eq!(
            (&said["challenge"]["condition"], &said["link"]["state"]),
            (&"accepted".into(), &"online".into())
        );
        daemon.stop().await;
        let books = site.books();
        books.agree_with(&monitor);
        assert_eq!(books.rejected(), Vec::<u64>::new());
        // `enroll` knocked, and nobody else.
        assert!(monitor.counts().key_fetches <= 1, "{:?}", monitor.counts());
    });
}

#[test]
fn replay_and_check_say_what_a_key_needs() {
    run(async {
        let monitor = monitor(keyed()).await;
        let mut site = site(&monitor, WRONG);
        site.fill(5);
        let (code, _, stderr) = outcome(&mut site.command("replay"));
        assert_eq!(code, 6, "{stderr}");
        for part in ["wrong API key", "5 samples stay", "new API key", "enroll --api-key"] {
            assert!(stderr.contains(part), "{part} in {stderr}");
        }
        site.set_secret("api_key", RIGHT);
        let (code, stdout, _) = outcome(&mut site.command("check"));
        assert_eq!(code, 0, "{stdout}");
        for part in ["API key from", "can only be tried with the first heartbeat"] {
            assert!(stdout.contains(part), "{part} in {stdout}");
        }
        assert!(!stdout.contains("proof") && !stdout.contains(RIGHT), "{stdout}");
        let (code, stdout, stderr) = outcome(&mut site.command("replay"));
        assert_eq!(code, 0, "{stderr}");
        let summary: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((&summary["delivered"], &summary["left"]), (&5.into(), &0.into()));
        assert_eq!(seqs(&monitor), (1..=5).collect::<Vec<_>>());
        let books = site.books();
        books.agree_with(&monitor);
        assert_eq!(books.pending, 0);
    });
}

/// The program with what only the connector knows on its command line.
fn in_place(site: &Site, arguments: &[&str]) -> Command {
    let mut command = program(arguments);
    for (key, path) in [("data_dir", site.data_dir()), ("control_socket", site.path("s.sock"))] {
        command.arg("--set").arg(format!("{key}={}", path.display()));
    }
    command
}

#[test]
fn the_agents_own_file_and_environment_deliver() {
    run(async {
        let from_file = async {
            let monitor = monitor(keyed()).await;
            let site = site(&monitor, RIGHT);
            site.fill(3);
            let text = format!(
                r#"{{"backendUrl": {:?}, "identifier": "vps.t9", "apiKey": {RIGHT:?},
                     "reportIntervalSec": 30, "rootFs": "", "monitorPort": 0}}"#,
                monitor.url()
            );
            let file = site.write("agent.json", &text);
            let config = ["--config", file.to_str().unwrap(), "replay"];
            let (code, _, stderr) = outcome(&mut in_place(&site, &config));
            assert_eq!(code, 0, "{stderr}");
            assert!(monitor.accepted().iter().all(|one| one.identifier == "vps.t9"));
            assert_eq!(monitor.counts().unique, 3);
            heartbeats_alone(&monitor);
        };
        let from_environment = async {
            let monitor = monitor(keyed()).await;
            let site = site(&monitor, RIGHT);
            site.fill(3);
            let mut replay = in_place(&site, &["replay"]);
            replay
                .env("HF_MONITER_BACKEND_URL", monitor.url())
                .env("HF_MONITER_IDENTIFIER", "overridden")
                .env("HARBORFORGE_IDENTIFIER", "vps.t9")
                .env("HF_MONITER_API_KEY", RIGHT);
            let (code, _, stderr) = outcome(&mut replay);
            assert_eq!(code, 0, "{stderr}");
            counted(&monitor, "samples", 3, |counts| counts.unique).await;
            assert!(monitor.accepted().iter().all(|one| one.identifier == "vps.t9"));
        };
        join!(from_file, from_environment);
    });
}

#[test]
fn a_daemon_with_the_agents_file_reports_at_its_interval() {
    run(async {
        let monitor = monitor(keyed()).await;
        let site = site(&monitor, RIGHT);
        let text = format!(
            r#"{{"backendUrl": {:?}, "apiKey": {RIGHT:?}, "reportIntervalSec": 1}}"#,
            monitor.url()
        );
        let file = site.write("agent.json", &text);
        let config = ["--config", file.to_str().unwrap(), "run"];
        let mut child = support::spawn(&mut in_place(&site, &config));
        let arrived = monitor.wait_for(|books| books.counts().unique >= 3, PATIENCE).await;
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success());
        arrived.unwrap();
        heartbeats_alone(&monitor);
        site.books().agree_with(&monitor);
    });
}
