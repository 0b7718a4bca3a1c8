//! The table: as many columns as fit.

use std::io::{self, Write};

use harborforge_storage::Entry;

use super::format::{last_error, name, parsed, time};
use crate::cli::terminal::Look;
use crate::control::protocol::WireChange;
use crate::sample::Sample;
use crate::sender::classify::printable;

/// A table of samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    columns: Vec<Column>,
    look: Look,
    /// Columns of the terminal left for the reason of a refusal; `None`: any number.
    error_width: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Column {
    Seq,
    State,
    At,
    /// The same without year and zone.
    ShortAt,
    Bytes,
    Cpu,
    Mem,
    Disk,
    Swap,
    Agents,
    Error,
}

use Column::{Agents, At, Bytes, Cpu, Disk, Error, Mem, Seq, ShortAt, State, Swap};

const ALL: [Column; 10] = [Seq, State, At, Bytes, Cpu, Mem, Disk, Swap, Agents, Error];
/// Between two columns.
const SPACE: usize = 2;

impl Column {
    fn head(self) -> &'static str {
        match self {
            Seq => "seq",
            State => "state",
            At | ShortAt => "sampled at",
            Bytes => "bytes",
            Cpu => "cpu%",
            Mem => "mem%",
            Disk => "disk%",
            Swap => "swap%",
            Agents => "agents",
            Error => "last error",
        }
    }

    /// What it needs at least.
    fn width(self) -> usize {
        match self {
            Seq => 10,
            State => 8,
            At => 20,
            ShortAt => 14,
            Bytes | Agents => 6,
            Cpu | Mem | Disk | Swap => 5,
            Error => 12,
        }
    }

    fn is_text(self) -> bool {
        matches!(self, State | At | ShortAt | Error)
    }
}

impl Table {
    /// A table for this terminal; with `refusals` their reasons matter more than figures.
    pub fn new(look: Look, refusals: bool) -> Self {
        let Some(width) = look.width else {
            return Self { columns: ALL.to_vec(), look, error_width: None };
        };
        let mut columns = vec![Seq, State];
        let mut left = width.saturating_sub(Seq.width() + SPACE + State.width());
        let mut add = |column: Column| {
            let fits = left >= SPACE + column.width();
            if fits {
                left -= SPACE + column.width();
                columns.push(column);
            }
            fits
        };
        if refusals {
            add(Error);
        }
        let _ = add(At) || add(ShortAt);
        for column in [Cpu, Mem, Disk, Bytes, Agents, Swap] {
            add(column);
        }
        if !refusals {
            add(Error);
        }
        let error_width = Some(Error.width() + left);
        columns.sort_unstable();
        Self { columns, look, error_width }
    }

    /// The names of the columns.
    pub fn head(&self, out: &mut impl Write) -> io::Result<()> {
        self.line(|column| column.head().to_owned(), None, out)
    }

    /// A sample.
    pub fn entry(&self, entry: &Entry, out: &mut impl Write) -> io::Result<()> {
        let record = &entry.record;
        let sample = parsed(entry);
        let of = |pick: fn(&Sample) -> Option<f64>| match sample.as_ref().and_then(pick) {
            Some(value) => format!("{value:.1}"),
            None => "-".to_owned(),
        };
        let state = name(entry.set);
        let cell = |column| match column {
            Seq => record.seq.to_string(),
            State => state.to_owned(),
            At => time(record.stamp.wall_ms),
            ShortAt => short(&time(record.stamp.wall_ms)),
            Bytes => record.payload.len().to_string(),
            Cpu => of(|s| s.cpu_pct),
            Mem => of(|s| s.mem_pct),
            Disk => of(|s| s.disk_pct),
            Swap => of(|s| s.swap_pct),
            Agents => {
                sample.as_ref().map_or_else(|| "-".to_owned(), |s| s.agents.len().to_string())
            }
            Error => printable(last_error(entry).unwrap_or_default()),
        };
        self.line(cell, Some(state), out)
    }

    /// Samples that came or went, in one line.
    pub fn change(&self, change: &WireChange, out: &mut impl Write) -> io::Result<()> {
        let WireChange { from, to, state, reason, wall_ms } = change;
        let numbers = if from == to { from.to_string() } else { format!("{from}..{to}") };
        let why = reason.map(super::summary::reason).unwrap_or_default();
        let name = state.name();
        let cell = |column| match column {
            Seq => numbers.clone(),
            State => name.to_owned(),
            At => time(*wall_ms),
            ShortAt => short(&time(*wall_ms)),
            Bytes | Cpu | Mem | Disk | Swap | Agents => String::new(),
            Error => why.to_owned(),
        };
        self.line(cell, Some(name), out)
    }

