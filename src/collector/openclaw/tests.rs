//! Whole state directories of both generations, with a pretended /proc and gateways over real
//! sockets. Every secret in here is invented.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;

use super::homes::{Places, of_test};
use super::process::fake;
use super::reader::{Reader, Report};
use super::status::{Probe, Said};
use super::{probe, watch};
use crate::runtime;
use crate::sample::AgentStatus::{self, Idle, Running, Starting, Stopped, Unknown};

/// Stands wherever a secret may stand, and in no sample.
const SECRET: &str = "invented-secret-5f2c";

/// A gateway that started at this time holds the locks.
const SINCE: &str = "2026-08-01T10:00:00.000Z";
const SINCE_MS: u64 = 1_785_578_400_000;
const PID: u32 = 4242;
const START: u64 = 900;

struct Site {
    dir: tempfile::TempDir,
    reader: Reader,
}

impl Site {
    fn new(users: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let line =
            |name: &&str| format!("{name}:x:1:1::{}/home/{name}:/bin/sh\n", dir.path().display());
        std::fs::write(dir.path().join("passwd"), users.iter().map(line).collect::<String>())
            .unwrap();
        let reader = Reader::new(of_test(dir.path()), Vec::new());
        fake::process(&dir.path().join("proc"), 1, "init", 'S', 1, "init");
        Self { dir, reader }
    }

    fn home(&self, user: &str) -> PathBuf {
        self.dir.path().join("home").join(user).join(".openclaw")
    }

    fn write(&self, user: &str, name: &str, text: &str) {
        write(&self.home(user).join(name), text);
    }

    fn lock(&self, user: &str, port: u16) {
        let uid = rustix::process::getuid().as_raw();
        let home = self.home(user);
        let text = format!(
            r#"{{"pid":{PID},"createdAt":"{SINCE}","configPath":"{0}/openclaw.json","stateDir":"{0}","port":{port},"startTime":{START}}}"#,
            home.display()
        );
        write(&home.join(format!("tmp/openclaw-{uid}/gateway.13782dc0.lock")), &text);
    }

    fn process(&self, start: u64) {
        let proc = self.dir.path().join("proc");
        fake::process(&proc, PID, "node (x)) y", 'S', start, "openclaw-gateway");
    }

    /// Looks without asking any gateway.
    fn look(&mut self) -> Report {
        self.look_and_answer(&Probe::NotAsked)
    }

