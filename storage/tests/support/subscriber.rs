//! A subscriber that hands what is logged to a closure, and takes no notice of spans.

use tracing::span::{Attributes, Id, Record as Values};
use tracing::{Event, Metadata, Subscriber};

/// Calls `heard` for each event that `wanted` lets through.
///
/// A place that logs asks `wanted` once and keeps the answer: it may look at nothing else.
pub struct Listener<F> {
    pub wanted: fn(&Metadata<'_>) -> bool,
    pub heard: F,
}

impl<F: Fn(&Event<'_>) + 'static> Subscriber for Listener<F> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        (self.wanted)(metadata)
    }

    fn event(&self, event: &Event<'_>) {
        (self.heard)(event);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Values<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
