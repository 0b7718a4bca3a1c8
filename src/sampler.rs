//! The thread that takes samples.
//!
//! Invariants: sampling keeps its own schedule and waits for nobody, neither the network nor the
//! sender nor OpenClaw nor the queue's disk, the first one for no interval either; a sample's stamp
//! and its `last_seen_at` are of one moment.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::collector::baseline::Reading;
use crate::collector::clock::{Clock, since_boot};
use crate::collector::openclaw::{self, known::Known};
use crate::collector::schedule::{Decision, Schedule};
use crate::collector::{Settings, SystemCollector};
use crate::figures::Point;
use crate::runtime::channel;
use crate::sample::Sample;
use crate::store::{Store, chain};

enum Order {
    Reconfigure { interval: Duration, settings: Settings },
    ShowLife(channel::Sender<()>),
    Stop,
}

/// The newest sample, as it is stored; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Newest(Arc<Mutex<Option<Arc<[u8]>>>>);

impl Newest {
    /// The sample; `None` before the first. Whether it is durable is not said.
    #[must_use]
    pub fn get(&self) -> Option<Arc<[u8]>> {
        self.lock().clone()
    }

    fn set(&self, stored: &[u8]) {
        *self.lock() = Some(stored.into());
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<[u8]>>> {
        // Whole samples are put in, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running thread. Dropping it stops sampling.
pub struct Sampler {
    /// Closed when the thread has ended, whyever.
    pub ended: channel::Receiver<()>,
    /// What it took last.
    pub newest: Newest,
    orders: mpsc::Sender<Order>,
    thread: Option<JoinHandle<Option<Reading>>>,
}

/// Starts sampling into the queue: the first sample at once, with the CPU's share since what is
/// `remembered` of the last run, if that is of use.
///
/// # Errors
/// When the operating system gives no thread.
pub fn start(
    interval: Duration,
    settings: Settings,
    clock: Clock,
    jitter_seed: u64,
    remembered: Option<Reading>,
    known: Known,
    store: Store,
) -> std::io::Result<Sampler> {
    let (sender, orders) = mpsc::channel();
    let (guard, ended) = channel::bounded(1);
    let newest = Newest::default();
    let sources = Sources { known, newest: newest.clone() };
    let thread = std::thread::Builder::new().name("hf-sampler".to_owned()).spawn(move || {
        // Dropped at the thread's end, also by a panic.
        let _guard = guard;
        let boot_id = clock.boot_id();
        let mut collector = SystemCollector::new(settings).at_once(boot_id, remembered.as_ref());
        let schedule = Schedule::new(interval, jitter_seed);
        run(&mut collector, schedule, clock, &sources, &store, &orders);
        collector.counters().map(|counters| Reading { boot_id, counters })
    })?;
    Ok(Sampler { ended, newest, orders: sender, thread: Some(thread) })
}

impl Sampler {
    /// Takes up a reloaded configuration.
    pub fn reconfigure(&self, interval: Duration, settings: Settings) {
        // The thread outlives every order but the last.
        let _ = self.orders.send(Order::Reconfigure { interval, settings });
    }

    /// Stops it, and waits for the end of a sample that is under way. What it read last of the CPU
    /// is for the next start.
    #[must_use]
    pub fn stop(mut self) -> Option<Reading> {
        self.end()
    }

    fn end(&mut self) -> Option<Reading> {
        let _ = self.orders.send(Order::Stop);
        // A panic there has been told by its hook; stopping goes on.
        self.thread.take()?.join().ok()?
    }

    /// A way to ask whether its loop turns; the answer comes between two samples.
    pub fn pulse(&self) -> impl Fn(channel::Sender<()>) + Send + use<> {
        let orders = self.orders.clone();
        move |answer| {
            // One that has ended does not answer, which is what is to be seen.
            let _ = orders.send(Order::ShowLife(answer));
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.end();
    }
}

/// For the course that `status` shows.
fn note(store: &Store, sample: &Sample) {
    let view = store.view();
    let waiting = view.queue.map_or(0, |queue| queue.pending) + view.in_memory as u64;
    let agents = sample.agents.len() as u64;
    let point = Point { depth: waiting, cpu_pct: sample.cpu_pct };
    store.figures().sampled(point, (sample.openclaw_version.clone(), agents));
}

/// What a sample takes from others, and where it is shown.
struct Sources {
    known: Known,
    newest: Newest,
}

fn run(
    collector: &mut SystemCollector,
    mut schedule: Schedule,
    clock: Clock,
    sources: &Sources,
    store: &Store,
    orders: &mpsc::Receiver<Order>,
) {
    let mut wait = collector.warm_up();
    loop {
        match orders.recv_timeout(wait) {
            Ok(Order::Reconfigure { interval, settings }) => {
                schedule.set_interval(since_boot(), interval);
                collector.reconfigure(settings);
            }
            Ok(Order::ShowLife(answer)) => {
                // Nobody listens any more: then nobody needs to know.
                let _ = answer.try_send(());
            }
            Ok(Order::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        wait = match schedule.poll(since_boot()) {
            Decision::Wait(wait) => wait,
            Decision::Due { skipped } => {
                if skipped > 0 {
                    tracing::info!(skipped, "the host slept or stalled, samples were skipped");
                }
                let stamp = clock.stamp();
                let openclaw = openclaw::view(&sources.known, since_boot());
                let sample = collector.collect(stamp.wall(), openclaw);
                note(store, &sample);
                match sample.encode() {
                    Ok(payload) => {
                        sources.newest.set(&payload);
                        store.submit(stamp, payload);
                    }
                    Err(error) => {
                        tracing::error!(error = %chain(&error), "sample cannot be encoded");
                    }
                }
                Duration::ZERO
            }
        };
    }
}