    fn look_and_answer(&mut self, answer: &Probe) -> Report {
        let now = SystemTime::now();
        self.reader.discover();
        self.reader.look(now);
        for (number, _) in self.reader.questions() {
            self.reader.answered(number, answer.clone());
        }
        self.reader.report(now)
    }
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn statuses(report: &Report) -> Vec<(&str, AgentStatus)> {
    report.view.agents.iter().map(|agent| (agent.id.as_str(), agent.status)).collect()
}

fn said(since: Option<u64>) -> Said {
    Said { version: Some("2026.9.6".to_owned()), since }
}

fn config() -> String {
    format!(
        r#"// Written by hand, JSON5.
        {{ meta: {{ lastTouchedVersion: "2026.3.13" }},
           gateway: {{ port: 18790, auth: {{ mode: "token", token: "{SECRET}" }} }},
           channels: {{ telegram: {{ botToken: '{SECRET}', }}, }},
           agents: {{ list: [ {{ id: "main", name: "Main", workspace: "/w/{SECRET}" }}, {{ id: "Ops" }} ] }} }}"#
    )
}

#[test]
fn nothing_there_is_nothing_said() {
    let mut site = Site::new(&["ann"]);
    assert_eq!(site.look(), Report::default());
}

#[test]
fn the_older_generation_from_its_files() {
    let mut site = Site::new(&["ann"]);
    site.write("ann", "openclaw.json", &config());
    let report = site.look();
    assert_eq!(report.view.version.as_deref(), Some("2026.3.13"));
    assert_eq!(statuses(&report), [("main", Stopped), ("ops", Stopped)]);
    assert_eq!(report.view.agents[0].name, "Main");
    site.lock("ann", 18790);
    assert_eq!(statuses(&site.look())[0].1, Stopped, "its process is not there");
    site.process(START);
    assert_eq!(statuses(&site.look()), [("main", Idle), ("ops", Idle)]);
    let lock =
        format!("{{\n  \"pid\": {PID},\n  \"createdAt\": \"x\",\n  \"starttime\": {START}\n}}");
    site.write("ann", "agents/ops/sessions/0b5e.jsonl.lock", &lock);
    assert_eq!(statuses(&site.look()), [("main", Idle), ("ops", Running)]);
    let sessions = |at: u64| {
        format!(
            r#"{{"agent:main:main":{{"sessionId":"{SECRET}","updatedAt":{at},"status":"running"}}}}"#
        )
    };
    site.write("ann", "agents/main/sessions/sessions.json", &sessions(SINCE_MS - 1));
    assert_eq!(statuses(&site.look())[0].1, Idle, "left over from the gateway before");
    site.write("ann", "agents/main/sessions/sessions.json", &sessions(SINCE_MS + 1000));
    let report = site.look();
    assert_eq!(statuses(&report)[0].1, Running);
    assert!(!format!("{report:?} {:?}", site.reader).contains(SECRET), "nothing of it is kept");
    // Another process with the gateway's number: everything it held is left over.
    site.process(START + 1);
    assert_eq!(statuses(&site.look()), [("main", Stopped), ("ops", Stopped)]);
}

#[cfg(feature = "openclaw-sqlite")]
#[test]
fn the_newer_generation_from_its_database() {
    let mut site = Site::new(&["ann"]);
    let text = format!(
        "{{gateway: {{auth: {{token: '{SECRET}'}}}}, agents: {{entries: {{home: {{name: 'Home'}}, work: {{}}}}}}}}"
    );
    site.write("ann", "openclaw.json", &text);
    site.lock("ann", 18790);
    site.process(START);
    let started = Probe::Started(said(None));
    let path = site.home("ann").join("agents/work/agent/openclaw-agent.sqlite");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let database = rusqlite::Connection::open(&path).unwrap();
    database
        .execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE session_nodes (session_key TEXT PRIMARY KEY,
             entry_json TEXT, updated_at INTEGER, status TEXT, archived_at INTEGER) STRICT;",
        )
        .unwrap();
    let report = site.look_and_answer(&started);
    assert_eq!(report.view.version.as_deref(), Some("2026.9.6"), "the gateway's word wins");
    assert_eq!(statuses(&report), [("home", Idle), ("work", Idle)]);
    let row = |at: u64| {
        format!(
            "INSERT OR REPLACE INTO session_nodes VALUES ('a', '{SECRET}', {at}, 'running', NULL)"
        )
    };
    database.execute_batch(&row(SINCE_MS - 1)).unwrap();
    assert_eq!(statuses(&site.look_and_answer(&started))[1].1, Idle, "a stale row");
    database.execute_batch(&row(SINCE_MS + 1)).unwrap();
    let report = site.look_and_answer(&started);
    assert_eq!(statuses(&report), [("home", Idle), ("work", Running)]);
    assert!(!format!("{report:?} {:?}", site.reader).contains(SECRET));
    drop(database);
    std::fs::write(&path, "torn").unwrap();
    let report = site.look_and_answer(&started);
    assert_eq!(statuses(&report)[1].1, Unknown);
    assert!(report.troubles.iter().any(|t| t.contains("agents/work") && t.contains("SQLite")));
}

#[test]
fn a_run_of_a_gateway_that_is_not_seen_counts_from_its_start_on() {
    let mut site = Site::new(&["ann"]);
    site.write("ann", "openclaw.json", "{}");
    let sessions = r#"{"a":{"updatedAt":5000,"status":"running"}}"#;
    site.write("ann", "agents/main/sessions/sessions.json", sessions);
    let at =
        |site: &mut Site, since| statuses(&site.look_and_answer(&Probe::Started(said(since))))[0].1;
    assert_eq!(at(&mut site, Some(5000)), Running);
    assert_eq!(at(&mut site, Some(5001)), Idle, "left over from the gateway before");
    assert_eq!(at(&mut site, None), Unknown);
}

