//! Replaces a file as a whole, so that a crash leaves the old one or the new one.
//!
//! Invariants: the new text is written to a file of its own in the same directory, made durable,
//! and only then takes the name; the directory is made durable after that. Owner, group and mode
//! stay as they were, but what holds a secret is closed to others. A symbolic link stays one: what
//! it points to is replaced. A file that somebody else has changed meanwhile is left alone.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The mode of a file that is made.
const NEW: u32 = 0o600;
/// Whatever others may do with a file.
const OTHERS: u32 = 0o007;

/// What is to be written.
#[derive(Clone, Copy)]
pub struct New<'a> {
    /// The whole of it.
    pub text: &'a [u8],
    /// What is expected to stand there now; `None`: it does not matter.
    pub before: Option<Before<'a>>,
    /// Others may not read it.
    pub private: bool,
    /// User and group that the file belongs to when it is made; `None`: whoever makes it.
    pub owner: Option<(u32, u32)>,
}

/// What is expected to stand there.
#[derive(Clone, Copy)]
pub enum Before<'a> {
    /// No such file.
    Absent,
    /// This text.
    Text(&'a [u8]),
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// The file, symbolic links followed.
    pub path: PathBuf,
    /// Its mode before; `None` when it was made.
    pub mode_before: Option<u32>,
    /// Its mode now.
    pub mode: u32,
    /// Its owner's user id.
    pub owner: u32,
}

/// A file that was not replaced; the old one is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    /// The operating system refuses.
    #[error("cannot {what} {}: {source}{}", path.display(), hint(source))]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// What is there is no file.
    #[error("{} is no regular file, it is not replaced", path.display())]
    NotAFile {
        /// What is there.
        path: PathBuf,
    },
    /// Somebody else writes it too.
    #[error("{} has been changed by somebody else meanwhile, it is left alone: try again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

fn hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        "; run as root or as the user it belongs to"
    } else {
        ""
    }
}

/// Replaces the file at `path`, or makes it, with the directories above it.
///
/// # Errors
/// See [`ReplaceError`].
pub fn replace(path: &Path, new: New<'_>) -> Result<Replaced, ReplaceError> {
    let failed = |what| {
        let path = path.to_path_buf();
        move |source| ReplaceError::Io { what, path, source }
    };
    let is_link = fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_symlink());
    let path = match fs::canonicalize(path) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_link => path.to_path_buf(),
        Err(error) => return Err(failed("find")(error)),
    };
    let old = match fs::metadata(&path) {
        Ok(old) if old.is_file() => Some(old),
        Ok(_) => return Err(ReplaceError::NotAFile { path }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("look at")(error)),
    };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
    if old.is_none() {
        fs::create_dir_all(directory).map_err(failed("make the directory of"))?;
    }
    let mode_before = old.as_ref().map(|old| old.mode() & 0o7777);
    let mode = mode_before.unwrap_or(NEW);
    let mode = if new.private { mode & !OTHERS } else { mode };
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".");
    // Nobody but its owner reads it before it has its own mode.
    let mut fresh = tempfile::Builder::new()
        .prefix(&prefix)
        .permissions(Permissions::from_mode(NEW))
        .tempfile_in(directory)
        .map_err(failed("write beside"))?;
    let written = (|| {
        fresh.write_all(new.text)?;
        let file = fresh.as_file();
        let owner = old.as_ref().map(|old| (old.uid(), old.gid())).or(new.owner);
        if let Some((uid, gid)) = owner {
            let made = file.metadata()?;
            if (made.uid(), made.gid()) != (uid, gid) {
                std::os::unix::fs::fchown(file, Some(uid), Some(gid))?;
            }
        }
        // After the owner, whose change may take bits away.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        file.metadata()
    })();
    let owner = written.map_err(failed("write the new"))?.uid();
    if !is_as_expected(&path, new.before) {
        return Err(ReplaceError::Changed { path });
    }
    fresh.persist(&path).map_err(|error| failed("replace")(error.error))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("sync"))?;
    Ok(Replaced { path, mode_before, mode, owner })
}

