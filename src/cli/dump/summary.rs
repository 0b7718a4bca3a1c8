//! Counts, bytes, times and the course of it instead of the samples.

use std::io::{self, Write};
use std::time::Duration;

use harborforge_storage::{Entry, Gap, GapReason, Set};
use serde::Serialize;

use super::format::{name, time};
use super::spark::Spark;
use crate::cli::terminal::{Look, labelled};

/// What stands before the lines of a set.
const INDENT: usize = 10;

/// The figures of each set.
#[derive(Debug, Default)]
pub struct Summary {
    pending: Figures,
    sent: Figures,
    rejected: Figures,
    look: Look,
}

#[derive(Debug, Default)]
struct Figures {
    samples: u64,
    bytes: u64,
    first: Option<(u64, u64)>,
    last: Option<(u64, u64)>,
    course: Spark,
}

/// What a program reads.
#[derive(Serialize)]
struct Whole<'a> {
    sets: &'a [SetLine<'a>],
    gaps: &'a [GapLine],
}

/// One set; times are RFC 3339.
#[derive(Serialize)]
struct SetLine<'a> {
    state: &'a str,
    samples: u64,
    bytes: u64,
    first_seq: Option<u64>,
    last_seq: Option<u64>,
    oldest_at: Option<String>,
    newest_at: Option<String>,
    samples_per_minute: Option<f64>,
}

#[derive(Serialize)]
struct GapLine {
    from: u64,
    to: u64,
    reason: &'static str,
}

impl Summary {
    /// An empty one, to be shown like this.
    pub fn new(look: Look) -> Self {
        Self { look, ..Self::default() }
    }

    /// Counts a sample; they come in the order of their numbers.
    pub fn add(&mut self, entry: &Entry) {
        let figures = match entry.set {
            Set::Pending => &mut self.pending,
            Set::Sent => &mut self.sent,
            Set::Rejected => &mut self.rejected,
        };
        figures.samples += 1;
        figures.bytes += entry.record.payload.len() as u64;
        let here = (entry.record.seq, entry.record.stamp.wall_ms);
        figures.first.get_or_insert(here);
        figures.last = Some(here);
        figures.course.add(here.1);
    }

    /// Prints the sets that hold something, and the gaps: text for people, one JSON object else.
    pub fn print(&mut self, gaps: &[Gap], out: &mut impl Write) -> io::Result<()> {
        let mut sets = Vec::new();
        let mut courses = Vec::new();
        for (set, figures) in [
            (Set::Pending, &mut self.pending),
            (Set::Sent, &mut self.sent),
            (Set::Rejected, &mut self.rejected),
        ] {
            if figures.samples > 0 {
                sets.push(figures.show(name(set)));
                courses.push(&mut figures.course);
            }
        }
        let gaps: Vec<_> = gaps
            .iter()
            .map(|gap| GapLine { from: gap.from, to: gap.to, reason: reason(gap.reason) })
            .collect();
        let Some(width) = self.look.width else {
            serde_json::to_writer(&mut *out, &Whole { sets: &sets, gaps: &gaps })?;
            return out.write_all(b"\n");
        };
        if sets.is_empty() {
            writeln!(out, "nothing is queued")?;
        }
        for (set, course) in sets.iter().zip(courses) {
            let counts = format!(
                "{} samples, {} bytes, numbers {} to {}",
                set.samples,
                set.bytes,
                set.first_seq.unwrap_or(0),
                set.last_seq.unwrap_or(0),
            );
            let times = format!(
                "from {} to {}{}",
                set.oldest_at.as_deref().unwrap_or("-"),
                set.newest_at.as_deref().unwrap_or("-"),
                set.samples_per_minute
                    .map_or_else(String::new, |rate| format!(", {rate:.1} a minute")),
            );
            write!(out, "{}", labelled(set.state, INDENT, &counts, width))?;
            write!(out, "{}", labelled("", INDENT, &times, width))?;
            let line = course.line(width.saturating_sub(INDENT).min(Spark::MOST));
            if !line.is_empty() {
                let step = humantime::format_duration(Duration::from_secs(course.seconds()));
                writeln!(out, "{:INDENT$}{line}", "")?;
                let step = format!("samples, a bar for each {step}");
                write!(out, "{}", labelled("", INDENT, &step, width))?;
            }
        }
        for gap in &gaps {
            let text = format!("{} to {}: {}", gap.from, gap.to, gap.reason);
            write!(out, "{}", labelled("gap", INDENT, &text, width))?;
        }
        Ok(())
    }
}

