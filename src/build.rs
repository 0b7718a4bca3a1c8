//! Makes the shells' completions and the manual pages from the definitions of the command line, so
//! that `completions` and `man` print what this very program understands.
//!
//! Invariants:
//! - Everything comes from `src/cli/args.rs`, which therefore names nothing else of this crate.
//! - The same sources give the same bytes: no date, no path, no name of the machine.
//! - It is done here and not when the program runs, so that the program carries the pages and not
//!   the generators.

// Only the definitions are of use here; what the program does with the values is not.
#[allow(dead_code, reason = "the program uses the rest")]
#[path = "cli/args.rs"]
mod args;

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// What the main page says of exit codes; docs/OPERATIONS.md has the same ones.
const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "done; of run: stopped on request"),
    ("1", "failed while running; of status: no daemon runs"),
    ("2", "the command line is wrong"),
    ("3", "the configuration is wrong"),
    (
        "4",
        "the queue cannot be opened, or fails; of verify: something is wrong in it; of check: \
         data_dir cannot be used",
    ),
    ("5", "the Monitor cannot be reached"),
    ("6", "the Monitor, or its key, is refused, or refuses this server"),
    ("130", "interrupted"),
];

/// Where what is configured comes from and goes to.
const FILES: &[(&str, &str)] = &[
    ("/etc/harborforge-connector/config.toml", "the configuration of the daemon"),
    (
        "$XDG_CONFIG_HOME/harborforge-connector/config.toml",
        "that of a user other than root; comes first, if it is there",
    ),
    ("/var/lib/harborforge-connector", "the queue and what is remembered (data_dir)"),
    (
        "/run/harborforge-connector/control.sock",
        "where commands reach the running daemon (control_socket)",
    ),
];

/// What is read from the environment.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("HARBORFORGE_CONFIG", "the configuration file, if --config names none"),
    (
        "HARBORFORGE_*",
        "each key of the configuration, in capitals; comes before the file and after --set",
    ),
    ("HTTPS_PROXY, HTTP_PROXY, NO_PROXY", "the proxy, if the configuration names none"),
    ("NO_COLOR", "if it is set and not empty, no colours"),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=src/build.rs");
    println!("cargo::rerun-if-changed=src/cli/args.rs");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
        let mut script = Vec::new();
        let mut command = args::Args::command();
        let name = command.get_name().to_owned();
        clap_complete::generate(shell, &mut command, &name, &mut script);
        // clap_complete 4.6.11 spells the hyphen of the program's name in two ways for bash, so that
        // nothing behind a command would be completed (clap's issue 6421).
        let (wrong, right) = (name.replace('-', "__subcmd__"), name.replace('-', "__"));
        let script = String::from_utf8(script)?.replace(&wrong, &right);
        fs::write(out.join(format!("completions.{shell}")), script)?;
    }
    write_pages(&out)
}

/// Writes each page, and a table of all of them as a Rust expression.
fn write_pages(out: &Path) -> Result<(), Box<dyn Error>> {
    // `help` is no command of its own, and has no page.
    let mut program = args::Args::command()
        .disable_help_subcommand(true)
        .subcommand_help_heading("COMMANDS")
        .subcommand_value_name("COMMAND");
    program.build();
    let commands: Vec<Command> = program.get_subcommands().cloned().collect();
    let mut table = String::from("&[\n");
    for (name, command) in
        std::iter::once(("", &program)).chain(commands.iter().map(|c| (c.get_name(), c)))
    {
        let file = format!("man.{name}.1");
        fs::write(out.join(&file), page(command, &program)?)?;
        table.push_str(&format!(
            "    ({name:?}, include_str!(concat!(env!(\"OUT_DIR\"), \"/{file}\"))),\n"
        ));
    }
    table.push(']');
    fs::write(out.join("man.rs"), table)?;
    Ok(())
}

/// The page of the program, or of one of its commands.
fn page(command: &Command, program: &Command) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    // Not the generator's own title, which leaves the empty date out and so moves what follows it.
    writeln!(
        page,
        ".TH {} 1 \"\" \"{} {}\" HarborForge",
        command.get_display_name().unwrap_or_else(|| command.get_name()),
        program.get_name(),
        program.get_version().unwrap_or_default()
    )?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if let Some(notes) = command.get_after_help() {
        let mut roff = Roff::new();
        roff.control("SH", ["NOTES"]);
        roff.control("nf", []);
        for line in notes.to_string().lines() {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
        roff.to_writer(&mut page)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
        section(&mut page, "EXIT STATUS", EXIT_STATUS)?;
        section(&mut page, "ENVIRONMENT", ENVIRONMENT)?;
        section(&mut page, "FILES", FILES)?;
    } else {
        let mut roff = Roff::new();
        roff.control("SH", ["SEE ALSO"]);
        roff.text([bold(program.get_name()), roman("(1)")]);
        roff.to_writer(&mut page)?;
    }
    Ok(page)
}

/// A section of terms and what they mean.
fn section(page: &mut impl Write, title: &str, terms: &[(&str, &str)]) -> io::Result<()> {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    for (term, meaning) in terms {
        roff.control("TP", []);
        roff.text([bold(*term)]);
        roff.text([roman(*meaning)]);
    }
    roff.to_writer(page)
}
