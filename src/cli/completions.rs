//! `completions`: prints the completions of a shell.
//!
//! Invariant: what is printed was made from the definitions of the command line (`texts.rs`).

use clap::ValueEnum as _;

use super::args::CompletionsArgs;
use super::{CliError, Context, texts};

/// The command: prints the script to stdout, in that shell's language.
///
/// # Errors
/// When stdout does not take it.
pub fn run(args: &CompletionsArgs, _context: &Context) -> Result<(), CliError> {
    let shell = args.shell.to_possible_value();
    let shell = shell.as_ref().map(|value| value.get_name()).unwrap_or_default();
    texts::print(&format!("completions {shell}"))
}

#[cfg(test)]
mod tests {
    use super::super::args::Shell;
    use super::*;

    #[test]
    fn every_shell_has_its_script() {
        let mut scripts = Vec::new();
        for shell in Shell::value_variants() {
            let value = shell.to_possible_value().unwrap();
            let script = texts::text(&format!("completions {}", value.get_name())).unwrap();
            assert!(script.contains("replay") && !scripts.contains(&script), "{shell:?}");
            scripts.push(script);
        }
        assert_eq!(scripts.len(), 5);
    }
}
