//! How the findings of a verification are shown: columns and a verdict for people, jsonl for
//! programs. Fed one generation at a time, from wherever they come.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use harborforge_storage::{FileState, GenerationReport, Numbers, QueueReport};
use serde::Serialize;

use super::super::terminal::labelled;
use super::super::{CliError, Exit};
use crate::sender::classify::printable;

/// An output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Columns and a verdict.
    Table,
    /// A JSON object a line: `"type":"generation"` for each, at the end `"type":"queue"`.
    Jsonl,
}

/// The columns before what was found: head, room, and the place by which they stay.
const COLUMNS: [(&str, usize, usize); 7] = [
    ("generation", NAME, 0),
    ("samples", 7, 1),
    ("pending", 7, 2),
    ("bytes", 9, 6),
    ("on disk", 9, 5),
    ("first", 10, 3),
    ("last", 10, 4),
];
/// A generation's name, which is never cut: somebody may have to look into it.
const NAME: usize = 38;
const SPACE: usize = 2;
/// The head of what was found, a little longer than "good".
const FOUND: &str = "found";

/// Prints findings one by one.
pub struct Printer<W> {
    format: Format,
    /// Columns of the terminal; `None` where lines may have any length.
    width: Option<usize>,
    data_dir: PathBuf,
    out: W,
    /// A daemon runs, and reads for this.
    live: bool,
    /// The verdict, once it is known.
    verdict: String,
}

/// A line of jsonl.
#[derive(Serialize)]
struct Line<'a, T> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    report: &'a T,
}

/// Numbers of one kind that are named; more are counted.
const NAMED: usize = 5;

impl<W: Write> Printer<W> {
    /// A printer for the queue below `data_dir`.
    pub fn new(format: Format, width: Option<usize>, data_dir: &Path, out: W) -> Self {
        let data_dir = data_dir.to_path_buf();
        Self { format, width, data_dir, out, live: false, verdict: String::new() }
    }

    /// The findings come from a daemon that has the queue open.
    pub fn asks_a_daemon(&mut self) {
        self.live = true;
    }

    /// What is said when there is no queue.
    pub fn nothing(&mut self) -> io::Result<()> {
        let dir = self.data_dir.display().to_string();
        match self.format {
            Format::Table => writeln!(self.out, "nothing was ever queued in {dir}")?,
            Format::Jsonl => {
                #[derive(Serialize)]
                struct Nothing {
                    good: bool,
                    data_dir: String,
                    nothing_queued: bool,
                }
                let report = &Nothing { good: true, data_dir: dir, nothing_queued: true };
                self.json("queue", report)?;
            }
        }
        self.out.flush()
    }

    /// What stands before the first generation.
    pub fn begin(&mut self) -> io::Result<()> {
        match self.format {
            Format::Table => self.row(&COLUMNS.map(|(head, _, _)| head.to_owned()), FOUND),
            Format::Jsonl => Ok(()),
        }
    }

    /// One generation.
    pub fn generation(&mut self, report: &GenerationReport) -> io::Result<()> {
        match self.format {
            Format::Table => {
                let number = |seq: Option<u64>| seq.map_or("-".to_owned(), |seq| seq.to_string());
                let cells = [
                    report.name.clone(),
                    report.records.to_string(),
                    report.pending.to_string(),
                    report.bytes.to_string(),
                    report.disk_bytes.to_string(),
                    number(report.first_seq),
                    number(report.last_seq),
                ];
                self.row(&cells, &found(report))?;
            }
            Format::Jsonl => self.json("generation", report)?,
        }
        // Reading one takes a while: whoever watches sees that it goes on.
        self.out.flush()
    }

    /// The whole, at the end.
    pub fn queue(&mut self, report: &QueueReport) -> io::Result<()> {
        self.verdict = verdict(report, &self.data_dir, self.live);
        match self.format {
            Format::Table => {
                writeln!(self.out, "{}", small_files(report))?;
                writeln!(self.out, "{}", account(report))?;
                if report.quarantined > 0 {
                    writeln!(
                        self.out,
                        "set aside before: {} generations of {} bytes in {}",
                        report.quarantined,
                        report.quarantined_bytes,
                        self.data_dir.join("queue/quarantine").display()
                    )?;
                }
                writeln!(self.out, "{}", self.verdict)?;
            }
            Format::Jsonl => self.json("queue", report)?,
        }
        self.out.flush()
    }

    /// The error for a queue that is not sound: said here unless people have read it already.
    pub fn failure(&self) -> CliError {
        match self.format {
            Format::Table => CliError::quiet(Exit::Storage),
            Format::Jsonl => CliError::new(Exit::Storage, &self.verdict),
        }
    }

