//! What is delivered with the program: the unit, the installer and the other scripts.
//!
//! The tools that judge them (shellcheck, systemd-analyze) are not on every machine; a test that
//! is left out says so.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stderr, reason = "a test that is left out says so")]
#![allow(dead_code, reason = "the support module serves several tests")]

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::{monitor, plain, run};

fn source() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn unit() -> PathBuf {
    source().join("deploy/harborforge-connector.service")
}

/// What it printed; `None`, said loudly, where there is no such tool.
fn tool(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("SKIPPED: there is no {} here", command.get_program().display());
            None
        }
        Err(error) => panic!("{command:?}: {error}"),
    }
}

fn succeeded(what: &str, output: &Output) {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{out}\n{err}", output.status);
}

fn scripts(directory: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(source().join(directory)).unwrap() {
        let path = entry.unwrap().path();
        let shell = fs::read(&path).is_ok_and(|text| {
            text.starts_with(b"#!/bin/sh") || text.starts_with(b"#!/usr/bin/env bash")
        });
        if shell {
            found.push(path);
        }
    }
    found
}

#[test]
fn the_scripts_are_shellcheck_clean() {
    let all: Vec<_> = ["deploy", "deploy/debian", "tests", "tests/deploy", ".ci"]
        .into_iter()
        .flat_map(scripts)
        .collect();
    assert!(all.contains(&source().join("deploy/install.sh")), "{all:?}");
    let Some(output) = tool(Command::new("shellcheck").args(&all)) else { return };
    succeeded("shellcheck", &output);
}

/// The unit as it is checked here: with a program that is there, and the lines of a drop-in.
fn unit_with(directory: &Path, drop_in: &str) -> PathBuf {
    let text = fs::read_to_string(unit()).unwrap();
    let start = format!("ExecStart={}", env!("CARGO_BIN_EXE_harborforge-connector"));
    assert!(text.contains("ExecStart=harborforge-connector run\n"));
    let text = text.replace("ExecStart=harborforge-connector", &start);
    let path = directory.join("harborforge-connector.service");
    fs::write(&path, format!("{text}\n{drop_in}")).unwrap();
    path
}

#[test]
fn the_unit_is_sound_and_tight() {
    let dir = tempfile::tempdir().unwrap();
    let openclaw = fs::read_to_string(source().join("deploy/openclaw.conf")).unwrap();
    // In tenths: 15 is 1.5, of at most 10. What reads other users' files is exposed to more.
    for (drop_in, at_most) in [("", 15), (openclaw.as_str(), 25)] {
        let path = unit_with(dir.path(), drop_in);
        let mut verify = Command::new("systemd-analyze");
        let Some(output) = tool(verify.args(["verify", "--man=no"]).arg(&path)) else { return };
        succeeded("systemd-analyze verify", &output);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!words.contains(path.to_str().unwrap()), "{words}");
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=yes", "--no-pager"]);
        let threshold = format!("--threshold={at_most}");
        let output = tool(security.arg(threshold).arg(&path)).unwrap();
        if String::from_utf8_lossy(&output.stderr).contains("unrecognized option") {
            eprintln!("SKIPPED: systemd here is older than 250 and does not judge files");
            return;
        }
        succeeded("systemd-analyze security", &output);
    }
}

/// What the daemon and the installer rely on stands in the unit.
#[test]
fn the_unit_says_what_the_daemon_relies_on() {
    let text = fs::read_to_string(unit()).unwrap();
    for line in [
        "Type=notify",
        "StartLimitIntervalSec=0",
        "Restart=always",
        "RestartPreventExitStatus=2 3",
        "StateDirectory=harborforge-connector",
        "RuntimeDirectory=harborforge-connector",
        "LoadCredential=challenge_uuid:harborforge-connector.challenge_uuid",
        "LoadCredential=api_key:harborforge-connector.api_key",
    ] {
        assert!(text.lines().any(|have| have == line), "no {line}");
    }
    assert!(!text.contains("\nProcSubset="), "the host's figures would be hidden");
    let group = format!("Group={}", harborforge_connector::control::socket::GROUP);
    assert!(text.lines().any(|line| line == group));
}

#[test]
fn the_installer_installs_twice_and_leaves_what_it_says() {
    run(async {
        let monitor = monitor(plain()).await;
        let dir = tempfile::tempdir().unwrap();
        let challenge = dir.path().join("challenge");
        fs::write(&challenge, monitor.issue_challenge()).unwrap();
        let mut script = Command::new("sh");
        script.arg(source().join("tests/deploy/install.sh"));
        script.arg(env!("CARGO_BIN_EXE_harborforge-connector"));
        script.arg(monitor.url()).arg(challenge);
        let output = async_std::task::spawn_blocking(move || script.output().unwrap()).await;
        succeeded("tests/deploy/install.sh", &output);
        assert_eq!(monitor.journal(|books| books.counts().upgrades), 0, "a challenge was used");
    });
}
