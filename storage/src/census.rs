//! Which generations there are, and what lies in those the manifest does not know.
//!
//! A generation that is sealed is counted in the manifest. Any other is opened and counted:
//! the newest, which goes on being written, and what a kill left unsealed.
//!
//! Without a manifest that is every one of them, so each is closed again before the next is
//! opened: a queue of any length opens with a handful of file handles.

use std::path::Path;

use crate::engine::{Fault, Sight, Store, Visit};
use crate::error::Error;
use crate::files;
use crate::generation::{DOOMED, Generation, Name, born};
use crate::manifest::{Role, Sealed};
use crate::marks::Condition;
use crate::mend::Repairs;
use crate::queue::Queue;
use crate::record;
use crate::recovery::take_repairs;
use crate::rescue::check_opened;
use crate::salvage::Wanted;
use crate::types::OpenReport;

impl Queue {
    /// Opens and counts all generations not known as sealed; the newest goes on being written.
    pub(crate) fn count_unsealed(&mut self, report: &mut OpenReport) -> Result<(), Error> {
        let newest_of_row = self.row.len().saturating_sub(1);
        // From the back, so that removing one does not move those still to come.
        for at in (0..self.row.len()).rev() {
            let Some(g) = self.row.get(at).filter(|g| !g.sealed) else { continue };
            if self.never_used(at) && !g.path(&self.dir).join("db").exists() {
                // A kill while it was made.
                let g = self.row.remove(at);
                self.delete_directory(g);
                continue;
            }
            let next = self.row.get(at.saturating_add(1)).map(|next| next.first);
            let end = next.map_or(u64::MAX, |first| first.saturating_sub(1));
            let highest = self.highest_possible(at);
            let hint = if next.is_none() { highest } else { end };
            let (dir, cache) = (&self.dir, self.options.cache_bytes);
            // What was on its way when the process ended was not appended; only what is vouched
            // for, by the mark or by a younger generation, counts as lost.
            let mark = (self.mark_file.condition() == Condition::Good)
                .then(|| self.mark_file.value())
                .filter(|_| next.is_none());
            let (settled, cursor) = (&self.settled, self.cursor);
            let matters = |seq: u64| {
                seq > cursor && !settled.contains(seq) && mark.is_none_or(|mark| seq <= mark)
            };
            let Some(g) = self.row.get_mut(at) else { continue };
            match count_records(g, dir, cache, end, hint, &matters, report) {
                Ok((mended, sight)) => {
                    g.appendable = next.is_none() && g.role == Role::Pending && !mended;
                    g.close_unless_appendable();
                    if at == newest_of_row && sight == Sight::InPart {
                        self.mark_file.raise(highest)?;
                    }
                    self.dismiss_if_empty(at, highest)?;
                }
                Err(fault) if fault.is_damage() => {
                    // What tells that there was more is on disk before the directory moves.
                    if at == newest_of_row {
                        self.mark_file.raise(highest)?;
                    }
                    self.quarantine_or_leave(at, &fault, hint)?;
                }
                Err(fault) => return Err(Error::engine("open", &g.path(dir), fault)),
            }
        }
        let newest = self.rejects.len();
        for at in (0..self.rejects.len()).rev() {
            let (dir, cache) = (&self.dir, self.options.cache_bytes);
            let Some(g) = self.rejects.get_mut(at).filter(|g| !g.sealed) else { continue };
            match count_records(g, dir, cache, u64::MAX, g.label, &|_| true, report) {
                Ok((_, Sight::InPart)) => {
                    let fault = Fault::Damaged("some of it cannot be read".to_owned());
                    self.quarantine_rejected_or_leave(at, &fault)?;
                }
                Ok((mended, Sight::Whole)) => {
                    g.appendable = at.saturating_add(1) == newest && !mended;
                    g.close_unless_appendable();
                }
                Err(fault) if fault.is_damage() => self.quarantine_rejected_or_leave(at, &fault)?,
                Err(fault) => return Err(Error::engine("open", &g.path(dir), fault)),
            }
        }
        Ok(())
    }

    /// Whether no append to this generation of the row ever succeeded: its first number was
    /// never reached, or a younger one owns it.
    fn never_used(&self, at: usize) -> bool {
        let Some(g) = self.row.get(at) else { return true };
        let next = self.row.get(at.saturating_add(1));
        (g.label > self.mark_file.value() && self.mark_file.bound().is_some())
            || next.is_some_and(|next| next.label == g.label)
    }

