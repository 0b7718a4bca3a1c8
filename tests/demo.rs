//! The demo, as a newcomer runs it: it ends well and leaves nothing behind.

// A test may say in one word what must hold; clippy only knows that inside `#[test]`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::process::Command;

#[test]
fn the_demo_ends_well_and_leaves_nothing_behind() {
    let scratch = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_harborforge-connector"))
        .arg("demo")
        .env("TMPDIR", scratch.path())
        // What the user has configured plays no part.
        .env("HARBORFORGE_IDENTIFIER", "somebody else")
        .env("HARBORFORGE_REPORT_INTERVAL", "nonsense")
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}\n{}", String::from_utf8_lossy(&output.stderr));
    for scene in ["the Monitor goes down", "kill -9", "finds its queue", "none lost"] {
        assert!(shown.contains(scene), "{scene}: {shown}");
    }
    // The fallback was seen, and the queue was seen to grow during the outage.
    assert!(shown.contains("heartbeat  "), "{shown}");
    assert!(shown.contains('█'), "{shown}");
    let left: Vec<_> = fs::read_dir(scratch.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
