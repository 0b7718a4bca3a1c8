//! What an agent is doing, from what is known of its gateway and its sessions. Pure.
//!
//! Invariants:
//! - "running" needs a witness of now: a lock whose process lives, or a session that was marked
//!   after the living gateway had started. A mark of a gateway that died says nothing.
//! - A mark counts from the start of the gateway on; where that is unknown, a mark alone makes an
//!   agent `unknown`.
//! - What cannot be known is `unknown`, never "idle" or "stopped".

use super::lock::Held;
use super::sessions::{Activity, Unreadable};
use crate::sample::AgentStatus;

/// What a gateway says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// Its version.
    pub version: Option<String>,
    /// Since when it runs, in milliseconds since 1970.
    pub since: Option<u64>,
}

/// What the gateway's port answers to `/startupz`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Probe {
    /// Nothing was asked.
    #[default]
    NotAsked,
    /// It is up.
    Started(Said),
    /// It is coming up.
    Starting(Said),
    /// It takes no new work and is going down.
    Draining(Said),
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
        self.said()?.version.as_deref()
    }

    fn since(&self) -> Option<u64> {
        self.said()?.since
    }

    fn said(&self) -> Option<&Said> {
        match self {
            Self::Started(said) | Self::Starting(said) | Self::Draining(said) => Some(said),
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
    /// It runs.
    Runs {
        /// Since when, in milliseconds since 1970, where that is known.
        since: Option<u64>,
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
        (Held::By { since: Some(since), .. }, Probe::Refused)
            if now.saturating_sub(since) < COMING_UP_FOR =>
        {
            Gateway::Starting
        }
        (
            Held::By { since, .. },
            Probe::Started(_)
            | Probe::Draining(_)
            | Probe::Refused
            | Probe::NoAnswer
            | Probe::NotAsked,
        ) => Gateway::Runs { since: since.or(probe.since()) },
        // No lock to be seen, but the port answers as a gateway does: the lock lies in a
        // directory that is hidden from this process.
        (Held::Nobody | Held::Unseen, Probe::Started(_) | Probe::Draining(_)) => {
            Gateway::Runs { since: probe.since() }
        }
        // The lock may be that of the gateway before.
        (Held::Unknown { since }, Probe::Started(_) | Probe::Draining(_)) => {
            Gateway::Runs { since: since.max(probe.since()) }
        }
        (Held::Nobody | Held::Unseen | Held::Unknown { .. }, Probe::Starting(_)) => {
            Gateway::Starting
        }
        (Held::Nobody, Probe::Refused | Probe::Silent | Probe::NoAnswer | Probe::NotAsked)
        | (Held::Unseen, Probe::Refused) => Gateway::Down,
        (Held::Unseen, Probe::Silent | Probe::NoAnswer | Probe::NotAsked)
        | (
            Held::Unknown { .. },
            Probe::Refused | Probe::Silent | Probe::NoAnswer | Probe::NotAsked,
        ) => Gateway::Unknown,
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
        (Gateway::Runs { since }, Ok(Activity { marked: Some(at), .. })) => match since {
            None => AgentStatus::Unknown,
            Some(since) if *at >= since => AgentStatus::Running,
            Some(_) => AgentStatus::Idle,
        },
        (Gateway::Runs { .. }, Ok(_)) => AgentStatus::Idle,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINCE: u64 = 1_000_000;
    const LATER: u64 = SINCE + COMING_UP_FOR;

    fn held() -> Held {
        Held::By { pid: 7, since: Some(SINCE), port: None }
    }

    #[test]
    fn a_gateway_comes_up_runs_drains_and_goes_down() {
        let version = || Said { version: Some("2026.9.6".to_owned()), since: Some(SINCE - 7) };
        let unknown = |since| Held::Unknown { since };
        for (held, probe, now, expected) in [
            (held(), Probe::Refused, SINCE + 1, Gateway::Starting),
            (held(), Probe::Starting(version()), SINCE + 1, Gateway::Starting),
            (held(), Probe::Starting(version()), LATER, Gateway::Starting),
            (held(), Probe::Started(version()), LATER, Gateway::Runs { since: Some(SINCE) }),
            (held(), Probe::Draining(version()), LATER, Gateway::Runs { since: Some(SINCE) }),
            // Listens on another interface, or speaks TLS, or is of the older generation.
            (held(), Probe::Refused, LATER, Gateway::Runs { since: Some(SINCE) }),
            (held(), Probe::NoAnswer, LATER, Gateway::Runs { since: Some(SINCE) }),
            (held(), Probe::NotAsked, SINCE + 1, Gateway::Runs { since: Some(SINCE) }),
            // Too busy to answer: it lives, so it is coming up.
            (held(), Probe::Silent, LATER, Gateway::Starting),
            (Held::Nobody, Probe::Silent, LATER, Gateway::Down),
            (Held::Nobody, Probe::Refused, LATER, Gateway::Down),
            (Held::Nobody, Probe::NoAnswer, LATER, Gateway::Down),
            (Held::Nobody, Probe::NotAsked, LATER, Gateway::Down),
            (unknown(Some(SINCE)), Probe::Refused, LATER, Gateway::Unknown),
            (unknown(None), Probe::Starting(Said::default()), LATER, Gateway::Starting),
            // Its lock may lie where it is not seen; that nobody listens is seen.
            (Held::Unseen, Probe::Refused, LATER, Gateway::Down),
            (Held::Unseen, Probe::NoAnswer, LATER, Gateway::Unknown),
            (Held::Unseen, Probe::Silent, LATER, Gateway::Unknown),
            (Held::Unseen, Probe::NotAsked, LATER, Gateway::Unknown),
        ] {
            assert_eq!(gateway(held, &probe, now), expected, "{held:?} {probe:?}");
        }
        // Since when it runs: by its lock, by its own word, or not known.
        let started = |since| Probe::Started(Said { since, ..Said::default() });
        let of_lock = |since| Held::By { pid: 7, since, port: None };
        for (held, probe, since) in [
            (of_lock(None), started(Some(5)), Some(5)),
            (of_lock(None), Probe::Refused, None),
            (Held::Nobody, started(Some(5)), Some(5)),
            (Held::Unseen, started(None), None),
            (unknown(Some(5)), started(None), Some(5)),
            (unknown(Some(5)), started(Some(9)), Some(9)),
            (unknown(None), started(None), None),
        ] {
            assert_eq!(gateway(held, &probe, LATER), Gateway::Runs { since }, "{held:?} {probe:?}");
        }
        // A clock that was set back.
        assert_eq!(gateway(held(), &Probe::Refused, 0), Gateway::Starting);
    }

    #[test]
    fn a_mark_of_a_gateway_that_died_is_no_run() {
        let runs = Gateway::Runs { since: Some(SINCE) };
        let marked = |at| Ok(Activity { held: false, marked: Some(at) });
        assert_eq!(agent(runs, &marked(SINCE - 1)), AgentStatus::Idle);
        assert_eq!(agent(runs, &marked(SINCE)), AgentStatus::Running);
        let some_time = Gateway::Runs { since: None };
        assert_eq!(agent(some_time, &marked(LATER)), AgentStatus::Unknown);
        assert_eq!(agent(some_time, &Ok(Activity::default())), AgentStatus::Idle);
        assert_eq!(agent(Gateway::Down, &marked(LATER)), AgentStatus::Stopped);
        assert_eq!(agent(Gateway::Starting, &marked(LATER)), AgentStatus::Starting);
        assert_eq!(agent(Gateway::Unknown, &marked(LATER)), AgentStatus::Unknown);
    }

    #[test]
    fn sessions_that_cannot_be_read_are_unknown_only_while_the_gateway_runs() {
        let unreadable = Err(Unreadable::Format("torn".to_owned()));
        assert_eq!(agent(Gateway::Runs { since: None }, &unreadable), AgentStatus::Unknown);
        assert_eq!(agent(Gateway::Down, &unreadable), AgentStatus::Stopped);
        let idle = Ok(Activity::default());
        assert_eq!(agent(Gateway::Runs { since: None }, &idle), AgentStatus::Idle);
        let held = Ok(Activity { held: true, marked: None });
        assert_eq!(agent(Gateway::Unknown, &held), AgentStatus::Running);
        assert_eq!(agent(Gateway::Down, &held), AgentStatus::Stopped);
    }
}
