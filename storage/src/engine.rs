//! One sled database, and the only file that names sled.
//!
//! Invariants, each against a measured trap of sled 0.34:
//! - A value is at most [`CHUNK`] bytes; a record is spread over several keys. sled writes a
//!   page above a quarter of a segment to a file of its own that it never syncs, and a leaf
//!   holds up to 17 values, so with this bound no such file ever exists.
//! - The first chunk of a record is written last: a record without it was never appended.
//! - At most [`SYNC_EVERY`] payload bytes are unsynced at any time, under half a segment: with
//!   more, power cuts tear segments that were synced before.
//! - `flush` alone does not reach the disk: [`Store::sync`] also calls fdatasync on the
//!   database file through a handle of its own.
//! - No flusher thread (`flush_every_ms(None)`).
//! - Opening erases what the engine does not take for its log, snapshot or not: one bad byte in the
//!   last segment costs all that follows it. So a log is looked through first (`frames.rs`), and
//!   copied if opening it may cost a record.
//! - Half-written snapshots go before every opening: sled takes one for the newest snapshot.
//! - A panic is caught and becomes [`Fault::Damaged`], or [`Fault::Io`] where it only passes on
//!   what the operating system said.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::files;
use crate::frames::SEGMENT;
use crate::mend::{
    Repairs, free_of_leftovers, keep_log_unless_harmless, move_aside, remove_half_snapshots,
    undo_opening,
};
use crate::record;

/// Largest value. 17 of them, with keys, stay below a quarter of a segment.
pub(crate) const CHUNK: usize = 896;
/// Payload bytes after which a sync is due.
pub(crate) const SYNC_EVERY: usize = 28 * 1024;

/// What sled says, as a bug to report, when a thread shared by all databases is gone. It says
/// the same of pages that are missing or out of place, which concerns one database alone.
const POOL_DIED: [&str; 2] = ["IO thread unexpectedly panicked", "threadpool failed to complete"];

/// Why the engine did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The operating system refused: says nothing about the content.
    Io(io::Error),
    /// The content is damaged, or the engine panicked on it.
    Damaged(String),
    /// The engine's shared threads have died.
    PoolBroken(String),
}

impl Fault {
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_))
    }

    pub(crate) fn text(&self) -> String {
        match self {
            Self::Io(error) => error.to_string(),
            Self::Damaged(text) | Self::PoolBroken(text) => text.clone(),
        }
    }
}

impl From<sled::Error> for Fault {
    fn from(error: sled::Error) -> Self {
        match error {
            // A read past the end of the file is a file cut short, not a failing disk.
            sled::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Damaged(format!("the database file is cut short: {error}"))
            }
            sled::Error::Io(error) => Self::Io(error),
            sled::Error::ReportableBug(text)
                if POOL_DIED.iter().any(|died| text.contains(died)) =>
            {
                Self::PoolBroken(text)
            }
            other @ (sled::Error::ReportableBug(_)
            | sled::Error::Corruption { .. }
            | sled::Error::Unsupported(_)
            | sled::Error::CollectionNotFound(_)) => Self::Damaged(other.to_string()),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Whether a thread of this name belongs to the database engine.
///
/// Such a thread must not panic: a call that waits for it would wait for ever. It cannot be
/// caught from here, so a program installs a panic hook that ends the process when this says
/// yes, and lets its supervisor start it again; opening then mends what was left.
pub fn is_engine_thread(name: &str) -> bool {
    name.starts_with("sled-io")
}

/// What a visitor of records wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visit {
    Continue,
    Stop,
}

/// How much a visit of records saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// Everything asked for.
    Whole,
    /// There is a damaged place, and what lay there is not known.
    InPart,
}

/// An open database.
pub(crate) struct Store {
    db: Option<sled::Db>,
    file: File,
    unsynced: usize,
}

impl Store {
    /// Makes a new database in `dir`, which must not exist, and syncs all its names.
    pub(crate) fn create(dir: &Path, cache: u64) -> Result<Self, Fault> {
        files::create_private_dir(dir)?;
        let store = open_once(dir, cache)?;
        store.file.sync_data()?;
        files::sync_file(&dir.join("conf"))?;
        files::sync_dir(&dir.join("blobs"))?;
        files::sync_dir(dir)?;
        if let Some(parent) = dir.parent() {
            files::sync_dir(parent)?;
        }
        Ok(store)
    }

