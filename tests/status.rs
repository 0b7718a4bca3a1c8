//! `status` as people and scripts get it: a screen, JSON, again and again, with a daemon and without.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(dead_code, reason = "the support module serves several tests")]
#![allow(clippy::print_stderr, reason = "a test that is left out says so")]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use harborforge_connector::control::client::{Answer, Client};
use harborforge_connector::control::protocol::Request;
use harborforge_monitor::{Fault, Options, Route};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use support::{PATIENCE, Site, has_all, monitor, outcome, plain, program, real_time, run, spawn};

fn status(site: &Site, arguments: &[&str]) -> (i32, Value, String) {
    let (code, stdout, stderr) = outcome(site.command("status").args(arguments));
    assert_eq!(stdout.lines().count(), 1, "{stdout}{stderr}");
    (code, serde_json::from_str(&stdout).unwrap(), stderr)
}

/// On a terminal of this size; `None`, said loudly, where there is no `script` to make one.
fn on_terminal(site: &Site, columns: u16, arguments: &[&str], no_color: bool) -> Option<Command> {
    on_terminal_after("", site, columns, arguments, no_color)
}

/// The same behind a line of shell.
fn on_terminal_after(
    before: &str,
    site: &Site,
    columns: u16,
    arguments: &[&str],
    no_color: bool,
) -> Option<Command> {
    if !["/usr/bin/script", "/bin/script"].iter().any(|path| fs::exists(path).unwrap()) {
        eprintln!("SKIPPED: there is no `script` (util-linux) to make a terminal with");
        return None;
    }
    let inside = site.command("status");
    let words = std::iter::once(inside.get_program()).chain(inside.get_args());
    let mut words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    words.extend(arguments.iter().map(|word| (*word).to_owned()));
    let line = format!("stty cols {columns} rows 24 -onlcr; {before} exec {}", words.join(" "));
    let mut command = Command::new("script");
    command.args(["-qefc", &line, "/dev/null"]).env_clear();
    command.env("PATH", "/usr/bin:/bin").env("TERM", "xterm").env("SHELL", "/bin/sh");
    if no_color {
        command.env("NO_COLOR", "1");
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(command)
}

/// Reads what is shown until it contains this.
fn reads_until(child: &mut Child, wanted: &str) -> String {
    let mut shown = Vec::new();
    let begun = Instant::now();
    let stdout = child.stdout.as_mut().unwrap();
    loop {
        let mut buffer = [0; 4096];
        let count = stdout.read(&mut buffer).unwrap();
        shown.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&shown);
        if text.contains(wanted) {
            return text.into_owned();
        }
        assert!(count > 0 && begun.elapsed() < PATIENCE, "no {wanted:?} in {text}");
    }
}

#[test]
fn a_daemon_tells_all_that_is_asked_in_json_and_as_metrics() {
    run(async {
        let monitor = monitor(real_time()).await;
        let site = Site::websocket(&monitor);
        let mut daemon = site.start();
        daemon.has_appended(3).await;
        daemon.is_confirmed("websocket").await;
        let (code, status, stderr) = status(&site, &[]);
        assert_eq!((code, stderr.as_str()), (0, ""), "a pipe gets JSON");
        assert_eq!(status["challenge"]["kind"], "challenge");
        assert_eq!(status["challenge"]["condition"], "accepted");
        assert_eq!(status["link"]["next_attempt_at"], Value::Null);
        assert!(status["openclaw"].is_object());
        assert!(status["course"]["depth"].as_array().unwrap().len() >= 2);
        let figures = &status["figures"];
        assert!(figures["appended"].as_u64().unwrap() >= 3, "{figures}");
        assert!(figures["append"]["count"].as_u64().unwrap() >= 3, "{figures}");
        assert!(figures["confirm"]["count"].as_u64().unwrap() >= 3, "{figures}");
        assert!(status["process"]["rss_bytes"].as_u64().unwrap() > 1 << 20);

        let client = Client::connect(&site.path("control.sock")).unwrap();
        let mut answer: Answer<String, Value> = client.ask(&Request::Metrics, false).unwrap();
        let text = answer.next_item().unwrap().unwrap();
        assert!(answer.next_item().unwrap().is_none());
        assert!(text.contains("harborforge_connector_link_state{state=\"online\"} 1\n"), "{text}");
        let promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        if let Ok(mut promtool) = promtool {
            std::io::Write::write_all(&mut promtool.stdin.take().unwrap(), text.as_bytes())
                .unwrap();
            let output = promtool.wait_with_output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success() && said.is_empty(), "{said}");
        } else {
            eprintln!("SKIPPED: there is no promtool (Debian: prometheus) here");
        }
        daemon.stop().await;
    });
}

