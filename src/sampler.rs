//! The thread that takes samples.
//!
//! Invariants: sampling keeps its own schedule and waits for nobody, neither the network nor the
//! sender nor the queue's disk; a sample's stamp and its `last_seen_at` are of one moment.

use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::collector::clock::{Clock, since_boot};
use crate::collector::schedule::{Decision, Schedule};
use crate::collector::{OpenClawView, Settings, SystemCollector};
use crate::figures::Point;
use crate::runtime::channel;
use crate::sample::Sample;
use crate::store::{Store, chain};

enum Order {
    Reconfigure { interval: Duration, settings: Settings },
    ShowLife(channel::Sender<()>),
    Stop,
}

/// The running thread. Dropping it stops sampling.
pub struct Sampler {
    /// Closed when the thread has ended, whyever.
    pub ended: channel::Receiver<()>,
    orders: mpsc::Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

/// Starts sampling into the queue: the first sample at once.
///
/// # Errors
/// When the operating system gives no thread.
pub fn start(
    interval: Duration,
    settings: Settings,
    clock: Clock,
    jitter_seed: u64,
    store: Store,
) -> std::io::Result<Sampler> {
    let (sender, orders) = mpsc::channel();
    let (guard, ended) = channel::bounded(1);
    let thread = std::thread::Builder::new().name("hf-sampler".to_owned()).spawn(move || {
        // Dropped at the thread's end, also by a panic.
        let _guard = guard;
        let collector = SystemCollector::new(settings);
        run(collector, Schedule::new(interval, jitter_seed), clock, &store, &orders);
    })?;
    Ok(Sampler { ended, orders: sender, thread: Some(thread) })
}

impl Sampler {
    /// Takes up a reloaded configuration.
    pub fn reconfigure(&self, interval: Duration, settings: Settings) {
        // The thread outlives every order but the last.
        let _ = self.orders.send(Order::Reconfigure { interval, settings });
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
        let _ = self.orders.send(Order::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic there has been told by its hook; stopping goes on.
            let _ = thread.join();
        }
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

fn run(
    mut collector: SystemCollector,
    mut schedule: Schedule,
    clock: Clock,
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
                let sample = collector.collect(stamp.wall(), OpenClawView::default());
                note(store, &sample);
                match sample.encode() {
                    Ok(payload) => store.submit(stamp, payload),
                    Err(error) => {
                        tracing::error!(error = %chain(&error), "sample cannot be encoded");
                    }
                }
                Duration::ZERO
            }
        };
    }
}
