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

use harborforge_monitor::{Capability, Mode, Monitor, Options, Tls};
use support::{PATIENCE, monitor, plain, run};

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
    let all: Vec<_> = ["deploy", "deploy/debian", "tests", "tests/boot", "tests/deploy", ".ci"]
        .into_iter()
        .flat_map(scripts)
        .collect();
    let boots = ["tests/boot/boot.sh", "tests/boot/qemu.sh", "tests/boot/steps.sh"];
    for one in ["deploy/install.sh", ".ci/run"].into_iter().chain(boots) {
        assert!(all.contains(&source().join(one)), "{one} is not in {all:?}");
    }
    let Some(output) = tool(Command::new("shellcheck").current_dir(source()).args(&all)) else {
        return;
    };
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

/// Runs a script with the program, a Monitor and a challenge, to its good end.
async fn deployed(name: &str, monitor: &Monitor) {
    let dir = tempfile::tempdir().unwrap();
    let challenge = dir.path().join("challenge");
    fs::write(&challenge, monitor.issue_challenge()).unwrap();
    let mut script = Command::new("sh");
    script.arg(source().join(name)).arg(env!("CARGO_BIN_EXE_harborforge-connector"));
    script.arg(monitor.url()).arg(challenge);
    let output = async_std::task::spawn_blocking(move || script.output().unwrap()).await;
    succeeded(name, &output);
}

#[test]
fn the_installer_installs_twice_and_leaves_what_it_says() {
    run(async {
        let monitor = monitor(plain()).await;
        deployed("tests/deploy/install.sh", &monitor).await;
        assert_eq!(monitor.journal(|books| books.counts().upgrades), 0, "a challenge was used");
    });
}

/// The image's last stage, replayed: as root, since it changes its root and its user.
#[test]
fn the_image_runs_delivers_and_tells_its_health() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: replaying the image takes root");
        return;
    }
    run(async {
        let monitor = monitor(plain()).await;
        deployed("tests/deploy/image.sh", &monitor).await;
    });
}

/// Exit code and verdicts of `tests/try-backend.sh`; `None`, said loudly, without its tools.
async fn try_backend(url: String, variables: Vec<(&'static str, String)>) -> Option<(i32, String)> {
    for (name, version) in [("curl", "--version"), ("openssl", "version")] {
        tool(Command::new(name).arg(version))?;
    }
    let mut script = Command::new("sh");
    script.arg(source().join("tests/try-backend.sh")).arg(url).envs(variables);
    script.env("HARBORFORGE_TRY_PATIENCE", PATIENCE.as_secs().to_string());
    script.env("no_proxy", "*");
    let output = async_std::task::spawn_blocking(move || script.output().unwrap()).await;
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.stderr.is_empty(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    Some((output.status.code().unwrap(), said))
}

fn challenge(monitor: &Monitor) -> (&'static str, String) {
    ("HARBORFORGE_CHALLENGE_UUID", monitor.issue_challenge())
}

#[test]
fn a_backend_is_tried_with_curl_and_openssl_alone() {
    run(async {
        let bare = monitor(plain()).await;
        let Some((code, said)) = try_backend(bare.url(), vec![challenge(&bare)]).await else {
            return;
        };
        assert_eq!(code, 0, "{said}");
        for line in ["ok    handshake", "ok    delivery: sample 1", "ok    heartbeat: HTTP 200"] {
            assert!(said.contains(line), "no {line:?}:\n{said}");
        }
        assert!(said.contains("ok    proof used twice: refused"), "{said}");
        bare.journal(|books| assert_eq!((books.counts().links, books.counts().unique), (1, 2)));

        // With TLS, a path before the endpoints, and all extensions.
        let whole = monitor(Options {
            tls: Tls::Good,
            path_prefix: "/harbor".to_owned(),
            capabilities: [Capability::Ack, Capability::Resume, Capability::Batch].into(),
            ..plain()
        })
        .await;
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        fs::write(&ca, whole.ca_pem().unwrap()).unwrap();
        let ca = ("HARBORFORGE_CA_FILE", ca.to_str().unwrap().to_owned());
        let tried = try_backend(whole.url(), vec![challenge(&whole), ca]).await;
        let (code, said) = tried.unwrap();
        assert_eq!(code, 0, "{said}");
        for line in ["acknowledged", "ok    resume", "ok    batch: HTTP 200, 2 samples"] {
            assert!(said.contains(line), "no {line:?}:\n{said}");
        }
        // Whose certificate it does not trust, it tells nothing.
        let (code, said) = try_backend(whole.url(), vec![challenge(&whole)]).await.unwrap();
        assert_eq!(code, 5, "{said}");

        let old = monitor(Options { mode: Mode::ApiKey("k-1".to_owned()), ..plain() }).await;
        let file = dir.path().join("key");
        fs::write(&file, "k-1\n").unwrap();
        let key = ("HARBORFORGE_API_KEY_FILE", file.to_str().unwrap().to_owned());
        let (code, said) = try_backend(old.url(), vec![key]).await.unwrap();
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("ok    wrong API key: refused"), "{said}");
    });
}

#[test]
fn a_backend_that_is_wrong_is_told_so() {
    run(async {
        let monitor = monitor(plain()).await;
        let unknown =
            ("HARBORFORGE_CHALLENGE_UUID", "8f14e45f-ceea-467f-9575-1d2f3a4b5c6d".to_owned());
        let Some((code, said)) = try_backend(monitor.url(), vec![unknown.clone()]).await else {
            return;
        };
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("FAIL  handshake: not accepted"), "{said}");
        assert!(said.contains("FAIL  heartbeat: HTTP 403"), "{said}");
        let url = monitor.url();
        drop(monitor);
        let (code, said) = try_backend(url, vec![unknown]).await.unwrap();
        assert_eq!(code, 5, "{said}");
        assert!(said.contains("FAIL  public key: not reached"), "{said}");
    });
}
