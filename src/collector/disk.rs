//! The use of one file system, as `df` counts it, without ever hanging on it.
//!
//! statvfs(2) on a dead network mount does not return, and no timeout can be given to it. It
//! therefore runs on a thread of its own.
//!
//! Invariants:
//! - A question waits for its answer for at most [`PATIENCE`]. While one is unanswered, further
//!   ones fail at once: a dead mount delays one sample by a second, once.
//! - There is one such thread; only a change of the path while it hangs leaves it behind, and it
//!   ends when its call returns.
//! - A late answer is thrown away: a figure is of the moment it was asked for.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use super::host::{Unreadable, Usage};

/// How long a file system may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// The thread makes one system call; this is ample, also without optimisation.
const STACK: usize = 128 * 1024;

type Read = Arc<dyn Fn(&Path) -> Result<Usage, Unreadable> + Send + Sync>;

/// Asks for the use of file systems; the thread starts with the first question.
pub struct DiskProbe {
    read: Read,
    patience: Duration,
    worker: Option<Worker>,
}

struct Worker {
    path: Arc<Path>,
    questions: SyncSender<()>,
    answers: Receiver<Result<Usage, Unreadable>>,
    /// A question was asked and not answered in time.
    overdue: bool,
}

impl DiskProbe {
    /// A probe that asks the kernel.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Arc::new(statvfs), PATIENCE)
    }

    fn with(read: Read, patience: Duration) -> Self {
        Self { read, patience, worker: None }
    }

    /// The use of the file system `path` is on: used blocks, and used plus available ones.
    ///
    /// # Errors
    /// When the path cannot be looked up, the file system has no blocks, or does not answer in
    /// time.
    pub fn usage(&mut self, path: &Path) -> Result<Usage, Unreadable> {
        let mut worker = match self.worker.take().filter(|worker| &*worker.path == path) {
            Some(worker) => worker,
            None => Worker::start(path, Arc::clone(&self.read))?,
        };
        let answer = worker.ask(self.patience);
        // One whose thread is gone is not kept: the next question starts another.
        if !matches!(answer, Err(Fault::Gone)) {
            self.worker = Some(worker);
        }
        match answer {
            Ok(answer) => answer,
            Err(Fault::Overdue) => Err(Unreadable(format!(
                "the file system of disk_path {} does not answer; is it a network mount whose \
                 server is away?",
                path.display()
            ))),
            Err(Fault::Gone) => Err(Unreadable("the thread that asks for it has ended".into())),
        }
    }
}

impl Default for DiskProbe {
    fn default() -> Self {
        Self::new()
    }
}

enum Fault {
    Overdue,
    Gone,
}

impl Worker {
    fn start(path: &Path, read: Read) -> Result<Self, Unreadable> {
        // One question may wait while one is being answered; more are never asked.
        let (questions, asked) = sync_channel::<()>(1);
        let (answer, answers) = sync_channel(1);
        let path: Arc<Path> = Arc::from(path);
        let subject = Arc::clone(&path);
        std::thread::Builder::new()
            .name("disk-probe".into())
            .stack_size(STACK)
            .spawn(move || {
                while asked.recv().is_ok() {
                    if answer.send(read(&subject)).is_err() {
                        break;
                    }
                }
            })
            .map_err(|error| Unreadable(format!("no thread to ask for it: {error}")))?;
        Ok(Self { path, questions, answers, overdue: false })
    }

    fn ask(&mut self, patience: Duration) -> Result<Result<Usage, Unreadable>, Fault> {
        if self.overdue {
            match self.answers.try_recv() {
                Ok(_) => self.overdue = false,
                Err(TryRecvError::Empty) => return Err(Fault::Overdue),
                Err(TryRecvError::Disconnected) => return Err(Fault::Gone),
            }
        }
        self.questions.send(()).map_err(|_| Fault::Gone)?;
        match self.answers.recv_timeout(patience) {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Timeout) => {
                self.overdue = true;
                Err(Fault::Overdue)
            }
            Err(RecvTimeoutError::Disconnected) => Err(Fault::Gone),
        }
    }
}

