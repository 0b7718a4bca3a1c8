//! A durable queue of numbered records.
//!
//! **The promise**: once [`Queue::append`] has returned, a record is handed out by
//! [`Queue::read`] until it is acknowledged, rejected or given up, or else its number is listed
//! in a [`Gap`] with the reason; whatever is killed, cut, filled up or flipped.
//!
//! The crate knows bytes and numbers, no telemetry, no network, no clock and no threads of its
//! own. One thread owns the queue; every call blocks for as long as the disk takes.
//!
//! # Invariants
//!
//! - Numbers begin with 1, grow by 1, and are never used twice: not after the queue ran empty,
//!   not after a restart, not after everything was deleted. An append that failed used none.
//! - Every writable opening draws an epoch (a UUID) that is kept with its records, so that a
//!   cloned or rolled-back machine does not repeat a pair of epoch and number.
//! - `append` returns after fdatasync. Only the cursor parts sent from pending; nothing is
//!   removed record by record, whole generations go.
//! - A gap is on disk before anything behind it is dropped, a rejected record is copied before
//!   the cursor passes it, the cursor is on disk before `acknowledge` returns.
//! - Ages go by time that is proved (`clock.rs`), never by the wall clock, and what is not known is
//!   young; space goes by one stated sum, [`Options::disk_bound`] (`bounds.rs`).
//! - Damage costs what is damaged: the bytes of a broken generation are searched for its records
//!   (`salvage.rs`, `rescue.rs`), what is not found is listed, the generation is set aside in
//!   `quarantine/`, never wiped, and never a reason not to open.
//! - A payload is packed where that makes it smaller (`codec.rs`), each alone, with a dictionary
//!   that is fixed for ever; every count of bytes and every bound on payload is of what was given.
//! - Refusals of the operating system (a full disk, too many open files, a failing device, a
//!   missing permission) are never taken for damage.
//!
//! What a return value tells (an eviction, a quarantine, what opening mended) is logged at debug
//! level at most: saying it, once, is the caller's.
//!
//! # Layout of `data_dir/queue`, mode 0700
//!
//! | name | content |
//! |---|---|
//! | `LOCK` | locked by the process that has the queue open; its process id |
//! | `FORMAT` | `harborforge-queue 1` and a checksum: the version of all these files together (`format.rs`) |
//! | `manifest` | what is known of sealed generations, the proven clock, the gaps, and rejected copies that count no more (`manifest.rs`) |
//! | `mark` | the highest number appended (`marks.rs`, `slots.rs`) |
//! | `cursor` | everything up to it is settled; the last confirmation (likewise) |
//! | `ballast` | 1 MiB that is given back when the disk is full (`ballast.rs`, `room.rs`) |
//! | `last-success` | the last confirmed record, once its generation is gone (`record.rs`) |
//! | `<first>-<id>.pending` | a generation: a small database of consecutive records |
//! | `<first>-<id>.sent` | a drained one, kept for a while |
//! | `<first>-<id>.rejected` | copies of records that were refused for good |
//! | `<name>.salvaging`, `<name>.salvaged` | one that takes a broken one's place, for a moment |
//! | `quarantine/` | broken generations, at most 16 |
//!
//! # Why generations
//!
//! The engine never gives space back, and its file grows torn with too much unsynced. So the
//! queue is a row of small databases of about 4,000 records or 2 MiB, written one after the
//! other; a drained one is renamed or deleted as a whole. At most four are open between calls:
//! the oldest, the newest, the one being read and the newest of the rejected; within a call one
//! more. When one is closed for good it is opened once more to leave a current snapshot, which
//! turns silent loss by damage into read errors, except in the last 64 KiB of its log: see
//! `engine.rs` for what is done about those.
//!
//! `cargo bench -p harborforge-storage` shows what that costs. On a busy 2-core machine with
//! samples of 400 bytes: one durable append takes 1.2 to 2 times a raw write + fdatasync (half of
//! it is the engine handing the write to a thread of its own), batches of 100 give 50,000 a
//! second, reading in order 500,000, a drain 260,000; opening with 100,000 waiting takes 10 ms
//! and 5 MiB; a record takes 600 bytes on disk until its generation goes, 965 if it cannot be
//! packed. Packing takes 0.9 microseconds of an append and unpacking 0.1 of a read, which is less
//! than the engine takes for the bytes that are saved. Generations half the size save 1 MiB of
//! memory in a drain and cost a third of its speed; a larger engine cache changes nothing.

mod append;
mod audit;
mod ballast;
mod bounds;
mod census;
mod changes;
mod clock;
mod codec;
mod cursor;
mod engine;
mod error;
mod expiry;
mod files;
mod format;
mod frames;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod gaps;
mod generation;
mod inspect;
mod lock;
mod manifest;
mod marks;
mod mend;
mod order;
mod overview;
mod purge;
mod quarantine;
mod queue;
mod ranges;
mod read;
mod record;
mod recovery;
mod report;
mod rescue;
mod retention;
mod room;
mod salvage;
mod scratch;
mod settle;
mod slots;
mod snapshot;
mod stats;
#[cfg(test)]
mod testing;
mod types;
mod unreject;
mod verify;

pub use audit::{Audit, Audited};
pub use changes::{Became, Change, News, Watch};
pub use engine::is_engine_thread;
pub use error::{EngineFault, Error};
pub use inspect::{Entry, Inspector, Problem, Records};
pub use lock::is_free;
pub use overview::Overview;
pub use purge::{Purge, Purged};
pub use queue::Queue;
pub use record::MAX_PAYLOAD;
pub use report::{FileState, GenerationReport, Numbers, QueueReport, SmallFiles};
pub use room::Room;
pub use scratch::Scratch;
pub use snapshot::{Shown, Snapshot};
/// What epochs are made of.
pub use uuid::Uuid;

pub use types::{
    BALLAST_BYTES, Confirmation, Counters, Gap, GapReason, LastSuccess, Limits, Maintenance,
    NewRecord, OpenReport, Options, Pin, Position, Record, RejectedRecord, Set, Stamp, Stats,
    Tally,
};
pub use verify::Verification;
