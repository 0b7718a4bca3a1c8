//! What survives a restart beside the queue: the fingerprint of the Monitor's key, and
//! the resume token.
//!
//! The last successful payload, its time and its transport are kept by the queue itself, with
//! its cursor, so that both always tell the same story.
//!
//! Invariants: `state.json` in `data_dir` is replaced as a whole (temporary file, fsync, rename,
//! fsync of the directory), so a crash leaves the old or the new one; only its owner may read it;
//! a broken file is moved aside and said, never a reason not to start; members a newer version
//! wrote are kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::crypto::Fingerprint;

const FILE: &str = "state.json";

/// The contents of `state.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The Monitor the rest belongs to: its base URL. Another one starts anew.
    #[serde(default)]
    pub backend_url: String,
    /// Hex SHA-256 of the SPKI DER of the first key seen there, or the last accepted change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_fingerprint: Option<Fingerprint>,
    /// The resume token (docs/PROTOCOL.md 7), and whom it was given to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
    /// What a newer version wrote.
    #[serde(flatten)]
    pub others: serde_json::Map<String, serde_json::Value>,
}

/// A resume token. It goes when the Monitor or the identifier changes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The identifier it was given to.
    pub identifier: String,
    /// The token: a secret, so `state.json` is readable by its owner alone.
    pub token: String,
}

impl std::fmt::Debug for Resume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resume").field("identifier", &self.identifier).finish_non_exhaustive()
    }
}

/// `state.json` and what it says.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    state: State,
}

impl StateFile {
    /// Reads the state for the Monitor at `backend_url`; what belongs to another is dropped. A
    /// file that cannot be understood is moved to `state.json.broken`; one that cannot be read
    /// is left alone. Both are logged and the state starts empty.
    #[must_use]
    pub fn load(data_dir: &Path, backend_url: &str) -> Self {
        let path = data_dir.join(FILE);
        let mut state = match read(&path) {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "state file not usable, starting without it");
                State::default()
            }
        };
        if state.backend_url != backend_url {
            state = State { backend_url: backend_url.to_owned(), ..State::default() };
        }
        Self { path, state }
    }

    /// What is remembered.
    #[must_use]
    pub fn get(&self) -> &State {
        &self.state
    }

    /// The resume token for this identifier, if there is one.
    #[must_use]
    pub fn token(&self, identifier: &str) -> Option<SecretString> {
        let resume = self.state.resume.as_ref()?;
        (resume.identifier == identifier).then(|| SecretString::from(resume.token.as_str()))
    }

    /// Changes the state. What has to be written for that to last is returned, `None` when
    /// nothing has changed: writing waits for the disk, so the caller chooses where.
    #[must_use = "the change lasts only once it is written"]
    pub fn update(&mut self, change: impl FnOnce(&mut State)) -> Option<Unwritten> {
        let before = self.state.clone();
        change(&mut self.state);
        let changed = self.state != before;
        changed.then(|| Unwritten { path: self.path.clone(), state: self.state.clone() })
    }

    /// Another Monitor is used from now on. As [`Self::update`].
    #[must_use = "the change lasts only once it is written"]
    pub fn move_to(&mut self, backend_url: &str) -> Option<Unwritten> {
        self.update(|state| {
            if state.backend_url != backend_url {
                *state = State { backend_url: backend_url.to_owned(), ..State::default() };
            }
        })
    }
}

/// A change that is not on disk yet.
#[derive(Debug)]
pub struct Unwritten {
    path: PathBuf,
    state: State,
}

impl Unwritten {
    /// Makes the change durable.
    ///
    /// # Errors
    /// When the file cannot be replaced; the change holds in memory all the same.
    pub fn write(&self) -> io::Result<()> {
        write(&self.path, &self.state)
    }
}

/// The key remembered for the Monitor at `backend_url`, for who only looks: nothing is changed, and
/// what cannot be read counts as nothing.
#[must_use]
pub fn remembered_key(data_dir: &Path, backend_url: &str) -> Option<Fingerprint> {
    let text = fs::read(data_dir.join(FILE)).ok()?;
    let state: State = serde_json::from_slice(&text).ok()?;
    (state.backend_url == backend_url).then_some(state.key_fingerprint)?
}

