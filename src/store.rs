//! The one thread that owns the queue, and the handle through which everybody else reaches it.
//!
//! The queue blocks (it waits for the disk), so it lives on a thread of its own and takes orders:
//! samples through a ring in memory, everything else as jobs.
//!
//! Invariants:
//! - Nobody waits for the disk but this thread and who asks for a reply: [`Store::submit`] puts a
//!   sample into the ring and returns. Appends overtake jobs.
//! - A sample leaves the ring only when the queue has it durably. While the disk refuses, the ring
//!   keeps the newest [`RING`] samples; what it has to drop is counted and said.
//! - A disk that refuses is asked again after a while, for ever, without a restart (`outage.rs`);
//!   at a stop it is asked once more, a full one with the ballast given up, and what could not be
//!   saved is counted in the last word. Only what the
//!   interface names (held by another process, a newer format, the engine's own threads dead) ends
//!   the thread, with the error in [`Stopped`].

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use harborforge_storage::{
    BALLAST_BYTES, Error, NewRecord, OpenReport, Options, Position, Queue, Stamp,
};

use self::given_up::GivenUp;
use crate::busy::Busy;
use crate::collector::clock;
use crate::figures::Registry;
use crate::oneshot::oneshot;
use crate::runtime::channel;

mod outage;

use outage::{Held, Outage};

/// Samples the ring keeps while the disk refuses: at one a second more than an hour's.
pub const RING: usize = 4096;

/// Samples appended with one call; a batch shares its syncs.
const APPEND_AT_ONCE: usize = 256;

/// The queue's own upkeep is called for at least this often.
const UPKEEP: Duration = Duration::from_secs(30);

/// Why a job was not done.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The queue refused.
    #[error(transparent)]
    Queue(#[from] Error),
    /// The queue is not open: its disk refuses, opening is tried again and again.
    #[error("the queue is not open; the log says why, opening is tried again")]
    NotOpen,
    /// The thread has ended.
    #[error("the queue is closed")]
    Closed,
}

/// How the thread ended.
#[derive(Debug)]
pub enum Stopped {
    /// On request, with everything durable.
    Cleanly,
    /// On request, but something could not be written.
    Unclean(Error),
    /// By itself: the process cannot go on with this queue.
    Fatal(Error),
    /// By a panic, told by the engine or a fault of ours.
    Panicked,
}

/// What there is to send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct View {
    /// How far the queue has come; `None` until it is open.
    pub queue: Option<Position>,
    /// Samples in the ring, not durable yet.
    pub in_memory: usize,
    /// Samples the ring had to drop.
    pub dropped: u64,
}

type Job = Box<dyn FnOnce(Option<&mut Queue>) + Send>;

struct Waiting {
    stamp: Stamp,
    payload: Vec<u8>,
}

#[derive(Default)]
struct Orders {
    ring: VecDeque<Waiting>,
    jobs: VecDeque<Job>,
    stop: bool,
    ended: bool,
    view: View,
}

impl Orders {
    /// Drops the oldest samples beyond what the ring keeps.
    fn keep_newest(&mut self) {
        while self.ring.len() > RING {
            self.ring.pop_front();
            self.view.dropped += 1;
            let dropped = self.view.dropped;
            if dropped.is_power_of_two() {
                tracing::error!(
                    dropped,
                    kept = RING,
                    "the disk takes nothing and memory is full, oldest samples are lost"
                );
            }
        }
    }

    fn held(&self) -> Held {
        let bytes = self.ring.iter().map(|waiting| waiting.payload.len() as u64).sum();
        Held { samples: self.ring.len(), bytes, dropped: self.view.dropped }
    }
}

struct Shared {
    orders: Mutex<Orders>,
    wake: Condvar,
    changed: channel::Sender<()>,
}

impl Shared {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        // A panic elsewhere leaves the orders as they were: each change is one statement.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle to the thread; clones share it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    clock: clock::Clock,
    changed: channel::Receiver<()>,
    figures: Registry,
    busy: Busy,
}

/// The running thread.
pub struct StoreThread {
    thread: JoinHandle<Stopped>,
    /// Closed when the thread has ended, whyever.
    pub ended: channel::Receiver<()>,
}

