//! Tests of loading as a whole, over a file system of the tests' own.

mod agent;
mod errors;
mod layers;
mod plan;
mod robust;
mod rules;
mod table;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::*;

/// Paths with mode and text, or with the error that reading gives.
#[derive(Default)]
struct MemoryFiles(BTreeMap<PathBuf, Result<(u32, String), io::ErrorKind>>);

impl Files for MemoryFiles {
    fn read(&self, path: &Path) -> io::Result<FileText> {
        match self.0.get(path) {
            Some(Ok((mode, text))) => Ok(FileText {
                text: Zeroizing::new(text.clone()),
                mode: *mode,
                shared: mode & 0o040 != 0,
            }),
            Some(Err(kind)) => Err((*kind).into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

const SYSTEM: &str = "/etc/harborforge-connector/config.toml";
const UUID: &str = "8f14e45f-ceea-467f-9575-1d2f3a4b5c6d";

/// A world to load a configuration in: root on a host named `host`, nothing set.
#[derive(Default)]
struct World {
    files: MemoryFiles,
    env: BTreeMap<String, std::ffi::OsString>,
    flags: Flags,
    uid: u32,
}

impl World {
    fn new() -> Self {
        Self::default()
    }

    /// A world whose system-wide file has this text and mode 0640.
    fn with(text: &str) -> Self {
        Self::new().file(SYSTEM, 0o640, text)
    }

    fn file(mut self, path: &str, mode: u32, text: &str) -> Self {
        self.files.0.insert(path.into(), Ok((mode, text.into())));
        self
    }

    fn unreadable(mut self, path: &str, kind: io::ErrorKind) -> Self {
        self.files.0.insert(path.into(), Err(kind));
        self
    }

    fn var(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    fn set(mut self, key: &str, value: &str) -> Self {
        self.flags.set.push((key.into(), value.into()));
        self
    }

    fn config_flag(mut self, path: &str) -> Self {
        self.flags.config = Some(path.into());
        self
    }

    fn uid(mut self, uid: u32) -> Self {
        self.uid = uid;
        self
    }

    fn sources(&self) -> Sources<'_> {
        Sources {
            flags: self.flags.clone(),
            env: self.env.clone(),
            host_name: Some("host".into()),
            uid: self.uid,
            files: &self.files,
        }
    }

    fn load(&self, need: Need) -> Result<Loaded, ConfigErrors> {
        load(&self.sources(), need)
    }

    fn ok(&self, need: Need) -> Loaded {
        self.load(need).unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn config(&self) -> Arc<Config> {
        self.ok(Need::Nothing).config
    }

    /// The text of the errors; the world must have some.
    fn errors(&self, need: Need) -> String {
        self.load(need).expect_err("this configuration was taken").to_string()
    }

    fn warnings(&self) -> Vec<String> {
        self.ok(Need::Nothing).warnings.iter().map(ToString::to_string).collect()
    }
}

use std::sync::Arc;
