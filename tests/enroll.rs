//! `enroll`: what it writes, what the Monitor sees of it, and what a running daemon makes of it.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use harborforge_monitor::{Counts, Fault, Mode, Monitor, Options, Reason};
use rustix::process::Signal;

use support::{Site, counted, has_all, monitor, outcome, plain, program, real_time, run, spawn};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn refusals(counts: &Counts) -> u64 {
    counts.refused.values().sum()
}

/// A new challenge in a file of its own; no log may show it.
fn challenge_file(site: &mut Site, monitor: &Monitor) -> (String, PathBuf) {
    let challenge = monitor.issue_challenge();
    site.hide(&challenge);
    let file = site.write("new-challenge", &format!("{challenge}\n"));
    (challenge, file)
}

/// `enroll` with a copy of the site's configuration: the daemon's own does not change, as when it
/// may not read what root has written, or its credential is systemd's.
fn enroll_elsewhere(site: &Site, file: &Path) -> Command {
    let copy = site.path("copy.toml");
    fs::copy(site.configure(), &copy).unwrap();
    let (copy, file) = (copy.to_str().unwrap(), file.to_str().unwrap());
    program(&["--config", copy, "enroll", "--challenge-file", file])
}

#[test]
fn a_fresh_server_is_enrolled_and_its_challenge_is_still_good() {
    run(async {
        let monitor = monitor(real_time()).await;
        let mut site = Site::without_credential(&monitor);
        let (challenge, file) = challenge_file(&mut site, &monitor);
        let config = site.path("etc/config.toml");
        let (data, socket) = (site.path("data"), site.path("control.sock"));
        let data = format!("data_dir={}", data.display());
        let socket = format!("control_socket={}", socket.display());
        let command = |name: &str| {
            let config = config.to_str().unwrap();
            let set = ["--set", &data, "--set", &socket, "--set", "report_interval=1s"];
            let mut command = program(&["--config", config, name]);
            command.args(set);
            command
        };
        let mut enroll = command("enroll");
        enroll.args(["--backend-url", &monitor.url(), "--identifier", "vps.t1", "--stdin"]);
        enroll.stdin(File::open(&file).unwrap());
        let (code, stdout, stderr) = outcome(&mut enroll);
        assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
        for part in [
            "ok   key: RSA, 2048 bits",
            &format!(
                "ok   written: {}: backend_url, identifier, challenge_uuid set",
                config.display()
            ),
            "ok   daemon: none answers on ",
        ] {
            assert!(stdout.contains(part), "{part} in {stdout}");
        }
        assert!(!stdout.contains(&challenge), "{stdout}");
        assert_eq!(mode(&config), 0o600);
        let text = fs::read_to_string(&config).unwrap();
        let line = format!("\nchallenge_uuid = \"{challenge}\"\n");
        assert!(text.contains(&line) && text.contains("# --- Times ---"), "{text}");
        let counts = monitor.counts();
        assert_eq!((counts.key_fetches, counts.requests), (1, 1), "only the key was asked for");

        // Said again, nothing is written.
        let inode = fs::metadata(&config).unwrap().ino();
        let mut again = command("enroll");
        again.args(["--challenge-file", file.to_str().unwrap()]);
        let (code, stdout, _) = outcome(&mut again);
        assert_eq!(code, 0, "{stdout}");
        assert!(stdout.contains("says that already, nothing is written"), "{stdout}");
        assert_eq!(fs::metadata(&config).unwrap().ino(), inode);

        let mut daemon = spawn(command("run").stdout(Stdio::null()).stderr(Stdio::null()));
        has_all(&monitor, 2).await;
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        let counts = monitor.counts();
        assert_eq!((counts.links, refusals(&counts)), (1, 0), "{counts:?}");
    });
}

