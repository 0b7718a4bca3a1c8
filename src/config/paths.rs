//! Where files are when nobody says: by systemd's directories, as root, by the XDG variables.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::load::Loaded;
use super::sources::Sources;
use super::{Config, Key, Origin};

/// The system's configuration file.
pub(super) const SYSTEM_CONFIG: &str = "/etc/harborforge-connector/config.toml";
/// Where root keeps the queue.
const SYSTEM_STATE: &str = "/var/lib/harborforge-connector";
/// Where root keeps the socket.
const SYSTEM_RUNTIME: &str = "/run/harborforge-connector";
const NAME: &str = "harborforge-connector";
const SOCKET: &str = "control.sock";

/// The longest path a Unix socket can be bound to, in bytes.
pub(super) const MAX_SOCKET_PATH: usize = 107;

/// The configuration file of a user who is not root.
pub(super) fn user_config(sources: &Sources<'_>) -> Option<PathBuf> {
    if sources.uid == 0 {
        return None;
    }
    let base = xdg(sources, "XDG_CONFIG_HOME", ".config")?;
    Some(base.join(NAME).join("config.toml"))
}

/// The data directory; `None` when the environment names neither it nor a home.
pub(super) fn data_dir(sources: &Sources<'_>) -> Option<PathBuf> {
    if let Some(path) = first_of_list(sources, "STATE_DIRECTORY") {
        Some(path)
    } else if sources.uid == 0 {
        Some(SYSTEM_STATE.into())
    } else {
        Some(xdg(sources, "XDG_STATE_HOME", ".local/state")?.join(NAME))
    }
}

/// Where the data directory stands for a command that does not need it.
pub(super) fn system_data_dir() -> PathBuf {
    SYSTEM_STATE.into()
}

/// The control socket. A user without `XDG_RUNTIME_DIR` (no login session) has it in the data
/// directory.
pub(super) fn control_socket(sources: &Sources<'_>, data_dir: &Path) -> PathBuf {
    let directory = if let Some(path) = first_of_list(sources, "RUNTIME_DIRECTORY") {
        path
    } else if sources.uid == 0 {
        SYSTEM_RUNTIME.into()
    } else if let Some(base) = absolute(sources, "XDG_RUNTIME_DIR") {
        base.join(NAME)
    } else {
        data_dir.to_owned()
    };
    directory.join(SOCKET)
}

/// systemd gives several directories separated by colons; the first is ours.
fn first_of_list(sources: &Sources<'_>, name: &str) -> Option<PathBuf> {
    let first = sources.var(name)?.as_bytes().split(|byte| *byte == b':').next()?;
    (!first.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(first)))
}

fn xdg(sources: &Sources<'_>, name: &str, in_home: &str) -> Option<PathBuf> {
    absolute(sources, name).or_else(|| Some(absolute(sources, "HOME")?.join(in_home)))
}

/// The XDG specification has relative paths ignored.
fn absolute(sources: &Sources<'_>, name: &str) -> Option<PathBuf> {
    sources.path_var(name).filter(|path| path.is_absolute())
}

impl Loaded {
    /// For a command that asks a daemon: a user who is not root, runs none of his own and has not
    /// said where it is, reaches the system's, if that is there. `exists` tells of sockets and
    /// directories.
    pub fn reach_system_daemon(&mut self, uid: u32, exists: impl Fn(&Path) -> bool) {
        let by_default = |key| self.origins.get(&key).is_none_or(|from| *from == Origin::Default);
        let theirs = Path::new(SYSTEM_RUNTIME).join(SOCKET);
        let config = &*self.config;
        if uid == 0
            || !by_default(Key::ControlSocket)
            || exists(&config.control_socket)
            || !exists(&theirs)
        {
            return;
        }
        let own = !by_default(Key::DataDir) || exists(&config.data_dir.join("queue"));
        let data_dir = if own { config.data_dir.clone() } else { system_data_dir() };
        self.config = Arc::new(Config { control_socket: theirs, data_dir, ..config.clone() });
    }
}
