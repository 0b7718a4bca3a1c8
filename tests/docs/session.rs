//! Every command that the documentation shows, typed as it stands there: into a shell, beside a
//! daemon that runs and a Monitor that is first away and then back.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use harborforge_monitor::{Mode, Monitor, Options};
use rustix::process::{Pid, Signal, kill_process};

use super::commands::{Fate, all};
use super::markdown::block;
use super::support::{Site, monitor, plain, real_time, run, spawn};

/// When a command is typed, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The Monitor is away, and samples wait.
    Away,
    /// It is back.
    Back,
    /// On another server, whose Monitor takes API keys.
    Keyed,
}
use Stage::{Away, Back, Keyed};

/// What is answered when it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Yes,
    Challenge,
    ApiKey,
}

/// How it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// With its output in a pipe.
    Pipe,
    /// On a terminal, with an answer to its question.
    Terminal(Answer),
    /// In a pipe, ended by Ctrl-C once a line with this has come.
    Until(&'static str),
    /// It is the daemon that runs all the while.
    Daemon,
}
use How::{Daemon, Pipe, Terminal, Until};

/// A line as it stands in the documentation, and what must come of it: exit code and words.
type Expected = (&'static str, Stage, How, i32, &'static [&'static str]);

/// What is not in here is typed when the Monitor is back, in a pipe, and must end with 0.
const EXPECTED: &[Expected] = &[
    ("harborforge-connector run", Away, Daemon, 0, &[]),
    ("harborforge-connector dump", Away, Pipe, 0, &[r#""state":"pending""#, r#""seq":7,"#]),
    ("harborforge-connector dump --tail 20", Away, Pipe, 0, &[r#""state":"pending""#]),
    ("harborforge-connector dump --summary --state all", Away, Pipe, 0, &["samples", "rejected"]),
    ("harborforge-connector dump --state sent --since 2h", Away, Pipe, 0, &[r#""state":"sent""#]),
    ("harborforge-connector dump --state rejected", Away, Pipe, 0, &["HTTP 422: odd"]),
    ("harborforge-connector dump --format csv > queue.csv", Away, Pipe, 0, &[]),
    ("harborforge-connector replay --dry-run", Away, Pipe, 0, &["samples"]),
    ("harborforge-connector verify", Away, Pipe, 0, &[r#""type":"queue""#, r#""good":true"#]),
    ("harborforge-connector man dump > harborforge-connector-dump.1", Away, Pipe, 0, &[]),
    ("harborforge-connector completions bash > harborforge-connector.bash", Away, Pipe, 0, &[]),
    ("harborforge-connector dump --follow", Back, Until(r#""state":"sent","at""#), 130, &[]),
    ("harborforge-connector status", Back, Pipe, 0, &[r#""running":true"#]),
    ("harborforge-connector sample", Back, Pipe, 0, &[r#""identifier":"vps.t1""#]),
    ("harborforge-connector check", Back, Pipe, 0, &["ok   daemon: runs as process"]),
    ("harborforge-connector replay", Back, Pipe, 0, &[r#""ended":"done""#]),
    ("harborforge-connector replay --sent --since 2h", Back, Pipe, 0, &[r#""ended":"done""#]),
    ("harborforge-connector replay --rejected", Back, Pipe, 0, &[r#""delivered":1"#]),
    ("harborforge-connector purge --rejected", Back, Terminal(Answer::Yes), 0, &["rejected"]),
    ("harborforge-connector purge --sent", Back, Terminal(Answer::Yes), 0, &["delivered"]),
    (
        "harborforge-connector purge --quarantine",
        Back,
        Terminal(Answer::Yes),
        0,
        &["damaged parts"],
    ),
    (
        "harborforge-connector enroll",
        Back,
        Terminal(Answer::Challenge),
        0,
        &["ok   daemon: process"],
    ),
    (
        "sudo harborforge-connector enroll --backend-url https://monitor.example",
        Back,
        Terminal(Answer::Challenge),
        0,
        &["ok   daemon: process"],
    ),
    ("sudo harborforge-connector enroll", Back, Terminal(Answer::Challenge), 0, &["ok   written"]),
    (
        "sudo harborforge-connector enroll --challenge-file challenge.txt",
        Back,
        Pipe,
        0,
        &["challenge_uuid set", "ok   daemon: process"],
    ),
    (
        "sudo harborforge-connector enroll --backend-url https://monitor.example --identifier vps.t1",
        Back,
        Terminal(Answer::Challenge),
        0,
        &["ok   key: "],
    ),
    (
        "sudo harborforge-connector enroll --api-key",
        Keyed,
        Terminal(Answer::ApiKey),
        0,
        &["api_key set"],
    ),
];

const API_KEY: &str = "key-of-the-tests";

/// A shell in a directory of its own, where `harborforge-connector` is the program.
struct Shell<'a> {
    site: &'a Site,
    monitor: &'a Monitor,
    config: PathBuf,
}

impl<'a> Shell<'a> {
    fn new(site: &'a Site, monitor: &'a Monitor) -> Self {
        let bin = site.path("bin");
        fs::create_dir(&bin).unwrap();
        symlink(env!("CARGO_BIN_EXE_harborforge-connector"), bin.join("harborforge-connector"))
            .unwrap();
        Self { site, monitor, config: site.configure() }
    }

    fn directory(&self) -> PathBuf {
        self.site.path("")
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:/usr/bin:/bin", self.site.path("bin").display());
        command.args(arguments).current_dir(self.directory()).env_clear();
        command.env("PATH", path).env("SHELL", "/bin/sh").env("TERM", "xterm");
        command.env("HARBORFORGE_CONFIG", &self.config).env("TMPDIR", self.directory());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What is really typed: the Monitor and the configuration have places of their own, and
    /// nobody is asked for a password, as the daemon is the tester's own.
    fn typed(&self, line: &str) -> String {
        let line = line.strip_prefix("sudo ").unwrap_or(line);
        line.replace("https://monitor.example", &self.monitor.url())
            .replace("/path/to/config.json", self.config.to_str().unwrap())
    }

    fn in_pipe(&self, line: &str) -> (Option<i32>, String) {
        let output = spawn(&mut self.command("/bin/sh", &["-c", line])).wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &said)
    }

    /// Exit code and the line that was waited for.
    fn until(&self, line: &str, wanted: &str) -> (Option<i32>, String) {
        let mut child = spawn(&mut self.command("/bin/sh", &["-c", &format!("exec {line}")]));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let found = lines.find(|line| line.contains(wanted)).unwrap_or_default();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        drop(lines);
        (child.wait().unwrap().code(), found)
    }

    /// On a terminal, answering its first question; `None` where there is nothing to make one.
    fn on_terminal(&self, line: &str, answer: &str) -> Option<(Option<i32>, String)> {
        if !["/usr/bin/script", "/bin/script"].iter().any(|path| Path::new(path).exists()) {
            eprintln!("SKIPPED: there is no `script` (util-linux) to make a terminal for {line}");
            return None;
        }
        let inside = format!("exec {line}");
        let mut command = self.command("script", &["-qec", &inside, "/dev/null"]);
        let mut child = spawn(command.stdin(Stdio::piped()));
        let (mut keyboard, mut screen) =
            (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut shown = Vec::new();
        let mut answered = false;
        let mut buffer = [0; 4096];
        loop {
            let count = screen.read(&mut buffer).unwrap();
            if count == 0 {
                break;
            }
            shown.extend_from_slice(&buffer[..count]);
            let text = String::from_utf8_lossy(&shown);
            if !answered && (text.contains("[y/N]") || text.contains("(it is not shown)")) {
                answered = true;
                keyboard.write_all(format!("{answer}\n").as_bytes()).unwrap();
            }
        }
        let code = child.wait().unwrap().code();
        // Until here: the end of what is typed would hang the terminal up.
        drop(keyboard);
        Some((code, String::from_utf8(shown).unwrap()))
    }

    fn answer(&self, answer: Answer) -> String {
        match answer {
            Answer::Yes => "y".to_owned(),
            Answer::Challenge => self.monitor.issue_challenge(),
            Answer::ApiKey => API_KEY.to_owned(),
        }
    }

    /// Types a line and holds what comes of it against what is expected; its output.
    fn does(&self, (line, _, how, code, says): Expected) -> String {
        let typed = self.typed(line);
        let found = match how {
            Pipe => self.in_pipe(&typed),
            Until(wanted) => self.until(&typed, wanted),
            Terminal(answer) => {
                let answer = self.answer(answer);
                let Some(found) = self.on_terminal(&typed, &answer) else { return String::new() };
                assert!(answer == "y" || !found.1.contains(&answer), "{line} shows the secret");
                found
            }
            Daemon => return String::new(),
        };
        let (ended, shown) = found;
        assert_eq!(ended, Some(code), "{line}\n{shown}");
        for part in says {
            assert!(shown.contains(part), "{line} does not say {part}:\n{shown}");
        }
        shown
    }
}

/// The lines to type, in the order of the list, then those that are in no list.
fn lines() -> Vec<(String, Option<Expected>)> {
    let mut shown: Vec<String> = Vec::new();
    for (_, line) in all(Fate::Run) {
        if !shown.contains(&line.text) {
            shown.push(line.text);
        }
    }
    for (line, ..) in EXPECTED {
        assert!(shown.iter().any(|text| text == line), "{line:?} is nowhere in the documentation");
    }
    let rank = |line: &String| EXPECTED.iter().position(|(text, ..)| text == line);
    shown.sort_by_key(|line| rank(line).unwrap_or(usize::MAX));
    shown.into_iter().map(|line| (line.clone(), rank(&line).map(|at| EXPECTED[at]))).collect()
}

/// A text with each run of digits made one sign: what is left is the same in each run.
fn shape(text: &str) -> String {
    let mut signs: Vec<char> =
        text.trim().chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect();
    signs.dedup_by(|one, other| *one == '#' && *other == '#');
    signs.into_iter().collect()
}

/// The examples of `dump`'s lines, the payload left out, which is shortened there.
fn compare_dumps(outputs: &BTreeMap<String, String>) {
    let before_payload = |line: &str| shape(line.split("\"payload\"").next().unwrap_or_default());
    let whole = r#"{"seq":42,"state":"pending","sampled_at":"2026-03-11T21:00:00Z","size":214,"attempts":0,"last_error":null,"payload":{"identifier":"vps.t1","seq":42}}"#;
    block("docs/OPERATIONS.md", whole);
    let real = outputs["harborforge-connector dump"].lines().next().unwrap();
    assert_eq!(before_payload(real), before_payload(whole));
    let went = r#"{"seq":42,"state":"sent","at":"2026-03-11T21:00:01Z"}"#;
    block("docs/OPERATIONS.md", went);
    assert_eq!(shape(&outputs["harborforge-connector dump --follow"]), shape(went));
}

#[test]
fn every_command_shown_is_run() {
    run(async {
        let ours = monitor(real_time()).await;
        let keyed = monitor(Options { mode: Mode::ApiKey(API_KEY.to_owned()), ..plain() }).await;
        let site = Site::websocket(&ours);
        site.fill_all_sets();
        let challenge = format!("{}\n", ours.issue_challenge());
        site.write("challenge.txt", &challenge);
        ours.pause().await;
        let mut daemon = site.start();
        daemon.has_appended(11).await;
        let other = Site::without_credential(&keyed);
        let (here, there) = (Shell::new(&site, &ours), Shell::new(&other, &keyed));

        let lines = lines();
        let mut outputs = BTreeMap::new();
        for (line, expected) in &lines {
            if let Some(expected) = expected.filter(|(_, stage, ..)| *stage == Away) {
                outputs.insert(line.clone(), here.does(expected));
            }
        }
        for (file, begins) in [
            ("harborforge-connector-dump.1", ".TH "),
            ("harborforge-connector.bash", "_harborforge"),
        ] {
            assert!(fs::read_to_string(site.path(file)).unwrap().starts_with(begins), "{file}");
        }
        let csv = fs::read_to_string(site.path("queue.csv")).unwrap();
        assert!(csv.starts_with("seq,") && csv.lines().count() > 4, "{csv}");

        ours.resume().await.unwrap();
        daemon.signal(Signal::USR1);
        daemon.is_confirmed("websocket").await;
        for (line, expected) in &lines {
            let shown = match expected {
                Some((_, Away, ..)) => continue,
                Some(expected @ (_, Keyed, ..)) => there.does(*expected),
                Some(expected @ (_, Back, ..)) => here.does(*expected),
                // It runs all the while.
                None if line.ends_with(" run") => continue,
                None => {
                    let (code, shown) = here.in_pipe(&here.typed(line));
                    assert_eq!(code, Some(0), "{line}: is it to be in EXPECTED?\n{shown}");
                    shown
                }
            };
            outputs.insert(line.clone(), shown);
        }
        compare_dumps(&outputs);
        // What was enrolled last works.
        daemon.is_confirmed("websocket").await;
        daemon.stop().await;
    });
}
