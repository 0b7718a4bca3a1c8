//! Asking a file system without ever hanging on it.
//!
//! A system call on a dead network mount does not return, and no timeout can be given to it. Each
//! question therefore runs on a thread of its own, which ends with its answer: one that waited for
//! the next question would be idle for all but some microseconds of its life.
//!
//! Invariants:
//! - A question waits for its answer for at most [`PATIENCE`]. While one is unanswered, further
//!   ones fail at once: a dead mount delays one sample by a second, once.
//! - There is at most one such thread; only a change of the path while it hangs leaves it behind,
//!   and it ends when its call returns.
//! - A late answer is thrown away: a figure is of the moment it was asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::host::Unreadable;
use crate::oneshot::{Missing, Receiver, oneshot};

/// How long a file system may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// The thread makes a few system calls; this is ample, also without optimisation.
const STACK: usize = 128 * 1024;

type Read<T> = Arc<dyn Fn(&Path) -> Result<T, Unreadable> + Send + Sync>;

/// Asks about paths.
pub(super) struct Patient<T> {
    /// The key of the configuration that the path comes from, for errors.
    key: &'static str,
    read: Read<T>,
    patience: Duration,
    overdue: Option<Overdue<T>>,
}

/// A question that was not answered in time.
struct Overdue<T> {
    path: PathBuf,
    answer: Receiver<Result<T, Unreadable>>,
}

impl<T: Send + 'static> Patient<T> {
    /// One that asks by `read`.
    pub(super) fn new(
        key: &'static str,
        read: impl Fn(&Path) -> Result<T, Unreadable> + Send + Sync + 'static,
    ) -> Self {
        Self { key, read: Arc::new(read), patience: PATIENCE, overdue: None }
    }

    /// What `read` says of `path`.
    ///
    /// # Errors
    /// Those of `read`, and when there is no answer in time.
    pub(super) fn ask(&mut self, path: &Path) -> Result<T, Unreadable> {
        if let Some(late) = self.overdue.take().filter(|late| late.path == path)
            && matches!(late.answer.wait(Duration::ZERO), Err(Missing::Yet))
        {
            self.overdue = Some(late);
            return Err(self.no_answer(path));
        }
        let answer = self.put(path)?;
        match answer.wait(self.patience) {
            Ok(answer) => answer,
            Err(Missing::Yet) => {
                self.overdue = Some(Overdue { path: path.to_owned(), answer });
                Err(self.no_answer(path))
            }
            Err(Missing::Forever) => {
                Err(Unreadable("the thread that asks for it has ended".into()))
            }
        }
    }

    fn put(&self, path: &Path) -> Result<Receiver<Result<T, Unreadable>>, Unreadable> {
        let (sender, answer) = oneshot();
        let (path, read) = (path.to_owned(), Arc::clone(&self.read));
        std::thread::Builder::new()
            .name("disk-probe".into())
            .stack_size(STACK)
            .spawn(move || sender.send(read(&path)))
            .map_err(|error| Unreadable(format!("no thread to ask for it: {error}")))?;
        Ok(answer)
    }

    fn no_answer(&self, path: &Path) -> Unreadable {
        Unreadable(format!(
            "the file system of {} {} does not answer; is it a network mount whose server is away?",
            self.key,
            path.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc::sync_channel;

    fn asking(
        read: impl Fn(&Path) -> Result<u64, Unreadable> + Send + Sync + 'static,
        patience: Duration,
    ) -> Patient<u64> {
        Patient { patience, ..Patient::new("disk_path", read) }
    }

    #[test]
    fn a_file_system_that_hangs_is_an_error_until_it_answers_and_is_then_read_afresh() {
        let (release, gate) = sync_channel::<u64>(0);
        let gate = Mutex::new(gate);
        let read = move |_: &Path| {
            let used = gate.lock().unwrap().recv().unwrap();
            Ok(used)
        };
        let mut probe = asking(read, Duration::from_millis(1));
        let path = Path::new("/mnt/dead");
        assert!(probe.ask(path).unwrap_err().0.contains("/mnt/dead"));
        // From now on it would wait for ever: only failing at once gets past this.
        probe.patience = Duration::MAX;
        assert!(probe.ask(path).is_err());
        assert!(probe.ask(path).is_err());
        // The hung call returns; its figure is old and must not be reported.
        let answering = std::thread::spawn(move || {
            release.send(1).unwrap();
            release.send(2).unwrap();
        });
        let figure = loop {
            match probe.ask(path) {
                Ok(figure) => break figure,
                Err(_) => std::thread::yield_now(),
            }
        };
        assert_eq!(figure, 2);
        answering.join().unwrap();
    }

    #[test]
    fn another_path_does_not_wait_for_the_one_that_hangs() {
        let (_release, gate) = sync_channel::<()>(0);
        let gate = Mutex::new(gate);
        let read = move |path: &Path| {
            if path == Path::new("/mnt/dead") {
                let _ = gate.lock().unwrap().recv();
            }
            Ok(1)
        };
        let mut probe = asking(read, Duration::from_millis(1));
        assert!(probe.ask(Path::new("/mnt/dead")).is_err());
        probe.patience = Duration::from_secs(60);
        assert_eq!(probe.ask(Path::new("/")), Ok(1));
    }

    #[test]
    fn a_thread_that_panics_is_an_error_and_the_next_question_is_asked() {
        let read = |path: &Path| {
            assert!(path != Path::new("/panics"), "the reader fails");
            Ok(1)
        };
        let mut probe = asking(read, Duration::from_secs(60));
        assert!(probe.ask(Path::new("/panics")).unwrap_err().0.contains("ended"));
        assert!(probe.overdue.is_none());
        assert!(probe.ask(Path::new("/")).is_ok());
    }
}
