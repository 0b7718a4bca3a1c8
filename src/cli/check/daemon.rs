//! Whether a daemon runs, and whether it is the one whose socket is configured.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use super::{Facts, Line, Verdict};
use crate::control::client::{Answer, Client, ClientError};
use crate::control::protocol::Request;
use crate::control::status::Status;
use crate::oneshot::oneshot;

/// Where the queue's lock file may be, under the data directory.
const LOCK_FILES: [&str; 2] = ["queue/LOCK", "LOCK"];

pub(super) fn daemon(facts: &Facts<'_>) -> Vec<Line> {
    let directory = &facts.config().data_dir;
    vec![match queue_holder(directory) {
        Ok(Some(pid)) => Line::new(Verdict::Ok, "daemon", format!("runs as process {pid}")),
        Ok(None) => Line::new(Verdict::Ok, "daemon", "does not run on this data_dir"),
        Err(error) => {
            let text = format!("cannot tell for {}: {error}; run as its user", directory.display());
            Line::new(Verdict::Warn, "daemon", text)
        }
    }]
}

/// The process that holds the queue in a data directory.
///
/// # Errors
/// When this user may not look there.
pub(in crate::cli) fn queue_holder(data_dir: &Path) -> io::Result<Option<u32>> {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    for name in LOCK_FILES {
        let metadata = match fs::metadata(data_dir.join(name)) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(_) => continue,
        };
        let device = metadata.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let file = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
        if let Some(pid) = lock_holder(&locks, &file) {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

/// A daemon that works answers at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

pub(super) fn control_socket(facts: &Facts<'_>) -> Vec<Line> {
    let config = facts.config();
    let (sender, answer) = oneshot();
    let path = config.control_socket.clone();
    // On a thread of its own: one that hangs is left behind.
    std::thread::spawn(move || sender.send(pid_behind(&path)));
    let shown = config.control_socket.display().to_string();
    let holder = queue_holder(&config.data_dir).ok().flatten();
    vec![match answer.wait(ANSWER_WITHIN) {
        Ok(asked) => socket_line(asked, holder, &shown),
        Err(_) => {
            let text =
                format!("{shown} is open, but what listens there does not answer within 5 s");
            Line::new(Verdict::Warn, SOCKET, text)
        }
    }]
}

const SOCKET: &str = "control_socket";

/// The process that answers on the socket.
fn pid_behind(path: &Path) -> Result<Option<u32>, ClientError> {
    let client = Client::connect(path)?;
    let mut answer: Answer<Status, serde_json::Value> = client.ask(&Request::Status, false)?;
    Ok(answer.next_item()?.and_then(|status| status.pid))
}

/// What is to be said of the socket; `holder` holds the queue.
fn socket_line(asked: Result<Option<u32>, ClientError>, holder: Option<u32>, shown: &str) -> Line {
    let warn = |text: String| Line::new(Verdict::Warn, SOCKET, text);
    match (asked, holder) {
        (Ok(pid), holder) if pid == holder => {
            Line::new(Verdict::Ok, SOCKET, format!("{shown}, the daemon answers"))
        }
        (Ok(pid), Some(holder)) => warn(format!(
            "{shown}: process {} answers, but process {holder} holds this data_dir; give each \
             daemon a control_socket of its own",
            pid.unwrap_or_default()
        )),
        (Ok(pid), None) => warn(format!(
            "{shown}: process {} answers, but works on another data_dir, or this user cannot see \
             who holds it",
            pid.unwrap_or_default()
        )),
        (Err(ClientError::NoDaemon { .. }), Some(holder)) => warn(format!(
            "{shown}: nobody answers, though process {holder} holds this data_dir; its \
             control_socket is another one, or could not be opened (its log says why)"
        )),
        (Err(ClientError::NoDaemon { .. }), None) => {
            Line::new(Verdict::Ok, SOCKET, format!("{shown}, no daemon answers"))
        }
        (Err(error), _) => warn(error.to_string()).because(&error),
    }
}

/// The process that holds a lock on a file, from the text of `/proc/locks`: asking for the lock
/// itself would make a daemon that starts at this moment fail.
fn lock_holder(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip_while(|field| !field.starts_with("FLOCK"));
        let (_, _, access) = (fields.next()?, fields.next()?, fields.next()?);
        let (pid, held) = (fields.next()?, fields.next()?);
        (access == "WRITE" && held == file).then(|| pid.parse().ok())?
    })
}

#[cfg(test)]
#[path = "daemon_tests.rs"]
mod tests;
