//! What `replay` shows: a bar on a terminal, plain lines elsewhere, both on stderr; and the
//! summary for stdout.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::pace::Pace;
use crate::control::status::time;
use crate::replay::{Ended, Plan, Progress, Replay, Replayed, Report};

/// Between two plain lines, unless there is news.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Fits 40 columns: the bar takes what the rest leaves.
const BAR: &str = "{pos}/{len} {wide_bar} {msg}";
const BAR_IN_COLOUR: &str = "{pos}/{len} {wide_bar:.cyan} {msg}";

/// Shows progress. A bar that is left is wiped when this goes.
pub struct Screen {
    begun: Instant,
    pace: Pace,
    bar: Option<ProgressBar>,
    /// When the last plain line was, and what it said went wrong.
    line: Option<Instant>,
    trouble: Option<String>,
    shown: Option<Progress>,
}

impl Screen {
    /// A bar when stderr is a terminal.
    pub fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let style = ProgressStyle::with_template(if plain { BAR } else { BAR_IN_COLOUR });
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr())
                .with_style(style.progress_chars("=> "))
        });
        Self {
            begun: Instant::now(),
            pace: Pace::default(),
            bar,
            line: None,
            trouble: None,
            shown: None,
        }
    }

    /// Shows how far it is.
    pub fn show(&mut self, progress: &Progress) {
        let done = progress.samples.saturating_sub(progress.left);
        self.pace.note(self.begun.elapsed(), done);
        let news = progress.trouble != self.trouble;
        self.trouble.clone_from(&progress.trouble);
        let trouble = progress.trouble.as_ref().filter(|_| news);
        match &self.bar {
            Some(bar) => {
                // Each of them draws.
                if bar.length() != Some(progress.samples) {
                    bar.set_length(progress.samples);
                }
                bar.set_message(self.pace.text(progress.left));
                bar.set_position(done);
                if let Some(trouble) = trouble {
                    bar.suspend(|| Self::note(&format!("{trouble}; trying again")));
                }
            }
            None => {
                if let Some(trouble) = trouble {
                    Self::note(&format!("{trouble}; trying again"));
                }
                if self.line.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
                    self.line = Some(Instant::now());
                    Self::note(&line(progress, &self.pace.text(progress.left)));
                    self.shown = None;
                    return;
                }
            }
        }
        self.shown = Some(progress.clone());
    }

    /// A line for people.
    pub fn note(text: &str) {
        // A closed stderr leaves nobody to tell.
        let _ = writeln!(io::stderr(), "harborforge-connector: {text}");
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        match (&self.bar, &self.shown) {
            (Some(bar), _) => bar.finish_and_clear(),
            // The last state, unless it has just been told.
            (None, Some(progress)) => Self::note(&line(progress, "")),
            (None, None) => {}
        }
    }
}

fn line(progress: &Progress, pace: &str) -> String {
    let Progress { samples, delivered, refused, .. } = progress;
    let refused = if *refused > 0 { format!(", {refused} refused") } else { String::new() };
    let pace = if pace.is_empty() { String::new() } else { format!(", {pace}") };
    format!("{delivered} of {samples} delivered{refused}{pace}")
}

/// What would go, for stdout.
pub fn plan(replay: &Replay, plan: &Plan, for_people: bool) -> String {
    #[derive(Serialize)]
    struct Line {
        what: Replayed,
        dry_run: bool,
        samples: u64,
        bytes: u64,
        first_seq: Option<u64>,
        last_seq: Option<u64>,
        first_at: Option<String>,
        last_at: Option<String>,
    }
    let Plan { samples, bytes, first, last } = *plan;
    if !for_people {
        return json(&Line {
            what: replay.what,
            dry_run: true,
            samples,
            bytes,
            first_seq: first.map(|(seq, _)| seq),
            last_seq: last.map(|(seq, _)| seq),
            first_at: first.map(|(_, at)| time(at)),
            last_at: last.map(|(_, at)| time(at)),
        });
    }
    let (Some((from, first)), Some((to, last))) = (first, last) else {
        return "Nothing would go.".to_owned();
    };
    let what = match replay.what {
        Replayed::Pending => "waiting",
        Replayed::Sent => "delivered before",
        Replayed::Rejected => "rejected before",
    };
    format!(
        "Would go: {samples} samples {what}, {bytes} bytes, numbers {from} to {to},\ntaken {} to {}.",
        time(first),
        time(last)
    )
}