#[test]
fn a_refused_challenge_is_told_with_what_to_type() {
    run(async {
        let monitor = monitor(plain()).await;
        monitor.misbehave(Fault::status(401).at(Route::Heartbeat));
        let site = Site::new(&monitor);
        let mut daemon = site.start();
        daemon.complains(&["401"]).await;
        let (_, told, _) = status(&site, &["--json"]);
        assert_eq!(told["link"]["state"], "refused");
        assert_eq!(told["challenge"]["condition"], "refused");
        assert!(told["link"]["next_attempt_at"].is_string(), "{told}");
        for (columns, no_color) in [(80, false), (40, true)] {
            let Some(mut command) = on_terminal(&site, columns, &[], no_color) else { return };
            let output = spawn(&mut command).wait_with_output().unwrap();
            let shown = String::from_utf8(output.stdout).unwrap();
            assert_eq!(output.status.code(), Some(0), "{shown}");
            assert!(shown.contains("REFUSED") && shown.contains("enroll"), "{shown}");
            assert_eq!(shown.contains("\u{1b}[1;31m"), !no_color, "{shown}");
            let plain = shown.replace("\u{1b}[1;31m", "").replace("\u{1b}[0m", "");
            let plain = plain.replace("\u{1b}[1;33m", "");
            let widest = plain.lines().map(|line| line.trim_end().chars().count()).max().unwrap();
            assert!(widest <= usize::from(columns), "{widest}: {plain}");
        }
        daemon.stop().await;
    });
}

#[test]
fn without_a_daemon_the_files_speak_and_the_code_is_one() {
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        let (code, told, stderr) = status(&site, &[]);
        assert_eq!((code, &told["running"], &told["queue"]), (1, &false.into(), &Value::Null));
        assert!(stderr.contains("no daemon answers on"), "{stderr}");
        let mut daemon = site.start();
        has_all(&monitor, 2).await;
        daemon.has_appended(2).await;
        daemon.is_confirmed("http").await;
        daemon.stop().await;
        site.fill(5000);
        let (code, told, _) = status(&site, &[]);
        assert_eq!((code, &told["running"], &told["link"]), (1, &false.into(), &Value::Null));
        let (pending, sent, bytes) = site.look(|queue| {
            let stats = queue.stats();
            (stats.pending.records, stats.sent.records, stats.pending.bytes)
        });
        assert!(pending >= 5000);
        assert_eq!(told["queue"]["pending"], pending);
        assert_eq!(told["queue"]["pending_bytes"], bytes);
        assert_eq!(told["queue"]["sent"], sent);
        assert_eq!(told["last_success"]["transport"], "http");
        assert_eq!(told["last_success"]["payload"]["identifier"], "vps.t1");
    });
}

#[test]
fn a_locked_queue_without_a_socket_names_the_holder() {
    run(async {
        let monitor = monitor(plain()).await;
        let mut site = Site::new(&monitor);
        let mut daemon = site.start();
        daemon.has_appended(1).await;
        site.set("control_socket", site.path("another.sock").to_str().unwrap());
        let (code, told, stderr) = status(&site, &[]);
        assert_eq!((code, &told["running"]), (1, &false.into()));
        let holder = format!("process {}", daemon.pid());
        assert!(stderr.contains(&holder) && stderr.contains("another.sock"), "{stderr}");
        daemon.stop().await;
    });
}

