//! OpenClaw's state as the real program reports it: `sample`, the daemon's samples, its hint over
//! the WebSocket, its status and its check. The gateway is this very process, as its lock says.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use support::{outcome, program};

/// Stands where a token stands; invented.
const SECRET: &str = "invented-secret-77aa";

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A state directory of the older generation whose gateway is this process.
fn home(root: &Path) -> PathBuf {
    let home = root.join("claw/.openclaw");
    let config = format!(
        "{{ gateway: {{ auth: {{ token: '{SECRET}' }}, port: 1 }}, // JSON5\n agents: {{ $include: 'agents.json5' }} }}"
    );
    write(&home.join("openclaw.json"), &config);
    write(&home.join("agents.json5"), "{ list: [ { id: 'main', name: 'Main' }, { id: 'ops' } ] }");
    let lock = format!(
        r#"{{"pid":{},"createdAt":"2026-01-01T00:00:00.000Z","configPath":"{}/openclaw.json","startTime":{}}}"#,
        std::process::id(),
        home.display(),
        start_time()
    );
    let uid = uid_of(&home);
    write(&home.join(format!("tmp/openclaw-{uid}/gateway.0a1b2c3d.lock")), &lock);
    home
}

fn uid_of(path: &Path) -> u32 {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(path).unwrap())
}

fn start_time() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    stat.rsplit(')').next().unwrap().split_ascii_whitespace().nth(19).unwrap().parse().unwrap()
}

/// A lock on a transcript of `ops`, held by this process.
fn run_of_ops(home: &Path) {
    let lock = format!("{{\"pid\": {}, \"starttime\": {}}}", std::process::id(), start_time());
    write(&home.join("agents/ops/sessions/0b5e.jsonl.lock"), &lock);
}

fn sample(environment: &[(&str, &str)]) -> (Value, String) {
    let mut command = program(&["sample"]);
    let (code, out, err) = outcome(command.envs(environment.iter().copied()));
    assert_eq!(code, 0, "{err}");
    assert!(!format!("{out}{err}").contains(SECRET), "{out}{err}");
    (serde_json::from_str(&out).unwrap(), err)
}

#[test]
fn sample_says_what_the_files_say() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    run_of_ops(&home);
    let at = ("HARBORFORGE_OPENCLAW_HOME", home.to_str().unwrap());
    let (said, _) = sample(&[at]);
    let expected = serde_json::json!([
        {"id": "main", "name": "Main", "status": "idle"},
        {"id": "ops", "name": "ops", "status": "running"},
    ]);
    assert_eq!(said["agents"], expected);
    let (said, _) = sample(&[at, ("HARBORFORGE_OPENCLAW", "off")]);
    assert_eq!(
        (&said["agents"], &said["openclaw_version"]),
        (&serde_json::json!([]), &Value::Null)
    );
    // A FIFO, and a configuration that goes wrong: told with its file, and it ends.
    std::fs::write(home.join("agents.json5"), format!("{{ list: [ '{SECRET}' {SECRET} ")).unwrap();
    let (said, err) = sample(&[at]);
    assert_eq!(said["agents"], serde_json::json!([]));
    assert!(err.contains("agents.json5: line 1"), "{err}");
}

#[test]
fn a_configuration_named_by_the_environment_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let config = dir.path().join("etc/claw-production.json5");
    write(&config, "{ gateway: { port: 1 }, agents: { list: [ { id: 'named' } ] } }");
    let (said, _) = sample(&[
        ("HOME", dir.path().join("claw").to_str().unwrap()),
        ("OPENCLAW_HOME", " "),
        ("OPENCLAW_STATE_DIR", home.to_str().unwrap()),
        ("OPENCLAW_CONFIG_PATH", "~/../etc/claw-production.json5"),
    ]);
    // The gateway's lock names the other configuration, and lies in the state directory.
    let expected = serde_json::json!({"id": "named", "name": "named", "status": "stopped"});
    assert_eq!(said["agents"][0], expected);
}

#[test]
fn what_this_user_may_not_read_is_told_with_path_and_user() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let may = |mode: u32, path: &Path| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, mode).unwrap();
    };
    may(0o755, dir.path());
    may(0o700, &home);
    let mut command = std::process::Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args([env!("CARGO_BIN_EXE_harborforge-connector"), "sample"])
        .env("HARBORFORGE_OPENCLAW_HOME", &home);
    let Ok(output) = command.output() else {
        eprintln!("SKIPPED: setpriv is not installed");
        return;
    };
    let err = String::from_utf8_lossy(&output.stderr);
    if err.starts_with("setpriv:") {
        eprintln!("SKIPPED: another user cannot run the program here: {err}");
        return;
    }
    assert!(output.status.success(), "{err}");
    let expected =
        format!("{}/openclaw.json: the user with uid 65534 may not read it", home.display());
    assert!(err.contains(&expected), "{err}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["agents"], serde_json::json!([]));
}

mod daemon {
    use super::*;
    use support::{Site, counted, monitor, real_time, run};

    #[test]
    fn the_daemon_reports_a_run_at_once_and_takes_changed_settings() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let home = home(dir.path());
            let monitor = monitor(real_time()).await;
            let mut site = Site::real_time(&monitor);
            // A list of one, as the environment would have it.
            site.set("openclaw_home", home.to_str().unwrap());
            site.hide(SECRET);
            let mut daemon = site.start();
            let newest = || {
                monitor.accepted().last().map(|last| last.telemetry.to_string()).unwrap_or_default()
            };
            until(|| newest().contains(r#"{"id":"ops","name":"ops","status":"idle"}"#)).await;
            // Together, so that one look at the files finds both.
            run_of_ops(&home);
            std::fs::write(home.join("openclaw.json"), format!("{{ {SECRET}")).unwrap();
            counted(&monitor, "changes", 1, |counts| counts.agent_changes).await;
            until(|| newest().contains(r#""id":"ops","name":"ops","status":"running""#)).await;
            let troubles = || {
                let (_, out, _) = outcome(site.command("status").arg("--json"));
                let status: Value = serde_json::from_str(&out).unwrap_or_default();
                status["openclaw"]["troubles"].to_string()
            };
            until(|| troubles().contains("openclaw.json: ")).await;
            assert!(troubles().contains("the agents known before stay"), "{}", troubles());
            assert!(newest().contains(r#""id":"ops""#));
            site.set("openclaw", "off");
            daemon.reload(&site);
            until(|| newest().contains(r#""agents":[]"#)).await;
            // No secret of the site stands in the log, which the end looks at.
            daemon.stop().await;
            assert!(
                monitor.accepted().iter().all(|one| !one.telemetry.to_string().contains(SECRET))
            );
        });
    }

    async fn until(mut is_so: impl FnMut() -> bool) {
        let patience = std::time::Instant::now();
        while !is_so() {
            assert!(patience.elapsed() < Duration::from_secs(60), "it does not come about");
            harborforge_connector::runtime::sleep(Duration::from_millis(100)).await;
        }
    }
}
