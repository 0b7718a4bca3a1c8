//! What the terminal on standard output can do, and text that fits it.

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

/// Lines of at most so many characters, broken between words where that is possible.
pub fn words(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let (mut line, mut used) = (String::new(), 0);
    for word in text.split_whitespace() {
        let mut rest: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + rest.len() > width {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        // One that is longer than a line is broken where it must.
        while rest.len() > width {
            let tail = rest.split_off(width);
            lines.push(rest.into_iter().collect());
            rest = tail;
        }
        used += rest.len();
        line.extend(rest);
    }
    lines.push(line);
    lines
}

/// The same as lines of which the later ones are indented, the first beginning with this label.
pub fn labelled(label: &str, indent: usize, text: &str, width: usize) -> String {
    let mut shown = String::new();
    for (place, line) in words(text, width.saturating_sub(indent).max(1)).into_iter().enumerate() {
        let label = if place == 0 { label } else { "" };
        shown.push_str(format!("{label:indent$}{line}").trim_end());
        shown.push('\n');
    }
    shown
}
