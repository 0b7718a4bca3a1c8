//! What the text names in passing: log lines, commands and their options.

use std::fs;

use clap::CommandFactory as _;
use harborforge_connector::cli::args::{Args, COMMANDS};
use harborforge_connector::config::Key;

use super::markdown::{documents, files, quoted, root, split};

/// The sources of program and queue, with texts that go on in the next line joined.
fn program_text() -> String {
    let files = ["src", "storage/src"].iter().flat_map(|at| files(&root().join(at), "rs"));
    let mut text = String::new();
    for path in files {
        let mut lines = fs::read_to_string(path).unwrap();
        while let Some(at) = lines.find("\\\n") {
            let rest = lines.split_off(at);
            lines.push_str(rest["\\\n".len()..].trim_start());
        }
        text.push_str(&lines);
    }
    text
}

/// Each line of the handbook's table is one that the program writes.
#[test]
fn every_log_line_of_the_table_is_written() {
    let program = program_text();
    let handbook = documents().into_iter().find(|d| d.path == "docs/OPERATIONS.md").unwrap();
    let table = handbook.text.split("| line | level | meaning |\n").nth(1).unwrap();
    let rows = table.lines().skip(1).take_while(|row| row.starts_with('|'));
    let mut seen = 0;
    for row in rows {
        let mut cells = row.split(" | ");
        let (lines, levels) = (cells.next().unwrap(), cells.next().unwrap());
        for line in quoted(lines) {
            let begins = line.trim_end_matches("...").trim_end();
            // One line may be written for several keys.
            let key = Key::ALL.iter().map(|key| key.name()).find(|key| begins.starts_with(key));
            let for_keys = key.map(|key| begins.replace(key, "\"{}"));
            let written = for_keys.is_some_and(|line| program.contains(&line));
            assert!(written || program.contains(begins), "nothing writes {line:?}");
            seen += 1;
        }
        for level in levels.split(", ") {
            assert!(["info", "warn", "error"].contains(&level), "{row}");
        }
    }
    assert!(seen >= 40, "{seen} were found");
}

/// `dump --state sent` in a sentence: the command and each of its options are there.
#[test]
fn every_option_in_the_text_is_there() {
    let mut program = Args::command();
    program.build();
    let mut seen = 0;
    for document in documents() {
        for line in split(&document).1 {
            for code in quoted(line.text) {
                let code = code.strip_prefix("harborforge-connector ").unwrap_or(code);
                let mut words = code.split(' ');
                let Some(name) = words.next().filter(|name| COMMANDS.contains(name)) else {
                    continue;
                };
                let command = program.find_subcommand(name).unwrap();
                for option in words.filter_map(|word| word.strip_prefix("--")) {
                    let there = command.get_arguments().any(|a| a.get_long() == Some(option));
                    assert!(there, "{}:{}: {name} has no --{option}", document.path, line.line);
                    seen += 1;
                }
            }
        }
    }
    assert!(seen >= 3, "{seen} were found");
}
