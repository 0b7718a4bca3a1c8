//! The gateway's lock: which process runs the gateway of a state directory, on which port.
//!
//! Both generations write `gateway.<hash>.lock`, the older one in `openclaw-<uid>` of the
//! temporary directory, the newer one in `tmp/openclaw-<uid>` of the state directory.
//!
//! Invariants:
//! - A lock counts only in a directory and a file of the state directory's owner or of root:
//!   everybody may write to the temporary directory.
//! - It counts only if it names this state directory or its configuration.
//! - A lock that is left over is told from one that is held by the process alone.
//! - That there is no lock is believed only where it could be seen ([`Hidden`]).

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::fs;

use super::file::{self, FileError};
use super::node::{Keep, Node, read_json};
use super::process::{Alive, Processes, is_gateway};
use super::sight::Hidden;

/// Bytes a lock may have.
const MAX_LOCK: u64 = 64 * 1024;
/// Locks of one directory that are looked at.
const MAX_LOCKS: usize = 64;

static KEEP: Keep = Keep::Members(&[
    ("pid", Keep::Number),
    ("startTime", Keep::Number),
    ("createdAt", Keep::Text),
    ("configPath", Keep::Text),
    ("stateDir", Keep::Text),
    ("port", Keep::Number),
    ("role", Keep::Text),
]);

/// What the locks say of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// A process holds it.
    By {
        /// Its number.
        pid: u32,
        /// When it took the lock, in milliseconds since 1970, where the lock says.
        since: Option<u64>,
        /// The port it listens on, where the lock says.
        port: Option<u16>,
    },
    /// Nobody does.
    Nobody,
    /// None is to be seen; it may lie in a temporary directory that is hidden from this process.
    Unseen,
    /// It cannot be told: a lock cannot be read or is half written, or its process cannot be seen.
    Unknown {
        /// When the lock was taken, in milliseconds since 1970, where one says.
        since: Option<u64>,
    },
}

/// One state directory as far as its locks are concerned.
#[derive(Debug, Clone)]
pub struct Whose<'a> {
    /// The state directory.
    pub home: &'a Path,
    /// Its configuration files, whether they are there or not.
    pub configs: &'a [PathBuf],
    /// Its owner.
    pub uid: u32,
    /// Whether its configuration is of the newer generation, whose lock lies in the state
    /// directory.
    pub newer: bool,
    /// What of it is hidden from this process.
    pub hidden: Hidden,
}

/// Who holds the gateway's lock of a state directory. `temporary` is the temporary directory that
/// gateways use, `/tmp`.
#[must_use]
pub fn held(whose: &Whose<'_>, temporary: &Path, processes: &Processes) -> Held {
    let mut answer = Held::Nobody;
    let mut newer = whose.newer;
    for (own, directory) in directories(whose, temporary) {
        let owners = [whose.uid, 0];
        match fs::lstat(&directory) {
            Ok(stat)
                if fs::FileType::from_raw_mode(stat.st_mode) == fs::FileType::Directory
                    && owners.contains(&stat.st_uid) =>
            {
                newer |= own;
            }
            Err(error) if FileError::from(error) == FileError::Denied => {
                answer = doubt(answer, None);
                continue;
            }
            Ok(_) | Err(_) => continue,
        }
        let is_lock = |name: &str| name.starts_with("gateway.") && name.ends_with(".lock");
        let names = match file::names(&directory, MAX_LOCKS, is_lock) {
            Ok(names) => names,
            Err(FileError::Missing) => continue,
            Err(_) => {
                answer = doubt(answer, None);
                continue;
            }
        };
        for name in names {
            match one(&directory.join(name), own, whose, &owners, processes) {
                held @ Held::By { .. } => return held,
                Held::Unknown { since } => answer = doubt(answer, since),
                Held::Nobody | Held::Unseen => {}
            }
        }
    }
    match (answer, whose.hidden) {
        (Held::Nobody, Hidden::Temporary) if !newer => Held::Unseen,
        (Held::Nobody, Hidden::Processes) if !newer => Held::Unknown { since: None },
        (answer, _) => answer,
    }
}

/// One more that cannot be told; of several the newest counts.
fn doubt(answer: Held, since: Option<u64>) -> Held {
    match answer {
        Held::Unknown { since: before } => Held::Unknown { since: before.max(since) },
        Held::By { .. } | Held::Nobody | Held::Unseen => Held::Unknown { since },
    }
}

/// Where locks may be, and whether that is in the state directory itself.
fn directories(whose: &Whose<'_>, temporary: &Path) -> Vec<(bool, PathBuf)> {
    let own = whose.home.join("tmp");
    let uids = if whose.uid == 0 { vec![0] } else { vec![whose.uid, 0] };
    let mut directories = Vec::new();
    for (own, base) in [(true, own.as_path()), (false, temporary)] {
        let below = |uid| (own, base.join(format!("openclaw-{uid}")));
        directories.extend(uids.iter().map(below));
    }
    directories
}