    /// Opens the database in `dir`, mending what can be mended without loss.
    ///
    /// Opening erases, snapshot or not, whatever the engine does not see as part of its log any
    /// more, so a log of which that may cost a record is copied first ([`Repairs::kept_log`]): it
    /// is for the caller to look into the copy and to remove it, or to drop the store; nothing is
    /// written to it before. Where there already is a copy, see [`undo_opening`].
    ///
    /// [`Fault::Damaged`] comes only after everything was tried.
    pub(crate) fn open(dir: &Path, cache: u64, repairs: &mut Repairs) -> Result<Self, Fault> {
        undo_opening(dir)?;
        if dir.join("db").try_exists()? {
            keep_log_unless_harmless(dir, repairs)?;
        }
        let opened = Self::open_as_it_is(dir, cache, repairs);
        if repairs.kept_log && matches!(opened, Err(Fault::Io(_))) {
            // Refused: the next try begins with what this one began with. If it cannot be put
            // back now, that try does it.
            if let Err(fault) = undo_opening(dir) {
                tracing::debug!(dir = %dir.display(), error = fault.text(), "a log is put back later");
            }
        }
        opened
    }

    /// Likewise, where it does not matter what is erased: a copy, or what was delivered.
    pub(crate) fn open_as_it_is(
        dir: &Path,
        cache: u64,
        repairs: &mut Repairs,
    ) -> Result<Self, Fault> {
        remove_half_snapshots(dir, repairs)?;
        // sled would quietly make an empty database in place of a lost one.
        if !dir.join("db").try_exists()? {
            return Err(Fault::Damaged("the database file is gone".to_owned()));
        }
        let first = match open_once(dir, cache) {
            Ok(store) => return Ok(store),
            Err(fault @ (Fault::Io(_) | Fault::PoolBroken(_))) => return Err(fault),
            Err(fault @ Fault::Damaged(_)) => fault,
        };
        tracing::debug!(dir = %dir.display(), error = first.text(), "a generation does not open; trying without its settings and snapshots");
        // The settings are the same for all databases, and the log alone rebuilds a snapshot.
        for prefixes in [["conf"].as_slice(), &["snap."]] {
            if !move_aside(dir, prefixes, repairs)? {
                continue;
            }
            match open_once(dir, cache) {
                Ok(store) => {
                    store.file.sync_data()?;
                    files::sync_dir(dir)?;
                    return Ok(store);
                }
                Err(fault @ (Fault::Io(_) | Fault::PoolBroken(_))) => return Err(fault),
                Err(Fault::Damaged(_)) => remove_half_snapshots(dir, repairs)?,
            }
        }
        Err(first)
    }

    /// Writes the stored form of a record under its number, syncing as often as the bound on
    /// unsynced bytes asks. Durable only after [`sync`](Self::sync).
    pub(crate) fn put(&mut self, seq: u64, encoded: &[u8]) -> Result<(), Fault> {
        let chunks: Vec<&[u8]> = encoded.chunks(CHUNK).collect();
        for (index, chunk) in chunks.iter().enumerate().rev() {
            if self.unsynced.saturating_add(chunk.len()) > SYNC_EVERY {
                self.sync()?;
            }
            let key = key(seq, u16::try_from(index).unwrap_or(u16::MAX));
            let db = self.db()?;
            guarded(|| db.insert(key, *chunk).map(drop))?;
            self.unsynced = self.unsynced.saturating_add(chunk.len());
        }
        Ok(())
    }

    /// Makes everything put so far durable.
    pub(crate) fn sync(&mut self) -> Result<(), Fault> {
        let db = self.db()?;
        guarded(|| db.flush().map(drop))?;
        self.file.sync_data()?;
        self.unsynced = 0;
        Ok(())
    }

    /// Shows `visit` the stored form of every record in `from..=to`, in order.
    ///
    /// After a damaged place the rest is looked up number by number up to `probe_to`, so that
    /// one bad page does not hide the good ones behind it; that is told. Bytes are shown
    /// unchecked.
    pub(crate) fn visit(
        &self,
        from: u64,
        to: u64,
        probe_to: u64,
        visit: &mut dyn FnMut(u64, &[u8]) -> Visit,
    ) -> Result<Sight, Fault> {
        let mut done_to = from.checked_sub(1);
        let mut counting = |seq: u64, bytes: &[u8]| {
            done_to = Some(seq);
            visit(seq, bytes)
        };
        match self.scan(from, to, &mut counting) {
            Ok(_) => return Ok(Sight::Whole),
            Err(fault @ (Fault::Io(_) | Fault::PoolBroken(_))) => return Err(fault),
            Err(Fault::Damaged(text)) => {
                tracing::debug!(error = text, "a damaged page; reading on number by number");
            }
        }
        let next = done_to.map_or(0, |seq| seq.saturating_add(1));
        for seq in next..=to.min(probe_to) {
            match self.get(seq) {
                Ok(Some(bytes)) => {
                    if visit(seq, &bytes) == Visit::Stop {
                        break;
                    }
                }
                Ok(None) | Err(Fault::Damaged(_)) => {}
                Err(fault @ (Fault::Io(_) | Fault::PoolBroken(_))) => return Err(fault),
            }
        }
        Ok(Sight::InPart)
    }