/// The group that may ask the daemon reads its configuration, and no secret with it.
#[test]
fn what_a_group_may_read_does_not_come_to_hold_the_secret() {
    run(async {
        let monitor = monitor(real_time()).await;
        let mut site = Site::without_credential(&monitor);
        let config = site.configure();
        fs::set_permissions(&config, fs::Permissions::from_mode(0o640)).unwrap();
        let data = site.data_dir();
        fs::create_dir_all(&data).unwrap();
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can hand files to another group");
            return;
        }
        std::os::unix::fs::chown(&data, Some(12_345), Some(23_456)).unwrap();
        std::os::unix::fs::chown(&config, None, Some(23_456)).unwrap();
        let daemon = fs::metadata(&data).unwrap();
        let before = fs::read_to_string(&config).unwrap();
        let (challenge, file) = challenge_file(&mut site, &monitor);
        // Not the site's own command, which writes the configuration anew.
        let enroll = |file: &Path| {
            let (config, file) = (config.to_str().unwrap(), file.to_str().unwrap());
            outcome(&mut program(&["--config", config, "enroll", "--challenge-file", file]))
        };
        let (code, stdout, stderr) = enroll(&file);
        assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
        let secret = config.with_file_name("challenge_uuid");
        assert_eq!(fs::read_to_string(&secret).unwrap(), format!("{challenge}\n"));
        let made = fs::metadata(&secret).unwrap();
        assert_eq!((made.uid(), made.gid()), (daemon.uid(), daemon.gid()), "{stdout}");
        assert_eq!((mode(&secret), mode(&config)), (0o600, 0o640));
        let after = fs::read_to_string(&config).unwrap();
        assert_eq!(after, format!("{before}challenge_uuid_file = \"challenge_uuid\"\n"));
        // The next one goes to the same place.
        let (challenge, file) = challenge_file(&mut site, &monitor);
        assert_eq!(enroll(&file).0, 0);
        assert_eq!(fs::read_to_string(&secret).unwrap(), format!("{challenge}\n"));
        assert_eq!(fs::read_to_string(&config).unwrap(), after);
        // Where the configuration has it, it stays: one key changes.
        fs::write(&config, format!("{before}challenge_uuid = \"{challenge}\"\n")).unwrap();
        let (challenge, file) = challenge_file(&mut site, &monitor);
        assert_eq!(enroll(&file).0, 0);
        let after = fs::read_to_string(&config).unwrap();
        assert_eq!(after, format!("{before}challenge_uuid = \"{challenge}\"\n"));
    });
}

#[test]
fn a_daemon_with_an_expired_challenge_takes_the_new_one_up_at_once() {
    run(async {
        let monitor = monitor(real_time()).await;
        let mut site = Site::websocket(&monitor);
        // So that nothing but the hand-over can be why it comes back: after a second refusal the
        // next try of a WebSocket is an hour away.
        monitor.set_clock_offset(3600);
        let mut daemon = site.start();
        counted(&monitor, "refusals", 2, refusals).await;
        assert_eq!(refusals(&monitor.counts()), monitor.counts().refused(Reason::ExpiredChallenge));
        let (challenge, file) = challenge_file(&mut site, &monitor);
        let before = fs::read_to_string(site.configure()).unwrap();
        let mut enroll = site.command("enroll");
        enroll.args(["--challenge-file", file.to_str().unwrap()]);
        let (code, stdout, stderr) = outcome(&mut enroll);
        assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
        let told = format!(
            "ok   daemon: process {} uses it from now on, as its configuration has it\n",
            daemon.pid()
        );
        assert!(stdout.ends_with(&told), "{stdout}");
        let last = daemon.appended();
        has_all(&monitor, last).await;
        daemon.is_confirmed("websocket").await;
        assert!(!site.path("data/enrolled.json").exists(), "the configuration has it");
        // All but the one value is as it was.
        let after = fs::read_to_string(site.path("config.toml")).unwrap();
        let changed: Vec<_> =
            before.lines().zip(after.lines()).filter(|(before, after)| before != after).collect();
        let line = format!("challenge_uuid = \"{challenge}\"");
        assert_eq!(changed.len(), 1);
        assert_eq!((changed[0].1, before.lines().count()), (line.as_str(), after.lines().count()));
        daemon.stop().await;
        site.books().agree_with(&monitor);
    });
}

