//! `dump`: what is queued, oldest first.
//!
//! Invariants: it is the same whether a daemon has the queue open or not (see `source`); nothing
//! below the data directory is written; memory does not grow with the queue, but for `--tail N`,
//! which keeps N samples; what cannot be read is told on stderr and does not end the dump.

mod filter;
mod format;
mod source;
mod spark;
mod summary;
mod table;

use std::collections::VecDeque;
use std::io::{self, BufWriter, Write};
use std::time::SystemTime;

use harborforge_storage::{Entry, Error};

use self::filter::Filter;
use self::format::{Format, Printer};
use self::source::{Item, Next, Source};
use self::summary::Summary;
use self::table::Table;
use super::args::{DumpArgs, DumpFormat, DumpState};
use super::scratch::tell;
use super::terminal::Look;
use super::{CliError, Context, Exit};
use crate::config::Need;
use crate::control::client::ClientError;
use crate::control::protocol::Dump;

/// Prints the queued samples the arguments ask for.
///
/// # Errors
/// Exit code 3 for the configuration, 4 when the queue cannot be read, 1 when the output takes
/// nothing, the daemon does not answer as it should, or none runs that could be followed.
pub fn run(args: &DumpArgs, context: &Context) -> Result<(), CliError> {
    let config = context.load(Need::DataDir)?.config;
    let socket = config.control_socket.as_path();
    let source = Source::open(context, &config)?;
    if args.follow && matches!(source, Source::Files(_)) {
        let text = format!(
            "only a running daemon's queue can be followed, and none that has the queue in {} \
             answers on {}: start it, or leave --follow out",
            config.data_dir.display(),
            socket.display()
        );
        return Err(CliError::new(Exit::Failed, text));
    }
    let look = Look::of_stdout();
    let mut out = BufWriter::new(io::stdout().lock());
    let filter = Filter::new(args, SystemTime::now());
    let done = if args.summary {
        summarise(source, args, &filter, look, &mut out)
    } else {
        let table = || {
            let refusals = args.state != DumpState::Pending && args.state != DumpState::Sent;
            Format::Table(Table::new(look, refusals || args.follow))
        };
        let format = match args.format {
            Some(DumpFormat::Table) => table(),
            Some(DumpFormat::Jsonl) => Format::Jsonl,
            Some(DumpFormat::Csv) => Format::Csv,
            Some(DumpFormat::Raw) => Format::Raw,
            None if look.width.is_some() => table(),
            None => Format::Jsonl,
        };
        let printer = Printer::new(format, &config.identifier);
        print(source, args, &filter, printer, &mut out)
    };
    match done.and_then(|()| out.flush().map_err(Failure::Output)) {
        Ok(()) => Ok(()),
        Err(Failure::Output(error)) => Err(CliError::of_output(&error)),
        Err(Failure::Queue(error)) => Err(CliError::of_queue(&error, socket)),
        Err(Failure::Daemon(error)) => Err(CliError::of_client(&error)),
    }
}

/// Why it did not come to its end.
pub enum Failure {
    /// The files cannot be read.
    Queue(Error),
    /// The daemon does not answer as it should.
    Daemon(ClientError),
    /// The output takes nothing.
    Output(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// What is asked of the queue; times are judged here.
fn wanted(args: &DumpArgs, filter: &Filter) -> Dump {
    let (pending, sent, rejected) = match args.state {
        DumpState::Pending => (true, false, false),
        DumpState::Sent => (false, true, false),
        DumpState::Rejected => (false, false, true),
        DumpState::All => (true, true, true),
    };
    let (from, to) = filter.numbers().into_inner();
    // Clocks jump: the newest of a time need not be the newest of all.
    let timeless = args.since.is_none() && args.until.is_none() && args.seq.is_none();
    let tail = args.tail.filter(|_| timeless && !args.summary);
    Dump { pending, sent, rejected, from, to, follow: args.follow, tail }
}

fn print(
    source: Source,
    args: &DumpArgs,
    filter: &Filter,
    mut printer: Printer<'_>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    printer.begin(out)?;
    let mut tail = args.tail.map(|count| usize::try_from(count).unwrap_or(usize::MAX));
    let mut kept: VecDeque<Box<Entry>> = VecDeque::new();
    let mut left = args.limit.unwrap_or(u64::MAX);
    if left == 0 || (tail == Some(0) && !args.follow) {
        return Ok(());
    }
    let dump = wanted(args, filter);
    source.read(dump, &mut |item| {
        match item {
            Item::Sample(entry) if !filter.takes(&entry) => return Ok(Next::More),
            Item::Sample(entry) => match tail {
                Some(count) => {
                    kept.push_back(entry);
                    if kept.len() > count {
                        kept.pop_front();
                    }
                    return Ok(Next::More);
                }
                None => {
                    left -= 1;
                    printer.entry(&entry, out)?;
                }
            },
            Item::Problem(problem) => tell(&problem),
            Item::Following => {
                tail = None;
                kept.drain(..).try_for_each(|entry| printer.entry(&entry, out))?;
            }
            Item::Change(change) => printer.change(&change, out)?,
        }
        if args.follow && tail.is_none() {
            // Who follows wants to see it now.
            out.flush()?;
        }
        Ok(if left == 0 { Next::Enough } else { Next::More })
    })?;
    Ok(kept.iter().try_for_each(|entry| printer.entry(entry, out))?)
}

fn summarise(
    source: Source,
    args: &DumpArgs,
    filter: &Filter,
    look: Look,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut summary = Summary::new(look);
    let gaps = source.read(wanted(args, filter), &mut |item| {
        match item {
            Item::Sample(entry) if filter.takes(&entry) => summary.add(&entry),
            Item::Problem(problem) => tell(&problem),
            Item::Sample(_) | Item::Following | Item::Change(_) => {}
        }
        Ok(Next::More)
    })?;
    Ok(summary.print(&gaps, out)?)
}