#[test]
fn the_watch_redraws_in_place_waits_for_a_daemon_and_ends_with_the_interrupt() {
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        let mut daemon = site.start();
        has_all(&monitor, 1).await;
        daemon.has_appended(1).await;
        daemon.is_confirmed("http").await;
        let Some(mut command) = on_terminal(&site, 80, &["--watch"], true) else { return };
        let mut child = spawn(&mut command);
        let shown = reads_until(&mut child, "DELIVERING");
        assert!(shown.starts_with("\u{1b}[2J\u{1b}[H"), "{shown:?}");
        let again = reads_until(&mut child, "DELIVERING");
        assert!(again.contains("\u{1b}[H") && !again.contains("\u{1b}[2J"), "{again:?}");
        daemon.stop().await;
        reads_until(&mut child, "waiting for it");
        let daemon = site.start();
        reads_until(&mut child, "vps.t1");
        // As a key typed at the terminal.
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"\x03").unwrap();
        let mut rest = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        daemon.stop().await;
    });
}

/// The widest line of what a terminal was sent, in characters; colours and movements take none.
fn widest(shown: &str) -> usize {
    let mut plain = String::new();
    let mut rest = shown.chars();
    while let Some(next) = rest.next() {
        match next {
            '\u{1b}' => {
                assert_eq!(rest.next(), Some('['), "{shown:?}");
                rest.find(char::is_ascii_alphabetic).unwrap();
            }
            '\r' => {}
            other => plain.push(other),
        }
    }
    plain.lines().map(|line| line.chars().count()).max().unwrap_or(0)
}

#[test]
fn the_watch_keeps_to_forty_columns_and_to_what_a_dumb_terminal_can() {
    run(async {
        let refusing = monitor(plain()).await;
        refusing.misbehave(Fault::status(401).at(Route::Heartbeat));
        let site = Site::new(&refusing);
        let mut daemon = site.start();
        daemon.complains(&["401"]).await;
        let Some(mut coloured) = on_terminal(&site, 40, &["--watch"], false) else { return };
        let Some(mut dumb) = on_terminal(&site, 40, &["--watch"], false) else { return };
        let mut coloured = spawn(&mut coloured);
        let mut dumb = spawn(dumb.env("TERM", "dumb"));
        let mut shown = String::new();
        for _ in 0..2 {
            shown += &reads_until(&mut coloured, "enroll");
        }
        assert!(shown.contains("\u{1b}[1;31mREFUSED\u{1b}[0m"), "{shown:?}");
        let mut plainly = reads_until(&mut dumb, "enroll");
        daemon.stop().await;
        shown += &reads_until(&mut coloured, "NOT RUNNING");
        plainly += &reads_until(&mut dumb, "NOT RUNNING");
        assert!(widest(&shown) <= 40, "{shown:?}");
        assert!(!plainly.contains('\u{1b}') && widest(&plainly) <= 40, "{plainly:?}");
        for mut child in [coloured, dumb] {
            std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"\x03").unwrap();
            // Read to the end, so that it is not held up.
            let mut rest = Vec::new();
            child.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(130));
        }
    });
}