#[test]
fn what_the_configuration_does_not_have_is_kept_until_it_changes() {
    run(async {
        let monitor = monitor(plain()).await;
        let mut site = Site::new(&monitor);
        monitor.forget_credentials();
        let mut daemon = site.start();
        counted(&monitor, "refusals", 1, refusals).await;
        let (_, file) = challenge_file(&mut site, &monitor);
        let (code, stdout, stderr) = outcome(&mut enroll_elsewhere(&site, &file));
        assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
        let kept = site.path("data/enrolled.json");
        assert!(stdout.contains(&format!("and keeps it in {}", kept.display())), "{stdout}");
        assert_eq!(mode(&kept), 0o600);
        daemon.says("a new credential was enrolled and is used from now on").await;
        let last = daemon.appended();
        has_all(&monitor, last).await;
        // Read again, the configuration is what it was.
        daemon.signal(Signal::HUP);
        daemon.says("configuration reloaded, nothing has changed").await;
        let (code, stdout, _) = outcome(site.command("check").arg("--offline"));
        assert_eq!(code, 0, "{stdout}");
        assert!(stdout.contains("the daemon uses the one that was enrolled since"), "{stdout}");
        daemon.stop().await;

        // A restart, and one after a kill, go on with it.
        let refused = refusals(&monitor.counts());
        for _ in 0..2 {
            let mut daemon = site.start();
            daemon
                .says("using the credential that was enrolled, until the configured one changes")
                .await;
            let last = daemon.has_appended(last + 1).await;
            has_all(&monitor, last).await;
            daemon.kill().await;
        }
        assert_eq!(refusals(&monitor.counts()), refused);

        // The configured one changes: it wins.
        let mut daemon = site.start();
        daemon.says("started").await;
        monitor.forget_credentials();
        site.set_secret("challenge_uuid", &monitor.issue_challenge());
        daemon.reload(&site);
        daemon
            .says("the configured credential has changed, it counts again instead of the enrolled one")
            .await;
        let last = daemon.has_appended(last + 3).await;
        has_all(&monitor, last).await;
        assert!(!kept.exists());
        daemon.stop().await;
        site.books().agree_with(&monitor);
    });
}

#[test]
fn what_does_not_reach_the_monitor_is_not_written_unless_asked_for() {
    run(async {
        let monitor = monitor(plain()).await;
        let mut site = Site::new(&monitor);
        let (challenge, file) = challenge_file(&mut site, &monitor);
        let file = file.to_str().unwrap().to_owned();
        let enroll = |site: &Site, more: &[&str]| {
            let mut command = site.command("enroll");
            command.args(["--challenge-file", &file]).args(more);
            let before = fs::read_to_string(site.path("config.toml")).unwrap();
            let (code, stdout, stderr) = outcome(&mut command);
            let after = fs::read_to_string(site.path("config.toml")).unwrap();
            (code, stdout, stderr, before == after)
        };
        let not_written = "harborforge-connector: nothing was written: mend this first, or write \
                           it all the same with --no-verify\n";
        // Another key than the pinned one.
        site.set("public_key_sha256", &"0".repeat(64));
        let (code, stdout, stderr, same) = enroll(&site, &[]);
        assert_eq!((code, stderr.as_str(), same), (6, not_written, true), "{stdout}");
        site.unset("public_key_sha256");
        // An identifier that leaves no room for the proof.
        let (code, stdout, stderr, same) = enroll(&site, &["--identifier", &"x".repeat(57)]);
        assert_eq!((code, stderr.as_str(), same), (3, not_written, true), "{stdout}");
        assert!(stdout.contains("FAIL proof: identifier takes 57 bytes"), "{stdout}");
        // A configuration that would not hold.
        let (code, stdout, stderr, same) = enroll(&site, &["--backend-url", "http://192.0.2.1"]);
        assert_eq!((code, stdout.as_str(), same), (3, "", true));
        assert!(stderr.contains("allow_insecure"), "{stderr}");
        // Nobody there.
        monitor.pause().await;
        let (code, stdout, stderr, same) = enroll(&site, &[]);
        assert_eq!((code, stderr.as_str(), same), (5, not_written, true), "{stdout}");
        assert!(stdout.contains("refuses connections"), "{stdout}");
        let (code, stdout, stderr, same) = enroll(&site, &["--no-verify"]);
        assert_eq!((code, stderr.as_str(), same), (0, "", false), "{stdout}");
        assert!(stdout.contains("ok   monitor: not asked: --no-verify"), "{stdout}");
        let text = fs::read_to_string(site.path("config.toml")).unwrap();
        assert!(text.contains(&challenge), "{text}");
        assert_eq!(refusals(&monitor.counts()), 0);
    });
}

