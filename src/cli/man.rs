//! `man`: prints a manual page, as man(1) reads it.
//!
//! Invariants:
//! - What is printed was made from the definitions of the command line when the program was built
//!   (`src/build.rs`).
//! - There is one page for the program and one for each command, and no other.

use std::io::Write as _;

use super::args::ManArgs;
use super::{CliError, Context, Exit};

/// Each command's name and its page; the program's own has an empty name.
const PAGES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/man.rs"));

/// The command: prints the page to stdout.
///
/// # Errors
/// When stdout does not take it.
pub fn run(args: &ManArgs, _context: &Context) -> Result<(), CliError> {
    let name = args.command.as_deref().unwrap_or_default();
    let page = page(name).ok_or_else(|| {
        CliError::new(Exit::Usage, format!("there is no manual page of {name:?}"))
    })?;
    let mut out = std::io::stdout().lock();
    out.write_all(page.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| CliError::of_output(&error))
}

/// The page of a command, or with an empty name the program's own, in roff's language.
#[must_use]
pub fn page(name: &str) -> Option<&'static str> {
    PAGES.iter().find(|(command, _)| *command == name).map(|(_, page)| *page)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::super::args::{Args, COMMANDS};
    use super::*;

    #[test]
    fn every_command_has_a_page_and_can_be_named() {
        let program = Args::command();
        let commands: Vec<_> = program.get_subcommands().map(|c| c.get_name()).collect();
        assert_eq!(commands, COMMANDS);
        let pages: Vec<_> = PAGES.iter().map(|(name, _)| *name).collect();
        assert_eq!(pages, [&[""], commands.as_slice()].concat());
        assert_eq!(page("nonsense"), None);
    }
}
