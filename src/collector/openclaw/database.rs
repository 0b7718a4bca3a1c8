//! Which of an agent's sessions have an active run, by the SQLite database of OpenClaw from 2026.8
//! on.
//!
//! Invariants:
//! - The database is opened for reading alone and closed again at once; nothing is opened while
//!   neither it nor its log (`-wal`) has changed.
//! - What SQLite opens by itself (`-journal`, `-shm`) is looked at before: a FIFO in its place
//!   would be waited for without end.
//! - What is asked is a maximum over plain tables: a view or a virtual table in their place, which
//!   could do anything, is refused; so are tables without the columns that are asked for.
//! - A question takes [`PATIENCE`] at most, whatever the file's pages say; one that took longer is
//!   not asked again for [`REST`], and each time it does so again for twice as long, up to
//!   [`MOST_REST`]: a thousand such databases take a twentieth of a core.
//! - Without the feature `openclaw-sqlite` every answer is "cannot be read".

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::file::{self, FileError, Stamp};
use super::sessions::Unreadable;

/// For how long a database is asked: what is usual takes two milliseconds.
pub const PATIENCE: Duration = Duration::from_millis(200);

/// How long a database that could not be looked through in time is left alone.
pub const REST: Duration = Duration::from_secs(60);

/// The longest of those rests.
pub const MOST_REST: Duration = Duration::from_secs(3600);

/// The sessions of one agent; remembers what has not changed.
#[derive(Debug, Default)]
pub struct Database {
    known: Option<(Stamps, Result<Option<u64>, Unreadable>)>,
    /// When a question took too long, and for how long none is asked.
    gave_up: Option<(SystemTime, Duration)>,
}

type Stamps = (Stamp, Option<Stamp>);

/// Why there is no answer.
#[derive(Debug)]
// Without SQLite only one of them comes up.
#[cfg_attr(not(feature = "openclaw-sqlite"), allow(dead_code))]
enum Fault {
    /// SQLite refuses, in its own words; it may be busy.
    Sqlite(String),
    /// The tables or columns are not there.
    Schema,
    /// It took longer than [`PATIENCE`].
    TooLong,
}

impl Database {
    /// When the newest session marked as running was written, in milliseconds since 1970; `None`
    /// when none is. `path` is a regular file.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn look(&mut self, path: &Path, now: SystemTime) -> Result<Option<u64>, Unreadable> {
        let regular = |suffix: &str| match file::look(&beside(path, suffix)) {
            Ok(stamp) => Ok(Some(stamp)),
            Err(FileError::Missing) => Ok(None),
            Err(error) => Err(error),
        };
        regular("-journal")?;
        regular("-shm")?;
        let log = regular("-wal")?;
        let stamps = (file::look(path)?, log);
        match &self.known {
            Some((known, marked)) if *known == stamps => return marked.clone(),
            Some(_) | None => {}
        }
        let rests = |(at, rest)| now.duration_since(at).is_ok_and(|ago| ago < rest);
        if self.gave_up.is_some_and(rests) {
            return Err(unreadable(&Fault::TooLong));
        }
        let answer = newest_marked(path, log.is_some());
        // A busy database is asked again, whether it has changed or not.
        let lasts = matches!(answer, Ok(_) | Err(Fault::Schema));
        let rest = self.gave_up.map_or(REST, |(_, rest)| rest.saturating_mul(2).min(MOST_REST));
        self.gave_up = matches!(answer, Err(Fault::TooLong)).then_some((now, rest));
        let marked = answer.map_err(|fault| unreadable(&fault));
        let settled = stamps.0.settled(now) && log.is_none_or(|log| log.settled(now));
        self.known = (settled && lasts).then(|| (stamps, marked.clone()));
        marked
    }
}

fn unreadable(fault: &Fault) -> Unreadable {
    Unreadable::Format(match fault {
        Fault::Sqlite(said) => said.clone(),
        Fault::Schema => "not the tables that are expected".to_owned(),
        Fault::TooLong => {
            format!("its sessions cannot be looked through within {} ms", PATIENCE.as_millis())
        }
    })
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(not(feature = "openclaw-sqlite"))]
fn newest_marked(_path: &Path, _with_log: bool) -> Result<Option<u64>, Fault> {
    Err(Fault::Sqlite("this build reads no SQLite (feature openclaw-sqlite)".to_owned()))
}

