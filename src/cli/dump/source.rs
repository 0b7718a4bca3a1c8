//! Where samples come from: the files, or the daemon that has them open. What is shown does not
//! depend on which.

use harborforge_storage::{Entry, Error, Gap, Inspector, Problem, Set};

use super::super::{CliError, Context, scratch};
use super::Failure;
use crate::config::Config;
use crate::control::client::{Answer, Client, ClientError};
use crate::control::protocol::{Dump, DumpEnd, DumpItem, Request, WireChange};

/// Something to show.
pub enum Item {
    /// A sample.
    Sample(Box<Entry>),
    /// Something that could not be read.
    Problem(Problem),
    /// What was there has been shown; what follows happens now.
    Following,
    /// Samples that came or went.
    Change(WireChange),
}

/// Whether more is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    More,
    Enough,
}

/// A queue that can be read.
pub enum Source {
    /// The files, which nobody else has open.
    Files(Box<Inspector>),
    /// The daemon.
    Daemon(Client),
}

impl Source {
    /// The daemon where one has the queue, else the files.
    ///
    /// From here on SIGINT and SIGTERM end the command with exit code 130 and nothing left behind.
    ///
    /// # Errors
    /// Exit code 4 when the files cannot be read, 1 when the daemon cannot be asked.
    pub fn open(context: &Context, config: &Config) -> Result<Self, CliError> {
        if let Some(client) = context.daemon_of_queue(config)? {
            super::super::end_at_once()?;
            return Ok(Self::Daemon(client));
        }
        scratch::ready()?;
        let inspector = scratch::open(&config.data_dir)
            .map_err(|error| CliError::of_queue(&error, &config.control_socket))?;
        Ok(Self::Files(Box::new(inspector)))
    }

    /// Hands out what is asked for, in order, until there is no more or enough; the gaps known.
    ///
    /// # Errors
    /// What keeps it from going on, and what `take` says.
    pub fn read(
        self,
        dump: Dump,
        take: &mut dyn FnMut(Item) -> Result<Next, Failure>,
    ) -> Result<Vec<Gap>, Failure> {
        match self {
            Self::Files(inspector) => files(*inspector, &dump, take),
            Self::Daemon(client) => daemon(client, dump, take),
        }
    }
}

fn files(
    mut inspector: Inspector,
    dump: &Dump,
    take: &mut dyn FnMut(Item) -> Result<Next, Failure>,
) -> Result<Vec<Gap>, Failure> {
    let sets: Vec<Set> = dump.sets();
    for entry in inspector.records(&sets, dump.from..=dump.to) {
        let entry = entry.map_err(|error: Error| Failure::Queue(error))?;
        if take(Item::Sample(Box::new(entry)))? == Next::Enough {
            break;
        }
    }
    for problem in inspector.problems() {
        take(Item::Problem(problem.clone()))?;
    }
    Ok(inspector.gaps().to_vec())
}

fn daemon(
    client: Client,
    dump: Dump,
    take: &mut dyn FnMut(Item) -> Result<Next, Failure>,
) -> Result<Vec<Gap>, Failure> {
    let follow = dump.follow;
    let failed = |error: ClientError| Failure::Daemon(error);
    let mut answer: Answer<DumpItem, DumpEnd> =
        client.ask(&Request::Dump(dump), follow).map_err(failed)?;
    while let Some(item) = answer.next_item().map_err(failed)? {
        let item = match item {
            DumpItem::Sample(entry) => Item::Sample(Box::new(Entry::from(*entry))),
            DumpItem::Problem(problem) => Item::Problem(problem.into()),
            DumpItem::Following => Item::Following,
            DumpItem::Change(change) => Item::Change(change),
        };
        if take(item)? == Next::Enough {
            return Ok(Vec::new());
        }
    }
    Ok(answer.end().map(|end| end.gaps).unwrap_or_default())
}
