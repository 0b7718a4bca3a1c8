//! The daemon's command line, signals and files, as scripts and supervisors see them.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use futures_util::join;
use harborforge_monitor::{Fault, Mode, Options, Route};
use rustix::process::Signal;
use serde_json::Value;

use support::{PATIENCE, Site, has_all, monitor, outcome, plain, program, run};

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn a_wrong_command_line_is_2_and_a_wrong_configuration_3() {
    run(async {
        let monitor = monitor(plain()).await;
        let mut site = Site::new(&monitor);
        let (code, stdout, stderr) = outcome(site.command("run").arg("--nonsense"));
        assert_eq!((code, stdout.as_str()), (2, ""));
        assert!(stderr.contains("--nonsense"), "{stderr}");

        site.set("report_interval", "soon").set("transport", "pigeon");
        let (code, stdout, stderr) = outcome(&mut site.command("run"));
        assert_eq!((code, stdout.as_str()), (3, ""));
        for part in ["2 faults", "config.toml:", "report_interval", "\"soon\"", "\"pigeon\""] {
            assert!(stderr.contains(part), "{part} in {stderr}");
        }

        let (code, _, stderr) = outcome(&mut program(&["--config", "/dev/null", "run"]));
        assert_eq!(code, 3);
        assert!(stderr.contains("backend_url"), "{stderr}");
        let (code, _, stderr) = outcome(&mut program(&["--config", "/nonexistent/c.toml", "run"]));
        assert_eq!(code, 3);
        assert!(stderr.contains("/nonexistent/c.toml"), "{stderr}");

        site.set("report_interval", "1s").set("transport", "http");
        site.set("ca_file", "/nonexistent/ca.pem").set("backend_url", "https://127.0.0.1:9");
        let (code, _, stderr) = outcome(&mut site.command("run"));
        assert_eq!(code, 3, "{stderr}");
        assert!(stderr.contains("/nonexistent/ca.pem"), "{stderr}");
        assert!(stderr.contains("No such file"), "{stderr}");
        assert!(!site.data_dir().join("queue").exists(), "nothing is made before all is well");
    });
}

#[test]
fn a_second_daemon_is_told_who_holds_the_queue() {
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        let mut daemon = site.start();
        daemon.says("acknowledged").await;
        let (code, stdout, stderr) = outcome(&mut site.command("run"));
        assert_eq!((code, stdout.as_str()), (4, ""));
        let last = stderr.lines().last().unwrap();
        assert!(last.contains(&daemon.pid().to_string()), "{stderr}");
        assert!(last.contains(site.data_dir().to_str().unwrap()), "{stderr}");
        // The first one has noticed nothing.
        daemon.says("acknowledged").await;
        // Its end frees the queue at once, whichever way it ends.
        daemon.kill().await;
        let mut daemon = site.start();
        daemon.says("acknowledged").await;
        daemon.stop().await;
        site.books().agree_with(&monitor);
    });
}

#[test]
fn only_the_owner_may_look_into_the_data_directory() {
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        let mut daemon = site.start();
        daemon.says("acknowledged").await;
        daemon.stop().await;
        assert_eq!(mode(&site.data_dir()), 0o700);
        assert_eq!(mode(&site.data_dir().join("queue")), 0o700);
        assert_eq!(mode(&site.data_dir().join("state.json")), 0o600);
    });
}

#[test]
fn a_data_directory_that_cannot_be_is_named() {
    run(async {
        let monitor = monitor(plain()).await;
        let mut site = Site::new(&monitor);
        let file = site.write("file", "in the way");
        let below = file.join("data");
        site.set("data_dir", below.to_str().unwrap());
        let (code, _, stderr) = outcome(&mut site.command("run"));
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains(below.to_str().unwrap()), "{stderr}");
        assert!(stderr.contains("data_dir"), "{stderr}");
    });
}

