//! OpenClaw's version where no gateway says it: that of the `openclaw` on the path.
//!
//! Invariant: nothing is run; the package the command belongs to is looked up by its files.

use std::path::{Path, PathBuf};

use super::file::{self, Stamp};
use super::node::{Keep, Node, read_json};
use super::roster;

/// Bytes a package.json may have.
const MAX_PACKAGE: u64 = 1024 * 1024;
/// How many directories above the command its package may be.
const MAX_UP: usize = 4;

static KEEP: Keep = Keep::Members(&[("name", Keep::Text), ("version", Keep::Text)]);

/// The installed package; remembers what has not changed.
#[derive(Debug, Default)]
pub struct Package {
    known: Option<(PathBuf, Stamp, Option<String>)>,
}

impl Package {
    /// The version of the first `openclaw` on a path of directories that belongs to a package.
    pub fn version(&mut self, path: &[PathBuf]) -> Option<String> {
        path.iter().find_map(|directory| {
            // The command is a link into the package.
            let command = directory.join("openclaw").canonicalize().ok()?;
            file::look(&command).ok()?;
            command.ancestors().skip(1).take(MAX_UP).find_map(|above| self.of(above))
        })
    }

    fn of(&mut self, directory: &Path) -> Option<String> {
        let path = directory.join("package.json");
        let stamp = file::look(&path).ok()?;
        match &self.known {
            Some((known, of, version)) if *known == path && *of == stamp => version.clone(),
            _ => {
                let (bytes, stamp) = file::read(&path, MAX_PACKAGE).ok()?;
                let package = read_json(&bytes, &KEEP).ok()?;
                if package.get("name").and_then(Node::text) != Some("openclaw") {
                    return None;
                }
                let version = package.get("version").and_then(Node::text).and_then(roster::version);
                self.known = Some((path, stamp, version.clone()));
                version
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_command_on_the_path_leads_to_its_package() {
        let dir = tempfile::tempdir().unwrap();
        let package = dir.path().join("lib/node_modules/openclaw");
        std::fs::create_dir_all(package.join("dist")).unwrap();
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::fs::write(package.join("dist/entry.js"), "").unwrap();
        symlink("../lib/node_modules/openclaw/dist/entry.js", bin.join("openclaw")).unwrap();
        let path = [dir.path().join("none"), bin];
        let mut known = Package::default();
        assert_eq!(known.version(&path), None);
        let write = |text: &str| std::fs::write(package.join("package.json"), text).unwrap();
        write(r#"{"name":"another","version":"1.2.3"}"#);
        assert_eq!(known.version(&path), None, "not OpenClaw's package");
        write(r#"{"name":"openclaw","version":"2026.3.13","token":"geheim"}"#);
        assert_eq!(known.version(&path).as_deref(), Some("2026.3.13"));
        write(r#"{"name":"openclaw","version":"2026.3.14-1"}"#);
        assert_eq!(known.version(&path).as_deref(), Some("2026.3.14-1"));
        write(r#"{"name":"openclaw","version":"not a version"}"#);
        assert_eq!(known.version(&path), None);
    }

    #[test]
    fn links_in_a_circle_and_devices_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        symlink("openclaw", dir.path().join("openclaw")).unwrap();
        let other = tempfile::tempdir().unwrap();
        symlink("/dev/zero", other.path().join("openclaw")).unwrap();
        let path = [dir.path().to_owned(), other.path().to_owned()];
        assert_eq!(Package::default().version(&path), None);
    }
}