/// How it ended, for stdout.
pub fn report(replay: &Replay, report: &Report, took: Duration, for_people: bool) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        what: Replayed,
        ended: Ended,
        samples: u64,
        delivered: u64,
        refused: u64,
        lost: u64,
        left: u64,
        next: Option<u64>,
        took_ms: u64,
        reason: Option<&'a str>,
    }
    let Progress { samples, delivered, refused, lost, left, next, .. } = report.progress;
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    if !for_people {
        return json(&Line {
            what: replay.what,
            ended: report.ended,
            samples,
            delivered,
            refused,
            lost,
            left,
            next,
            took_ms,
            reason: report.reason.as_deref(),
        });
    }
    if samples == 0 {
        return match replay.what {
            Replayed::Pending => "Nothing waits: everything is delivered.".to_owned(),
            Replayed::Sent => "Nothing delivered is kept of that time.".to_owned(),
            Replayed::Rejected => "Nothing is rejected.".to_owned(),
        };
    }
    let again = if replay.what == Replayed::Sent { " again" } else { "" };
    let took = humantime::format_duration(Duration::from_millis(took_ms / 100 * 100));
    let mut text = format!("{delivered} of {samples} samples delivered{again} in {took}");
    for (count, what) in [(refused, "refused and kept"), (lost, "lost"), (left, "left")] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text.push('.');
    text
}

/// Made of numbers and strings alone, so it always becomes JSON.
fn json(line: &impl Serialize) -> String {
    serde_json::to_string(line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(what: Replayed) -> Replay {
        Replay { what, since_ms: None, until_ms: None, from: None, to: None, dry_run: false }
    }

    #[test]
    fn summaries_for_people_and_programs() {
        let progress = Progress {
            samples: 10,
            delivered: 7,
            refused: 1,
            left: 2,
            next: Some(9),
            ..Progress::default()
        };
        let ended = Ended::Unreachable;
        let stopped = Report { progress, ended, reason: Some("refused".into()) };
        let took = Duration::from_millis(2345);
        assert_eq!(
            report(&asked(Replayed::Sent), &stopped, took, true),
            "7 of 10 samples delivered again in 2s 300ms, 1 refused and kept, 2 left."
        );
        assert_eq!(
            report(&asked(Replayed::Pending), &stopped, took, false),
            r#"{"what":"pending","ended":"unreachable","samples":10,"delivered":7,"refused":1,"lost":0,"left":2,"next":9,"took_ms":2345,"reason":"refused"}"#
        );
        let would = Plan { samples: 2, bytes: 9, first: Some((4, 0)), last: Some((6, 1000)) };
        assert_eq!(
            plan(&asked(Replayed::Rejected), &would, true),
            "Would go: 2 samples rejected before, 9 bytes, numbers 4 to 6,\ntaken \
             1970-01-01T00:00:00Z to 1970-01-01T00:00:01Z."
        );
        assert_eq!(
            plan(&asked(Replayed::Rejected), &would, false),
            r#"{"what":"rejected","dry_run":true,"samples":2,"bytes":9,"first_seq":4,"last_seq":6,"first_at":"1970-01-01T00:00:00Z","last_at":"1970-01-01T00:00:01Z"}"#
        );
    }

    #[test]
    fn nothing_to_do_is_said_in_words() {
        let none = Report { progress: Progress::default(), ended: Ended::Done, reason: None };
        for what in [Replayed::Pending, Replayed::Sent, Replayed::Rejected] {
            let text = report(&asked(what), &none, Duration::ZERO, true);
            assert!(text.starts_with("Nothing"), "{text}");
        }
    }
}
