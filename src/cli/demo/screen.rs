//! What the demo prints: a line a second, so that it reads the same on a terminal and in a file.

use std::io::Write;
use std::path::Path;

use comfy_table::{CellAlignment, Table};

/// The books, compared.
pub struct Verdict {
    /// Numbers the queue gave out.
    pub sampled: u64,
    /// Samples the Monitor accepted, each counted once.
    pub delivered: u64,
    /// Arrivals of a sample the Monitor had already, which it dropped.
    pub duplicates: u64,
    /// Gaps the queue lists.
    pub gaps: u64,
    /// Numbers given out that the Monitor does not have.
    pub lost: u64,
}

impl Verdict {
    /// Every sample taken was accepted exactly once in effect.
    pub fn holds(&self) -> bool {
        self.sampled > 0 && self.delivered == self.sampled && self.lost == 0 && self.gaps == 0
    }
}

/// The output.
pub struct Screen<'a> {
    out: &'a mut dyn Write,
}

impl<'a> Screen<'a> {
    pub fn new(out: &'a mut dyn Write) -> Self {
        Self { out }
    }

    /// A reader that went away must not end the demo without its cleaning up.
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = self.out.write_fmt(line).and_then(|()| self.out.write_all(b"\n"));
        let _ = self.out.flush();
    }

    pub fn opening(&mut self, url: &str, dir: &Path) {
        self.line(format_args!("A Monitor at {url}, the daemon's files in {}", dir.display()));
        self.line(format_args!("A sample every second; this takes about 35 s. Ctrl-C ends it.\n"));
        self.line(format_args!(
            " time  Monitor  daemon   delivered  newest by  waiting in the queue"
        ));
    }

    pub fn scene(&mut self, title: &str) {
        self.line(format_args!("  ---  {title}"));
    }

    pub fn second(
        &mut self,
        second: u64,
        monitor: bool,
        daemon: bool,
        appended: u64,
        got: u64,
        way: &str,
    ) {
        const WIDTH: u64 = 30;
        let waiting = appended.saturating_sub(got);
        let bar = "█".repeat(usize::try_from(waiting.min(WIDTH)).unwrap_or(0));
        let monitor = if monitor { "up" } else { "down" };
        let daemon = if daemon { "running" } else { "dead" };
        let space = if bar.is_empty() { "" } else { " " };
        self.line(format_args!(
            "{second:>3} s  {monitor:<7}  {daemon:<7}  {got:>9}  {way:<9}  {bar}{space}{waiting}"
        ));
    }

    pub fn verdict(&mut self, verdict: &Verdict) {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);

        table.set_header(["sampled", "delivered", "duplicates", "gaps", "lost"]);
        table.add_row(
            [verdict.sampled, verdict.delivered, verdict.duplicates, verdict.gaps, verdict.lost]
                .map(|n| n.to_string()),
        );
        for column in table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        self.line(format_args!("\n{table}"));
        if verdict.holds() {
            self.line(format_args!(
                "Through an outage and a kill -9: every sample accepted, none lost."
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict() -> Verdict {
        Verdict { sampled: 27, delivered: 27, duplicates: 1, gaps: 0, lost: 0 }
    }

    #[test]
    fn only_complete_books_hold() {
        assert!(verdict().holds());
        assert!(!Verdict { lost: 1, delivered: 26, ..verdict() }.holds());
        assert!(!Verdict { gaps: 1, ..verdict() }.holds());
        assert!(!Verdict { delivered: 28, ..verdict() }.holds());
        assert!(!Verdict { sampled: 0, delivered: 0, ..verdict() }.holds());
    }

    #[test]
    fn the_queue_is_drawn_as_a_bar() {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out);
        screen.second(7, false, true, 10, 7, "");
        screen.second(8, true, false, 90, 0, "");
        screen.second(9, true, true, 90, 90, "WebSocket");
        let lines = String::from_utf8(out).unwrap();
        let lines: Vec<_> = lines.lines().collect();
        assert_eq!(lines[0], "  7 s  down     running          7             ███ 3");
        assert_eq!(
            lines[1],
            format!("  8 s  up       dead             0             {} 90", "█".repeat(30))
        );
        assert_eq!(lines[2], "  9 s  up       running         90  WebSocket  0");
    }
}
