//! One process for one queue: an advisory lock on a file that names its holder.
//!
//! The kernel lets go of the lock with the process, however it ends, so a stale file is
//! never in the way; only the lock counts, the text is for the message.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::error::Error;
use crate::files;

/// Held as long as it lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock on `path`, making the file if need be.
    pub(crate) fn take(path: &Path) -> Result<Self, Error> {
        let mut file = files::open_private(path).map_err(|e| Error::io("open", path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // The holder may not have written yet: then it is "another process".
                let _ = Read::by_ref(&mut file).take(32).read_to_string(&mut text);
                return Err(Error::Locked {
                    path: path.to_path_buf(),
                    pid: text.trim().parse().ok(),
                });
            }
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
        Ok(Self { _file: file })
    }
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
}
