//! The arguments of every command, as clap reads them.
//!
//! Invariant: it names nothing else of this crate, since `src/build.rs` reads it as well, to make the
//! completions and the manual pages of it.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::builder::PossibleValuesParser;
use clap::{ArgGroup, Parser, Subcommand, ValueEnum};

/// Samples a server and its OpenClaw into a durable queue and delivers it to HarborForge Monitor.
#[derive(Debug, Parser)]
#[command(name = "harborforge-connector", version, arg_required_else_help = true)]
pub struct Args {
    /// The configuration file [default: HARBORFORGE_CONFIG, the user's own, or
    /// /etc/harborforge-connector/config.toml]
    #[arg(long, value_name = "PATH", global = true)]
    pub config: Option<PathBuf>,
    /// Set one key of the configuration, over file and environment; not for secrets
    #[arg(long, value_name = "KEY=VALUE", global = true, value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// Show the causes of an error
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sample and deliver, in the foreground, until told to stop
    Run(RunArgs),
    /// Take one sample and print it as JSON; touches nothing
    Sample(SampleArgs),
    /// Show what is queued, oldest first
    Dump(DumpArgs),
    /// Deliver what waits now; or what was delivered, or refused, once more
    Replay(ReplayArgs),
    /// Delete samples that are kept though nothing waits for them
    Purge(PurgeArgs),
    /// Show how delivery is doing: the link, the queue, the last success
    Status(StatusArgs),
    /// Read the whole queue and say whether it is sound; changes nothing
    Verify(VerifyArgs),
    /// Check configuration, permissions and surroundings: a line each, with what to do
    Check(CheckArgs),
    /// Write Monitor, name, challenge or key into the configuration, and tell the running daemon
    Enroll(EnrollArgs),
    /// Show the whole thing at work on an embedded Monitor, without any configuration
    #[cfg(feature = "demo")]
    Demo(DemoArgs),
    /// Print the completions for a shell
    #[command(after_help = COMPLETIONS_NOTES)]
    Completions(CompletionsArgs),
    /// Print the manual page, or that of one command
    #[command(after_help = MAN_NOTES)]
    Man(ManArgs),
}

/// The names of the commands, in their order.
pub const COMMANDS: &[&str] = &[
    "run",
    "sample",
    "dump",
    "replay",
    "purge",
    "status",
    "verify",
    "check",
    "enroll",
    #[cfg(feature = "demo")]
    "demo",
    "completions",
    "man",
];

const COMPLETIONS_NOTES: &str = "\
Where the shells look for it:
  bash        /etc/bash_completion.d/harborforge-connector
  zsh         /usr/local/share/zsh/site-functions/_harborforge-connector
  fish        /etc/fish/completions/harborforge-connector.fish
  elvish      at the end of ~/.config/elvish/rc.elv
  powershell  at the end of $PROFILE";

const MAN_NOTES: &str = "\
To read one, or to put them where man(1) looks, a command's beside the program's:
  harborforge-connector man dump | man -l -
  harborforge-connector man > /usr/local/share/man/man1/harborforge-connector.1
  harborforge-connector man dump > /usr/local/share/man/man1/harborforge-connector-dump.1";

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// The shells there are completions for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU Bash.
    Bash,
    /// The Z shell.
    Zsh,
    /// The friendly interactive shell.
    Fish,
    /// Elvish.
    Elvish,
    /// PowerShell.
    Powershell,
}

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Which command's page; without it the program's own
    #[arg(value_name = "COMMAND", value_parser = PossibleValuesParser::new(COMMANDS))]
    pub command: Option<String>,
}

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {}

/// Arguments of `sample`.
#[derive(Debug, clap::Args)]
pub struct SampleArgs {}

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// As JSON, for scripts; what a pipe gets anyway
    #[arg(long)]
    pub json: bool,
    /// Draw it again every second, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
}

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Only what can be checked on this machine
    #[arg(long)]
    pub offline: bool,
}

/// Arguments of `enroll`. A secret is never one of them: everybody can read those.
#[derive(Debug, clap::Args)]
pub struct EnrollArgs {
    /// The Monitor's base URL
    #[arg(long, value_name = "URL")]
    pub backend_url: Option<String>,
    /// This server's name at the Monitor
    #[arg(long, value_name = "NAME")]
    pub identifier: Option<String>,
    /// Read the challenge from this file; - is the standard input
    #[arg(long, value_name = "PATH", conflicts_with_all = ["api_key_file", "api_key"])]
    pub challenge_file: Option<PathBuf>,
    /// Read an API key from this file, to be used instead of a challenge; - is the standard input
    #[arg(long, value_name = "PATH", conflicts_with = "stdin")]
    pub api_key_file: Option<PathBuf>,
    /// Read the secret from the standard input
    #[arg(long, conflicts_with = "challenge_file")]
    pub stdin: bool,
    /// The secret that is read or asked for is an API key, not a challenge
    #[arg(long)]
    pub api_key: bool,
    /// Do not ask the Monitor whether it can be reached and what its key is
    #[arg(long)]
    pub no_verify: bool,
}