fn one(path: &Path, own: bool, whose: &Whose<'_>, owners: &[u32], processes: &Processes) -> Held {
    let bytes = match file::read_own(path, MAX_LOCK, owners) {
        Ok((bytes, _)) => bytes,
        Err(FileError::Denied) => return Held::Unknown { since: None },
        Err(_) => return Held::Nobody,
    };
    // Half written: its owner will have it whole in a moment.
    let Ok(lock) = read_json(&bytes, &KEEP) else { return Held::Unknown { since: None } };
    let from_outside = whose.hidden == Hidden::Processes;
    // What was mounted from outside may have another path there.
    let ours = concerns(&lock, whose) || (own && from_outside);
    if !ours || lock.get("role").is_some_and(|r| r.text() != Some("gateway")) {
        return Held::Nobody;
    }
    let number = |name: &str| lock.get(name).and_then(Node::number);
    let Some(pid) = number("pid").and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0)
    else {
        return Held::Nobody;
    };
    let since = lock.get("createdAt").and_then(Node::text).and_then(milliseconds);
    match processes.alive(pid, number("startTime"), is_gateway) {
        Alive::Yes => Held::By {
            pid,
            since,
            port: number("port").and_then(|port| u16::try_from(port).ok()).filter(|p| *p != 0),
        },
        Alive::No if from_outside => Held::Unknown { since },
        Alive::No => Held::Nobody,
        Alive::Unknown => Held::Unknown { since },
    }
}

fn concerns(lock: &Node, whose: &Whose<'_>) -> bool {
    let same = |said: &str, path: &Path| {
        let said = Path::new(said);
        said == path
            || matches!((said.canonicalize(), path.canonicalize()), (Ok(a), Ok(b)) if a == b)
    };
    let text = |name: &str| lock.get(name).and_then(Node::text);
    text("stateDir").is_some_and(|said| same(said, whose.home))
        || text("configPath").is_some_and(|said| whose.configs.iter().any(|c| same(said, c)))
}

