//! The log as operators meet it: each line that asks for attention is in the handbook and each one
//! of the handbook exists; filters by module work; a line says which try it belongs to.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use harborforge_monitor::{Fault, Route};

use support::{Line, Site, counted, has_all, monitor, plain, real_time, run};

/// A message as the source or the handbook has it.
#[derive(Debug, Clone)]
struct Message {
    level: String,
    pattern: Vec<Piece>,
    place: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Piece {
    Char(char),
    /// Whatever stands here: `{}` in the source, `...` in the handbook.
    Any,
}

/// Whether some text is both.
fn meet(one: &[Piece], other: &[Piece]) -> bool {
    match (one, other) {
        ([], rest) | (rest, []) => rest.iter().all(|piece| *piece == Piece::Any),
        ([Piece::Any, ones @ ..], others) | (others, [Piece::Any, ones @ ..]) => {
            meet(ones, others) || meet_after(one, other)
        }
        ([a, ones @ ..], [b, others @ ..]) => a == b && meet(ones, others),
    }
}

/// The first of them is [`Piece::Any`] and takes one more of the other.
fn meet_after(one: &[Piece], other: &[Piece]) -> bool {
    match (one, other) {
        ([Piece::Any, ..], [_, rest @ ..]) => meet(one, rest),
        ([_, rest @ ..], [Piece::Any, ..]) => meet(rest, other),
        _ => false,
    }
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if name.ends_with(".rs") && !name.contains("test") {
            found.push(path);
        }
    }
}

/// A literal's text behind its opening quote, and where it ends.
fn literal(text: &str) -> (Vec<Piece>, usize) {
    let mut pieces = Vec::new();
    let mut rest = text.char_indices().peekable();
    while let Some((at, next)) = rest.next() {
        match next {
            '"' => return (pieces, at + 1),
            '\\' => match rest.next().unwrap().1 {
                '\n' => while rest.next_if(|(_, c)| c.is_whitespace()).is_some() {},
                escaped => pieces.push(Piece::Char(escaped)),
            },
            '{' => {
                rest.find(|(_, c)| *c == '}').unwrap();
                pieces.push(Piece::Any);
            }
            other => pieces.push(Piece::Char(other)),
        }
    }
    panic!("no end: {text}");
}

/// The message among the arguments of a macro, that follow its parenthesis: a literal that stands
/// alone.
fn message(arguments: &str) -> Option<Vec<Piece>> {
    let (mut depth, mut before, mut at) = (0, ',', 0);
    while let Some(next) = arguments[at..].chars().next() {
        at += next.len_utf8();
        match next {
            '"' => {
                let (pieces, length) = literal(&arguments[at..]);
                at += length;
                let after = arguments[at..].trim_start().chars().next();
                if depth == 0 && before == ',' && matches!(after, Some(',' | ')')) {
                    return Some(pieces);
                }
            }
            '(' | '{' | '[' => depth += 1,
            ')' if depth == 0 => return None,
            ')' | '}' | ']' => depth -= 1,
            _ => {}
        }
        if !next.is_whitespace() {
            before = next;
        }
    }
    None
}

fn of_the_source() -> Vec<Message> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    sources(&root.join("storage/src"), &mut files);
    let mut found = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("\nmod tests {").next().unwrap();
        for level in ["error", "warn", "info"] {
            for (at, start) in code.match_indices(&format!("{level}!(")) {
                let line = code[..at].lines().count().max(1);
                let place = format!("{}:{line}", path.strip_prefix(root).unwrap().display());
                let arguments = &code[at + start.len()..];
                let pattern = message(arguments)
                    .unwrap_or_else(|| panic!("{place}: a log line without a message of its own"));
                found.push(Message { level: level.to_owned(), pattern, place });
            }
        }
    }
    found
}

/// Messages of the handbook, each with the levels of its row.
fn of_the_handbook() -> Vec<(Message, Vec<String>)> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATIONS.md"));
    let text = text.unwrap();
    let (_, section) = text.split_once("\n## What the log lines mean\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut found = Vec::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = row.split(" | ").collect();
        let levels: Vec<String> = cells[1].split(", ").map(str::to_owned).collect();
        for said in cells[0].split('`').skip(1).step_by(2) {
            let (words, open) = said.strip_suffix("...").map_or((said, false), |it| (it, true));
            let mut pattern: Vec<_> = words.chars().map(Piece::Char).collect();
            pattern.extend(open.then_some(Piece::Any));
            let message = Message { level: String::new(), pattern, place: said.to_owned() };
            found.push((message, levels.clone()));
        }
    }
    found
}

