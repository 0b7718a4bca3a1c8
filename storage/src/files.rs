//! Small files and directories, made and replaced so that a power cut leaves the old or the new.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Makes a directory only its owner may enter; its parents must exist.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Likewise with its parents, and not an error if it is there.
pub(crate) fn ensure_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(true).create(path)
}

/// A handle to create or open a file only its owner may read and write.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Makes names created, renamed or removed in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes the way to `dir` durable: syncs every directory above it, from the root down. Returns
/// those that were.
///
/// Several levels of it may just have been made, by this process or one before it, and a power
/// cut takes a name whose directory was not synced with all that lies below. One that may not be
/// read cannot have been made by this user, and is left out; so is a file system that cannot
/// sync directories.
pub(crate) fn sync_way_to(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let whole = fs::canonicalize(dir)?;
    let mut above: Vec<_> = whole.ancestors().skip(1).map(Path::to_path_buf).collect();
    above.reverse();
    let mut synced = Vec::new();
    for dir in above {
        match sync_dir(&dir) {
            Ok(()) => synced.push(dir),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied
                        | io::ErrorKind::InvalidInput
                        | io::ErrorKind::Unsupported
                ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(synced)
}

pub(crate) fn sync_file(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Replaces the content of `path` at once and durably: temporary file, fsync, rename, fsync of
/// the directory.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let written = write_and_sync(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // Room for the next try; it may not be there at all.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    path.parent().map_or(Ok(()), sync_dir)
}

fn write_and_sync(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = File::options();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// The whole of a small file, or none if it is not there.
pub(crate) fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Bytes allocated on disk for `path` and everything below it. What vanishes meanwhile or
/// cannot be read counts as nothing.
pub(crate) fn disk_usage(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    let own = metadata.blocks().saturating_mul(512);
    if !metadata.is_dir() {
        return own;
    }
    let Ok(entries) = fs::read_dir(path) else { return own };
    entries.flatten().fold(own, |sum, entry| sum.saturating_add(disk_usage(&entry.path())))
}

/// Names in `dir`, sorted; empty if it is not there.
pub(crate) fn names(dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        names.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacing_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(dir.path()).unwrap().len(), 1);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn every_level_above_is_synced() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/queue");
        ensure_private_dir(&deep).unwrap();
        let synced = sync_way_to(&deep).unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        assert!(synced.ends_with(&[root.clone(), root.join("a"), root.join("a/b")]), "{synced:?}");
        assert!(synced.is_sorted());
    }

    #[test]
    fn usage_counts_blocks_below() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), vec![1; 100_000]).unwrap();
        assert!(disk_usage(dir.path()) >= 100_000);
        assert_eq!(disk_usage(&dir.path().join("none")), 0);
    }
}