#[test]
fn a_reload_takes_what_is_valid_and_keeps_the_old_for_what_is_not() {
    run(async {
        let monitor = monitor(plain()).await;
        let mut site = Site::new(&monitor);
        site.set("report_interval", "1h");
        let mut daemon = site.start();
        daemon.says("acknowledged").await;

        // Nothing changed.
        daemon.reload(&site);
        daemon.says("configuration reloaded, nothing has changed").await;

        // Two faults, both told; the identifier beside them is not taken over.
        site.set("identifier", "vps.t2").set("backoff_cap", "1 fortnight").set("disk_pat", "/");
        daemon.reload(&site);
        let line = |part: &'static str| move |line: &support::Line| line.names(&["ERROR", part]);
        daemon.hears("the first fault", line("backoff_cap")).await;
        daemon.hears("the second fault", line("did you mean disk_path?")).await;
        daemon.signal(Signal::USR1);

        // Mended, and faster: the sampler takes it up without a restart.
        site.unset("disk_pat").set("identifier", "vps.t1");
        site.set("backoff_cap", "1s").set("report_interval", "1s");
        daemon.reload(&site);
        daemon.hears("the change", |line| line.names(&["INFO", "report_interval"])).await;
        let last = daemon.has_appended(3).await;
        has_all(&monitor, last).await;
        daemon.stop().await;
        // The Monitor would have refused a second identifier with the same challenge.
        assert!(monitor.counts().refused.is_empty(), "{:?}", monitor.counts());
        site.books().agree_with(&monitor);
    });
}

#[test]
fn another_monitor_is_used_from_the_reload_on() {
    run(async {
        let (old, new) = join!(monitor(plain()), monitor(plain()));
        old.misbehave(Fault::status(500).at(Route::Heartbeat));
        let mut site = Site::new(&old);
        let mut daemon = site.start();
        daemon.complains(&["500"]).await;
        site.set("backend_url", &new.url()).set_secret("challenge_uuid", &new.issue_challenge());
        daemon.reload(&site);
        daemon.says("delivering again").await;
        let last = daemon.appended();
        has_all(&new, last).await;
        assert_eq!(old.counts().unique, 0);
        daemon.stop().await;
        assert_eq!(site.state()["backend_url"].as_str().unwrap().trim_end_matches('/'), new.url());
        site.books().agree_with(&new);
    });
}

/// From challenge to API key and back while it runs: each is used at once and nothing is said
/// about the other.
#[test]
fn the_mode_may_change_with_a_reload() {
    run(async {
        const KEY: &str = "hf-0123456789";
        let (proved, keyed) = join!(
            monitor(plain()),
            monitor(Options { mode: Mode::ApiKey(KEY.to_owned()), ..plain() })
        );
        let mut site = Site::new(&proved);
        let mut daemon = site.start();
        daemon.says("acknowledged").await;
        site.set("backend_url", &keyed.url()).unset("challenge_uuid").set_secret("api_key", KEY);
        daemon.reload(&site);
        keyed.wait_for(|books| books.counts().unique >= 2, PATIENCE).await.unwrap();
        site.set("backend_url", &proved.url()).unset("api_key");
        site.set_secret("challenge_uuid", &proved.issue_challenge());
        daemon.reload(&site);
        let before = proved.counts().unique;
        proved.wait_for(|books| books.counts().unique >= before + 2, PATIENCE).await.unwrap();
        assert_eq!(daemon.count("not delivered, samples are kept"), 0, "{:?}", daemon.for_people());
        daemon.stop().await;
        assert_eq!(keyed.counts().key_fetches, 0);
        let books = site.books();
        assert_eq!((books.gaps, books.rejected()), (0, Vec::new()));
        let both = |seq| proved.journal(|b| b.has_seq(seq)) || keyed.journal(|b| b.has_seq(seq));
        assert!((1..=books.cursor).all(both), "{books:?}");
    });
}

