//! The screen: in the operator's order, at most as wide as the terminal. Pure: the time is passed
//! in, and nothing is written here.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::advice::{Advice, advice};
use super::place;
use crate::cli::terminal::words;
use crate::control::status::{Bridge, Link, Queue, Status, Success};
use crate::health::{LinkState, Standing};
use crate::sender::classify::printable;

/// Where what is said about a thing begins.
const INDENT: usize = 13;
/// Below this it is not readable, and lines wrap.
const NARROWEST: usize = 30;
/// Room for the figure beside a sparkline, or more where that is longer.
const FIGURE: usize = 10;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

const GREEN: &str = "\u{1b}[1;32m";
const YELLOW: &str = "\u{1b}[1;33m";
const RED: &str = "\u{1b}[1;31m";
const PLAIN: &str = "\u{1b}[0m";

/// How to draw.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    width: usize,
    colour: bool,
    /// The terminal moves its cursor when told.
    moves: bool,
}

impl Screen {
    /// For a terminal so many columns wide.
    pub fn new(width: usize, colour: bool) -> Self {
        let moves = std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { width: width.max(NARROWEST), colour, moves }
    }

    /// The lines, at most so many.
    pub fn draw(&self, status: &Status, now: SystemTime, rows: usize) -> String {
        let mut lines = Lines { screen: *self, lines: Vec::new() };
        lines.head(status, now);
        match (&status.link, status.running) {
            (Some(link), _) => lines.link(link, now),
            (None, _) => lines.state(RED, "NOT RUNNING", "no daemon; this is what the files say"),
        }
        if let Some(queue) = &status.queue {
            lines.waiting(queue);
        }
        lines.success(status.last_success.as_ref(), now);
        if let Some(challenge) = &status.challenge {
            let said = match challenge.condition {
                Standing::Untried => "not tried yet",
                Standing::Accepted => "accepted",
                Standing::HeartbeatsOnly => "accepted for heartbeats alone",
                Standing::Refused => "refused",
            };
            let label = if challenge.kind == "api_key" { "API key" } else { "challenge" };
            lines.say(label, said);
        }
        lines.course(status);
        if let Some(queue) = &status.queue {
            lines.kept(queue);
        }
        if let Some(version) = &status.openclaw.version {
            let agents = status.openclaw.agents;
            lines.say("OpenClaw", &format!("{}, {agents} agents", printable(version)));
        }
        // Beneath the version, indented as the texts are.
        let label = if status.openclaw.version.is_some() { " " } else { "OpenClaw" };
        if let Some(trouble) = status.openclaw.troubles.first() {
            let more = status.openclaw.troubles.len().saturating_sub(1);
            let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
            lines.say(label, &format!("{}{more}", printable(trouble)));
        } else if status.openclaw.closed_homes > 0 {
            let closed = status.openclaw.closed_homes;
            let text = format!("no state directory seen; homes closed to the daemon: {closed}");
            lines.say(label, &text);
        }
        if let Some(bridge) = &status.bridge {
            lines.bridge(bridge, now);
        }
        lines.advice(&advice(status), rows.saturating_sub(1));
        lines.lines.join("\n") + "\n"
    }

    /// What is shown while the daemon is away.
    pub fn waiting(&self, socket: &Path, since: SystemTime, now: SystemTime) -> String {
        let mut lines = Lines { screen: *self, lines: Vec::new() };
        let text = format!("no daemon for {}, waiting for it", span(age(since, now)));
        lines.state(RED, "NOT RUNNING", &text);
        lines.say("asked on", &place(socket));
        lines.lines.join("\n") + "\n"
    }

    /// Lines in the place of those before them, on a terminal of so many rows: one more than fit
    /// would scroll it each time.
    pub fn frame(&self, text: &str, first: bool, rows: usize) -> String {
        if !self.moves {
            return format!("{text}\n");
        }
        let start = if first { "\u{1b}[2J\u{1b}[H" } else { "\u{1b}[H" };
        // The cursor stands below the last one.
        let most = rows.saturating_sub(1).max(1);
        let body: String =
            text.lines().take(most).map(|line| format!("{line}\u{1b}[K\n")).collect();
        format!("{start}{body}\u{1b}[J")
    }
}

struct Lines {
    screen: Screen,
    lines: Vec<String>,
}

