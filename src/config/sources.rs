//! What a configuration is made from, and the one place that asks the operating system for it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::groups;

/// Largest file that is read, in bytes; a configuration has a few hundred lines at most.
const MAX_FILE: u64 = 1024 * 1024;

/// The text of a file and who may read it.
pub struct FileText {
    /// UTF-8, wiped when dropped since it may hold a secret.
    pub text: Zeroizing<String>,
    /// Permission bits, as in `chmod`; 0 for what is no regular file.
    pub mode: u32,
    /// A group may read it that is neither root's nor this process's own.
    pub shared: bool,
}

/// Where files are read from: the disk, or a test's own.
pub trait Files {
    /// The whole of a file.
    ///
    /// # Errors
    /// Those of opening and reading; `InvalidData` for more than 1 MiB or no UTF-8.
    fn read(&self, path: &Path) -> io::Result<FileText>;

    /// The group, by name, that may read a file which this process may not read; `None` when none
    /// may, or it cannot be seen.
    fn group(&self, _path: &Path) -> Option<String> {
        None
    }
}

/// The file system.
#[derive(Debug, Clone, Copy)]
pub struct DiskFiles;

impl Files for DiskFiles {
    fn read(&self, path: &Path) -> io::Result<FileText> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
        }
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it has more than 1 MiB"));
        }
        let text = std::str::from_utf8(&bytes)
            .map_err(|error| {
                let at = error.valid_up_to();
                let text = format!("it is not UTF-8 (byte {at})");
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?
            .to_owned();
        // The mode of a pipe or a device does not say who may read what came out of it.
        let mode = if metadata.is_file() { metadata.mode() & 0o7777 } else { 0 };
        let strangers =
            metadata.gid() != 0 && metadata.gid() != rustix::process::getegid().as_raw();
        let shared = mode & 0o040 != 0 && strangers;
        Ok(FileText { text: Zeroizing::new(text), mode, shared })
    }

    fn group(&self, path: &Path) -> Option<String> {
        const READ: u32 = 0o040;
        const ENTER: u32 = 0o010;
        // In a closed directory nothing can be looked at but the directory.
        let (found, right) = path.ancestors().enumerate().find_map(|(up, path)| {
            let right = if up == 0 { READ } else { ENTER };
            path.metadata().ok().map(|metadata| (metadata, right))
        })?;
        // Root's group opens more than this file.
        let opens = found.mode() & right != 0 && found.gid() != 0;
        opens.then(|| groups::name(found.gid()).unwrap_or_else(|| found.gid().to_string()))
    }
}

/// What the command line says about the configuration.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--set KEY=VALUE`, in the order given; the last of a key counts.
    pub set: Vec<(String, String)>,
}

/// All that [`super::load()`] knows.
pub struct Sources<'a> {
    /// The command line.
    pub flags: Flags,
    /// The environment.
    pub env: BTreeMap<String, OsString>,
    /// The host name, if the system has one.
    pub host_name: Option<String>,
    /// Effective user id; 0 is root.
    pub uid: u32,
    /// Files.
    pub files: &'a dyn Files,
}

impl Sources<'static> {
    /// The sources of this process.
    #[must_use]
    pub fn of_process(flags: Flags) -> Self {
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect();
        let host_name = rustix::system::uname()
            .nodename()
            .to_str()
            .ok()
            .filter(|name| !name.is_empty() && *name != "(none)")
            .map(str::to_owned);
        let uid = rustix::process::geteuid().as_raw();
        Self { flags, env, host_name, uid, files: &DiskFiles }
    }
}

impl Sources<'_> {
    /// A variable that is set to something; an empty one counts as not set, as it does by the
    /// conventions behind `XDG_*`, `*_PROXY` and systemd's directories.
    pub(super) fn var(&self, name: &str) -> Option<&OsString> {
        self.env.get(name).filter(|value| !value.is_empty())
    }

    /// The same as a path.
    pub(super) fn path_var(&self, name: &str) -> Option<PathBuf> {
        self.var(name).map(PathBuf::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown};

    #[test]
    fn the_group_that_may_read_is_named_also_where_its_directory_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        fs::write(&file, "").unwrap();
        let group = if rustix::process::geteuid().is_root() {
            for path in [dir.path(), &file] {
                chown(path, None, Some(23_456)).unwrap();
            }
            23_456
        } else {
            fs::metadata(&file).unwrap().gid()
        };
        // Root's group is nobody's to join.
        let name = (group != 0).then(|| groups::name(group).unwrap_or_else(|| group.to_string()));
        let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
        for (mode, may) in [(0o640, true), (0o600, false)] {
            set(&file, mode).unwrap();
            assert_eq!(DiskFiles.group(&file), name.clone().filter(|_| may), "{mode:o}");
        }
        // What cannot be looked at is like what is not there.
        for (mode, may) in [(0o750, true), (0o700, false)] {
            set(dir.path(), mode).unwrap();
            let unseen = dir.path().join("unseen");
            assert_eq!(DiskFiles.group(&unseen), name.clone().filter(|_| may), "{mode:o}");
        }
    }
}