/// Arguments of `demo`.
#[cfg(feature = "demo")]
#[derive(Debug, clap::Args)]
pub struct DemoArgs {}

/// Arguments of `dump`.
#[derive(Debug, clap::Args)]
pub struct DumpArgs {
    /// Which samples
    #[arg(long, value_enum, default_value_t = DumpState::Pending)]
    pub state: DumpState,
    /// Only samples taken since then: a duration ago ("2h") or an RFC 3339 time
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    pub since: Option<Moment>,
    /// Only samples taken until then
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    pub until: Option<Moment>,
    /// Only these sequence numbers, both ends included; either may be left out
    #[arg(long, value_name = "A..B", value_parser = seq_range)]
    pub seq: Option<SeqRange>,
    /// At most this many, the oldest
    #[arg(long, value_name = "N", conflicts_with = "tail")]
    pub limit: Option<u64>,
    /// Only the newest ones
    #[arg(long, value_name = "N")]
    pub tail: Option<u64>,
    /// Go on showing samples as they come and go; needs a running daemon
    #[arg(long, conflicts_with_all = ["summary", "until"])]
    pub follow: bool,
    /// How to show them [default: table on a terminal, jsonl in a pipe]
    #[arg(long, value_enum)]
    pub format: Option<DumpFormat>,
    /// Counts, bytes and times instead of the samples
    #[arg(long, conflicts_with = "format")]
    pub summary: bool,
}

/// Arguments of `purge`.
#[derive(Debug, clap::Args)]
#[command(group(
    ArgGroup::new("kinds").args(["rejected", "sent", "quarantine"]).required(true).multiple(true)
))]
pub struct PurgeArgs {
    /// The samples the Monitor refused for good
    #[arg(long)]
    pub rejected: bool,
    /// The delivered samples kept for `replay --sent`
    #[arg(long)]
    pub sent: bool,
    /// The damaged parts of the queue that were set aside
    #[arg(long)]
    pub quarantine: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// How to show what was found [default: table on a terminal, jsonl in a pipe]
    #[arg(long, value_enum)]
    pub format: Option<VerifyFormat>,
}

/// How `verify` shows what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VerifyFormat {
    /// Columns and a verdict for people.
    Table,
    /// One JSON object a line: each generation, then the whole.
    Jsonl,
}

/// Arguments of `replay`.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("kept").args(["sent", "rejected"])))]
#[command(group(ArgGroup::new("window").args(["since", "seq"]).multiple(true)))]
pub struct ReplayArgs {
    /// Deliver kept samples again, marked as replayed; say which with --since or --seq
    #[arg(long, requires = "window")]
    pub sent: bool,
    /// Try the samples the Monitor has refused again
    #[arg(long)]
    pub rejected: bool,
    /// Only samples taken since then: a duration ago ("2h") or an RFC 3339 time
    #[arg(long, value_name = "WHEN", value_parser = moment, requires = "kept")]
    pub since: Option<Moment>,
    /// Only samples taken until then
    #[arg(long, value_name = "WHEN", value_parser = moment, requires = "kept")]
    pub until: Option<Moment>,
    /// Only these sequence numbers, both ends included; either may be left out
    #[arg(long, value_name = "A..B", value_parser = seq_range, requires = "kept")]
    pub seq: Option<SeqRange>,
    /// Only say what would go
    #[arg(long)]
    pub dry_run: bool,
}

/// Which samples `dump` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DumpState {
    /// Waiting to be delivered.
    Pending,
    /// Delivered and kept.
    Sent,
    /// Refused by the Monitor and kept.
    Rejected,
    /// All of them.
    All,
}

/// How `dump` shows samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DumpFormat {
    /// Columns for people.
    Table,
    /// One JSON object a line.
    Jsonl,
    /// Comma-separated values.
    Csv,
    /// The samples' bytes as stored, one a line.
    Raw,
}

/// A point in time as a user names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// So long before now.
    Ago(Duration),
    /// This time.
    At(SystemTime),
}

impl Moment {
    /// The time it names; the beginning of 1970 when it lies before.
    #[must_use]
    pub fn resolve(self, now: SystemTime) -> SystemTime {
        match self {
            Self::Ago(duration) => now
                .checked_sub(duration)
                .unwrap_or(SystemTime::UNIX_EPOCH)
                .max(SystemTime::UNIX_EPOCH),
            Self::At(time) => time,
        }
    }
}