/// Milliseconds since 1970 of an RFC 3339 time.
#[must_use]
pub fn milliseconds(time: &str) -> Option<u64> {
    let since = humantime::parse_rfc3339(time).ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::super::process::fake;
    use super::*;

    struct Site {
        dir: tempfile::TempDir,
    }

    impl Site {
        fn new() -> Self {
            let site = Self { dir: tempfile::tempdir().unwrap() };
            std::fs::create_dir_all(site.home()).unwrap();
            fake::process(&site.proc(), 1, "init", 'S', 1, "/sbin/init");
            site
        }

        fn home(&self) -> PathBuf {
            self.dir.path().join("home/.openclaw")
        }

        fn proc(&self) -> PathBuf {
            self.dir.path().join("proc")
        }

        fn held(&self) -> Held {
            self.held_as(false, Hidden::Nothing)
        }

        fn held_as(&self, newer: bool, hidden: Hidden) -> Held {
            let uid = rustix::process::getuid().as_raw();
            let home = self.home();
            let configs = [home.join("openclaw.json")];
            let whose = Whose { home: &home, configs: &configs, uid, newer, hidden };
            held(&whose, &self.dir.path().join("tmp"), &Processes::under(&self.proc()))
        }

        fn write(&self, base: &Path, name: &str, text: &str) {
            let uid = rustix::process::getuid().as_raw();
            let directory = base.join(format!("openclaw-{uid}"));
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join(name), text).unwrap();
        }
    }

    #[test]
    fn both_generations_locks_are_found_and_judged_by_their_process() {
        let site = Site::new();
        assert_eq!(site.held(), Held::Nobody);
        let config = site.home().join("openclaw.json");
        let old = format!(
            r#"{{"pid":70,"createdAt":"2026-03-13T10:00:00.500Z","configPath":"{}","startTime":900}}"#,
            config.display()
        );
        site.write(&site.dir.path().join("tmp"), "gateway.13782dc0.lock", &old);
        assert_eq!(site.held(), Held::Nobody, "its process is gone");
        fake::process(&site.proc(), 70, "node", 'S', 900, "openclaw-gateway");
        assert_eq!(site.held(), Held::By { pid: 70, since: Some(1_773_396_000_500), port: None });
        fake::process(&site.proc(), 70, "cron", 'S', 901, "openclaw-gateway");
        assert_eq!(site.held(), Held::Nobody, "another process with its number");
        // The newer generation pads its locks.
        let new = format!(
            r#"{{"pid":71,"createdAt":"x","configPath":"/else","stateDir":"{}","port":18790,"startTime":5}}{}"#,
            site.home().display(),
            " \t".repeat(64)
        );
        site.write(&site.home().join("tmp"), "gateway.state.lock", &new);
        fake::process(&site.proc(), 71, "node", 'S', 5, "openclaw-gateway");
        assert_eq!(site.held(), Held::By { pid: 71, since: None, port: Some(18790) });
    }

    #[test]
    fn locks_of_others_and_of_other_roles_do_not_count() {
        let site = Site::new();
        fake::process(&site.proc(), 70, "node", 'S', 900, "openclaw-gateway");
        let config = site.home().join("openclaw.json");
        for text in [
            r#"{"pid":70,"configPath":"/home/other/.openclaw/openclaw.json","startTime":900}"#
                .to_owned(),
            format!(
                r#"{{"pid":70,"configPath":"{}","startTime":900,"role":"agent-embedded"}}"#,
                config.display()
            ),
            format!(r#"{{"pid":0,"configPath":"{}"}}"#, config.display()),
            format!(r#"{{"pid":-70,"configPath":"{}"}}"#, config.display()),
            format!(r#"{{"pid":70000000000,"configPath":"{}"}}"#, config.display()),
            "[70]".to_owned(),
        ] {
            site.write(&site.dir.path().join("tmp"), "gateway.a.lock", &text);
            assert_eq!(site.held(), Held::Nobody, "{text}");
        }
        // Not a file of its name.
        let text = format!(r#"{{"pid":70,"configPath":"{}","startTime":900}}"#, config.display());
        site.write(&site.dir.path().join("tmp"), "other.lock", &text);
        assert_eq!(site.held(), Held::Nobody);
    }

    #[test]
    fn another_users_directory_in_the_temporary_one_does_not_count() {
        let site = Site::new();
        fake::process(&site.proc(), 70, "node", 'S', 900, "openclaw-gateway");
        let config = site.home().join("openclaw.json");
        let text = format!(r#"{{"pid":70,"configPath":"{}","startTime":900}}"#, config.display());
        let temporary = site.dir.path().join("tmp");
        site.write(&temporary, "gateway.a.lock", &text);
        assert_ne!(site.held(), Held::Nobody);
        let uid = rustix::process::getuid();
        let directory = temporary.join(format!("openclaw-{}", uid.as_raw()));
        if uid.is_root() {
            let stranger = fs::Uid::from_raw(12345);
            fs::chown(directory.join("gateway.a.lock"), Some(stranger), None).unwrap();
            assert_eq!(site.held(), Held::Nobody, "a stranger's file");
            fs::chown(directory.join("gateway.a.lock"), Some(uid), None).unwrap();
            fs::chown(&directory, Some(stranger), None).unwrap();
            assert_eq!(site.held(), Held::Nobody, "a stranger's directory");
        }
        // A link to a directory of the right owner is not followed either.
        std::fs::rename(&directory, temporary.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(temporary.join("elsewhere"), &directory).unwrap();
        assert_eq!(site.held(), Held::Nobody, "a link");
    }

    #[test]
    fn a_lock_whose_process_cannot_be_seen_is_unknown() {
        let site = Site::new();
        let config = site.home().join("openclaw.json");
        let text = format!(
            r#"{{"pid":70,"configPath":"{}","startTime":900,"createdAt":"2026-03-13T10:00:00.500Z"}}"#,
            config.display()
        );
        site.write(&site.dir.path().join("tmp"), "gateway.a.lock", &text);
        std::fs::remove_dir_all(site.proc()).unwrap();
        assert_eq!(site.held(), Held::Unknown { since: Some(1_773_396_000_500) });
    }

    #[test]
    fn a_half_written_lock_is_no_missing_one() {
        let site = Site::new();
        for text in ["", "{\"pid\":70,\"conf", "not JSON"] {
            site.write(&site.dir.path().join("tmp"), "gateway.a.lock", text);
            assert_eq!(site.held(), Held::Unknown { since: None }, "{text}");
        }
    }

    #[test]
    fn a_missing_lock_is_believed_where_it_would_be_seen() {
        let site = Site::new();
        for (newer, hidden, held) in [
            (false, Hidden::Nothing, Held::Nobody),
            (false, Hidden::Temporary, Held::Unseen),
            (false, Hidden::Processes, Held::Unknown { since: None }),
            (true, Hidden::Nothing, Held::Nobody),
            (true, Hidden::Temporary, Held::Nobody),
            (true, Hidden::Processes, Held::Nobody),
        ] {
            assert_eq!(site.held_as(newer, hidden), held, "{newer} {hidden:?}");
        }
        // A gateway of the newer generation has been here.
        site.write(&site.home().join("tmp"), "other", "");
        assert_eq!(site.held_as(false, Hidden::Temporary), Held::Nobody);
        // It runs outside of this container, where its state directory has another path.
        let lock = r#"{"pid":70,"stateDir":"/home/claw/.openclaw","startTime":900,"createdAt":"2026-03-13T10:00:00.500Z"}"#;
        site.write(&site.home().join("tmp"), "gateway.state.lock", lock);
        let since = Some(1_773_396_000_500);
        assert_eq!(site.held_as(false, Hidden::Processes), Held::Unknown { since });
        assert_eq!(site.held_as(false, Hidden::Nothing), Held::Nobody, "another's");
    }
}
