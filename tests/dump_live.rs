//! `dump` of a queue a daemon has open: the same as of one at rest, and what comes and goes.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(dead_code, reason = "the support module serves several tests")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use harborforge_storage::{Confirmation, GapReason};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use support::{Site, alone, monitor, on_terminal_with, outcome, real_time, run, spawn};

/// 300 samples: 1 to 100 delivered but 50 rejected, 120 rejected, 131 to 140 given up.
fn fill(site: &Site) {
    site.fill(300);
    let _alone = alone();
    let mut queue = site.queue();
    let now = queue.stats().oldest_pending.unwrap();
    queue.reject(50, "HTTP 422: odd", now).unwrap();
    queue.acknowledge(100, Confirmation { wall_ms: now.wall_ms, tag: 1 }).unwrap();
    queue.reject(120, "HTTP 422: odder", now).unwrap();
    queue.give_up(131..=140, GapReason::QueueFull, false, now).unwrap();
    queue.close().unwrap();
}

fn dump(site: &Site, flags: &[&str]) -> (i32, String, String) {
    outcome(site.command("dump").args(flags))
}

#[test]
fn it_is_the_same_with_a_daemon_and_without() {
    run(async {
        let monitor = monitor(real_time()).await;
        monitor.pause().await;
        let site = Site::websocket(&monitor);
        fill(&site);
        let all = ["--state", "all", "--seq", "1..300"];
        let flags: Vec<Vec<&str>> = vec![
            vec!["--seq", "1..300"],
            all.to_vec(),
            [all.as_slice(), &["--format", "csv"]].concat(),
            [all.as_slice(), &["--format", "raw", "--limit", "7"]].concat(),
            [all.as_slice(), &["--format", "table", "--tail", "150"]].concat(),
            [all.as_slice(), &["--summary"]].concat(),
            [all.as_slice(), &["--since", "2000-01-01T00:00:00Z"]].concat(),
            vec!["--state", "sent"],
            vec!["--state", "sent", "--tail", "3"],
            vec!["--state", "rejected"],
            vec!["--state", "rejected", "--tail", "1"],
            vec!["--state", "sent", "--until", "2000-01-01T00:00:00Z"],
        ];
        let at_rest: Vec<_> = flags.iter().map(|flags| dump(&site, flags)).collect();
        let mut daemon = site.start();
        daemon.has_appended(301).await;
        for (flags, at_rest) in flags.iter().zip(at_rest) {
            assert_eq!(dump(&site, flags), at_rest, "{flags:?}");
            assert_eq!(at_rest.0, 0, "{flags:?}: {}", at_rest.2);
        }
        let (code, stdout, _) = dump(&site, &["--tail", "1"]);
        let newest: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((code, newest["seq"].as_u64().unwrap() >= 301), (0, true));
        // A reader that leaves is no fault.
        let mut child = spawn(site.command("dump").stdout(Stdio::piped()).stderr(Stdio::piped()));
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
        // And so is a verification.
        let (code, stdout, said) = outcome(&mut site.command("verify"));
        assert_eq!((code, said.as_str()), (0, ""), "{stdout}");
        let lines: Vec<Value> =
            stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (whole, generations) = lines.split_last().unwrap();
        assert!(generations.iter().all(|line| line["type"] == "generation"), "{stdout}");
        assert_eq!((&whole["type"], &whole["good"]), (&"queue".into(), &true.into()));
        assert_eq!((&whole["settled"], &whole["in_gaps"]), (&100.into(), &10.into()));
        assert!(whole["pending"].as_u64().unwrap() >= 190, "{whole}");
        daemon.stop().await;
    });
}

