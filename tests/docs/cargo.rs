//! The documentation's `cargo` lines: what they name is there. They are not run, since most of them
//! take minutes and one of them is the very run that this is a part of.

use std::fs;

use super::commands::{Fate, all, in_passing, lines};
use super::markdown::{block, files, root};

/// The packages of the workspace and their directories.
const PACKAGES: [(&str, &str); 3] = [
    ("harborforge-connector", ""),
    ("harborforge-storage", "storage"),
    ("harborforge-monitor", "tests/monitor"),
];

/// The word behind this one.
fn after<'a>(words: &[&'a str], flag: &str) -> Option<&'a str> {
    let at = words.iter().position(|word| *word == flag)?;
    words.get(at + 1).copied()
}

#[test]
fn what_cargo_is_told_to_run_is_there() {
    let mut all = all(Fate::Looked);
    all.extend(in_passing(Fate::Looked));
    assert!(all.len() >= 15, "{all:?}");
    for (place, line) in all {
        let words: Vec<&str> = line.words().take_while(|word| *word != "--").collect();
        if ["+nightly", "install"].contains(&words[1]) {
            // The fuzzer: see below.
            continue;
        }
        let known = ["test", "bench", "run", "build", "doc"];
        assert!(known.contains(&words[1]), "{place}: {line:?}: look at it, and add it here");
        let package = after(&words, "-p");
        let directories: Vec<_> = PACKAGES
            .iter()
            .filter(|(name, _)| match package {
                Some(package) => package == *name,
                // Without more, cargo takes the package it stands in.
                None => words.contains(&"--workspace") || *name == "harborforge-connector",
            })
            .map(|(_, directory)| root().join(directory))
            .collect();
        assert!(!directories.is_empty(), "{place}: no package {package:?}");
        let mut texts = String::new();
        if let Some(test) = after(&words, "--test") {
            let places = [format!("tests/{test}.rs"), format!("tests/{test}/main.rs")];
            let found = directories.iter().flat_map(|at| places.iter().map(|p| at.join(p)));
            let found: Vec<_> = found.filter(|path| path.is_file()).collect();
            assert_eq!(found.len(), 1, "{place}: {test}: {found:?}");
            // A test may keep its helpers beside it.
            for path in files(found[0].parent().unwrap(), "rs") {
                texts.push_str(&fs::read_to_string(path).unwrap());
            }
            let filter = words.last().unwrap();
            let all = texts.lines().filter(|line| line.trim_start().starts_with("fn "));
            let filters = *filter != test;
            assert!(!filters || all.into_iter().any(|f| f.contains(filter)), "{place}: {filter}");
        }
        if words.contains(&"--lib") {
            // What the fuzz targets and these tests share lies beside the targets.
            for path in ["src", "tests/fuzz"].iter().flat_map(|at| files(&root().join(at), "rs")) {
                texts.push_str(&fs::read_to_string(path).unwrap());
            }
        }
        if let Some(bench) = after(&words, "--bench") {
            let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
            assert!(
                manifest.contains(&format!("[[bench]]\nname = \"{bench}\"")),
                "{place}: {bench}"
            );
        }
        // A variable that nobody reads would promise what does not happen.
        for name in line.variables().filter(|name| *name != "TMPDIR") {
            assert!(texts.contains(&format!("\"{name}\"")), "{place}: nothing reads {name}");
        }
    }
}

#[test]
fn the_fuzz_target_shown_is_there() {
    let lines = lines(&block("docs/ARCHITECTURE.md", "cp Cargo.lock tests/fuzz/"));
    assert_eq!(lines[0].text, "cp Cargo.lock tests/fuzz/");
    assert!(root().join("Cargo.lock").is_file() && root().join("tests/fuzz/Cargo.toml").is_file());
    let words: Vec<&str> = lines[1].words().take_while(|word| *word != "--").collect();
    assert_eq!(words[..4], ["cargo", "+nightly", "fuzz", "run"]);
    assert_eq!(after(&words, "--fuzz-dir"), Some("tests/fuzz"));
    let target = words.last().unwrap();
    assert!(root().join(format!("tests/fuzz/fuzz_targets/{target}.rs")).is_file(), "{target}");
    assert!(root().join(format!("tests/fuzz/corpus/{target}")).is_dir(), "{target}");
}
