//! A configuration's agents, and the little else that is taken from it. Pure but for the reading,
//! which is `include`'s.
//!
//! Invariants:
//! - Nothing is kept but ids, names, the port of the gateway and the version that wrote the file.
//! - Ids are OpenClaw's own normal form; each comes once, in the order of the file.
//! - [`MAX_AGENTS`] of them at most: each costs a look at files, and a place in every sample.

use std::collections::HashSet;

use super::node::{Keep, Node};

/// Agents of one configuration that are looked after, as many as a plugin may push.
pub const MAX_AGENTS: usize = 1000;
/// Characters of an id at most, as OpenClaw has it.
const MAX_ID: usize = 64;
/// Characters of a name at most: it goes into every sample.
const MAX_NAME: usize = 100;
/// Characters of a version at most.
const MAX_VERSION: usize = 64;

/// The agent that is there when no agent is configured.
const IMPLICIT: &str = "main";

/// What is kept of the configuration.
pub static KEEP: Keep = Keep::Members(&[
    ("meta", Keep::Members(&[("lastTouchedVersion", Keep::Text)])),
    ("gateway", Keep::Members(&[("port", Keep::Number)])),
    ("agents", Keep::Members(&[("entries", AGENTS), ("list", AGENTS)])),
]);

const AGENTS: Keep = Keep::First(MAX_AGENTS, &AGENT);

static AGENT: Keep = Keep::Members(&[
    ("id", Keep::Text),
    ("name", Keep::Text),
    ("identity", Keep::Members(&[("name", Keep::Text)])),
]);

/// What is known of one OpenClaw by its configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// Id and name of each agent.
    pub agents: Vec<(String, String)>,
    /// The port its gateway listens on.
    pub port: Option<u16>,
    /// The version that wrote the configuration last.
    pub version: Option<String>,
}

impl Roster {
    /// Of a configuration read with [`KEEP`].
    #[must_use]
    pub fn of(config: &Node) -> Self {
        let at = |path: &[&str]| path.iter().try_fold(config, |node, name| node.get(name));
        let mut seen = HashSet::new();
        let mut agents: Vec<(String, String)> =
            configured(config).into_iter().filter(|(id, _)| seen.insert(id.clone())).collect();
        // An object of no entries says that there are none; an absent or empty list does not.
        if agents.is_empty() && !matches!(at(&["agents", "entries"]), Some(Node::Object(_))) {
            agents.push((IMPLICIT.to_owned(), IMPLICIT.to_owned()));
        }
        Self {
            agents,
            port: at(&["gateway", "port"])
                .and_then(Node::number)
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port != 0),
            version: at(&["meta", "lastTouchedVersion"]).and_then(Node::text).and_then(version),
        }
    }
}

/// Whether an OpenClaw of this version keeps its gateway's lock in the state directory: from 2026.8
/// on.
#[must_use]
pub fn is_newer(version: &str) -> bool {
    let mut parts = version.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(year)), Some(Ok(month))) => (year, month) >= (2026, 8),
        _ => false,
    }
}

/// Both generations: `agents.entries`, an object by id, wins over `agents.list`.
fn configured(config: &Node) -> Vec<(String, String)> {
    let Some(agents) = config.get("agents") else { return Vec::new() };
    match (agents.get("entries"), agents.get("list")) {
        (Some(Node::Object(entries)), _) => entries
            .iter()
            .filter(|(_, agent)| matches!(agent, Node::Object(_)))
            .map(|(id, agent)| of(id, agent))
            .collect(),
        (None, Some(Node::List(list))) => list
            .iter()
            .filter(|agent| matches!(agent, Node::Object(_)))
            .map(|agent| of(agent.get("id").and_then(Node::text).unwrap_or_default(), agent))
            .collect(),
        _ => Vec::new(),
    }
}

fn of(id: &str, agent: &Node) -> (String, String) {
    let id = normalized_id(id);
    let said = |node: Option<&Node>| node.and_then(Node::text).and_then(printable);
    let name = said(agent.get("name"))
        .or_else(|| said(agent.get("identity").and_then(|identity| identity.get("name"))));
    let name = name.unwrap_or_else(|| id.clone());
    (id, name)
}

