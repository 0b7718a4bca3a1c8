//! What of the host is hidden from this process, so that what it does not see is not taken for
//! what is not there.
//!
//! A unit with `PrivateTmp=` has a temporary directory of its own, a container has processes of its
//! own as well. Hidden processes (`hidepid`) are [`super::process`]'s affair.
//!
//! Invariants:
//! - Only what the kernel says of this very process is read.
//! - Where it says nothing, everything is taken to be seen.

use std::path::Path;

use super::file;

/// Bytes of a mount table that are read at most.
const MAX_MOUNTS: u64 = 4 * 1024 * 1024;

/// The kernel's fixed name for the process namespace of the host itself.
const PROCESSES_OF_THE_HOST: &str = "pid:[4026531836]";

/// What is hidden of one state directory's OpenClaw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hidden {
    /// Nothing.
    Nothing,
    /// The temporary directory: this process has one of its own.
    Temporary,
    /// Its processes and their temporary directory: the state directory was mounted into this
    /// container from outside.
    Processes,
}

/// What this process sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    private_temporary: bool,
    /// Where something is mounted, as the mount table writes it; of a container alone.
    from_outside: Vec<String>,
}

impl Sight {
    /// Of the process whose procfs this is.
    #[must_use]
    pub fn of(proc: &Path, temporary: &Path) -> Self {
        let mounts = file::read(&proc.join("self/mountinfo"), MAX_MOUNTS);
        let mounts = mounts.map(|(bytes, _)| bytes).unwrap_or_default();
        let container = std::fs::read_link(proc.join("self/ns/pid"))
            .is_ok_and(|name| name.as_os_str() != PROCESSES_OF_THE_HOST);
        Self::read(&String::from_utf8_lossy(&mounts), container, temporary)
    }

    fn read(mounts: &str, container: bool, temporary: &Path) -> Self {
        let temporary = written(temporary);
        let mut sight = Self::default();
        for line in mounts.lines() {
            // What is mounted (as a path in its file system) and where.
            let mut fields = line.split(' ').skip(3);
            let (Some(what), Some(at)) = (fields.next(), fields.next()) else { continue };
            if at == temporary {
                // The last one lies on top.
                sight.private_temporary = what.contains("/systemd-private-");
            }
            if container && at != "/" {
                sight.from_outside.push(at.to_owned());
            }
        }
        sight
    }

    /// What is hidden of the OpenClaw of a state directory.
    #[must_use]
    pub fn hidden(&self, home: &Path) -> Hidden {
        if !self.from_outside.is_empty() {
            let home = home.canonicalize().unwrap_or_else(|_| home.to_owned());
            let home = written(&home);
            let within = |mount: &String| Path::new(&home).starts_with(mount);
            if self.from_outside.iter().any(within) {
                return Hidden::Processes;
            }
        }
        if self.private_temporary { Hidden::Temporary } else { Hidden::Nothing }
    }
}

/// A path as the mount table writes it.
fn written(path: &Path) -> String {
    let mut text = String::new();
    for c in path.to_string_lossy().chars() {
        match c {
            ' ' => text.push_str("\\040"),
            '\t' => text.push_str("\\011"),
            '\n' => text.push_str("\\012"),
            '\\' => text.push_str("\\134"),
            _ => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "\
300 29 254:0 / / rw,relatime shared:1 master:1 - ext4 /dev/vda rw
301 300 0:30 / /tmp rw,nosuid shared:2 master:9 - tmpfs tmpfs rw
302 301 0:30 /systemd-private-4a5b-harborforge-connector.service-X1y2/tmp /tmp rw shared:3 - tmpfs tmpfs rw
303 300 254:0 /home/claw/.openclaw /home/claw/.openclaw ro shared:4 - ext4 /dev/vda rw
";

    fn sight(mounts: &str, container: bool) -> Sight {
        Sight::read(mounts, container, Path::new("/tmp"))
    }

    #[test]
    fn a_units_own_temporary_directory_is_known_by_its_mount() {
        let home = Path::new("/home/claw/.openclaw");
        assert_eq!(sight(UNIT, false).hidden(home), Hidden::Temporary);
        let host: String = UNIT.lines().take(2).map(|line| format!("{line}\n")).collect();
        assert_eq!(sight(&host, false).hidden(home), Hidden::Nothing, "a tmpfs for all");
        assert_eq!(sight("", false).hidden(home), Hidden::Nothing);
        assert_eq!(sight("302 301\n\nx", true).hidden(home), Hidden::Nothing, "no mount table");
    }

    #[test]
    fn a_container_sees_no_process_of_what_is_mounted_into_it() {
        let mounts = "\
10 1 0:50 / / rw - overlay overlay rw
11 10 0:5 / /tmp rw - tmpfs tmpfs rw
12 10 254:0 / /ho\\040st ro - ext4 /dev/vda rw
";
        let inside = sight(mounts, true);
        assert_eq!(inside.hidden(Path::new("/ho st/home/claw/.openclaw")), Hidden::Processes);
        assert_eq!(inside.hidden(Path::new("/host/home/claw/.openclaw")), Hidden::Nothing);
        assert_eq!(inside.hidden(Path::new("/root/.openclaw")), Hidden::Nothing, "its own");
        let host = sight(mounts, false);
        assert_eq!(host.hidden(Path::new("/ho st/home/claw/.openclaw")), Hidden::Nothing);
    }

    #[test]
    fn the_kernels_words_are_read_and_their_absence_hides_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let proc = dir.path().join("proc");
        let sight = || Sight::of(&proc, Path::new("/tmp"));
        assert_eq!(sight(), Sight::default());
        std::fs::create_dir_all(proc.join("self/ns")).unwrap();
        std::fs::write(proc.join("self/mountinfo"), UNIT).unwrap();
        let home = Path::new("/home/claw/.openclaw");
        assert_eq!(sight().hidden(home), Hidden::Temporary);
        std::os::unix::fs::symlink("pid:[4026532201]", proc.join("self/ns/pid")).unwrap();
        assert_eq!(sight().hidden(home), Hidden::Processes);
        std::fs::remove_file(proc.join("self/ns/pid")).unwrap();
        std::os::unix::fs::symlink(PROCESSES_OF_THE_HOST, proc.join("self/ns/pid")).unwrap();
        assert_eq!(sight().hidden(home), Hidden::Temporary);
    }
}
