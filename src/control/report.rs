//! `status` and `metrics` over the control socket: the parts' own words put together.
//!
//! Invariants: nothing is changed, and nothing is asked of the queue but figures it has at hand, so
//! a status once a second costs delivery nothing; while the queue is not open the rest is told.

use std::time::SystemTime;

use super::protocol::Refusal;
use super::server::{Client, Daemon, Gone, Nothing};
use super::status::{Bridge, Challenge, Figures, Link, OpenClaw, Queue, Status, Success, time};
use crate::figures::{Process, prometheus};
use crate::sample::CONNECTOR_VERSION;

/// One item, the status.
pub(super) async fn status(
    client: &mut Client,
    daemon: &Daemon,
) -> Result<Result<(), Refusal>, Gone> {
    client.item(&look(daemon).await).await?;
    client.end(&Nothing {}).await?;
    Ok(Ok(()))
}

/// One item, the figures as text.
pub(super) async fn metrics(
    client: &mut Client,
    daemon: &Daemon,
) -> Result<Result<(), Refusal>, Gone> {
    client.item(&prometheus(&look(daemon).await)).await?;
    client.end(&Nothing {}).await?;
    Ok(Ok(()))
}

/// The status of this moment.
pub async fn look(daemon: &Daemon) -> Status {
    let config = daemon.config();
    let (store, health) = (&daemon.store, &daemon.health);
    let view = store.view();
    let looked = store
        .call(|queue| Ok((queue.stats(), queue.gaps().to_vec(), queue.last_success().cloned())))
        .await
        .ok();
    let looked = looked.as_ref();
    let measured = store.figures().read();
    let now = store.now();
    let started = daemon.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (version, agents) = measured.openclaw.clone();
    Status {
        running: true,
        pid: Some(std::process::id()),
        version: CONNECTOR_VERSION.to_owned(),
        started_at: Some(time(u64::try_from(started.as_millis()).unwrap_or(u64::MAX))),
        identifier: config.identifier.clone(),
        backend_url: config.backend_url.as_ref().map(ToString::to_string),
        link: Some(Link::of(health)),
        queue: looked.map(|(stats, gaps, _)| Queue::of(stats, gaps, view, &now)),
        last_success: looked
            .and_then(|(_, _, success)| Success::of(success.as_ref()?, &config.identifier)),
        clock_skew_ms: health.skew_ms(),
        challenge: Challenge::of(&config, health),
        data_dir: Some(daemon.data_dir.display().to_string()),
        openclaw: OpenClaw {
            version,
            agents,
            troubles: daemon.known.troubles(),
            closed_homes: u64::try_from(daemon.known.closed_homes()).unwrap_or(u64::MAX),
        },
        figures: looked.map(|(stats, ..)| Figures::of(stats, health, &measured)),
        course: measured.course,
        bridge: daemon.bridge.place().as_ref().map(Bridge::of),
        process: Some(Process::of_self()),
    }
}
