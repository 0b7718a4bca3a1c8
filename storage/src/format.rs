//! The version of a data directory, and the way to it from an older one.
//!
//! `FORMAT` states it in one line: `harborforge-queue <version> crc32c <of all before this word>`.
//! The line is checked so that a flipped digit is not taken for another version. Records, slots
//! and manifest carry versions of their own; the manifest's first line repeats this one.
//!
//! Invariants:
//! - What a newer version wrote is never touched: it is refused, whichever of the two says so.
//! - A lost or damaged `FORMAT` is written again: the manifest says what stood there, and where
//!   that is lost too, it is this version's.
//! - Steps lead from each version to the next. A step may be killed anywhere and is then run
//!   again from its beginning, so it must be content with its own work done in part or whole. It
//!   makes that durable, the manifest last, before it returns; `FORMAT` is replaced after it.
//! - A reader that may not write migrates nothing: it refuses what is older.

use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::files;
use crate::manifest;
use crate::queue::manifest_path;
use crate::report::FileState;

/// The format of a data directory: of all files in it together.
pub(crate) const FORMAT: u32 = 1;

/// The way from one version to the next.
pub(crate) struct Step {
    /// The version it begins with.
    from: u32,
    /// Brings the queue's directory to version `from + 1`; see the module's text.
    run: fn(&Path) -> Result<(), Error>,
}

/// The steps from every older version there has been: none yet.
const STEPS: [Step; 0] = [];

/// Checks the format of the queue in `dir`, migrates an older one, and states what was not stated.
pub(crate) fn settle(dir: &Path) -> Result<(), Error> {
    settle_with(dir, &STEPS, FORMAT)
}

/// Checks the format of the queue in `dir` without writing; in what state `FORMAT` is.
pub(crate) fn check(dir: &Path) -> Result<FileState, Error> {
    let found = look(dir)?;
    let version = found.known_to(dir, FORMAT)?;
    if version < FORMAT {
        return Err(older(dir, version, FORMAT));
    }
    Ok(found.state)
}

/// What the two places say.
struct Stated {
    /// Of the file `FORMAT`.
    state: FileState,
    file: Option<u32>,
    manifest: Option<u32>,
    /// The line is one without a checksum, or none at all.
    to_be_written: bool,
}

impl Stated {
    /// The version the directory is at, unless either says that it is newer than `supported`.
    fn known_to(&self, dir: &Path, supported: u32) -> Result<u32, Error> {
        for (found, path) in [(self.file, statement(dir)), (self.manifest, manifest_path(dir))] {
            if let Some(found) = found.filter(|&found| found > supported) {
                return Err(Error::NewerFormat { path, found, supported });
            }
        }
        Ok(self.file.or(self.manifest).unwrap_or(supported))
    }
}

fn look(dir: &Path) -> Result<Stated, Error> {
    let read = |path: &Path| files::read_if_there(path).map_err(|e| Error::io("read", path, e));
    let content = read(&statement(dir))?;
    let manifest = read(&manifest_path(dir))?;
    let line = content.as_deref().and_then(read_statement);
    Ok(Stated {
        state: match (&content, line) {
            (None, _) => FileState::Missing,
            (Some(_), None) => FileState::Damaged,
            (Some(_), Some(_)) => FileState::Good,
        },
        file: line.map(|line| line.version),
        manifest: manifest.as_deref().and_then(manifest::stated_version),
        to_be_written: !line.is_some_and(|line| line.checked),
    })
}

fn settle_with(dir: &Path, steps: &[Step], supported: u32) -> Result<(), Error> {
    let found = look(dir)?;
    let mut version = found.known_to(dir, supported)?;
    let before = version;
    while version < supported {
        let step = steps.iter().find(|step| step.from == version);
        let step = step.ok_or_else(|| older(dir, version, supported))?;
        (step.run)(dir)?;
        version = version.saturating_add(1);
        state(dir, version).map_err(|e| Error::io("write", &statement(dir), e))?;
        tracing::info!(dir = %dir.display(), from = before, to = version, "the queue's files were migrated");
    }
    if before == version
        && found.to_be_written
        && let Err(error) = state(dir, version)
    {
        // Nothing depends on it yet, and a full disk must not keep the queue from opening.
        tracing::warn!(path = %statement(dir).display(), %error, "cannot state the format");
    }
    Ok(())
}

