//! What the terminal on standard output can do.

use std::io::{self, IsTerminal as _};

/// How to show something to people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// Columns there are; `None` where nobody looks, and lines may have any length.
    pub width: Option<usize>,
    /// Whether colours are wanted.
    pub colour: bool,
}

/// Assumed of a terminal that does not tell.
const USUAL_WIDTH: usize = 80;

impl Look {
    /// As standard output and the environment have it (`NO_COLOR`, `TERM=dumb`).
    pub fn of_stdout() -> Self {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Self::default();
        }
        let told = rustix::termios::tcgetwinsize(&stdout).ok();
        let width = told.map(|size| usize::from(size.ws_col)).filter(|width| *width > 0);
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { width: Some(width.unwrap_or(USUAL_WIDTH)), colour: !set("NO_COLOR") && !dumb }
    }
}