/// Closing a terminal hangs its programs up; one that was told to stay all the same has nobody to
/// draw for.
#[test]
fn a_terminal_that_is_closed_ends_the_watch_quietly() {
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        let (pid, said) = (site.path("pid"), site.path("said"));
        for stays in ["", "trap '' HUP;"] {
            let before = format!("{stays} echo $$ >{}; exec 2>{};", pid.display(), said.display());
            let command = on_terminal_after(&before, &site, 80, &["--watch"], true);
            let Some(mut command) = command else { return };
            let mut terminal = spawn(&mut command);
            reads_until(&mut terminal, "waiting for it");
            let watch: i32 = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
            // With it goes the terminal.
            terminal.kill().unwrap();
            terminal.wait().unwrap();
            let begun = Instant::now();
            // One that has ended and that nobody has looked after yet has ended.
            let runs = || {
                let stat = fs::read_to_string(format!("/proc/{watch}/stat")).unwrap_or_default();
                stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty())
                    && !stat.contains(") Z ")
            };
            while runs() {
                assert!(begun.elapsed() < PATIENCE, "it goes on without a terminal");
                async_std::task::sleep(std::time::Duration::from_millis(20)).await;
            }
            assert_eq!(fs::read_to_string(&said).unwrap(), "", "{stays:?}");
        }
    });
}

/// Its condition, and what to type.
#[test]
fn an_expired_challenge_is_told_with_what_to_type() {
    run(async {
        let at_once = std::time::Duration::ZERO;
        let monitor = monitor(Options { challenge_lifetime: at_once, ..real_time() }).await;
        let site = Site::websocket(&monitor);
        let mut daemon = site.start();
        daemon.complains(&["the challenge was not used within"]).await;
        let (_, told, _) = status(&site, &["--json"]);
        assert_eq!(told["challenge"]["condition"], "refused", "{told}");
        let Some(mut command) = on_terminal(&site, 80, &[], true) else { return };
        let output = spawn(&mut command).wait_with_output().unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "challenge refused",
            "the challenge was not used within",
            "have it issue a new one, then sudo harborforge-connector enroll",
        ] {
            assert!(words.contains(part), "{part}: {shown}");
        }
        daemon.stop().await;
    });
}

#[test]
fn in_a_pipe_the_watch_is_a_line_a_second_and_ends_with_its_reader() {
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        let mut command = site.command("status");
        command.arg("--watch").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(&mut command);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..2 {
            let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            assert_eq!(line["running"], false);
        }
        drop(lines);
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));

        let mut child = spawn(command.stdout(Stdio::piped()));
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
    });
}

/// As a real other user, who is in no group of the daemon's.
#[test]
fn a_user_in_no_group_is_told_which_one_to_join() {
    if !rustix::process::geteuid().is_root() || Command::new("setpriv").arg("-V").output().is_err()
    {
        eprintln!("SKIPPED: needs root and setpriv (util-linux) to be somebody else");
        return;
    }
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        let mut daemon = site.start();
        daemon.has_appended(1).await;
        fs::set_permissions(site.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        // As that of a daemon whose group is not root's.
        let groups = fs::read_to_string("/etc/group").unwrap();
        let mut groups = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let group = groups.find(|group| group.len() > 2 && group[2] != "0").unwrap();
        let socket = site.path("control.sock");
        std::os::unix::fs::chown(&socket, None, Some(group[2].parse().unwrap())).unwrap();
        let own = program(&[]).get_program().to_owned();
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(own);
        command.args(["--config", "/dev/null", "status"]).env_clear();
        command.env("PATH", "/usr/bin:/bin");
        command.env("HARBORFORGE_CONTROL_SOCKET", site.path("control.sock"));
        let (code, stdout, stderr) = outcome(&mut command);
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        let join = format!(
            "you may not open {}: join the group {} (sudo usermod -aG {} \"$USER\"",
            socket.display(),
            group[0],
            group[0]
        );
        assert!(stderr.contains(&join), "{join}: {stderr}");
        daemon.stop().await;
    });
}

/// A status costs the daemon next to nothing, so that it can be asked once a second by many.
#[test]
fn many_who_ask_delay_nobody() {
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        let mut daemon = site.start();
        daemon.has_appended(1).await;
        for _ in 0..200 {
            let client = Client::connect(&site.path("control.sock")).unwrap();
            let mut answer: Answer<Value, Value> = client.ask(&Request::Status, false).unwrap();
            assert_eq!(answer.next_item().unwrap().unwrap()["running"], true);
        }
        let before = daemon.appended();
        daemon.has_appended(before + 2).await;
        daemon.stop().await;
    });
}