    /// As many columns as fit; what was found is wrapped below where it does not fit behind them.
    fn row(&mut self, cells: &[String; COLUMNS.len()], found: &str) -> io::Result<()> {
        let shown = shown(self.width);
        let mut line = String::new();
        for ((cell, (_, room, _)), shown) in cells.iter().zip(COLUMNS).zip(shown) {
            match (shown, line.is_empty()) {
                (true, true) => line.push_str(&format!("{cell:<room$}")),
                (true, false) => line.push_str(&format!("{:SPACE$}{cell:>room$}", "")),
                (false, _) => {}
            }
        }
        let whole = format!("{line}{:SPACE$}{found}", "");
        match self.width {
            Some(width) if whole.chars().count() > width => {
                writeln!(self.out, "{}", line.trim_end())?;
                write!(self.out, "{}", labelled("", SPACE, found, width))
            }
            Some(_) | None => writeln!(self.out, "{whole}"),
        }
    }

    fn json(&mut self, kind: &'static str, report: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, &Line { kind, report })?;
        self.out.write_all(b"\n")
    }
}

/// Which columns fit beside a generation in which nothing is wrong, the most important first.
fn shown(width: Option<usize>) -> [bool; COLUMNS.len()] {
    let found = SPACE + FOUND.len();
    COLUMNS.map(|(_, _, place)| {
        let before = COLUMNS.iter().filter(|(_, _, other)| *other <= place);
        let needed: usize = before.map(|(_, room, _)| room + SPACE).sum();
        place == 0 || width.is_none_or(|width| needed - SPACE + found <= width)
    })
}

/// What was found in a generation, in words.
fn found(report: &GenerationReport) -> String {
    if report.unfinished {
        return "empty: made when the daemon was killed, goes at its next start".to_owned();
    }
    let mut words = Vec::new();
    if let Some(why) = &report.unreadable {
        words.push(format!("CANNOT BE READ ({})", printable(why)));
    }
    if !report.damaged.is_empty() {
        words.push(format!("DAMAGED {}", listed(&report.damaged)));
    }
    if !report.missing.is_empty() {
        words.push(format!("MISSING {}", listed(&report.missing)));
    }
    if report.missing_rejected > 0 {
        words.push(format!("MISSING {} rejected samples", report.missing_rejected));
    }
    if !report.engine_files.is_empty() {
        let names = printable(&report.engine_files.join(", "));
        words.push(format!("UNUSABLE {names}, will be made anew without a loss"));
    }
    if words.is_empty() {
        words.push("good".to_owned());
    }
    if report.in_gaps > 0 {
        words.push(format!("{} in gaps", report.in_gaps));
    }
    words.join("; ")
}

fn small_files(report: &QueueReport) -> String {
    let bad = report.files.by_name().into_iter().filter(|(_, state)| state.is_bad());
    let bad: Vec<_> = bad.map(|(name, state)| format!("{name} {}", word(state))).collect();
    let found = if bad.is_empty() { "good".to_owned() } else { bad.join(", ") };
    format!("small files: {found}")
}

fn word(state: FileState) -> &'static str {
    match state {
        FileState::Good => "good",
        FileState::Absent => "not needed yet",
        FileState::Missing => "MISSING",
        FileState::Damaged => "DAMAGED",
    }
}

fn account(report: &QueueReport) -> String {
    let all = report.next_seq.saturating_sub(1);
    format!(
        "{all} samples so far: {} done with, {} pending, {} rejected, {} in gaps, {} lost",
        report.settled, report.pending, report.rejected, report.in_gaps, report.lost
    )
}

/// The verdict and, where something is wrong, in a second line what to do.
fn verdict(report: &QueueReport, data_dir: &Path, live: bool) -> String {
    if report.good {
        return "verified: every number is accounted for, every checksum is right".to_owned();
    }
    let mut wrong = Vec::new();
    if report.bad_generations > 0 {
        wrong.push(format!("{} of {} generations", report.bad_generations, report.generations));
    }
    let files = report.files.by_name().into_iter().filter(|(_, state)| state.is_bad());
    wrong.extend(files.map(|(name, state)| format!("{name} ({})", word(state).to_lowercase())));
    if !report.nowhere.is_empty() {
        wrong.push(format!("no generation holds {}", listed(&report.nowhere)));
    }
    let loss = match report.lost {
        0 => "no sample that was to be delivered is lost by it".to_owned(),
        1 => "1 sample is lost".to_owned(),
        lost => format!("{lost} samples are lost"),
    };
    let dir = data_dir.display();
    let deal = match live {
        false => "start the daemon: it",
        true => {
            "then restart the daemon (systemctl restart harborforge-connector), unless it comes to \
             what is broken before: it"
        }
    };
    format!(
        "WRONG: {}; {loss}\nWhat to do: look for the cause (dmesg, the disk's health); copy {dir} if \
         you want to look into it; {deal} delivers all that can be read, lists what cannot as a \
         gap, and sets what is broken aside in {dir}/queue/quarantine",
        wrong.join(", ")
    )
}

