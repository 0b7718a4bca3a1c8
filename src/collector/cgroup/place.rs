//! Where a process's own control group is: from `/proc/self/cgroup` and `/proc/self/mountinfo` to
//! directories. Pure.
//!
//! Invariants:
//! - A controller is looked for in version 1 first: where both are mounted, one that `cgroup`
//!   names with a hierarchy of its own is not in version 2.
//! - The directories begin with the own group and end at the mount: what is above is another
//!   namespace's and cannot be seen.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use crate::collector::host::Unreadable;

/// Which kind of hierarchy a controller is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// A hierarchy of its own or shared with a few.
    One,
    /// The one of all.
    Two,
}

/// A control group: its directory, then its ancestors' up to the mount; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) version: Version,
    pub(super) directories: Vec<PathBuf>,
}

/// Finds the own group of a controller such as `memory`.
///
/// # Errors
/// When the process is in no such hierarchy, or it is not mounted where the process sees it.
pub(super) fn find(cgroup: &str, mountinfo: &str, controller: &str) -> Result<Place, Unreadable> {
    let (version, path) = membership(cgroup, controller).ok_or_else(|| {
        Unreadable(format!(
            "/proc/self/cgroup names no control group with the {controller} controller"
        ))
    })?;
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(Unreadable(format!(
            "the own control group {} lies outside of what this namespace shows",
            path.display()
        )));
    }
    let mut seen = false;
    for mount in mountinfo.lines().filter_map(Mount::parse) {
        if !mount.has(version, controller) {
            continue;
        }
        seen = true;
        let Ok(below) = path.strip_prefix(&mount.root) else { continue };
        return Ok(Place { version, directories: upwards(&mount.point, below) });
    }
    let why = if seen {
        format!("no mount of the {controller} hierarchy shows it")
    } else {
        "no such hierarchy is mounted; mount /sys/fs/cgroup, or set scope = \"host\"".to_owned()
    };
    Err(Unreadable(format!("the own control group {}: {why}", path.display())))
}

/// The hierarchy and the path in it.
fn membership(cgroup: &str, controller: &str) -> Option<(Version, PathBuf)> {
    let mut unified = None;
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(id), Some(names), Some(path)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if names.split(',').any(|name| name == controller) {
            return Some((Version::One, PathBuf::from(path)));
        }
        if id == "0" && names.is_empty() {
            unified = Some((Version::Two, PathBuf::from(path)));
        }
    }
    unified
}

/// `below` under `point`, and everything between.
fn upwards(point: &Path, below: &Path) -> Vec<PathBuf> {
    let depth = below.components().count();
    // Joining nothing would leave a slash at the end.
    let own = if depth == 0 { point.to_owned() } else { point.join(below) };
    own.ancestors().take(depth + 1).map(Path::to_owned).collect()
}

/// A line of mountinfo, as far as it matters here.
struct Mount<'a> {
    root: PathBuf,
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// `36 35 98:0 /root /point rw,noatime master:1 - type source options`; the fields before the
    /// dash vary in number.
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (kind, _, options) = (right.next()?, right.next()?, right.next()?);
        Some(Self { root: unescaped(root), point: unescaped(point), kind, options })
    }

    fn has(&self, version: Version, controller: &str) -> bool {
        match version {
            Version::One => {
                self.kind == "cgroup" && self.options.split(',').any(|name| name == controller)
            }
            Version::Two => self.kind == "cgroup2",
        }
    }
}

/// The kernel writes spaces and the like as `\040`.
fn unescaped(text: &str) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()).filter(|_| byte == b'\\') {
            Some(code) => {
                out.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(cgroup: &str, mountinfo: &str, controller: &str) -> (Version, Vec<String>) {
        let place = find(cgroup, mountinfo, controller).unwrap();
        let shown = place.directories.iter().map(|path| path.display().to_string()).collect();
        (place.version, shown)
    }

    #[test]
    fn version_two_is_one_hierarchy_with_all_ancestors() {
        let mounts = "22 1 0:20 / /proc rw - proc proc rw\n\
                      35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            found("0::/system.slice/hf.service\n", mounts, "memory"),
            (
                Version::Two,
                vec![
                    "/sys/fs/cgroup/system.slice/hf.service".to_owned(),
                    "/sys/fs/cgroup/system.slice".to_owned(),
                    "/sys/fs/cgroup".to_owned()
                ]
            )
        );
        // In a namespace of its own the group is the root.
        assert_eq!(found("0::/\n", mounts, "cpu").1, ["/sys/fs/cgroup"]);
    }

    #[test]
    fn version_one_has_a_hierarchy_for_each_controller() {
        let cgroup =
            "12:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n";
        // As Docker shows it: the own group is bound over the mount's root.
        let mounts = "40 39 0:33 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
                      41 39 0:34 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n";
        assert_eq!(
            found(cgroup, mounts, "memory"),
            (Version::One, vec!["/sys/fs/cgroup/memory".to_owned()])
        );
        assert_eq!(found(cgroup, mounts, "cpuacct").1, ["/sys/fs/cgroup/cpu,cpuacct"]);
        let host = "40 39 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        assert_eq!(found(cgroup, host, "memory").1.len(), 3);
    }

    #[test]
    fn in_both_the_one_that_names_the_controller_counts() {
        let cgroup = "4:memory:/a\n0::/b\n";
        let mounts = "1 0 0:1 / /cg/memory rw - cgroup cgroup rw,memory\n\
                      2 0 0:2 / /cg/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(found(cgroup, mounts, "memory").1, ["/cg/memory/a", "/cg/memory"]);
        assert_eq!(found(cgroup, mounts, "cpu").1, ["/cg/unified/b", "/cg/unified"]);
    }

    #[test]
    fn what_cannot_be_seen_is_said() {
        let mounts = "2 0 0:2 /other /cg rw - cgroup2 cgroup2 rw\n";
        for (cgroup, mounts, part) in [
            ("", mounts, "names no control group"),
            ("garbage\n", mounts, "names no control group"),
            ("0::/../../init.scope\n", mounts, "outside"),
            ("0::/a\n", mounts, "no mount of the memory hierarchy shows it"),
            ("0::/a\n", "", "mount /sys/fs/cgroup"),
            ("4:memory:/a\n", mounts, "mount /sys/fs/cgroup"),
        ] {
            let why = find(cgroup, mounts, "memory").unwrap_err().0;
            assert!(why.contains(part), "{part} in {why}");
        }
    }

    #[test]
    fn escaped_characters_are_read() {
        assert_eq!(unescaped(r"/a\040b\134c"), Path::new("/a b\\c"));
        assert_eq!(unescaped(r"/a\04"), Path::new(r"/a\04"));
        assert_eq!(unescaped(r"/\999"), Path::new(r"/\999"));
        let mounts = "2 0 0:2 / /my\\040groups rw - cgroup2 cgroup2 rw\n";
        assert_eq!(found("0::/a\n", mounts, "cpu").1, ["/my groups/a", "/my groups"]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_written_there_makes_it_panic(cgroup in ".{0,200}", mounts in ".{0,200}") {
            let _ = find(&cgroup, &mounts, "memory");
            let line = format!("1 0 0:1 {mounts} - cgroup2 cgroup2 rw");
            let _ = find(&format!("0::/{cgroup}"), &line, "memory");
            let _ = unescaped(&mounts);
        }
    }
}
