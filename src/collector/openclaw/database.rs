//! Which of an agent's sessions have an active run, by the SQLite database of OpenClaw from 2026.8
//! on.
//!
//! Invariants:
//! - The database is opened for reading alone and closed again at once; nothing is opened while
//!   neither it nor its log (`-wal`) has changed.
//! - What is asked is a count over plain tables: a view or a virtual table in their place, which
//!   could do anything, is refused.
//! - Without the feature `openclaw-sqlite` every answer is "cannot be read".

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::file::{self, FileError, Stamp};
use super::sessions::Unreadable;

/// The sessions of one agent; remembers what has not changed.
#[derive(Debug, Default)]
pub struct Database {
    known: Option<(Stamps, Result<Option<u64>, Unreadable>)>,
}

type Stamps = (Stamp, Option<Stamp>);

impl Database {
    /// When the newest session marked as running was written, in milliseconds since 1970; `None`
    /// when none is. `path` is a regular file.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn look(&mut self, path: &Path, now: SystemTime) -> Result<Option<u64>, Unreadable> {
        let log = match file::look(&beside(path, "-wal")) {
            Ok(stamp) => Some(stamp),
            Err(FileError::Missing) => None,
            Err(error) => return Err(error.into()),
        };
        let stamps = (file::look(path)?, log);
        match &self.known {
            Some((known, marked)) if *known == stamps => marked.clone(),
            _ => {
                let marked = newest_marked(path, log.is_some());
                let settled = stamps.0.settled(now) && log.is_none_or(|log| log.settled(now));
                // A busy database is asked again, whether it has changed or not.
                self.known = (settled && marked.is_ok()).then(|| (stamps, marked.clone()));
                marked
            }
        }
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(not(feature = "openclaw-sqlite"))]
fn newest_marked(_path: &Path, _with_log: bool) -> Result<Option<u64>, Unreadable> {
    let why = "this build reads no SQLite (feature openclaw-sqlite)";
    Err(Unreadable::Format(why.to_owned()))
}

#[cfg(feature = "openclaw-sqlite")]
fn newest_marked(path: &Path, with_log: bool) -> Result<Option<u64>, Unreadable> {
    query::newest_marked(path, with_log).map_err(|error| Unreadable::Format(query::said(&error)))
}

#[cfg(feature = "openclaw-sqlite")]
mod query {
    use std::path::Path;
    use std::time::Duration;

    use rusqlite::{Connection, Error, OpenFlags};

    /// How long a writer that holds the database is waited for.
    const BUSY: Duration = Duration::from_millis(50);

    /// The tables that may have the sessions' statuses, the newer one first.
    const TABLES: [&str; 2] = ["session_nodes", "session_entries"];

    pub(super) fn newest_marked(path: &Path, with_log: bool) -> Result<Option<u64>, Error> {
        let Some(uri) = uri(path, with_log) else {
            return Err(Error::InvalidPath(path.to_owned()));
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(uri, flags)?;
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
        // A database that has just been made: no session was ever written.
        Ok(None)
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

    /// An error without the words of the file: SQLite's own may quote a schema.
    pub(super) fn said(error: &Error) -> String {
        match error.sqlite_error_code() {
            Some(code) => format!("SQLite says {code:?}"),
            None => "not the tables that are expected".to_owned(),
        }
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
        assert_eq!(look("view"), Ok(None));
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
}
