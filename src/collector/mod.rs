//! Where samples come from: the host's figures and the schedule they are taken on.
//!
//! [`schedule`] decides when (pure), [`baseline`] what the first `cpu_pct` speaks of, [`clock`]
//! stamps, [`system`] (or [`proc`], for a host whose root is mounted elsewhere) and [`disk`] read
//! this host through the seam in [`host`], [`cgroup`] the own control group, [`nginx`] its sites,
//! and [`SystemCollector`] makes a [`Sample`] of it.
//!
//! Invariants:
//! - A sample can always be taken: a figure that cannot be read is `None`, never 0 and never an
//!   older one, and holds up no other figure.
//! - Each figure's failure is said once in the log, with the reason, and said again only after
//!   the figure was read in between.
//! - Taking a sample waits for no network and no sender. It blocks its thread for well under a
//!   millisecond, but for the first one where it is to have an interval of its own (up to 200 ms,
//!   see [`SystemCollector::warm_up`]; the daemon's is taken [`at once`](SystemCollector::at_once))
//!   and for the one that finds a file system hanging (a second for each, see `patient.rs`).
//! - Each `cpu_pct` speaks of an interval, the first one of the daemon too; where that has none it
//!   is `None`, which is no failure and not said.

pub mod baseline;
pub mod cgroup;
pub mod clock;
pub mod disk;
pub mod host;
pub mod nginx;
pub mod openclaw;
mod patient;
pub mod proc;
pub mod schedule;
pub mod system;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::sample::{Agent, CONNECTOR_VERSION, Sample, percent};
use baseline::{Counters, Reading, first_figure};
use cgroup::Cgroup;
use host::{Host, Unreadable, Usage};
use nginx::{Nginx, NginxProbe};

/// What of the configuration concerns the collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// A path on the file system that `disk_pct` speaks of, as the host names it.
    pub disk_path: PathBuf,
    /// Where the host's root is mounted.
    pub root_fs: PathBuf,
    /// `cpu_pct` and `mem_pct` are those of the own control group.
    pub own_cgroup: bool,
    /// nginx is reported.
    pub nginx: bool,
}

impl Default for Settings {
    /// The whole host, its root file system, and no nginx.
    fn default() -> Self {
        let root = PathBuf::from("/");
        Self { disk_path: root.clone(), root_fs: root, own_cgroup: false, nginx: false }
    }
}

impl Settings {
    /// `disk_path` as this process reaches it.
    fn disk(&self) -> PathBuf {
        match self.disk_path.strip_prefix("/") {
            // Joining nothing would leave a slash at the end.
            Ok(below) if below.as_os_str().is_empty() => self.root_fs.clone(),
            Ok(below) => self.root_fs.join(below),
            Err(_) => self.disk_path.clone(),
        }
    }
}

/// What is known of OpenClaw when a sample is taken; the default is "it is not there".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenClawView {
    /// OpenClaw's version.
    pub version: Option<String>,
    /// Its agents.
    pub agents: Vec<Agent>,
    /// Version of its plugin that reported through the bridge.
    pub plugin_version: Option<String>,
}

/// Takes samples of one host.
pub struct SystemCollector {
    host: Box<dyn Host>,
    settings: Settings,
    /// Only while it is asked for, so that its first figure has an interval of its own.
    cgroup: Option<Cgroup>,
    nginx: NginxProbe,
    failures: Failures,
    /// The CPU's figure of the next sample, when that is not to wait for an interval.
    first: Option<Option<f64>>,
}