#[cfg(feature = "openclaw-sqlite")]
use query::newest_marked;

#[cfg(feature = "openclaw-sqlite")]
mod query {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use rusqlite::{Connection, Error, ErrorCode, OpenFlags};

    use super::{Fault, PATIENCE};

    /// How long a writer that holds the database is waited for.
    const BUSY: Duration = Duration::from_millis(50);

    /// Instructions of SQLite's machine between two looks at the time: about a millisecond.
    const INSTRUCTIONS: i32 = 10_000;

    /// The tables that may have the sessions' statuses, the newer one first.
    const TABLES: [&str; 2] = ["session_nodes", "session_entries"];

    impl From<Error> for Fault {
        fn from(error: Error) -> Self {
            match error.sqlite_error_code() {
                Some(ErrorCode::OperationInterrupted) => Self::TooLong,
                // Without the words of the file: SQLite's own may quote a schema.
                Some(code) => Self::Sqlite(format!("SQLite says {code:?}")),
                None => Self::Schema,
            }
        }
    }

    pub(super) fn newest_marked(path: &Path, with_log: bool) -> Result<Option<u64>, Fault> {
        let Some(uri) = uri(path, with_log) else {
            return Err(Fault::Sqlite("its path is no UTF-8 text".to_owned()));
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut database = Connection::open_with_flags(uri, flags)?;
        let started = Instant::now();
        // Pages may refer to one another so that a scan has no end.
        database.progress_handler(INSTRUCTIONS, Some(move || started.elapsed() > PATIENCE))?;
        database.busy_timeout(BUSY)?;
        // Little memory, and no function of the schema's is trusted.
        database.execute_batch(
            "PRAGMA trusted_schema = OFF; PRAGMA query_only = ON; PRAGMA cache_size = -256; PRAGMA mmap_size = 0;",
        )?;
        for table in TABLES {
            // Views and virtual tables have no root page.
            let plain: bool = database.query_row(
                "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1 AND rootpage > 0)",
                [table],
                |row| row.get(0),
            )?;
            if !plain || !has(&database, table, "status")? || !has(&database, table, "updated_at")?
            {
                continue;
            }
            let kept =
                if has(&database, table, "archived_at")? { "AND archived_at IS NULL" } else { "" };
            let question = format!(
                "SELECT max(CAST(updated_at AS INTEGER)) FROM {table} WHERE status = 'running' {kept}"
            );
            let newest: Option<i64> = database.query_row(&question, [], |row| row.get(0))?;
            return Ok(newest.map(|newest| u64::try_from(newest).unwrap_or(0)));
        }
        // One that has just been made has no session yet. One with other tables is of an OpenClaw
        // that keeps its sessions elsewhere.
        let made: bool =
            database.query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_master)", [], |row| {
                row.get(0)
            })?;
        if made { Ok(None) } else { Err(Fault::Schema) }
    }

    fn has(database: &Connection, table: &str, column: &str) -> Result<bool, Error> {
        let question = "SELECT EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2)";
        database.query_row(question, [table, column], |row| row.get(0))
    }

    /// Without a log nobody has it open, and a reader would have to make one: `immutable` spares
    /// that. With one, the index beside it is opened for reading alone.
    fn uri(path: &Path, with_log: bool) -> Option<String> {
        let mut uri = "file:".to_owned();
        for c in path.to_str()?.chars() {
            match c {
                '%' => uri.push_str("%25"),
                '?' => uri.push_str("%3f"),
                '#' => uri.push_str("%23"),
                _ => uri.push(c),
            }
        }
        uri.push_str(if with_log { "?mode=ro&readonly_shm=1" } else { "?mode=ro&immutable=1" });
        Some(uri)
    }
}

#[cfg(all(test, feature = "openclaw-sqlite"))]
mod tests {
    use super::*;
    use rusqlite::Connection;
    use std::time::Duration;

