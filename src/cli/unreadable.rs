//! Faults of the configuration in the commands' words: for a file that may not be read, also who may.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::config::{ConfigError, Problem};
use crate::control::socket::group_name;

/// A fault, and what the file system says of it.
pub fn told(error: &ConfigError) -> String {
    let mut text = error.to_string();
    if let Problem::Unreadable { path, error } = &error.problem
        && error.kind() == io::ErrorKind::PermissionDenied
        && let Some(who) = readers(path)
    {
        text.push_str(&who);
    }
    text
}

/// Who may read a path: said of the file, or of the nearest directory above it that shows itself.
fn readers(path: &Path) -> Option<String> {
    let (found, metadata) =
        path.ancestors().find_map(|path| Some((path, fs::metadata(path).ok()?)))?;
    let (uid, gid, mode) = (metadata.uid(), metadata.gid(), metadata.mode());
    let bit = if metadata.is_dir() { 0o010 } else { 0o040 };
    let mut text = format!(": {} belongs to user id {uid}", found.display());
    // Root's group is nothing to join.
    if mode & bit != 0 && gid != 0 {
        let group = group_name(gid).unwrap_or_else(|| gid.to_string());
        text.push_str(&format!(
            " and group {group} (to join it: sudo usermod -aG {group} \"$USER\", then log in again)"
        ));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::Origin;

    fn denied(path: &Path) -> String {
        told(&ConfigError {
            origin: Origin::Default,
            key: None,
            problem: Problem::Unreadable {
                path: path.to_owned(),
                error: io::ErrorKind::PermissionDenied.into(),
            },
        })
    }

    #[test]
    fn who_may_read_it_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        fs::write(&file, "").unwrap();
        let metadata = fs::metadata(&file).unwrap();
        let (uid, gid) = (metadata.uid(), metadata.gid());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let said = denied(&file);
        let owner = format!("{} belongs to user id {uid}", file.display());
        assert!(said.ends_with(&owner), "{said}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let said = denied(&file);
        let group = group_name(gid).unwrap_or_else(|| gid.to_string());
        assert_eq!(said.contains(&format!("and group {group} (")), gid != 0, "{said}");
        // What cannot be seen is told by what it lies in.
        let said = denied(&dir.path().join("closed/config.toml"));
        assert!(said.contains(&format!("{} belongs to", dir.path().display())), "{said}");
    }

    #[test]
    fn other_faults_are_told_as_they_are() {
        let path = Path::new("/nonexistent/config.toml").to_owned();
        let problem = Problem::Unreadable { path, error: io::ErrorKind::NotFound.into() };
        let error = ConfigError { origin: Origin::Default, key: None, problem };
        assert_eq!(told(&error), error.to_string());
    }
}