/// Sequence numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeqRange {
    /// The first; 1 when it was left out.
    pub from: u64,
    /// The last; `u64::MAX` when it was left out.
    pub to: u64,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(duration) = humantime::parse_duration(text) {
        return Ok(Moment::Ago(duration));
    }
    rfc3339(text).map(Moment::At).ok_or_else(|| {
        "expected a duration such as 2h or a time such as 2026-03-11T21:00:00Z".to_owned()
    })
}

/// An RFC 3339 time in UTC or with an offset.
fn rfc3339(text: &str) -> Option<SystemTime> {
    if let Ok(time) = humantime::parse_rfc3339(text) {
        return Some(time);
    }
    // humantime knows UTC alone: read the local part as UTC and move it by the offset.
    let split = text.len().checked_sub("+00:00".len())?;
    let (local, offset) = text.split_at_checked(split)?;
    let time = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let east = match offset.get(..1)? {
        "+" => true,
        "-" => false,
        _ => return None,
    };
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let (hours, minutes): (u64, u64) = (two_digits(hours)?, two_digits(minutes)?);
    let offset = (hours < 24 && minutes < 60).then(|| (hours * 60 + minutes) * 60)?;
    let offset = Duration::from_secs(offset);
    if east { time.checked_sub(offset) } else { time.checked_add(offset) }
}

fn two_digits(text: &str) -> Option<u64> {
    (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())?
}

fn seq_range(text: &str) -> Result<SeqRange, String> {
    const EXPECTED: &str = "expected A..B, A.., ..B or A, numbers from 1 on";
    let number = |text: &str, absent| match text {
        "" => Ok(absent),
        text => text.parse::<u64>().ok().filter(|n| *n > 0).ok_or_else(|| EXPECTED.to_owned()),
    };
    let range = match text.split_once("..") {
        Some((from, to)) => SeqRange {
            from: number(from, 1)?,
            to: number(to.strip_prefix('=').unwrap_or(to), u64::MAX)?,
        },
        None if text.is_empty() => return Err(EXPECTED.into()),
        None => {
            let only = number(text, 1)?;
            SeqRange { from: only, to: only }
        }
    };
    if range.from > range.to {
        return Err(format!("{} comes after {}", range.from, range.to));
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn what_is_replayed_is_said_without_contradiction() {
        for (arguments, right) in [
            ("", true),
            ("--dry-run", true),
            ("--sent --since 2h", true),
            ("--sent --seq 5.. --until 1h", true),
            ("--sent --since 2h --seq 1..9", true),
            ("--rejected", true),
            ("--rejected --since 2h --dry-run", true),
            ("--sent", false),
            ("--sent --until 1h", false),
            ("--sent --rejected --since 2h", false),
            ("--since 2h", false),
            ("--seq 1..2", false),
        ] {
            let all = ["harborforge-connector", "replay"].into_iter();
            let parsed = Args::try_parse_from(all.chain(arguments.split_whitespace()));
            assert_eq!(parsed.is_ok(), right, "{arguments}");
        }
    }

    #[test]
    fn sequence_ranges() {
        for (text, expected) in [
            ("3..7", Some((3, 7))),
            ("3..=7", Some((3, 7))),
            ("3..", Some((3, u64::MAX))),
            ("..7", Some((1, 7))),
            ("5", Some((5, 5))),
            ("..", Some((1, u64::MAX))),
            ("7..3", None),
            ("0..3", None),
            ("a..b", None),
            ("", None),
            ("-1..3", None),
        ] {
            let found = seq_range(text).ok().map(|range| (range.from, range.to));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn moments_are_durations_ago_or_times() {
        let at = |text: &str| SystemTime::UNIX_EPOCH + Duration::from_secs(text.parse().unwrap());
        assert_eq!(moment("2h"), Ok(Moment::Ago(Duration::from_secs(7200))));
        assert_eq!(moment("1970-01-01T00:01:00Z"), Ok(Moment::At(at("60"))));
        assert_eq!(moment("1970-01-01T02:01:00+02:00"), Ok(Moment::At(at("60"))));
        assert_eq!(moment("1970-01-01T00:01:00-01:30"), Ok(Moment::At(at("5460"))));
        for text in ["yesterday", "", "1970-01-01", "1970-01-01T00:01:00+2:00", "é"] {
            assert!(moment(text).is_err(), "{text}");
        }
        let now = at("10");
        assert_eq!(Moment::Ago(Duration::from_secs(4)).resolve(now), at("6"));
        assert_eq!(Moment::Ago(Duration::from_secs(99)).resolve(now), at("0"));
    }
}