/// A screen without what differs from run to run.
fn without_figures(screen: &str) -> String {
    let mut out = String::new();
    for line in screen.lines().filter(|line| !line.trim().is_empty()) {
        // The course is as long as the daemon has run.
        let line: String =
            line.chars().filter(|c| !('\u{2581}'..='\u{2588}').contains(c)).collect();
        let mut words: Vec<String> = Vec::new();
        for word in line.split_whitespace() {
            let word: String =
                word.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect();
            let mut word = word;
            while word.contains("##") {
                word = word.replace("##", "#");
            }
            // Durations have one unit or two, sizes any unit.
            let unit =
                |w: &str| ["#s", "#m", "#h", "#d"].contains(&w.trim_matches(['(', ')', ',']));
            if unit(&word) && words.last().is_some_and(|last| unit(last)) {
                words.pop();
            }
            let word = word.replace("#m", "#s").replace("#h", "#s").replace("#d", "#s");
            words.push(word.replace("#.#", "#").replace("MiB", "KiB"));
        }
        out.push_str(&words.join(" "));
        out.push('\n');
    }
    // Wrapped lines break elsewhere when a figure has other digits.
    out.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace("(#s)", "#s")
        .replace("#s)", "#s")
        .replace('(', "")
}

fn documented(name: &str) -> String {
    let docs = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATIONS.md"));
    let mark = format!("<!-- screen: {name} -->\n```text\n$ harborforge-connector status\n");
    let docs = docs.unwrap();
    let (_, rest) = docs.split_once(&mark).unwrap_or_else(|| panic!("no {mark}"));
    rest.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_screens_of_the_documentation_are_real_ones() {
    run(async {
        let shows = |site: &Site, url: &str| {
            let output = spawn(&mut on_terminal(site, 80, &[], true)?).wait_with_output().unwrap();
            let shown = String::from_utf8(output.stdout).unwrap().replace('\r', "");
            let lines = shown.lines().map(|line| {
                // One may have been taken just now, or a try be due.
                let moving = ["waiting", "next try"].into_iter().find(|at| line.starts_with(at));
                moving.unwrap_or(line).to_owned() + "\n"
            });
            Some(lines.collect::<String>().replace(url, "https://monitor.example"))
        };
        let compare = |name: &str, shown: &str| {
            let told: String = documented(name)
                .lines()
                .map(|line| {
                    let moving =
                        ["waiting", "next try"].into_iter().find(|at| line.starts_with(at));
                    moving.unwrap_or(line).to_owned() + "\n"
                })
                .collect();
            assert_eq!(without_figures(shown), without_figures(&told), "{name}:\n{shown}");
        };
        let (ok, refusing) = (monitor(real_time()).await, monitor(plain()).await);
        let site = Site::websocket(&ok);
        let mut daemon = site.start();
        daemon.has_appended(3).await;
        daemon.is_confirmed("websocket").await;
        let Some(shown) = shows(&site, &ok.url()) else { return };
        compare("status", &shown);

        ok.pause().await;
        let begun = Instant::now();
        while status(&site, &[]).1["link"]["state"] != "offline" {
            assert!(begun.elapsed() < PATIENCE, "it is not noticed");
            async_std::task::sleep(std::time::Duration::from_millis(100)).await;
        }
        let Some(shown) = shows(&site, &ok.url()) else { return };
        compare("status, outage", &shown);
        daemon.stop().await;

        refusing.misbehave(Fault::status(401).at(Route::Heartbeat));
        let site = Site::new(&refusing);
        let mut daemon = site.start();
        daemon.complains(&["401"]).await;
        daemon.has_appended(3).await;
        let Some(shown) = shows(&site, &refusing.url()) else { return };
        compare("status, refused", &shown);
        daemon.stop().await;
    });
}
