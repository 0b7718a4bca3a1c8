//! What a broken generation still gives goes to a fresh one.
//!
//! Before a generation is set aside, its raw bytes are searched for records (`salvage.rs`): those of
//! its log, and of the copies made of it before it was opened or mended. What is found goes, under
//! its old number, epoch and stamp, to a fresh generation that takes the broken one's place. What
//! is owed and was not found becomes a gap, as before.
//!
//! Steps, each of which may be the last one before a kill:
//! 1. `<first>-<id>.<role>.salvaging` is filled and synced, and left with a snapshot. Opening
//!    deletes one that is found half-made.
//! 2. It is renamed to `<first>-<id>.<role>.salvaged`: from here on it counts.
//! 3. The broken generation moves to quarantine.
//! 4. The fresh one gets its final name. Opening makes up for steps 3 and 4.
//!
//! If there is no room for it, nothing is moved: the broken generation stays where it is, the error
//! says so, and it is tried again at the next occasion.
//!
//! Whether a number comes back is not decided here: the fresh generation is read like any other, and
//! cursor, rejected records and gaps settle what they settle. Sent generations are not salvaged:
//! what is in them was delivered.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::engine::{Fault, Store, Visit};
use crate::error::Error;
use crate::files;
use crate::frames::read_at;
use crate::generation::{Generation, Name};
use crate::manifest::Role;
use crate::mend::{FRESH_LOG, KEPT_LOG, Repairs, forget_kept_log};
use crate::quarantine::set_aside_in;
use crate::queue::Queue;
use crate::ranges::RangeSet;
use crate::record;
use crate::salvage::{Wanted, scan};

/// Added to the name of a generation that is being filled with salvaged records.
const BUILDING: &str = ".salvaging";
/// Added to the name of one that is complete and takes another's place.
const BUILT: &str = ".salvaged";

/// A log is searched in windows of this many bytes, far more than a generation of usual size has,
/// which overlap so that a record on the border is in one of them.
const WINDOW: usize = 16 * 1024 * 1024;
const OVERLAP: usize = 4 * 1024 * 1024;

/// A fresh generation that is complete but not in its place yet.
pub(crate) struct Rescued {
    /// Sealed; known by its final name.
    pub(crate) generation: Generation,
    /// The numbers in it.
    pub(crate) numbers: RangeSet,
    built: PathBuf,
}

impl Queue {
    /// Fills a fresh generation with what can be had of the one called `name`, whose database is
    /// `store` if it could be opened; none if nothing of `owed` is found.
    pub(crate) fn salvage(
        &mut self,
        name: Name,
        wanted: Wanted,
        store: Option<Store>,
        owed: &[(u64, u64)],
    ) -> Result<Option<Rescued>, Error> {
        let path = self.dir.join(name.to_string());
        let found = everything_in(&path, wanted, store.as_ref())
            .map_err(|fault| Error::engine("salvage records from", &path, fault))?;
        drop(store);
        if !found.keys().any(|seq| owed.iter().any(|&(from, to)| (from..=to).contains(seq))) {
            return Ok(None);
        }
        let fresh = name.revised();
        let building = self.dir.join(format!("{fresh}{BUILDING}"));
        let built = self.dir.join(format!("{fresh}{BUILT}"));
        let done = fill(&building, &found, self.options.cache_bytes).and_then(|()| {
            fs::rename(&building, &built)?;
            Ok(files::sync_dir(&self.dir)?)
        });
        if let Err(fault) = done {
            // Room for others; what of it stays goes at the next opening.
            let _ = fs::remove_dir_all(&building).or_else(|_| fs::remove_dir_all(&built));
            return Err(Error::engine("salvage records into", &building, fault));
        }
        let mut generation = Generation::unknown(fresh);
        let mut numbers = RangeSet::default();
        for (seq, bytes) in found {
            if let Ok(record) = record::decode(&bytes, seq) {
                generation.count(seq, record.payload.len(), record.stamp);
                numbers.insert(seq, seq);
            }
        }
        generation.sealed = true;
        generation.disk_bytes = files::disk_usage(&built);
        Ok(Some(Rescued { generation, numbers, built }))
    }

    /// Sets `path` aside and puts the fresh generation in its place.
    pub(crate) fn put_in_place(&mut self, path: &Path, rescued: &Rescued) -> Result<(), Error> {
        let aside = match self.move_to_quarantine(path) {
            Ok(aside) => aside,
            Err(error) => {
                let _ = fs::remove_dir_all(&rescued.built);
                return Err(error);
            }
        };
        let place = rescued.generation.path(&self.dir);
        let placed = fs::rename(&rescued.built, &place).and_then(|()| files::sync_dir(&self.dir));
        if let Err(error) = placed {
            // Back as it was; if not even that works, the next opening finishes it.
            if fs::rename(&aside, path).is_ok() {
                self.news.quarantined.retain(|gone| *gone != aside);
            }
            self.count_quarantine();
            return Err(Error::io("put salvaged records in place", &place, error));
        }
        Ok(())
    }