    /// The highest number that may lie in this generation if it is the newest.
    fn highest_possible(&self, at: usize) -> u64 {
        let full = self.options.generation_max_records.saturating_sub(1);
        let label = self.row.get(at).map_or(0, |g| g.label);
        self.mark_file.bound().unwrap_or(label.saturating_add(full))
    }

    /// A generation without a record goes; to quarantine if there should be some.
    fn dismiss_if_empty(&mut self, at: usize, highest: u64) -> Result<(), Error> {
        let Some(g) = self.row.get(at).filter(|g| g.is_empty()) else { return Ok(()) };
        if !self.never_used(at) {
            if at.saturating_add(1) == self.row.len() {
                self.mark_file.raise(highest)?;
            }
            let text = "no record is left in it".to_owned();
            let last = self.end_of_share(at).min(highest);
            return self.quarantine_or_leave(at, &Fault::Damaged(text), last);
        }
        if !g.appendable {
            let g = self.row.remove(at);
            self.delete_directory(g);
        }
        Ok(())
    }
}

/// The generations found in a queue's directory.
pub(crate) struct Generations {
    pub(crate) row: Vec<Generation>,
    pub(crate) rejects: Vec<Generation>,
    pub(crate) next_id: u64,
}

/// Lists the generations and finishes what a kill left half-done.
pub(crate) fn find_generations(dir: &Path, known: &[Sealed]) -> Result<Generations, Error> {
    for (name, path) in files::names(dir).map_err(|e| Error::io("list", dir, e))? {
        let removed = if name.ends_with(DOOMED) {
            std::fs::remove_dir_all(&path)
        } else if name.ends_with(".tmp") {
            std::fs::remove_file(&path)
        } else {
            Ok(())
        };
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "cannot remove what is left over");
        }
    }
    let (names, superseded) = without_superseded(generation_names(dir)?);
    for name in superseded {
        let path = dir.join(name.to_string());
        let doomed = dir.join(format!("{name}{DOOMED}"));
        let removed =
            std::fs::rename(&path, &doomed).and_then(|()| std::fs::remove_dir_all(&doomed));
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "cannot remove what is left over");
        }
    }
    Ok(arrange(names, known))
}

/// Tells the generations that count from what a failed append left behind.
///
/// Such a one should have been deleted, but that may have failed too, or not have been synced. It
/// is known by a younger one (born with a higher id) that begins at the same number or below: that
/// one was made for the next try, and what the older holds never counted. What was salvaged from a
/// broken one is as old as that.
fn without_superseded(names: Vec<Name>) -> (Vec<Name>, Vec<Name>) {
    let mut by_age: Vec<(u64, u64)> = names
        .iter()
        .filter(|name| name.role != Role::Rejected)
        .map(|name| (born(name.id), name.first))
        .collect();
    by_age.sort_unstable();
    // The lowest number at which one begins that is as young or younger.
    let mut lowest = u64::MAX;
    for (_, first) in by_age.iter_mut().rev() {
        lowest = lowest.min(*first);
        *first = lowest;
    }
    names.into_iter().partition(|name| {
        let younger = by_age.partition_point(|&(id, _)| id <= born(name.id));
        let begins = by_age.get(younger).map_or(u64::MAX, |&(_, first)| first);
        name.role == Role::Rejected || name.first < begins
    })
}

/// The directories in `dir` that are generations by their name.
pub(crate) fn generation_names(dir: &Path) -> Result<Vec<Name>, Error> {
    let mut found = Vec::new();
    for (name, path) in files::names(dir).map_err(|e| Error::io("list", dir, e))? {
        if let Some(name) = Name::parse(&name) {
            let metadata = std::fs::metadata(&path).map_err(|e| Error::io("look at", &path, e))?;
            // A file of that name is none of ours.
            if metadata.is_dir() {
                found.push(name);
            }
        }
    }
    Ok(found)
}

