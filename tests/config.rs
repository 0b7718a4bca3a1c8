//! The program from outside: configuration and `check` over real files, variables and exit codes.

// A test may say in one word what must hold; clippy's own exception covers #[test] functions
// only, not the helpers beside them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

const UUID: &str = "8f14e45f-ceea-467f-9575-1d2f3a4b5c6d";

struct Host {
    directory: TempDir,
}

struct Outcome {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Host {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, mode: u32, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// The program with an environment of nothing but a home and a data directory.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_harborforge-connector"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.directory.path())
            .env("HARBORFORGE_DATA_DIR", self.path("data"))
            .env("HARBORFORGE_CONTROL_SOCKET", self.path("control.sock"))
            .env("HARBORFORGE_QUEUE_MAX_BYTES", "1MiB")
            .env("HARBORFORGE_QUARANTINE_MAX_BYTES", "1MiB")
            .stdin(Stdio::null());
        command
    }
}

fn outcome(command: &mut Command) -> Outcome {
    let output = command.output().unwrap();
    Outcome {
        code: output.status.code().expect("ended by a signal"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn good(host: &Host) -> PathBuf {
    let text =
        format!("backend_url = \"https://monitor.example/harbor\"\nchallenge_uuid = \"{UUID}\"\n");
    host.write("config.toml", 0o600, &text)
}

fn arguments(path: &Path) -> [&str; 4] {
    ["--config", path.to_str().unwrap(), "check", "--offline"]
}

#[test]
fn a_good_configuration_passes_line_by_line() {
    let host = Host::new();
    let path = good(&host);
    let out = outcome(&mut host.command(&arguments(&path)));
    assert_eq!((out.code, out.stderr.as_str()), (0, ""), "{}", out.stdout);
    let first = format!(
        "ok   configuration: {}; reports to https://monitor.example/harbor/",
        path.display()
    );
    assert_eq!(out.stdout.lines().next(), Some(first.as_str()));
    let names: Vec<&str> =
        out.stdout.lines().map(|line| line[5..].split(':').next().unwrap()).collect();
    assert_eq!(
        names,
        [
            "configuration",
            "credential",
            "identifier",
            "clock",
            "data_dir",
            "daemon",
            "control_socket",
            "disk",
            "openclaw",
            "network"
        ]
    );
    assert!(!out.stdout.contains(UUID));
    assert!(!host.path("data").exists(), "check made the data directory");
}

#[test]
fn every_fault_is_listed_and_the_exit_code_is_3() {
    let host = Host::new();
    let text = format!("reprot_interval = \"5s\"\nchallenge_uuid = \"{UUID}\"\nlog_format = 7\n");
    let path = host.write("config.toml", 0o644, &text);
    let out = outcome(host.command(&arguments(&path)).env("HARBORFORGE_SCOPE", "vm"));
    let shown = path.display();
    let expected = format!(
        "FAIL configuration: {shown}:1: reprot_interval: unknown key, did you mean report_interval?\n\
         FAIL configuration: {shown}:2: challenge_uuid: {shown} holds a secret and has mode 0644, \
         so that others can read it; type: chmod o-rwx {shown}\n\
         FAIL configuration: {shown}:3: log_format: found the integer 7, expected auto, text or json\n\
         FAIL configuration: environment variable HARBORFORGE_SCOPE: scope: found \"vm\", expected \
         host or cgroup\n\
         FAIL configuration: mend these first; the other checks need a configuration that holds\n"
    );
    assert_eq!(out.stdout, expected);
    assert_eq!((out.code, out.stderr.as_str()), (3, ""));
}

#[test]
fn the_chmod_that_is_shown_mends_it() {
    let host = Host::new();
    let path = good(&host);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let out = outcome(&mut host.command(&arguments(&path)));
    assert_eq!(out.code, 3);
    let line = out.stdout.lines().next().unwrap();
    let typed = line.split("type: ").nth(1).unwrap();
    assert!(Command::new("sh").args(["-c", typed]).status().unwrap().success());
    assert_eq!(outcome(&mut host.command(&arguments(&path))).code, 0);
}

#[test]
fn variables_and_flags_come_before_the_file() {
    let host = Host::new();
    let path = good(&host);
    let mut command = host.command(&arguments(&path));
    command.env("HARBORFORGE_IDENTIFIER", "from-env");
    assert!(outcome(&mut command).stdout.contains("ok   identifier: from-env"));
    command.args(["--set", "identifier=from-flag"]);
    assert!(outcome(&mut command).stdout.contains("ok   identifier: from-flag"));
    // The file itself may be named by a variable.
    let mut command = host.command(&["check", "--offline"]);
    command.env("HARBORFORGE_CONFIG", &path);
    assert_eq!(outcome(&mut command).code, 0);
}

#[test]
fn a_systemd_credential_is_found() {
    let host = Host::new();
    fs::create_dir(host.path("credentials")).unwrap();
    let secret = host.write("credentials/api_key", 0o400, "the-key\n");
    let mut command = host.command(&["check", "--offline", "--config", "/dev/null"]);
    command
        .env("CREDENTIALS_DIRECTORY", host.path("credentials"))
        .env("HARBORFORGE_BACKEND_URL", "https://monitor.example");
    let out = outcome(&mut command);
    assert_eq!(out.code, 0, "{}", out.stdout);
    let line = format!("ok   credential: API key in {}", secret.display());
    assert!(out.stdout.contains(&line), "{}", out.stdout);
}

#[test]
fn a_running_daemon_is_named_by_its_process() {
    let host = Host::new();
    let path = good(&host);
    fs::create_dir_all(host.path("data/queue")).unwrap();
    fs::set_permissions(host.path("data"), fs::Permissions::from_mode(0o700)).unwrap();
    let lock = fs::File::create(host.path("data/queue/LOCK")).unwrap();
    let out = outcome(&mut host.command(&arguments(&path)));
    assert!(out.stdout.contains("ok   daemon: does not run on this data_dir"), "{}", out.stdout);
    lock.try_lock().unwrap();
    let out = outcome(&mut host.command(&arguments(&path)));
    let line = format!("ok   daemon: runs as process {}", std::process::id());
    assert!(out.stdout.contains(&line), "{}", out.stdout);
}

#[test]
fn an_unusable_data_directory_ends_with_4() {
    let host = Host::new();
    let path = good(&host);
    host.write("data", 0o600, "a file in the way");
    let out = outcome(&mut host.command(&arguments(&path)));
    assert_eq!(out.code, 4);
    assert!(out.stdout.contains("FAIL data_dir: "), "{}", out.stdout);
}

#[test]
fn files_that_are_no_text_or_endless_are_refused() {
    let host = Host::new();
    let path = host.path("config.toml");
    fs::write(&path, [b'#', 0xff]).unwrap();
    let out = outcome(&mut host.command(&arguments(&path)));
    assert_eq!(out.code, 3);
    assert!(out.stdout.contains("it is not UTF-8 (byte 1)"), "{}", out.stdout);
    let out = outcome(&mut host.command(&["--config", "/dev/zero", "check"]));
    assert!(out.stdout.contains("it has more than 1 MiB"), "{}", out.stdout);
    let out = outcome(&mut host.command(&["--config", "/", "check"]));
    assert!(out.stdout.contains("cannot read /: it is a directory"), "{}", out.stdout);
}

#[test]
fn deeply_nested_values_are_refused_and_do_no_harm() {
    let host = Host::new();
    let text = format!("openclaw_home = {}", "[".repeat(100_000));
    let path = host.write("config.toml", 0o600, &text);
    let out = outcome(&mut host.command(&arguments(&path)));
    assert_eq!(out.code, 3);
    assert!(out.stdout.contains("not valid TOML"), "{}", out.stdout);
}

#[test]
fn the_command_line_follows_the_interface() {
    let host = Host::new();
    let out = outcome(&mut host.command(&["--help"]));
    assert_eq!((out.code, out.stderr.as_str()), (0, ""));
    for word in ["run", "sample", "dump", "check", "--config", "--verbose"] {
        assert!(out.stdout.contains(word), "{word} in {}", out.stdout);
    }
    for arguments in [&["nonsense"][..], &["check", "--nonsense"], &["--set", "x", "check"], &[]] {
        let out = outcome(&mut host.command(arguments));
        assert_eq!((out.code, out.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(!out.stderr.is_empty());
    }
    let out = outcome(&mut host.command(&["--version"]));
    assert_eq!(out.stdout, format!("harborforge-connector {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let host = Host::new();
    let path = good(&host);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = host
        .command(&arguments(&path))
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
