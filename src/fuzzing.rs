//! What the fuzz targets under `tests/fuzz` call: readers of what comes from a Monitor, from a
//! user or from the disk.
//!
//! Each takes any bytes and panics if what it made of them breaks an invariant.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rsa::pkcs8::{EncodePublicKey as _, LineEnding};
use zeroize::Zeroizing;

#[cfg(feature = "fuzzing")]
pub use harborforge_storage::fuzzing as storage;

use crate::bridge::push;
use crate::config::{self, FileText, Files, Flags, Need, Sources};
use crate::crypto::{KeyDocument, check_identifier, room_for_identifier};
use crate::protocol::{
    AnswerBody, HandshakeAnswer, MAX_RESUME_TOKEN, WebSocketEvent, read_answer, read_event,
    read_handshake,
};
use crate::sender::classify::{Asked, Outcome, Reply, classify, printable, retry_after_wait};
use crate::state::{self, State};

/// Characters an error or a log line may take of a stranger's words, all escapes and own words
/// included.
const WORDS: usize = 4096;

/// What a Monitor says: the answer to a proof, an event, the body of an answer.
pub fn messages(data: &[u8]) {
    let body = read_answer(data);
    if let AnswerBody::Object(_) = &body {
        assert!(std::str::from_utf8(data).is_ok(), "an object of bytes that are no text");
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    match read_handshake(text) {
        HandshakeAnswer::Accepted { resume_token: Some(token) } => {
            assert!((1..=MAX_RESUME_TOKEN).contains(&token.chars().count()));
        }
        HandshakeAnswer::Accepted { resume_token: None } | HandshakeAnswer::Broken => {}
        HandshakeAnswer::Refused { said } => printed(&printable(&said)),
    }
    match read_event(text) {
        WebSocketEvent::Reject(rejection) => printed(&printable(&rejection.error)),
        WebSocketEvent::NotOk { said } => printed(&printable(&said)),
        WebSocketEvent::Ack { .. } | WebSocketEvent::Ignored => {}
    }
}

/// The Monitor's key document.
pub fn key_document(data: &[u8]) {
    match KeyDocument::parse(data) {
        Ok(document) => {
            assert!((2048..=4096).contains(&document.bits), "{} bits", document.bits);
            let room = room_for_identifier(document.bits);
            assert!(check_identifier(document.bits, &"i".repeat(room.saturating_add(1))).is_err());
            let pem = document.key.to_public_key_pem(LineEnding::LF);
            let again = pem.ok().and_then(|pem| KeyDocument::parse(pem.as_bytes()).ok());
            assert_eq!(
                again.map(|again| (again.fingerprint, again.bits)),
                Some((document.fingerprint, document.bits)),
                "a key that was accepted is not when written anew"
            );
        }
        Err(error) => printed(&error.to_string()),
    }
}

/// The answer to a heartbeat: 2 bytes status, 1 byte what was asked, then `Retry-After`,
/// `Location` and the body, parted by zero bytes.
pub fn answer(data: &[u8]) {
    let Some((head, rest)) = data.split_first_chunk::<3>() else { return };
    let [low, high, asked] = *head;
    let status = u16::from_le_bytes([low, high]) % 1000;
    let mut parts = rest.splitn(3, |byte| *byte == 0);
    let mut header = || parts.next().and_then(|part| std::str::from_utf8(part).ok());
    let (retry_after, location) = (header(), header());
    let body = parts.next().unwrap_or_default();
    let asked = match asked {
        0 => Asked::Single,
        count => Asked::Batch { first: 100, last: 99 + u64::from(count) },
    };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_773_262_800);
    let reply = Reply { status, retry_after, location, body };
    let outcome = classify(asked, &reply, now);
    assert_eq!(outcome, classify(asked, &reply, now), "one answer, two meanings");
    if let Some(wait) = retry_after_wait(retry_after, now) {
        assert!(wait >= Duration::from_secs(1), "a licence for a busy loop");
    }
    match (outcome, asked) {
        (Outcome::Delivered, Asked::Single) => {
            assert!(status == 409 || (200..300).contains(&status), "delivered by a {status}");
        }
        (Outcome::Progress { acked, rejected }, Asked::Batch { first, last }) => {
            assert!((200..300).contains(&status), "progress by a {status}");
            assert!(acked <= last, "confirms what was not sent");
            assert!(acked >= first || !rejected.is_empty(), "progress without any");
            let mut before = 0;
            for rejection in rejected {
                assert!((first..=last).contains(&rejection.seq), "rejects what was not sent");
                assert!(rejection.seq > before, "out of order or twice");
                before = rejection.seq;
                printed(&rejection.error);
            }
        }
        (outcome @ Outcome::Delivered, Asked::Batch { .. })
        | (outcome @ Outcome::Progress { .. }, Asked::Single) => {
            assert_eq!(Some(outcome), None, "the answer to something that was not asked");
        }
        (
            Outcome::Unacceptable(said)
            | Outcome::NotAccepted(said)
            | Outcome::Wait(_, said)
            | Outcome::Backoff(said),
            Asked::Single | Asked::Batch { .. },
        ) => printed(&said),
    }
}

