//! A directory of a test's own: configuration, data directory, and what else a daemon needs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use harborforge_connector::collector::clock::Clock;
use harborforge_connector::collector::{OpenClawView, Settings, SystemCollector};
use harborforge_connector::store::stamp;
use harborforge_monitor::Monitor;
use harborforge_storage::{Confirmation, NewRecord, Options, Queue};
use tempfile::TempDir;

use super::alone::alone;
use super::{Books, Daemon};

/// The program in an environment without configuration.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harborforge-connector"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// Exit code, stdout and stderr of a program that ends by itself.
pub fn outcome(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    (
        output.status.code().expect("ended by a signal"),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// A place for one daemon.
pub struct Site {
    dir: TempDir,
    settings: BTreeMap<&'static str, String>,
    secrets: Vec<String>,
}

impl Site {
    /// A place for a daemon that reports to `monitor` with a challenge of its own, every second,
    /// by heartbeat, and never waits for more than a second between two tries.
    pub fn new(monitor: &Monitor) -> Self {
        let mut site = Self::without_credential(monitor);
        let challenge = monitor.issue_challenge();
        site.set_secret("challenge_uuid", &challenge);
        site
    }

    /// The same over the WebSocket, with heartbeats while it is unavailable.
    pub fn real_time(monitor: &Monitor) -> Self {
        let mut site = Self::new(monitor);
        site.set("transport", "auto").set("http_fallback_interval", "1s");
        site
    }

    /// The same over the WebSocket alone: on a busy machine it may take longer to come up than
    /// the heartbeats wait.
    pub fn websocket(monitor: &Monitor) -> Self {
        let mut site = Self::new(monitor);
        site.set("transport", "websocket");
        site
    }

    /// The same without a challenge.
    pub fn without_credential(monitor: &Monitor) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let inside = |name| dir.path().join(name).to_str().unwrap().to_owned();
        let (data, socket) = (inside("data"), inside("control.sock"));
        let mut site = Self { settings: BTreeMap::new(), secrets: Vec::new(), dir };
        site.set("backend_url", &monitor.url())
            .set("identifier", "vps.t1")
            .set("transport", "http")
            .set("report_interval", "1s")
            .set("backoff_cap", "1s")
            .set("data_dir", &data)
            .set("control_socket", &socket)
            .set("log_level", "debug")
            .set("log_format", "json");
        if let Some(pem) = monitor.ca_pem() {
            let file = site.write("ca.pem", &pem);
            site.set("ca_file", file.to_str().unwrap());
        }
        site
    }

    /// Sets a key of the configuration to a text; read at the next start or reload.
    pub fn set(&mut self, key: &'static str, value: &str) -> &mut Self {
        self.settings.insert(key, format!("{value:?}"));
        self
    }

    /// The same for a value that no log may show.
    pub fn set_secret(&mut self, key: &'static str, value: &str) -> &mut Self {
        self.hide(value);
        self.set(key, value)
    }

    /// Takes a key out.
    pub fn unset(&mut self, key: &'static str) -> &mut Self {
        self.settings.remove(key);
        self
    }

    /// No log may show this.
    pub fn hide(&mut self, secret: &str) {
        self.secrets.push(secret.to_owned());
    }

    /// What no log may show.
    pub fn secrets(&self) -> &[String] {
        &self.secrets
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    /// Writes a file that only its owner may read.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Writes the configuration down.
    pub fn configure(&self) -> PathBuf {
        let lines: Vec<String> =
            self.settings.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        self.write("config.toml", &lines.concat())
    }

    /// The program with this configuration.
    pub fn command(&self, command: &str) -> Command {
        let config = self.configure();
        program(&["--config", config.to_str().unwrap(), command])
    }

    /// Starts the daemon.
    pub fn start(&self) -> Daemon {
        Daemon::start(self)
    }

    /// Puts `count` samples into the queue, one a second until now; no daemon may run.
    pub fn fill(&self, count: u64) {
        self.fill_within(count, Options::default().queue_max_bytes);
    }

    /// The same with a queue of so many payload bytes.
    pub fn fill_within(&self, count: u64, queue_max_bytes: u64) {
        let _alone = alone();
        let mut queue = self.queue_within(queue_max_bytes);
        let mut collector = SystemCollector::new(Settings::default());
        let sample = collector.collect(SystemTime::now(), OpenClawView::default());
        let payload = sample.encode().unwrap();
        let now = stamp(Clock::new().stamp());
        let stamps = (0..count).rev().map(|age| {
            let mut stamp = now;
            stamp.wall_ms -= 1000 * age;
            stamp.boot_ms = stamp.boot_ms.saturating_sub(1000 * age);
            stamp
        });
        let records: Vec<_> = stamps.map(|stamp| NewRecord { stamp, payload: &payload }).collect();
        // Not all at once: a small queue makes room before each.
        for records in records.chunks(128) {
            queue.append(records).unwrap();
        }
        queue.close().unwrap();
    }

    /// Puts 10 samples into the queue: 1 to 5 delivered, 6 rejected, 7 to 10 waiting.
    pub fn fill_all_sets(&self) {
        self.fill(10);
        let _alone = alone();
        let mut queue = self.queue();
        let now = queue.stats().oldest_pending.unwrap();
        queue.acknowledge(5, Confirmation { wall_ms: now.wall_ms, tag: 1 }).unwrap();
        queue.reject(6, "HTTP 422: odd", now).unwrap();
        queue.close().unwrap();
    }

    /// The queue itself; no daemon may run.
    pub fn queue(&self) -> Queue {
        self.queue_within(Options::default().queue_max_bytes)
    }

    fn queue_within(&self, queue_max_bytes: u64) -> Queue {
        let now = stamp(Clock::new().stamp());
        let options = Options { queue_max_bytes, ..Options::default() };
        Queue::open(&self.data_dir(), options, now).unwrap().0
    }

    /// What the queue says, read while no daemon runs.
    pub fn books(&self) -> Books {
        let _alone = alone();
        Books::read(self.queue())
    }

    /// Looks into the queue; no daemon may run.
    pub fn look<T>(&self, look: impl FnOnce(&Queue) -> T) -> T {
        let _alone = alone();
        let queue = self.queue();
        let seen = look(&queue);
        queue.close().unwrap();
        seen
    }

    /// `state.json` as it stands.
    pub fn state(&self) -> serde_json::Value {
        read_json(&self.data_dir().join("state.json"))
    }
}

fn read_json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}