#[test]
fn what_is_known_without_a_state_directory_is_told() {
    let mut site = Site::new(&["ann"]);
    let places = Places { port: 18789, ..of_test(site.dir.path()) };
    site.reader = Reader::new(places, Vec::new());
    site.look();
    assert_eq!(site.reader.questions(), [(None, 18789)]);
    let report = site.look_and_answer(&Probe::Started(said(None)));
    assert_eq!(report.view.version.as_deref(), Some("2026.9.6"));
    assert_eq!(report.view.agents, []);
    // Nobody answers any more, but its package is there.
    let package = site.dir.path().join("lib/node_modules/openclaw");
    write(&package.join("package.json"), r#"{"name":"openclaw","version":"2026.9.5"}"#);
    write(&package.join("openclaw.mjs"), "");
    std::fs::create_dir_all(site.dir.path().join("bin")).unwrap();
    std::os::unix::fs::symlink(package.join("openclaw.mjs"), site.dir.path().join("bin/openclaw"))
        .unwrap();
    let report = site.look_and_answer(&Probe::Refused);
    assert_eq!(report.view.version.as_deref(), Some("2026.9.5"));
    // Once a state directory is seen, its gateway's port is asked alone.
    site.write("ann", "openclaw.json", "{gateway: {port: 18790}}");
    site.look_and_answer(&Probe::Started(said(None)));
    assert_eq!(site.reader.questions(), [(Some(0), 18790)]);
}

#[test]
fn closed_homes_are_counted_while_no_state_directory_is_seen() {
    let closed = Report { hidden: 2, ..Report::default() };
    assert_eq!(closed.closed_homes(), 2);
    let seen = Report { homes: vec!["/home/ann/.openclaw".into()], ..closed };
    assert_eq!(seen.closed_homes(), 0);
}

#[test]
fn a_configuration_of_its_own_is_read_beside_the_state_directory() {
    let mut site = Site::new(&["ann"]);
    let config = site.dir.path().join("etc/claw-production.json5");
    write(&config, "{agents: {$include: './agents.json'}}");
    write(&config.with_file_name("agents.json"), "{list: [{id: 'ops'}]}");
    // Another one, which that gateway does not read.
    site.write("ann", "openclaw.json", "{}");
    let home = site.home("ann");
    let mut places = of_test(site.dir.path());
    places.homes = vec![home.parent().unwrap().to_owned()];
    places.config = Some(config.clone());
    site.reader = Reader::new(places, Vec::new());
    let lock = format!(
        r#"{{"pid":{PID},"createdAt":"{SINCE}","configPath":"{}","startTime":{START}}}"#,
        config.display()
    );
    let uid = rustix::process::getuid().as_raw();
    let locks = site.dir.path().join(format!("tmp/openclaw-{uid}"));
    write(&locks.join("gateway.13782dc0.lock"), &lock);
    site.process(START);
    let report = site.look();
    assert_eq!(statuses(&report), [("ops", Idle)]);
    assert_eq!(report.homes, [home]);
}

/// The unit's own temporary directory: the older generation's lock is not in it.
#[test]
fn a_gateway_whose_lock_is_hidden_is_not_stopped() {
    let mut site = Site::new(&["ann"]);
    site.write("ann", "openclaw.json", "{meta: {lastTouchedVersion: '2026.3.13'}}");
    let temporary = site.dir.path().join("tmp");
    let mounts =
        format!("5 1 0:3 /systemd-private-1-x/tmp {} rw - tmpfs x rw\n", temporary.display());
    let table = site.dir.path().join("proc/self/mountinfo");
    let status = |site: &mut Site, answer| statuses(&site.look_and_answer(&answer))[0].1;
    assert_eq!(status(&mut site, Probe::NoAnswer), Stopped, "it would be seen");
    write(&table, &mounts);
    assert_eq!(status(&mut site, Probe::NoAnswer), Unknown);
    assert_eq!(status(&mut site, Probe::Refused), Stopped);
    site.write("ann", "openclaw.json", "{meta: {lastTouchedVersion: '2026.8.1'}}");
    assert_eq!(status(&mut site, Probe::NoAnswer), Stopped, "its lock would lie in the home");
}

#[test]
fn a_gateway_starts_drains_and_dies() {
    let mut site = Site::new(&["ann"]);
    site.write("ann", "openclaw.json", "{}");
    let version = || said(None);
    let at = |site: &mut Site, answer: Probe| site.look_and_answer(&answer).view.agents[0].status;
    assert_eq!(at(&mut site, Probe::Refused), Stopped);
    site.lock("ann", 18790);
    site.process(START);
    assert_eq!(at(&mut site, Probe::Starting(version())), Starting);
    assert!(site.reader.restless());
    assert_eq!(at(&mut site, Probe::Started(version())), Idle);
    assert!(!site.reader.restless());
    assert_eq!(at(&mut site, Probe::Draining(version())), Idle);
    std::fs::remove_dir_all(site.dir.path().join("proc").join(PID.to_string())).unwrap();
    assert_eq!(at(&mut site, Probe::Refused), Stopped);
}

#[test]
fn a_lock_that_is_half_written_stops_nobody() {
    let mut site = Site::new(&["ann"]);
    site.write("ann", "openclaw.json", "{}");
    site.lock("ann", 18790);
    site.process(START);
    assert_eq!(statuses(&site.look_and_answer(&Probe::Started(said(None)))), [("main", Idle)]);
    let uid = rustix::process::getuid().as_raw();
    site.write("ann", &format!("tmp/openclaw-{uid}/gateway.13782dc0.lock"), "{\"pid\":4");
    let now = SystemTime::now();
    site.reader.look(now);
    assert_eq!(statuses(&site.reader.report(now)), [("main", Idle)], "by what its port said");
    assert_eq!(statuses(&site.look_and_answer(&Probe::Refused)), [("main", Unknown)]);
}

#[test]
fn a_configuration_that_breaks_keeps_the_agents_and_is_told() {
    let mut site = Site::new(&["ann"]);
    let config = config();
    site.write("ann", "openclaw.json", &config);
    assert_eq!(statuses(&site.look()).len(), 2);
    let path = site.home("ann").join("openclaw.json");
    let swap = |bytes: &[u8]| {
        std::fs::remove_file(&path).ok();
        std::fs::write(&path, bytes).unwrap();
    };
    let torn = &config.as_bytes()[..config.len() / 2];
    let deep = "[".repeat(100_000);
    let huge = vec![b' '; 5 * 1024 * 1024];
    for (bytes, why) in [
        (torn, "EOF"),
        (deep.as_bytes(), "nested deeper"),
        (&huge[..], "larger than"),
        (b"\xff\xfe", "UTF-8"),
        (b"{$include: '../../etc/passwd'}", "outside"),
        (b"{$include: 'openclaw.json'}", "includes itself"),
        (b"{$include: '\\u001b[31mx'}", "\u{fffd}[31mx: not there"),
    ] {
        swap(bytes);
        let report = site.look();
        assert_eq!(statuses(&report).len(), 2, "{why}");
        let troubles: Vec<&String> = report.troubles.iter().collect();
        assert!(troubles.len() == 1 && troubles[0].contains(why), "{troubles:?}");
        assert!(!troubles[0].contains(SECRET), "{troubles:?}");
    }
    fifo(&path);
    assert!(site.look().troubles.iter().any(|t| t.contains("not a regular file")));
    swap(b"{agents: {list: [{id: 'new'}]}}");
    let report = site.look();
    assert_eq!(statuses(&report), [("new", Stopped)]);
    assert!(report.troubles.is_empty());
}

#[test]
fn agents_of_several_users_stand_side_by_side() {
    let mut site = Site::new(&["ann", "bob"]);
    site.write("ann", "openclaw.json", "{}");
    site.write("bob", "openclaw.json", "{agents: {list: [{id: 'main'}, {id: 'ops'}]}}");
    site.lock("bob", 18790);
    site.process(START);
    let report = site.look();
    assert_eq!(statuses(&report), [("main", Stopped), ("main@bob", Idle), ("ops", Idle)]);
    assert_eq!(report.homes, [site.home("ann"), site.home("bob")]);
}

#[test]
fn a_port_is_asked_for_its_own_gateway_alone() {
    let mut site = Site::new(&["ann", "bob", "eve"]);
    for user in ["ann", "bob", "eve"] {
        site.write(user, "openclaw.json", "{}");
    }
    site.lock("bob", 18789);
    site.process(START);
    site.look();
    assert_eq!(site.reader.questions(), [(Some(1), 18789)], "the others' usual port is bob's");
}

#[test]
fn what_was_configured_and_is_not_there_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let settings = watch::Settings { look: true, homes: vec![dir.path().join("none")] };
    let report = watch::once(&settings, of_test(dir.path()));
    assert!(report.troubles.iter().any(|trouble| trouble.contains("openclaw_home is not there")));
    assert_eq!(report.view, crate::collector::OpenClawView::default());
}