/// The first few runs of numbers, and how many more there are.
fn listed(runs: &[Numbers]) -> String {
    let mut words: Vec<_> = runs
        .iter()
        .take(NAMED)
        .map(|run| {
            if run.from == run.to {
                run.from.to_string()
            } else {
                format!("{}..{}", run.from, run.to)
            }
        })
        .collect();
    let more = runs.iter().skip(NAMED).map(Numbers::count).fold(0, u64::saturating_add);
    if more > 0 {
        words.push(format!("and {more} more"));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use harborforge_storage::{Set, SmallFiles};

    fn generation() -> GenerationReport {
        GenerationReport {
            name: "00000000000000000101-00000002.pending".to_owned(),
            set: Set::Pending,
            records: 490,
            pending: 480,
            bytes: 105_350,
            disk_bytes: 212_992,
            first_seq: Some(101),
            last_seq: Some(600),
            damaged: Vec::new(),
            missing: Vec::new(),
            missing_rejected: 0,
            in_gaps: 0,
            engine_files: Vec::new(),
            unreadable: None,
            unfinished: false,
        }
    }

    /// What is printed for a generation on a terminal so wide.
    fn printed(width: Option<usize>, report: &GenerationReport) -> Vec<String> {
        let mut out = Vec::new();
        let mut printer = Printer::new(Format::Table, width, Path::new("/d"), &mut out);
        printer.begin().unwrap();
        printer.generation(report).unwrap();
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_table_fits_the_terminal() {
        let bad = GenerationReport {
            missing: (1..=9).map(|n| run(n * 1000, n * 1000 + 7)).collect(),
            unreadable: Some("the database file is gone".to_owned()),
            ..generation()
        };
        for width in [40, 60, 80, 100, 109, 120] {
            for report in [&generation(), &bad] {
                for line in printed(Some(width), report) {
                    assert!(line.chars().count() <= width, "{width}: {line}");
                }
            }
            let all = printed(Some(width), &bad).join(" ");
            let all = all.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(all.contains("00000000000000000101-00000002.pending"), "{all}");
            assert!(all.ends_with(&found(&bad)), "{all}");
        }
        assert_eq!(
            printed(Some(80), &generation()),
            [
                "generation                              samples  pending       first  found",
                "00000000000000000101-00000002.pending       490      480         101  good",
            ]
        );
        assert_eq!(printed(None, &bad).len(), 2, "a pipe has lines of any length");
    }

    fn run(from: u64, to: u64) -> Numbers {
        Numbers { from, to }
    }

    #[test]
    fn every_kind_of_finding_has_its_words() {
        assert_eq!(found(&generation()), "good");
        assert_eq!(found(&GenerationReport { in_gaps: 3, ..generation() }), "good; 3 in gaps");
        let runs: Vec<_> = (1..=7).map(|n| run(n * 10, n * 10 + n - 1)).collect();
        let all = GenerationReport {
            damaged: vec![run(311, 311)],
            missing: runs,
            missing_rejected: 2,
            engine_files: vec!["conf".to_owned()],
            unreadable: Some("no\u{1b}".to_owned()),
            ..generation()
        };
        assert_eq!(
            found(&all),
            "CANNOT BE READ (no\\u{1b}); DAMAGED 311; MISSING 10, 20..21, 30..32, 40..43, 50..54, \
             and 13 more; MISSING 2 rejected samples; UNUSABLE conf, will be made anew without a loss"
        );
        let unfinished = GenerationReport { unfinished: true, records: 0, ..generation() };
        assert!(found(&unfinished).starts_with("empty"));
    }

    #[test]
    fn the_verdict_says_what_is_wrong_and_what_to_do() {
        let files = SmallFiles {
            format: FileState::Good,
            manifest: FileState::Damaged,
            mark: FileState::Good,
            cursor: FileState::Missing,
            last_success: FileState::Absent,
        };
        let report = QueueReport {
            good: false,
            generations: 6,
            bad_generations: 2,
            records: 0,
            bytes: 0,
            disk_bytes: 0,
            next_seq: 601,
            settled: 100,
            pending: 480,
            rejected: 2,
            in_gaps: 3,
            lost: 15,
            nowhere: vec![run(590, 600)],
            files,
            quarantined: 0,
            quarantined_bytes: 0,
        };
        let said = verdict(&report, Path::new("/d"), false);
        let start = "WRONG: 2 of 6 generations, manifest (damaged), cursor (missing), no generation \
                     holds 590..600; 15 samples are lost\nWhat to do: look";
        assert!(said.starts_with(start), "{said}");
        assert!(said.ends_with("/d/queue/quarantine"), "{said}");
        assert!(said.contains("; start the daemon: it delivers"), "{said}");
        let live = verdict(&report, Path::new("/d"), true);
        assert!(live.contains("; then restart the daemon (systemctl"), "{live}");
        assert!(!live.contains(" start the daemon"), "{live}");
        assert_eq!(small_files(&report), "small files: manifest DAMAGED, cursor MISSING");
        assert!(
            verdict(&QueueReport { good: true, ..report }, Path::new("/d"), true)
                .starts_with("ver")
        );
    }
}
