//! The machine, or one with a deliberate fault: between it and the world stands a wrapper that
//! changes what it hears or says. Each fault has to be found by the invariants.

use std::time::Duration;

use harborforge_connector::sender::machine::{
    Command, Event, Machine, Now, Proof, Report, Selection,
};

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// One sample more than the Monitor said is acknowledged.
    AcknowledgesOneTooMany,
    /// What is not yet on disk is sent.
    SendsBeforeDurable,
    /// Heartbeats go on when the WebSocket is back.
    FallbackNeverEnds,
    /// Waits are a hundred times too long.
    WaitsWithoutCap,
    /// It asks to be woken at once, always.
    BusyLoop,
    /// The second oldest goes first.
    OutOfOrder,
    /// Every heartbeat is sent twice.
    TwoHeartbeats,
    /// A refused challenge is tried every few minutes.
    BurnsChallenges,
    /// More is sent than a window holds.
    FloodsTheWindow,
    /// A rejected sample is acknowledged and not kept.
    DropsRejected,
    /// The token is used without being saved.
    SkipsTheToken,
    /// A WebSocket that was lost is never tried again.
    GivesUp,
}

impl Bug {
    pub const ALL: [Self; 12] = [
        Self::AcknowledgesOneTooMany,
        Self::SendsBeforeDurable,
        Self::FallbackNeverEnds,
        Self::WaitsWithoutCap,
        Self::BusyLoop,
        Self::OutOfOrder,
        Self::TwoHeartbeats,
        Self::BurnsChallenges,
        Self::FloodsTheWindow,
        Self::DropsRejected,
        Self::SkipsTheToken,
        Self::GivesUp,
    ];

    /// Words of the invariants that may find it.
    pub fn told_by(self) -> &'static [&'static str] {
        match self {
            Self::AcknowledgesOneTooMany => &["is acknowledged"],
            Self::SendsBeforeDurable => &["before it was durable", "was never appended"],
            Self::FallbackNeverEnds => &["a heartbeat while", "a heartbeat with", "the fallback"],
            Self::WaitsWithoutCap => &["is not tried", "none is sent", "still waits"],
            Self::BusyLoop => &["wake-ups"],
            Self::OutOfOrder => &["is older", "still waits"],
            Self::TwoHeartbeats => &["a second heartbeat"],
            Self::BurnsChallenges => &["burnt again"],
            Self::FloodsTheWindow => &["are in flight"],
            Self::DropsRejected => &["is acknowledged", "still waits", "none is sent"],
            Self::SkipsTheToken => &["before the token is durable"],
            Self::GivesUp => &["is not tried", "still waits", "none is sent"],
        }
    }
}

pub struct Saboteur {
    machine: Machine,
    bug: Option<Bug>,
}

impl Saboteur {
    pub fn new(machine: Machine, bug: Option<Bug>) -> Self {
        Self { machine, bug }
    }

    pub fn handle(&mut self, now: Now, event: Event, seed: u64) -> Vec<Command> {
        let Some(bug) = self.bug else { return self.machine.handle(now, event, seed) };
        let commands = match (bug, event) {
            (Bug::BurnsChallenges, Event::Tick) => self.machine.handle(now, Event::TryNow, seed),
            (_, event) => self.machine.handle(now, event, seed),
        };
        let mut out = Vec::new();
        for command in commands {
            sabotage(bug, now.mono, command, &mut out);
        }
        out
    }
}

fn sabotage(bug: Bug, now: Duration, command: Command, out: &mut Vec<Command>) {
    match (bug, command) {
        (Bug::AcknowledgesOneTooMany, Command::Acknowledge { up_to, transport }) => {
            out.push(Command::Acknowledge { up_to: up_to + 1, transport });
        }
        (Bug::FallbackNeverEnds, Command::Report(Report::FallbackEnded)) => {}
        (Bug::FallbackNeverEnds, Command::Hello { link }) => {
            out.push(Command::Hello { link });
            let selection = Selection::Single { from: 0 };
            out.push(Command::Post { attempt: u64::MAX, selection, proof: Proof::Challenge });
        }
        (Bug::WaitsWithoutCap, Command::WakeAt(at)) => {
            out.push(Command::WakeAt(now + at.saturating_sub(now) * 100));
        }
        (Bug::BusyLoop, Command::WakeAt(_)) => out.push(Command::WakeAt(now)),
        (Bug::BurnsChallenges, Command::WakeAt(at)) => {
            out.push(Command::WakeAt(at.min(now + Duration::from_secs(120))));
        }
        (Bug::OutOfOrder, Command::Send { link, from, records, bytes }) => {
            out.push(Command::Send { link, from: from + 1, records, bytes });
        }
        (Bug::OutOfOrder, Command::Post { attempt, selection, proof }) => {
            let selection = match selection {
                Selection::Single { from } => Selection::Single { from: from + 1 },
                Selection::Batch { from, records, bytes } => {
                    Selection::Batch { from: from + 1, records, bytes }
                }
            };
            out.push(Command::Post { attempt, selection, proof });
        }
        (Bug::TwoHeartbeats, Command::Post { attempt, selection, proof }) => {
            out.push(Command::Post { attempt, selection, proof });
            out.push(Command::Post { attempt: attempt + (1 << 40), selection, proof });
        }
        (Bug::FloodsTheWindow, Command::Send { link, from, records, bytes }) => {
            out.push(Command::Send { link, from, records: records * 8, bytes: bytes * 8 });
        }
        (Bug::DropsRejected, Command::Reject { .. }) => {}
        (Bug::SkipsTheToken, Command::SaveToken { link }) => out.push(Command::Hello { link }),
        (Bug::GivesUp, Command::FetchKey { attempt }) if attempt > 3 => {
            let _ = attempt;
        }
        (
            Bug::AcknowledgesOneTooMany
            | Bug::SendsBeforeDurable
            | Bug::FallbackNeverEnds
            | Bug::WaitsWithoutCap
            | Bug::BusyLoop
            | Bug::OutOfOrder
            | Bug::TwoHeartbeats
            | Bug::BurnsChallenges
            | Bug::FloodsTheWindow
            | Bug::DropsRejected
            | Bug::SkipsTheToken
            | Bug::GivesUp,
            command,
        ) => out.push(command),
    }
}
