//! One process for one queue: an advisory lock on a file that names its holder.
//!
//! The kernel lets go of the lock with the process, however it ends, so a stale file is
//! never in the way; only the lock counts, the text is for the message.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use rustix::process::{Pid, test_kill_process};

use crate::error::Error;
use crate::files;
use crate::recovery::QUEUE_DIR;

/// Held as long as it lives.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Said, not left to closing: a process that is just being started by another thread
        // shares the handle for a moment, and would hold the lock as long.
        let _ = self.file.unlock();
    }
}

impl Lock {
    /// Takes the lock on `path`, making the file if need be. Whoever holds it is told: a writer
    /// by its number, as [`Error::Locked`]; readers, who note none, as [`Error::Reading`].
    pub(crate) fn take(path: &Path) -> Result<Self, Error> {
        let mut file = files::open_private(path).map_err(|e| Error::io("open", path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            // What can be shared is held by readers alone.
            Err(TryLockError::WouldBlock) if file.try_lock_shared().is_ok() => {
                let _ = file.unlock();
                return Err(Error::Reading { path: path.to_path_buf() });
            }
            Err(TryLockError::WouldBlock) => return Err(held(&mut file, path)),
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", path, error)),
        }
        // A full disk must not keep the queue from opening: the text is only for people.
        let written = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "cannot note the process id in the lock");
        }
        Ok(Self { file })
    }

    /// Takes the lock on an existing file for reading, together with other readers. Nothing is
    /// written.
    pub(crate) fn share(path: &Path) -> Result<Self, Error> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoQueue { path: path.to_path_buf() });
            }
            Err(error) => return Err(Error::io("open", path, error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(held(&mut file, path)),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", path, error)),
        }
    }
}

/// Whether there is a queue in `dir` that this user may read and that no process holds for
/// writing now.
pub fn is_free(dir: &Path) -> bool {
    Lock::share(&dir.join(QUEUE_DIR).join("LOCK")).is_ok()
}

/// The error that names the holder, if the process noted in the file is still there: a reader
/// notes nothing, and a daemon that was killed leaves its number behind.
fn held(file: &mut File, path: &Path) -> Error {
    let mut text = String::new();
    // The holder may not have written yet: then it is "another process".
    let _ = Read::by_ref(file).take(32).read_to_string(&mut text);
    let alive = |pid: &i32| {
        Pid::from_raw(*pid).is_some_and(|pid| match test_kill_process(pid) {
            Ok(()) => true,
            Err(error) => error == rustix::io::Errno::PERM,
        })
    };
    let pid = text.trim().parse::<i32>().ok().filter(alive);
    Error::Locked { path: path.to_path_buf(), pid: pid.and_then(|pid| u32::try_from(pid).ok()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_the_first_and_may_follow_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let first = Lock::take(&path).unwrap();
        match Lock::take(&path) {
            Err(Error::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        Lock::take(&path).unwrap();
    }

    #[test]
    fn readers_share_it_and_are_told_from_a_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        drop(Lock::take(&path).unwrap());
        let readers = [Lock::share(&path).unwrap(), Lock::share(&path).unwrap()];
        let error = Lock::take(&path).unwrap_err();
        assert!(matches!(error, Error::Reading { .. }), "{error:?}");
        let said = error.to_string();
        assert!(said.contains("dump, verify or status without a daemon"), "{said}");
        assert!(!said.contains("control socket"), "nobody answers there: {said}");
        // Having asked holds nobody up.
        Lock::share(&path).unwrap();
        drop(readers);
        let _writer = Lock::take(&path).unwrap();
        assert!(matches!(Lock::share(&path), Err(Error::Locked { pid: Some(_), .. })));
    }
}
