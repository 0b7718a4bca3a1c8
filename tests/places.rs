//! Where it runs: hosts that hide or forbid something, containers with the host's root elsewhere.
//! The real program, and the real kernel's ways of hiding.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stderr, reason = "a test that is left out says so")]

mod support;

use std::fs;
use std::process::Command;

use serde_json::Value;

use support::{PATIENCE, Site, monitor, outcome, plain, program, run};

/// What the shell answers when the preparation fails, other than any of ours.
const NOT_PREPARED: i32 = 77;

const OF_PROC: [&str; 4] = ["cpu_pct", "mem_pct", "swap_pct", "load_avg"];

/// A sample of the program in namespaces of its own, after a preparation by the shell. `None`, said
/// loudly, where it cannot be prepared.
fn sample_after(prepare: &str) -> Option<Value> {
    let program = env!("CARGO_BIN_EXE_harborforge-connector");
    let line = format!("({prepare}) || exit {NOT_PREPARED}; exec '{program}' sample");
    let mut unshare = Command::new("unshare");
    unshare.args(["--map-root-user", "--mount", "--pid", "--fork", "sh", "-c", &line]);
    unshare.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let output = unshare.output().ok().filter(|it| it.status.code() != Some(NOT_PREPARED));
    let output = output.filter(|it| !String::from_utf8_lossy(&it.stderr).contains("unshare:"));
    let Some(output) = output else {
        eprintln!("SKIPPED: no namespaces in which to {prepare}");
        return None;
    };
    assert!(output.status.success(), "{output:?}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn other_processes_hidden_and_a_root_that_is_read_only_hide_no_figure() {
    for prepare in ["mount -t proc -o hidepid=2 proc /proc", "mount -o remount,bind,ro /"] {
        let Some(sample) = sample_after(prepare) else { continue };
        for figure in OF_PROC.iter().chain(&["disk_pct", "uptime_seconds"]) {
            assert!(!sample[figure].is_null(), "{prepare}: {figure} in {sample}");
        }
    }
}

#[test]
fn a_proc_of_processes_alone_is_null_and_never_zero() {
    let Some(sample) = sample_after("mount -t proc -o subset=pid proc /proc") else { return };
    for figure in OF_PROC {
        assert!(sample[figure].is_null(), "{figure} in {sample}");
    }
    assert!(sample["disk_pct"].is_number(), "{sample}");
}

/// A directory as a container sees the host's root: this machine's `/proc` and an nginx.
fn host(site: &Site) -> std::path::PathBuf {
    let root = site.path("host");
    for directory in ["usr/sbin", "etc/nginx/sites-enabled", "proc"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(root.join("usr/sbin/nginx"), "").unwrap();
    for name in ["www.example", "api.example"] {
        fs::write(root.join("etc/nginx/sites-enabled").join(name), "server {}").unwrap();
    }
    fs::write(root.join("proc/stat"), "cpu  1 1 1 1 1 1 1 1 0 0\n").unwrap();
    fs::write(root.join("proc/uptime"), "4711.00 1.00\n").unwrap();
    root
}

#[test]
fn the_hosts_root_elsewhere_is_sampled_and_its_sites_are_delivered() {
    run(async {
        let monitor = monitor(plain()).await;
        let mut site = Site::new(&monitor);
        let root = host(&site);
        site.set("root_fs", root.to_str().unwrap()).set("report_nginx", "true");
        let mut daemon = site.start();
        let has = |wanted: fn(&Value) -> bool| {
            let monitor = &monitor;
            async move {
                let arrived = |books: &harborforge_monitor::Journal| {
                    books.accepted().iter().any(|one| wanted(&one.telemetry))
                };
                monitor.wait_for(arrived, PATIENCE).await.unwrap();
            }
        };
        has(|telemetry| {
            telemetry["nginx_sites"] == serde_json::json!(["api.example", "www.example"])
                && telemetry["nginx_installed"] == true
                && telemetry["uptime_seconds"] == 4711
                // Counters that stand still, and a file that is not there.
                && telemetry["cpu_pct"].is_null()
                && telemetry["mem_pct"].is_null()
                && telemetry["disk_pct"].is_number()
        })
        .await;
        // A directory that nobody can read, not even root: said once, and null.
        let sites = root.join("etc/nginx/sites-enabled");
        fs::remove_dir_all(&sites).unwrap();
        std::os::unix::fs::symlink(&sites, &sites).unwrap();
        has(|telemetry| {
            telemetry.get("nginx_sites").is_some_and(Value::is_null)
                && telemetry["nginx_installed"] == true
        })
        .await;
        let last = daemon.appended();
        daemon.has_appended(last + 1).await;
        let said =
            daemon.heard().iter().filter(|line| line.names(&["nginx_sites", "null"])).count();
        assert_eq!(said, 1);
        // Not asked for any more: not there any more.
        site.unset("report_nginx");
        daemon.reload(&site);
        has(|telemetry| telemetry.get("nginx_sites").is_none()).await;
        daemon.stop().await;
        site.books().agree_with(&monitor);
    });
}

#[test]
fn the_own_cgroups_figures_are_there_or_the_reason_is_said() {
    let mut command = program(&["--set", "scope=cgroup", "sample"]);
    let (code, stdout, stderr) = outcome(&mut command);
    assert_eq!(code, 0, "{stderr}");
    let sample: Value = serde_json::from_str(&stdout).unwrap();
    for figure in ["cpu_pct", "mem_pct"] {
        assert!(!sample[figure].is_null() || stderr.contains(figure), "{sample}{stderr}");
    }
    // The wait for the first figure is long enough for this one.
    assert!(!stderr.contains("no effect") && !stderr.contains("two readings"), "{stderr}");
}
