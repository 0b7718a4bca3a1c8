//! Looking at log lines in tests that run beside others.
//!
//! Invariant: a line of the code under test reaches the subscriber of the test, whatever the
//! threads beside it do. `tracing` remembers for each place that logs whether anybody wants it;
//! while there is one subscriber in the process, it asks the thread that comes there first, and a
//! thread without one answers "nobody" for all.

use std::sync::Once;

use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

/// Runs `run` with a subscriber of its own, on this thread only.
pub(crate) fn with_subscriber<T>(
    subscriber: impl Subscriber + Send + Sync + 'static,
    run: impl FnOnce() -> T,
) -> T {
    static UNDECIDED: Once = Once::new();
    UNDECIDED.call_once(|| tracing::subscriber::set_global_default(Undecided).unwrap());
    tracing::subscriber::with_default(subscriber, run)
}

/// What every other thread has: nothing is written, and nothing is said to be unwanted.
struct Undecided;

impl Subscriber for Undecided {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, _: &Metadata<'_>) -> bool {
        false
    }

    fn event(&self, _: &Event<'_>) {}

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
