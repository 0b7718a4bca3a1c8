//! Which of an agent's sessions have an active run, by the files of OpenClaw before 2026.8:
//! `sessions.json` and the lock beside a session's transcript.
//!
//! Invariants:
//! - A lock counts while its process lives; one that was left over does not. One that does not say
//!   when its process started counts for a gateway's, or for the time it was taken for: its number
//!   may be any other process's by now.
//! - Nothing of a session is kept but whether it runs and when it was written last.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::file::{self, FileError, MAX_FILE, Stamp};
use super::lock::milliseconds;
use super::node::{Keep, Node, read_json};
use super::process::{Alive, Processes, is_any, is_gateway};

/// Locks of one agent that are looked at.
const MAX_LOCKS: usize = 1024;
/// Bytes a lock may have.
const MAX_LOCK: u64 = 64 * 1024;

static SESSIONS: Keep = Keep::Each(&SESSION);
static SESSION: Keep = Keep::Members(&[("status", Keep::Text), ("updatedAt", Keep::Number)]);
static LOCK: Keep = Keep::Members(&[
    ("pid", Keep::Number),
    ("starttime", Keep::Number),
    ("createdAt", Keep::Text),
    ("maxHoldMs", Keep::Number),
]);

/// What an agent's sessions say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Activity {
    /// A living process writes a session at this moment.
    pub held: bool,
    /// When the newest session that is marked as running was written, in milliseconds since 1970.
    pub marked: Option<u64>,
}

/// Why an agent's sessions cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not what is expected.
    #[error("{0}")]
    Format(String),
}

/// The sessions of one agent; remembers what has not changed.
#[derive(Debug, Default)]
pub struct Sessions {
    marked: Option<(Stamp, Result<Option<u64>, Unreadable>)>,
}

impl Sessions {
    /// Looks at an agent's directory of sessions.
    ///
    /// # Errors
    /// When its `sessions.json` cannot be read and no lock shows an active run.
    pub fn look(
        &mut self,
        directory: &Path,
        processes: &Processes,
        now: SystemTime,
    ) -> Result<Activity, Unreadable> {
        let held = self.held(directory, processes, now)?;
        match self.marked(&directory.join("sessions.json"), now) {
            Ok(marked) => Ok(Activity { held, marked }),
            Err(_) if held => Ok(Activity { held, marked: None }),
            Err(error) => Err(error),
        }
    }