fn read(path: &Path) -> io::Result<State> {
    const MOST: u64 = 1024 * 1024;
    let size = match fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
        Err(error) => return Err(error),
    };
    let parsed = if size > MOST {
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("{size} bytes are no state file")))
    } else {
        parse(&fs::read(path)?)
    };
    parsed.inspect_err(|_| {
        // Best effort: a file that cannot be moved is overwritten by the next change.
        let _ = fs::rename(path, path.with_extension("json.broken"));
    })
}

pub(crate) fn parse(text: &[u8]) -> io::Result<State> {
    serde_json::from_slice(text).map_err(io::Error::from)
}

pub(crate) fn encode(state: &State) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(state)?;
    text.push(b'\n');
    Ok(text)
}

fn write(path: &Path, state: &State) -> io::Result<()> {
    let temporary = path.with_extension("json.new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&encode(state)?)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn key(der: &[u8]) -> Fingerprint {
        Fingerprint::of_spki(der)
    }

    const URL: &str = "https://monitor.example/";

    #[test]
    fn what_is_remembered_survives_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = StateFile::load(dir.path(), URL);
        file.update(|s| s.key_fingerprint = Some(key(b"a"))).unwrap().write().unwrap();
        assert_eq!(StateFile::load(dir.path(), URL).get().key_fingerprint, Some(key(b"a")));
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn another_monitor_starts_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = StateFile::load(dir.path(), URL);
        file.update(|s| s.key_fingerprint = Some(key(b"a"))).unwrap().write().unwrap();
        assert_eq!(
            StateFile::load(dir.path(), "https://other.example/").get().key_fingerprint,
            None
        );
        file.move_to("https://other.example/").unwrap().write().unwrap();
        assert_eq!(StateFile::load(dir.path(), URL).get().key_fingerprint, None);
    }

    #[test]
    fn a_broken_file_is_moved_aside_and_the_daemon_starts() {
        for broken in [&b""[..], b"{", b"[]", b"\0\0\0\0", b"{\"key_fingerprint\":7}"] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(FILE), broken).unwrap();
            let mut file = StateFile::load(dir.path(), URL);
            assert_eq!(file.get().key_fingerprint, None);
            assert_eq!(fs::read(dir.path().join("state.json.broken")).unwrap(), broken);
            file.update(|s| s.key_fingerprint = Some(key(b"c"))).unwrap().write().unwrap();
            assert_eq!(StateFile::load(dir.path(), URL).get().key_fingerprint, Some(key(b"c")));
        }
    }

    /// Whatever a byte becomes and wherever the file ends, the daemon starts with some state, and
    /// the state can be written again.
    #[test]
    fn no_damage_keeps_the_daemon_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let mut file = StateFile::load(dir.path(), URL);
        let written = file.update(|s| {
            s.key_fingerprint = Some(key(b"a"));
            s.resume = Some(Resume { identifier: "vps.t1".to_owned(), token: "t".repeat(36) });
        });
        written.unwrap().write().unwrap();
        let good = fs::read(&path).unwrap();
        let (mut kept, mut lost) = (0, 0);
        for damaged in crate::damage::every_kind(&good) {
            fs::write(&path, &damaged).unwrap();
            let mut file = StateFile::load(dir.path(), URL);
            match file.get().key_fingerprint {
                Some(_) => kept += 1,
                None => lost += 1,
            }
            let _ = file.token("vps.t1");
            let changed = file.update(|s| {
                s.others.insert("mark".to_owned(), (kept + lost).into());
            });
            assert!(changed.is_some());
        }
        assert!(kept > 0 && lost > 0, "{kept} {lost}");
        let _ = fs::remove_file(&path);
        // A directory in its place: left alone, and said.
        fs::create_dir(&path).unwrap();
        assert_eq!(StateFile::load(dir.path(), URL).get().key_fingerprint, None);
    }

    #[test]
    fn members_of_a_newer_version_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let newer = format!(r#"{{"backend_url":"{URL}","aura":{{"colour":"green"}}}}"#);
        fs::write(dir.path().join(FILE), newer).unwrap();
        let mut file = StateFile::load(dir.path(), URL);
        file.update(|s| s.key_fingerprint = Some(key(b"a"))).unwrap().write().unwrap();
        assert_eq!(StateFile::load(dir.path(), URL).get().others["aura"]["colour"], "green");
    }
}
