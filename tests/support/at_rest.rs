//! A directory with a queue at rest, and the program as it looks at one.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use harborforge_storage::Stamp;

/// 2026-03-11T21:00:00Z
pub const START: u64 = 1_773_262_800_000;

/// One for each half minute after it.
pub fn stamp(seq: u64) -> Stamp {
    Stamp { wall_ms: START + seq * 30_000, boot_ms: seq * 30_000, boot_id: [7; 16] }
}

/// Without a queue; the data directory would be `data` below it.
pub fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    // A configuration that is named has to be there.
    fs::write(place.path().join("config.toml"), "").unwrap();
    place
}

/// The program in an environment that names the place and nothing else, its outputs piped.
pub fn program(place: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harborforge-connector"));
    command
        .env_clear()
        .env("TMPDIR", place)
        .env("HARBORFORGE_DATA_DIR", place.join("data"))
        .env("HARBORFORGE_IDENTIFIER", "vps.t1")
        .env("HARBORFORGE_CONFIG", place.join("config.toml"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// No private copy of the queue.
pub fn nothing_is_left_behind(place: &Path) {
    let beside: Vec<_> = fs::read_dir(place)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != "data" && name != "config.toml")
        .collect();
    assert_eq!(beside, [""; 0], "a private copy was left behind");
}
