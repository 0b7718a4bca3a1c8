//! The collector over a host of which every figure can fail.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::baseline::{Counters, Reading};
use super::host::{Host, Memory, Unreadable, Usage};
use super::proc::Ticks;
use super::{Figure, OpenClawView, Settings, SystemCollector, timestamp};
use crate::logging::testing::with_subscriber;
use crate::sample::{Agent, AgentStatus, Sample};

/// A host whose figures the test sets while the collector holds it.
#[derive(Clone)]
struct Figures {
    cpu: Result<f64, Unreadable>,
    memory: Result<Memory, Unreadable>,
    disk: Result<Usage, Unreadable>,
    uptime: Result<u64, Unreadable>,
    load: Result<[f64; 3], Unreadable>,
    counters: Option<Counters>,
    warm_up: Duration,
    asked_for: Vec<String>,
}

#[derive(Clone)]
struct FakeHost(Arc<Mutex<Figures>>);

impl FakeHost {
    fn well() -> Self {
        Self(Arc::new(Mutex::new(Figures {
            cpu: Ok(12.345),
            memory: Ok(Memory {
                ram: Usage { used: 412, total: 1000 },
                swap: Usage { used: 0, total: 0 },
            }),
            disk: Ok(Usage { used: 62, total: 100 }),
            uptime: Ok(12345),
            load: Ok([0.12, 0.09, 0.03]),
            counters: None,
            warm_up: Duration::ZERO,
            asked_for: Vec::new(),
        })))
    }

    fn set(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.0.lock().unwrap());
    }

    fn collector(&self) -> SystemCollector {
        SystemCollector::of(Box::new(self.clone()), Settings::default())
    }
}

impl Host for FakeHost {
    fn cpu(&mut self) -> Result<f64, Unreadable> {
        self.0.lock().unwrap().cpu.clone()
    }
    fn warm_up(&self) -> Duration {
        self.0.lock().unwrap().warm_up
    }
    fn counters(&self) -> Option<Counters> {
        self.0.lock().unwrap().counters.clone()
    }
    fn memory(&mut self) -> Result<Memory, Unreadable> {
        self.0.lock().unwrap().memory.clone()
    }
    fn disk(&mut self, path: &Path) -> Result<Usage, Unreadable> {
        let mut figures = self.0.lock().unwrap();
        figures.asked_for.push(path.display().to_string());
        figures.disk.clone()
    }
    fn uptime(&mut self) -> Result<u64, Unreadable> {
        self.0.lock().unwrap().uptime.clone()
    }
    fn load(&mut self) -> Result<[f64; 3], Unreadable> {
        self.0.lock().unwrap().load.clone()
    }
}

fn collect(collector: &mut SystemCollector) -> Sample {
    let now = UNIX_EPOCH + Duration::from_millis(1_773_262_800_999);
    collector.collect(now, OpenClawView::default())
}

fn missing() -> Unreadable {
    Unreadable("/proc/figure: No such file or directory".into())
}

#[test]
fn a_sample_says_what_the_host_says() {
    let sample = collect(&mut FakeHost::well().collector());
    assert_eq!(
        sample,
        Sample {
            openclaw_version: None,
            cpu_pct: Some(12.3),
            mem_pct: Some(41.2),
            disk_pct: Some(62.0),
            // A host without swap uses none of it.
            swap_pct: Some(0.0),
            uptime_seconds: Some(12345),
            load_avg: Some([0.12, 0.09, 0.03]),
            agents: Vec::new(),
            last_seen_at: "2026-03-11T21:00:00Z".into(),
            connector_version: env!("CARGO_PKG_VERSION").into(),
            agents_truncated: None,
            plugin_version: None,
            nginx_installed: None,
            nginx_sites: None,
        }
    );
}

#[test]
fn what_is_known_of_openclaw_goes_into_the_sample() {
    let agents =
        vec![Agent { id: "a1".into(), name: "agent".into(), status: AgentStatus::Running }];
    let sample = FakeHost::well().collector().collect(
        UNIX_EPOCH,
        OpenClawView {
            version: Some("2026.3.13".into()),
            agents: agents.clone(),
            plugin_version: Some("1.2".into()),
        },
    );
    assert_eq!(sample.openclaw_version.as_deref(), Some("2026.3.13"));
    assert_eq!(sample.plugin_version.as_deref(), Some("1.2"));
    assert_eq!(sample.agents, agents);
}

