//! What the daemon costs: memory, threads, CPU and start-up, idle and with a million samples
//! waiting. A plain program (`cargo bench --bench daemon`); it prints figures and asserts none,
//! since they are the machine's as much as the daemon's.
//!
//! The daemon is the real program as built for the bench, a Monitor of our own runs in this
//! process, plain HTTP on loopback. Memory is `VmRSS` and `VmHWM` of /proc/PID/status, CPU is
//! user and system time of /proc/PID/stat.

// A bench may say in one word what must hold; clippy only knows that inside `#[test]`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harborforge_connector::runtime::block_on;
use harborforge_monitor::{Capability, Monitor, Options, test_key};
use harborforge_storage::{NewRecord, Options as QueueOptions, Queue, Stamp};

const WAITING: u64 = 1_000_000;
const WATCHED: Duration = Duration::from_secs(20);

fn main() {
    // `cargo test --benches` and `cargo bench -- --test` only want to know that it builds.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    println!("daemon, a sample a second, watched for {} s each", WATCHED.as_secs());
    println!("{:<44} {:>8} {:>8} {:>8} {:>10}", "", "RSS MiB", "peak MiB", "threads", "CPU s/min");

    let idle = tempfile::tempdir().unwrap();
    let monitor = monitor();
    let daemon = Daemon::start(idle.path(), &monitor, "256MiB");
    block_on(monitor.wait_for(|books| books.counts().unique > 0, Duration::from_secs(60))).unwrap();
    daemon.watch("delivering, queue empty");
    drop(daemon);

    let full = tempfile::tempdir().unwrap();
    let began = Instant::now();
    fill(&full.path().join("data"));
    let filled = began.elapsed();
    block_on(monitor.pause());
    let daemon = Daemon::start(full.path(), &monitor, "2GiB");
    daemon.watch("Monitor away, 1 M samples waiting");

    block_on(monitor.resume()).unwrap();
    let before = monitor.counts().unique;
    let began = Instant::now();
    daemon.signal("USR1");
    let share = 100_000;
    let enough =
        move |books: &harborforge_monitor::Journal| books.counts().unique >= before + share;
    block_on(monitor.wait_for(enough, Duration::from_secs(600))).unwrap();
    let rate = share as f64 / began.elapsed().as_secs_f64();
    daemon.watch("draining them");
    drop(daemon);
    println!();
    println!(
        "filling the queue with 1 M samples of 400 bytes      {:>8.1} s",
        filled.as_secs_f64()
    );
    println!("drain of the first 100,000, Monitor in this process  {rate:>8.0} samples/s");
}

fn monitor() -> Monitor {
    let options = Options {
        key: Some(test_key()),
        capabilities: [Capability::Batch, Capability::Ack].into(),
        lenient: true,
        keep: 16,
        ..Options::default()
    };
    block_on(Monitor::start(options)).unwrap()
}

fn fill(data_dir: &Path) {
    fs::create_dir_all(data_dir).unwrap();
    let stamp = Stamp { wall_ms: 1_773_262_800_000, boot_ms: 1, boot_id: [1; 16] };
    let options = QueueOptions { queue_max_bytes: 2 << 30, ..QueueOptions::default() };
    let (mut queue, _) = Queue::open(data_dir, options, stamp).unwrap();
    let name = "n".repeat(170);
    let payload = format!(
        r#"{{"openclaw_version":null,"cpu_pct":12.5,"mem_pct":41.2,"disk_pct":62.0,"swap_pct":0.0,"uptime_seconds":12345,"load_avg":[0.1,0.1,0.1],"agents":[{{"id":"a","name":"{name}","status":"idle"}}],"last_seen_at":"2026-03-11T21:00:00Z","connector_version":"0.1.0"}}"#
    );
    let record = NewRecord { stamp, payload: payload.as_bytes() };
    for _ in 0..WAITING / 500 {
        queue.append(&[record; 500]).unwrap();
        queue.maintain(stamp).unwrap();
    }
    queue.close().unwrap();
}

struct Daemon(Child);

impl Daemon {
    fn start(dir: &Path, monitor: &Monitor, bound: &str) -> Self {
        let config = dir.join("config.toml");
        let text = format!(
            "backend_url = {:?}\nidentifier = \"bench\"\nchallenge_uuid = {:?}\n\
             report_interval = \"1s\"\nbackoff_cap = \"1s\"\ndata_dir = {:?}\n\
             control_socket = {:?}\nqueue_max_bytes = {bound:?}\nlog_level = \"error\"\n",
            monitor.url(),
            monitor.issue_challenge(),
            dir.join("data"),
            dir.join("control.sock"),
        );
        fs::write(&config, text).unwrap();
        fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_harborforge-connector"))
            .arg("--config")
            .arg(config)
            .arg("run")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.0.id());
        assert!(Command::new("sh").arg("-c").arg(kill).status().unwrap().success());
    }

    fn watch(&self, what: &str) {
        let (began, before) = (Instant::now(), self.cpu());
        std::thread::sleep(WATCHED);
        let cpu = (self.cpu() - before) / began.elapsed().as_secs_f64() * 60.0;
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let figure = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap()
        };
        println!(
            "{what:<44} {:>8.1} {:>8.1} {:>8} {cpu:>10.2}",
            figure("VmRSS") / 1024.0,
            figure("VmHWM") / 1024.0,
            figure("Threads")
        );
    }

    /// User and system time in seconds.
    fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let (_, rest) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks / rustix::param::clock_ticks_per_second() as f64
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