fn statement(dir: &Path) -> PathBuf {
    dir.join("FORMAT")
}

fn older(dir: &Path, found: u32, supported: u32) -> Error {
    Error::OlderFormat { path: statement(dir), found, supported }
}

fn state(dir: &Path, version: u32) -> std::io::Result<()> {
    let said = format!("harborforge-queue {version}");
    let line = format!("{said} crc32c {:08x}\n", crc32c::crc32c(said.as_bytes()));
    files::replace(&statement(dir), line.as_bytes())
}

/// A line that states a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Statement {
    version: u32,
    /// It carries its checksum. One without is believed too, since nobody else writes it.
    checked: bool,
}

/// Reads the content of `FORMAT`; none if it is damaged.
pub(crate) fn read_statement(content: &[u8]) -> Option<Statement> {
    let line = std::str::from_utf8(content).ok()?;
    let line = line.strip_suffix('\n').unwrap_or(line);
    let (said, checked) = match line.split_once(" crc32c ") {
        Some((said, crc)) => {
            let right = crc == format!("{:08x}", crc32c::crc32c(said.as_bytes()));
            (right.then_some(said)?, true)
        }
        None => (line, false),
    };
    let number = said.strip_prefix("harborforge-queue ")?;
    let version = number.parse().ok().filter(|version: &u32| version.to_string() == number)?;
    Some(Statement { version, checked })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;
    use std::cell::Cell;
    use std::fs;

    fn version_in(dir: &Path) -> Option<u32> {
        read_statement(&fs::read(statement(dir)).ok()?).map(|line| line.version)
    }

    #[test]
    fn golden_statement() {
        let dir = tempfile::tempdir().unwrap();
        settle(dir.path()).unwrap();
        let text = fs::read_to_string(statement(dir.path())).unwrap();
        assert_eq!(text, "harborforge-queue 1 crc32c e0a1439e\n");
        assert_eq!(check(dir.path()).unwrap(), FileState::Good);
    }

    #[test]
    fn any_damage_is_noticed_and_mended() {
        let dir = tempfile::tempdir().unwrap();
        settle(dir.path()).unwrap();
        let good = fs::read(statement(dir.path())).unwrap();
        for at in 0..good.len() {
            for damaged in [good[..at].to_vec(), {
                let mut flipped = good.clone();
                flipped[at] ^= 2;
                flipped
            }] {
                fs::write(statement(dir.path()), &damaged).unwrap();
                let seen = read_statement(&damaged);
                let plain = Statement { version: 1, checked: false };
                let whole = Statement { version: 1, checked: true };
                assert!([None, Some(plain), Some(whole)].contains(&seen), "{damaged:?} {seen:?}");
                settle(dir.path()).unwrap();
                assert_eq!(version_in(dir.path()), Some(1));
            }
        }
        fs::remove_file(statement(dir.path())).unwrap();
        assert_eq!(check(dir.path()).unwrap(), FileState::Missing);
        settle(dir.path()).unwrap();
        assert_eq!(fs::read(statement(dir.path())).unwrap(), good);
    }

    #[test]
    fn a_newer_format_is_refused_whoever_says_so_and_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |what: &str| {
            for result in [settle(dir.path()), check(dir.path()).map(drop)] {
                match result {
                    Err(Error::NewerFormat { found: 7, supported: FORMAT, path }) => {
                        assert!(path.ends_with(what), "{}", path.display());
                    }
                    other => panic!("{other:?}"),
                }
            }
        };
        state(dir.path(), 7).unwrap();
        refused("FORMAT");
        fs::write(statement(dir.path()), "harborforge-queue 7\n").unwrap();
        refused("FORMAT");
        assert_eq!(fs::read(statement(dir.path())).unwrap(), b"harborforge-queue 7\n");
        // A migration of the newer version that was cut short, and a lost FORMAT.
        let body = "{\"something\":\"new\"}";
        let crc = crc32c::crc32c(body.as_bytes());
        let manifest = format!("harborforge-queue 7 crc32c {crc:08x}\n{body}\n");
        fs::write(manifest_path(dir.path()), manifest).unwrap();
        state(dir.path(), FORMAT).unwrap();
        refused("manifest");
        fs::remove_file(statement(dir.path())).unwrap();
        refused("manifest");
        assert!(!statement(dir.path()).exists());
    }

    thread_local! {
        /// How many more writes the steps below may make before they are "killed".
        static WRITES: Cell<u32> = const { Cell::new(u32::MAX) };
    }

    /// A write of a step, or the kill before it.
    fn write(path: &Path, content: &str) -> Result<(), Error> {
        let left = WRITES.get();
        WRITES.set(left.saturating_sub(1));
        let killed = || Err(std::io::Error::other("killed"));
        let done = if left == 0 { killed() } else { files::replace(path, content.as_bytes()) };
        done.map_err(|e| Error::io("write", path, e))
    }

    /// From an invented version 8: every word becomes a line of its own ...
    fn from_8(dir: &Path) -> Result<(), Error> {
        for name in ["one", "two"] {
            let path = dir.join(name);
            let text = fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
            write(&path, &text.split_whitespace().collect::<Vec<_>>().join("\n"))?;
        }
        Ok(())
    }

    /// ... and from 9 on both are one file.
    fn from_9(dir: &Path) -> Result<(), Error> {
        let text = |name| fs::read_to_string(dir.join(name)).unwrap_or_default();
        if dir.join("one").exists() {
            write(&dir.join("all"), &format!("{}\n{}", text("one"), text("two")))?;
        }
        for name in ["one", "two"] {
            let _ = fs::remove_file(dir.join(name));
        }
        Ok(())
    }

    const INVENTED: [Step; 2] = [Step { from: 9, run: from_9 }, Step { from: 8, run: from_8 }];

    #[test]
    fn an_older_one_migrates_step_by_step_wherever_it_is_killed() {
        let mut tries = Vec::new();
        for writes in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            state(dir.path(), 8).unwrap();
            fs::write(dir.path().join("one"), "a b").unwrap();
            fs::write(dir.path().join("two"), "c  d").unwrap();
            WRITES.set(writes);
            let cut = settle_with(dir.path(), &INVENTED, 10).is_err();
            WRITES.set(u32::MAX);
            let at = version_in(dir.path());
            settle_with(dir.path(), &INVENTED, 10).unwrap();
            assert_eq!(version_in(dir.path()), Some(10));
            assert_eq!(fs::read_to_string(dir.path().join("all")).unwrap(), "a\nb\nc\nd");
            assert_eq!(files::names(dir.path()).unwrap().len(), 2, "FORMAT and the one file");
            tries.push((cut, at));
        }
        let expected = [(true, 8), (true, 8), (true, 9), (false, 10), (false, 10)];
        assert_eq!(tries, expected.map(|(cut, at)| (cut, Some(at))));
    }

    #[test]
    fn a_version_nothing_leads_from_and_a_reader_that_may_not_write_are_told() {
        let dir = tempfile::tempdir().unwrap();
        state(dir.path(), 7).unwrap();
        match settle_with(dir.path(), &INVENTED, 10) {
            Err(Error::OlderFormat { found: 7, supported: 10, .. }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(version_in(dir.path()), Some(7));
        state(dir.path(), FORMAT - 1).unwrap();
        assert!(matches!(check(dir.path()), Err(Error::OlderFormat { found: 0, .. })));
    }

    #[test]
    fn the_manifest_repeats_the_version() {
        let dir = tempfile::tempdir().unwrap();
        Manifest::default().write(&manifest_path(dir.path())).unwrap();
        assert_eq!(look(dir.path()).unwrap().manifest, Some(FORMAT));
    }
}
