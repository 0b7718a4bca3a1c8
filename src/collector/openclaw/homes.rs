//! Where OpenClaw's state directories are on this host.
//!
//! Configured ones are taken as they stand. Otherwise that of our own environment comes first, as
//! OpenClaw takes it: `OPENCLAW_STATE_DIR`, else `.openclaw` in `OPENCLAW_HOME` or `HOME`, with
//! `OPENCLAW_CONFIG_PATH` for its configuration, wherever that lies. Then `.openclaw` (or one of its
//! three former names) and the profiles `.openclaw-NAME` in `OPENCLAW_HOME`, in `HOME`, and in the
//! home directory of every user in /etc/passwd. The environments of other processes are not read:
//! they hold secrets.
//!
//! Invariant: one directory comes once, whatever names lead to it, in the same order each time.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rustix::fs;

use super::file::{self, FileError};
use super::home::USUAL_PORT;

/// The state directory's name and its former ones, the newest first.
const NAMES: [&str; 4] = [".openclaw", ".clawdbot", ".moldbot", ".moltbot"];

/// The configuration's name and its former ones, the newest first.
const CONFIGS: [&str; 4] = ["openclaw.json", "clawdbot.json", "moldbot.json", "moltbot.json"];

/// Bytes of a passwd file that are read at most.
const MAX_PASSWD: u64 = 4 * 1024 * 1024;

/// Homes that are looked after at most.
pub const MAX_HOMES: usize = 64;

/// Where things are on this host, or in a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// A mounted procfs.
    pub proc: PathBuf,
    /// The temporary directory gateways use.
    pub temporary: PathBuf,
    /// The list of users.
    pub passwd: PathBuf,
    /// `OPENCLAW_STATE_DIR`, where it is set.
    pub state_dir: Option<PathBuf>,
    /// `OPENCLAW_CONFIG_PATH`, where it is set.
    pub config: Option<PathBuf>,
    /// `OPENCLAW_HOME` and `HOME`, as far as they are set.
    pub homes: Vec<PathBuf>,
    /// The directories of `PATH`.
    pub path: Vec<PathBuf>,
    /// The port that is asked while no state directory is seen; 0: none.
    pub port: u16,
}

/// A state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    /// The directory.
    pub path: PathBuf,
    /// Its configuration, where that does not lie in it under one of the usual names.
    pub config: Option<PathBuf>,
}

impl StateDir {
    /// One with its configuration in it.
    #[must_use]
    pub fn usual(path: PathBuf) -> Self {
        Self { path, config: None }
    }
}

impl Places {
    /// Of this process on this host.
    #[must_use]
    pub fn of_this_host() -> Self {
        let user = std::env::var_os("HOME").map(PathBuf::from);
        let variable = |name: &str| {
            let path = std::env::var_os(name).map(PathBuf::from)?;
            // OpenClaw expands a leading ~ itself.
            let path = match (path.strip_prefix("~"), &user) {
                (Ok(rest), Some(user)) => user.join(rest),
                _ => path,
            };
            path.is_absolute().then_some(path)
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut path: Vec<PathBuf> =
            std::env::split_paths(&path).filter(|path| path.is_absolute()).collect();
        // A service's path is short; npm's global prefixes belong on it.
        for usual in ["/usr/local/bin", "/usr/bin"].map(PathBuf::from) {
            if !path.contains(&usual) {
                path.push(usual);
            }
        }
        Self {
            proc: "/proc".into(),
            temporary: "/tmp".into(),
            passwd: "/etc/passwd".into(),
            state_dir: variable("OPENCLAW_STATE_DIR"),
            config: variable("OPENCLAW_CONFIG_PATH"),
            homes: ["OPENCLAW_HOME", "HOME"].into_iter().filter_map(variable).collect(),
            path,
            port: USUAL_PORT,
        }
    }

    /// The state directory that an OpenClaw with our environment would use, if that says more than
    /// the usual places.
    fn of_environment(&self) -> Option<StateDir> {
        let usual = || {
            let user = self.homes.first()?;
            let known =
                NAMES.iter().map(|name| user.join(name)).find(|path| fs::stat(path).is_ok());
            Some(known.unwrap_or_else(|| user.join(".openclaw")))
        };
        match (&self.state_dir, &self.config) {
            (None, None) => None,
            (Some(path), None) => {
                (is_home(path) == Ok(true)).then(|| StateDir::usual(path.clone()))
            }
            (state_dir, Some(config)) => {
                let path = state_dir.clone().or_else(usual)?;
                let there = fs::stat(&path).is_ok() || fs::stat(config).is_ok();
                there.then(|| StateDir { path, config: Some(config.clone()) })
            }
        }
    }
}

/// The state directories found, and how many users' home directories could not be looked into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// State directories.
    pub homes: Vec<StateDir>,
    /// Home directories this user may not look into.
    pub hidden: usize,
}

