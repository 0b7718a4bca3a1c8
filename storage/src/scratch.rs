//! Private copies of generations, for reading without writing where they lie.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::engine::{Fault, Store};
use crate::error::Error;
use crate::files;
use crate::mend::Repairs;

/// The engine's cache for a copy that is read once from front to back.
const CACHE: u64 = 256 * 1024;

/// A temporary directory only its owner may enter, outside the data directory, for an
/// [`Inspector`](crate::Inspector)'s private copies; it goes with the value.
pub struct Scratch {
    dir: tempfile::TempDir,
}

impl Scratch {
    /// An empty one where temporary files go (`TMPDIR`).
    ///
    /// # Errors
    /// What the operating system refuses.
    pub fn new() -> Result<Self, Error> {
        let dir = tempfile::Builder::new().prefix("harborforge-queue-").tempdir();
        let at = std::env::temp_dir();
        Ok(Self { dir: dir.map_err(|e| Error::io("create a directory in", &at, e))? })
    }

    /// Where it is: what ends the process before the value goes has to remove it.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Copies the generation in `from` and opens the copy, to be called `name`.
    pub(crate) fn copy(&self, from: &Path, name: &str) -> Result<Copy, Error> {
        let path = self.dir.path().join(name);
        copy_tree(from, &path).map_err(|e| Error::io("copy to a temporary directory", from, e))?;
        // Damage is kept for whoever reads; what the system refuses is an error at once.
        let mut repairs = Repairs::default();
        let store = match Store::open_as_it_is(&path, CACHE, &mut repairs) {
            Ok(store) => Ok(store),
            Err(Fault::Damaged(text)) => Err(text),
            Err(fault @ (Fault::Io(_) | Fault::PoolBroken(_))) => {
                return Err(Error::engine("open a copy of", from, fault));
            }
        };
        Ok(Copy { path, store, repairs })
    }
}

/// A private copy of a generation, removed with the value.
pub(crate) struct Copy {
    path: PathBuf,
    store: Result<Store, String>,
    /// What had to be mended in the copy.
    pub(crate) repairs: Repairs,
}

impl Copy {
    pub(crate) fn store(&self) -> Result<&Store, Fault> {
        self.store.as_ref().map_err(|text| Fault::Damaged(text.clone()))
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.store = Err("closed".to_owned());
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "removed with its parent instead");
        }
    }
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    files::create_private_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
