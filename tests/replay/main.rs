//! `replay` end to end: as the sender, beside a running daemon, on a terminal and in a pipe, for
//! the backlog, for delivered and for rejected samples.
//!
//! One program for all of it, so that what has to wait waits at the same time.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stderr, reason = "a test that cannot run here says so")]

mod alone;
mod beside;
mod screens;
#[path = "../support/mod.rs"]
mod support;
mod users;

use std::process::Command;

use serde_json::Value;

use support::{Site, outcome};

/// `replay` with these arguments.
fn replay(site: &Site, arguments: &[&str]) -> Command {
    let mut command = site.command("replay");
    command.args(arguments);
    command
}

/// Runs it to its end in a pipe: exit code, the summary, what was said.
fn replayed(site: &Site, arguments: &[&str]) -> (i32, Value, String) {
    let (code, stdout, stderr) = outcome(&mut replay(site, arguments));
    for secret in site.secrets() {
        assert!(!stderr.contains(secret.as_str()) && !stdout.contains(secret.as_str()));
    }
    assert!(stdout.lines().count() <= 1, "{stdout}");
    (code, serde_json::from_str(&stdout).unwrap_or(Value::Null), stderr)
}

/// The same, to a good end with nothing left: the summary.
fn done(site: &Site, arguments: &[&str]) -> Value {
    let (code, summary, stderr) = replayed(site, arguments);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!((&summary["ended"], &summary["left"]), (&"done".into(), &0.into()), "{summary}");
    assert_eq!(summary["next"], Value::Null);
    summary
}
