//! Parses the command line, runs it and maps an error to its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    harborforge_connector::cli::main(std::env::args_os())
}