#[test]
fn a_figure_that_cannot_be_read_is_null_and_holds_up_no_other() {
    let whole = collect(&mut FakeHost::well().collector());
    let failing = |change: fn(&mut Figures)| {
        let host = FakeHost::well();
        host.set(change);
        collect(&mut host.collector())
    };
    assert_eq!(
        failing(|figures| figures.cpu = Err(missing())),
        Sample { cpu_pct: None, ..whole.clone() }
    );
    assert_eq!(
        failing(|figures| figures.memory = Err(missing())),
        Sample { mem_pct: None, swap_pct: None, ..whole.clone() }
    );
    assert_eq!(
        failing(|figures| figures.disk = Err(missing())),
        Sample { disk_pct: None, ..whole.clone() }
    );
    assert_eq!(
        failing(|figures| figures.uptime = Err(missing())),
        Sample { uptime_seconds: None, ..whole.clone() }
    );
    assert_eq!(
        failing(|figures| figures.load = Err(missing())),
        Sample { load_avg: None, ..whole.clone() }
    );
    assert_eq!(failing(|figures| figures.cpu = Ok(f64::NAN)), Sample { cpu_pct: None, ..whole });
}

/// Collects what is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// The lines since the last call.
    fn lines(&self) -> Vec<String> {
        let text = std::mem::take(&mut *self.0.lock().unwrap());
        String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_failure_is_said_once_until_the_figure_came_back() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    with_subscriber(subscriber, || {
        let host = FakeHost::well();
        let mut collector = host.collector();
        collect(&mut collector);
        assert_eq!(log.lines(), Vec::<String>::new());

        host.set(|figures| figures.load = Err(missing()));
        collect(&mut collector);
        let said = log.lines();
        assert_eq!(said.len(), 1, "{said:?}");
        for part in ["WARN", "load_avg", "/proc/figure: No such file"] {
            assert!(said[0].contains(part), "{said:?}");
        }
        // Another figure's failure is news, the same one's is not.
        host.set(|figures| figures.disk = Err(missing()));
        collect(&mut collector);
        collect(&mut collector);
        let said = log.lines();
        assert!(said.len() == 1 && said[0].contains("disk_pct"), "{said:?}");

        host.set(|figures| figures.load = Ok([0.0; 3]));
        collect(&mut collector);
        let said = log.lines();
        assert!(said.len() == 1 && said[0].contains("load_avg"), "{said:?}");
        assert!(said[0].contains("INFO"), "{said:?}");

        host.set(|figures| figures.load = Err(missing()));
        collect(&mut collector);
        let said = log.lines();
        assert!(said.len() == 1 && said[0].contains("WARN"), "{said:?}");
    });
}

/// Two processors for an hour, idle for half of it, and what was read 10 s before: busy for a
/// quarter of the time since.
fn counted() -> (Counters, Reading) {
    let boot_ms = 3_600_000;
    let (now, before) = (Ticks::of(720_000, 360_000), Ticks::of(718_000, 358_500));
    let at = |boot_ms, ticks| Counters { source: "/proc/stat".into(), boot_ms, ticks };
    (at(boot_ms, now), Reading { boot_id: [7; 16], counters: at(boot_ms - 10_000, before) })
}

/// Whoever waits for this waits for ever.
const NEVER: Duration = Duration::MAX;

#[test]
fn a_first_sample_at_once_waits_for_nothing_and_the_second_is_as_ever() {
    let (now, before) = counted();
    for (remembered, first) in [(Some(&before), Some(25.0)), (None, None)] {
        let host = FakeHost::well();
        host.set(|figures| {
            figures.counters = Some(now.clone());
            figures.warm_up = NEVER;
        });
        let mut collector = host.collector().at_once([7; 16], remembered);
        assert_eq!(collector.warm_up(), Duration::ZERO);
        assert_eq!(collect(&mut collector).cpu_pct, first);
        assert_eq!(collector.warm_up(), NEVER, "that is the host's word again");
        host.set(|figures| figures.warm_up = Duration::ZERO);
        assert_eq!(collect(&mut collector).cpu_pct, Some(12.3));
        assert_eq!(collector.counters(), Some(now.clone()));
    }
}

#[test]
fn counters_that_cannot_be_read_are_a_failure_of_the_first_sample_already() {
    let host = FakeHost::well();
    host.set(|figures| figures.cpu = Err(missing()));
    let mut collector = host.collector().at_once([7; 16], Some(&counted().1));
    collect(&mut collector);
    assert!(collector.failures.0 & 1 << Figure::Cpu as u16 != 0);

    // And no interval is none.
    let host = FakeHost::well();
    host.set(|figures| figures.counters = Some(counted().0));
    let mut collector = host.collector().at_once([7; 16], None);
    assert_eq!(collect(&mut collector).cpu_pct, None);
    assert_eq!(collector.failures.0, 0);
}

#[test]
fn a_figure_of_other_counters_is_dropped_when_a_reload_names_others() {
    let (now, before) = counted();
    let first = |change: fn(&mut Settings)| {
        let host = FakeHost::well();
        host.set(|figures| figures.counters = Some(now.clone()));
        let mut collector = host.collector().at_once([7; 16], Some(&before));
        let mut settings = Settings::default();
        change(&mut settings);
        collector.reconfigure(settings);
        collector.first
    };
    assert_eq!(first(|settings| settings.disk_path = "/srv".into()), Some(Some(25.0)));
    assert_eq!(first(|settings| settings.own_cgroup = true), None);
    let elsewhere = |settings: &mut Settings| settings.root_fs = "/nonexistent".into();
    assert_eq!(first(elsewhere), None);
}