impl SystemCollector {
    /// A collector of this host. Takes the baseline that the first `cpu_pct` is measured from.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self::of(host_at(&settings.root_fs), settings)
    }

    /// A collector of any host.
    #[must_use]
    pub fn of(host: Box<dyn Host>, settings: Settings) -> Self {
        let cgroup = settings.own_cgroup.then(Cgroup::new);
        let (nginx, failures) = (NginxProbe::new(), Failures::default());
        Self { host, settings, cgroup, nginx, failures, first: None }
    }

    /// Its first sample waits for nothing: its `cpu_pct` is the share since the last stop of the
    /// daemon, or since boot, when that is not long ago ([`baseline`]), else `None`. That of a
    /// control group is always `None`: it is made anew with the service, under the same name.
    #[must_use]
    pub fn at_once(mut self, boot_id: [u8; 16], remembered: Option<&Reading>) -> Self {
        self.first = match &self.cgroup {
            Some(group) => group.is_read().then_some(None),
            None => self.host.counters().map(|counters| {
                let now = Reading { boot_id, counters };
                first_figure(&now, remembered, || proc::per_second(&now.counters.source))
            }),
        };
        self
    }

    /// The counters that the newest `cpu_pct` was made of; `None` when they are not the host's.
    #[must_use]
    pub fn counters(&self) -> Option<Counters> {
        if self.cgroup.is_some() { None } else { self.host.counters() }
    }

    /// Takes up changed settings, from the next sample on.
    pub fn reconfigure(&mut self, settings: Settings) {
        let before = &self.settings;
        if (&settings.root_fs, settings.own_cgroup) != (&before.root_fs, before.own_cgroup) {
            self.first = None;
        }
        if settings.root_fs != self.settings.root_fs {
            self.host = host_at(&settings.root_fs);
        }
        self.cgroup = match self.cgroup.take().filter(|_| settings.own_cgroup) {
            None if settings.own_cgroup => Some(Cgroup::new()),
            other => other,
        };
        self.settings = settings;
    }

    /// How long until `cpu_pct` has an interval to speak of: up to 200 ms just after the start,
    /// zero from then on and for one that samples [at once](Self::at_once). Who must not block
    /// waits for this long before the first sample.
    #[must_use]
    pub fn warm_up(&self) -> Duration {
        if self.first.is_some() { Duration::ZERO } else { self.host.warm_up() }
    }

    /// Takes a sample; `now_wall` becomes its `last_seen_at`. Blocks for what is left of
    /// [`SystemCollector::warm_up`].
    pub fn collect(&mut self, now_wall: SystemTime, openclaw: OpenClawView) -> Sample {
        let warm_up = self.warm_up();
        if !warm_up.is_zero() {
            std::thread::sleep(warm_up);
        }
        let memory = self.host.memory();
        let swap = memory.clone().map(|memory| memory.swap);
        let cpu = match (self.first.take(), &mut self.cgroup) {
            (Some(first), _) => Ok(first),
            (None, Some(group)) => group.cpu().map(Some),
            (None, None) => self.host.cpu().map(Some),
        };
        let ram = match &self.cgroup {
            Some(group) => group.memory(memory),
            None => memory.map(|memory| memory.ram),
        };
        let disk = self.host.disk(&self.settings.disk());
        let uptime = self.host.uptime();
        let load = self.host.load();
        let nginx = self.settings.nginx.then(|| self.nginx.look(&self.settings.root_fs));
        let (nginx_installed, nginx_sites) =
            nginx.map(|Nginx { installed, sites }| (installed, sites)).unzip();
        let said = &mut self.failures;
        Sample {
            openclaw_version: openclaw.version,
            cpu_pct: said.judge(Figure::Cpu, cpu).flatten().and_then(percent),
            mem_pct: said.judge(Figure::Memory, ram).map(Usage::percent).and_then(percent),
            disk_pct: said.judge(Figure::Disk, disk).map(Usage::percent).and_then(percent),
            swap_pct: said.judge(Figure::Swap, swap).map(Usage::percent).and_then(percent),
            uptime_seconds: said.judge(Figure::Uptime, uptime),
            load_avg: said.judge(Figure::Load, load),
            agents: openclaw.agents,
            last_seen_at: timestamp(now_wall),
            connector_version: CONNECTOR_VERSION.to_owned(),
            agents_truncated: None,
            plugin_version: openclaw.plugin_version,
            nginx_installed: nginx_installed.map(|it| said.judge(Figure::NginxInstalled, it)),
            nginx_sites: nginx_sites.map(|it| said.judge(Figure::NginxSites, it)),
        }
    }
}

/// The host whose root is mounted here. Without a `/proc` in it, the own one speaks of the host as
/// far as the container lets it.
fn host_at(root: &Path) -> Box<dyn Host> {
    let proc = root.join("proc");
    if root == Path::new("/") {
        return Box::new(system::SystemHost::new());
    }
    if proc.join("stat").exists() {
        return Box::new(proc::ProcHost::new(&proc));
    }
    tracing::warn!(
        root_fs = %root.display(),
        "no proc file system is mounted there: CPU, memory, load and uptime are those that the \
         own /proc shows"
    );
    Box::new(system::SystemHost::new())
}

/// RFC 3339, UTC, whole seconds. A clock that stands before 1970 or after 9999, which the format
/// cannot say, is put at that end: the sample counts for its figures.
fn timestamp(time: SystemTime) -> String {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).min(LAST);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since_epoch).to_string()
}

/// The figures whose failures are said one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figure {
    Cpu,
    Memory,
    Disk,
    Swap,
    Uptime,
    Load,
    NginxInstalled,
    NginxSites,
}

impl Figure {
    /// Its name in the telemetry object.
    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu_pct",
            Self::Memory => "mem_pct",
            Self::Disk => "disk_pct",
            Self::Swap => "swap_pct",
            Self::Uptime => "uptime_seconds",
            Self::Load => "load_avg",
            Self::NginxInstalled => "nginx_installed",
            Self::NginxSites => "nginx_sites",
        }
    }
}

/// Which figures failed last time: a bit each.
#[derive(Debug, Default)]
struct Failures(u16);

impl Failures {
    /// The figure, or nothing and a line in the log when it failed anew.
    fn judge<T>(&mut self, figure: Figure, reading: Result<T, Unreadable>) -> Option<T> {
        let (bit, name) = (1 << figure as u16, figure.name());
        let failed_before = self.0 & bit != 0;
        match reading {
            Ok(value) => {
                self.0 &= !bit;
                if failed_before {
                    tracing::info!(figure = name, "figure can be read again");
                }
                Some(value)
            }
            Err(why) => {
                self.0 |= bit;
                if !failed_before {
                    tracing::warn!(figure = name, %why, "figure cannot be read, samples say null");
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
