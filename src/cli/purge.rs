//! `purge`: deletes samples that are kept though nothing waits for them.
//!
//! Invariants: what waits for delivery is never touched; nothing is deleted before the user has
//! said yes, on a terminal or by `--yes`, to what is then there; a queue is never made, and none is
//! held while the user thinks. With a daemon it is the daemon that deletes.

use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use harborforge_storage::{Error, Queue, Stamp};
use serde::Serialize;

use super::args::PurgeArgs;
use super::{CliError, Context, Exit};
use crate::collector::clock;
use crate::config::{Config, Need};
use crate::control::client::Answer;
use crate::control::protocol::{Purge, PurgeEnd, Request};
use crate::daemon::queue_options;
use crate::store::{after_readers, stamp};

/// Deletes what the arguments name.
///
/// # Errors
/// Exit code 2 where there is nobody to ask and `--yes` is missing, 1 when the user says no or
/// the daemon refuses, 3 for the configuration, 4 when the queue cannot be used.
pub fn run(args: &PurgeArgs, context: &Context) -> Result<(), CliError> {
    let config = context.load(Need::DataDir)?.config;
    if !args.yes && !io::stdin().is_terminal() {
        let text = "purge deletes for good, and there is nobody to ask here: say --yes";
        return Err(CliError::new(Exit::Usage, text));
    }
    let named = [
        (args.rejected, Purge::Rejected),
        (args.sent, Purge::Sent),
        (args.quarantine, Purge::Quarantine),
    ];
    let kinds: Vec<_> = named.iter().filter(|(named, _)| *named).map(|(_, kind)| *kind).collect();
    let hands = Hands { context, config: &config };
    if args.yes {
        return hands.all(&kinds);
    }
    for what in kinds {
        hands.one(what)?;
    }
    Ok(())
}

/// Looks and deletes, by the daemon where one has the queue and in the files else. Which of the two
/// is found out each time: while somebody is asked, a daemon may start or end.
struct Hands<'a> {
    context: &'a Context,
    config: &'a Config,
}

/// What would go, and whether it is a daemon that says so.
struct Seen {
    live: bool,
    found: PurgeEnd,
}

impl Hands<'_> {
    /// Without a question.
    fn all(&self, kinds: &[Purge]) -> Result<(), CliError> {
        if self.daemon_has_it()? {
            return kinds.iter().try_for_each(|&what| tell(what, &self.ask(what, false)?));
        }
        self.in_files(|queue, now| {
            kinds.iter().try_for_each(|&what| tell(what, &self.delete(queue, what, now)?))
        })
    }

    /// Looks, asks, deletes and tells. Nothing is held while the user thinks.
    fn one(&self, what: Purge) -> Result<(), CliError> {
        let mut seen = self.look(what)?;
        loop {
            if seen.found.records == 0 {
                return tell(what, &seen.found);
            }
            if !confirmed(what, &seen.found)? {
                return Err(CliError::new(Exit::Failed, "nothing more was deleted"));
            }
            match self.delete_seen(what, &seen)? {
                Ok(done) => return tell(what, &done),
                Err(now) => seen = now,
            }
            // A closed stderr leaves nobody to tell.
            let _ = writeln!(io::stderr(), "There is more or less of it by now.");
        }
    }

    fn look(&self, what: Purge) -> Result<Seen, CliError> {
        if self.daemon_has_it()? {
            return Ok(Seen { live: true, found: self.ask(what, true)? });
        }
        let found = self.in_files(|queue, _| Ok(queue.purgeable(what.into()).into()))?;
        Ok(Seen { live: false, found })
    }

    /// Deletes what was seen; where there is another number of it by now, nothing, and tells that.
    fn delete_seen(&self, what: Purge, seen: &Seen) -> Result<Result<PurgeEnd, Seen>, CliError> {
        let same = |found: &PurgeEnd| found.records == seen.found.records;
        if self.daemon_has_it()? {
            // While a daemon works they change all the time, and nobody would come to an end.
            let found = if seen.live { seen.found } else { self.ask(what, true)? };
            if !same(&found) {
                return Ok(Err(Seen { live: true, found }));
            }
            return self.ask(what, false).map(Ok);
        }
        self.in_files(|queue, now| {
            let found = PurgeEnd::from(queue.purgeable(what.into()));
            if !same(&found) {
                return Ok(Err(Seen { live: false, found }));
            }
            self.delete(queue, what, now).map(Ok)
        })
    }

    fn daemon_has_it(&self) -> Result<bool, CliError> {
        Ok(self.context.daemon_of_queue(self.config)?.is_some())
    }

    /// By the daemon.
    fn ask(&self, what: Purge, dry_run: bool) -> Result<PurgeEnd, CliError> {
        asked(self.context, self.config, what, dry_run)
    }

    fn delete(&self, queue: &mut Queue, what: Purge, now: Stamp) -> Result<PurgeEnd, CliError> {
        Ok(queue.purge(what.into(), now).map_err(|error| self.failed(&error))?.into())
    }

    /// Opens the queue, does this with it, and closes it whatever comes of it.
    fn in_files<T>(
        &self,
        work: impl FnOnce(&mut Queue, Stamp) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        let mut queue = open(self.config)?;
        let done = work(&mut queue, stamp(clock::Clock::new().stamp()));
        let closed = queue.close().map_err(|error| self.failed(&error));
        done.and_then(|done| closed.map(|()| done))
    }

    fn failed(&self, error: &Error) -> CliError {
        CliError::of_queue(error, &self.config.control_socket)
    }
}

