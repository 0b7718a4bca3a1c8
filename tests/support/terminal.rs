//! A program on a pseudo-terminal, as `script` of util-linux makes one.

#![allow(dead_code, reason = "each test file uses its own part of these helpers")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::spawn;

/// Runs a line of shell on a terminal so many columns wide, with this typed in: its exit code and
/// all that was shown. `None`, said loudly, where there is no `script`.
pub fn on_terminal(line: &str, columns: u16, typed: &str) -> Option<(i32, String)> {
    on_terminal_with(line, columns, typed, &[])
}

/// The same with these variables set.
pub fn on_terminal_with(
    line: &str,
    columns: u16,
    typed: &str,
    variables: &[(&str, &str)],
) -> Option<(i32, String)> {
    if Command::new("script").arg("--version").output().is_err() {
        #[allow(clippy::print_stderr, reason = "a test that is left out says so")]
        {
            eprintln!("SKIPPED: there is no `script` (util-linux) here to make a terminal");
        }
        return None;
    }
    let mut child = spawn(&mut terminal(line, columns, variables));
    let mut stdin = child.stdin.take().unwrap();
    // Kept open: the end of what is typed would hang the terminal up.
    stdin.write_all(typed.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    let screen = String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n");
    Some((output.status.code().unwrap(), screen))
}

/// What starts a line of shell on a terminal; typed and shown through pipes.
pub fn terminal(line: &str, columns: u16, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new("script");
    command
        .args(["--quiet", "--return", "--command"])
        .arg(format!("stty cols {columns} -echo; exec {line}"))
        .arg("/dev/null")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("TERM", "xterm")
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}