    fn line(
        &self,
        cell: impl Fn(Column) -> String,
        state: Option<&str>,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let mut line = String::new();
        for column in &self.columns {
            let (text, width) = (cell(*column), column.width());
            let text = match self.error_width {
                Some(most) if *column == Error => cut(&text, most),
                Some(_) | None => text,
            };
            let padded = if *column == Error {
                text
            } else if column.is_text() {
                format!("{text:<width$}")
            } else {
                format!("{text:>width$}")
            };
            if !line.is_empty() {
                line.push_str("  ");
            }
            line.push_str(&padded);
        }
        let mut line = line.trim_end().to_owned();
        if let Some(width) = self.look.width {
            line = cut(&line, width);
        }
        if let (true, Some(state)) = (self.look.colour, state) {
            line = line.replacen(state, &coloured(state), 1);
        }
        writeln!(out, "{line}")
    }
}

fn coloured(state: &str) -> String {
    let code = match state {
        "sent" => "32",
        "rejected" | "given_up" => "31",
        _ => "33",
    };
    format!("\u{1b}[{code}m{state}\u{1b}[0m")
}

/// Month, day and time of an RFC 3339 time.
fn short(time: &str) -> String {
    match (time.get(5..10), time.get(11..19)) {
        (Some(date), Some(clock)) => format!("{date} {clock}"),
        _ => time.to_owned(),
    }
}

/// At most so many characters.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::NewState;
    use harborforge_storage::{GapReason, Record, Set, Stamp, Uuid};

    fn entry(set: Set, rejection: Option<&str>) -> Entry {
        let stamp = Stamp { wall_ms: 1_773_262_800_000, boot_ms: 1, boot_id: [0; 16] };
        let payload = br#"{"openclaw_version":null,"cpu_pct":12.5,"mem_pct":null,"disk_pct":62.0,"swap_pct":0.0,"uptime_seconds":12345,"load_avg":[0.12,0.09,0.03],"agents":[],"last_seen_at":"2026-03-11T21:00:00Z","connector_version":"0.1.0"}"#;
        Entry {
            record: Record { seq: 7, epoch: Uuid::nil(), stamp, payload: payload.to_vec() },
            set,
            rejection: rejection.map(|reason| (reason.to_owned(), 0)),
        }
    }

    fn shown(width: Option<usize>, refusals: bool, entry: &Entry) -> Vec<String> {
        let table = Table::new(Look { width, colour: false }, refusals);
        let mut out = Vec::new();
        table.head(&mut out).unwrap();
        table.entry(entry, &mut out).unwrap();
        let change = WireChange {
            from: 1_000_000,
            to: 1_004_000,
            state: NewState::GivenUp,
            reason: Some(GapReason::QueueFull),
            wall_ms: 1_773_262_800_000,
        };
        table.change(&change, &mut out).unwrap();
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn it_fits_any_terminal() {
        let reason = "HTTP 422: the sample's \u{7} figures are out of their range, all of them";
        for width in [20, 40, 60, 80, 100, 120, 200] {
            for refusals in [false, true] {
                for line in shown(Some(width), refusals, &entry(Set::Rejected, Some(reason))) {
                    assert!(line.chars().count() <= width, "{width}: {line}");
                }
            }
        }
    }

    #[test]
    fn what_matters_most_stays() {
        let pending = entry(Set::Pending, None);
        assert_eq!(
            shown(Some(80), false, &pending)[..2],
            [
                "       seq  state     sampled at             bytes   cpu%   mem%  disk%  agents",
                "         7  pending   2026-03-11T21:00:00Z     215   12.5      -   62.0       0",
            ]
        );
        assert_eq!(
            shown(Some(40), false, &pending)[..2],
            ["       seq  state     sampled at", "         7  pending   03-11 21:00:00"]
        );
        let rejected = entry(Set::Rejected, Some("HTTP 422: out of range"));
        assert_eq!(shown(Some(40), true, &rejected)[1], "         7  rejected  HTTP 422: out of …");
        assert_eq!(
            shown(Some(80), true, &rejected)[1..],
            [
                "         7  rejected  2026-03-11T21:00:00Z   12.5      -   62.0  HTTP 422: out …",
                "1000000..1004000  given_up  2026-03-11T21:00:00Z                       queue_fu…",
            ]
        );
    }

    #[test]
    fn colour_is_the_states_and_only_where_wanted() {
        let table = Table::new(Look { width: Some(80), colour: true }, false);
        let mut out = Vec::new();
        table.entry(&entry(Set::Sent, None), &mut out).unwrap();
        let line = String::from_utf8(out).unwrap();
        assert!(line.contains("\u{1b}[32msent\u{1b}[0m      2026"), "{line}");
        assert!(!shown(Some(80), false, &entry(Set::Sent, None)).concat().contains('\u{1b}'));
    }
}