    /// Whether some of `numbers`, which could not be read from generation `at` of the row, lie in
    /// its bytes all the same.
    pub(crate) fn can_salvage(&self, at: usize, numbers: &[(u64, u64)]) -> Result<bool, Error> {
        let Some(g) = self.row.get(at).filter(|g| g.role == Role::Pending) else {
            return Ok(false);
        };
        let mut found = BTreeMap::new();
        let path = g.path(&self.dir);
        for &(from, to) in numbers {
            for (from, to) in self.owed(from, to) {
                find_records(&path, Wanted { from, to, rejected: false }, &mut found)
                    .map_err(|e| Error::io("salvage records from", &path, e))?;
            }
        }
        Ok(!found.is_empty())
    }

    /// The numbers of `from..=to` that are to be delivered, as far as is known.
    pub(crate) fn owed(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        self.settled.outside(from.max(self.cursor.saturating_add(1)), to)
    }
}

/// To be called after an opening: whether it erased a record that `matters`. If not, the copy that
/// was made for that case goes.
///
/// # Errors
/// [`Fault::Damaged`] if it did; the generation is to be rescued then.
pub(crate) fn check_opened(
    path: &Path,
    store: &Store,
    repairs: &Repairs,
    wanted: Wanted,
    matters: &dyn Fn(u64) -> bool,
) -> Result<(), Fault> {
    if !repairs.kept_log {
        return Ok(());
    }
    let mut found = BTreeMap::new();
    find_records(path, wanted, &mut found)?;
    found.retain(|seq, _| matters(*seq));
    let Some(probe_to) = found.keys().next_back().copied() else {
        return Ok(forget_kept_log(path)?);
    };
    store.visit(wanted.from, wanted.to, probe_to, &mut |seq, bytes| {
        if record::decode(bytes, seq).is_ok() {
            found.remove(&seq);
        }
        Visit::Continue
    })?;
    if found.is_empty() {
        return Ok(forget_kept_log(path)?);
    }
    Err(Fault::Damaged(format!("its log is damaged, {} records were cut off", found.len())))
}

/// Every wanted record that the raw bytes or the opened database give.
fn everything_in(
    path: &Path,
    wanted: Wanted,
    store: Option<&Store>,
) -> Result<BTreeMap<u64, Vec<u8>>, Fault> {
    let mut found = BTreeMap::new();
    find_records(path, wanted, &mut found)?;
    if let Some(store) = store {
        let probe_to = found.keys().next_back().copied().unwrap_or(0);
        let visited = store.visit(wanted.from, wanted.to, probe_to, &mut |seq, bytes| {
            if wanted.accepts(bytes, seq) {
                found.entry(seq).or_insert_with(|| bytes.to_vec());
            }
            Visit::Continue
        });
        match visited {
            Err(fault @ Fault::PoolBroken(_)) => return Err(fault),
            // It is broken, that is why we are here.
            Ok(_) | Err(Fault::Io(_) | Fault::Damaged(_)) => {}
        }
    }
    Ok(found)
}

/// Searches all copies of the log of the database in `dir`.
fn find_records(dir: &Path, wanted: Wanted, found: &mut BTreeMap<u64, Vec<u8>>) -> io::Result<()> {
    for name in [KEPT_LOG, "db", FRESH_LOG] {
        let log = match File::open(dir.join(name)) {
            Ok(log) => log,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let size = usize::try_from(log.metadata()?.len()).unwrap_or(usize::MAX);
        let mut window = vec![0; size.min(WINDOW)];
        let mut at = 0u64;
        loop {
            let length = read_at(&log, &mut window, at)?;
            scan(window.get(..length).unwrap_or_default(), wanted, found);
            if length < WINDOW {
                break;
            }
            at = at.saturating_add((WINDOW - OVERLAP) as u64);
        }
    }
    Ok(())
}

/// Makes a database of records in `dir`, durably, with a current snapshot.
fn fill(dir: &Path, records: &BTreeMap<u64, Vec<u8>>, cache: u64) -> Result<(), Fault> {
    if dir.try_exists()? {
        fs::remove_dir_all(dir)?;
    }
    let mut store = Store::create(dir, cache)?;
    for (seq, bytes) in records {
        store.put(*seq, bytes)?;
    }
    store.sync()?;
    drop(store);
    let mut store = Store::open(dir, cache, &mut Repairs::default())?;
    store.sync()?;
    drop(store);
    Ok(files::sync_dir(dir)?)
}

/// Finishes what a kill left of putting salvaged records in place; what is half-made goes. Returns
/// the generations that went to quarantine by that.
pub(crate) fn finish(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let names = files::names(dir).map_err(|e| Error::io("list", dir, e))?;
    let mut set_aside = Vec::new();
    for (name, path) in &names {
        if name.ends_with(BUILDING)
            && let Err(error) = fs::remove_dir_all(path)
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove what is left over");
        }
        let Some(fresh) = name.strip_suffix(BUILT).and_then(Name::parse) else { continue };
        let replaced = names.iter().filter(|(other, _)| {
            Name::parse(other).is_some_and(|other| {
                other.first == fresh.first && other.role == fresh.role && other.id < fresh.id
            })
        });
        for (_, broken) in replaced {
            let aside = set_aside_in(dir, broken);
            set_aside.push(aside.map_err(|e| Error::io("move to quarantine", broken, e))?);
        }
        let place = dir.join(fresh.to_string());
        fs::rename(path, &place)
            .and_then(|()| files::sync_dir(dir))
            .map_err(|e| Error::io("put salvaged records in place", &place, e))?;
    }
    Ok(set_aside)
}
