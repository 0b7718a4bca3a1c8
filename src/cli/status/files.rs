//! What the files say while no daemon runs.

use harborforge_storage::Error;

use crate::cli::scratch;
use crate::collector::clock::Clock;
use crate::config::Config;
use crate::control::status::{OpenClaw, Queue, Status, Success};
use crate::figures::Course;
use crate::sample::CONNECTOR_VERSION;
use crate::store::stamp;

/// The status as the files have it.
///
/// # Errors
/// When they cannot be read. That there is no queue yet is none.
pub fn look(config: &Config) -> Result<Status, Error> {
    let mut inspector = match scratch::open(&config.data_dir) {
        Ok(inspector) => inspector,
        Err(Error::NoQueue { .. }) => return Ok(nothing(config)),
        Err(error) => return Err(error),
    };
    let overview = inspector.overview()?;
    let now = stamp(Clock::new().stamp());
    let queue = Queue::at_rest(&overview, inspector.gaps(), &now);
    let success = overview.last_success.as_ref();
    let last_success = success.and_then(|success| Success::of(success, &config.identifier));
    Ok(Status { queue: Some(queue), last_success, ..nothing(config) })
}

/// The status when nothing can be said but the configuration.
pub fn nothing(config: &Config) -> Status {
    Status {
        running: false,
        pid: None,
        version: CONNECTOR_VERSION.to_owned(),
        started_at: None,
        identifier: config.identifier.clone(),
        backend_url: config.backend_url.as_ref().map(ToString::to_string),
        link: None,
        queue: None,
        last_success: None,
        clock_skew_ms: None,
        challenge: None,
        data_dir: Some(config.data_dir.display().to_string()),
        openclaw: OpenClaw::default(),
        figures: None,
        course: Course::default(),
        bridge: None,
        process: None,
    }
}