    fn held(
        &self,
        directory: &Path,
        processes: &Processes,
        now: SystemTime,
    ) -> Result<bool, Unreadable> {
        let names = match file::names(directory, MAX_LOCKS, |name| name.ends_with(".jsonl.lock")) {
            Ok(names) => names,
            Err(FileError::Missing) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        Ok(names.iter().any(|name| held_by_the_living(&directory.join(name), processes, now)))
    }

    fn marked(&mut self, path: &Path, now: SystemTime) -> Result<Option<u64>, Unreadable> {
        let stamp = match file::look(path) {
            Ok(stamp) => stamp,
            Err(FileError::Missing) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match &self.marked {
            Some((known, marked)) if *known == stamp => marked.clone(),
            _ => {
                let (marked, stamp) = match file::read(path, MAX_FILE) {
                    Ok((bytes, stamp)) => (newest_marked(&bytes), stamp),
                    Err(error) => (Err(error.into()), stamp),
                };
                self.marked = stamp.settled(now).then(|| (stamp, marked.clone()));
                marked
            }
        }
    }
}

fn newest_marked(bytes: &[u8]) -> Result<Option<u64>, Unreadable> {
    let sessions =
        read_json(bytes, &SESSIONS).map_err(|error| Unreadable::Format(error.to_string()))?;
    if !matches!(sessions, Node::Object(_)) {
        return Err(Unreadable::Format("not an object of sessions".to_owned()));
    }
    let running = |session: &&Node| session.get("status").and_then(Node::text) == Some("running");
    let written = |session: &Node| session.get("updatedAt").and_then(Node::number).unwrap_or(0);
    Ok(sessions.values().filter(running).map(written).max())
}

fn held_by_the_living(path: &Path, processes: &Processes, now: SystemTime) -> bool {
    let Ok((bytes, _)) = file::read_own(path, MAX_LOCK, &[]) else { return false };
    let Ok(lock) = read_json(&bytes, &LOCK) else { return false };
    let number = |name: &str| lock.get(name).and_then(Node::number);
    let pid = number("pid").and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
    let Some(pid) = pid else { return false };
    let lives = |started, is_it| processes.alive(pid, started, is_it) == Alive::Yes;
    if number("starttime").is_some() {
        return lives(number("starttime"), is_any);
    }
    let taken = lock.get("createdAt").and_then(Node::text).and_then(milliseconds);
    let taken = taken.and_then(|taken| UNIX_EPOCH.checked_add(Duration::from_millis(taken)));
    let in_time = taken.zip(number("maxHoldMs")).is_some_and(|(taken, hold)| {
        now.duration_since(taken).is_ok_and(|age| age <= Duration::from_millis(hold))
    });
    lives(None, is_gateway) || (in_time && lives(None, is_any))
}

#[cfg(test)]
mod tests {
    use super::super::process::fake;
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_lock_counts_while_its_process_lives() {
        let dir = tempfile::tempdir().unwrap();
        let (sessions, proc) = (dir.path().join("sessions"), dir.path().join("proc"));
        let processes = Processes::under(&proc);
        fake::process(&proc, 1, "init", 'S', 1, "init");
        fake::process(&proc, 70, "node (x) y", 'S', 900, "openclaw-gateway");
        let look = || Sessions::default().look(&sessions, &processes, SystemTime::now());
        assert_eq!(look(), Ok(Activity::default()), "no sessions yet");
        std::fs::create_dir(&sessions).unwrap();
        let lock = |pid: u32, start: u64| {
            let text = format!(
                "{{\n  \"pid\": {pid},\n  \"createdAt\": \"2026-03-13T10:00:00Z\",\n  \"starttime\": {start}\n}}"
            );
            std::fs::write(sessions.join("0b5e.jsonl.lock"), text).unwrap();
        };
        lock(70, 900);
        assert_eq!(look(), Ok(Activity { held: true, marked: None }));
        lock(70, 901);
        assert_eq!(look(), Ok(Activity::default()));
        lock(71, 900);
        assert_eq!(look(), Ok(Activity::default()));
    }

    #[test]
    fn a_lock_without_a_start_time_is_believed_of_a_gateway_or_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let (sessions, proc) = (dir.path().join("sessions"), dir.path().join("proc"));
        std::fs::create_dir(&sessions).unwrap();
        let text = r#"{"pid":70,"createdAt":"2026-03-13T10:00:00Z","maxHoldMs":60000}"#;
        std::fs::write(sessions.join("0b5e.jsonl.lock"), text).unwrap();
        let processes = Processes::under(&proc);
        fake::process(&proc, 1, "init", 'S', 1, "init");
        let taken =
            UNIX_EPOCH + Duration::from_millis(milliseconds("2026-03-13T10:00:00Z").unwrap());
        let held = |at| Sessions::default().look(&sessions, &processes, at).unwrap().held;
        let in_time = taken + Duration::from_secs(60);
        let late = in_time + Duration::from_secs(1);
        fake::process(&proc, 70, "node", 'S', 900, "openclaw-gateway");
        assert!(held(in_time) && held(late));
        fake::process(&proc, 70, "cron", 'S', 900, "/usr/sbin/cron -f");
        assert!(held(in_time) && !held(late), "its number is another's now");
        assert!(!held(taken - Duration::from_secs(1)), "the clock was set back");
        let text = r#"{"pid":70,"createdAt":"2026-03-13T10:00:00Z"}"#;
        std::fs::write(sessions.join("0b5e.jsonl.lock"), text).unwrap();
        assert!(!held(in_time), "without an end it is no proof");
    }

    #[test]
    fn sessions_marked_as_running_are_found_and_nothing_else_is_kept() {
        let text = br#"{"agent:main:main":{"sessionId":"a","updatedAt":5,"status":"running","token":"geheim"},
            "b":{"updatedAt":9,"status":"running"},"c":{"updatedAt":99,"status":"done"},"d":1,"e":{"status":7}}"#;
        assert_eq!(newest_marked(text), Ok(Some(9)));
        assert_eq!(newest_marked(b"{}"), Ok(None));
        for text in [&b"[]"[..], b"", b"{\"a\":", b"\xff", b"null"] {
            assert!(newest_marked(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_file_is_read_again_only_when_it_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessions.json");
        let later = SystemTime::now() + Duration::from_secs(60);
        let mut sessions = Sessions::default();
        std::fs::write(&path, r#"{"a":{"status":"running","updatedAt":1}}"#).unwrap();
        assert_eq!(sessions.marked(&path, SystemTime::now()), Ok(Some(1)));
        assert!(sessions.marked.is_none(), "it has just changed, and may again unseen");
        assert_eq!(sessions.marked(&path, later), Ok(Some(1)));
        let (stamp, _) = sessions.marked.clone().unwrap();
        sessions.marked = Some((stamp, Ok(Some(7))));
        assert_eq!(sessions.marked(&path, later), Ok(Some(7)), "not read again");
        std::fs::write(&path, r#"{"a":{"status":"running","updatedAt":22}}"#).unwrap();
        assert_eq!(sessions.marked(&path, later), Ok(Some(22)));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(sessions.marked(&path, later), Ok(None));
    }
}