/// What is shown to a person is short and holds no control character.
fn printed(text: &str) {
    assert!(text.chars().count() <= WORDS, "{} characters", text.chars().count());
    assert!(!text.chars().any(char::is_control), "a control character: {text:?}");
}

/// One file, the configuration.
struct OneFile<'a>(&'a str);

/// Its name says how it is read.
const CONFIGS: [&str; 2] = ["/etc/config.toml", "/etc/config.json"];

impl Files for OneFile<'_> {
    fn read(&self, path: &Path) -> io::Result<FileText> {
        if !CONFIGS.iter().any(|name| path == Path::new(name)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(FileText { text: Zeroizing::new(self.0.to_owned()), mode: 0o640, shared: true })
    }
}

/// The configuration file, as TOML and as JSON.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for name in CONFIGS {
        config_of(name, text);
    }
}

fn config_of(name: &str, text: &str) {
    let load = |need| {
        let sources = Sources {
            flags: Flags { config: Some(PathBuf::from(name)), set: Vec::new() },
            env: BTreeMap::new(),
            host_name: Some("host".to_owned()),
            uid: 0,
            files: &OneFile(text),
        };
        config::load(&sources, need)
    };
    for need in [Need::Nothing, Need::Backend] {
        match load(need) {
            Ok(loaded) => {
                let config = &loaded.config;
                assert!(!config.identifier.is_empty() && config.identifier.len() <= 255);
                assert!(config.data_dir.is_absolute());
                assert!(need != Need::Backend || config.backend_url.is_some());
                assert!(need != Need::Backend || config.credential.is_some());
                let hour = Duration::from_secs(3600);
                assert!((Duration::from_secs(1)..=hour).contains(&config.report_interval));
                assert!(config::diff(config, config).is_empty(), "it differs from itself");
            }
            Err(errors) => {
                assert!(!errors.0.is_empty());
                for error in &errors.0 {
                    assert!(!error.to_string().is_empty());
                }
            }
        }
    }
}

/// `state.json`.
pub fn state(data: &[u8]) {
    let Ok(found) = state::parse(data) else { return };
    let written = state::encode(&found);
    let again: Option<State> = written.ok().and_then(|text| state::parse(&text).ok());
    let again = again.unwrap_or_default();
    assert_eq!(
        (&again.backend_url, again.key_fingerprint, &again.resume),
        (&found.backend_url, found.key_fingerprint, &found.resume),
        "what was read is not what is written"
    );
    // Of a stranger's members the names are compared: a number may lose its last bit.
    assert!(again.others.keys().eq(found.others.keys()), "a newer version's members are gone");
}

/// The body of a plugin's push.
pub fn push(data: &[u8]) {
    let pushed = match push::read(data) {
        Ok(pushed) => pushed,
        Err(error) => return printed(&printable(&error.to_string())),
    };
    let bounded = |text: &str, most| {
        assert!((1..=most).contains(&text.chars().count()), "{} characters", text.len());
        assert!(!text.chars().any(char::is_control), "a control character: {text:?}");
    };
    for version in [&pushed.version, &pushed.plugin_version].into_iter().flatten() {
        bounded(version, push::MAX_VERSION);
    }
    let agents = pushed.agents.unwrap_or_default();
    assert!(agents.len() <= push::MAX_AGENTS, "{} agents", agents.len());
    for agent in &agents {
        bounded(&agent.id, push::MAX_ID);
        bounded(&agent.name, push::MAX_NAME.max(push::MAX_ID));
    }
    let ids: BTreeSet<&str> = agents.iter().map(|agent| agent.id.as_str()).collect();
    assert_eq!(ids.len(), agents.len(), "two agents with one id");
}

/// OpenClaw's files, and what its gateway answers: the same bytes in the place of each.
pub fn openclaw(data: &[u8]) {
    use crate::collector::openclaw::{node, probe, process, roster};
    for read in [node::read_json5, node::read_json] {
        match read(data, &roster::KEEP) {
            Ok(config) => {
                let roster = roster::Roster::of(&config);
                let mut ids: Vec<&str> = roster.agents.iter().map(|(id, _)| id.as_str()).collect();
                for (id, name) in &roster.agents {
                    assert_eq!(&roster::normalized_id(id), id, "not the normal form");
                    assert!((1..=64).contains(&id.len()) && name.chars().count() <= 100);
                    assert!(!name.is_empty() && !name.chars().any(char::is_control), "{name:?}");
                }
                ids.sort_unstable();
                ids.dedup();
                assert_eq!(ids.len(), roster.agents.len(), "an id comes twice");
                assert!(roster.version.is_none_or(|v| roster::version(&v) == Some(v.clone())));
            }
            Err(error) => printed(&error.to_string()),
        }
    }
    let _ = (probe::read(200, data, 0), process::is_gateway(data));
}

#[cfg(test)]
#[path = "../tests/fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn messages() {
        replay("messages", super::messages);
    }

    #[test]
    fn key_document() {
        replay("key_document", super::key_document);
    }

    #[test]
    fn answer() {
        replay("answer", super::answer);
    }

    #[test]
    fn config() {
        replay("config", super::config);
    }

    #[test]
    fn openclaw() {
        replay("openclaw", super::openclaw);
    }

    #[test]
    fn state() {
        replay("state", super::state);
    }

    #[test]
    fn push() {
        replay("push", super::push);
    }
}
