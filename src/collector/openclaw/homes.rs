//! Where OpenClaw's state directories are on this host.
//!
//! Configured ones are taken as they stand. Otherwise: `OPENCLAW_STATE_DIR`, else the directory of
//! `OPENCLAW_CONFIG_PATH`; then `.openclaw` (or one of its three former names) and the profiles
//! `.openclaw-NAME` in `OPENCLAW_HOME`, in `HOME`, and in the home directory of every user in
//! /etc/passwd.
//!
//! Invariant: one directory comes once, whatever names lead to it, in the same order each time.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rustix::fs;

use super::file::{self, FileError};

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
    /// `OPENCLAW_HOME` and `HOME`, as far as they are set.
    pub homes: Vec<PathBuf>,
    /// The directories of `PATH`.
    pub path: Vec<PathBuf>,
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
            state_dir: variable("OPENCLAW_STATE_DIR").or_else(|| {
                let config = variable("OPENCLAW_CONFIG_PATH")?;
                let usual = CONFIGS.iter().any(|name| config.ends_with(name));
                usual.then(|| config.parent().map(Path::to_owned))?
            }),
            homes: ["OPENCLAW_HOME", "HOME"].into_iter().filter_map(variable).collect(),
            path,
        }
    }
}

/// The state directories found, and how many users' home directories could not be looked into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// State directories.
    pub homes: Vec<PathBuf>,
    /// Home directories this user may not look into.
    pub hidden: usize,
}

/// Looks for state directories.
#[must_use]
pub fn find(places: &Places) -> Found {
    let mut found = Found::default();
    let mut seen = HashSet::new();
    let mut users = HashSet::new();
    let mut take = |home: PathBuf, found: &mut Found| {
        let identity = fs::stat(&home).map(|stat| (stat.st_dev, stat.st_ino));
        if found.homes.len() < MAX_HOMES && identity.is_ok_and(|identity| seen.insert(identity)) {
            found.homes.push(home);
        }
    };
    if let Some(home) = places.state_dir.iter().find(|home| is_home(home) == Ok(true)) {
        take(home.clone(), &mut found);
    }
    for user in places.homes.iter().cloned().chain(passwd_homes(&places.passwd)) {
        if !users.insert(user.clone()) {
            continue;
        }
        for name in NAMES {
            match is_home(&user.join(name)) {
                Ok(true) => {
                    take(user.join(name), &mut found);
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
                take(user.join(name), &mut found);
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
        homes: Vec::new(),
        path: vec![root.join("bin")],
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
        assert_eq!(find(&places).homes, [ann.clone(), bob.clone(), dan.clone(), profile.clone()]);
        let own = home(root, "own/.openclaw");
        places.homes = vec![root.join("own"), root.join("home/ann")];
        places.state_dir = Some(bob.clone());
        assert_eq!(find(&places).homes, [bob, own, ann, dan, profile]);
    }

    #[test]
    fn nothing_there_is_nothing_found() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(find(&of_test(dir.path())), Found::default());
    }
}
