//! Makes the shells' completions and the manual pages from the definitions of the command line, so
//! that `completions` and `man` print what this very program understands.
//!
//! Invariants:
//! - Everything comes from `src/cli/args.rs`, which therefore names nothing else of this crate.
//! - The same sources give the same bytes: no date, no path, no name of the machine.
//! - It is done here and not when the program runs, so that the program carries the texts and not
//!   the generators; packed, since they say the same things over and over (`src/cli/texts.rs`).

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
use lz4_flex::block::{compress_into, get_maximum_output_size};

/// What is to be carried: names, and what each is of.
type Texts = Vec<(String, Vec<u8>)>;

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
    lay_out();
    let mut texts = completions()?;
    texts.extend(pages()?);
    write_packed(&out, &texts)
}

/// Puts side by side what a daemon goes through in its usual work, in what is published, where the
/// compiler's own linker is used: others know no such script, or take minutes for one.
fn lay_out() {
    let of = |name: &str| std::env::var(name).unwrap_or_default();
    let target = ["ARCH", "OS", "ENV"].map(|part| of(&format!("CARGO_CFG_TARGET_{part}")));
    if of("OPT_LEVEL") == "z" && target == ["x86_64", "linux", "gnu"] {
        println!("cargo::rerun-if-changed=deploy/layout.ld");
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}/deploy/layout.ld", of("CARGO_MANIFEST_DIR"));
    }
}

/// The script of each shell.
fn completions() -> Result<Texts, Box<dyn Error>> {
    let mut texts = Texts::new();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
        let mut script = Vec::new();
        let mut command = args::Args::command();
        let name = command.get_name().to_owned();
        clap_complete::generate(shell, &mut command, &name, &mut script);
        // clap_complete 4.6.11 spells the hyphen of the program's name in two ways for bash, so that
        // nothing behind a command would be completed (clap's issue 6421).
        let (wrong, right) = (name.replace('-', "__subcmd__"), name.replace('-', "__"));
        let script = String::from_utf8(script)?.replace(&wrong, &right);
        texts.push((format!("completions {shell}"), script.into_bytes()));
    }
    Ok(texts)
}

/// The page of the program, and of each of its commands.
fn pages() -> Result<Texts, Box<dyn Error>> {
    // `help` is no command of its own, and has no page.
    let mut program = args::Args::command()
        .disable_help_subcommand(true)
        .subcommand_help_heading("COMMANDS")
        .subcommand_value_name("COMMAND");
    program.build();
    let commands: Vec<Command> = program.get_subcommands().cloned().collect();
    let mut texts = vec![("man ".to_owned(), page(&program, &program)?)];
    for command in &commands {
        texts.push((format!("man {}", command.get_name()), page(command, &program)?));
    }
    Ok(texts)
}

/// Writes all of them as one LZ4 block, and their names and lengths as a Rust expression.
fn write_packed(out: &Path, texts: &Texts) -> Result<(), Box<dyn Error>> {
    let mut table = String::from("&[\n");
    for (name, text) in texts {
        table.push_str(&format!("    ({name:?}, {}),\n", text.len()));
    }
    table.push(']');
    fs::write(out.join("texts.rs"), table)?;
    let all: Vec<u8> = texts.iter().flat_map(|(_, text)| text).copied().collect();
    let mut block = vec![0; get_maximum_output_size(all.len())];
    let taken = compress_into(&all, &mut block)?;
    block.truncate(taken);
    fs::write(out.join("texts.lz4"), block)?;
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