/// Lines of a child's output as they come.
fn lines(child: &mut Child) -> impl Iterator<Item = Value> + use<> {
    let stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap())
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn who_follows_sees_samples_come_and_go_until_an_interrupt() {
    run(async {
        let monitor = monitor(real_time()).await;
        let site = Site::websocket(&monitor);
        let (code, _, said) = dump(&site, &["--follow"]);
        assert_eq!(code, 4, "there is no queue yet: {said}");
        site.fill(5);
        let (code, stdout, said) = dump(&site, &["--follow"]);
        assert_eq!((code, stdout.as_str()), (1, ""));
        assert!(said.contains("only a running daemon's queue can be followed"), "{said}");
        assert!(said.contains("control.sock"), "{said}");

        monitor.pause().await;
        let mut daemon = site.start();
        daemon.has_appended(6).await;
        let mut command = site.command("dump");
        command.args(["--follow", "--tail", "2"]);
        let mut follower = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let mut lines = lines(&mut follower);
        let first = lines.next().unwrap();
        assert!(first["seq"].as_u64().unwrap() >= 5, "the newest two: {first}");
        monitor.resume().await.unwrap();
        let mut seen: Vec<Value> = vec![first];
        let gone = |seen: &[Value], seq: u64| {
            seen.iter().any(|line| line["seq"] == seq && line["state"] == "sent")
        };
        while !(gone(&seen, 5) && gone(&seen, 8)) {
            seen.push(lines.next().unwrap());
        }
        let came = |seq: u64| {
            seen.iter().position(|line| line["seq"] == seq && line["payload"].is_object()).unwrap()
        };
        assert!(came(7) < came(8));
        let went = seen.iter().position(|line| line["seq"] == 8 && line["state"] == "sent");
        assert!(came(8) < went.unwrap(), "{seen:?}");
        assert!(seen[went.unwrap()]["at"].is_string());
        signal(&follower, Signal::INT);
        drop(lines);
        let mut said = String::new();
        follower.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((follower.wait().unwrap().code(), said.as_str()), (Some(130), ""));

        // --limit ends it.
        let (code, stdout, said) = dump(&site, &["--follow", "--state", "sent", "--limit", "9"]);
        assert_eq!((code, stdout.lines().count(), said.as_str()), (0, 9, ""));

        // The daemon's end is the end of it, and said.
        let mut follower = spawn(
            site.command("dump").arg("--follow").stdout(Stdio::piped()).stderr(Stdio::piped()),
        );
        let mut line = String::new();
        let mut stdout = BufReader::new(follower.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        daemon.stop().await;
        let mut said = String::new();
        follower.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(follower.wait().unwrap().code(), Some(1));
        assert!(said.contains("it was stopped") || said.contains("daemon is stopping"), "{said}");
    });
}

#[test]
fn it_fits_the_terminal_and_has_colours_only_where_wanted() {
    let site = run(async { Site::websocket(&monitor(real_time()).await) });
    fill(&site);
    let program = env!("CARGO_BIN_EXE_harborforge-connector");
    let line = format!("{program} --config {} dump --state all", site.configure().display());
    for columns in [40, 80] {
        let shown = on_terminal_with(&line, columns, "", &[("NO_COLOR", "1")]);
        let Some((code, screen)) = shown else { return };
        assert_eq!(code, 0, "{screen}");
        assert!(!screen.contains('\u{1b}'), "{screen}");
        assert_eq!(screen.lines().count(), 291);
        for line in screen.lines() {
            assert!(line.chars().count() <= usize::from(columns), "{columns}: {line}");
        }
        assert!(screen.contains("HTTP 422: odd"), "{screen}");
    }
    let (_, screen) = on_terminal_with(&line, 80, "", &[]).unwrap();
    assert!(screen.contains("\u{1b}[31mrejected\u{1b}[0m"), "{screen}");
    let summary = format!("{line} --summary");
    let (_, screen) = on_terminal_with(&summary, 80, "", &[]).unwrap();
    assert!(screen.contains("189 samples") && screen.contains("a bar for each"), "{screen}");
}

/// More than any pipe holds, so that the writing does meet the closed end.
#[test]
fn head_ends_it_quietly_with_a_daemon_and_without() {
    run(async {
        let monitor = monitor(real_time()).await;
        monitor.pause().await;
        let site = Site::websocket(&monitor);
        site.fill(5000);
        let dump = site.command("dump");
        let words = std::iter::once(dump.get_program()).chain(dump.get_args());
        let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
        let line = format!("{{ {}; echo \"code $?\" >&2; }} | head -n 1", words.join(" "));
        let head = || outcome(Command::new("/bin/sh").args(["-c", &line]).stdin(Stdio::null()));
        let looks_right = |(code, stdout, stderr): (i32, String, String)| {
            assert_eq!((code, stderr.as_str()), (0, "code 0\n"), "{stdout}");
            assert_eq!(stdout.lines().count(), 1);
            assert!(stdout.starts_with("{\"seq\":1,"), "{stdout}");
        };
        looks_right(head());
        let mut daemon = site.start();
        daemon.has_appended(5001).await;
        looks_right(head());
        daemon.stop().await;
    });
}
