//! The figures as Prometheus reads them (text format 0.0.4, naming as its conventions ask).
//!
//! Pure. What is not known has no line, since 0 would be a lie; what a process is asked for
//! everywhere has the names it has everywhere (`process_...`).

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Latency;
use crate::control::status::{Figures, Queue, Status};
use crate::health::LinkState;

const OURS: &str = "harborforge_connector_";

/// Every figure of a status.
#[must_use]
pub fn prometheus(status: &Status) -> String {
    let mut text = Text::default();
    text.head("info", "gauge", "What runs here; always 1.");
    text.line(
        "info",
        &[("version", &status.version), ("identifier", &status.identifier)],
        Value::Count(1),
    );
    if let Some(figures) = &status.figures {
        counters(&mut text, figures);
    }
    if let Some(queue) = &status.queue {
        gauges(&mut text, queue);
    }
    if let Some(link) = &status.link {
        let states = [
            ("online", LinkState::Online),
            ("fallback", LinkState::Fallback),
            ("connecting", LinkState::Connecting),
            ("offline", LinkState::Offline),
            ("refused", LinkState::Refused),
        ];
        text.head("link_state", "gauge", "1 for the state the link is in, 0 for the others.");
        for (name, state) in states {
            let here = Value::Count(u64::from(link.state == state));
            text.line("link_state", &[("state", name)], here);
        }
    }
    if let Some(at) = status.last_success.as_ref().and_then(|success| seconds(&success.at)) {
        text.gauge("last_success_timestamp_seconds", "When a sample was last confirmed.", at);
    }
    if let Some(skew) = status.clock_skew_ms {
        let help = "How much the Monitor's clock is ahead of this host's.";
        #[allow(clippy::cast_precision_loss, reason = "exact for 285,000 years")]
        text.head("clock_skew_seconds", "gauge", help);
        text.line("clock_skew_seconds", &[], Value::Real(skew as f64 / 1000.0));
    }
    process(&mut text, status);
    text.0
}

fn counters(text: &mut Text, figures: &Figures) {
    text.counter("samples_appended", "Samples made durable.", figures.appended);
    text.head("samples_delivered_total", "counter", "Samples confirmed by the Monitor.");
    for (transport, count) in
        [("websocket", figures.delivered_websocket), ("http", figures.delivered_http)]
    {
        text.line("samples_delivered_total", &[("transport", transport)], Value::Count(count));
    }
    for (name, help, count) in [
        ("samples_duplicate", "Samples the Monitor said it has already.", figures.duplicates),
        ("samples_replayed", "Samples accepted again on request.", figures.replayed),
        ("samples_rejected", "Samples the Monitor refused for good.", figures.rejected),
        (
            "samples_given_up",
            "Samples given up since the queue was full or they were too old.",
            figures.given_up,
        ),
        ("samples_corrupt", "Samples that could not be read back.", figures.corrupt),
        ("websocket_links", "WebSockets the Monitor accepted.", figures.links),
        ("websocket_reconnects", "WebSockets accepted after the first.", figures.reconnects),
        (
            "websocket_handshake_refusals",
            "WebSocket handshakes the Monitor did not accept.",
            figures.handshake_refusals,
        ),
        ("refusals", "Handshakes and heartbeats the Monitor did not accept.", figures.refusals),
        ("failures", "Tries to deliver that failed.", figures.failures),
    ] {
        text.counter(name, help, count);
    }
    let help = "Time an append took until it was on disk.";
    text.histogram("append_duration_seconds", help, &figures.append);
    let help = "Time from a sample's append to its confirmation.";
    text.histogram("confirm_duration_seconds", help, &figures.confirm);
}

fn gauges(text: &mut Text, queue: &Queue) {
    text.gauge("queue_samples", "Samples waiting for delivery.", queue.pending);
    text.gauge("queue_bytes", "Bytes of what waits for delivery.", queue.pending_bytes);
    if let Some(age) = queue.oldest_age_seconds {
        let help = "Age of the oldest sample that waits.";
        text.gauge("queue_oldest_age_seconds", help, age);
    }
    for (name, help, value) in [
        ("queue_disk_bytes", "Bytes the queue takes on disk.", queue.disk_bytes),
        ("queue_memory_samples", "Samples in memory, since the disk takes none.", queue.in_memory),
        ("queue_sent_samples", "Delivered samples that are kept.", queue.sent),
        ("queue_rejected_samples", "Rejected samples that are kept.", queue.rejected),
        ("queue_quarantined_generations", "Broken parts that are kept.", queue.quarantined),
    ] {
        text.gauge(name, help, value);
    }
    let help = "Samples lost since the disk took none and memory was full.";
    text.counter("samples_dropped", help, queue.dropped);
}

fn process(text: &mut Text, status: &Status) {
    let process = status.process.unwrap_or_default();
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Resident memory size in bytes.", process.rss_bytes),
        ("process_open_fds", "Number of open file descriptors.", process.open_fds),
        ("process_threads", "Number of threads.", process.threads),
        (
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            status.started_at.as_deref().and_then(seconds),
        ),
    ] {
        if let Some(value) = value {
            // Writing to a string cannot fail, here and below.
            let _ = writeln!(text.0, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        }
    }
}

/// RFC 3339 as seconds since 1970.
fn seconds(time: &str) -> Option<u64> {
    let at: SystemTime = humantime::parse_rfc3339(time).ok()?;
    Some(at.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

enum Value {
    Count(u64),
    Real(f64),
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {OURS}{name} {help}\n# TYPE {OURS}{name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: Value) {
        let _ = write!(self.0, "{OURS}{name}");
        for (place, (label, said)) in labels.iter().enumerate() {
            let open = if place == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{open}{label}=\"{}\"", escaped(said));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = match value {
            Value::Count(count) => writeln!(self.0, "{close} {count}"),
            Value::Real(real) => writeln!(self.0, "{close} {real}"),
        };
    }

    /// `name` without its `_total`.
    fn counter(&mut self, name: &str, help: &str, count: u64) {
        let name = format!("{name}_total");
        self.head(&name, "counter", help);
        self.line(&name, &[], Value::Count(count));
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "gauge", help);
        self.line(name, &[], Value::Count(value));
    }

    fn histogram(&mut self, name: &str, help: &str, latency: &Latency) {
        self.head(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        for own in &latency.buckets {
            self.line(&bucket, &[("le", &own.le.to_string())], Value::Count(own.count));
        }
        self.line(&bucket, &[("le", "+Inf")], Value::Count(latency.count));
        self.line(&format!("{name}_sum"), &[], Value::Real(latency.sum_seconds));
        self.line(&format!("{name}_count"), &[], Value::Count(latency.count));
    }
}

/// A label's value: backslash, quote and line end are written with a backslash.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests;