impl Lines {
    fn head(&mut self, status: &Status, now: SystemTime) {
        let mut text = format!("harborforge-connector {}", status.version);
        text.push_str(&format!(" on {}", printable(&status.identifier)));
        let up = status.started_at.as_deref().and_then(parse).map(|at| age(at, now));
        if let (Some(pid), Some(up)) = (status.pid, up) {
            text.push_str(&format!(", process {pid}, up {}", span(up)));
        }
        self.wrapped("", &text, 2);
        let to = status.backend_url.as_deref().unwrap_or("no Monitor configured");
        self.wrapped("", &format!("to {to}"), 2);
        self.lines.push(String::new());
    }

    fn link(&mut self, link: &Link, now: SystemTime) {
        let (colour, word) = match link.state {
            LinkState::Online => (GREEN, "DELIVERING"),
            LinkState::Fallback => (YELLOW, "DELIVERING"),
            LinkState::Connecting => (YELLOW, "CONNECTING"),
            LinkState::Offline => (RED, "OFFLINE"),
            LinkState::Refused => (RED, "REFUSED"),
        };
        let mut text = match (link.state, link.transport.as_deref()) {
            (LinkState::Fallback, _) => "by heartbeat, the WebSocket is unavailable, ".to_owned(),
            (_, Some("http")) => "by heartbeat ".to_owned(),
            (_, Some(_)) => "over the WebSocket ".to_owned(),
            (_, None) => String::new(),
        };
        let since = parse(&link.since).map(|at| span(age(at, now))).unwrap_or_default();
        text.push_str(&format!("since {} ({since})", link.since));
        self.state(colour, word, &text);
        let online = link.state == LinkState::Online;
        if let (false, Some(error)) = (online, &link.last_error) {
            let at = link.last_error_at.as_deref().and_then(parse);
            let ago = at.map(|at| format!("{} ago: ", span(age(at, now)))).unwrap_or_default();
            self.say("last error", &format!("{ago}{}", printable(error)));
        }
        if let (false, Some(next)) = (online, link.next_attempt_at.as_deref().and_then(parse)) {
            let wait = next.duration_since(now).unwrap_or_default();
            let text = if wait.is_zero() { "now".to_owned() } else { format!("in {}", span(wait)) };
            self.say("next try", &text);
        }
    }

    fn waiting(&mut self, queue: &Queue) {
        let mut text = match queue.pending {
            0 => "nothing".to_owned(),
            1 => format!("1 sample, {}", bytes(queue.pending_bytes)),
            pending => format!("{pending} samples, {}", bytes(queue.pending_bytes)),
        };
        if let Some(age) = queue.oldest_age_seconds.filter(|_| queue.pending > 0) {
            text.push_str(&format!(", the oldest {} old", span(Duration::from_secs(age))));
        }
        if queue.in_memory > 0 {
            text.push_str(&format!(", {} more in memory", queue.in_memory));
        }
        self.say("waiting", &text);
    }

    fn success(&mut self, success: Option<&Success>, now: SystemTime) {
        let text = match success {
            None => "none yet".to_owned(),
            Some(success) => {
                let ago = parse(&success.at).map(|at| span(age(at, now))).unwrap_or_default();
                let by = if success.transport == "http" { "heartbeat" } else { "WebSocket" };
                format!("sample {} by {by}, {ago} ago", success.seq)
            }
        };
        self.say("last", &text);
    }

    fn course(&mut self, status: &Status) {
        let depth: Vec<Option<f64>> =
            status.course.depth.iter().map(|depth| Some(to_real(*depth))).collect();
        if depth.len() > 1 {
            let most = status.course.depth.iter().copied().max().unwrap_or(0);
            let newest = status.course.cpu_pct.last().copied().flatten();
            let newest = newest.map_or("-".to_owned(), |cpu| format!("{cpu:.1} %"));
            let figures = [format!("most {most}"), newest];
            // Both in the same room, so that what was at one time stands in one column.
            let widest = figures.iter().map(|figure| figure.chars().count()).max().unwrap_or(0);
            let room = self.screen.width.saturating_sub(INDENT + 2 + widest.max(FIGURE));
            let lines = [
                ("depth", bars(&depth, to_real(most.max(1)), room)),
                ("cpu", bars(&status.course.cpu_pct, 100.0, room)),
            ];
            for ((label, line), figure) in lines.iter().zip(figures) {
                self.lines.push(format!("{label:INDENT$}{line}  {figure}"));
            }
        }
    }

