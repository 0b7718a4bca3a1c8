//! Links, anchors, sections, files and tests that the documentation names: each is there.

use std::fs;
use std::path::Path;

use super::markdown::{Document, anchors, documents, files, heading, quoted, root, split, targets};

/// Faults of all documents, each with its place.
fn faults(find: impl Fn(&Document, &str) -> Vec<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for document in documents() {
        for line in split(&document).1 {
            for fault in find(&document, line.text) {
                faults.push(format!("{}:{}: {fault}", document.path, line.line));
            }
        }
    }
    faults
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_link_and_anchor_resolves() {
    let documents = documents();
    let mut seen = 0;
    for document in &documents {
        seen += document.text.lines().map(|line| targets(line).len()).sum::<usize>();
    }
    assert!(seen >= 8, "{seen} links were found");
    assert_none(&faults(|document, line| {
        let outside = |target: &&str| !target.contains("://") && !target.starts_with("mailto:");
        let lead_nowhere = |target: &&str| {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let here = Path::new(&document.path).parent().unwrap();
            let place =
                if path.is_empty() { document.path.clone().into() } else { here.join(path) };
            let place = root().join(place);
            let Ok(place) = place.canonicalize() else { return true };
            let same =
                |other: &&Document| root().join(&other.path).canonicalize().unwrap() == place;
            let target = documents.iter().find(same);
            !anchor.is_empty() && !target.is_some_and(|d| anchors(d).iter().any(|a| a == anchor))
        };
        let all = targets(line).into_iter().filter(outside).filter(lead_nowhere);
        all.map(|target| format!("nothing is at {target}")).collect()
    }));
}

/// `(see "Enrol")` names a heading of the same document.
#[test]
fn every_section_that_is_named_is_there() {
    assert_none(&faults(|document, line| {
        let names = line.split("see \"").skip(1).filter_map(|rest| rest.split_once('"'));
        let there = |name: &str| document.text.lines().any(|line| heading(line) == Some(name));
        names
            .filter(|(name, _)| !there(name))
            .map(|(name, _)| format!("no section {name:?}"))
            .collect()
    }));
}

/// Whether a word is a path in this repository, by where it begins.
fn is_path(word: &str) -> bool {
    let ours = ["src/", "tests/", "storage/", "docs/", "deploy/", ".ci/"];
    ours.iter().any(|start| word.starts_with(start)) && !word.contains([' ', '*', '<'])
}

#[test]
fn every_file_that_is_named_is_there() {
    let mut seen = 0;
    for document in documents() {
        seen += document.text.lines().flat_map(quoted).filter(|word| is_path(word)).count();
    }
    assert!(seen >= 20, "{seen} paths were found");
    assert_none(&faults(|_, line| {
        let missing = |word: &&str| is_path(word) && !root().join(word).exists();
        quoted(line).into_iter().filter(missing).map(|word| format!("no file {word}")).collect()
    }));
}

/// The code refers to `docs/PROTOCOL.md 5`: the document is there, and has that section.
#[test]
fn what_the_code_refers_to_is_there() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for directory in ["src", "storage/src", "tests"] {
        for path in files(&root().join(directory), "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for (at, rest) in text.match_indices("docs/") {
                let rest = &text[at + rest.len()..];
                let Some((name, after)) = rest.split_once(".md") else { continue };
                if name.is_empty() || !name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') {
                    continue;
                }
                seen += 1;
                let document = fs::read_to_string(root().join(format!("docs/{name}.md")));
                let number = after.strip_prefix(' ').unwrap_or_default();
                let digits = number.bytes().take_while(u8::is_ascii_digit).count();
                let section = format!("\n## {}. ", &number[..digits]);
                let there = document
                    .is_ok_and(|text| name != "PROTOCOL" || digits == 0 || text.contains(&section));
                if !there {
                    wrong.push(format!("{}: docs/{name}.md {}", path.display(), &number[..digits]));
                }
            }
        }
    }
    assert!(seen >= 20, "{seen} references were found");
    assert_none(&wrong);
}
