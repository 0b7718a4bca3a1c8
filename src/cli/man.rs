//! `man`: prints a manual page, as man(1) reads it.
//!
//! Invariants:
//! - What is printed was made from the definitions of the command line (`texts.rs`).
//! - There is one page for the program and one for each command, and no other.

use super::args::ManArgs;
use super::{CliError, Context, texts};

/// The command: prints the page to stdout, in roff's language.
///
/// # Errors
/// When there is no such page, and when stdout does not take it.
pub fn run(args: &ManArgs, _context: &Context) -> Result<(), CliError> {
    texts::print(&format!("man {}", args.command.as_deref().unwrap_or_default()))
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
        let pages: Vec<_> = texts::names().filter_map(|name| name.strip_prefix("man ")).collect();
        assert_eq!(pages, [&[""], commands.as_slice()].concat());
    }
}
