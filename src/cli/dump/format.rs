//! How samples are shown: a table for people, jsonl and csv for programs, raw for the bytes.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use harborforge_storage::{Entry, Set};
use serde::Serialize;
use serde_json::value::RawValue;

use super::summary::reason;
use super::table::Table;
use crate::control::protocol::WireChange;
use crate::sample::{Envelope, Sample, splice};
use crate::sender::classify::printable;

/// An output format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// Columns.
    Table(Table),
    /// A JSON object a line.
    Jsonl,
    /// Comma-separated values with a head line.
    Csv,
    /// The stored bytes, a line each.
    Raw,
}

/// Prints entries one by one.
pub struct Printer<'a> {
    format: Format,
    identifier: &'a str,
}

/// A line of jsonl; the names are fixed.
#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    state: &'static str,
    sampled_at: String,
    size: usize,
    attempts: u32,
    last_error: Option<&'a str>,
    payload: Payload<'a>,
}

/// A line of jsonl about a sample that was shown before.
#[derive(Serialize)]
struct ChangeLine {
    seq: u64,
    state: &'static str,
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// A sample that is JSON stands as it is; what a fault made of it stands as text.
#[derive(Serialize)]
#[serde(untagged)]
enum Payload<'a> {
    Json(&'a RawValue),
    Text(String),
}

const CSV_HEAD: [&str; 21] = [
    "seq",
    "state",
    "sampled_at",
    "size",
    "attempts",
    "last_error",
    "sample_id",
    "identifier",
    "cpu_pct",
    "mem_pct",
    "disk_pct",
    "swap_pct",
    "uptime_seconds",
    "load_1",
    "load_5",
    "load_15",
    "openclaw_version",
    "agents",
    "agents_running",
    "connector_version",
    "agent_names",
];

impl<'a> Printer<'a> {
    /// A printer for samples of the server called `identifier`.
    pub fn new(format: Format, identifier: &'a str) -> Self {
        Self { format, identifier }
    }

    /// What stands before the first sample.
    pub fn begin(&mut self, out: &mut impl Write) -> io::Result<()> {
        match &self.format {
            Format::Table(table) => table.head(out),
            Format::Csv => write_csv(out, &CSV_HEAD),
            Format::Jsonl | Format::Raw => Ok(()),
        }
    }

    /// One sample.
    pub fn entry(&mut self, entry: &Entry, out: &mut impl Write) -> io::Result<()> {
        match &self.format {
            Format::Table(table) => table.entry(entry, out),
            Format::Jsonl => self.json_line(entry, out),
            Format::Csv => self.csv_line(entry, out),
            Format::Raw => {
                out.write_all(&entry.record.payload)?;
                out.write_all(b"\n")
            }
        }
    }

    /// Samples that came or went: a line for each, but one line for all in the table. The stored
    /// bytes do not change, so there is nothing to show of them.
    pub fn change(&mut self, change: &WireChange, out: &mut impl Write) -> io::Result<()> {
        let mut numbers = change.from..=change.to;
        match &self.format {
            Format::Table(table) => table.change(change, out),
            Format::Jsonl => numbers.try_for_each(|seq| {
                let line = ChangeLine {
                    seq,
                    state: change.state.name(),
                    at: time(change.wall_ms),
                    reason: change.reason.map(reason),
                };
                serde_json::to_writer(&mut *out, &line)?;
                out.write_all(b"\n")
            }),
            Format::Csv => numbers.try_for_each(|seq| {
                let mut fields = [const { String::new() }; CSV_HEAD.len()];
                let [number, state, _, _, _, error, ..] = &mut fields;
                *number = seq.to_string();
                change.state.name().clone_into(state);
                change.reason.map_or("", reason).clone_into(error);
                write_csv(out, &fields)
            }),
            Format::Raw => Ok(()),
        }
    }

    fn json_line(&self, entry: &Entry, out: &mut impl Write) -> io::Result<()> {
        let record = &entry.record;
        let epoch = record.epoch.to_string();
        let envelope = Envelope {
            identifier: self.identifier,
            seq: record.seq,
            epoch: &epoch,
            replayed: false,
            gaps: &[],
            encrypted_payload: None,
        };
        let telemetry = splice(&record.payload, &envelope).unwrap_or_default();
        let payload = match serde_json::from_slice::<&RawValue>(&telemetry) {
            Ok(json) => Payload::Json(json),
            Err(_) => Payload::Text(String::from_utf8_lossy(&record.payload).into_owned()),
        };
        let line = Line {
            seq: record.seq,
            state: name(entry.set),
            sampled_at: time(record.stamp.wall_ms),
            size: record.payload.len(),
            attempts: attempts(entry),
            last_error: last_error(entry),
            payload,
        };
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")
    }

