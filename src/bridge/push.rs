//! What an OpenClaw plugin pushes, read and checked (docs/PROTOCOL.md 9). Pure.
//!
//! Invariants: what comes out keeps every bound below, whatever goes in; members nobody knows are
//! skipped and not kept; a fault names the member, or line and column, and what is expected there,
//! and quotes nothing: it goes into the log.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::collector::openclaw::known::Pushed;
use crate::sample::{Agent, AgentStatus};

/// Bytes of a body.
pub const MAX_BODY: usize = 64 * 1024;
/// Agents one push may name.
pub const MAX_AGENTS: usize = 1000;
/// Characters of an agent's id.
pub const MAX_ID: usize = 128;
/// Characters of an agent's name.
pub const MAX_NAME: usize = 256;
/// Characters of a version.
pub const MAX_VERSION: usize = 64;

/// Why a push is refused as a whole.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// It is no JSON, or a member has another type.
    #[error(
        "not what is expected, a JSON object with version, plugin_version and agents: line {line}, \
         column {column}: {what}"
    )]
    Form {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// It says nothing.
    #[error("it has none of version, plugin_version and agents")]
    Empty,
    /// A text is empty, too long, or has control characters.
    #[error("{member} has to have 1 to {most} characters, none of them a control character")]
    Text {
        /// Where it stands.
        member: String,
        /// How many characters it may have.
        most: usize,
    },
    /// There are too many agents.
    #[error("agents names {found}, at most {MAX_AGENTS} are allowed")]
    Agents {
        /// How many there are.
        found: usize,
    },
    /// Two agents cannot be told apart.
    #[error("agents[{at}].id stands before already: ids have to differ")]
    Twice {
        /// The place of the second.
        at: usize,
    },
}

#[derive(Deserialize)]
struct Body {
    version: Option<String>,
    plugin_version: Option<String>,
    agents: Option<Vec<BodyAgent>>,
}

#[derive(Deserialize)]
struct BodyAgent {
    id: String,
    name: Option<String>,
    status: Option<String>,
}

/// Reads the body of `POST /openclaw`. A member that is missing or null is not said; an agent
/// without a name is called by its id; a status nobody knows is `unknown`.
///
/// # Errors
/// See [`PushError`]: nothing of it is kept then.
pub fn read(body: &[u8]) -> Result<Pushed, PushError> {
    let Body { version, plugin_version, agents } =
        serde_json::from_slice(body).map_err(|error| form(&error))?;
    if version.is_none() && plugin_version.is_none() && agents.is_none() {
        return Err(PushError::Empty);
    }
    bounded(version.as_deref(), MAX_VERSION, || "version".to_owned())?;
    bounded(plugin_version.as_deref(), MAX_VERSION, || "plugin_version".to_owned())?;
    let agents = agents.map(checked).transpose()?;
    Ok(Pushed { version, plugin_version, agents })
}

/// The kind of a fault alone: its own words quote what they stumble over.
fn form(error: &serde_json::Error) -> PushError {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "ends too early",
        serde_json::error::Category::Io | serde_json::error::Category::Syntax => "not JSON",
        serde_json::error::Category::Data => {
            "a member that is missing, stands twice or has another type"
        }
    };
    PushError::Form { line: error.line(), column: error.column(), what }
}

fn checked(agents: Vec<BodyAgent>) -> Result<Vec<Agent>, PushError> {
    if agents.len() > MAX_AGENTS {
        return Err(PushError::Agents { found: agents.len() });
    }
    let mut seen = BTreeSet::new();
    for (at, BodyAgent { id, name, .. }) in agents.iter().enumerate() {
        bounded(Some(id), MAX_ID, || format!("agents[{at}].id"))?;
        bounded(name.as_deref(), MAX_NAME, || format!("agents[{at}].name"))?;
        if !seen.insert(id.as_str()) {
            return Err(PushError::Twice { at });
        }
    }
    drop(seen);
    let agent = |BodyAgent { id, name, status }| Agent {
        name: name.unwrap_or_else(|| id.clone()),
        status: status.as_deref().map_or(AgentStatus::Unknown, known_status),
        id,
    };
    Ok(agents.into_iter().map(agent).collect())
}

fn known_status(word: &str) -> AgentStatus {
    match word {
        "running" => AgentStatus::Running,
        "idle" => AgentStatus::Idle,
        "stopped" => AgentStatus::Stopped,
        "starting" => AgentStatus::Starting,
        _ => AgentStatus::Unknown,
    }
}