/// A gateway that gives each connection the same answer, and the requests it was sent.
struct Gateway {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Gateway {
    fn answering(answer: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (requests.clone(), answer.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                    request.extend_from_slice(&byte);
                }
                seen.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { port, requests }
    }
}

fn http(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

#[test]
fn a_real_socket_is_asked_and_its_answer_understood() {
    let body = r#"{"ok":true,"status":"started","version":"2026.9.6","uptimeMs":1}"#;
    let gateway = Gateway::answering(&http("200 OK", "content-type: application/json\r\n", body));
    let before = SystemTime::now();
    let answer = runtime::block_on(probe::ask(gateway.port));
    let Probe::Started(answer) = answer else { panic!("{answer:?}") };
    assert_eq!(answer.version.as_deref(), Some("2026.9.6"));
    // Longer ago than it said, by what the answer may have been on its way.
    let since = UNIX_EPOCH + Duration::from_millis(answer.since.unwrap());
    assert!(since < before && since > before - Duration::from_secs(3));
    let requests = gateway.requests.lock().unwrap();
    assert!(requests.len() == 1 && requests[0].starts_with("GET /startupz HTTP/1.1\r\n"));

    let starting = http("503 Service Unavailable", "", r#"{"ok":false,"status":"starting"}"#);
    assert_eq!(ask(&starting), Probe::Starting(Said::default()));
    let draining = http("503 Service Unavailable", "", r#"{"ok":false,"status":"draining"}"#);
    assert_eq!(ask(&draining), Probe::Draining(Said::default()));
}

fn ask(answer: &str) -> Probe {
    runtime::block_on(probe::ask(Gateway::answering(answer).port))
}

#[test]
fn strangers_on_the_port_say_nothing_and_hold_nobody_up() {
    let elsewhere = Gateway::answering(&http("200 OK", "", r#"{"status":"started"}"#));
    let location = format!("location: http://127.0.0.1:{}/startupz\r\n", elsewhere.port);
    let huge = "x".repeat(1024 * 1024);
    for answer in [
        http("302 Found", &location, ""),
        http("404 Not Found", "", "Not Found"),
        http("200 OK", "", "<!doctype html><title>OpenClaw</title>"),
        http("200 OK", "", &huge),
        "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
        String::new(),
    ] {
        assert_eq!(ask(&answer), Probe::NoAnswer, "{}", &answer[..answer.len().min(60)]);
    }
    assert_eq!(elsewhere.requests.lock().unwrap().len(), 0, "a redirect is not followed");
    // Accepts nothing: the kernel takes the connection, nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let answer = runtime::block_on(probe::ask(silent.local_addr().unwrap().port()));
    assert_eq!(answer, Probe::Silent);
    // Bound, so that no test beside this one gets it, and not listening.
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
    let bound = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&bound, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address: std::net::SocketAddr = getsockname(&bound).unwrap().try_into().unwrap();
    assert_eq!(runtime::block_on(probe::ask(address.port())), Probe::Refused);
}

/// Every file the reader may come across.
fn everywhere(root: &Path, places: &Places) -> Vec<PathBuf> {
    let home = root.join("home/ann/.openclaw");
    let uid = rustix::process::getuid().as_raw();
    vec![
        home.join("agents/main/sessions/sessions.json"),
        home.join("agents/main/sessions/a.jsonl.lock"),
        home.join("agents/ops/agent/openclaw-agent.sqlite"),
        home.join("agents/ops/agent/openclaw-agent.sqlite-wal"),
        home.join("agents/ops/agent/openclaw-agent.sqlite-shm"),
        home.join("agents/ops/agent/openclaw-agent.sqlite-journal"),
        home.join(format!("tmp/openclaw-{uid}/gateway.a.lock")),
        places.temporary.join(format!("openclaw-{uid}/gateway.b.lock")),
        places.proc.join("1/stat"),
        places.proc.join(format!("{PID}/stat")),
        places.proc.join(format!("{PID}/cmdline")),
        root.join("lib/openclaw/package.json"),
        home.join("included.json"),
    ]
}

fn fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::remove_file(path).ok();
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

#[cfg(feature = "openclaw-sqlite")]
#[test]
fn a_fifo_in_the_place_of_any_file_holds_nobody_up() {
    let count = everywhere(Path::new("/"), &of_test(Path::new("/"))).len();
    for number in 0..count {
        let mut site = Site::new(&["ann"]);
        let config = "{agents: {$include: 'included.json'}}";
        site.write("ann", "openclaw.json", config);
        site.write("ann", "included.json", "{list: [{id: 'main'}, {id: 'ops'}]}");
        let database = site.home("ann").join("agents/ops/agent/openclaw-agent.sqlite");
        write(&database, "");
        let schema = "CREATE TABLE session_nodes (updated_at INTEGER, status TEXT);";
        rusqlite::Connection::open(&database).unwrap().execute_batch(schema).unwrap();
        // An empty log: SQLite looks for the others by itself.
        site.write("ann", "agents/ops/agent/openclaw-agent.sqlite-wal", "");
        site.lock("ann", 18790);
        site.process(START);
        let path = everywhere(site.dir.path(), &of_test(site.dir.path())).swap_remove(number);
        fifo(&path);
        let report = site.look();
        if !path.ends_with("included.json") {
            assert_eq!(report.view.agents.len(), 2, "{}", path.display());
        }
    }
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..20),
        proptest::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "\"",
            "'",
            "//",
            "/*",
            "*/",
            "\\",
            "\n",
            "$include",
            "'included.json'",
            "agents",
            "list",
            "entries",
            "id",
            "name",
            "status",
            "running",
            "updatedAt",
            "pid",
            "4242",
            "startTime",
            "port",
            "1e999",
            "-1",
            "null",
            "meta",
            "lastTouchedVersion",
            "SQLite format 3\0",
            "4242 (a) S ",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        Just(SECRET.as_bytes().to_vec()),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Bytes of all kinds in every file: no panic, an end, and bounded text in the sample.
    #[test]
    fn no_bytes_in_any_file_are_too_much(bytes in any_bytes(), also_the_config in any::<bool>()) {
        let mut site = Site::new(&["ann"]);
        let places = of_test(site.dir.path());
        for path in everywhere(site.dir.path(), &places) {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, &bytes).unwrap();
        }
        site.write("ann", "openclaw.json", &config());
        if also_the_config {
            std::fs::write(site.home("ann").join("openclaw.json"), &bytes).unwrap();
        }
        for answer in [Probe::NotAsked, probe::read(200, &bytes, 0)] {
            let report = site.look_and_answer(&answer);
            for agent in &report.view.agents {
                prop_assert!(agent.id.chars().count() <= 64 && agent.name.chars().count() <= 100);
            }
            if !also_the_config {
                prop_assert_eq!(report.view.agents.len(), 2);
                let said = format!("{:?}", report.view);
                prop_assert!(!said.contains(SECRET));
            }
        }
    }

    /// A secret at any place of the configuration but an agent's id or name is nowhere afterwards,
    /// be the document whole, torn or followed by something.
    #[test]
    fn no_secret_leaves_the_configuration(
        key in "[a-z]{1,8}",
        depth in 0_usize..5,
        cut in 0_usize..400,
        torn in any::<bool>(),
    ) {
        let mut value = format!("'{SECRET}'");
        for _ in 0..depth {
            value = format!("{{ {key}: [{value}, {{ '{SECRET}': 1 }}] }}");
        }
        let key = match key.as_str() { "meta" | "agents" | "gateway" => "x".to_owned(), _ => key };
        let mut text = format!(
            "{{ {key}: {value}, agents: {{ {key}: {value}, list: [{{ id: 'a', {key}x: {value} }}] }} }}"
        );
        if torn {
            text.truncate(text.len().saturating_sub(cut));
        }
        let mut site = Site::new(&["ann"]);
        site.write("ann", "openclaw.json", &text);
        let report = site.look();
        let kept = format!("{report:?} {:?}", site.reader);
        prop_assert!(!kept.contains(SECRET));
    }
}

#[test]
fn of_too_many_agents_the_first_are_looked_after_and_the_others_counted() {
    let mut site = Site::new(&["ann"]);
    for (roster, open, close) in [("entries", "{", "}"), ("list", "[", "]")] {
        let agent = |n: usize| match roster {
            "entries" => format!("a{n}:{{}},"),
            _ => format!("{{id:'a{n}'}},"),
        };
        let agents: String = (0..20_000).map(agent).collect();
        site.write(
            "ann",
            "openclaw.json",
            &format!("{{agents:{{{roster}:{open}{agents}{close}}}}}"),
        );
        let report = site.look();
        assert_eq!(report.view.agents.len(), 1000);
        assert_eq!(report.view.agents[999].id, "a999");
        let troubles: Vec<&String> = report.troubles.iter().collect();
        let expected = "openclaw.json: 19000 agents beyond the first 1000 are left out";
        assert!(troubles.len() == 1 && troubles[0].ends_with(expected), "{troubles:?}");
    }
    site.write("ann", "openclaw.json", "{}");
    assert!(site.look().troubles.is_empty());
}

/// What a hundred agents cost: printed, since it depends on the machine. Run it with
/// `cargo test --release --lib a_hundred_agents -- --nocapture`.
#[test]
fn a_hundred_agents_are_read_and_their_cost_is_printed() {
    let mut site = Site::new(&["ann"]);
    let entries: String = (0..100).map(|n| format!("a{n}: {{ name: 'Agent {n}' }},")).collect();
    site.write("ann", "openclaw.json", &format!("{{agents: {{entries: {{{entries}}}}}}}"));
    site.lock("ann", 18790);
    site.process(START);
    for n in 0..100 {
        let session = r#"{"k":{"sessionId":"x","updatedAt":1,"status":"done"}}"#;
        site.write("ann", &format!("agents/a{n}/sessions/sessions.json"), session);
    }
    let later = SystemTime::now() + Duration::from_secs(60);
    let cpu = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let mut cost = Vec::new();
    for _ in 0..3 {
        let before = cpu();
        site.reader.discover();
        site.reader.look(later);
        assert_eq!(site.reader.report(later).view.agents.len(), 100);
        let after = cpu();
        let nanoseconds =
            (after.tv_sec - before.tv_sec) * 1_000_000_000 + (after.tv_nsec - before.tv_nsec);
        cost.push(nanoseconds / 1000);
    }
    println!("a hundred agents: {} µs of CPU the first time, then {} µs", cost[0], cost[2]);
    assert!(later > UNIX_EPOCH);
}