    fn csv_line(&self, entry: &Entry, out: &mut impl Write) -> io::Result<()> {
        let record = &entry.record;
        let sample = parsed(entry);
        let of = |pick: fn(&Sample) -> Option<f64>| number(sample.as_ref().and_then(pick));
        let load =
            |place: usize| number(sample.as_ref().and_then(|s| s.load_avg?.get(place).copied()));
        let agents = sample.as_ref().map_or(&[][..], |s| &s.agents);
        let running =
            agents.iter().filter(|a| a.status == crate::sample::AgentStatus::Running).count();
        let version = sample.as_ref().and_then(|s| s.openclaw_version.as_deref());
        let fields = [
            record.seq.to_string(),
            name(entry.set).to_owned(),
            time(record.stamp.wall_ms),
            record.payload.len().to_string(),
            attempts(entry).to_string(),
            harmless(last_error(entry).unwrap_or_default()),
            format!("{}-{}", record.epoch, record.seq),
            harmless(self.identifier),
            of(|s| s.cpu_pct),
            of(|s| s.mem_pct),
            of(|s| s.disk_pct),
            of(|s| s.swap_pct),
            sample
                .as_ref()
                .and_then(|s| s.uptime_seconds)
                .map_or_else(String::new, |n| n.to_string()),
            load(0),
            load(1),
            load(2),
            harmless(version.unwrap_or_default()),
            agents.len().to_string(),
            running.to_string(),
            harmless(sample.as_ref().map_or("", |s| &s.connector_version)),
            harmless(&agents.iter().map(|a| a.name.as_str()).collect::<Vec<_>>().join("; ")),
        ];
        write_csv(out, &fields)
    }
}

fn write_csv<T: AsRef<[u8]>>(out: &mut impl Write, fields: &[T]) -> io::Result<()> {
    // As RFC 4180 has it.
    let mut builder = csv::WriterBuilder::new();
    let mut writer = builder.terminator(csv::Terminator::CRLF).from_writer(out);
    writer.write_record(fields).map_err(io::Error::from)?;
    writer.flush()
}

/// A text a spreadsheet would take for a formula gets an apostrophe in front, as the spreadsheets
/// themselves write it.
fn harmless(text: &str) -> String {
    let text = printable(text);
    if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text }
}

/// The sample, if that is what is stored.
pub fn parsed(entry: &Entry) -> Option<Sample> {
    serde_json::from_slice(&entry.record.payload).ok()
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// The set's name, as `--state` and the jsonl lines have it.
pub fn name(set: Set) -> &'static str {
    match set {
        Set::Pending => "pending",
        Set::Sent => "sent",
        Set::Rejected => "rejected",
    }
}

/// Refusals recorded with the sample: the final one of a rejected sample. Tries that failed for
/// other reasons are not the sample's, and are not recorded with it.
fn attempts(entry: &Entry) -> u32 {
    u32::from(entry.rejection.is_some())
}

/// Why it was refused.
pub fn last_error(entry: &Entry) -> Option<&str> {
    entry.rejection.as_ref().map(|(reason, _)| reason.as_str())
}