    fn kept(&mut self, queue: &Queue) {
        let mut text = format!("{} delivered", queue.sent);
        for (count, what) in [(queue.rejected, "rejected"), (queue.quarantined, "in quarantine")] {
            if count > 0 {
                text.push_str(&format!(", {count} {what}"));
            }
        }
        text.push_str(&format!("; {} on disk", bytes(queue.disk_bytes)));
        self.say("kept", &text);
    }

    fn bridge(&mut self, bridge: &Bridge, now: SystemTime) {
        let text = match (&bridge.listening, &bridge.last_error) {
            (Some(address), _) => format!("on {address}"),
            (None, None) => format!("begins to listen on {}", bridge.configured),
            (None, Some(error)) => {
                let next = bridge.next_attempt_at.as_deref().and_then(parse);
                let wait = next.map(|next| next.duration_since(now).unwrap_or_default());
                let wait = wait.map(|wait| format!(", next try in {}", span(wait)));
                let error = printable(error);
                format!("not on {}: {error}{}", bridge.configured, wait.unwrap_or_default())
            }
        };
        self.say("bridge", &text);
    }

    /// As many as fit; what does not is counted.
    fn advice(&mut self, all: &[Advice], rows: usize) {
        if all.is_empty() {
            return;
        }
        self.lines.push(String::new());
        for (place, Advice { grave, text }) in all.iter().enumerate() {
            let before = self.lines.len();
            let colour = if *grave { RED } else { YELLOW };
            self.wrapped_in(colour, "!", text, 2);
            let more = all.len() - place;
            // The line that says how many more there are needs its own row.
            let spare = usize::from(more > 1);
            if self.lines.len() + spare > rows && place > 0 {
                self.lines.truncate(before);
                self.wrapped_in(YELLOW, "!", &format!("and {more} more: status --json"), 2);
                return;
            }
        }
    }

    fn state(&mut self, colour: &str, word: &str, text: &str) {
        self.wrapped_in(colour, word, text, INDENT);
    }

    fn say(&mut self, label: &str, text: &str) {
        self.wrapped(label, text, INDENT);
    }

    fn wrapped(&mut self, label: &str, text: &str, indent: usize) {
        self.wrapped_in("", label, text, indent);
    }

    /// Words wrapped between the indent and the width; the label stands before the first line.
    fn wrapped_in(&mut self, colour: &str, label: &str, text: &str, indent: usize) {
        let room = self.screen.width.saturating_sub(indent).max(1);
        let fill = " ".repeat(indent.saturating_sub(label.chars().count()));
        let coloured = self.screen.colour && !colour.is_empty();
        let start = match label {
            "" => String::new(),
            label if coloured => format!("{colour}{label}{PLAIN}{fill}"),
            label => format!("{label}{fill}"),
        };
        for (place, line) in words(text, room).into_iter().enumerate() {
            let before = if place == 0 { start.clone() } else { " ".repeat(indent) };
            self.lines.push(format!("{before}{line}").trim_end().to_owned());
        }
    }
}

/// The newest values as bars, the highest standing for `most`; a gap where there is no value.
fn bars(values: &[Option<f64>], most: f64, room: usize) -> String {
    let newest = values.iter().skip(values.len().saturating_sub(room));
    newest
        .map(|value| {
            let Some(value) = value else { return ' ' };
            let share = (value / most).clamp(0.0, 1.0);
            let at = BARS.iter().zip(1u32..).find(|(_, step)| share * 8.0 <= f64::from(*step));
            at.map_or('█', |(bar, _)| *bar)
        })
        .collect()
}

#[allow(clippy::cast_precision_loss, reason = "for the height of a bar")]
fn to_real(count: u64) -> f64 {
    count as f64
}

fn parse(time: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(time).ok()
}

fn age(then: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(then).unwrap_or_default()
}

/// A duration in its two largest units.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        (..) => format!("{days}d {hours}h"),
    }
}

/// Bytes with their unit.
fn bytes(count: u64) -> String {
    let mut value = to_real(count);
    for unit in ["bytes", "KiB", "MiB"] {
        if value < 1024.0 {
            return if unit == "bytes" {
                format!("{count} bytes")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
}

#[cfg(test)]
mod tests;
