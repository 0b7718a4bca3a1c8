//! What a configuration is made from, and the one place that asks the operating system for it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Largest file that is read, in bytes; a configuration has a few hundred lines at most.
const MAX_FILE: u64 = 1024 * 1024;

/// The text of a file and who may read it.
pub struct FileText {
    /// UTF-8, wiped when dropped since it may hold a secret.
    pub text: Zeroizing<String>,
    /// Permission bits, as in `chmod`; 0 for what is no regular file.
    pub mode: u32,
}

/// Where files are read from: the disk, or a test's own.
pub trait Files {
    /// The whole of a file.
    ///
    /// # Errors
    /// Those of opening and reading; `InvalidData` for more than 1 MiB or no UTF-8.
    fn read(&self, path: &Path) -> io::Result<FileText>;
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
        Ok(FileText { text: Zeroizing::new(text), mode })
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