/// Looks for state directories.
#[must_use]
pub fn find(places: &Places) -> Found {
    let mut found = Found::default();
    let mut seen = HashSet::new();
    let mut users = HashSet::new();
    let mut take = |home: StateDir, found: &mut Found| {
        let stat =
            fs::stat(&home.path).or_else(|errno| home.config.as_ref().map_or(Err(errno), fs::stat));
        let identity = stat.map(|stat| (stat.st_dev, stat.st_ino));
        if found.homes.len() < MAX_HOMES && identity.is_ok_and(|identity| seen.insert(identity)) {
            found.homes.push(home);
        }
    };
    if let Some(home) = places.of_environment() {
        take(home, &mut found);
    }
    for user in places.homes.iter().cloned().chain(passwd_homes(&places.passwd)) {
        if !users.insert(user.clone()) {
            continue;
        }
        for name in NAMES {
            match is_home(&user.join(name)) {
                Ok(true) => {
                    take(StateDir::usual(user.join(name)), &mut found);
                    break;
                }
                Ok(false) => {}
                Err(_) => {
                    found.hidden = found.hidden.saturating_add(1);
                    break;
                }
            }
        }
        // Profiles have a state directory each.
        let is_profile = |name: &str| name.starts_with(".openclaw-");
        for name in file::names(&user, MAX_HOMES, is_profile).unwrap_or_default() {
            if is_home(&user.join(&name)) == Ok(true) {
                take(StateDir::usual(user.join(name)), &mut found);
            }
        }
    }
    found
}

/// The configuration of a state directory under each name it may have.
#[must_use]
pub fn configs(home: &Path) -> Vec<PathBuf> {
    CONFIGS.iter().map(|name| home.join(name)).collect()
}

/// Whether a directory is a state directory, by what it holds.
fn is_home(path: &Path) -> Result<bool, FileError> {
    let exists = |path: &Path| match fs::stat(path) {
        Ok(_) => Ok(true),
        Err(errno) => match FileError::from(errno) {
            FileError::Denied => Err(FileError::Denied),
            FileError::Missing
            | FileError::NotAFile
            | FileError::TooLarge(_)
            | FileError::Outside
            | FileError::Other(_) => Ok(false),
        },
    };
    for config in configs(path) {
        match exists(&config) {
            // The directory itself is there, and closed to this user: that is one.
            Err(_) if fs::stat(path).is_ok() => return Ok(true),
            Ok(false) => {}
            known => return known,
        }
    }
    exists(&path.join("agents"))
}

fn passwd_homes(passwd: &Path) -> Vec<PathBuf> {
    let bytes = file::read(passwd, MAX_PASSWD).map(|(bytes, _)| bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let homes = text.lines().filter_map(|line| line.split(':').nth(5).map(PathBuf::from));
    homes.filter(|home| home.is_absolute() && home.parent().is_some()).collect()
}

#[cfg(test)]
pub(super) fn of_test(root: &Path) -> Places {
    Places {
        proc: root.join("proc"),
        temporary: root.join("tmp"),
        passwd: root.join("passwd"),
        state_dir: None,
        config: None,
        homes: Vec::new(),
        path: vec![root.join("bin")],
        port: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn home(root: &Path, name: &str) -> PathBuf {
        let home = root.join(name);
        std::fs::create_dir_all(&home).unwrap();
        std::fs::write(home.join("openclaw.json"), "{}").unwrap();
        home
    }

    #[test]
    fn state_directories_of_all_users_are_found_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let ann = home(root, "home/ann/.openclaw");
        std::fs::create_dir_all(root.join("home/bob/.clawdbot/agents")).unwrap();
        std::fs::create_dir_all(root.join("home/dan/.openclaw")).unwrap();
        let profile = home(root, "home/dan/.openclaw-test");
        symlink(&ann, root.join("home/dan/.openclaw/agents")).unwrap();
        std::fs::create_dir_all(root.join("home/eve")).unwrap();
        symlink(&ann, root.join("home/eve/.openclaw")).unwrap();
        let line = |name: &str| format!("{name}:x:1:1::{}/home/{name}:/bin/sh\n", root.display());
        let passwd = ["ann", "bob", "carl", "dan", "eve"].map(line).concat();
        std::fs::write(root.join("passwd"), passwd + "broken\nroot:x:0:0:::\nx:::::/:\n").unwrap();
        let mut places = of_test(root);
        let bob = root.join("home/bob/.clawdbot");
        let dan = root.join("home/dan/.openclaw");
        let paths = |places: &Places| -> Vec<PathBuf> {
            find(places).homes.into_iter().map(|home| home.path).collect()
        };
        assert_eq!(paths(&places), [ann.clone(), bob.clone(), dan.clone(), profile.clone()]);
        let own = home(root, "own/.openclaw");
        places.homes = vec![root.join("own"), root.join("home/ann")];
        places.state_dir = Some(bob.clone());
        assert_eq!(paths(&places), [bob, own, ann, dan, profile]);
    }

    #[test]
    fn a_configuration_of_its_own_ranks_first_whatever_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let (usual, state) = (home(root, "ann/.openclaw"), home(root, "var/claw"));
        let config = root.join("etc/claw-production.json5");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        let mut places = of_test(root);
        places.homes = vec![root.join("ann")];
        places.config = Some(config.clone());
        let with = |path: &Path| StateDir { path: path.to_owned(), config: Some(config.clone()) };
        // It need not be there: OpenClaw does with its defaults then.
        assert_eq!(find(&places).homes, [with(&usual)], "once, with its configuration");
        std::fs::write(&config, "{}").unwrap();
        places.state_dir = Some(state.clone());
        assert_eq!(find(&places).homes, [with(&state), StateDir::usual(usual)]);
        // Not started yet.
        places.state_dir = None;
        places.homes = vec![root.join("bob")];
        assert_eq!(find(&places).homes, [with(&root.join("bob/.openclaw"))]);
        std::fs::remove_file(&config).unwrap();
        assert_eq!(find(&places), Found::default(), "nothing of it is there");
    }

    #[test]
    fn nothing_there_is_nothing_found() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(find(&of_test(dir.path())), Found::default());
    }
}