/// RFC 3339 with whole seconds; a time beyond the year 9999 is shown as its last second.
pub fn time(wall_ms: u64) -> String {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since = Duration::from_millis(wall_ms).min(LAST);
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::terminal::Look;
    use crate::control::protocol::NewState;
    use harborforge_storage::{GapReason, Record, Stamp};

    fn table() -> Format {
        Format::Table(Table::new(Look::default(), false))
    }

    fn entry(set: Set, payload: &[u8], rejection: Option<&str>) -> Entry {
        Entry {
            record: Record {
                seq: 7,
                epoch: "0198f0c2-0000-4000-8000-000000000000".parse().unwrap(),
                stamp: Stamp { wall_ms: 1_773_262_800_000, boot_ms: 1, boot_id: [0; 16] },
                payload: payload.to_vec(),
            },
            set,
            rejection: rejection.map(|reason| (reason.to_owned(), 0)),
        }
    }

    const SAMPLE: &[u8] = br#"{"openclaw_version":null,"cpu_pct":12.5,"mem_pct":null,"disk_pct":62.0,"swap_pct":0.0,"uptime_seconds":12345,"load_avg":[0.12,0.09,0.03],"agents":[],"last_seen_at":"2026-03-11T21:00:00Z","connector_version":"0.1.0"}"#;

    fn printed(format: Format, entry: &Entry) -> String {
        let mut out = Vec::new();
        let mut printer = Printer::new(format, "vps.t1");
        printer.begin(&mut out).unwrap();
        printer.entry(entry, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_jsonl_line_has_the_fixed_names_and_the_whole_telemetry() {
        let line = printed(Format::Jsonl, &entry(Set::Pending, SAMPLE, None));
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["seq"], 7);
        assert_eq!(line["state"], "pending");
        assert_eq!(line["sampled_at"], "2026-03-11T21:00:00Z");
        assert_eq!(line["size"], SAMPLE.len());
        assert_eq!(line["attempts"], 0);
        assert!(line["last_error"].is_null());
        assert_eq!(line["payload"]["identifier"], "vps.t1");
        assert_eq!(line["payload"]["sample_id"], "0198f0c2-0000-4000-8000-000000000000-7");
        assert_eq!(line["payload"]["cpu_pct"], 12.5);
    }

    #[test]
    fn a_sample_that_is_no_json_is_shown_as_text() {
        let line = printed(Format::Jsonl, &entry(Set::Pending, b"\xff{oops", None));
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["payload"], "\u{fffd}{oops");
        assert!(printed(table(), &entry(Set::Pending, b"\xff", None)).contains(" -  "));
    }

    #[test]
    fn the_table_is_readable_and_says_why_a_sample_was_rejected() {
        let text = printed(table(), &entry(Set::Rejected, SAMPLE, Some("HTTP 422: no\u{7}")));
        assert_eq!(
            text,
            "       seq  state     sampled at             bytes   cpu%   mem%  disk%  swap%  agents  last error\n         7  rejected  2026-03-11T21:00:00Z     215   12.5      -   62.0    0.0       0  HTTP 422: no\\u{7}\n"
        );
    }

    #[test]
    fn csv_quotes_what_it_must_and_starts_no_formula() {
        let text = printed(Format::Csv, &entry(Set::Rejected, SAMPLE, Some("=1+1, \"x\"")));
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        assert_eq!(reader.headers().unwrap().len(), CSV_HEAD.len());
        let row = reader.records().next().unwrap().unwrap();
        assert_eq!(row.get(0), Some("7"));
        assert_eq!(row.get(5), Some("'=1+1, \"x\""));
        assert_eq!(row.get(9), Some(""), "a figure that could not be read is empty, not 0");
        assert_eq!(row.get(13), Some("0.12"));
    }

    #[test]
    fn csv_is_as_the_rfc_has_it_and_names_the_agents() {
        let named = String::from_utf8(SAMPLE.to_vec()).unwrap().replace(
            "\"agents\":[]",
            r#""agents":[{"id":"a","name":"=cmd|' /C calc'!A0","status":"running"},{"id":"b","name":"two","status":"idle"}]"#,
        );
        let text = printed(Format::Csv, &entry(Set::Pending, named.as_bytes(), None));
        assert_eq!(text.matches("\r\n").count(), text.matches('\n').count());
        assert!(!text.contains("null"), "{text}");
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let row = reader.records().next().unwrap().unwrap();
        assert_eq!((row.get(17), row.get(18)), (Some("2"), Some("1")));
        assert_eq!(row.get(20), Some("'=cmd|' /C calc'!A0; two"));
    }

    #[test]
    fn what_comes_and_goes_is_told_sample_by_sample() {
        let change = WireChange {
            from: 5,
            to: 6,
            state: NewState::GivenUp,
            reason: Some(GapReason::QueueFull),
            wall_ms: 1_773_262_800_000,
        };
        let told = |format, change: &WireChange| {
            let mut out = Vec::new();
            Printer::new(format, "vps.t1").change(change, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            told(Format::Jsonl, &change),
            "{\"seq\":5,\"state\":\"given_up\",\"at\":\"2026-03-11T21:00:00Z\",\"reason\":\"queue_full\"}\n\
             {\"seq\":6,\"state\":\"given_up\",\"at\":\"2026-03-11T21:00:00Z\",\"reason\":\"queue_full\"}\n"
        );
        let sent = WireChange { to: 5, state: NewState::Sent, reason: None, ..change };
        assert_eq!(
            told(Format::Jsonl, &sent),
            "{\"seq\":5,\"state\":\"sent\",\"at\":\"2026-03-11T21:00:00Z\"}\n"
        );
        assert_eq!(
            told(Format::Csv, &change).lines().next(),
            Some("5,given_up,,,,queue_full,,,,,,,,,,,,,,,")
        );
        assert_eq!(told(Format::Raw, &change), "");
    }

    #[test]
    fn raw_is_what_is_stored() {
        let text = printed(Format::Raw, &entry(Set::Sent, SAMPLE, None));
        assert_eq!(text.as_bytes().strip_suffix(b"\n"), Some(SAMPLE));
    }
}
