//! A child's calls that change files, counted; at a chosen one it is killed, stopped or refused.
//!
//! The layer is a small library in C (`calls.c`), loaded before the C library of the child. It
//! needs a C compiler and a dynamically linked Linux program; where it cannot be had, tests say
//! that they are skipped.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The layer, built at the first call; none where it cannot be had.
pub fn layer() -> Option<&'static Path> {
    static LAYER: OnceLock<Option<PathBuf>> = OnceLock::new();
    LAYER.get_or_init(build).as_deref()
}

fn build() -> Option<PathBuf> {
    if !cfg!(all(target_os = "linux", target_env = "gnu")) {
        return None;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/calls.c");
    let room = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let library = room.join("calls.so");
    // Test binaries may build it at the same time.
    let own = room.join(format!("calls-{}.so", std::process::id()));
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&own, &source])
        .arg("-ldl")
        .status();
    if !built.ok()?.success() {
        return None;
    }
    fs::rename(&own, &library).ok()?;
    Some(library)
}

/// What happens at the chosen calls; see `calls.c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    KillBefore,
    KillAfter,
    /// Within a write that spans pages, at a page's end; after any other call.
    KillAmid,
    /// Before the call, and again after it.
    StopAround,
    /// With this error number.
    Refuse(u64),
}

/// Steers the layer in one child.
pub struct Control {
    file: File,
    path: PathBuf,
    below: PathBuf,
    log: PathBuf,
    words: PathBuf,
}

impl Control {
    /// For a child that works in `below`; `room` takes the files this needs.
    pub fn new(room: &Path, below: &Path) -> Self {
        let path = room.join("calls.control");
        let file =
            File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(4096).unwrap();
        let (log, words) = (room.join("calls.log"), room.join("words"));
        Self { file, path, below: below.to_path_buf(), log, words }
    }

    /// Acts on the calls `first..=last`, counted from now.
    pub fn act(&self, first: u64, last: u64, action: Action) {
        let (number, error) = match action {
            Action::KillBefore => (1, 0),
            Action::KillAfter => (2, 0),
            Action::KillAmid => (3, 0),
            Action::StopAround => (4, 0),
            Action::Refuse(error) => (5, error),
        };
        let from = self.count();
        // The first number last: from then on it holds.
        for (slot, value) in [(2, from + last), (3, number), (4, error), (1, from + first)] {
            self.file.write_all_at(&u64::to_ne_bytes(value), slot * 8).unwrap();
        }
    }

    /// Acts on nothing any more.
    pub fn rest(&self) {
        self.file.write_all_at(&[0; 8], 8).unwrap();
    }

    /// Calls so far.
    pub fn count(&self) -> u64 {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, 0).unwrap();
        u64::from_ne_bytes(bytes)
    }

    /// Puts the layer before a child's C library.
    pub fn apply(&self, command: &mut Command, with_log: bool) {
        command
            .env("LD_PRELOAD", layer().unwrap())
            .env("CALLS_CONTROL", &self.path)
            .env("CALLS_BELOW", &self.below);
        if with_log {
            command.env("CALLS_LOG", &self.log);
        }
    }

    /// Where the child's error output goes.
    pub fn words(&self) -> File {
        File::create(&self.words).unwrap()
    }

    /// What the child wrote there.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.words).unwrap_or_default()
    }

    /// The calls that were logged, in order: name and path.
    pub fn logged(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(&self.log).unwrap();
        let mut calls: Vec<(u64, String, String)> = text
            .lines()
            .map(|line| {
                let mut words = line.splitn(3, ' ');
                let number = words.next().unwrap().parse().unwrap();
                (number, words.next().unwrap().to_owned(), words.next().unwrap().to_owned())
            })
            .collect();
        calls.sort();
        calls.into_iter().map(|(_, name, path)| (name, path)).collect()
    }
}
