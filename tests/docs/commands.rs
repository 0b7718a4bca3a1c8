//! The lines of shell in the documentation: which there are, and what becomes of each.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::markdown::{Block, all_blocks, block, documents, quoted, split};
use super::support::{alone, outcome};

/// What is done with a program's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Run, see `session.rs`.
    Run,
    /// What they name must be there, see `cargo.rs`.
    Looked,
    /// Not run: why.
    NotRun(&'static str),
}

/// The programs that lines begin with. A new one needs a reason not to be run.
const PROGRAMS: &[(&str, Fate)] = &[
    ("harborforge-connector", Fate::Run),
    ("cargo", Fate::Looked),
    ("systemctl", Fate::NotRun("changes the services of the machine")),
    ("journalctl", Fate::NotRun("reads the log of the machine")),
    ("apt", Fate::NotRun("changes the packages of the machine")),
    ("apt-get", Fate::NotRun("changes the packages of the machine")),
    ("dpkg", Fate::NotRun("changes the packages of the machine")),
    ("dnf", Fate::NotRun("changes the packages of the machine")),
    ("rpm", Fate::NotRun("changes the packages of the machine")),
    ("curl", Fate::NotRun("asks the bridge, whose answers have tests of their own")),
    ("docker", Fate::NotRun("needs a daemon that tests cannot count on")),
    ("podman", Fate::NotRun("needs images that tests cannot count on")),
    ("./install.sh", Fate::NotRun("run in a root of its own by tests/deploy")),
    ("systemd-creds", Fate::NotRun("needs the credentials of the machine's service manager")),
    ("tar", Fate::NotRun("packs directories that only an installed connector has")),
    ("sh", Fate::NotRun("packs directories that only an installed connector has")),
    (
        "deploy/package.sh",
        Fate::NotRun("builds for minutes; .ci/run gives it a program that is built"),
    ),
    ("install", Fate::NotRun("gives a file to the user of a container")),
    ("mkdir", Fate::NotRun("changes the configuration of the machine")),
    ("printf", Fate::NotRun("changes the configuration of the machine")),
];

/// A line of shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Without its comment.
    pub text: String,
}

impl Line {
    /// What is done with it; `None` when its program is not known.
    pub fn program(&self) -> Option<(&'static str, Fate)> {
        let name = self.words().next()?;
        PROGRAMS.iter().copied().find(|(program, _)| *program == name)
    }

    /// Its words from the program on.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        let before = |word: &&str| *word == "sudo" || is_assignment(word);
        self.text.split_whitespace().skip_while(before)
    }

    /// The variables set for it alone.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        let set = self.text.split_whitespace().take_while(|word| is_assignment(word));
        set.filter_map(|word| word.split_once('=')).map(|(name, _)| name)
    }
}

fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map_or("", |(name, _)| name);
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether a block is lines of shell, and not a screen or data.
pub fn is_shell(block: &Block) -> bool {
    match block.language.as_deref() {
        Some(language) => ["sh", "bash", "shell", "console"].contains(&language),
        None => !block.first().starts_with(['$', '{']),
    }
}

/// The lines of a block, those that a backslash joins made one.
pub fn lines(block: &Block) -> Vec<Line> {
    let joined = block.text().replace("\\\n", " ");
    let texts = joined.lines().map(|line| line.split(" #").next().unwrap_or_default().trim());
    let texts = texts.filter(|text| !text.is_empty() && !text.starts_with('#'));
    texts.map(|text| Line { text: text.to_owned() }).collect()
}

/// The same for what a sentence names in passing.
pub fn in_passing(fate: Fate) -> Vec<(String, Line)> {
    let mut found = Vec::new();
    for document in documents() {
        for prose in split(&document).1 {
            let place = format!("{}:{}", document.path, prose.line);
            // One word alone is a program, not what to do with it.
            let lines = quoted(prose.text).into_iter().filter(|code| code.contains(' '));
            let lines = lines.map(|code| (place.clone(), Line { text: code.to_owned() }));
            found.extend(lines.filter(|(_, line)| line.program().is_some_and(|(_, f)| f == fate)));
        }
    }
    found
}

/// All lines of all documents that have this fate, each with its place.
pub fn all(fate: Fate) -> Vec<(String, Line)> {
    let blocks = all_blocks();
    let shells = blocks.iter().filter(|block| is_shell(block));
    let lines =
        shells.flat_map(|b| lines(b).into_iter().map(|l| (format!("{}:{}", b.path, b.line), l)));
    lines.filter(|(_, line)| line.program().is_some_and(|(_, found)| found == fate)).collect()
}

#[test]
fn what_is_not_run_has_a_reason() {
    for (program, fate) in PROGRAMS {
        if let Fate::NotRun(reason) = fate {
            assert!(!reason.is_empty(), "{program}");
        }
    }
}

#[test]
fn lines_lose_their_comments_and_keep_their_words() {
    let block = Block {
        path: String::new(),
        line: 1,
        mark: None,
        language: None,
        lines: ["# why", "A=1 sudo harborforge-connector dump \\", "  --tail 2   # it", "", "x #"]
            .map(str::to_owned)
            .to_vec(),
    };
    let found = lines(&block);
    assert_eq!(found.len(), 2);
    assert_eq!(
        found[0].words().collect::<Vec<_>>(),
        ["harborforge-connector", "dump", "--tail", "2"]
    );
    assert_eq!(found[0].variables().collect::<Vec<_>>(), ["A"]);
    assert_eq!(found[0].program(), Some(("harborforge-connector", Fate::Run)));
    assert_eq!((found[1].text.as_str(), found[1].program()), ("x", None));
}

/// NetworkManager's script asks systemd for the signal, and only when a network has come up.
#[test]
fn the_dispatcher_sends_the_signal_when_a_network_comes_up() {
    let script = block("docs/OPERATIONS.md", "#!/bin/sh").text();
    let directory = tempfile::tempdir().unwrap();
    // In systemctl's place: it says what it was asked.
    symlink("/bin/echo", directory.path().join("systemctl")).unwrap();
    let said = |event: &str| {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, "dispatcher", "eth0", event]);
        command.env_clear().env("PATH", directory.path());
        let _alone = alone();
        outcome(&mut command)
    };
    let asked = "kill -s USR1 harborforge-connector.service\n";
    for (event, says) in [("up", asked), ("connectivity-change", asked), ("down", "")] {
        assert_eq!(said(event), (0, says.to_owned(), String::new()), "{event}");
    }
    assert!(fs::read_dir(directory.path()).unwrap().count() == 1, "it writes nothing");
}
