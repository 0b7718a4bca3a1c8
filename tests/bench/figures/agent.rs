//! The daemon's process, seen from outside through /proc.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{Bench, unit};

/// A directory with a configuration and, in time, a queue.
pub struct Place {
    dir: TempDir,
    program: PathBuf,
}

impl Place {
    /// A new one for a daemon that samples at this interval.
    pub fn new(bench: &mut Bench, interval: &str) -> Self {
        let url = bench.monitor.url.clone();
        Self::towards(bench, interval, &url)
    }

    /// The same with another way to the Monitor.
    pub fn towards(bench: &mut Bench, interval: &str, url: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let inside = |name| dir.path().join(name);
        fs::write(inside("ca.pem"), &bench.monitor.ca).unwrap();
        let text = format!(
            "backend_url = {url:?}\nidentifier = \"bench\"\nchallenge_uuid = {:?}\n\
             report_interval = {interval:?}\nbackoff_cap = \"1s\"\ntransport = \"websocket\"\n\
             data_dir = {:?}\ncontrol_socket = {:?}\nca_file = {:?}\nqueue_max_bytes = \"2GiB\"\n",
            bench.monitor.ask("challenge"),
            inside("data"),
            inside("control.sock"),
            inside("ca.pem"),
        );
        fs::write(inside("config.toml"), text).unwrap();
        fs::set_permissions(inside("config.toml"), fs::Permissions::from_mode(0o600)).unwrap();
        Self { program: bench.program.clone(), dir }
    }

    /// The daemon's data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The program with this configuration.
    pub fn command(&self, word: &str) -> Command {
        let mut command = Command::new(&self.program);
        // With one, each refused connection would be traced through the tables for unwinding.
        command.env_remove("RUST_BACKTRACE");
        command.arg("--config").arg(self.dir.path().join("config.toml")).arg(word);
        command
            .envs(unit::environment())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// Starts the daemon.
    pub fn run(&self) -> Agent {
        forget(&self.program);
        let agent = Agent(self.command("run").spawn().unwrap());
        while !self.dir.path().join("control.sock").exists() {
            std::thread::sleep(Duration::from_millis(20));
        }
        agent
    }

    /// Starts the daemon and stops it again; milliseconds from the one to the word that its first
    /// sample is durable.
    pub fn starts_within(&self) -> f64 {
        let mut command = self.command("run");
        command
            .args(["--set", "log_level=debug", "--set", "log_format=json"])
            .stderr(Stdio::piped());
        let began = Instant::now();
        let mut agent = Agent(command.spawn().unwrap());
        let mut lines = BufReader::new(agent.0.stderr.take().unwrap()).lines();
        let durable = |line: &String| line.contains("\"message\":\"appended\"");
        assert!(lines.any(|line| durable(&line.unwrap())), "it ended before its first sample");
        let took = began.elapsed();
        // Whoever does not read on would let it wait.
        agent.signal("TERM");
        lines.for_each(drop);
        agent.stop();
        took.as_secs_f64() * 1000.0
    }

    /// Milliseconds of a command from its start to its end.
    pub fn takes(&self, word: &str) -> f64 {
        let began = Instant::now();
        assert!(self.command(word).status().unwrap().success(), "{word}");
        began.elapsed().as_secs_f64() * 1000.0
    }
}

/// Takes the program out of the page cache, as after a boot: one that was just built lies there in
/// large pieces, of which newer kernels (6.18) map all if a byte is touched.
fn forget(program: &Path) {
    let file = fs::File::open(program).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

/// A running daemon; killed when dropped.
pub struct Agent(Child);

impl Agent {
    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.0.id());
        assert!(Command::new("sh").arg("-c").arg(kill).status().unwrap().success());
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(mut self) {
        self.signal("TERM");
        self.0.wait().unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.0.id().to_string()).join(name)
    }

    fn status(&self, name: &str) -> f64 {
        field(&self.file("status"), name)
    }

    /// Resident memory in MiB.
    pub fn rss(&self) -> f64 {
        self.status("VmRSS:") / 1024.0
    }

    /// Its peak since the start, or since it was last forgotten.
    pub fn peak(&self) -> f64 {
        self.status("VmHWM:") / 1024.0
    }

    /// Lets the peak begin anew.
    pub fn forget_peak(&self) {
        fs::write(self.file("clear_refs"), "5").unwrap();
    }

    /// How many threads there are.
    pub fn threads(&self) -> f64 {
        self.status("Threads:")
    }

    /// How often its threads have waited, and so been woken, since their start.
    pub fn waits(&self) -> f64 {
        let tasks = fs::read_dir(self.file("task")).unwrap();
        tasks.map(|t| field(&t.unwrap().path().join("status"), "voluntary_ctxt_switches:")).sum()
    }

    /// User and system time in seconds.
    pub fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(self.file("stat")).unwrap();
        let (_, rest) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks / rustix::param::clock_ticks_per_second() as f64
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A number of a status file; none when its thread has just ended.
fn field(path: &Path, name: &str) -> f64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    line.map_or(0.0, |line| line.split_whitespace().nth(1).unwrap().parse().unwrap())
}
