//! `completions`: prints the completions of a shell.
//!
//! Invariant: what is printed was made from the definitions of the command line when the program
//! was built (`src/build.rs`), so it knows every command and option there is, and no other.

use std::io::Write as _;

use super::args::{CompletionsArgs, Shell};
use super::{CliError, Context};

/// The command: prints the script to stdout.
///
/// # Errors
/// When stdout does not take it.
pub fn run(args: &CompletionsArgs, _context: &Context) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    out.write_all(script(args.shell).as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| CliError::of_output(&error))
}

/// What completes the commands and options in a shell, in that shell's language.
#[must_use]
pub const fn script(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => include_str!(concat!(env!("OUT_DIR"), "/completions.bash")),
        Shell::Zsh => include_str!(concat!(env!("OUT_DIR"), "/completions.zsh")),
        Shell::Fish => include_str!(concat!(env!("OUT_DIR"), "/completions.fish")),
        Shell::Elvish => include_str!(concat!(env!("OUT_DIR"), "/completions.elvish")),
        Shell::Powershell => include_str!(concat!(env!("OUT_DIR"), "/completions.powershell")),
    }
}
