//! `purge`: the real program, with and without a daemon.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(dead_code, reason = "the support module serves several tests")]

mod support;

use std::io::{Read as _, Write as _};

use harborforge_storage::Set;
use serde_json::Value;

use support::{Site, alone, monitor, outcome, real_time, run, spawn, terminal};

fn purge(site: &Site, flags: &[&str]) -> (i32, Vec<Value>, String) {
    let (code, stdout, stderr) = outcome(site.command("purge").args(flags));
    (code, stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), stderr)
}

fn left(site: &Site) -> [usize; 3] {
    let _alone = alone();
    let mut queue = site.queue();
    let limits = harborforge_storage::Limits { records: 100, bytes: 1 << 20 };
    let left = [Set::Pending, Set::Sent, Set::Rejected]
        .map(|set| queue.read(set, 0, limits).unwrap().len());
    queue.close().unwrap();
    left
}

#[test]
fn without_a_daemon_it_opens_the_queue_and_says_what_went() {
    run(async {
        let monitor = monitor(real_time()).await;
        let site = Site::websocket(&monitor);
        let (code, _, said) = purge(&site, &["--sent", "--yes"]);
        assert_eq!(code, 4);
        assert!(said.contains("nothing was ever queued here"), "{said}");
        assert!(!site.data_dir().join("queue").exists(), "it made a queue");
        site.fill_all_sets();

        let (code, _, said) = purge(&site, &["--yes"]);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("<--rejected|--sent|--quarantine>"), "{said}");
        let (code, lines, said) = purge(&site, &["--rejected"]);
        assert_eq!((code, lines.len()), (2, 0));
        assert!(said.contains("say --yes"), "{said}");
        assert_eq!(left(&site), [4, 5, 1], "nothing went");

        let (code, lines, said) = purge(&site, &["--rejected", "--sent", "--quarantine", "--yes"]);
        assert_eq!((code, said.as_str()), (0, ""));
        assert_eq!((&lines[0]["what"], &lines[0]["records"]), (&"rejected".into(), &1.into()));
        // They lie in one generation with those that wait.
        assert_eq!((&lines[1]["what"], &lines[1]["records"]), (&"sent".into(), &0.into()));
        assert_eq!(lines[1]["shared"], 5);
        assert_eq!((&lines[2]["what"], &lines[2]["records"]), (&"quarantine".into(), &0.into()));
        assert_eq!(left(&site), [4, 5, 0]);

        // While another process has it open.
        let queue = site.queue();
        let (code, _, said) = purge(&site, &["--sent", "--yes"]);
        assert_eq!(code, 4);
        assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
        assert!(said.contains("control.sock"), "{said}");
        queue.close().unwrap();
    });
}

#[test]
fn a_running_daemon_does_it_on_request() {
    run(async {
        let monitor = monitor(real_time()).await;
        let site = Site::websocket(&monitor);
        site.fill_all_sets();
        let mut daemon = site.start();
        daemon.has_appended(11).await;
        daemon.is_confirmed("websocket").await;
        let (code, lines, said) = purge(&site, &["--rejected", "--sent", "--yes"]);
        assert_eq!((code, said.as_str()), (0, ""), "{lines:?}");
        assert_eq!(lines[0]["records"], 1);
        assert!(lines[0]["bytes"].as_u64().unwrap() > 0);
        let line = daemon.says("purged on request").await;
        assert!(line.names(&["Rejected"]), "{}", line.text);
        let asked = daemon.count("asked over the control socket");
        assert_eq!(asked, 2, "each change is logged");
        daemon.stop().await;
        let books = site.books();
        assert_eq!((books.rejected.len(), books.gaps), (0, 0));
        assert!(books.sampled >= 11, "no number was given back");
    });
}

/// The example in docs/OPERATIONS.md is what the program prints, but for the bytes on disk, which
/// are the file system's.
#[test]
fn the_example_in_the_handbook_is_a_real_one() {
    let site = run(async { Site::websocket(&monitor(real_time()).await) });
    site.fill_all_sets();
    let (code, shown, said) =
        outcome(site.command("purge").args(["--rejected", "--sent", "--yes"]));
    assert_eq!((code, said.as_str()), (0, ""));
    let doc = include_str!("../docs/OPERATIONS.md");
    let after =
        doc.split("    $ harborforge-connector purge --rejected --sent --yes | cat\n").nth(1);
    let told: Vec<_> = after.expect("the example").lines().take(2).collect();
    let without_bytes = |line: &str| {
        let mut line: Value = serde_json::from_str(line.trim()).unwrap();
        line["bytes"] = Value::Null;
        line
    };
    let told: Vec<_> = told.into_iter().map(without_bytes).collect();
    assert_eq!(shown.lines().map(without_bytes).collect::<Vec<_>>(), told, "{shown}");
}

/// On a terminal it asks, and takes anything but a yes for a no.
#[test]
fn on_a_terminal_it_asks_first() {
    let site = run(async { Site::websocket(&monitor(real_time()).await) });
    site.fill_all_sets();
    let program = env!("CARGO_BIN_EXE_harborforge-connector");
    let line = format!("{program} --config {} purge --rejected", site.configure().display());
    for (answer, code, says) in
        [("n\n", 1, "nothing more was deleted"), ("y\n", 0, "deleted 1 rejected sample (")]
    {
        let Some((found, screen)) = support::on_terminal(&line, 80, answer) else { return };
        assert_eq!(found, code, "{screen}");
        assert!(screen.contains("Delete 1 rejected sample ("), "{screen}");
        assert!(screen.contains(says), "{screen}");
    }
    assert_eq!(left(&site), [4, 5, 0]);
}

/// While somebody thinks, nothing is held: a daemon may start, and what it changes is asked about
/// again.
#[test]
fn the_queue_is_free_while_it_asks() {
    let site = run(async { Site::websocket(&monitor(real_time()).await) });
    site.fill_all_sets();
    let program = env!("CARGO_BIN_EXE_harborforge-connector");
    let line = format!("{program} --config {} purge --rejected", site.configure().display());
    // It says so where there is no terminal to be had.
    if support::on_terminal("true", 80, "").is_none() {
        return;
    }
    let mut child = spawn(&mut terminal(&line, 80, &[]));
    let (mut typed, mut shown) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut until = |wanted: &str| {
        let mut text = String::new();
        let mut byte = [0];
        while !text.ends_with(wanted) {
            assert_eq!(shown.read(&mut byte).unwrap(), 1, "{wanted} in {text}");
            text.push(char::from(byte[0]));
        }
        text
    };
    let asked = until("[y/N] ");
    assert!(asked.contains("Delete 1 rejected sample ("), "{asked}");
    {
        let _alone = alone();
        let mut queue = site.queue();
        let now = queue.stats().oldest_pending.unwrap();
        queue.reject(8, "HTTP 422: odd", now).unwrap();
        queue.close().unwrap();
    }
    typed.write_all(b"y\n").unwrap();
    let again = until("[y/N] ");
    assert!(again.contains("more or less of it by now"), "{again}");
    assert!(again.contains("Delete 2 rejected samples ("), "{again}");
    assert_eq!(left(&site), [3, 5, 2], "nothing went");
    typed.write_all(b"y\n").unwrap();
    until("deleted 2 rejected samples");
    assert!(child.wait().unwrap().success());
    assert_eq!(left(&site), [3, 5, 0]);
}