#[test]
fn an_interrupted_write_leaves_the_old_file() {
    run(async {
        let monitor = monitor(plain()).await;
        let mut site = Site::new(&monitor);
        let (challenge, file) = challenge_file(&mut site, &monitor);
        let config = site.configure();
        let before = fs::read(&config).unwrap();
        // The system kills whoever writes a byte to a file under this limit.
        let text = "ulimit -f 0; exec \"$0\" --config \"$1\" enroll --challenge-file \"$2\"";
        let mut killed = Command::new("/bin/sh");
        killed.args(["-c", text, env!("CARGO_BIN_EXE_harborforge-connector")]);
        killed.args([&config, &file]).env_clear().stdin(Stdio::null());
        let output = killed.output().unwrap();
        assert!(!output.status.success(), "{output:?}");
        assert_eq!(fs::read(&config).unwrap(), before);
        let mut enroll = site.command("enroll");
        let (code, stdout, _) = outcome(enroll.arg("--challenge-file").arg(&file));
        assert_eq!(code, 0, "{stdout}");
        assert!(fs::read_to_string(&config).unwrap().contains(&challenge));
    });
}

#[test]
fn a_closed_pipe_leaves_nothing_half_done() {
    run(async {
        let monitor = monitor(plain()).await;
        let mut site = Site::new(&monitor);
        let (challenge, file) = challenge_file(&mut site, &monitor);
        let mut enroll = site.command("enroll");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        enroll.arg("--challenge-file").arg(&file).stdout(writer);
        assert_eq!(spawn(&mut enroll).wait().unwrap().code(), Some(0));
        let text = fs::read_to_string(site.path("config.toml")).unwrap();
        assert!(text.contains(&challenge));
    });
}

#[test]
fn an_api_key_takes_the_challenges_place() {
    run(async {
        let key = "key-of-the-tests";
        let options = Options { mode: Mode::ApiKey(key.to_owned()), ..plain() };
        let monitor = monitor(options).await;
        let mut site = Site::new(&monitor);
        let mut daemon = site.start();
        counted(&monitor, "requests", 1, |counts| counts.requests).await;
        site.hide(key);
        let file = site.write("key", key);
        let mut enroll = site.command("enroll");
        let (code, stdout, stderr) = outcome(enroll.arg("--api-key-file").arg(&file));
        assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
        for part in [
            "the API key itself can only be tried with the first heartbeat",
            "api_key set, challenge_uuid commented out",
            "uses it from now on, as its configuration has it",
        ] {
            assert!(stdout.contains(part), "{part} in {stdout}");
        }
        let last = daemon.appended();
        has_all(&monitor, last).await;
        daemon.stop().await;
    });
}

#[test]
fn a_daemon_of_another_monitor_does_not_take_it() {
    run(async {
        let monitor = monitor(plain()).await;
        let mut site = Site::new(&monitor);
        let mut daemon = site.start();
        daemon.says("acknowledged").await;
        let (_, file) = challenge_file(&mut site, &monitor);
        let mut enroll = enroll_elsewhere(&site, &file);
        let (code, stdout, stderr) = outcome(enroll.args(["--identifier", "vps.t2"]));
        assert_eq!(code, 1, "{stdout}");
        for part in ["has not taken it up", "as vps.t1", "as vps.t2", "restart it"] {
            assert!(stderr.contains(part), "{part} in {stderr}");
        }
        assert!(!site.path("data/enrolled.json").exists());
        daemon.says("acknowledged").await;
        daemon.stop().await;
    });
}