impl Figures {
    fn show<'a>(&self, state: &'a str) -> SetLine<'a> {
        let (first, last) = (self.first, self.last);
        SetLine {
            state,
            samples: self.samples,
            bytes: self.bytes,
            first_seq: first.map(|(seq, _)| seq),
            last_seq: last.map(|(seq, _)| seq),
            oldest_at: first.map(|(_, at)| time(at)),
            newest_at: last.map(|(_, at)| time(at)),
            samples_per_minute: self.rate(),
        }
    }

    /// None when the clock says that no time has passed, or ran backwards.
    fn rate(&self) -> Option<f64> {
        let (_, from) = self.first?;
        let (_, to) = self.last?;
        let minutes = Duration::from_millis(to.checked_sub(from)?).as_secs_f64() / 60.0;
        let intervals = self.samples.checked_sub(1)? as f64;
        (minutes > 0.0).then(|| (intervals / minutes * 10.0).round() / 10.0)
    }
}

/// The reason's name, as the interface has it.
pub fn reason(reason: GapReason) -> &'static str {
    match reason {
        GapReason::QueueFull => "queue_full",
        GapReason::Expired => "expired",
        GapReason::Corrupt => "corrupt",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use harborforge_storage::{Record, Stamp};

    fn entry(seq: u64, wall_ms: u64) -> Entry {
        Entry {
            record: Record {
                seq,
                epoch: "0198f0c2-0000-4000-8000-000000000000".parse().unwrap(),
                stamp: Stamp { wall_ms, boot_ms: 0, boot_id: [0; 16] },
                payload: vec![b'x'; 100],
            },
            set: Set::Pending,
            rejection: None,
        }
    }

    fn shown(summary: &mut Summary, for_people: bool) -> String {
        summary.look.width = for_people.then_some(80);
        let gaps = [Gap {
            from: 3,
            to: 5,
            reason: GapReason::Corrupt,
            maybe_delivered: false,
            wall_ms: 0,
            announced: false,
        }];
        let mut out = Vec::new();
        summary.print(&gaps, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn counts_bytes_times_and_rate() {
        let mut summary = Summary::default();
        for (seq, at) in [(1, 0), (2, 30_000), (6, 60_000)] {
            summary.add(&entry(seq, 1_773_262_800_000 + at));
        }
        assert_eq!(
            shown(&mut summary, true),
            "pending   3 samples, 300 bytes, numbers 1 to 6\n          \
             from 2026-03-11T21:00:00Z to 2026-03-11T21:01:00Z, 2.0 a minute\n          \
             █     █     █\n          samples, a bar for each 5s\n\
             gap       3 to 5: corrupt\n"
        );
        let json: serde_json::Value = serde_json::from_str(&shown(&mut summary, false)).unwrap();
        assert_eq!(json["sets"][0]["samples"], 3);
        assert_eq!(json["gaps"][0]["reason"], "corrupt");
    }

    #[test]
    fn it_fits_a_narrow_terminal() {
        let mut summary = Summary::default();
        summary.look.width = Some(40);
        for (seq, at) in [(1, 0), (2, 30_000), (1_000_006, 60_000)] {
            summary.add(&entry(seq, 1_773_262_800_000 + at));
        }
        let mut out = Vec::new();
        summary.print(&[], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        let start = "pending   3 samples, 300 bytes, numbers\n          1 to 1000006\n";
        assert!(text.starts_with(start), "{text}");
    }

    #[test]
    fn an_empty_queue_and_a_clock_that_ran_backwards() {
        assert!(shown(&mut Summary::default(), true).starts_with("nothing is queued\n"));
        let mut summary = Summary::default();
        summary.add(&entry(1, 1_000));
        summary.add(&entry(2, 0));
        assert!(!shown(&mut summary, true).contains("a minute"));
    }
}
