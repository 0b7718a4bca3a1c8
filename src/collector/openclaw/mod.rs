//! OpenClaw on this host: its version and its agents, from local state only.
//!
//! [`watch`] keeps [`known`] up to date from a thread of its own; [`reader`] looks at every state
//! directory, [`home`] at one. [`homes`] finds them; [`roster`] makes agents of a configuration
//! that [`mod@include`] and [`node`] read; [`lock`] and [`process`] tell whether the gateway lives,
//! [`sight`] what of that is hidden from here, [`probe`] asks it; [`sessions`] and [`database`]
//! tell what runs, for the two generations of OpenClaw; [`status`] concludes (pure). [`mod@file`] is
//! how files are opened.
//!
//! Invariants:
//! - A sample never waits for OpenClaw: it takes the newest known state.
//! - Of the configuration nothing but ids and names is kept, logged or sent; of everything else
//!   not more than a version, a port, and whether and when something runs.
//! - Nothing is written, nothing is run, no link leads a configuration out of its directory, and
//!   no file, whatever it is or holds, makes this panic or wait without end.

pub mod database;
pub mod file;
pub mod home;
pub mod homes;
pub mod include;
pub mod known;
pub mod lock;
pub mod node;
pub mod probe;
pub mod process;
pub mod reader;
pub mod roster;
pub mod sessions;
pub mod sight;
pub mod status;
pub mod version;
pub mod watch;

use std::time::Duration;

use super::OpenClawView;
use crate::sample::{Agent, AgentStatus};
use known::Known;

/// For how long what the files said counts for what is so: from then on (a home directory hangs,
/// say) the statuses are unknown, and the agents and the version stay.
pub const STALE_AFTER: Duration = Duration::from_secs(120);

/// What a sample taken at `now` (time since boot) says of OpenClaw.
#[must_use]
pub fn view(known: &Known, now: Duration) -> OpenClawView {
    let current = known.current(now);
    let mut view = current.view;
    if current.agents_of_files.is_some_and(|age| age > STALE_AFTER) {
        let unknown = |agent: Agent| Agent { status: AgentStatus::Unknown, ..agent };
        view.agents = view.agents.into_iter().map(unknown).collect();
    }
    view
}

#[cfg(test)]
mod tests;
