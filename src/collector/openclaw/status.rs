//! What an agent is doing, from what is known of its gateway and its sessions. Pure.
//!
//! Invariants:
//! - "running" needs a witness of now: a lock whose process lives, or a session that was marked
//!   after the living gateway had started. A mark of a gateway that died says nothing.
//! - What cannot be known is `unknown`, never "idle" or "stopped".

use super::lock::Held;
use super::sessions::{Activity, Unreadable};
use crate::sample::AgentStatus;

/// What the gateway's port answers to `/startupz`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Probe {
    /// Nothing was asked.
    #[default]
    NotAsked,
    /// It is up, and says its version to those on the same host.
    Started(Option<String>),
    /// It is coming up.
    Starting(Option<String>),
    /// It takes no new work and is going down.
    Draining(Option<String>),
    /// Nobody listens.
    Refused,
    /// Somebody takes the connection and does not answer in time.
    Silent,
    /// Something answers; it is not an OpenClaw that says how it is.
    NoAnswer,
}

impl Probe {
    /// The version that was said.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        match self {
            Self::Started(version) | Self::Starting(version) | Self::Draining(version) => {
                version.as_deref()
            }
            Self::NotAsked | Self::Refused | Self::Silent | Self::NoAnswer => None,
        }
    }
}

/// How long, in milliseconds, a gateway that does not listen yet is taken for one that is coming
/// up. From then on it is taken to listen where it cannot be reached from here.
const COMING_UP_FOR: u64 = 120_000;

/// A gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gateway {
    /// It runs, since so many milliseconds after 1970 (0: since when is unknown).
    Runs {
        /// Since when.
        since: u64,
    },
    /// It is coming up.
    Starting,
    /// It does not run.
    Down,
    /// It cannot be told.
    Unknown,
}

/// How a gateway is, by its lock and its port. `now` is in milliseconds since 1970.
#[must_use]
pub fn gateway(held: Held, probe: &Probe, now: u64) -> Gateway {
    match (held, probe) {
        // While it comes up, for up to a minute, it may be too busy to answer.
        (Held::By { .. }, Probe::Starting(_) | Probe::Silent) => Gateway::Starting,
        (Held::By { since, .. }, Probe::Refused) if now.saturating_sub(since) < COMING_UP_FOR => {
            Gateway::Starting
        }
        (
            Held::By { since, .. },
            Probe::Started(_)
            | Probe::Draining(_)
            | Probe::Refused
            | Probe::NoAnswer
            | Probe::NotAsked,
        ) => Gateway::Runs { since },
        // No lock to be seen, but the port answers as a gateway does: the lock lies in a
        // directory that is hidden from this process.
        (Held::Nobody | Held::Unknown, Probe::Started(_) | Probe::Draining(_)) => {
            Gateway::Runs { since: 0 }
        }
        (Held::Nobody | Held::Unknown, Probe::Starting(_)) => Gateway::Starting,
        (Held::Nobody, Probe::Refused | Probe::Silent | Probe::NoAnswer | Probe::NotAsked) => {
            Gateway::Down
        }
        (Held::Unknown, Probe::Refused | Probe::Silent | Probe::NoAnswer | Probe::NotAsked) => {
            Gateway::Unknown
        }
    }
}

/// What an agent is doing.
#[must_use]
pub fn agent(gateway: Gateway, sessions: &Result<Activity, Unreadable>) -> AgentStatus {
    match (gateway, sessions) {
        (Gateway::Down, _) => AgentStatus::Stopped,
        (Gateway::Starting, _) => AgentStatus::Starting,
        (Gateway::Unknown | Gateway::Runs { .. }, Ok(Activity { held: true, .. })) => {
            AgentStatus::Running
        }
        (Gateway::Unknown, _) | (Gateway::Runs { .. }, Err(_)) => AgentStatus::Unknown,
        (Gateway::Runs { since }, Ok(Activity { marked: Some(at), .. })) if *at >= since => {
            AgentStatus::Running
        }
        (Gateway::Runs { .. }, Ok(_)) => AgentStatus::Idle,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINCE: u64 = 1_000_000;
    const LATER: u64 = SINCE + COMING_UP_FOR;

    fn held() -> Held {
        Held::By { pid: 7, since: SINCE, port: None }
    }

    #[test]
    fn a_gateway_comes_up_runs_drains_and_goes_down() {
        let version = || Some("2026.9.6".to_owned());
        for (held, probe, now, expected) in [
            (held(), Probe::Refused, SINCE + 1, Gateway::Starting),
            (held(), Probe::Starting(version()), SINCE + 1, Gateway::Starting),
            (held(), Probe::Starting(version()), LATER, Gateway::Starting),
            (held(), Probe::Started(version()), LATER, Gateway::Runs { since: SINCE }),
            (held(), Probe::Draining(version()), LATER, Gateway::Runs { since: SINCE }),
            // Listens on another interface, or speaks TLS, or is of the older generation.
            (held(), Probe::Refused, LATER, Gateway::Runs { since: SINCE }),
            (held(), Probe::NoAnswer, LATER, Gateway::Runs { since: SINCE }),
            (held(), Probe::NotAsked, SINCE + 1, Gateway::Runs { since: SINCE }),
            // Too busy to answer: it lives, so it is coming up.
            (held(), Probe::Silent, LATER, Gateway::Starting),
            (Held::Nobody, Probe::Silent, LATER, Gateway::Down),
            (Held::Nobody, Probe::Refused, LATER, Gateway::Down),
            (Held::Nobody, Probe::NoAnswer, LATER, Gateway::Down),
            (Held::Nobody, Probe::Started(version()), LATER, Gateway::Runs { since: 0 }),
            (Held::Unknown, Probe::Refused, LATER, Gateway::Unknown),
            (Held::Unknown, Probe::Starting(None), LATER, Gateway::Starting),
        ] {
            assert_eq!(gateway(held, &probe, now), expected, "{held:?} {probe:?}");
        }
        // A clock that was set back.
        assert_eq!(gateway(held(), &Probe::Refused, 0), Gateway::Starting);
    }

    #[test]
    fn a_mark_of_a_gateway_that_died_is_no_run() {
        let runs = Gateway::Runs { since: SINCE };
        let marked = |at| Ok(Activity { held: false, marked: Some(at) });
        assert_eq!(agent(runs, &marked(SINCE - 1)), AgentStatus::Idle);
        assert_eq!(agent(runs, &marked(SINCE)), AgentStatus::Running);
        assert_eq!(agent(Gateway::Down, &marked(LATER)), AgentStatus::Stopped);
        assert_eq!(agent(Gateway::Starting, &marked(LATER)), AgentStatus::Starting);
        assert_eq!(agent(Gateway::Unknown, &marked(LATER)), AgentStatus::Unknown);
    }

    #[test]
    fn sessions_that_cannot_be_read_are_unknown_only_while_the_gateway_runs() {
        let unreadable = Err(Unreadable::Format("torn".to_owned()));
        assert_eq!(agent(Gateway::Runs { since: 0 }, &unreadable), AgentStatus::Unknown);
        assert_eq!(agent(Gateway::Down, &unreadable), AgentStatus::Stopped);
        let idle = Ok(Activity::default());
        assert_eq!(agent(Gateway::Runs { since: 0 }, &idle), AgentStatus::Idle);
        let held = Ok(Activity { held: true, marked: None });
        assert_eq!(agent(Gateway::Unknown, &held), AgentStatus::Running);
        assert_eq!(agent(Gateway::Down, &held), AgentStatus::Stopped);
    }
}
