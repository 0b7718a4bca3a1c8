//! A queue that no daemon has open, read through private copies that are gone however it ends.
//!
//! Invariants: from [`ready`] on SIGINT, SIGTERM and SIGHUP end the process at once with
//! [`Exit::Interrupted`], whatever it waits for (a pipe that nobody reads, a disk), once the copies
//! are removed; nothing is said any more by then, least of all of files that are missing because
//! they were removed.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use harborforge_storage::{Error, Inspector, Problem, Scratch};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{CliError, Exit};

/// Where the copies are. Held for good once a signal has come, so that no more are made.
static COPIES: Mutex<Option<PathBuf>> = Mutex::new(None);
static ENDING: AtomicBool = AtomicBool::new(false);

/// What was removed may be made again by a copy under way; it ends there.
const TRIES: u32 = 100;
const BETWEEN: Duration = Duration::from_millis(10);

/// Has the signals end this process without leaving copies; before [`open`].
///
/// # Errors
/// What the operating system refuses.
pub fn ready() -> Result<(), CliError> {
    let failed = |error: io::Error| {
        CliError::new(Exit::Failed, format!("cannot listen for signals: {error}"))
    };
    let (mut read, write) = UnixStream::pair().map_err(failed)?;
    // A terminal that goes is told to who has not asked to outlive it (nohup).
    let hang_up = (!is_ignored(SIGHUP)).then_some(SIGHUP);
    for signal in [SIGINT, SIGTERM].into_iter().chain(hang_up) {
        let write = write.try_clone().map_err(failed)?;
        signal_hook::low_level::pipe::register(signal, write).map_err(failed)?;
    }
    let wait = move || {
        let mut byte = [0];
        if read.read_exact(&mut byte).is_ok() {
            end();
        }
    };
    std::thread::Builder::new().name("hf-signals".to_owned()).spawn(wait).map_err(failed)?;
    Ok(())
}

/// Opens the queue in a data directory for reading.
///
/// # Errors
/// Those of [`Inspector::open`].
pub fn open(data_dir: &Path) -> Result<Inspector, Error> {
    Inspector::open_with(data_dir, || {
        // Known before a signal can end the process with it.
        let mut copies = COPIES.lock().unwrap_or_else(PoisonError::into_inner);
        let scratch = Scratch::new()?;
        *copies = Some(scratch.path().to_owned());
        Ok(scratch)
    })
}

/// Waits for the end, where a signal has called for it: what went wrong since may be its doing.
pub fn end_if_interrupted() {
    while ENDING.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

/// Tells on stderr what could not be read.
pub fn tell(problem: &Problem) {
    let mut stderr = io::stderr().lock();
    let (path, what) = (problem.path.display(), &problem.what);
    // A closed stderr leaves nobody to tell.
    let _ = match (problem.from, problem.to) {
        (0, _) => writeln!(stderr, "harborforge-connector: {path}: {what}"),
        (from, to) if from == to => {
            writeln!(stderr, "harborforge-connector: sample {from} in {path}: {what}")
        }
        (from, to) => {
            writeln!(stderr, "harborforge-connector: samples {from} to {to} in {path}: {what}")
        }
    };
}

fn end() -> ! {
    ENDING.store(true, Ordering::SeqCst);
    let copies = COPIES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(dir) = copies.as_deref() {
        for _ in 0..TRIES {
            match fs::remove_dir_all(dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    std::thread::sleep(BETWEEN);
                }
                Ok(()) | Err(_) => break,
            }
        }
    }
    // Nothing else: flushing the output would wait for who does not read it.
    signal_hook::low_level::exit(Exit::Interrupted as i32)
}

/// Whether this process was started to ignore a signal.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
