//! Completions and manual pages: whole, and in order as their readers judge it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::CommandFactory as _;
use harborforge_connector::cli::args::{Args, COMMANDS};

use super::markdown::{documents, root};
use super::support::{outcome, program, spawn};

/// The shells, and what makes each say whether a script in a file is in order.
const SHELLS: [(&str, &[&str]); 5] = [
    ("bash", &["bash", "-n"]),
    ("zsh", &["zsh", "-n"]),
    ("fish", &["fish", "--no-execute"]),
    ("elvish", &["elvish", "-compileonly"]),
    (
        "powershell",
        &["pwsh", "-NoProfile", "-Command", "[void][ScriptBlock]::Create((gc -Raw $args[0]))"],
    ),
];

fn printed(arguments: &[&str]) -> String {
    let (code, stdout, stderr) = outcome(&mut program(arguments));
    assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}");
    stdout
}

/// A program, if it is installed.
fn installed(name: &str) -> Option<Command> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&paths).any(|at| at.join(name).is_file());
    if !there {
        eprintln!("SKIPPED: {name} is not installed");
    }
    there.then(|| Command::new(name))
}

/// Every option there is, `--help` left out, with the name of its command.
fn options() -> Vec<(String, String)> {
    let mut program = Args::command();
    program.build();
    let of = |command: &clap::Command| -> Vec<(String, String)> {
        let longs = command.get_arguments().filter_map(|a| a.get_long().map(str::to_owned));
        longs.map(|long| (command.get_name().to_owned(), long)).collect()
    };
    let commands = program.get_subcommands().filter(|c| c.get_name() != "help");
    commands.flat_map(of).filter(|(_, long)| long != "help").collect()
}

#[test]
fn every_shells_completions_are_whole_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let options = options();
    assert!(options.len() > 40, "{options:?}");
    for (shell, check) in SHELLS {
        let script = printed(&["completions", shell]);
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: {command}");
        }
        for (command, option) in &options {
            assert!(script.contains(option.as_str()), "{shell}: {command} --{option}");
        }
        let Some(mut checker) = installed(check[0]) else { continue };
        let file = directory.path().join(shell);
        fs::write(&file, script).unwrap();
        let (code, out, err) = outcome(checker.args(&check[1..]).arg(&file));
        assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""), "{shell}");
    }
}

/// Bash, asked what may follow.
#[test]
fn bash_completes_commands_options_and_values() {
    if installed("bash").is_none() {
        return;
    }
    let script = printed(&["completions", "bash"]);
    let completed = |typed: &str| {
        let words: Vec<&str> = typed.split(' ').collect();
        let ask = format!(
            "{script}\nCOMP_WORDS=({typed} ''); COMP_WORDS=(\"${{COMP_WORDS[@]:0:{count}}}\")\n\
             COMP_CWORD={last}\n\
             _harborforge__connector harborforge-connector \"${{COMP_WORDS[{last}]}}\" \
             \"${{COMP_WORDS[{last}-1]}}\"\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
            count = words.len(),
            last = words.len() - 1
        );
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", &ask]).env_remove("BASH_ENV").stdin(Stdio::null());
        let (code, out, err) = outcome(&mut bash);
        assert_eq!((code, err.as_str()), (0, ""), "{typed}");
        out
    };
    assert_eq!(completed("harborforge-connector rep"), "replay\n");
    assert_eq!(completed("harborforge-connector dump --fol"), "--follow\n");
    assert_eq!(completed("harborforge-connector dump --state r"), "rejected\n");
    assert_eq!(completed("harborforge-connector man ver"), "verify\n");
}

#[test]
fn every_manual_page_is_whole_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut pages = vec![("", printed(&["man"]))];
    pages.extend(COMMANDS.iter().map(|command| (*command, printed(&["man", command]))));
    for (name, page) in &pages {
        let plain = page.replace('\\', "");
        for (_, option) in options().iter().filter(|(command, _)| command == name) {
            assert!(plain.contains(&format!("--{option}")), "{name}: {option}");
        }
        assert!(plain.contains("NAME\nharborforge-connector"), "{page}");
        assert!(plain.starts_with(".TH harborforge-connector"), "{page}");
        let file = directory.path().join(format!("{name}.1"));
        fs::write(&file, page).unwrap();
        in_order(&file);
    }
    let (_, main) = &pages[0];
    for command in COMMANDS {
        assert!(main.contains(&format!("harborforge\\-connector\\-{command}(1)")), "{main}");
    }
}

/// What groff and mandoc say of a page.
fn in_order(page: &Path) {
    if let Some(mut groff) = installed("groff") {
        let (code, _, err) = outcome(groff.args(["-man", "-Tascii", "-z"]).arg(page));
        assert_eq!((code, err.as_str()), (0, ""), "{}", page.display());
    }
    if let Some(mut mandoc) = installed("mandoc") {
        let (code, out, err) = outcome(mandoc.args(["-T", "lint", "-W", "error"]).arg(page));
        assert_eq!((code, err.as_str()), (0, ""), "{}: {out}", page.display());
    }
}

/// The codes of the page are those of the handbook's table.
#[test]
fn the_exit_codes_of_the_page_are_the_handbooks() {
    let page = printed(&["man"]);
    let section = page.split(".SH \"EXIT STATUS\"").nth(1).unwrap().split(".SH").next().unwrap();
    let terms = section.split(".TP\n").skip(1);
    let told: Vec<_> =
        terms.map(|t| t.lines().next().unwrap().replace("\\fB", "").replace("\\fR", "")).collect();
    let handbook = documents().into_iter().find(|d| d.path == "docs/OPERATIONS.md").unwrap();
    let table = handbook.text.split("| exit code | meaning | restart? |\n").nth(1).unwrap();
    let rows = table.lines().skip(1).map_while(|row| row.strip_prefix("| "));
    let listed: Vec<_> = rows.map(|row| row.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(told, listed);
}

#[test]
fn what_is_not_there_is_a_wrong_command_line() {
    for arguments in [&["completions"][..], &["completions", "tcsh"], &["man", "nonsense"]] {
        let (code, stdout, stderr) = outcome(&mut program(arguments));
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(
            stderr.contains("bash") || stderr.contains("SHELL") || stderr.contains("dump"),
            "{stderr}"
        );
    }
}

#[test]
fn a_reader_that_goes_away_and_a_full_disk_are_told_apart() {
    for arguments in [&["completions", "zsh"][..], &["man", "dump"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = spawn(program(arguments).stdout(writer).stderr(Stdio::piped()));
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{arguments:?}");

        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let child = spawn(program(arguments).stdout(full).stderr(Stdio::piped()));
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("cannot write to standard output: No space left"), "{said}");
    }
}

/// They are made from the sources alone: a package built twice is the same.
#[test]
fn pages_name_nothing_of_the_machine_they_were_made_on() {
    let mut all = printed(&["man"]);
    for (shell, _) in SHELLS {
        all.push_str(&printed(&["completions", shell]));
    }
    assert!(!all.contains(root().to_str().unwrap()));
}