#[test]
fn another_user_is_refused_by_the_daemon() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: only root can become another user");
        return;
    }
    run(async {
        let monitor = monitor(plain()).await;
        let mut site = Site::new(&monitor);
        let mut daemon = site.start();
        daemon.says("acknowledged").await;
        let (_, file) = challenge_file(&mut site, &monitor);
        let mut enroll = enroll_elsewhere(&site, &file);
        // He owns the copy, and may open the socket.
        let nobody = 65_534;
        for path in [site.path("copy.toml"), file] {
            std::os::unix::fs::chown(path, Some(nobody), Some(nobody)).unwrap();
        }
        let all = fs::Permissions::from_mode(0o777);
        fs::set_permissions(site.path(""), all.clone()).unwrap();
        fs::set_permissions(site.path("control.sock"), all).unwrap();
        enroll.uid(nobody).gid(nobody);
        let output = match enroll.output() {
            // The program itself stands where nobody else may look.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                eprintln!("not run: another user may not run the program");
                return;
            }
            output => output.unwrap(),
        };
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("`enroll` is for root and the daemon's own user"), "{stderr}");
        daemon.hears("who asked", |line| line.names(&["refused", "65534"])).await;
        assert!(!site.path("data/enrolled.json").exists());
        daemon.stop().await;
    });
}

#[test]
fn a_new_name_alone_is_taken_up_with_a_word_of_warning() {
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        let mut daemon = site.start();
        daemon.says("started").await;
        let mut enroll = site.command("enroll");
        let (code, stdout, stderr) = outcome(enroll.args(["--identifier", "vps.t2"]));
        assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
        let warning = "warn credential: it stays; a challenge that has been used is bound to the \
                       name and the Monitor it was used with: if it is refused, enroll a new one\n";
        assert!(stdout.contains(warning), "{stdout}");
        let told = format!("ok   daemon: process {} uses it from now on", daemon.pid());
        assert!(stdout.contains(&told), "{stdout}");
        daemon
            .hears("the change", |line| line.names(&["configuration reloaded", "identifier"]))
            .await;
        daemon.stop().await;
    });
}

#[test]
fn a_daemon_that_cannot_be_asked_is_named() {
    run(async {
        let monitor = monitor(plain()).await;
        let mut site = Site::new(&monitor);
        let mut daemon = site.start();
        daemon.says("acknowledged").await;
        let (_, file) = challenge_file(&mut site, &monitor);
        let nowhere = site.path("nowhere.sock");
        let mut enroll = enroll_elsewhere(&site, &file);
        enroll.arg("--set").arg(format!("control_socket={}", nowhere.display()));
        let (code, stdout, _) = outcome(&mut enroll);
        assert_eq!(code, 0, "{stdout}");
        let pid = daemon.pid();
        for part in [
            format!("warn daemon: process {pid} holds "),
            format!("nobody answers on {}", nowhere.display()),
            format!("kill -HUP {pid}"),
        ] {
            assert!(stdout.contains(&part), "{part} in {stdout}");
        }
        daemon.stop().await;
    });
}

#[test]
fn a_wrong_command_line_is_2_and_what_is_no_secret_3() {
    run(async {
        let monitor = monitor(plain()).await;
        monitor.misbehave(Fault::Hang);
        let site = Site::new(&monitor);
        let file = site.write("secret", "geheim");
        let file = file.to_str().unwrap();
        for (arguments, code, part) in [
            (&[][..], 2, "the secret is asked for on a terminal only"),
            (&["--api-key"], 2, "the secret is asked for on a terminal only"),
            (&["--challenge-file", file, "--stdin"], 2, "cannot be used with"),
            (&["--challenge-file", file, "--api-key-file", file], 2, "cannot be used with"),
            (&["--challenge", "geheim"], 2, "--challenge"),
            (
                &["--challenge-file", file],
                3,
                "found a text of 6 characters, expected the challenge",
            ),
            (&["--challenge-file", "/nonexistent"], 3, "cannot read /nonexistent"),
            (&["--challenge-file", "-"], 3, "standard input: found a text of 0 characters"),
        ] {
            let (found, stdout, stderr) = outcome(site.command("enroll").args(arguments));
            assert_eq!((found, stdout.as_str()), (code, ""), "{arguments:?}: {stderr}");
            assert!(stderr.contains(part), "{part} in {stderr}");
        }
        assert_eq!(monitor.counts().requests, 0);
    });
}
