//! Whether nginx is installed, and which sites it serves: what `report_nginx` asks for.
//!
//! Invariants:
//! - Nothing is started and no file is opened but one directory: names alone are read.
//! - What is reported is bounded: at most [`MOST_SITES`] names of at most [`LONGEST`] bytes and
//!   together of at most [`MOST_BYTES`], the first in order.
//! - Where nginx keeps no `sites-enabled`, there are no sites; a directory that cannot be read is
//!   a reason instead.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use super::host::Unreadable;
use super::patient::Patient;

/// Names that are reported.
pub const MOST_SITES: usize = 512;
/// Bytes of a name that are reported.
pub const LONGEST: usize = 128;
/// Bytes of all names together: a quarter of a sample.
pub const MOST_BYTES: usize = 16 * 1024;

/// Where packages and builds put the program.
const PROGRAMS: [&str; 6] = [
    "usr/sbin/nginx",
    "usr/bin/nginx",
    "usr/local/sbin/nginx",
    "usr/local/bin/nginx",
    "usr/local/nginx/sbin/nginx",
    "usr/local/openresty/nginx/sbin/nginx",
];

const SITES: &str = "etc/nginx/sites-enabled";

/// What there is of nginx.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nginx {
    /// Whether the program is there.
    pub installed: Result<bool, Unreadable>,
    /// Names in sites-enabled, sorted.
    pub sites: Result<Vec<String>, Unreadable>,
}

/// Asks for it without hanging on a file system that does not answer.
pub struct NginxProbe(Patient<Nginx>);

impl NginxProbe {
    /// A probe that asks the file system.
    #[must_use]
    pub fn new() -> Self {
        Self(Patient::new("root_fs", |root| Ok(look(root))))
    }

    /// What there is under a root directory. Waits for a file system that does not answer for a
    /// second, once.
    pub fn look(&mut self, root: &Path) -> Nginx {
        self.0
            .ask(root)
            .unwrap_or_else(|why| Nginx { installed: Err(why.clone()), sites: Err(why) })
    }
}

impl Default for NginxProbe {
    fn default() -> Self {
        Self::new()
    }
}

fn look(root: &Path) -> Nginx {
    Nginx { installed: installed(root), sites: sites(&root.join(SITES)) }
}

fn installed(root: &Path) -> Result<bool, Unreadable> {
    let mut forbidden = None;
    for program in PROGRAMS {
        let path = root.join(program);
        // A link counts by itself: in a container it may lead to where only the host's root does.
        match path.symlink_metadata() {
            Ok(found) if !found.is_dir() => return Ok(true),
            Ok(_) => {}
            Err(error) if is_absent(error.kind()) => {}
            Err(error) => forbidden = Some(Unreadable(format!("{}: {error}", path.display()))),
        }
    }
    forbidden.map_or(Ok(false), Err)
}

fn sites(directory: &Path) -> Result<Vec<String>, Unreadable> {
    let fault = |error: std::io::Error| Unreadable(format!("{}: {error}", directory.display()));
    let entries = match directory.read_dir() {
        Ok(entries) => entries,
        Err(error) if is_absent(error.kind()) => return Ok(Vec::new()),
        Err(error) => return Err(fault(error)),
    };
    let mut first = BTreeSet::new();
    for entry in entries {
        let name = entry.map_err(fault)?.file_name();
        let name = name.to_string_lossy();
        // nginx's own pattern, `sites-enabled/*`, leaves them out as well.
        if name.starts_with('.') {
            continue;
        }
        first.insert(shown(&name));
        if first.len() > MOST_SITES {
            first.pop_last();
        }
    }
    let mut left = MOST_BYTES;
    let fits = |name: &String| match left.checked_sub(name.len()) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    Ok(first.into_iter().take_while(fits).collect())
}

fn is_absent(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// A name without control characters, cut between two characters.
fn shown(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }) {
        if out.len() + c.len_utf8() > LONGEST {
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(SITES)).unwrap();
        root
    }

    #[test]
    fn a_host_without_nginx_has_none_and_no_sites() {
        let root = tempfile::tempdir().unwrap();
        let found = NginxProbe::new().look(root.path());
        assert_eq!(found, Nginx { installed: Ok(false), sites: Ok(Vec::new()) });
        // A directory of that name is no program.
        fs::create_dir_all(root.path().join("usr/sbin/nginx")).unwrap();
        assert_eq!(look(root.path()).installed, Ok(false));
    }

    #[test]
    fn sites_are_sorted_and_hidden_files_are_none() {
        let root = root();
        fs::create_dir_all(root.path().join("usr/sbin")).unwrap();
        // As alternatives do it; under another root the target is not there.
        std::os::unix::fs::symlink("/opt/nginx", root.path().join("usr/sbin/nginx")).unwrap();
        let sites = root.path().join(SITES);
        for name in ["www.example", "default", ".default.swp", "api\nv2"] {
            fs::write(sites.join(name), "server { listen 80; }").unwrap();
        }
        std::os::unix::fs::symlink("/nowhere", sites.join("broken-link")).unwrap();
        let found = NginxProbe::new().look(root.path());
        assert_eq!(found.installed, Ok(true));
        assert_eq!(
            found.sites.unwrap(),
            ["api\u{fffd}v2", "broken-link", "default", "www.example"]
        );
    }

    #[test]
    fn number_and_length_are_bounded() {
        let many = root();
        for n in 0..MOST_SITES + 20 {
            fs::write(many.path().join(SITES).join(format!("{n:05}")), "").unwrap();
        }
        let found = look(many.path()).sites.unwrap();
        assert_eq!((found.len(), found[0].as_str()), (MOST_SITES, "00000"));
        assert_eq!(found[MOST_SITES - 1], format!("{:05}", MOST_SITES - 1));

        let long = root();
        for n in 0..200 {
            let name = format!("{n:03}{}", "é".repeat(120));
            fs::write(long.path().join(SITES).join(name), "").unwrap();
        }
        let odd = OsStr::from_bytes(b"999\xff");
        fs::write(long.path().join(SITES).join(odd), "").unwrap();
        let found = look(long.path()).sites.unwrap();
        assert!(found.iter().all(|name| name.len() <= LONGEST));
        assert!(found.iter().map(String::len).sum::<usize>() <= MOST_BYTES);
        assert!(found.len() >= MOST_BYTES / LONGEST);
    }

    #[test]
    fn what_cannot_be_read_is_a_reason_and_hides_nothing_else() {
        let root = root();
        let sites = root.path().join(SITES);
        fs::remove_dir(&sites).unwrap();
        // A link to itself can be read by nobody, not even by root.
        std::os::unix::fs::symlink(&sites, &sites).unwrap();
        let found = look(root.path());
        assert_eq!(found.installed, Ok(false));
        let why = found.sites.unwrap_err().0;
        assert!(why.contains("sites-enabled: "), "{why}");
    }
}
