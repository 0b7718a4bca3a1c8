//! `verify`: reads the whole queue and says whether it is sound.
//!
//! Invariants: nothing below the data directory is written (the queue is read through private
//! copies, see [`Inspector`], or by the daemon that has it open); memory does not grow with the
//! queue; what is found is shown as it is found, by `show.rs`, which does not care where it comes
//! from. Exit code 0 means that everything was read and is sound.

mod show;

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::Path;

use harborforge_storage::{Error, GenerationReport, Inspector, QueueReport};

use self::show::{Format, Printer};
use super::args::{VerifyArgs, VerifyFormat};
use super::terminal::Look;
use super::{CliError, Context, Exit, scratch};
use crate::config::Need;
use crate::control::client::{Answer, Client, ClientError};
use crate::control::protocol::Request;

/// Reads the queue and prints what it found.
///
/// # Errors
/// Exit code 4 when something is wrong, or the queue cannot be read, or a daemon has it; 3 for
/// the configuration; 1 when the output takes nothing.
pub fn run(args: &VerifyArgs, context: &Context) -> Result<(), CliError> {
    let config = context.load(Need::DataDir)?.config;
    let stdout = io::stdout().lock();
    let format = match args.format {
        Some(VerifyFormat::Table) => Format::Table,
        Some(VerifyFormat::Jsonl) => Format::Jsonl,
        None if stdout.is_terminal() => Format::Table,
        None => Format::Jsonl,
    };
    let width = Look::of_stdout().width;
    let mut printer = Printer::new(format, width, &config.data_dir, BufWriter::new(stdout));
    if let Some(daemon) = context.daemon_of_queue(&config)? {
        super::end_at_once()?;
        printer.asks_a_daemon();
        return match asked(daemon, &mut printer) {
            Ok(true) => Ok(()),
            Ok(false) => Err(printer.failure()),
            Err(Asking::Output(error)) => Err(CliError::of_output(&error)),
            Err(Asking::Daemon(error)) => Err(CliError::of_client(&error)),
        };
    }
    scratch::ready()?;
    let inspector = match scratch::open(&config.data_dir) {
        Ok(inspector) => inspector,
        Err(Error::NoQueue { path }) if !has_generations(&path) => {
            return printer.nothing().map_err(|error| CliError::of_output(&error));
        }
        Err(Error::NoQueue { path }) => {
            let text = format!(
                "{} is missing, without which nobody can tell whether a daemon has this queue \
                 open: start the daemon, which makes it again; what is queued stays queued",
                path.display()
            );
            return Err(CliError::new(Exit::Storage, text));
        }
        Err(error) => return Err(CliError::of_queue(&error, &config.control_socket)),
    };
    match read(inspector, &mut printer) {
        Ok(true) => Ok(()),
        Ok(false) => Err(printer.failure()),
        Err(Failure::Output(error)) => Err(CliError::of_output(&error)),
        Err(Failure::Queue(error)) => Err(CliError::of_queue(&error, &config.control_socket)),
    }
}

enum Failure {
    Queue(Error),
    Output(io::Error),
}

enum Asking {
    Output(io::Error),
    Daemon(ClientError),
}

impl From<io::Error> for Asking {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Has the daemon read everything and shows what it found; whether it is sound.
fn asked(daemon: Client, printer: &mut Printer<impl Write>) -> Result<bool, Asking> {
    printer.begin()?;
    let mut answer: Answer<GenerationReport, QueueReport> =
        daemon.ask(&Request::Verify, false).map_err(Asking::Daemon)?;
    while let Some(report) = answer.next_item().map_err(Asking::Daemon)? {
        printer.generation(&report)?;
    }
    let missing = || Asking::Daemon(ClientError::Answer("it has no end".to_owned()));
    let queue = answer.end().ok_or_else(missing)?;
    printer.queue(&queue)?;
    Ok(queue.good)
}

/// Reads and shows everything; whether it is sound.
fn read(mut inspector: Inspector, printer: &mut Printer<impl Write>) -> Result<bool, Failure> {
    printer.begin().map_err(Failure::Output)?;
    let mut verification = inspector.verify();
    for report in verification.by_ref() {
        printer.generation(&report.map_err(Failure::Queue)?).map_err(Failure::Output)?;
    }
    let queue = verification.finish().map_err(Failure::Queue)?;
    printer.queue(&queue).map_err(Failure::Output)?;
    Ok(queue.good)
}

/// Whether something lies beside the lock file that is missing.
fn has_generations(lock: &Path) -> bool {
    let entries = lock.parent().and_then(|dir| std::fs::read_dir(dir).ok());
    entries.is_some_and(|mut entries| entries.next().is_some())
}
