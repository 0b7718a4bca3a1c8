//! Posts delivered or rejected samples once more, one by one, beside the sender.
//!
//! The rules are in [`again`](super::again); here they are carried out. The queue is read through
//! a snapshot and changed in one way only: a rejected sample that was accepted leaves its set,
//! durably, before it is counted.

use std::time::Duration;

use futures_util::future::FutureExt as _;
use futures_util::{pin_mut, select_biased};
use harborforge_storage::{Record, Set};

use super::again::{Again, Rules, Step};
use super::pages::{FEW, MANY, Pages};
use super::{BEAT, Ended, Plan, Progress, Replay, Replayed, Report, Watcher};
use crate::health::Health;
use crate::runtime::{self, Clock};
use crate::sender::beside::Links;
use crate::sender::link::KeyFetched;
use crate::sender::machine::Answered;
use crate::store::{Store, StoreError, chain};

/// What it works with.
pub struct Hands {
    /// The queue.
    pub store: Store,
    /// The link in force; it may be replaced meanwhile.
    pub links: Links,
    /// Longest wait between two tries.
    pub backoff_cap: Duration,
    /// Where accepted samples are counted.
    pub health: Health,
    /// Is told of a key document that was fetched, to remember the key.
    pub key_fetched: Box<dyn Fn(KeyFetched) + Send + Sync>,
}

fn set(what: Replayed) -> &'static [Set] {
    match what {
        Replayed::Pending => &[Set::Pending],
        Replayed::Sent => &[Set::Sent],
        Replayed::Rejected => &[Set::Rejected],
    }
}

/// What would go. Changes nothing.
///
/// # Errors
/// When the queue cannot be read.
pub async fn plan(replay: &Replay, store: &Store) -> Result<Plan, StoreError> {
    let mut pages = Pages::open(store, set(replay.what), replay, MANY, None).await?;
    count(&mut pages).await
}

async fn count(pages: &mut Pages) -> Result<Plan, StoreError> {
    let mut plan = Plan::default();
    loop {
        let records = pages.next().await?;
        if records.is_empty() {
            return Ok(plan);
        }
        records.iter().for_each(|record| plan.add(record));
    }
}

/// Posts what is asked for until nothing is left, whoever watches has enough, or it is of no use
/// any more. Not for the backlog, which is the sender's.
pub async fn run(replay: &Replay, hands: &Hands, watcher: &mut impl Watcher) -> Report {
    let clock = Clock::start();
    let (rules, marked) = match replay.what {
        Replayed::Pending | Replayed::Sent => (Rules::SENT, true),
        Replayed::Rejected => (Rules::REJECTED, false),
    };
    let token = hands.links.current().has_token();
    let mut run = Run {
        hands,
        watcher,
        again: Again::new(rules, hands.backoff_cap, token, clock.mono()),
        marked,
        clock,
        progress: Progress::default(),
    };
    let (ended, reason) = match run.all(replay).await {
        Ok(()) => (Ended::Done, None),
        Err((ended, reason)) => (ended, reason),
    };
    Report { progress: run.progress, ended, reason }
}

/// Why it ended before its end.
type End = (Ended, Option<String>);

fn of_store(error: &StoreError) -> End {
    (Ended::Storage, Some(chain(error)))
}

struct Run<'a, W> {
    hands: &'a Hands,
    watcher: &'a mut W,
    again: Again,
    marked: bool,
    clock: Clock,
    progress: Progress,
}

impl<W: Watcher> Run<'_, W> {
    async fn all(&mut self, replay: &Replay) -> Result<(), End> {
        let store = &self.hands.store;
        let failed = |error: StoreError| of_store(&error);
        let mut counted =
            Pages::open(store, set(replay.what), replay, MANY, None).await.map_err(failed)?;
        // Opened before the counting lets go of it, so that the same is there.
        let end = Some(counted.end());
        let mut pages =
            Pages::open(store, set(replay.what), replay, FEW, end).await.map_err(failed)?;
        let plan = count(&mut counted).await.map_err(failed)?;
        self.progress.samples = plan.samples;
        self.progress.left = plan.samples;
        self.progress.next = plan.first.map(|(seq, _)| seq);
        let done = self.pages(&mut pages).await;
        pages.close().await;
        done?;
        // What was counted and could not be read again.
        self.progress.lost = std::mem::take(&mut self.progress.left);
        self.progress.next = None;
        Ok(())
    }

    async fn pages(&mut self, pages: &mut Pages) -> Result<(), End> {
        loop {
            let records = pages.next().await.map_err(|error| of_store(&error))?;
            if records.is_empty() {
                return Ok(());
            }
            for record in records {
                self.progress.next = Some(record.seq);
                self.show().await?;
                self.one(&record).await?;
                self.progress.next = Some(record.seq.saturating_add(1));
                self.progress.left = self.progress.left.saturating_sub(1);
                (self.progress.trouble, self.progress.retry_in_ms) = (None, None);
            }
        }
    }

    /// Brings one sample to its end.
    async fn one(&mut self, record: &Record) -> Result<(), End> {
        loop {
            match self.step(record).await? {
                Step::Accepted => {
                    if !self.marked {
                        let seq = record.seq;
                        let taken = self.hands.store.call(move |queue| queue.unreject(seq)).await;
                        taken.map_err(|error| of_store(&error))?;
                    }
                    self.hands.health.replayed(1);
                    self.progress.delivered += 1;
                    return Ok(());
                }
                Step::PassedOver { wait, reason } => {
                    tracing::info!(seq = record.seq, %reason, "refused again, it stays");
                    self.progress.refused += 1;
                    return self.beside(runtime::sleep(wait)).await;
                }
                Step::Again { wait, reason } => {
                    self.progress.trouble = Some(reason);
                    self.progress.retry_in_ms = u64::try_from(wait.as_millis()).ok();
                    self.show().await?;
                    self.beside(runtime::sleep(wait)).await?;
                }
                Step::End(ended, reason) => return Err((ended, Some(reason))),
            }
        }
    }

    /// One try.
    async fn step(&mut self, record: &Record) -> Result<Step, End> {
        let link = self.hands.links.current();
        if self.again.wants_key(self.clock.mono(), link.lacks_key()) {
            let fetched = self.beside(link.fetch_key()).await?;
            let failure = match fetched {
                Ok(fetched) => {
                    (self.hands.key_fetched)(fetched);
                    None
                }
                Err(failure) => Some(failure),
            };
            if let Some(step) = self.again.key(self.clock.mono(), failure, runtime::seed()) {
                return Ok(step);
            }
        }
        let (marked, proof) = (self.marked, self.again.proof());
        let answer: Answered = self.beside(link.post_again(record, marked, proof)).await?;
        Ok(self.again.answered(self.clock.mono(), answer, runtime::seed()))
    }

    async fn show(&mut self) -> Result<(), End> {
        if self.watcher.shows(&self.progress).await {
            Ok(())
        } else {
            Err((Ended::Interrupted, None))
        }
    }

    /// Waits for something, and shows at each beat how it stands.
    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> Result<T, End> {
        let work = work.fuse();
        pin_mut!(work);
        loop {
            select_biased! {
                done = work => return Ok(done),
                () = runtime::sleep(BEAT).fuse() => self.show().await?,
            }
        }
    }
}
