//! `sample`: takes one sample and prints it.
//!
//! Invariant: it reads, and writes to its output alone: no data directory, no queue, no daemon
//! and no configuration file is needed or touched.

use std::io::{IsTerminal as _, Write};
use std::time::SystemTime;

use serde::Serialize;

use super::args::SampleArgs;
use super::{CliError, Context, Exit};
use crate::collector::openclaw::{homes::Places, watch};
use crate::collector::{OpenClawView, Settings, SystemCollector};
use crate::config::Need;
use crate::daemon;
use crate::sample::Sample;

/// Why no sample was printed.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The sample could not be encoded.
    #[error("cannot encode the sample")]
    Encode(#[source] serde_json::Error),
    /// The output took it not, or not whole. A reader that went away
    /// ([`std::io::ErrorKind::BrokenPipe`]) is no fault: end quietly.
    #[error("cannot write the sample to the output")]
    Write(#[source] std::io::Error),
}

/// The command: prints one sample to stdout, on several lines when that is a terminal.
///
/// # Errors
/// Exit code 3 for a configuration that is there and wrong, 1 when nothing can be printed.
pub fn run(_args: &SampleArgs, context: &Context) -> Result<(), CliError> {
    let config = context.load(Need::Nothing)?.config;
    let mut out = std::io::stdout().lock();
    let pretty = out.is_terminal();
    let report = watch::once(&daemon::openclaw_settings(&config), Places::of_this_host());
    for trouble in &report.troubles {
        // A closed stderr leaves nobody to tell.
        let _ = writeln!(std::io::stderr(), "harborforge-connector: OpenClaw: {trouble}");
    }
    let settings = daemon::collector_settings(&config);
    take_and_print(&config.identifier, settings, report.view, pretty, &mut out).map_err(|error| {
        match error {
            TakeError::Write(error) => CliError::of_output(&error),
            TakeError::Encode(_) => CliError::from_error(Exit::Failed, &error),
        }
    })
}

/// The telemetry object of the protocol's section 6 without what only the queue gives: `seq`,
/// `sample_id`.
#[derive(Serialize)]
struct Printed<'a> {
    identifier: &'a str,
    #[serde(flatten)]
    sample: Sample,
}

/// Takes a sample, about 200 ms long since `cpu_pct` needs an interval, and prints it as one JSON
/// object and a newline in one write: on several lines for people (`pretty`), on one for a pipe.
/// The figures are those that would be stored; one that cannot be read is null, and the reason is
/// in the log.
///
/// # Errors
/// When the sample cannot be encoded or `out` does not take it.
pub fn take_and_print(
    identifier: &str,
    settings: Settings,
    openclaw: OpenClawView,
    pretty: bool,
    out: &mut dyn Write,
) -> Result<(), TakeError> {
    let mut collector = SystemCollector::new(settings);
    // Here, not in `collect`: the time in the sample is then the time of its figures.
    std::thread::sleep(collector.warm_up());
    let sample = collector.collect(SystemTime::now(), openclaw);
    let text = render(identifier, sample, pretty).map_err(TakeError::Encode)?;
    out.write_all(&text).and_then(|()| out.flush()).map_err(TakeError::Write)
}

fn render(identifier: &str, sample: Sample, pretty: bool) -> Result<Vec<u8>, serde_json::Error> {
    // By way of the stored form, so that what would be left out of it is left out here.
    let sample = serde_json::from_slice(&sample.encode()?)?;
    let printed = Printed { identifier, sample };
    let mut text =
        if pretty { serde_json::to_vec_pretty(&printed)? } else { serde_json::to_vec(&printed)? };
    text.push(b'\n');
    Ok(text)
}