fn statvfs(path: &Path) -> Result<Usage, Unreadable> {
    let figures = rustix::fs::statvfs(path).map_err(|error| {
        Unreadable(format!(
            "statvfs of disk_path {}: {}",
            path.display(),
            std::io::Error::from(error)
        ))
    })?;
    if figures.f_blocks == 0 {
        return Err(Unreadable(format!(
            "disk_path {} is on a file system without blocks, such as /proc; name a directory on a \
             disk",
            path.display()
        )));
    }
    Ok(df(figures.f_blocks, figures.f_bfree, figures.f_bavail))
}

/// `df`'s arithmetic: blocks reserved for root count neither as used nor as available.
fn df(blocks: u64, free: u64, available: u64) -> Usage {
    let used = blocks.saturating_sub(free);
    Usage { used, total: used.saturating_add(available) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn blocks_reserved_for_root_are_neither_used_nor_available() {
        // 1000 blocks, 400 free, 350 of them for everyone.
        assert_eq!(df(1000, 400, 350), Usage { used: 600, total: 950 });
        // A file system that is full for users is full.
        assert_eq!(df(1000, 50, 0).percent(), 100.0);
        // More free than there is: some FUSE file systems say so.
        assert_eq!(df(10, 20, 20), Usage { used: 0, total: 20 });
    }

    #[test]
    fn the_reason_names_the_path_and_what_is_wrong() {
        let mut probe = DiskProbe::new();
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("gone");
        let why = probe.usage(&missing).unwrap_err().0;
        assert!(why.contains("gone") && why.contains("No such file"), "{why}");
        let why = probe.usage(Path::new("/proc")).unwrap_err().0;
        assert!(why.contains("/proc") && why.contains("without blocks"), "{why}");
        assert!(probe.usage(dir.path()).unwrap().total > 0);
    }

    #[test]
    fn a_file_system_that_hangs_is_an_error_until_it_answers_and_is_then_read_afresh() {
        let (release, gate) = sync_channel::<u64>(0);
        let gate = Mutex::new(gate);
        let read: Read = Arc::new(move |_| {
            let used = gate.lock().unwrap().recv().unwrap();
            Ok(Usage { used, total: 100 })
        });
        let mut probe = DiskProbe::with(read, Duration::from_millis(1));
        let path = Path::new("/mnt/dead");
        assert!(probe.usage(path).unwrap_err().0.contains("/mnt/dead"));
        // From now on it would wait for ever: only failing at once gets past this.
        probe.patience = Duration::MAX;
        assert!(probe.usage(path).is_err());
        assert!(probe.usage(path).is_err());
        // The hung call returns; its figure is old and must not be reported.
        let answering = std::thread::spawn(move || {
            release.send(1).unwrap();
            release.send(2).unwrap();
        });
        let usage = loop {
            match probe.usage(path) {
                Ok(usage) => break usage,
                Err(_) => std::thread::yield_now(),
            }
        };
        assert_eq!(usage.used, 2);
        answering.join().unwrap();
    }

    #[test]
    fn another_path_does_not_wait_for_the_one_that_hangs() {
        let (_release, gate) = sync_channel::<()>(0);
        let gate = Mutex::new(gate);
        let read: Read = Arc::new(move |path| {
            if path == Path::new("/mnt/dead") {
                let _ = gate.lock().unwrap().recv();
            }
            Ok(Usage { used: 1, total: 2 })
        });
        let mut probe = DiskProbe::with(read, Duration::from_millis(1));
        assert!(probe.usage(Path::new("/mnt/dead")).is_err());
        probe.patience = Duration::from_secs(60);
        assert_eq!(probe.usage(Path::new("/")), Ok(Usage { used: 1, total: 2 }));
    }

    #[test]
    fn a_thread_that_ended_is_replaced() {
        let read: Read = Arc::new(|path| {
            assert!(path != Path::new("/panics"), "the reader fails");
            Ok(Usage { used: 1, total: 2 })
        });
        let mut probe = DiskProbe::with(read, Duration::from_secs(60));
        assert!(probe.usage(Path::new("/panics")).unwrap_err().0.contains("ended"));
        assert!(probe.worker.is_none());
        assert!(probe.usage(Path::new("/")).is_ok());
    }
}
