//! `-v`: an error comes with what caused it, from every command; without, in one line.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;

use harborforge_monitor::{Options, Tls};

use support::{Site, monitor, outcome, plain, run};

/// Runs a command without and with `-v`: its exit code, which must be the same, and what it says.
fn both(site: &Site, command: &[&str]) -> (i32, String, String) {
    let [short, long] = [false, true].map(|verbose| {
        let mut program = site.command(command[0]);
        program.args(&command[1..]);
        if verbose {
            program.arg("-v");
        }
        let (code, stdout, stderr) = outcome(&mut program);
        (code, stdout + &stderr)
    });
    assert_eq!(short.0, long.0, "{command:?}: {}", long.1);
    assert!(!short.1.contains("caused by"), "{command:?}: {}", short.1);
    (short.0, short.1, long.1)
}

#[test]
fn causes_of_what_the_files_refuse() {
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        site.fill(3);
        let format = site.data_dir().join("queue/FORMAT");
        fs::remove_file(&format).unwrap();
        fs::create_dir(&format).unwrap();
        for (command, expected) in [
            (["dump"].as_slice(), 4),
            (&["dump", "--summary"], 4),
            (&["verify"], 4),
            (&["replay", "--dry-run"], 4),
            (&["status"], 1),
        ] {
            let (code, _, long) = both(&site, command);
            assert_eq!(code, expected, "{command:?}: {long}");
            assert!(long.contains("FORMAT: see its owner, mode and disk"), "{command:?}: {long}");
            assert!(long.contains("\n  caused by: Is a directory"), "{command:?}: {long}");
        }
    });
}

#[test]
fn causes_of_a_daemon_that_does_not_start() {
    run(async {
        let monitor = monitor(plain()).await;
        let mut site = Site::new(&monitor);
        let file = site.write("file", "");
        site.set("data_dir", file.to_str().unwrap());
        let (code, short, long) = both(&site, &["run"]);
        assert_eq!(code, 1, "{long}");
        let cause = long.split("\n  caused by: ").nth(1).expect(&long).trim();
        // Nobody can ask it for more later: the cause is in the line as well.
        assert!(!cause.is_empty() && short.contains(&format!(": {cause}")), "{short}\n{long}");
    });
}

#[test]
fn causes_of_what_the_network_refuses() {
    run(async {
        let monitor = monitor(Options { tls: Tls::UnknownCa, ..plain() }).await;
        let site = Site::new(&monitor);
        let file = site.write("new-challenge", &monitor.issue_challenge());
        let enroll = ["enroll", "--challenge-file", file.to_str().unwrap()];
        for command in [["check"].as_slice(), &enroll] {
            let (code, _, long) = both(&site, command);
            assert_eq!(code, 5, "{command:?}: {long}");
            let (_, rest) = long.split_once("FAIL tls: ").expect(&long);
            let below = rest.lines().nth(1).unwrap();
            assert!(below.starts_with("     caused by: "), "{command:?}: {long}");
        }
    });
}
