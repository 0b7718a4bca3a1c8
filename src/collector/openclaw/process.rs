//! Whether a process that a file names still lives, by /proc.
//!
//! Invariants:
//! - A number that was given to another process since is told by its start time, where the file
//!   has one.
//! - What cannot be told is [`Alive::Unknown`], never "no": /proc may hide other users' processes.

use std::path::{Path, PathBuf};

use super::file::{self, FileError};

/// Bytes of /proc/PID/stat and cmdline that are read at most.
const MAX_PROC: u64 = 128 * 1024;

/// Whether a process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alive {
    /// It does.
    Yes,
    /// It does not, or its number is another process's now.
    No,
    /// It cannot be told.
    Unknown,
}

/// The processes of this host, or of a test.
#[derive(Debug, Clone)]
pub struct Processes {
    root: PathBuf,
}

impl Processes {
    /// Those under a mounted procfs, usually `/proc`.
    #[must_use]
    pub fn under(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Whether the process `pid` lives and is the one that started at `started` (clock ticks since
    /// boot, field 22 of /proc/PID/stat). Without a start time any process with the number is it
    /// whose command line `is_it` recognizes.
    #[must_use]
    pub fn alive(&self, pid: u32, started: Option<u64>, is_it: fn(&[u8]) -> bool) -> Alive {
        let directory = self.root.join(pid.to_string());
        let stat = match file::read(&directory.join("stat"), MAX_PROC) {
            Ok((stat, _)) => stat,
            Err(FileError::Missing) if self.shows_all() => return Alive::No,
            Err(_) => return Alive::Unknown,
        };
        let Some((state, start)) = parse_stat(&stat) else { return Alive::Unknown };
        if matches!(state, b'Z' | b'X' | b'x') {
            return Alive::No;
        }
        match started {
            Some(started) if started == start => Alive::Yes,
            Some(_) => Alive::No,
            None => match file::read(&directory.join("cmdline"), MAX_PROC) {
                Ok((command, _)) if is_it(&command) => Alive::Yes,
                Ok(_) => Alive::No,
                Err(FileError::Missing) if self.shows_all() => Alive::No,
                Err(_) => Alive::Unknown,
            },
        }
    }

    /// Whether an absent process is a dead one: with `hidepid` those of others are hidden, and
    /// then the first one, which always lives, is hidden too.
    fn shows_all(&self) -> bool {
        file::read(&self.root.join("1/stat"), MAX_PROC).is_ok()
    }
}

/// State and start time of /proc/PID/stat: fields 3 and 22. The second one, the command in
/// parentheses, may itself hold blanks and parentheses: the last one ends it.
fn parse_stat(stat: &[u8]) -> Option<(u8, u64)> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end.saturating_add(1)..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    // Field 3 has been taken; 22 is the 19th after it.
    let start = fields.nth(18)?.parse().ok()?;
    Some((state, start))
}

/// Whether a command line, its arguments ended by zeros, is that of an OpenClaw gateway.
#[must_use]
pub fn is_gateway(command: &[u8]) -> bool {
    let mut arguments =
        command.split(|byte| *byte == 0).map(String::from_utf8_lossy).map(|a| a.to_lowercase());
    let first = arguments.clone().next().unwrap_or_default();
    // The process may have been given a title of its own.
    first.starts_with("openclaw-gateway")
        || first.ends_with("/openclaw-gateway")
        || (arguments.clone().any(|argument| argument == "gateway")
            && arguments.any(|argument| {
                [
                    "openclaw",
                    "openclaw.mjs",
                    "dist/index.js",
                    "dist/index.mjs",
                    "dist/entry.js",
                    "dist/entry.mjs",
                ]
                .iter()
                .any(|end| argument == *end || argument.ends_with(&format!("/{end}")))
            }))
}

/// Any process at all.
#[must_use]
pub fn is_any(_command: &[u8]) -> bool {
    true
}

#[cfg(test)]
pub(super) mod fake {
    use std::path::Path;

    /// Puts a process into a pretended /proc.
    pub(crate) fn process(
        root: &Path,
        pid: u32,
        comm: &str,
        state: char,
        start: u64,
        command: &str,
    ) {
        let directory = root.join(pid.to_string());
        std::fs::create_dir_all(&directory).unwrap();
        let between = "1 ".repeat(18);
        let stat = format!("{pid} ({comm}) {state} {between}{start} 12345 67\n");
        std::fs::write(directory.join("stat"), stat).unwrap();
        std::fs::write(directory.join("cmdline"), command.replace(' ', "\0")).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: &str = "node /usr/lib/node_modules/openclaw/dist/index.js gateway --port 18789";

    #[test]
    fn another_process_with_the_same_number_is_not_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let processes = Processes::under(root);
        assert_eq!(processes.alive(7, Some(100), is_any), Alive::Unknown, "nothing is to be seen");
        fake::process(root, 1, "init", 'S', 1, "/sbin/init");
        assert_eq!(processes.alive(7, Some(100), is_any), Alive::No);
        fake::process(root, 7, "a (b) c) d", 'S', 100, GATEWAY);
        assert_eq!(processes.alive(7, Some(100), is_any), Alive::Yes);
        assert_eq!(processes.alive(7, Some(101), is_any), Alive::No);
        assert_eq!(processes.alive(7, None, is_gateway), Alive::Yes);
        fake::process(root, 7, "sh", 'S', 100, "sh -c sleep gateway");
        assert_eq!(processes.alive(7, None, is_gateway), Alive::No);
        fake::process(root, 7, "node", 'Z', 100, GATEWAY);
        assert_eq!(processes.alive(7, Some(100), is_any), Alive::No, "dead, not yet buried");
        std::fs::write(root.join("7/stat"), "7 (node S 1").unwrap();
        assert_eq!(processes.alive(7, Some(100), is_any), Alive::Unknown);
    }

    #[test]
    fn this_process_lives_by_the_kernels_own_word() {
        let stat = std::fs::read("/proc/self/stat").unwrap();
        let (_, start) = parse_stat(&stat).unwrap();
        let processes = Processes::under(Path::new("/proc"));
        let pid = std::process::id();
        assert_eq!(processes.alive(pid, Some(start), is_any), Alive::Yes);
        assert_eq!(processes.alive(pid, Some(start + 1), is_any), Alive::No);
    }

    #[test]
    fn gateways_are_known_by_their_command_lines() {
        for (command, gateway) in [
            (GATEWAY, true),
            ("/usr/bin/node /home/x/.npm-global/bin/openclaw gateway run", true),
            ("openclaw-gateway", true),
            ("node /x/openclaw/openclaw.mjs gateway", true),
            ("node /x/other.js gateway", false),
            ("openclaw agents list", false),
            ("", false),
        ] {
            assert_eq!(is_gateway(command.replace(' ', "\0").as_bytes()), gateway, "{command}");
        }
    }
}
