//! Answers `dump`: the queue as it stood when it was asked, and then what comes and goes.
//!
//! Invariants:
//! - What is shown first is one snapshot, read in portions: whatever is appended or delivered
//!   meanwhile changes nothing of it, and memory holds one portion.
//! - Who follows is told each change exactly once and in order, or that some were missed: changes
//!   are kept by the queue in a list of bounded length, nothing is kept for a reader that is slow.
//! - A snapshot is given back whatever happens; should even that fail its pin runs out by itself.

use std::ops::RangeInclusive;
use std::time::Duration;

use harborforge_storage::{Became, Change, Error, News, Problem, Queue, Set, Snapshot, Watch};

use super::portions::{PORTION, Pace};
use super::protocol::{Dump, DumpEnd, DumpItem, Line, Refusal, WireChange, WireEntry};
use super::server::{Client, Gone, Nothing, encoded, of_store};
use crate::runtime;
use crate::store::{Store, StoreError};

/// Who follows looks for news this often.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);
/// Changes looked at in one go.
const CHANGES: usize = 256;

/// Answers a dump on a connection.
///
/// # Errors
/// [`Gone`] when nobody reads the answer any more; else what is to be told as the answer.
pub async fn answer(
    client: &mut Client,
    dump: &Dump,
    store: &Store,
) -> Result<Result<(), Refusal>, Gone> {
    let mut dumping = Dumping { client, store, pace: Pace::default() };
    match dumping.run(dump).await {
        Ok(()) => Ok(Ok(())),
        Err(End::Gone) => Err(Gone),
        Err(End::Store(error)) => Ok(Err(of_store(&error))),
    }
}

/// Why it ended early.
enum End {
    Gone,
    Store(StoreError),
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

struct Dumping<'a> {
    client: &'a mut Client,
    store: &'a Store,
    pace: Pace,
}

impl Dumping<'_> {
    async fn run(&mut self, dump: &Dump) -> Result<(), End> {
        let (sets, now, tail) = (dump.sets(), self.store.now(), dump.tail);
        let (from, to) = (dump.from, dump.to);
        let seen = self.store.view().queue;
        let begin = move |queue: &mut Queue| {
            let newest = tail.map_or(1, |count| queue.tail(&sets, count));
            let snapshot = queue.snapshot(&sets, from.max(newest)..=to, now);
            Ok((snapshot, queue.watch()))
        };
        let (snapshot, watch) = self.store.call(begin).await?;
        let end = DumpEnd { gaps: snapshot.gaps().to_vec() };
        self.show(snapshot).await?;
        if dump.follow {
            return self.follow(dump, watch, seen).await;
        }
        Ok(self.client.end(&end).await?)
    }

    /// Shows a snapshot and gives it back.
    async fn show(&mut self, snapshot: Snapshot) -> Result<(), End> {
        let mut held = Some(snapshot);
        while let Some(mut snapshot) = held.take() {
            let job = move |queue: &mut Queue| {
                let shown = queue.read_snapshot(&mut snapshot, PORTION);
                Ok::<_, Error>(match shown {
                    Ok(shown) if !shown.done => (Ok(shown), Some(snapshot)),
                    shown => {
                        queue.end_snapshot(snapshot);
                        (shown, None)
                    }
                })
            };
            let (shown, rest) = self.pace.read(self.store, job).await?;
            held = rest;
            let shown = shown.map_err(StoreError::Queue)?;
            let problems = shown.problems.into_iter().map(|p| DumpItem::Problem(p.into()));
            let samples =
                shown.entries.into_iter().map(|e| DumpItem::Sample(Box::new(WireEntry::from(e))));
            let written = self.items(samples.chain(problems)).await;
            if written.is_err() {
                if let Some(snapshot) = held {
                    let given_back = move |queue: &mut Queue| {
                        queue.end_snapshot(snapshot);
                        Ok(())
                    };
                    let _ = self.store.call(given_back).await;
                }
                return written;
            }
        }
        Ok(())
    }

    async fn follow(
        &mut self,
        dump: &Dump,
        mut watch: Watch,
        mut seen: Option<harborforge_storage::Position>,
    ) -> Result<(), End> {
        self.items([DumpItem::Following].into_iter()).await?;
        loop {
            let at = self.store.view().queue;
            if at == seen {
                runtime::sleep(FOLLOW_EVERY).await;
                if self.client.has_gone().await {
                    return Err(End::Gone);
                }
                continue;
            }
            let look = move |queue: &mut Queue| {
                let news = queue.changes(&mut watch, CHANGES);
                Ok((news, watch))
            };
            let (news, looked) = self.store.call(look).await?;
            watch = looked;
            if news.changes.len() < CHANGES {
                seen = at;
            }
            self.tell(dump, news).await?;
        }
    }

    async fn tell(&mut self, dump: &Dump, news: News) -> Result<(), End> {
        if news.missed {
            let what = "this reader is too slow and has missed some of what came and went; what \
                        follows is complete again"
                .to_owned();
            let problem = Problem { path: "queue".into(), from: 0, to: 0, what };
            self.items([DumpItem::Problem(problem.into())].into_iter()).await?;
        }
        // Changes of a moment go out together.
        let mut told = Vec::new();
        for change in news.changes {
            let (from, to) = (change.from.max(dump.from), change.to.min(dump.to));
            let shown = shown(dump, change.became);
            if from > to || shown == Showing::Nothing {
                continue;
            }
            if let Showing::Samples(set) = shown {
                self.items(told.drain(..)).await?;
                self.show_now(set, from..=to).await?;
            } else {
                told.push(DumpItem::Change(WireChange::from(Change { from, to, ..change })));
            }
        }
        self.items(told.drain(..)).await
    }

    /// Shows samples as they were when they entered a set.
    async fn show_now(&mut self, set: Set, numbers: RangeInclusive<u64>) -> Result<(), End> {
        let now = self.store.now();
        let begin = move |queue: &mut Queue| Ok(queue.snapshot_of(set, numbers, now));
        let snapshot = self.store.call(begin).await?;
        self.show(snapshot).await
    }

    async fn items(&mut self, items: impl Iterator<Item = DumpItem>) -> Result<(), End> {
        let items: Vec<_> = items.map(Line::<_, Nothing>::Item).collect();
        if items.is_empty() {
            return Ok(());
        }
        Ok(self.client.write(&encoded(&items)).await?)
    }
}

/// How a change is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Showing {
    Nothing,
    /// With the samples themselves, as of this set.
    Samples(Set),
    /// By their numbers.
    Numbers,
}

/// Who asked for pending samples sees them come and go; else only what enters the sets asked for
/// is shown. Rejected samples are shown whole, since their reason is new.
fn shown(dump: &Dump, became: Became) -> Showing {
    match became {
        Became::Pending if dump.pending => Showing::Samples(Set::Pending),
        Became::Pending => Showing::Nothing,
        Became::Rejected if dump.rejected || dump.pending => Showing::Samples(Set::Rejected),
        Became::Rejected => Showing::Nothing,
        Became::Sent if dump.pending => Showing::Numbers,
        Became::Sent if dump.sent => Showing::Samples(Set::Sent),
        Became::Sent => Showing::Nothing,
        Became::GivenUp(_) if dump.pending => Showing::Numbers,
        Became::GivenUp(_) => Showing::Nothing,
    }
}

#[cfg(test)]
#[path = "dump_tests.rs"]
mod tests;