impl StoreThread {
    /// Waits for the thread's end and tells how it ended.
    #[must_use]
    pub fn join(self) -> Stopped {
        self.thread.join().unwrap_or(Stopped::Panicked)
    }
}

/// How long readers of the queue's files are waited for: a `status` without a daemon takes a
/// moment, and may be asked every second.
const READERS_WITHIN: Duration = Duration::from_secs(5);
const READERS_EVERY: Duration = Duration::from_millis(100);

/// Opens a queue for writing, and waits a few seconds for those who only read it.
///
/// # Errors
/// Those of `open`; [`Error::Reading`] when readers stay.
pub fn after_readers<T>(
    mut open: impl FnMut() -> Result<T, Error>,
    mut wait: impl FnMut(Duration),
) -> Result<T, Error> {
    let mut waited = Duration::ZERO;
    loop {
        match open() {
            Err(Error::Reading { path }) if waited < READERS_WITHIN => {
                if waited.is_zero() {
                    tracing::info!(path = %path.display(), "another process reads the queue, waiting for its end");
                }
                wait(READERS_EVERY);
                waited += READERS_EVERY;
            }
            opened => return opened,
        }
    }
}

/// Opens the queue in `dir` on a thread of its own. Readers are waited for a moment. A queue that
/// cannot be opened for want of space, permission or descriptors is tried again by the thread: the
/// daemon samples on.
///
/// # Errors
/// When another process holds or reads the queue, its format is newer, or the thread cannot be started.
pub fn start(
    dir: PathBuf,
    options: Options,
    clock: clock::Clock,
) -> Result<(Store, StoreThread), StartError> {
    let open = || Queue::open(&dir, options.clone(), stamp(clock.stamp()));
    let first = match after_readers(open, std::thread::sleep) {
        Err(error) if !error.is_retryable() => return Err(StartError::Queue(error)),
        // Said to whoever starts it: what is sampled meanwhile would be in memory alone.
        Err(error @ Error::Reading { .. }) => return Err(StartError::Queue(error)),
        // What can be tried again is said and tried again by the thread.
        first => first,
    };
    let (changed_sender, changed) = channel::bounded(1);
    let (ended_sender, ended) = channel::bounded(1);
    // Shown before the thread has said anything: whoever looks next sees what waits.
    let queue = first.as_ref().ok().map(|(queue, _)| queue.position());
    let view = View { queue, ..View::default() };
    let shared = Arc::new(Shared {
        orders: Mutex::new(Orders { view, ..Orders::default() }),
        wake: Condvar::new(),
        changed: changed_sender,
    });
    let (figures, busy) = (Registry::default(), Busy::default());
    let worker = Worker {
        shared: shared.clone(),
        dir,
        options,
        clock,
        queue: None,
        outage: None,
        ballast: true,
        upkeep_failing: false,
        figures: figures.clone(),
        busy: busy.clone(),
        evicted: GivenUp::new("queue_max_bytes"),
        upkeep_due: Instant::now() + UPKEEP,
        expired: GivenUp::new("queue_max_age"),
    };
    let thread = std::thread::Builder::new()
        .name("hf-queue".to_owned())
        .spawn(move || {
            let guarded = worker.shared.clone();
            let ended = catch_unwind(AssertUnwindSafe(|| worker.run(first)));
            let mut orders = guarded.orders();
            orders.ended = true;
            // Dropping a job drops its reply: whoever waits for it learns that it is over.
            orders.jobs.clear();
            drop(ended_sender);
            ended.unwrap_or(Stopped::Panicked)
        })
        .map_err(StartError::Thread)?;
    Ok((Store { shared, clock, changed, figures, busy }, StoreThread { thread, ended }))
}

