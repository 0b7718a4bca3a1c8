//! `verify` of a queue at rest: the real program over real files.

// A test may say in one word what must hold; clippy only knows that inside `#[test]`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/alone.rs"]
mod alone;
#[path = "support/at_rest.rs"]
mod at_rest;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harborforge_storage::{Confirmation, GapReason, NewRecord, Options, Queue};
use serde_json::Value;

use alone::{alone, output, spawn};
use at_rest::{START, stamp};

fn options() -> Options {
    Options { generation_max_records: 100, generation_max_bytes: 1 << 30, ..Options::default() }
}

/// 350 samples of 300 bytes: 1 to 100 sent, 120 rejected, 131 to 140 given up, the rest pending.
fn filled(dir: &Path) {
    let _alone = alone();
    let (mut queue, _) = Queue::open(dir, options(), stamp(0)).unwrap();
    for seq in 1..=350 {
        let payload = format!("{{\"cpu_pct\":{:<286}.5}}", seq % 100);
        assert_eq!(payload.len(), 300);
        queue.append(&[NewRecord { stamp: stamp(1), payload: payload.as_bytes() }]).unwrap();
        queue.maintain(stamp(2)).unwrap();
    }
    queue.reject(120, "HTTP 422: odd", stamp(3)).unwrap();
    queue.acknowledge(110, Confirmation { wall_ms: START, tag: 2 }).unwrap();
    queue.give_up(131..=140, GapReason::QueueFull, false, stamp(4)).unwrap();
    queue.maintain(stamp(5)).unwrap();
    queue.close().unwrap();
}

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    /// A place without a queue.
    fn empty() -> Self {
        Self { dir: at_rest::place() }
    }

    fn new() -> Self {
        let bench = Self::empty();
        filled(&bench.data_dir());
        bench
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn queue(&self, name: &str) -> PathBuf {
        self.data_dir().join("queue").join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        at_rest::program(self.dir.path(), args)
    }

    fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let Output { status, stdout, stderr } = output(&mut self.command(args));
        (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }

    /// The lines of `verify` in a pipe.
    fn verified(&self) -> (Option<i32>, Vec<Value>, String) {
        let (code, out, err) = self.run(&["verify"]);
        (code, out.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), err)
    }
}

/// The generation of 201 to 300 loses its database.
fn break_third(bench: &Bench) {
    fs::remove_file(bench.queue("00000000000000000201-00000003.pending").join("db")).unwrap();
}

/// Everything below, with what would show a change.
fn tree(dir: &Path) -> Vec<(PathBuf, Option<Vec<u8>>, i64, i64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::metadata(&path).unwrap();
        if metadata.is_dir() {
            found.extend(tree(&path));
        }
        let content = metadata.is_file().then(|| fs::read(&path).unwrap());
        found.push((path, content, metadata.mtime(), metadata.mtime_nsec()));
    }
    found.sort();
    found
}

#[test]
fn a_sound_queue_in_a_pipe_is_a_line_for_each_generation_and_one_for_the_whole() {
    let bench = Bench::new();
    let before = tree(&bench.data_dir());
    let (code, lines, said) = bench.verified();
    assert_eq!((code, said.as_str()), (Some(0), ""), "{lines:?}");
    assert!(tree(&bench.data_dir()) == before, "verify changed the queue");
    at_rest::nothing_is_left_behind(bench.dir.path());

    let (whole, generations) = lines.split_last().unwrap();
    assert_eq!(generations.len(), 5);
    assert!(generations.iter().all(|line| line["type"] == "generation"));
    let sent = &generations[0];
    assert_eq!(sent["name"], "00000000000000000001-00000001.sent");
    assert_eq!((&sent["set"], &sent["records"]), (&"sent".into(), &100.into()));
    assert_eq!((&sent["bytes"], &sent["damaged"]), (&30_000.into(), &Value::Array(Vec::new())));
    assert_eq!((&whole["type"], &whole["good"]), (&"queue".into(), &true.into()));
    let figures = ["settled", "pending", "rejected", "in_gaps", "lost", "next_seq"];
    let figures: Vec<_> = figures.iter().map(|name| whole[name].as_u64().unwrap()).collect();
    assert_eq!(figures, [110, 229, 1, 10, 0, 351]);
    assert_eq!(whole["files"]["cursor"], "good");
}

