//! The daemon as a child process, and what can be learnt from its log.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{self, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{DemoError, system};
use crate::runtime;

/// Log lines kept for the case that the daemon ends by itself.
const LAST_WORDS: usize = 20;

/// The daemon's process; killed and waited for when dropped.
pub struct Child {
    process: process::Child,
    appended: Arc<AtomicU64>,
    words: Arc<Mutex<VecDeque<String>>>,
    runs: bool,
}

impl Child {
    /// Starts this program's `run` with a configuration.
    pub fn start(config: &Path) -> Result<Self, DemoError> {
        Self::start_with(config, Arc::new(AtomicU64::new(0)))
    }

    /// Starts it again after its death; what was appended before still counts.
    pub fn start_again(self, config: &Path) -> Result<Self, DemoError> {
        let appended = self.appended.clone();
        drop(self);
        Self::start_with(config, appended)
    }

    fn start_with(config: &Path, appended: Arc<AtomicU64>) -> Result<Self, DemoError> {
        let program = std::env::current_exe().map_err(system("find its own program"))?;
        let mut command = Command::new(program);
        command.arg("--config").arg(config).arg("run");
        // The demo is the same whatever the user has configured.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("HARBORFORGE_")) {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().map_err(system("start the daemon"))?;
        let words = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(log) = process.stderr.take() {
            let (appended, words) = (appended.clone(), words.clone());
            std::thread::spawn(move || follow(log, &appended, &words));
        }
        Ok(Self { process, appended, words, runs: true })
    }

    /// The last number the daemon said it has durably.
    pub fn appended(&self) -> u64 {
        self.appended.load(Ordering::Relaxed)
    }

    /// Whether it was not killed.
    pub fn runs(&self) -> bool {
        self.runs
    }

    /// An error when it ended without being told to.
    pub fn check(&mut self) -> Result<(), DemoError> {
        if !self.runs {
            return Ok(());
        }
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.ended(&status.to_string())),
            Err(source) => Err(DemoError::System { what: "look after the daemon", source }),
        }
    }

    fn ended(&mut self, status: &str) -> DemoError {
        self.runs = false;
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        let words = words.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        DemoError::Ended { status: status.to_owned(), words }
    }

    /// SIGKILL: no chance to write anything.
    pub fn kill(&mut self) -> Result<(), DemoError> {
        self.process.kill().map_err(system("kill the daemon"))?;
        self.process.wait().map_err(system("wait for the daemon"))?;
        self.runs = false;
        Ok(())
    }

    /// SIGHUP.
    pub fn reload(&self) -> Result<(), DemoError> {
        self.signal(Signal::HUP)
    }

    fn signal(&self, signal: Signal) -> Result<(), DemoError> {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        match pid {
            Some(pid) => kill_process(pid, signal)
                .map_err(|errno| system("signal the daemon")(io::Error::from(errno))),
            None => Ok(()),
        }
    }

    /// SIGTERM, and waits for the end, which has to be a clean one.
    pub async fn stop(&mut self, patience: Duration) -> Result<(), DemoError> {
        self.signal(Signal::TERM)?;
        let start = Instant::now();
        loop {
            match self.process.try_wait().map_err(system("wait for the daemon"))? {
                Some(status) if status.success() => {
                    self.runs = false;
                    return Ok(());
                }
                Some(status) => return Err(self.ended(&describe(status))),
                None if start.elapsed() > patience => return Err(self.ended("it does not stop")),
                None => runtime::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn describe(status: process::ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("signal {signal}"),
        None => status.to_string(),
    }
}

/// Reads the daemon's JSON log: remembers the last line and what was appended.
fn follow(log: ChildStderr, appended: &AtomicU64, words: &Mutex<VecDeque<String>>) {
    for line in BufReader::new(log).lines() {
        let Ok(line) = line else { return };
        if let Some(number) = appended_by(&line) {
            appended.fetch_max(number, Ordering::Relaxed);
        }
        let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
        if words.len() == LAST_WORDS {
            words.pop_front();
        }
        words.push_back(line);
    }
}

fn appended_by(line: &str) -> Option<u64> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    (line.get("message")?.as_str()? == "appended").then(|| line.get("to")?.as_u64())?
}

/// Writes a file only its owner may read.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// The challenge that stands in a configuration written before.
pub fn challenge_in(path: &Path) -> Result<String, DemoError> {
    let text = fs::read_to_string(path).map_err(system("read its configuration"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("challenge_uuid = "));
    Ok(line.unwrap_or_default().trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_from_the_log_and_nothing_else() {
        let line = r#"{"level":"DEBUG","message":"appended","from":3,"to":5}"#;
        assert_eq!(appended_by(line), Some(5));
        for other in ["", "{}", r#"{"message":"acknowledged","to":5}"#, "panicked at"] {
            assert_eq!(appended_by(other), None);
        }
    }
}