#[test]
fn the_handbook_has_the_lines_that_ask_for_attention_and_no_others() {
    let (source, handbook) = (of_the_source(), of_the_handbook());
    assert!(source.len() > 60 && handbook.len() > 30, "{} {}", source.len(), handbook.len());
    let mut faults = Vec::new();
    for said in source.iter().filter(|said| said.level != "info") {
        let known = handbook.iter().any(|(told, levels)| {
            levels.contains(&said.level) && meet(&told.pattern, &said.pattern)
        });
        if !known {
            let words: String = said
                .pattern
                .iter()
                .map(|piece| if let Piece::Char(c) = piece { *c } else { '…' })
                .collect();
            faults.push(format!("{}: {} {words:?} is not in the table", said.place, said.level));
        }
    }
    for (told, levels) in &handbook {
        let said: Vec<_> =
            source.iter().filter(|said| meet(&told.pattern, &said.pattern)).collect();
        if !said.iter().any(|said| levels.contains(&said.level)) {
            faults.push(format!("the table's {:?} is nowhere in the source", told.place));
        }
    }
    assert!(faults.is_empty(), "docs/OPERATIONS.md:\n{}", faults.join("\n"));
}

#[test]
fn messages_are_read_as_they_are_written() {
    let read = |code: &str| {
        message(code).map(|pieces| {
            let text = pieces.iter().map(|piece| if let Piece::Char(c) = piece { *c } else { '*' });
            text.collect::<String>()
        })
    };
    assert_eq!(
        read("a = f(\"x\", \"y\"), b = \"z\", %c, \"it\\\n   is {n}\", n)"),
        Some("itis *".into())
    );
    assert_eq!(read("whose = if a { \"b\" } else { \"c\" }, \"d\")"), Some("d".into()));
    assert_eq!(read("\"{a} \\\"b\\\"\")"), Some("* \"b\"".into()));
    assert_eq!(read("?a) ; f(\"b\")"), None);
    let pattern = |text: &str| -> Vec<Piece> {
        let piece = |c| if c == '*' { Piece::Any } else { Piece::Char(c) };
        text.chars().map(piece).collect()
    };
    for (one, other, same) in [
        ("abc", "abc", true),
        ("abc", "ab", false),
        ("ab*", "abc", true),
        ("* reached, x", "size reached, *", true),
        ("* reached, x", "size lost", false),
        ("*", "", true),
    ] {
        assert_eq!(meet(&pattern(one), &pattern(other)), same, "{one} {other}");
        assert_eq!(meet(&pattern(other), &pattern(one)), same, "{other} {one}");
    }
}

#[test]
fn a_filter_by_module_shows_that_module_alone_in_detail() {
    run(async {
        let monitor = monitor(plain()).await;
        let mut site = Site::new(&monitor);
        site.set("log_level", "info,harborforge_connector::sender=debug");
        let mut daemon = site.start();
        has_all(&monitor, 2).await;
        daemon.says("started").await;
        daemon
            .hears("two deliveries", |line| {
                line.message() == "acknowledged" && line.number("up_to") >= Some(2)
            })
            .await;
        let target = |line: &Line| line.json["target"].as_str().unwrap_or_default().to_owned();
        let detailed: Vec<_> =
            daemon.heard().iter().filter(|line| !line.is_for_people()).map(target).collect();
        assert!(detailed.len() >= 2, "{detailed:?}");
        for target in detailed {
            assert!(target.starts_with("harborforge_connector::sender"), "{target}");
        }
        assert_eq!(daemon.count("appended"), 0, "that is the store's");
        daemon.stop().await;
    });
}

/// The try a line belongs to: how it was made, and its number.
fn try_of(line: &Line) -> (String, u64) {
    let span = &line.json["span"];
    assert_eq!(line.json["spans"].as_array().map(Vec::len), Some(1), "{}", line.text);
    assert!(["link", "key"].contains(&span["name"].as_str().unwrap()), "{}", line.text);
    let transport = span["transport"].as_str().unwrap_or_default();
    (transport.to_owned(), span["attempt"].as_u64().unwrap())
}

#[test]
fn lines_in_json_say_which_try_they_belong_to() {
    run(async {
        let heartbeats = monitor(plain()).await;
        heartbeats.misbehave(Fault::status(500).at(Route::Heartbeat));
        let site = Site::new(&heartbeats);
        let mut daemon = site.start();
        let (transport, first) = try_of(&daemon.complains(&["500"]).await);
        assert_eq!(transport, "http");
        let again = daemon.says("not delivered").await;
        let (transport, second) = try_of(&again);
        assert!(transport == "http" && second > first, "{first}, {second}");
        heartbeats.heal();
        let (_, third) = try_of(&daemon.says("delivering again").await);
        assert!(third > second, "{second}, {third}");
        daemon.stop().await;

        let monitor = monitor(real_time()).await;
        let site = Site::websocket(&monitor);
        let mut daemon = site.start();
        daemon.has_appended(1).await;
        let link = try_of(&daemon.says("delivering").await);
        assert_eq!(link.0, "websocket");
        let confirmed = daemon.says("acknowledged").await;
        assert_eq!(try_of(&confirmed), link, "a link is one try as long as it lasts");
        monitor.pause().await;
        assert_eq!(try_of(&daemon.complains(&[]).await), link);
        monitor.resume().await.unwrap();
        counted(&monitor, "links", 2, |counts| counts.links).await;
        let (transport, back) = try_of(&daemon.says("delivering again").await);
        assert!(transport == "websocket" && back > link.1, "{back}");
        let started = daemon.heard().iter().find(|line| line.message() == "started").unwrap();
        assert!(started.json["span"].is_null(), "what belongs to no try says so");
        daemon.stop().await;
    });
}
