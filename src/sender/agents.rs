//! What the sender knows of OpenClaw: said in `server.hello`, and at once when an agent's status
//! changes between two samples (docs/PROTOCOL.md 4).
//!
//! Invariant: this is a hint beside the samples; it is never queued, and a message of it never
//! exceeds [`MAX_ENCODED`] bytes, whatever the number of agents.

use std::collections::HashMap;

use crate::protocol::{Hello, StatusChange};
use crate::sample::{Agent, AgentStatus, CONNECTOR_VERSION, MAX_ENCODED};

/// OpenClaw as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OpenClaw {
    /// Its version; `None` when it is not there.
    pub(super) version: Option<String>,
    /// Its agents.
    pub(super) agents: Vec<Agent>,
}

impl OpenClaw {
    /// Takes up what is known now and gives the agents that are new or whose status changed.
    pub(super) fn update(&mut self, now: Self) -> Vec<Agent> {
        let before = std::mem::replace(self, now);
        let before: HashMap<&str, AgentStatus> =
            before.agents.iter().map(|old| (old.id.as_str(), old.status)).collect();
        let same = |agent: &Agent| before.get(agent.id.as_str()) == Some(&agent.status);
        self.agents.iter().filter(|agent| !same(agent)).cloned().collect()
    }

    /// `server.hello`, the first message over an accepted link.
    pub(super) fn hello(&self, identifier: &str) -> Vec<u8> {
        bounded(&self.agents, |agents| {
            let openclaw_version = self.version.as_deref();
            let connector_version = CONNECTOR_VERSION;
            Hello { identifier, openclaw_version, agents, connector_version }.message()
        })
    }
}

/// `agent.status_changed` about these agents.
pub(super) fn status_changed(identifier: &str, agents: &[Agent]) -> Vec<u8> {
    bounded(agents, |agents| StatusChange { identifier, agents }.message())
}

/// The message about as many agents as there is room for; the samples count the others.
fn bounded(mut agents: &[Agent], message: impl Fn(&[Agent]) -> Vec<u8>) -> Vec<u8> {
    loop {
        let made = message(agents);
        if made.len() <= MAX_ENCODED || agents.is_empty() {
            return made;
        }
        agents = agents.get(..agents.len() / 2).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(id: &str, status: AgentStatus) -> Agent {
        Agent { id: id.to_owned(), name: format!("the {id}"), status }
    }

    fn with(agents: &[Agent]) -> OpenClaw {
        OpenClaw { version: Some("2026.3.13".to_owned()), agents: agents.to_vec() }
    }

    #[test]
    fn only_new_agents_and_changed_statuses_are_told() {
        let (idle, running) = (agent("a", AgentStatus::Idle), agent("a", AgentStatus::Running));
        let other = agent("b", AgentStatus::Idle);
        let mut known = OpenClaw::default();
        assert_eq!(known.update(with(&[idle.clone(), other.clone()])).len(), 2);
        assert_eq!(
            known.update(with(&[other.clone(), idle.clone()])),
            [],
            "their order is nothing"
        );
        let renamed = Agent { name: "another name".to_owned(), ..idle };
        assert_eq!(known.update(with(&[renamed, other.clone()])), [], "nor is a name");
        assert_eq!(
            known.update(with(&[running.clone(), other.clone()])),
            std::slice::from_ref(&running)
        );
        assert_eq!(known.update(with(&[other])), [], "one that is gone is told by the next sample");
        assert_eq!(known.update(with(std::slice::from_ref(&running))), [running], "it is back");
    }

    /// With each agent compared to each other one this would take minutes.
    #[test]
    fn many_agents_are_compared_in_no_time() {
        let status = |n| if n == 77 { AgentStatus::Running } else { AgentStatus::Idle };
        let many = |status: fn(usize) -> AgentStatus| {
            with(&(0..60_000).map(|n| agent(&format!("a{n}"), status(n))).collect::<Vec<_>>())
        };
        let mut known = OpenClaw::default();
        assert_eq!(known.update(many(|_| AgentStatus::Idle)).len(), 60_000);
        assert_eq!(known.update(many(status)), [agent("a77", AgentStatus::Running)]);
    }

    #[test]
    fn a_message_is_bounded_whatever_the_number_of_agents() {
        let many: Vec<_> =
            (0..5000).map(|n| agent(&format!("agent-{n}"), AgentStatus::Idle)).collect();
        for message in [with(&many).hello("vps.t1"), status_changed("vps.t1", &many)] {
            assert!((MAX_ENCODED / 3..=MAX_ENCODED).contains(&message.len()));
            let message: serde_json::Value = serde_json::from_slice(&message).unwrap();
            assert_eq!(message["payload"]["agents"][0]["id"], "agent-0");
        }
    }
}
