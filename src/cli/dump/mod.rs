//! `dump`: what is queued, oldest first.
//!
//! Invariants: nothing below the data directory is written (the queue is read through private
//! copies, see [`Inspector`]); memory does not grow with the queue, but for `--tail N`, which
//! keeps N samples; what cannot be read is told on stderr and does not end the dump.

mod filter;
mod format;
mod summary;

use std::collections::VecDeque;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use harborforge_storage::{Error, Inspector, Set};

use self::filter::Filter;
use self::format::{Format, Printer};
use self::summary::Summary;
use super::args::{DumpArgs, DumpFormat, DumpState};
use super::{CliError, Context, Exit};
use crate::config::Need;

/// Prints the queued samples the arguments ask for.
///
/// # Errors
/// Exit code 3 for the configuration, 4 when the queue cannot be read or a daemon has it, 1 when
/// the output takes nothing.
pub fn run(args: &DumpArgs, context: &Context) -> Result<(), CliError> {
    let config = context.load(Need::DataDir)?.config;
    if args.follow {
        let text = "--follow shows a running daemon's queue, which this version cannot do yet: \
                    follow the daemon's log with log_level = \"debug\", or leave --follow out";
        return Err(CliError::new(Exit::Usage, text));
    }
    let mut inspector =
        Inspector::open(&config.data_dir).map_err(|error| CliError::of_queue(&error, "dump"))?;
    // The private copies have to go, so an interrupt ends the reading and not the process.
    let interrupted = super::interruption()?;
    let stdout = io::stdout().lock();
    let for_people = stdout.is_terminal();
    let mut out = BufWriter::new(stdout);
    let filter = Filter::new(args, SystemTime::now());
    let done = if args.summary {
        summarise(&mut inspector, args.state, &filter, for_people, &interrupted, &mut out)
    } else {
        let format = match args.format {
            Some(DumpFormat::Table) => Format::Table,
            Some(DumpFormat::Jsonl) => Format::Jsonl,
            Some(DumpFormat::Csv) => Format::Csv,
            Some(DumpFormat::Raw) => Format::Raw,
            None if for_people => Format::Table,
            None => Format::Jsonl,
        };
        let printer = Printer::new(format, &config.identifier);
        print(&mut inspector, args, &filter, printer, &interrupted, &mut out)
    };
    match done.and_then(|()| out.flush().map_err(Failure::Output)) {
        Ok(()) => {
            tell_problems(&inspector);
            Ok(())
        }
        Err(Failure::Output(error)) => Err(CliError::of_output(&error)),
        Err(Failure::Queue(error)) => Err(CliError::of_queue(&error, "dump")),
        Err(Failure::Interrupted) => Err(CliError::quiet(Exit::Interrupted)),
    }
}

enum Failure {
    Interrupted,
    Queue(Error),
    Output(io::Error),
}

fn print(
    inspector: &mut Inspector,
    args: &DumpArgs,
    filter: &Filter,
    mut printer: Printer<'_>,
    interrupted: &AtomicBool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    printer.begin(out).map_err(Failure::Output)?;
    let tail = args.tail.map(|count| usize::try_from(count).unwrap_or(usize::MAX));
    let mut kept = VecDeque::new();
    let mut left = args.limit.unwrap_or(u64::MAX);
    for entry in inspector.records(sets(args.state), filter.numbers()) {
        if left == 0 {
            break;
        }
        let entry = entry.map_err(Failure::Queue)?;
        if interrupted.load(Ordering::Relaxed) {
            return Err(Failure::Interrupted);
        }
        if !filter.takes(&entry) {
            continue;
        }
        match tail {
            Some(0) => break,
            Some(count) => {
                if kept.len() == count {
                    kept.pop_front();
                }
                kept.push_back(entry);
            }
            None => {
                left -= 1;
                printer.entry(&entry, out).map_err(Failure::Output)?;
            }
        }
    }
    for entry in &kept {
        printer.entry(entry, out).map_err(Failure::Output)?;
    }
    Ok(())
}

fn summarise(
    inspector: &mut Inspector,
    state: DumpState,
    filter: &Filter,
    for_people: bool,
    interrupted: &AtomicBool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut summary = Summary::default();
    for entry in inspector.records(sets(state), filter.numbers()) {
        let entry = entry.map_err(Failure::Queue)?;
        if interrupted.load(Ordering::Relaxed) {
            return Err(Failure::Interrupted);
        }
        if filter.takes(&entry) {
            summary.add(&entry);
        }
    }
    summary.print(inspector.gaps(), for_people, out).map_err(Failure::Output)
}

fn sets(state: DumpState) -> &'static [Set] {
    match state {
        DumpState::Pending => &[Set::Pending],
        DumpState::Sent => &[Set::Sent],
        DumpState::Rejected => &[Set::Rejected],
        DumpState::All => &[Set::Pending, Set::Sent, Set::Rejected],
    }
}

fn tell_problems(inspector: &Inspector) {
    let mut stderr = io::stderr().lock();
    for problem in inspector.problems() {
        let (path, what) = (problem.path.display(), &problem.what);
        // A closed stderr leaves nobody to tell.
        let _ = match (problem.from, problem.to) {
            (0, _) => writeln!(stderr, "harborforge-connector: {path}: {what}"),
            (from, to) if from == to => {
                writeln!(stderr, "harborforge-connector: sample {from} in {path}: {what}")
            }
            (from, to) => {
                writeln!(stderr, "harborforge-connector: samples {from} to {to} in {path}: {what}")
            }
        };
    }
}
