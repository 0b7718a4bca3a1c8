//! Generations that cannot be read: moved out of the way, kept for inspection, never wiped.
//!
//! Only damage brings one here, never a refusal of the operating system. What it held and
//! still owed is listed as a gap. Within its bound the oldest go.

use std::path::Path;

use crate::engine::Fault;
use crate::error::Error;
use crate::files;
use crate::manifest::Role;
use crate::queue::Queue;
use crate::types::Tally;

/// Below the queue's directory.
pub(crate) const QUARANTINE: &str = "quarantine";

impl Queue {
    /// Moves a generation that cannot be read out of the way and lists what it held as a gap.
    pub(crate) fn quarantine(&mut self, at: usize, fault: &Fault) -> Result<(), Error> {
        let Some(g) = self.row.get_mut(at) else { return Ok(()) };
        g.close();
        let (first, last, role, path) = (g.first, g.last, g.role, g.path(&self.dir));
        tracing::debug!(path = %path.display(), error = fault.text(), "a generation is broken and goes to quarantine");
        self.move_to_quarantine(&path)?;
        if at < self.row.len() {
            self.row.remove(at);
        }
        self.manifest_dirty = true;
        if role == Role::Pending && first <= last && self.next_seq > last {
            self.lose(&[(first, last)]);
        }
        Ok(())
    }

    /// Likewise for rejected records, which nobody is owed.
    pub(crate) fn quarantine_rejected(&mut self, at: usize, fault: &Fault) -> Result<(), Error> {
        let Some(g) = self.rejects.get_mut(at) else { return Ok(()) };
        g.close();
        let path = g.path(&self.dir);
        tracing::debug!(path = %path.display(), error = fault.text(), "rejected records are broken and go to quarantine");
        self.move_to_quarantine(&path)?;
        if at < self.rejects.len() {
            self.rejects.remove(at);
        }
        self.manifest_dirty = true;
        Ok(())
    }

    pub(crate) fn move_to_quarantine(&mut self, path: &Path) -> Result<(), Error> {
        let quarantine = self.dir.join(QUARANTINE);
        let target = quarantine.join(path.file_name().unwrap_or_default());
        files::ensure_private_dir(&quarantine)
            .and_then(|()| std::fs::rename(path, &target))
            .and_then(|()| files::sync_dir(&quarantine))
            .and_then(|()| files::sync_dir(&self.dir))
            .map_err(|e| Error::io("move to quarantine", path, e))?;
        self.quarantined.records = self.quarantined.records.saturating_add(1);
        self.quarantined.bytes = self.quarantined.bytes.saturating_add(files::disk_usage(&target));
        self.news.quarantined.push(target);
        Ok(())
    }

    pub(crate) fn count_quarantine(&mut self) {
        let entries = files::names(&self.dir.join(QUARANTINE)).unwrap_or_default();
        self.quarantined = entries.iter().fold(Tally::default(), |sum, (_, path)| Tally {
            records: sum.records.saturating_add(1),
            bytes: sum.bytes.saturating_add(files::disk_usage(path)),
        });
    }

    pub(crate) fn enforce_quarantine_bound(&mut self) -> Result<(), Error> {
        if self.quarantined.bytes <= self.options.quarantine_max_bytes {
            return Ok(());
        }
        // Names begin with the first number, so they are in order of age.
        for (_, path) in files::names(&self.dir.join(QUARANTINE)).unwrap_or_default() {
            if self.quarantined.bytes <= self.options.quarantine_max_bytes {
                break;
            }
            let size = files::disk_usage(&path);
            std::fs::remove_dir_all(&path).map_err(|e| Error::io("delete", &path, e))?;
            self.quarantined.records = self.quarantined.records.saturating_sub(1);
            self.quarantined.bytes = self.quarantined.bytes.saturating_sub(size);
        }
        Ok(())
    }
}