/// A reload may come at any moment of a try: none stops the sender.
#[test]
fn reloads_in_quick_succession_stop_nothing() {
    run(async {
        let monitor = monitor(plain()).await;
        let mut site = Site::new(&monitor);
        let right = monitor.issue_challenge();
        site.set("challenge_uuid", "8f14e45f-ceea-467f-9575-1d2f3a4b5c6d").fill(3);
        let mut daemon = site.start();
        daemon.complains(&["403"]).await;
        for round in 0..40 {
            // Unknown ones all the way: each is tried, refused, and waited with.
            let before = monitor.counts().heartbeats;
            site.set("challenge_uuid", &format!("8f14e45f-ceea-467f-9575-{round:012}"));
            daemon.reload(&site);
            monitor
                .wait_for(|books| books.counts().heartbeats > before, PATIENCE)
                .await
                .unwrap_or_else(|error| panic!("reload {round}: {error}"));
        }
        site.set_secret("challenge_uuid", &right);
        daemon.reload(&site);
        let last = daemon.appended();
        has_all(&monitor, last).await;
        daemon.stop().await;
        site.books().agree_with(&monitor);
    });
}

#[test]
fn sigusr1_does_not_wait_for_the_backoff() {
    run(async {
        let monitor = monitor(plain()).await;
        let mut site = Site::new(&monitor);
        site.set("backoff_cap", "10m").set("report_interval", "1h").fill(3);
        // Between 10 and 15 minutes, which no test waits for.
        monitor.misbehave(Fault::retry_after(503, "600").once().at(Route::Heartbeat));
        let mut daemon = site.start();
        daemon.complains(&["503", "retry_in"]).await;
        daemon.has_appended(4).await;
        assert_eq!(monitor.counts().unique, 0);
        daemon.signal(Signal::USR1);
        has_all(&monitor, 4).await;
        daemon.stop().await;
        assert_eq!(monitor.counts().heartbeats, 5);
        site.books().agree_with(&monitor);
    });
}

#[test]
fn a_signal_at_the_start_is_not_lost() {
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        let mut daemon = site.start();
        daemon.says("started").await;
        daemon.signal(Signal::HUP);
        daemon.signal(Signal::USR1);
        daemon.stop().await;
        site.books().agree_with(&monitor);
    });
}

#[test]
fn sample_prints_the_protocols_object_on_one_line() {
    let (code, stdout, stderr) =
        outcome(&mut program(&["--config", "/dev/null", "--set", "identifier=vps.t9", "sample"]));
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout.lines().count(), 1);
    let sample: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(sample["identifier"], "vps.t9");
    for share in ["cpu_pct", "mem_pct", "disk_pct", "swap_pct"] {
        let share = &sample[share];
        assert!(share.is_null() || (0.0..=100.0).contains(&share.as_f64().unwrap()), "{sample}");
    }
    assert!(sample["uptime_seconds"].as_u64().is_some(), "{sample}");
    assert_eq!(sample["load_avg"].as_array().unwrap().len(), 3);
    assert_eq!(sample["agents"], serde_json::json!([]));
    assert!(sample.get("openclaw_version").is_some_and(Value::is_null));
    assert_eq!(sample["connector_version"], env!("CARGO_PKG_VERSION"));
    humantime::parse_rfc3339(sample["last_seen_at"].as_str().unwrap()).unwrap();
    for of_the_queue in ["seq", "sample_id", "replayed", "gaps"] {
        assert!(sample.get(of_the_queue).is_none(), "{sample}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_sample_quietly() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = program(&["--config", "/dev/null", "sample"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = site.command("run").stdout(Stdio::null()).stderr(writer).spawn().unwrap();
        monitor.wait_for(|books| books.counts().unique >= 2, PATIENCE).await.unwrap();
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success());
        site.books().agree_with(&monitor);
    });
}

#[test]
fn a_damaged_state_file_is_set_aside() {
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        site.fill(1);
        fs::write(site.data_dir().join("state.json"), b"\0\0\0").unwrap();
        let mut daemon = site.start();
        daemon.hears("the damage", |line| line.names(&["WARN", "state.json"])).await;
        daemon.says("acknowledged").await;
        daemon.stop().await;
        assert!(site.data_dir().join("state.json.broken").exists());
        assert_eq!(site.state()["key_fingerprint"], monitor.fingerprint());
    });
}
