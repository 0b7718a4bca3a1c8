//! Mending the files of a database before it is opened.
//!
//! Nothing is deleted but half-written snapshots; what is in the way is renamed to `aside.*`, and
//! a log the engine would erase part of is copied to [`KEPT_LOG`] first.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::engine::Fault;
use crate::files;
use crate::frames::{self, Opening};
use crate::salvage::is_worthless;

/// A copy of the log as it was before the engine opened it.
pub(crate) const KEPT_LOG: &str = "before.db";
/// A copy of the log that takes its place, see [`free_of_leftovers`].
pub(crate) const FRESH_LOG: &str = "fresh.db";

/// Larger logs than this, far above a generation's usual size, are copied without looking.
const LOOKED_THROUGH: usize = 16 * 1024 * 1024;

/// What was mended to get a database open.
#[derive(Debug, Default)]
pub(crate) struct Repairs {
    pub(crate) removed_snapshots: Vec<PathBuf>,
    pub(crate) moved_aside: Vec<PathBuf>,
    /// A copy of the log was made, since opening may have erased some of it.
    pub(crate) kept_log: bool,
}

impl Repairs {
    pub(crate) fn any(&self) -> bool {
        !self.moved_aside.is_empty()
    }
}

/// Sees to it that no handle of this process still locks the database in `dir`.
///
/// The engine's threads let go of a closed database a moment late; and an opening that
/// panicked may never let go, since what it held is not dropped. No other process can
/// be it, the queue's own lock sees to that. So after a short wait the file is replaced by a
/// copy of itself, on which there is no lock.
pub(crate) fn free_of_leftovers(dir: &Path) -> io::Result<()> {
    let path = dir.join("db");
    for _ in 0..50 {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        match file.try_lock() {
            // Said, not left to closing: a process that is just being started by another thread
            // shares the handle for a moment, and would hold the lock as long.
            Ok(()) => return file.unlock(),
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    tracing::warn!(path = %path.display(), "a closed database is still locked; going on with a copy");
    let fresh = dir.join(FRESH_LOG);
    fs::copy(&path, &fresh)?;
    files::sync_file(&fresh)?;
    fs::rename(&fresh, &path)?;
    files::sync_dir(dir)
}

/// The databases of which this process made a copy that is still there. Their openings came back,
/// or are under way.
static KEPT_HERE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn kept_here() -> MutexGuard<'static, Vec<PathBuf>> {
    KEPT_HERE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_kept_here(dir: &Path) {
    kept_here().retain(|kept| kept != dir);
}

/// Makes good for an opening of the database in `dir` that did not come to its end, if there was
/// one: the log is put back as it was.
///
/// # Errors
/// [`Fault::Damaged`] if that opening was cut off, by a kill or by the death of the engine: it is
/// not tried again. If the system refused it, which shows in that this process lives on, it says
/// nothing about the content.
pub(crate) fn undo_opening(dir: &Path) -> Result<(), Fault> {
    if !dir.join(KEPT_LOG).try_exists()? {
        return Ok(());
    }
    if !kept_here().iter().any(|kept| kept == dir) {
        return Err(Fault::Damaged("opening it was cut off before".to_owned()));
    }
    free_of_leftovers(dir)?;
    fs::rename(dir.join(KEPT_LOG), dir.join("db"))?;
    not_kept_here(dir);
    Ok(files::sync_dir(dir)?)
}

/// Copies the log of the database in `dir` to [`KEPT_LOG`], durably, unless opening it is
/// harmless, or there is a copy.
///
/// # Errors
/// What kept it from being copied, a full disk above all: the database must not be opened then.
pub(crate) fn keep_log_unless_harmless(dir: &Path, repairs: &mut Repairs) -> io::Result<()> {
    let (path, kept) = (dir.join("db"), dir.join(KEPT_LOG));
    // A database that was just closed may still be written to.
    free_of_leftovers(dir)?;
    if kept.try_exists()? || is_harmless(&path)? {
        return Ok(());
    }
    let temporary = kept.with_extension("tmp");
    let copied = fs::copy(&path, &temporary)
        .and_then(|_| files::sync_file(&temporary))
        .and_then(|()| fs::rename(&temporary, &kept))
        .and_then(|()| files::sync_dir(dir));
    if copied.is_err() {
        // Room for the next try; it may not be there at all.
        let _ = fs::remove_file(&temporary);
        // Nothing was opened yet, so nothing may say that it was.
        let _ = fs::remove_file(&kept);
    }
    if copied.is_ok() {
        not_kept_here(dir);
        kept_here().push(dir.to_path_buf());
        repairs.kept_log = true;
    }
    copied
}

/// Whether the engine erases no record from this log by opening it.
fn is_harmless(path: &Path) -> io::Result<bool> {
    let log = File::open(path)?;
    let cut = match frames::opening(&log)? {
        Opening::Harmless => return Ok(true),
        Opening::CutsTail(cut) => cut,
        Opening::Unknown => return Ok(false),
    };
    let size = usize::try_from(log.metadata()?.len()).unwrap_or(usize::MAX);
    let (Ok(from), Ok(to)) = (usize::try_from(cut.start), usize::try_from(cut.end)) else {
        return Ok(false);
    };
    if size > LOOKED_THROUGH {
        return Ok(false);
    }
    let mut bytes = vec![0; size];
    frames::read_at(&log, &mut bytes, 0)?;
    Ok(is_worthless(&mut bytes, from..to))
}

/// Removes the copy: what was in it is not needed any more.
pub(crate) fn forget_kept_log(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(KEPT_LOG)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => {
            not_kept_here(dir);
            Ok(())
        }
    }
}

/// Deletes snapshots that a kill left unfinished: the engine would take one for the newest.
pub(crate) fn remove_half_snapshots(dir: &Path, repairs: &mut Repairs) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(&path)?;
            repairs.removed_snapshots.push(path);
        }
    }
    Ok(())
}

/// Renames the files of `dir` that begin with one of `prefixes`; whether there were any.
pub(crate) fn move_aside(dir: &Path, prefixes: &[&str], repairs: &mut Repairs) -> io::Result<bool> {
    let mut any = false;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
            let aside = dir.join(format!("aside.{name}"));
            fs::rename(&path, &aside)?;
            repairs.moved_aside.push(aside);
            any = true;
        }
    }
    Ok(any)
}
