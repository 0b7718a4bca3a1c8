//! What a verification tells; see `verify.rs`. Plain values that can be sent to another process.

use serde::{Deserialize, Serialize};

use crate::manifest::Role;
use crate::marks::Condition;
use crate::types::Set;

/// Consecutive numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
}

impl Numbers {
    /// How many they are.
    pub fn count(&self) -> u64 {
        self.to.saturating_sub(self.from).saturating_add(1)
    }
}

/// In what state a small file of the queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// It can be read.
    Good,
    /// It is not there, and was not needed yet.
    Absent,
    /// It was there once: the rest of the queue shows that.
    Missing,
    /// What is there cannot be read.
    Damaged,
}

impl FileState {
    /// Whether something is wrong with it.
    pub fn is_bad(self) -> bool {
        match self {
            Self::Good | Self::Absent => false,
            Self::Missing | Self::Damaged => true,
        }
    }

    /// Of a file of slots; `needed` tells what nothing in it means.
    pub(crate) fn of(condition: Condition, needed: bool) -> Self {
        match condition {
            Condition::Good => Self::Good,
            Condition::Blank if needed => Self::Missing,
            Condition::Blank => Self::Absent,
            Condition::Damaged => Self::Damaged,
        }
    }
}

/// The files of a queue that are not generations; see the crate's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmallFiles {
    /// `FORMAT`.
    pub format: FileState,
    /// `manifest`.
    pub manifest: FileState,
    /// `mark`.
    pub mark: FileState,
    /// `cursor`.
    pub cursor: FileState,
    /// `last-success`, where the record is in no generation any more.
    pub last_success: FileState,
}

impl SmallFiles {
    /// Each with its name.
    pub fn by_name(&self) -> [(&'static str, FileState); 5] {
        [
            ("FORMAT", self.format),
            ("manifest", self.manifest),
            ("mark", self.mark),
            ("cursor", self.cursor),
            ("last-success", self.last_success),
        ]
    }
}

/// What was found in one generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationReport {
    /// Its directory's name.
    pub name: String,
    /// What it is kept for; of a pending one some records may be delivered.
    pub set: Set,
    /// Records in it that are as they were written.
    pub records: u64,
    /// Those of them that wait for delivery.
    pub pending: u64,
    /// Their payload in bytes.
    pub bytes: u64,
    /// What it takes on disk, in bytes.
    pub disk_bytes: u64,
    /// Number of the first record found; none if none is.
    pub first_seq: Option<u64>,
    /// Number of the last.
    pub last_seq: Option<u64>,
    /// Records whose bytes are not what was written.
    pub damaged: Vec<Numbers>,
    /// Numbers that should be in it and are not.
    pub missing: Vec<Numbers>,
    /// Rejected records that should be in it and are not: how many, since their numbers are
    /// nowhere else.
    pub missing_rejected: u64,
    /// Numbers of its share that are listed as a gap.
    pub in_gaps: u64,
    /// Files of the database engine that cannot be used and will be made anew without a loss.
    pub engine_files: Vec<String>,
    /// Why it cannot be opened at all.
    pub unreadable: Option<String>,
    /// A kill left it before the first record; it goes at the next start.
    pub unfinished: bool,
}

impl GenerationReport {
    /// Of a generation in which nothing was found yet.
    pub(crate) fn empty(name: String, role: Role) -> Self {
        Self {
            name,
            set: match role {
                Role::Pending => Set::Pending,
                Role::Sent => Set::Sent,
                Role::Rejected => Set::Rejected,
            },
            records: 0,
            pending: 0,
            bytes: 0,
            disk_bytes: 0,
            first_seq: None,
            last_seq: None,
            damaged: Vec::new(),
            missing: Vec::new(),
            missing_rejected: 0,
            in_gaps: 0,
            engine_files: Vec::new(),
            unreadable: None,
            unfinished: false,
        }
    }

    /// Whether nothing is wrong with it.
    pub fn is_good(&self) -> bool {
        self.damaged.is_empty()
            && self.missing.is_empty()
            && self.missing_rejected == 0
            && self.engine_files.is_empty()
            && self.unreadable.is_none()
    }
}

/// What was found in the whole queue.
///
/// `settled`, `pending`, `rejected`, `in_gaps` and `lost` together are all numbers there ever
/// were, 1 to below `next_seq`, each counted once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueReport {
    /// Whether nothing is wrong anywhere.
    pub good: bool,
    /// Generations read.
    pub generations: u64,
    /// Those with something wrong.
    pub bad_generations: u64,
    /// Records in them that are as they were written.
    pub records: u64,
    /// Their payload in bytes.
    pub bytes: u64,
    /// What the queue takes on disk, in bytes, quarantine included.
    pub disk_bytes: u64,
    /// The number the next record gets.
    pub next_seq: u64,
    /// Numbers that are done with: all up to the cursor.
    pub settled: u64,
    /// Records waiting for delivery.
    pub pending: u64,
    /// Rejected ones with a number above the cursor.
    pub rejected: u64,
    /// Numbers above the cursor that are listed as a gap.
    pub in_gaps: u64,
    /// Numbers above the cursor that cannot be read and are listed nowhere yet.
    pub lost: u64,
    /// Those of them that no generation holds.
    pub nowhere: Vec<Numbers>,
    /// The small files.
    pub files: SmallFiles,
    /// Broken generations set aside.
    pub quarantined: u64,
    /// What they take on disk, in bytes.
    pub quarantined_bytes: u64,
}