/// An id as OpenClaw normalizes it: lower case, other characters than `a-z0-9_-` become one `-`,
/// none at either end, 64 at most, `main` if nothing is left.
#[must_use]
pub fn normalized_id(id: &str) -> String {
    let id = id.trim();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let plain = id.chars().all(allowed) && id.starts_with(|c: char| c.is_ascii_alphanumeric());
    if plain && id.len() <= MAX_ID {
        return id.to_ascii_lowercase();
    }
    let mut normal = String::new();
    let mut replaced = false;
    for c in id.to_lowercase().chars() {
        let keep = c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        if keep {
            normal.push(c);
        } else if !replaced {
            normal.push('-');
        }
        replaced = !keep;
    }
    let normal: String = normal.trim_matches('-').chars().take(MAX_ID).collect();
    if normal.is_empty() { IMPLICIT.to_owned() } else { normal }
}

/// A name without control characters and line breaks, cut at [`MAX_NAME`]; `None` when nothing is
/// left.
fn printable(name: &str) -> Option<String> {
    let name: String = name.trim().chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    (!name.trim().is_empty()).then_some(name)
}

/// A text that can be a version; `None` for any other, which might be anything.
#[must_use]
pub fn version(text: &str) -> Option<String> {
    let text = text.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '_');
    let version = (1..=MAX_VERSION).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_digit() || c == 'v')
        && text.chars().all(plain);
    version.then(|| text.trim_start_matches('v').to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::node::read_json5;
    use super::*;

    fn roster(text: &str) -> Roster {
        Roster::of(&read_json5(text.as_bytes(), &KEEP).unwrap())
    }

    fn ids(text: &str) -> Vec<String> {
        roster(text).agents.into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn the_list_of_the_older_generation() {
        let roster = roster(
            r#"{ meta: { lastTouchedVersion: "2026.3.13" }, gateway: { port: 18790, auth: { token: "geheim" } },
                 agents: { defaults: { model: "x" }, list: [
                   { id: "Main", default: true, name: " Boss ", workspace: "/w" },
                   { id: "ops", identity: { name: "Ops", emoji: "x" } },
                   { id: "bare" }, { id: "MAIN", name: "again" }, "nonsense", null ] } }"#,
        );
        let expected = [("main", "Boss"), ("ops", "Ops"), ("bare", "bare")];
        assert_eq!(roster.agents, expected.map(|(id, name)| (id.to_owned(), name.to_owned())));
        assert_eq!((roster.port, roster.version.as_deref()), (Some(18790), Some("2026.3.13")));
        assert!(!format!("{roster:?}").contains("geheim"));
    }

    #[test]
    fn the_entries_of_the_newer_generation_in_their_order() {
        assert_eq!(
            ids("{agents: {entries: {work: {}, home: {name: 'H'}, x: 1}}}"),
            ["work", "home"]
        );
        assert_eq!(ids("{agents: {list: [{id: 'old'}], entries: {new: {}}}}"), ["new"]);
    }

    #[test]
    fn without_agents_there_is_main() {
        for text in ["{}", "{agents: {}}", "{agents: {list: []}}", "{agents: 1}", "[]", "1"] {
            assert_eq!(ids(text), ["main"], "{text}");
        }
        assert_eq!(ids("{agents: {entries: {}}}"), [""; 0]);
    }

    #[test]
    fn ids_are_normalized_as_openclaw_does() {
        for (id, normal) in [
            ("Main", "main"),
            (" ops ", "ops"),
            ("a b/c", "a-b-c"),
            ("--x--", "x"),
            ("", "main"),
            ("äöü", "main"),
            ("_x", "_x"),
            ("a.b", "a-b"),
        ] {
            assert_eq!(normalized_id(id), normal, "{id:?}");
        }
        assert_eq!(normalized_id(&"x".repeat(100)).len(), 64);
    }

    #[test]
    fn generations_are_told_by_the_version() {
        for (version, newer) in [
            ("2026.7.31", false),
            ("2026.8.1-beta.2", true),
            ("2026.10.1", true),
            ("2027.1.1", true),
            ("2025.12.1", false),
            ("2026", false),
            ("2026.x.1", false),
            ("", false),
        ] {
            assert_eq!(is_newer(version), newer, "{version}");
        }
    }

    #[test]
    fn names_and_versions_are_bounded_and_plain() {
        let long =
            format!("{{agents: {{list: [{{id: 'a', name: '\\u001b[31m{}'}}]}}}}", "n".repeat(500));
        let (_, name) = roster(&long).agents.remove(0);
        assert_eq!(name.chars().count(), MAX_NAME);
        assert!(!name.contains('\u{1b}'));
        assert_eq!(version("2026.8.1-beta.2").as_deref(), Some("2026.8.1-beta.2"));
        for text in ["", "sk-geheim", "1 2", &"1".repeat(65), "2026\n"] {
            assert_eq!(version(text.trim_end_matches('\n')).is_some(), text == "2026\n", "{text}");
        }
    }
}