    const SCHEMA: &str = "CREATE TABLE session_nodes (session_key TEXT NOT NULL PRIMARY KEY,
        current_session_id TEXT NOT NULL, entry_json TEXT NOT NULL, updated_at INTEGER NOT NULL,
        status TEXT, archived_at INTEGER) STRICT;";

    fn row(key: &str, status: &str, updated: u64) -> String {
        format!(
            "INSERT INTO session_nodes VALUES ('{key}', 'x', '{{\"token\":\"geheim\"}}', {updated}, {status}, NULL);"
        )
    }

    fn later() -> SystemTime {
        SystemTime::now() + Duration::from_secs(60)
    }

    #[test]
    fn running_sessions_are_seen_while_a_writer_has_the_database_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("openclaw agent?#%.sqlite");
        let writer = Connection::open(&path).unwrap();
        writer.execute_batch("PRAGMA journal_mode = WAL;").unwrap();
        writer.execute_batch(SCHEMA).unwrap();
        let mut database = Database::default();
        assert_eq!(database.look(&path, later()), Ok(None));
        writer.execute_batch(&row("a", "'running'", 500)).unwrap();
        writer.execute_batch(&row("b", "'done'", 900)).unwrap();
        writer.execute_batch(&row("c", "'running'", 700)).unwrap();
        assert_eq!(database.look(&path, later()), Ok(Some(700)), "its log is newer");
        writer
            .execute_batch("UPDATE session_nodes SET archived_at = 1 WHERE session_key = 'c'")
            .unwrap();
        assert_eq!(database.look(&path, later()), Ok(Some(500)));
        // In the middle of a writer's transaction, too.
        writer.execute_batch("BEGIN IMMEDIATE; UPDATE session_nodes SET status = 'done';").unwrap();
        assert_eq!(database.look(&path, later()), Ok(Some(500)));
        writer.execute_batch("COMMIT").unwrap();
        assert_eq!(database.look(&path, later()), Ok(None));
        drop(writer);
        let names = || std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(names(), 1, "the log is gone with its writer");
        assert_eq!(database.look(&path, later()), Ok(None));
        assert_eq!(names(), 1, "and a reader makes no other");
    }

    #[test]
    fn nothing_is_opened_while_nothing_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sqlite");
        let writer = Connection::open(&path).unwrap();
        writer.execute_batch(SCHEMA).unwrap();
        let mut database = Database::default();
        assert_eq!(database.look(&path, later()), Ok(None));
        let (stamps, _) = database.known.clone().unwrap();
        database.known = Some((stamps, Ok(Some(7))));
        assert_eq!(database.look(&path, later()), Ok(Some(7)));
        writer.execute_batch(&row("a", "'running'", 1)).unwrap();
        assert_eq!(database.look(&path, later()), Ok(Some(1)));
        assert_eq!(database.look(&path, SystemTime::now()), Ok(Some(1)));
    }

    #[test]
    fn the_table_before_the_rename_serves_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sqlite");
        let writer = Connection::open(&path).unwrap();
        writer
            .execute_batch(
                "CREATE TABLE session_entries (session_key TEXT, updated_at INTEGER, status TEXT);
                 INSERT INTO session_entries VALUES ('a', 5, 'running');",
            )
            .unwrap();
        assert_eq!(Database::default().look(&path, later()), Ok(Some(5)));
    }

    #[test]
    fn what_is_no_database_or_pretends_to_be_one_is_an_error_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let look = |name: &str| Database::default().look(&dir.path().join(name), later());
        std::fs::write(dir.path().join("text"), "geheim ".repeat(1000)).unwrap();
        let error = look("text").unwrap_err().to_string();
        assert!(error.contains("SQLite says") && !error.contains("geheim"), "{error}");
        std::fs::write(dir.path().join("empty"), "").unwrap();
        assert_eq!(look("empty"), Ok(None));
        // A view that never ends.
        let view = Connection::open(dir.path().join("view")).unwrap();
        view.execute_batch(
            "CREATE VIEW session_nodes AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
             SELECT i AS updated_at, 'running' AS status FROM n;",
        )
        .unwrap();
        let error = look("view").unwrap_err().to_string();
        assert_eq!(error, "not the tables that are expected");
        // Torn off in the middle of its pages.
        let path = dir.path().join("torn");
        let whole = Connection::open(&path).unwrap();
        whole.execute_batch(SCHEMA).unwrap();
        for n in 0..200 {
            whole.execute_batch(&row(&format!("{n}"), "'running'", n)).unwrap();
        }
        drop(whole);
        let size = std::fs::metadata(&path).unwrap().len();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(size / 2).unwrap();
        assert!(look("torn").is_err());
    }

    #[test]
    fn tables_that_changed_are_not_taken_for_no_sessions() {
        let dir = tempfile::tempdir().unwrap();
        for (name, schema) in [
            ("status", "CREATE TABLE session_nodes (session_key TEXT, updated_at INTEGER);"),
            ("updated", "CREATE TABLE session_nodes (session_key TEXT, status TEXT);"),
            ("renamed", "CREATE TABLE runs (updated_at INTEGER, status TEXT);"),
        ] {
            let path = dir.path().join(name);
            Connection::open(&path).unwrap().execute_batch(schema).unwrap();
            let mut database = Database::default();
            let error = database.look(&path, later()).unwrap_err().to_string();
            assert_eq!(error, "not the tables that are expected", "{name}");
            assert!(database.known.is_some(), "{name}: not opened again before it changes");
        }
    }

    #[test]
    fn what_sqlite_opens_by_itself_is_no_fifo() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let dir = tempfile::tempdir().unwrap();
        for (log, suffix) in [("-wal", "-shm"), ("-wal", "-journal"), ("", "-journal")] {
            let path = dir.path().join(format!("a{log}{suffix}.sqlite"));
            let whole = Connection::open(&path).unwrap();
            let mode = if suffix == "-shm" { "PRAGMA journal_mode = WAL;" } else { "" };
            whole.execute_batch(&format!("{mode}{SCHEMA}")).unwrap();
            drop(whole);
            if !log.is_empty() {
                std::fs::write(beside(&path, log), "").unwrap();
            }
            let fifo = beside(&path, suffix);
            mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
            let error = Database::default().look(&path, later()).unwrap_err();
            assert_eq!(error, Unreadable::File(FileError::NotAFile), "{}", fifo.display());
        }
    }

    #[test]
    fn a_scan_without_end_is_ended_and_not_begun_again_at_once() {
        /// Five levels of pages, each of which names the next one 400 times: ten million million rows
        /// in 28 KiB.
        fn without_end(path: &Path) {
            const PAGE: usize = 4096;
            let small = Connection::open(path).unwrap();
            small
                .execute_batch(
                    "PRAGMA page_size = 4096; CREATE TABLE session_nodes (updated_at INTEGER, status TEXT);
                     INSERT INTO session_nodes VALUES (1, 'done');",
                )
                .unwrap();
            drop(small);
            let mut bytes = std::fs::read(path).unwrap();
            assert_eq!(bytes.len(), 2 * PAGE);
            let leaf = bytes.split_off(PAGE);
            for page in 2..7_u32 {
                let mut interior = vec![0; PAGE];
                let (cells, child) = (400_u16, (page + 1).to_be_bytes());
                let at = u16::try_from(PAGE).unwrap() - 5;
                interior[0] = 5;
                interior[3..5].copy_from_slice(&cells.to_be_bytes());
                interior[5..7].copy_from_slice(&at.to_be_bytes());
                interior[8..12].copy_from_slice(&child);
                for cell in 0..usize::from(cells) {
                    interior[12 + 2 * cell..14 + 2 * cell].copy_from_slice(&at.to_be_bytes());
                }
                interior[PAGE - 5..PAGE - 1].copy_from_slice(&child);
                interior[PAGE - 1] = 1;
                bytes.extend(interior);
            }
            bytes.extend(leaf);
            bytes[28..32].copy_from_slice(&7_u32.to_be_bytes());
            std::fs::write(path, bytes).unwrap();
        }

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sqlite");
        without_end(&path);
        let mut database = Database::default();
        let now = later();
        let too_long = "its sessions cannot be looked through within 200 ms";
        assert_eq!(database.look(&path, now).unwrap_err().to_string(), too_long);
        let at = |seconds| now + Duration::from_secs(seconds);
        assert!(database.look(&path, at(60)).is_err());
        assert_eq!(database.gave_up, Some((at(60), REST * 2)), "the second rest is longer");
        database.gave_up = Some((now, MOST_REST));
        assert!(database.look(&path, at(3600)).is_err());
        assert_eq!(database.gave_up, Some((at(3600), MOST_REST)));
        // Mended meanwhile; that shows after a rest.
        database.gave_up = Some((now, REST));
        std::fs::remove_file(&path).unwrap();
        Connection::open(&path).unwrap().execute_batch(SCHEMA).unwrap();
        assert_eq!(database.look(&path, at(59)).unwrap_err().to_string(), too_long);
        assert_eq!(database.look(&path, at(60)), Ok(None));
        assert_eq!(database.gave_up, None);
    }
}
