//! The daemon's process, its log as it comes, its signals and its end.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use async_std::channel::{self, Receiver};
use async_std::future::timeout;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{PATIENCE, Site, spawn};

/// A line of the log.
#[derive(Debug, Clone)]
pub struct Line {
    /// As it was written.
    pub text: String,
    /// The same as JSON; null when it is none.
    pub json: Value,
}

impl Line {
    fn new(text: String) -> Self {
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self { text, json }
    }

    /// Whether it is for the operator, and not for who looks for a fault.
    pub fn is_for_people(&self) -> bool {
        self.json["level"] != "DEBUG"
    }

    /// Its message.
    pub fn message(&self) -> &str {
        self.json["message"].as_str().unwrap_or_default()
    }

    /// A number it carries.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.json[key].as_u64()
    }

    /// Whether all of these stand in it.
    pub fn names(&self, parts: &[&str]) -> bool {
        parts.iter().all(|part| self.text.contains(part))
    }

    /// The last number of an `appended` line.
    pub fn appended(&self) -> Option<u64> {
        (self.message() == "appended").then(|| self.number("to")).flatten()
    }
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    log: Receiver<Line>,
    heard: Vec<Line>,
    /// Lines before this one were waited for already.
    next: usize,
    secrets: Vec<String>,
}

impl Daemon {
    /// Starts the daemon of a site.
    pub fn start(site: &Site) -> Self {
        Self::start_in(site, &[])
    }

    /// The same with these variables in its environment.
    pub fn start_in(site: &Site, variables: &[(&str, &str)]) -> Self {
        let mut command = site.command("run");
        command.envs(variables.iter().copied());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = spawn(&mut command);
        let (sender, log) = channel::unbounded();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        // Ends with the process, whose end of the pipe closes then.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.try_send(Line::new(line));
            }
        });
        Self { child, log, heard: Vec::new(), next: 0, secrets: site.secrets().to_vec() }
    }

    /// Waits for a line that has not been waited for yet; `what` is for the message when it does
    /// not come.
    pub async fn hears(&mut self, what: &str, holds: impl Fn(&Line) -> bool) -> Line {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some(line) = self.heard.get(self.next) {
                self.next += 1;
                if holds(line) {
                    return line.clone();
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match timeout(left, self.log.recv()).await {
                Ok(Ok(line)) => self.heard.push(line),
                Ok(Err(_)) => panic!("it ended before {what}:\n{}", self.words()),
                Err(_) => panic!("it never said {what}:\n{}", self.words()),
            }
        }
    }

    /// Waits for a line with this message.
    pub async fn says(&mut self, message: &str) -> Line {
        self.hears(message, |line| line.message() == message).await
    }

    /// Waits for the line about a failed delivery that names all of these.
    pub async fn complains(&mut self, parts: &[&str]) -> Line {
        let complaint = "not delivered, samples are kept";
        self.hears(&format!("{complaint}: {parts:?}"), |line| {
            line.message() == complaint && line.names(parts)
        })
        .await
    }

    /// Waits until everything it has taken so far is confirmed over this transport, the last of it
    /// at least. Returns the last number.
    pub async fn is_confirmed(&mut self, transport: &str) -> u64 {
        let last = self.appended();
        self.hears(&format!("that {last} is confirmed over {transport}"), |line| {
            line.message() == "acknowledged"
                && line.json["transport"] == transport
                && line.number("up_to") >= Some(last)
        })
        .await;
        last
    }

    /// Waits until so many samples are durable; they may have been before another line that was
    /// waited for.
    pub async fn has_appended(&mut self, at_least: u64) -> u64 {
        let so_far = self.appended();
        if so_far >= at_least {
            return so_far;
        }
        let line = self
            .hears(&format!("that {at_least} is appended"), |line| {
                line.appended().is_some_and(|to| to >= at_least)
            })
            .await;
        line.appended().unwrap()
    }

    /// Everything it has said so far.
    pub fn heard(&mut self) -> &[Line] {
        while let Ok(line) = self.log.try_recv() {
            self.heard.push(line);
        }
        &self.heard
    }

    /// The last number known to be durable.
    pub fn appended(&mut self) -> u64 {
        self.heard().iter().filter_map(Line::appended).max().unwrap_or(0)
    }

    /// Lines for the operator so far with this message.
    pub fn count(&mut self, message: &str) -> usize {
        self.heard().iter().filter(|line| line.message() == message).count()
    }

    /// Lines for the operator so far.
    pub fn for_people(&mut self) -> Vec<Line> {
        self.heard().iter().filter(|line| line.is_for_people()).cloned().collect()
    }

    /// The newest lines, for the message of a test that fails.
    fn words(&mut self) -> String {
        const MOST: usize = 40;
        let heard = self.heard();
        let newest = &heard[heard.len().saturating_sub(MOST)..];
        newest.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory it has had at a time, in KiB, as the kernel counts it.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse().unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Writes a site's configuration down and has it read again.
    pub fn reload(&mut self, site: &Site) {
        self.secrets.extend_from_slice(site.secrets());
        site.configure();
        self.signal(Signal::HUP);
    }

    /// SIGKILL; what it had said is still heard. Returns the last number known to be durable.
    pub async fn kill(mut self) -> u64 {
        self.child.kill().unwrap();
        self.ended().await;
        self.appended()
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match timeout(left, self.log.recv()).await {
                Ok(Ok(line)) => self.heard.push(line),
                Ok(Err(_)) => break,
                Err(_) => panic!("it does not end:\n{}", self.words()),
            }
        }
        for line in &self.heard {
            for secret in &self.secrets {
                assert!(!line.text.contains(secret.as_str()), "a secret in the log: {}", line.text);
            }
        }
        self.child.wait().unwrap()
    }

    /// SIGTERM; it has to end well, and within 5 seconds. Returns how long it took.
    pub async fn stop(self) -> Duration {
        self.stop_by(Signal::TERM).await
    }

    /// The same with another signal.
    pub async fn stop_by(mut self, signal: Signal) -> Duration {
        self.signal(signal);
        let status = self.ended().await;
        assert!(status.success(), "{status}:\n{}", self.words());
        // By its own clock: this thread serves the tests beside this one as well.
        let took = match (self.said_at("stopping"), self.said_at("stopped")) {
            (Some(begun), Some(ended)) => ended.duration_since(begun).unwrap_or_default(),
            said => panic!("{said:?} of stopping and stopped:\n{}", self.words()),
        };
        assert!(took < Duration::from_secs(5), "the stop took {took:?}:\n{}", self.words());
        took
    }

    /// When it last logged this message.
    fn said_at(&self, message: &str) -> Option<SystemTime> {
        let line = self.heard.iter().rev().find(|line| line.json["message"] == message)?;
        humantime::parse_rfc3339(line.json["timestamp"].as_str()?).ok()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