/// Why the thread was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The queue can never be opened by this process.
    #[error(transparent)]
    Queue(#[from] Error),
    /// The operating system gives no thread.
    #[error("cannot start the queue's thread")]
    Thread(#[source] std::io::Error),
}

impl Store {
    /// Hands a sample over; it becomes durable soon. Never blocks for the disk.
    pub fn submit(&self, stamp: clock::Stamp, payload: Vec<u8>) {
        let mut orders = self.shared.orders();
        orders.ring.push_back(Waiting { stamp: self::stamp(stamp), payload });
        orders.keep_newest();
        orders.view.in_memory = orders.ring.len();
        self.shared.wake.notify_one();
    }

    /// Has the thread do something with the queue, and waits for its result. It is done also when
    /// nobody waits any more.
    ///
    /// # Errors
    /// What the job says, or that the queue is not open or the thread has ended.
    pub async fn call<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Queue) -> Result<T, Error> + Send + 'static,
    {
        let (sender, receiver) = oneshot();
        {
            let mut orders = self.shared.orders();
            if orders.ended {
                return Err(StoreError::Closed);
            }
            orders.jobs.push_back(Box::new(move |queue| {
                let result = match queue {
                    Some(queue) => job(queue).map_err(StoreError::Queue),
                    None => Err(StoreError::NotOpen),
                };
                sender.send(result);
            }));
            self.shared.wake.notify_one();
        }
        receiver.await.unwrap_or(Err(StoreError::Closed))
    }

    /// The moment, as the queue wants it.
    #[must_use]
    pub fn now(&self) -> Stamp {
        stamp(self.clock.stamp())
    }

    /// Where what happens to samples is measured.
    #[must_use]
    pub fn figures(&self) -> &Registry {
        &self.figures
    }

    /// Whether the thread is at something: one thing that lasts is a disk that hangs.
    #[must_use]
    pub fn busy(&self) -> &Busy {
        &self.busy
    }

    /// What the queue holds now.
    #[must_use]
    pub fn view(&self) -> View {
        self.shared.orders().view
    }

    /// Resolves when the view has changed since the last call. One listener at a time.
    pub async fn changed(&self) {
        if self.changed.recv().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Asks the thread to append what is in the ring, close the queue and end.
    pub fn stop(&self) {
        self.shared.orders().stop = true;
        self.shared.wake.notify_one();
    }
}

struct Worker {
    shared: Arc<Shared>,
    dir: PathBuf,
    options: Options,
    clock: clock::Clock,
    queue: Option<Queue>,
    upkeep_failing: bool,
    figures: Registry,
    busy: Busy,
    evicted: GivenUp,
    /// The disk refuses, since when and until when it is left alone.
    outage: Option<Outage>,
    /// The ballast was there when last looked; a change is said once.
    ballast: bool,
    upkeep_due: Instant,
    expired: GivenUp,
}

enum Task {
    Append(Vec<Waiting>),
    Job(Job),
    Reopen,
    Upkeep,
    Stop,
}

impl Worker {
    fn run(mut self, first: Result<(Queue, OpenReport), Error>) -> Stopped {
        match first {
            Ok((queue, report)) => self.opened(queue, &report),
            Err(error) => self.refused(&error),
        }
        loop {
            let task = self.next();
            let doing = self.busy.begin();
            let done = match task {
                Task::Append(samples) => self.append(samples),
                Task::Job(job) => {
                    job(self.queue.as_mut());
                    Ok(())
                }
                Task::Reopen => self.reopen(),
                Task::Upkeep => self.upkeep(),
                Task::Stop => return self.close(),
            };
            match done {
                Ok(()) => {}
                Err(error) if error.is_retryable() => self.refused(&error),
                Err(error) => {
                    let samples = self.shared.orders().ring.len();
                    if samples > 0 {
                        tracing::error!(samples, "samples in memory could not be saved");
                    }
                    return Stopped::Fatal(error);
                }
            }
            self.tell_ballast();
            // Before it is told: who is told looks.
            drop(doing);
            self.publish();
        }
    }

    /// Blocks until there is something to do. Appends come before jobs, unless the disk has just
    /// refused one.
    fn next(&mut self) -> Task {
        let mut orders = self.shared.orders();
        loop {
            let now = Instant::now();
            let again_at = self.outage.map(|outage| outage.again_at());
            let refusing = again_at.is_some_and(|at| now < at);
            if !refusing {
                if self.queue.is_none() && !orders.stop {
                    return Task::Reopen;
                }
                if self.queue.is_some() && !orders.ring.is_empty() {
                    let count = orders.ring.len().min(APPEND_AT_ONCE);
                    return Task::Append(orders.ring.drain(..count).collect());
                }
            }
            if let Some(job) = orders.jobs.pop_front() {
                return Task::Job(job);
            }
            if orders.stop {
                return Task::Stop;
            }
            if now >= self.upkeep_due {
                return Task::Upkeep;
            }
            let due = again_at.map_or(self.upkeep_due, |at| {
                if refusing { at.min(self.upkeep_due) } else { self.upkeep_due }
            });
            orders = self
                .shared
                .wake
                .wait_timeout(orders, due.saturating_duration_since(now))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn append(&mut self, samples: Vec<Waiting>) -> Result<(), Error> {
        let Some(queue) = self.queue.as_mut() else { return Ok(()) };
        let records: Vec<_> =
            samples.iter().map(|s| NewRecord { stamp: s.stamp, payload: &s.payload }).collect();
        let begun = Instant::now();
        match queue.append(&records) {
            Ok(numbers) => {
                self.figures.appended(numbers.clone(), begun.elapsed(), Instant::now());
                tracing::debug!(from = numbers.start(), to = numbers.end(), "appended");
                if let Some(outage) = self.outage.take() {
                    let held = self.shared.orders().held();
                    outage.over(Instant::now(), samples.len() + held.samples, held.dropped);
                }
                self.upkeep()
            }
            Err(error) => {
                let mut orders = self.shared.orders();
                for sample in samples.into_iter().rev() {
                    orders.ring.push_front(sample);
                }
                orders.keep_newest();
                drop(orders);
                Err(error)
            }
        }
    }

    fn upkeep(&mut self) -> Result<(), Error> {
        self.upkeep_due = Instant::now() + UPKEEP;
        let Some(queue) = self.queue.as_mut() else { return Ok(()) };
        let done = match queue.maintain(stamp(self.clock.stamp())) {
            Ok(done) => done,
            // Upkeep that has to wait is no reason to hold samples back.
            Err(error) if error.is_retryable() => {
                // While the disk refuses samples as well, that says it all.
                if !std::mem::replace(&mut self.upkeep_failing, true) && self.outage.is_none() {
                    tracing::error!(error = %chain(&error), "the queue's upkeep fails, it is tried again");
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if std::mem::replace(&mut self.upkeep_failing, false) {
            tracing::info!("the queue's upkeep works again");
        }
        done.evicted.iter().chain(&done.expired).for_each(|lost| self.figures.dropped(lost));
        self.evicted.tell(&done.evicted);
        self.expired.tell(&done.expired);
        for path in &done.quarantined {
            tracing::error!(path = %path.display(), "part of the queue is damaged and was set aside");
        }
        tell_salvaged(&done.salvaged);
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), Error> {
        let (queue, report) =
            Queue::open(&self.dir, self.options.clone(), stamp(self.clock.stamp()))?;
        tracing::info!("queue opened");
        self.opened(queue, &report);
        Ok(())
    }

    fn opened(&mut self, queue: Queue, report: &OpenReport) {
        for path in &report.quarantined {
            tracing::error!(path = %path.display(), "part of the queue is damaged and was set aside");
        }
        tell_salvaged(&report.salvaged);
        for lost in &report.missing {
            tracing::error!(
                from = lost.start(),
                to = lost.end(),
                "samples are missing from the queue"
            );
        }
        for path in
            report.removed_snapshots.iter().chain(&report.moved_aside).chain(&report.rebuilt)
        {
            tracing::info!(path = %path.display(), "left by a crash, mended");
        }
        // One that has not been made yet is none that was given up.
        self.ballast = queue.has_ballast() || queue.ballast_given_up() > 0;
        self.queue = Some(queue);
        let now = Instant::now();
        let held = self.shared.orders().held();
        match &mut self.outage {
            // What waits is appended next, and that ends it or not.
            Some(outage) if held.samples > 0 => outage.ask_now(now),
            outage => {
                if let Some(outage) = outage.take() {
                    outage.over(now, 0, held.dropped);
                }
            }
        }
        self.tell_ballast();
        self.publish();
    }

    fn refused(&mut self, error: &Error) {
        let held = self.shared.orders().held();
        self.outage = Some(Outage::refused(self.outage, Instant::now(), error, &self.dir, held));
    }

    /// Says once that the ballast was given up, and once that it is there again.
    fn tell_ballast(&mut self) {
        let Some(queue) = self.queue.as_ref() else { return };
        let there = queue.has_ballast();
        let given_up = queue.ballast_given_up();
        if std::mem::replace(&mut self.ballast, there) == there {
            return;
        }
        let path = self.dir.display();
        if there && given_up > 0 {
            tracing::info!(%path, bytes = BALLAST_BYTES, "the ballast for a full disk is there again");
        } else if !there {
            tracing::warn!(
                %path,
                bytes = BALLAST_BYTES,
                "the disk is full, the ballast was given up so that what waits can be delivered"
            );
        }
    }

    /// Shows how far things are, and wakes the listener when that has changed.
    fn publish(&self) {
        let mut orders = self.shared.orders();
        let before = orders.view;
        orders.view.queue = self.queue.as_ref().map(Queue::position);
        orders.view.in_memory = orders.ring.len();
        if orders.view != before {
            // Full means that the listener has yet to look: it will see this as well.
            let _ = self.shared.changed.try_send(());
        }
    }

    /// One last try for what is in the ring, and a clean end.
    fn close(mut self) -> Stopped {
        let mut rest = std::mem::take(&mut self.shared.orders().ring);
        let count = rest.len();
        let outage = self.outage.take();
        let saved = self.save(&mut rest);
        self.tell_ballast();
        if let (Ok(()), Some(outage)) = (&saved, outage) {
            let dropped = self.shared.orders().view.dropped;
            outage.over(Instant::now(), count, dropped);
        }
        if let Err(error) = &saved {
            tracing::error!(
                samples = rest.len(),
                saved = count - rest.len(),
                path = %self.dir.display(),
                error = %chain(error),
                "samples in memory could not be saved"
            );
        }
        match (saved, self.queue.take().map_or(Ok(()), Queue::close)) {
            (Ok(()), Ok(())) => Stopped::Cleanly,
            (Err(error), _) | (_, Err(error)) => Stopped::Unclean(error),
        }
    }
}

impl Worker {
    /// Appends what was in memory, oldest first, and takes off what is safe. There is no time to
    /// wait any more, so a full disk gets the ballast, and then as many samples as fit.
    fn save(&mut self, rest: &mut VecDeque<Waiting>) -> Result<(), Error> {
        if rest.is_empty() {
            return Ok(());
        }
        if self.queue.is_none() {
            self.reopen()?;
        }
        let Some(queue) = self.queue.as_mut() else { return Ok(()) };
        let mut at_once = APPEND_AT_ONCE;
        while !rest.is_empty() {
            let count = rest.len().min(at_once);
            let records: Vec<_> = rest
                .iter()
                .take(count)
                .map(|s| NewRecord { stamp: s.stamp, payload: &s.payload })
                .collect();
            match queue.append(&records) {
                Ok(_) => drop(rest.drain(..count)),
                Err(error) if error.is_full() && queue.give_up_ballast() => {}
                Err(error) if error.is_full() && count > 1 => at_once = count / 4 + 1,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// What a damaged part of the queue still gave, in one line: there may be many runs.
fn tell_salvaged(runs: &[RangeInclusive<u64>]) {
    let samples: u64 = runs.iter().map(|run| run.end().saturating_sub(*run.start()) + 1).sum();
    let from = runs.iter().map(|run| *run.start()).min();
    let to = runs.iter().map(|run| *run.end()).max();
    if let (Some(from), Some(to)) = (from, to) {
        tracing::warn!(samples, from, to, "samples were salvaged from a damaged part of the queue");
    }
}

/// A moment, as the queue wants it.
#[must_use]
pub fn stamp(stamp: clock::Stamp) -> Stamp {
    Stamp { wall_ms: stamp.wall_ms, boot_ms: stamp.boot_ms, boot_id: stamp.boot_id }
}

/// An error and its causes in one line, for the log.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

mod given_up;
#[cfg(test)]
mod tests;