#[test]
fn what_is_wrong_is_named_and_exits_with_4() {
    let bench = Bench::new();
    break_third(&bench);
    let (code, lines, said) = bench.verified();
    assert_eq!(code, Some(4));
    let (whole, generations) = lines.split_last().unwrap();
    assert!(generations[2]["unreadable"].as_str().unwrap().contains("gone"), "{lines:?}");
    assert_eq!(generations[2]["missing"][0]["to"], 300);
    assert_eq!((&whole["good"], &whole["lost"]), (&false.into(), &100.into()));
    assert!(said.contains("WRONG: 1 of 5 generations; 100 samples are lost"), "{said}");
    assert!(said.contains("start the daemon"), "{said}");

    // People get the same in words, once.
    let (code, out, said) = bench.run(&["verify", "--format", "table"]);
    assert_eq!((code, said.as_str()), (Some(4), ""));
    assert!(out.contains("CANNOT BE READ"), "{out}");
    assert!(out.contains("\nWRONG: 1 of 5"), "{out}");

    fs::write(bench.queue("cursor"), [9; 8192]).unwrap();
    let (code, lines, said) = bench.verified();
    assert_eq!(code, Some(4));
    assert_eq!(lines.last().unwrap()["files"]["cursor"], "damaged");
    assert!(said.contains("cursor (damaged)"), "{said}");
}

/// The screen in docs/OPERATIONS.md is what the program prints, but for the bytes on disk, which
/// are the file system's.
#[test]
fn the_screen_in_the_handbook_is_a_real_one() {
    let bench = Bench::new();
    break_third(&bench);
    let (_, shown, _) = bench.run(&["verify", "--format", "table"]);
    let dir = bench.data_dir().display().to_string();
    let shown = shown.replace(&dir, "/var/lib/harborforge-connector");
    let doc = include_str!("../docs/OPERATIONS.md");
    let after = doc.split("    $ harborforge-connector verify\n").nth(1).expect("the example");
    let told: Vec<_> = after.lines().take_while(|line| line.starts_with("    ")).collect();
    let fields = |line: &str| {
        let mut fields: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        if fields[0].starts_with("000") {
            fields[4] = "bytes on disk".to_owned();
        }
        fields
    };
    let told: Vec<_> = told.iter().map(|line| fields(line)).collect();
    let shown_fields: Vec<_> = shown.lines().map(fields).collect();
    assert_eq!(shown_fields, told, "docs/OPERATIONS.md should show:\n{shown}");
}

#[test]
fn nothing_queued_is_sound_and_a_lost_lock_file_is_no_empty_queue() {
    let bench = Bench::empty();
    let (code, lines, said) = bench.verified();
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert_eq!((&lines[0]["good"], &lines[0]["nothing_queued"]), (&true.into(), &true.into()));
    let (code, out, _) = bench.run(&["verify", "--format", "table"]);
    let expected = format!("nothing was ever queued in {}\n", bench.data_dir().display());
    assert_eq!((code, out), (Some(0), expected));

    let bench = Bench::new();
    fs::remove_file(bench.queue("LOCK")).unwrap();
    let (code, out, said) = bench.run(&["verify"]);
    assert_eq!((code, out.as_str()), (Some(4), ""));
    assert!(said.contains("LOCK is missing") && said.contains("start the daemon"), "{said}");
}

#[test]
fn a_queue_that_is_in_use_names_its_holder() {
    let bench = Bench::new();
    let guard = alone();
    let (queue, _) = Queue::open(&bench.data_dir(), options(), stamp(700)).unwrap();
    let child = bench.command(&["verify"]).spawn().unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    queue.close().unwrap();
    drop(guard);
    let (code, out) = (status.code(), String::from_utf8(stdout).unwrap());
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!((code, out.as_str()), (Some(4), ""));
    assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
    assert!(said.contains("no daemon that does answers on"), "{said}");
}

#[test]
fn a_configuration_that_is_wrong_exits_with_3() {
    let bench = Bench::new();
    let (code, _, said) = bench.run(&["--set", "colour=1", "verify"]);
    assert_eq!(code, Some(3), "{said}");
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let bench = Bench::new();
    let mut child = spawn(&mut bench.command(&["verify"]));
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

/// Nothing of what a newer version wrote is touched, by no command.
#[test]
fn a_newer_format_is_refused_with_what_to_do() {
    let bench = Bench::new();
    fs::write(bench.queue("FORMAT"), "harborforge-queue 2\n").unwrap();
    let before = tree(&bench.data_dir());
    let backend = ["--set", "backend_url=http://127.0.0.1:9/", "--set", "transport=http"];
    fs::write(
        bench.dir.path().join("config.toml"),
        "challenge_uuid = \"8f14e45f-ceea-467f-9575-1d2f3a4b5c6d\"\n",
    )
    .unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(bench.dir.path().join("config.toml"), mode).unwrap();
    for command in ["run", "dump", "verify"] {
        let (code, out, said) = bench.run(&[backend.as_slice(), &[command]].concat());
        assert_eq!((code, out.as_str()), (Some(4), ""), "{command}: {said}");
        for part in ["FORMAT is of format 2", "knows up to 1", "install the newer version again"] {
            assert!(said.contains(part), "{command}: {said}");
        }
    }
    assert!(tree(&bench.data_dir()).iter().zip(&before).all(|(now, was)| {
        // `run` notes its process id in the lock.
        now.0.ends_with("LOCK") || now.1 == was.1
    }));
}