#[test]
fn a_control_groups_first_figure_is_never_that_of_what_is_remembered() {
    let (now, before) = counted();
    let host = FakeHost::well();
    host.set(|figures| figures.counters = Some(now));
    let settings = Settings { own_cgroup: true, ..Settings::default() };
    let mut collector = SystemCollector::of(Box::new(host), settings);
    let is_read = collector.cgroup.as_ref().is_some_and(super::Cgroup::is_read);
    collector = collector.at_once([7; 16], Some(&before));
    assert_eq!(collector.first, is_read.then_some(None));
    assert_eq!(collector.counters(), None, "the host's are not kept for it");
}

#[test]
fn changed_settings_count_from_the_next_sample_on() {
    let host = FakeHost::well();
    let mut collector = host.collector();
    collect(&mut collector);
    collector.reconfigure(Settings { disk_path: "/srv".into(), ..Settings::default() });
    collect(&mut collector);
    assert_eq!(host.0.lock().unwrap().asked_for, ["/", "/srv"]);
}

#[test]
fn a_clock_beyond_what_the_format_can_say_is_put_at_its_end() {
    let year = Duration::from_secs(366 * 86_400);
    assert_eq!(timestamp(UNIX_EPOCH - year), "1970-01-01T00:00:00Z");
    assert_eq!(timestamp(UNIX_EPOCH + year * 9_000), "9999-12-31T23:59:59Z");
    assert!(timestamp(SystemTime::now()).ends_with('Z'));
}

#[test]
fn nginx_is_reported_when_asked_for_and_null_when_it_cannot_be_read() {
    let root = tempfile::tempdir().unwrap();
    let sites = root.path().join("etc/nginx/sites-enabled");
    std::fs::create_dir_all(&sites).unwrap();
    std::fs::write(sites.join("default"), "").unwrap();
    let mut collector = FakeHost::well().collector();
    // Another root would bring another host: this collector is made with it.
    collector.settings.root_fs = root.path().to_owned();
    let asked = Settings { nginx: true, ..collector.settings.clone() };
    assert_eq!(collect(&mut collector).nginx_installed, None);
    collector.reconfigure(asked);
    let sample = collect(&mut collector);
    assert_eq!(sample.nginx_installed, Some(Some(false)));
    assert_eq!(sample.nginx_sites, Some(Some(vec!["default".to_owned()])));

    std::fs::remove_dir_all(&sites).unwrap();
    std::os::unix::fs::symlink(&sites, &sites).unwrap();
    let sample = collect(&mut collector);
    assert_eq!((sample.nginx_installed, &sample.nginx_sites), (Some(Some(false)), &Some(None)));
    // What is stored says null, and is read back as that.
    let stored = String::from_utf8(sample.clone().encode().unwrap()).unwrap();
    assert!(stored.contains("\"nginx_sites\":null"), "{stored}");
    assert_eq!(serde_json::from_str::<Sample>(&stored).unwrap(), sample);
}

#[test]
fn disk_path_is_looked_up_under_the_hosts_root() {
    let at = |root: &str, path: &str| {
        Settings { root_fs: root.into(), disk_path: path.into(), ..Settings::default() }.disk()
    };
    for (root, path, expected) in [
        ("/", "/", "/"),
        ("/", "/srv", "/srv"),
        ("/host", "/", "/host"),
        ("/host", "/srv/data", "/host/srv/data"),
    ] {
        // As text: paths that differ in a slash at the end are equal.
        assert_eq!(at(root, path).display().to_string(), expected);
    }
}

#[test]
fn a_root_elsewhere_is_read_by_its_own_proc() {
    let root = tempfile::tempdir().unwrap();
    let proc = root.path().join("proc");
    std::fs::create_dir(&proc).unwrap();
    std::fs::write(proc.join("stat"), "cpu  1 2 3 4 5 6 7 8 0 0\n").unwrap();
    std::fs::write(proc.join("uptime"), "77.1 1.0\n").unwrap();
    let settings = Settings { root_fs: root.path().to_owned(), ..Settings::default() };
    let sample = collect(&mut SystemCollector::new(settings.clone()));
    assert_eq!(sample.uptime_seconds, Some(77));
    let mut collector = FakeHost::well().collector();
    collector.reconfigure(settings);
    assert_eq!(collect(&mut collector).uptime_seconds, Some(77), "a reload takes it up");
    // Counters that stand still, and files that are not there.
    assert_eq!((sample.cpu_pct, sample.mem_pct, sample.load_avg), (None, None, None));
    assert!(sample.disk_pct.is_some());
}