/// Has the daemon do it.
fn asked(
    context: &Context,
    config: &Config,
    what: Purge,
    dry_run: bool,
) -> Result<PurgeEnd, CliError> {
    let Some(daemon) = context.daemon(config)? else {
        let text = format!(
            "the daemon on {} has ended in between: say it again",
            config.control_socket.display()
        );
        return Err(CliError::new(Exit::Failed, text));
    };
    let of_client = |error| CliError::of_client(&error);
    let mut answer: Answer<serde_json::Value, PurgeEnd> =
        daemon.ask(&Request::Purge { what, dry_run }, false).map_err(of_client)?;
    while answer.next_item().map_err(of_client)?.is_some() {}
    Ok(answer.end().unwrap_or_default())
}

/// Opens the queue as the daemon would; there must be one.
fn open(config: &Config) -> Result<Queue, CliError> {
    let dir = &config.data_dir;
    stranger(&dir.join("queue"))?;
    let now = stamp(clock::Clock::new().stamp());
    let opening = || Queue::open_existing(dir, queue_options(config), now);
    let (queue, report) = after_readers(opening, std::thread::sleep)
        .map_err(|error| CliError::of_queue(&error, &config.control_socket))?;
    if !report.is_clean() {
        // A closed stderr leaves nobody to tell.
        let _ = writeln!(
            io::stderr(),
            "harborforge-connector: the queue was mended on opening; `verify` tells how it stands"
        );
    }
    Ok(queue)
}

/// Files made by another user, root included, would be closed to the daemon afterwards.
fn stranger(queue: &Path) -> Result<(), CliError> {
    let Ok(owner) = std::fs::metadata(queue).map(|metadata| metadata.uid()) else {
        // Opening says it better.
        return Ok(());
    };
    if owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let text = format!(
        "{} belongs to user id {owner}, and what this user writes there would be closed to the \
         daemon: start the daemon and purge then, or say sudo -u '#{owner}' harborforge-connector \
         purge ...",
        queue.display()
    );
    Err(CliError::new(Exit::Storage, text))
}

/// Asks on the terminal.
fn confirmed(what: Purge, found: &PurgeEnd) -> Result<bool, CliError> {
    let failed = |error: io::Error| {
        CliError::new(Exit::Failed, format!("cannot ask on the terminal: {error}"))
    };
    let mut stderr = io::stderr().lock();
    write!(stderr, "Delete {}? [y/N] ", amount(what, found))
        .and_then(|()| stderr.flush())
        .map_err(failed)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// What goes, in words.
fn amount(what: Purge, found: &PurgeEnd) -> String {
    let (kind, one, many) = match what {
        Purge::Rejected => ("rejected", "sample", "samples"),
        Purge::Sent => ("delivered", "sample", "samples"),
        Purge::Quarantine => ("damaged", "part of the queue", "parts of the queue"),
    };
    let noun = if found.records == 1 { one } else { many };
    format!("{} {kind} {noun} ({} KiB on disk)", found.records, found.bytes.div_ceil(1024))
}

/// A line of JSON.
#[derive(Serialize)]
struct Line {
    what: Purge,
    #[serde(flatten)]
    done: PurgeEnd,
}

fn tell(what: Purge, done: &PurgeEnd) -> Result<(), CliError> {
    print(what, done).map_err(|error| CliError::of_output(&error))
}

fn print(what: Purge, done: &PurgeEnd) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if !out.is_terminal() {
        serde_json::to_writer(&mut out, &Line { what, done: *done })?;
        return writeln!(out);
    }
    write!(out, "{}", words(what, done))
}

fn words(what: Purge, done: &PurgeEnd) -> String {
    let mut text = format!("deleted {}\n", amount(what, done));
    if done.pinned > 0 {
        text.push_str(&format!(
            "{} stay: somebody is reading them (dump, replay, verify); say it again later\n",
            done.pinned
        ));
    }
    if done.shared > 0 {
        text.push_str(&format!(
            "{} stay: they lie in one file with samples that wait, and go when those are \
             delivered\n",
            done.shared
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_and_what_stays_is_said_in_words() {
        let done = PurgeEnd { records: 1, bytes: 16_385, pinned: 3, shared: 0 };
        assert_eq!(
            words(Purge::Rejected, &done),
            "deleted 1 rejected sample (17 KiB on disk)\n3 stay: somebody is reading them (dump, \
             replay, verify); say it again later\n"
        );
        let done = PurgeEnd { records: 12, bytes: 0, pinned: 0, shared: 5 };
        let said = words(Purge::Sent, &done);
        assert!(
            said.starts_with("deleted 12 delivered samples (0 KiB on disk)\n5 stay: "),
            "{said}"
        );
    }
}