    /// The stored form of one record.
    pub(crate) fn get(&self, seq: u64) -> Result<Option<Vec<u8>>, Fault> {
        let db = self.db()?;
        let Some(first) = guarded(|| db.get(key(seq, 0)))? else { return Ok(None) };
        let mut bytes = first.to_vec();
        let wanted = record::encoded_len(&bytes).unwrap_or(0);
        let mut index = 1;
        while bytes.len() < wanted {
            match guarded(|| db.get(key(seq, index)))? {
                Some(chunk) if !chunk.is_empty() => bytes.extend_from_slice(&chunk),
                Some(_) | None => break,
            }
            index = index.saturating_add(1);
        }
        Ok(Some(bytes))
    }

    fn scan(
        &self,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(u64, &[u8]) -> Visit,
    ) -> Result<Visit, Fault> {
        let db = self.db()?;
        let mut entries = db.range(key(from, 0)..=key(to, u16::MAX));
        // The record being put together from several chunks.
        let mut partial: Option<Partial> = None;
        loop {
            let Some((entry_key, value)) = guarded(|| entries.next().transpose())? else { break };
            let Some((seq, index)) = split_key(&entry_key) else { continue };
            if index > 0 {
                // A chunk of no record, or one left over under a reused number, is passed by.
                if let Some(open) = partial.as_mut().filter(|open| open.takes(seq, index)) {
                    open.bytes.extend_from_slice(&value);
                    open.next = index.saturating_add(1);
                    if open.is_whole() {
                        let whole = partial.take();
                        if whole.is_some_and(|p| visit(p.seq, &p.bytes) == Visit::Stop) {
                            return Ok(Visit::Stop);
                        }
                    }
                }
                continue;
            }
            // A new record begins; one still unfinished lacks chunks and is shown as it is.
            if partial.take().is_some_and(|p| visit(p.seq, &p.bytes) == Visit::Stop) {
                return Ok(Visit::Stop);
            }
            let wanted = record::encoded_len(&value).unwrap_or(0);
            if value.len() >= wanted {
                if visit(seq, &value) == Visit::Stop {
                    return Ok(Visit::Stop);
                }
            } else {
                partial = Some(Partial { seq, next: 1, wanted, bytes: value.to_vec() });
            }
        }
        if let Some(p) = partial {
            return Ok(visit(p.seq, &p.bytes));
        }
        Ok(Visit::Continue)
    }

    fn db(&self) -> Result<&sled::Db, Fault> {
        // The handle is taken only by `drop`.
        self.db.as_ref().ok_or_else(|| Fault::Io(io::Error::other("the database is closed")))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(db) = self.db.take() {
            close(db);
        }
    }
}

/// sled syncs when dropped and panics if that fails; what mattered is synced already.
fn close(db: sled::Db) {
    if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
        tracing::warn!("the engine panicked while closing a database");
    }
}

struct Partial {
    seq: u64,
    next: u16,
    wanted: usize,
    bytes: Vec<u8>,
}

impl Partial {
    fn takes(&self, seq: u64, index: u16) -> bool {
        self.seq == seq && self.next == index && !self.is_whole()
    }

    fn is_whole(&self) -> bool {
        self.bytes.len() >= self.wanted
    }
}

/// The key of a chunk: its record's number and its index, big-endian, so that they sort.
pub(crate) const fn key(seq: u64, index: u16) -> [u8; 10] {
    let [a, b, c, d, e, f, g, h] = seq.to_be_bytes();
    let [i, j] = index.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j]
}

fn split_key(key: &[u8]) -> Option<(u64, u16)> {
    let (seq, index) = key.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*seq), u16::from_be_bytes(index.try_into().ok()?)))
}

fn open_once(dir: &Path, cache: u64) -> Result<Store, Fault> {
    free_of_leftovers(dir)?;
    let config = sled::Config::new()
        .path(dir)
        .segment_size(SEGMENT)
        .cache_capacity(cache.max(64 * 1024))
        .flush_every_ms(None)
        .use_compression(false);
    let db = guarded(|| config.open())?;
    match File::options().read(true).write(true).open(dir.join("db")) {
        Ok(file) => Ok(Store { db: Some(db), file, unsynced: 0 }),
        Err(error) => {
            close(db);
            Err(error.into())
        }
    }
}

fn guarded<T>(run: impl FnOnce() -> sled::Result<T>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(Fault::from),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            // sled unwraps what the operating system says where it syncs while closing, also
            // within an opening that failed: a refusal, and no word about the content.
            if let Some(error) = os_error_in(text) {
                return Err(Fault::Io(error));
            }
            Err(Fault::Damaged(format!("the engine panicked: {text}")))
        }
    }
}

/// The operating system's error that a panic's text tells of, as `{:?}` writes one.
fn os_error_in(text: &str) -> Option<io::Error> {
    let (_, rest) = text.split_once("Os { code: ")?;
    let (code, _) = rest.split_once(',')?;
    code.parse().ok().map(io::Error::from_raw_os_error)
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
