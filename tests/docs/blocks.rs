//! Every block of the documentation, and what holds it.
//!
//! A block is held by a rule or by the list below, which comes first:
//! - a configuration in TOML is read by the program's own reader (`settings.rs`),
//! - a screen under `<!-- screen: NAME -->` is compared by a test that names it,
//! - lines of shell are run, or are in the list of what cannot be (`commands.rs`, `cargo.rs`).

use std::fs;

use super::commands;
use super::markdown::{Block, all_blocks, files, root};

/// What holds a block.
enum Held {
    /// This test, in this file, compares it with what the program does.
    By(&'static str, &'static str),
    /// It is no example, or nothing can run it: why.
    NotRun(&'static str),
}
use Held::{By, NotRun};

const REPLAY: Held = By("tests/replay/screens.rs", "the_screens_in_the_documentation_are_real");
const SESSION: Held = By("tests/docs/session.rs", "every_command_shown_is_run");
const EVENTS: Held = By("tests/docs/protocol.rs", "the_messages_are_those_that_are_sent");
const FIGURES: &str = "figures of one machine; the command above them makes them again";

/// Document, first line, and what holds the block.
const BLOCKS: &[(&str, &str, Held)] = &[
    (
        "docs/examples/README.md",
        "sed 's/.*:\"//; s/\"}//' docs/examples/handshake.json | openssl base64 -d -A |",
        By("tests/examples.rs", "the_command_shown_prints_the_proof"),
    ),
    ("docs/OPERATIONS.md", "scrape_configs:", NotRun("Prometheus' own configuration")),
    (
        "README.md",
        "A Monitor at http://127.0.0.1:43257, the daemon's files in /tmp/harborforge-demo-Dnu2fR",
        By("src/cli/demo/mod.rs", "the_documents_show_what_the_demo_prints"),
    ),
    (
        "docs/ARCHITECTURE.md",
        "collector ──Sample──▶ store ──append, fsync──▶ queue on disk          src/collector, src/store.rs, storage/",
        NotRun("a drawing"),
    ),
    (
        "docs/ARCHITECTURE.md",
        "cp Cargo.lock tests/fuzz/",
        By("tests/docs/cargo.rs", "the_fuzz_target_shown_is_there"),
    ),
    (
        "docs/BENCHMARKS.md",
        "400-byte records in /tmp                        per second",
        NotRun(FIGURES),
    ),
    ("docs/BENCHMARKS.md", "what the connector costs on this machine", NotRun(FIGURES)),
    ("docs/BENCHMARKS.md", "how it grows with what waits", NotRun(FIGURES)),
    ("docs/BENCHMARKS.md", "drain of waiting samples of 500 bytes over loopback", NotRun(FIGURES)),
    (
        "docs/BENCHMARKS.md",
        "1,000,000 samples of 400 bytes, daemon running             RSS MiB peak MiB",
        NotRun(FIGURES),
    ),
    ("docs/BENCHMARKS.md", "1000000 samples of 400 bytes in 20 cycles, 14.1 s", NotRun(FIGURES)),
    (
        "docs/BENCHMARKS.md",
        "1000000 samples in 20 cycles with an outage each, 18.0 s",
        NotRun(FIGURES),
    ),
    (
        "docs/CONFIGURATION.md",
        "harborforge-connector: configuration, 2 faults:",
        By("src/config/tests/table.rs", "the_documentations_example_and_errors_are_real"),
    ),
    (
        "docs/OPERATIONS.md",
        "$ harborforge-connector demo | tail -n 6",
        By("src/cli/demo/mod.rs", "the_documents_show_what_the_demo_prints"),
    ),
    (
        "docs/OPERATIONS.md",
        "#!/bin/sh",
        By("tests/docs/commands.rs", "the_dispatcher_sends_the_signal_when_a_network_comes_up"),
    ),
    (
        "docs/OPERATIONS.md",
        "map $http_upgrade $connection_upgrade { default upgrade; '' ''; }",
        By("tests/websocket/nginx.rs", "through_nginx"),
    ),
    (
        "docs/OPERATIONS.md",
        "$ harborforge-connector dump --state all --seq 99..104 --format table",
        By("tests/dump.rs", "the_screen_in_the_handbook_is_a_real_one"),
    ),
    (
        "docs/OPERATIONS.md",
        "$ harborforge-connector dump --summary --state all",
        By("tests/dump.rs", "the_screen_in_the_handbook_is_a_real_one"),
    ),
    (
        "docs/OPERATIONS.md",
        r#"{"seq":42,"state":"pending","sampled_at":"2026-03-11T21:00:00Z","size":214,"attempts":0,"last_error":null,"payload":{"identifier":"vps.t1","seq":42}}"#,
        SESSION,
    ),
    ("docs/OPERATIONS.md", r#"{"seq":42,"state":"sent","at":"2026-03-11T21:00:01Z"}"#, SESSION),
    (
        "docs/OPERATIONS.md",
        "$ harborforge-connector purge --rejected --sent --yes | cat",
        By("tests/purge.rs", "the_example_in_the_handbook_is_a_real_one"),
    ),
    ("docs/OPERATIONS.md", "$ harborforge-connector replay --dry-run", REPLAY),
    ("docs/OPERATIONS.md", "$ harborforge-connector replay", REPLAY),
    ("docs/OPERATIONS.md", "$ harborforge-connector replay --sent --seq 1..", REPLAY),
    ("docs/OPERATIONS.md", "$ harborforge-connector replay --sent --seq 38.. | cat", REPLAY),
    (
        "docs/OPERATIONS.md",
        "$ harborforge-connector verify",
        By("tests/verify.rs", "the_screen_in_the_handbook_is_a_real_one"),
    ),
    (
        "docs/OPERATIONS.md",
        "ok   disk: the data directory may take up to 1166 MiB, takes 3 MiB, free are 20480 MiB",
        By("src/cli/check/tests.rs", "the_documentation_shows_real_lines"),
    ),
    (
        "docs/PROTOCOL.md",
        r#"{"identifier":I,"challenge_uuid":C,"nonce":N,"ts":T}"#,
        By("tests/docs/protocol.rs", "the_proof_is_the_one_that_is_made"),
    ),
    (
        "docs/PROTOCOL.md",
        r#"{"event":"server.hello","payload":{"identifier":..,"openclaw_version":..,"agents":[..],"connector_version":..}}"#,
        EVENTS,
    ),
    (
        "docs/PROTOCOL.md",
        "{",
        By("tests/docs/protocol.rs", "the_telemetry_object_is_the_one_that_is_sent"),
    ),
];

/// Whether some test names a screen, as those do that compare it.
fn is_compared(screen: &str) -> bool {
    let literal = format!("\"{screen}\"");
    let mut all = files(&root().join("tests"), "rs");
    all.extend(files(&root().join("src"), "rs"));
    all.iter().any(|path| fs::read_to_string(path).unwrap().contains(&literal))
}

/// Why nothing holds a block, if that is so.
fn fault(block: &Block) -> Option<String> {
    let listed =
        BLOCKS.iter().find(|(path, first, _)| block.path == *path && block.first() == *first);
    if let Some((_, _, held)) = listed {
        return match held {
            NotRun(_) => None,
            By(path, test) => {
                let text = fs::read_to_string(root().join(path)).unwrap_or_default();
                let there = text.contains(&format!("fn {test}()"));
                (!there).then(|| format!("{path} has no test {test}"))
            }
        };
    }
    if let Some(screen) = block.mark.as_deref().and_then(|mark| mark.strip_prefix("screen: ")) {
        return (!is_compared(screen)).then(|| format!("no test compares the screen {screen:?}"));
    }
    if block.language.as_deref() == Some("toml") {
        return None;
    }
    if commands::is_shell(block) {
        let unknown = commands::lines(block).into_iter().find(|line| line.program().is_none());
        return unknown.map(|line| {
            format!("{:?}: add its program to PROGRAMS in tests/docs/commands.rs", line.text)
        });
    }
    Some("add it to BLOCKS in tests/docs/blocks.rs, with the test that compares it".to_owned())
}

#[test]
fn every_block_is_held() {
    let faults: Vec<String> = all_blocks()
        .iter()
        .filter_map(|block| {
            let fault = fault(block)?;
            Some(format!("{}:{}: {:?}: {fault}", block.path, block.line, block.first()))
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_list_has_nothing_that_is_gone() {
    let blocks = all_blocks();
    for (path, first, held) in BLOCKS {
        if let NotRun(reason) = held {
            assert!(!reason.is_empty(), "{path}: {first:?} has no reason");
        }
        let there = blocks.iter().any(|b| b.path == *path && b.first() == *first);
        assert!(there, "{path} has no block that begins with {first:?}: take it out of BLOCKS");
    }
}