/// Puts generations in order and settles which of two owns a number.
pub(crate) fn arrange(names: Vec<Name>, known: &[Sealed]) -> Generations {
    let (names, _) = without_superseded(names);
    let mut row = Vec::new();
    let mut rejects = Vec::new();
    let mut next_id = 1;
    for name in names {
        next_id = next_id.max(born(name.id).saturating_add(1));
        let generation = match known.iter().find(|sealed| sealed.id == name.id) {
            Some(sealed) => Generation::from_sealed(name, sealed),
            None => Generation::unknown(name),
        };
        match name.role {
            Role::Pending | Role::Sent => row.push(generation),
            Role::Rejected => rejects.push(generation),
        }
    }
    sort(&mut row, |g| (g.first, g.id));
    sort(&mut rejects, |g| (born(g.id), g.id));
    let mut end = u64::MAX;
    for g in row.iter_mut().rev() {
        if g.sealed {
            g.last = g.last.min(end);
        }
        end = g.first.saturating_sub(1).min(end);
    }
    Generations { row, rejects, next_id }
}

/// Sorts generations; with their id in it, a key is that of one.
fn sort(generations: &mut [Generation], key: fn(&Generation) -> (u64, u64)) {
    generations.sort_unstable_by_key(key);
}

/// Opens a generation that is not sealed and counts its records up to number `end`; whether it
/// had to be mended, and whether all of it could be seen.
fn count_records(
    g: &mut Generation,
    dir: &Path,
    cache: u64,
    end: u64,
    probe_to: u64,
    matters: &dyn Fn(u64) -> bool,
    report: &mut OpenReport,
) -> Result<(bool, Sight), Fault> {
    let path = g.path(dir);
    let mut repairs = Repairs::default();
    let store = Store::open(&path, cache, &mut repairs);
    let mended = repairs.any();
    let low = if g.role == Role::Rejected { 1 } else { g.first };
    let wanted = Wanted { from: low, to: end, rejected: g.role == Role::Rejected };
    let checked = store
        .as_ref()
        .map_or(Ok(()), |store| check_opened(&path, store, &repairs, wanted, matters));
    take_repairs(report, repairs);
    let store = store?;
    if let Err(fault) = checked {
        if fault.is_damage() {
            // What it does show is wanted by whoever rescues the rest.
            g.attach(store);
        }
        return Err(fault);
    }
    let mut found = Vec::new();
    let mut unreadable = 0;
    let sight = store.visit(low, end, probe_to, &mut |seq, bytes| {
        match record::decode(bytes, seq) {
            Ok(record) => found.push((seq, record.payload.len(), record.stamp)),
            // It was appended, so its number is taken; reading will list it as a gap.
            Err(_) => unreadable = unreadable.max(seq),
        }
        Visit::Continue
    })?;
    for (seq, size, stamp) in found {
        g.count(seq, size, stamp);
    }
    if g.role != Role::Rejected {
        g.last = g.last.max(unreadable);
    }
    g.attach(store);
    Ok((mended, sight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_append_left_takes_no_number_from_the_next_try() {
        let name = |first, id, role| Name { first, id, role };
        let row = [(1, 1), (40, 2), (57, 6), (75, 7)].map(|(f, i)| name(f, i, Role::Pending));
        // Made by tries that failed after 57 was given out, or at the very same number.
        let left = [(68, 3), (57, 4), (60, 5)].map(|(f, i)| name(f, i, Role::Pending));
        let rejected = name(3, 8, Role::Rejected);
        let all = row.iter().chain(&left).chain([&rejected]).copied().collect::<Vec<_>>();
        let (mut counts, mut superseded) = without_superseded(all.clone());
        counts.sort_by_key(|name| name.id);
        superseded.sort_by_key(|name| name.id);
        assert_eq!(counts, [&row[..], &[rejected]].concat());
        assert_eq!(superseded, left);
        // What was salvaged from the second takes no number from those that are younger than it.
        let salvaged = [row[0], row[1].revised(), row[2], row[3]];
        assert_eq!(without_superseded(salvaged.to_vec()), (salvaged.to_vec(), vec![]));
        assert_eq!(arrange(salvaged.to_vec(), &[]).next_id, 8);
        let arranged = arrange(all, &[]);
        assert_eq!(arranged.row.iter().map(|g| g.id).collect::<Vec<_>>(), [1, 2, 6, 7]);
        assert_eq!((arranged.rejects.len(), arranged.next_id), (1, 9));
    }
}