fn bounded(
    text: Option<&str>,
    most: usize,
    member: impl FnOnce() -> String,
) -> Result<(), PushError> {
    let Some(text) = text else { return Ok(()) };
    let long = text.chars().nth(most).is_some();
    if text.is_empty() || long || text.chars().any(char::is_control) {
        return Err(PushError::Text { member: member(), most });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn of(body: &Value) -> Result<Pushed, String> {
        read(body.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    fn agent(id: &str, name: &str, status: AgentStatus) -> Agent {
        Agent { id: id.to_owned(), name: name.to_owned(), status }
    }

    #[test]
    fn the_body_of_the_protocol_is_read() {
        let body = json!({
            "version": "2026.3.13", "plugin_version": "0.4.0", "uptime": {"of": ["anything"]},
            "agents": [
                {"id": "a1", "name": "agent", "status": "running", "token": "not kept"},
                {"id": "a2", "name": null, "status": "idle"},
                {"id": "a3", "status": "stopped"}, {"id": "a4", "status": "starting"},
                {"id": "a5", "status": "unknown"}, {"id": "a6", "status": "Running!"},
                {"id": "a7", "status": null},
            ],
        });
        let pushed = of(&body).unwrap();
        assert_eq!(pushed.version.as_deref(), Some("2026.3.13"));
        assert_eq!(pushed.plugin_version.as_deref(), Some("0.4.0"));
        let agents = [
            agent("a1", "agent", AgentStatus::Running),
            agent("a2", "a2", AgentStatus::Idle),
            agent("a3", "a3", AgentStatus::Stopped),
            agent("a4", "a4", AgentStatus::Starting),
            agent("a5", "a5", AgentStatus::Unknown),
            agent("a6", "a6", AgentStatus::Unknown),
            agent("a7", "a7", AgentStatus::Unknown),
        ];
        assert_eq!(pushed.agents.as_deref(), Some(&agents[..]));
    }

    #[test]
    fn what_is_missing_or_null_is_not_said_and_an_empty_list_is() {
        let pushed = of(&json!({"version": "1", "plugin_version": null})).unwrap();
        let version = Some("1".to_owned());
        assert_eq!(pushed, Pushed { version, plugin_version: None, agents: None });
        assert_eq!(of(&json!({"agents": []})).unwrap().agents, Some(Vec::new()));
    }

    #[test]
    fn each_fault_names_its_place() {
        let many: Vec<_> = (0..=MAX_AGENTS).map(|n| json!({"id": n.to_string()})).collect();
        for (body, parts) in [
            (json!({}), &["none of version"][..]),
            (json!({"agent": []}), &["none of version"]),
            (json!({"version": null, "agents": null}), &["none of version"]),
            (json!([]), &["JSON object", "agents"]),
            (json!({"version": 3}), &["line 1, column 12: a member", "another type"]),
            (json!({"version": ""}), &["version has to have 1 to 64"]),
            (json!({"version": "v".repeat(MAX_VERSION + 1)}), &["version has"]),
            (json!({"plugin_version": "1\n2"}), &["plugin_version has", "control"]),
            (json!({"agents": {}}), &["another type"]),
            (json!({"agents": [{"name": "n"}]}), &["missing"]),
            (json!({"agents": [{"id": "a"}, {"id": ""}]}), &["agents[1].id has"]),
            (json!({"agents": [{"id": "i".repeat(MAX_ID + 1)}]}), &["agents[0].id", "128"]),
            (
                json!({"agents": [{"id": "i", "name": "n".repeat(MAX_NAME + 1)}]}),
                &["agents[0].name", "256"],
            ),
            (json!({"agents": [{"id": "i", "status": 1}]}), &["another type"]),
            (json!({"agents": [{"id": "i"}, {"id": "i"}]}), &["agents[1].id stands before"]),
            (json!({"agents": many}), &["agents names 1001, at most 1000"]),
        ] {
            let error = of(&body).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{part:?} in {error:?}");
            }
        }
        for text in ["", "{", "{\"version\":\"1\"} x", "{\"version\":\"1\",\"version\":\"2\"}"] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
        let secret = "sk-invented-5f2c";
        for body in [
            json!({"version": {"a": secret}}),
            json!({"agents": secret}),
            json!({"agents": [secret]}),
            json!({"agents": [{"id": [secret]}]}),
            json!({"agents": [{"id": "a", "name": {secret: 1}}]}),
            json!(secret),
        ] {
            let error = of(&body).unwrap_err();
            assert!(!error.contains(secret) && error.contains("line 1, column"), "{error}");
        }
        assert!(read(&b"[".repeat(MAX_BODY)).is_err(), "and no stack ends there");
        let deep = format!("{{\"version\":\"1\",\"x\":{}", "[".repeat(MAX_BODY));
        assert!(read(deep.as_bytes()).is_err());
    }

    #[test]
    fn lengths_count_characters_and_their_bounds_are_allowed() {
        let body = json!({"version": "ü".repeat(MAX_VERSION), "agents": [
            {"id": "ü".repeat(MAX_ID), "name": "ü".repeat(MAX_NAME)}
        ]});
        assert!(of(&body).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// Whatever a plugin says within the bounds comes out as it was said.
        #[test]
        fn what_is_within_bounds_comes_out_unchanged(
            ids in proptest::collection::btree_set("[^\\p{C}]{1,8}", 0..20),
            names in proptest::collection::vec("[^\\p{C}]{1,20}", 20),
            version in proptest::option::of("[0-9.]{1,12}"),
        ) {
            let expected: Vec<Agent> = ids.iter().zip(&names)
                .map(|(id, name)| agent(id, name, AgentStatus::Idle)).collect();
            let pushed = of(&json!({"version": version, "agents": expected})).unwrap();
            prop_assert_eq!(pushed.version, version);
            prop_assert_eq!(pushed.agents, Some(expected));
        }
    }
}