fn is_as_expected(path: &Path, before: Option<Before<'_>>) -> bool {
    match before {
        None => true,
        Some(Before::Absent) => !path.exists(),
        Some(Before::Text(text)) => fs::read(path).is_ok_and(|now| now == text),
    }
}

/// Removes a file for good; one that is not there is as good.
///
/// # Errors
/// What the operating system says.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn private(text: &[u8]) -> New<'_> {
        New { text, before: None, private: true, owner: None }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_made_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c.toml");
        let replaced = replace(&path, private(b"text")).unwrap();
        assert_eq!((replaced.mode_before, replaced.mode, mode(&path)), (None, 0o600, 0o600));
        assert_eq!(fs::read(&path).unwrap(), b"text");
        assert_eq!(names(path.parent().unwrap()), ["c.toml"]);
    }

    #[test]
    fn owner_and_mode_stay_and_a_secret_is_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        for (before, private, after) in [
            (0o640, true, 0o640),
            (0o644, true, 0o640),
            (0o644, false, 0o644),
            (0o600, false, 0o600),
        ] {
            fs::write(&path, "old").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(before)).unwrap();
            let owner = if rustix::process::geteuid().is_root() {
                std::os::unix::fs::chown(&path, Some(12_345), Some(23_456)).unwrap();
                (12_345, 23_456)
            } else {
                let metadata = fs::metadata(&path).unwrap();
                (metadata.uid(), metadata.gid())
            };
            let new = New { text: b"new", before: None, private, owner: Some((1, 1)) };
            let replaced = replace(&path, new).unwrap();
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), owner);
            assert_eq!((mode(&path), replaced.mode, replaced.owner), (after, after, owner.0));
            assert_eq!(fs::read(&path).unwrap(), b"new");
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_new_file_belongs_to_whom_it_is_made_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        let us = fs::metadata(dir.path()).unwrap();
        let owner = if rustix::process::geteuid().is_root() {
            (12_345, 23_456)
        } else {
            (us.uid(), us.gid())
        };
        let new = New { owner: Some(owner), ..private(b"text") };
        let replaced = replace(&path, new).unwrap();
        let made = fs::metadata(&path).unwrap();
        assert_eq!(((made.uid(), made.gid()), mode(&path)), (owner, 0o600));
        assert_eq!(replaced.owner, owner.0);
    }

    #[test]
    fn a_link_stays_one_and_its_target_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("real/c.toml"), dir.path().join("c.toml"));
        fs::create_dir(dir.path().join("real")).unwrap();
        fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink("real/c.toml", &link).unwrap();
        let replaced = replace(&link, private(b"new")).unwrap();
        assert_eq!(replaced.path, target.canonicalize().unwrap());
        assert!(fs::symlink_metadata(&link).unwrap().file_type().is_symlink());
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["c.toml", "real"]);
        fs::remove_file(&target).unwrap();
        let error = replace(&link, private(b"new")).unwrap_err();
        assert!(matches!(error, ReplaceError::Io { what: "find", .. }), "{error}");
    }

    #[test]
    fn what_was_changed_meanwhile_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        let over = |before| New { text: b"new", before: Some(before), private: true, owner: None };
        fs::write(&path, "theirs").unwrap();
        for before in [Before::Absent, Before::Text(b"mine")] {
            let error = replace(&path, over(before)).unwrap_err();
            assert!(matches!(error, ReplaceError::Changed { .. }), "{error}");
            assert_eq!(fs::read(&path).unwrap(), b"theirs");
        }
        replace(&path, over(Before::Text(b"theirs"))).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["c.toml"]);
        let error = replace(dir.path(), private(b"new")).unwrap_err();
        assert!(matches!(error, ReplaceError::NotAFile { .. }), "{error}");
    }

    #[test]
    fn removing_what_is_not_there_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        fs::write(&path, "x").unwrap();
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }
}
