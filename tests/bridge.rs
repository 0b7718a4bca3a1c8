//! The bridge of the real daemon over real sockets (docs/PROTOCOL.md 9). Its limits of time are
//! tested beside the code, with short ones.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(dead_code, reason = "the support module serves several tests")]
#![allow(clippy::print_stderr, reason = "a test that is left out says so")]

mod support;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Instant;

use harborforge_connector::bridge::MOST_CLIENTS;
use harborforge_monitor::Monitor;
use serde_json::{Value, json};

use support::{Daemon, PATIENCE, Site, has_all, monitor, outcome, plain, run, spawn};

/// An answer.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn connect(bridge: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(bridge).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends bytes as they are and reads the answer to the end of the connection.
fn ask(bridge: SocketAddr, request: &str) -> Reply {
    let mut stream = connect(bridge);
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{request}: {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_ascii_lowercase(), value.to_owned())
    });
    Reply { status, headers: headers.collect(), body: body.to_owned() }
}

fn get(bridge: SocketAddr, path: &str) -> Reply {
    ask(bridge, &format!("GET {path} HTTP/1.1\r\nHost: {bridge}\r\nConnection: close\r\n\r\n"))
}

/// A push with these header lines beside the usual ones.
fn post_with(bridge: SocketAddr, headers: &str, body: &str) -> Reply {
    let length = body.len();
    ask(
        bridge,
        &format!(
            "POST /openclaw HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Length: {length}\r\n{headers}\r\n{body}"
        ),
    )
}

fn post(bridge: SocketAddr, body: &Value) -> Reply {
    post_with(bridge, "Content-Type: application/json\r\n", &body.to_string())
}

/// A daemon with a bridge on a port of the system's choice.
async fn bridged(monitor: &Monitor) -> (Site, Daemon, SocketAddr) {
    bridged_on(monitor, "127.0.0.1:0").await
}

async fn bridged_on(monitor: &Monitor, listen: &str) -> (Site, Daemon, SocketAddr) {
    let mut site = Site::new(monitor);
    site.set("bridge_listen", listen);
    let mut daemon = site.start();
    let bridge = listens(&mut daemon).await;
    (site, daemon, bridge)
}

async fn listens(daemon: &mut Daemon) -> SocketAddr {
    daemon.says("the bridge listens").await.json["address"].as_str().unwrap().parse().unwrap()
}

fn status(site: &Site) -> Value {
    let (_, stdout, stderr) = outcome(site.command("status").arg("--json"));
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"))
}

/// The newest sample; the first may not have been taken yet.
fn newest(bridge: SocketAddr) -> Value {
    let begun = Instant::now();
    loop {
        let reply = get(bridge, "/telemetry");
        assert_eq!(reply.headers["content-type"], "application/json", "{reply:?}");
        if reply.status == 200 {
            return reply.json();
        }
        assert_eq!(reply.status, 503, "{reply:?}");
        assert!(reply.json()["error"].as_str().unwrap().contains("no sample"), "{reply:?}");
        assert!(begun.elapsed() < PATIENCE, "{reply:?}");
    }
}

#[test]
fn each_route_answers() {
    run(async {
        let monitor = monitor(plain()).await;
        let (site, daemon, bridge) = bridged(&monitor).await;
        assert!(bridge.ip().is_loopback());
        let health = get(bridge, "/health");
        assert_eq!((health.status, health.body.as_str()), (200, r#"{"status":"ok"}"#));
        assert_eq!(health.headers["content-type"], "application/json");
        assert_eq!(health.headers["cache-control"], "no-store");

        let sample = newest(bridge);
        assert_eq!(sample["identifier"], "vps.t1");
        assert!(sample["uptime_seconds"].is_number() && sample["agents"].is_array(), "{sample}");
        assert!(sample.get("seq").is_none() && sample.get("sample_id").is_none(), "{sample}");

        let metrics = get(bridge, "/metrics");
        assert_eq!(metrics.status, 200);
        assert_eq!(metrics.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        assert!(metrics.body.contains("harborforge_connector_info{version="), "{metrics:?}");
        assert_eq!(get(bridge, "/health?from=here").status, 200);

        for path in ["/health", "/telemetry", "/metrics", "/nothing"] {
            let head = ask(
                bridge,
                &format!("HEAD {path} HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n"),
            );
            let get = get(bridge, path);
            assert_eq!((head.status, head.body.as_str()), (get.status, ""), "{path}");
            assert_eq!(head.headers["content-type"], get.headers["content-type"], "{path}");
            assert!(head.headers["content-length"].parse::<u64>().unwrap() > 10, "{head:?}");
        }
        assert_eq!(status(&site)["bridge"]["listening"], bridge.to_string());
        daemon.stop().await;
    });
}

#[test]
fn only_requests_for_this_host_are_answered() {
    run(async {
        let monitor = monitor(plain()).await;
        let (_site, daemon, bridge) = bridged(&monitor).await;
        let with = |target: &str, hosts: &str| {
            let request = format!("GET {target} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
            ask(bridge, &request).status
        };
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1", "127.8.9.1:9100", "[::1]:80"] {
            assert_eq!(with("/health", &format!("Host: {host}\r\n")), 200, "{host}");
        }
        for host in ["attacker.example", "attacker.example:9100", "127.0.0.1.attacker.example", ""]
        {
            for path in ["/health", "/telemetry", "/metrics", "/openclaw", "/nothing"] {
                assert_eq!(with(path, &format!("Host: {host}\r\n")), 421, "{host}{path}");
            }
        }
        assert_eq!(with("/health", ""), 400);
        assert_eq!(with("/health", "Host: localhost\r\nHost: localhost\r\n"), 400);
        assert_eq!(with("http://attacker.example/health", "Host: localhost\r\n"), 421);
        assert_eq!(with("http://localhost/health", "Host: attacker.example\r\n"), 421);
        assert_eq!(with("http://localhost:1/health", "Host: localhost\r\n"), 200);
        daemon.stop().await;
    });
}

#[test]
fn what_is_not_meant_is_refused_with_the_reason() {
    run(async {
        let monitor = monitor(plain()).await;
        let (_site, mut daemon, bridge) = bridged(&monitor).await;
        let says = |reply: Reply, status: u16, part: &str| {
            assert_eq!(reply.status, status, "{reply:?}");
            let error = reply.json()["error"].as_str().unwrap().to_owned();
            assert!(error.contains(part), "{part:?} in {error:?}");
            reply
        };
        says(get(bridge, "/"), 404, "POST /openclaw");
        for (method, path, allow) in [
            ("POST", "/health", "GET, HEAD"),
            ("DELETE", "/telemetry", "GET, HEAD"),
            ("OPTIONS", "/metrics", "GET, HEAD"),
            ("GET", "/openclaw", "POST"),
            ("OPTIONS", "/openclaw", "POST"),
        ] {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\
                 Connection: close\r\n\r\n"
            );
            let reply = says(ask(bridge, &request), 405, allow);
            assert_eq!(reply.headers["allow"], allow);
            assert!(!reply.headers.keys().any(|name| name.starts_with("access-control")));
        }
        let json = "Content-Type: application/json\r\n";
        let good = r#"{"version":"1"}"#;
        for origin in ["null", "http://localhost", "http://attacker.example"] {
            let headers = format!("{json}Origin: {origin}\r\n");
            says(post_with(bridge, &headers, good), 403, "Origin");
        }
        for headers in [
            String::new(),
            "Content-Type: text/plain\r\n".to_owned(),
            format!("{json}Content-Encoding: gzip\r\n"),
        ] {
            says(post_with(bridge, &headers, good), 415, "application/json");
        }
        let large = format!("{{\"version\":\"{}\"}}", "v".repeat(64 * 1024));
        says(post_with(bridge, json, &large), 413, "65536");
        for (body, part) in [
            (json!({}), "none of version"),
            (json!({"agents": [{"name": "no id"}]}), "a member that is missing"),
            (json!({"agents": [{"id": "a", "name": ""}]}), "agents[0].name"),
            (json!({"version": "\u{1b}[31m"}), "version has"),
        ] {
            says(post(bridge, &body), 400, part);
        }
        says(post_with(bridge, json, "{\"version\":"), 400, "ends too early");
        // All of these are one line in the log, whatever others push in between; their end would be
        // another, five minutes later.
        let refused = "what a plugin reported over the bridge was refused";
        daemon.says(refused).await;
        let kind = "content-type: Application/JSON; charset=utf-8\r\n";
        assert_eq!(post_with(bridge, kind, good).status, 204);
        says(post_with(bridge, json, "{}"), 400, "none of version");
        assert_eq!(post_with(bridge, kind, good).status, 204);
        assert_eq!(daemon.count(refused), 1);
        assert_eq!(daemon.count("a plugin's reports are accepted again"), 0);
        assert_eq!(get(bridge, "/health").status, 200);
        daemon.stop().await;
    });
}

#[test]
fn what_a_plugin_pushes_stands_in_the_samples_that_follow() {
    run(async {
        let monitor = monitor(plain()).await;
        let (site, mut daemon, bridge) = bridged(&monitor).await;
        let first = daemon.has_appended(1).await;
        let agents = json!([
            {"id": "a1", "name": "agent", "status": "running"},
            {"id": "a2", "name": "ünïcode", "status": "dancing", "workspace": "/home/claw"},
        ]);
        // In chunks, as a program does that does not know the length before.
        let body = json!({"version": "2026.9.6", "plugin_version": "0.4.0", "agents": agents});
        let body = body.to_string();
        let (one, two) = body.split_at(20);
        let reply = ask(
            bridge,
            &format!(
                "POST /openclaw HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                 Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
                 {:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n",
                one.len(),
                two.len()
            ),
        );
        assert_eq!((reply.status, reply.body.as_str()), (204, ""), "{reply:?}");
        // One that is refused takes nothing back.
        assert_eq!(post(bridge, &json!({"agents": "none"})).status, 400);
        // The one that was being taken meanwhile may not have it yet.
        let next = daemon.has_appended(first + 2).await;
        has_all(&monitor, next).await;
        let accepted = monitor.accepted();
        let sample = &accepted.iter().find(|sample| sample.seq == next).unwrap().telemetry;
        assert_eq!(sample["openclaw_version"], "2026.9.6", "{sample}");
        assert_eq!(sample["plugin_version"], "0.4.0", "{sample}");
        let expected = json!([
            {"id": "a1", "name": "agent", "status": "running"},
            {"id": "a2", "name": "ünïcode", "status": "unknown"},
        ]);
        assert_eq!(sample["agents"], expected);
        let shown = newest(bridge);
        assert_eq!(shown["agents"], expected, "{shown}");
        let status = status(&site);
        assert_eq!(status["openclaw"]["version"], "2026.9.6", "{status}");
        assert_eq!(status["openclaw"]["agents"], 2, "{status}");

        // What a plugin says later counts.
        let before = daemon.appended();
        assert_eq!(post(bridge, &json!({"version": "2026.9.7", "agents": []})).status, 204);
        let next = daemon.has_appended(before + 2).await;
        has_all(&monitor, next).await;
        let accepted = monitor.accepted();
        let sample = &accepted.iter().find(|sample| sample.seq == next).unwrap().telemetry;
        assert_eq!(sample["openclaw_version"], "2026.9.7");
        assert_eq!((&sample["agents"], sample.get("plugin_version")), (&json!([]), None));
        daemon.stop().await;
    });
}

/// The value of a series in Prometheus's text.
fn value(text: &str, series: &str) -> Option<f64> {
    let named = |line: &&str| line.rsplit_once(' ').is_some_and(|(name, _)| name == series);
    text.lines().find(named)?.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn metrics_and_status_tell_the_same() {
    run(async {
        let monitor = monitor(plain()).await;
        let mut site = Site::new(&monitor);
        // One sample, so that nothing moves any more.
        site.set("bridge_listen", "127.0.0.1:0").set("report_interval", "1h");
        let mut daemon = site.start();
        let bridge = listens(&mut daemon).await;
        daemon.has_appended(1).await;
        daemon.is_confirmed("http").await;
        // Nor did anything while both were asked, or they are asked again.
        let begun = Instant::now();
        let (text, status) = loop {
            let before = status(&site);
            let (text, after) = (get(bridge, "/metrics").body, status(&site));
            let still = |part: &str| before[part] == after[part];
            if still("figures") && still("queue") && after["figures"]["confirm"]["count"] == 1 {
                break (text, after);
            }
            assert!(begun.elapsed() < PATIENCE, "{before} {after}");
        };
        for (series, told) in [
            ("samples_appended_total", &status["figures"]["appended"]),
            ("samples_delivered_total{transport=\"http\"}", &status["figures"]["delivered_http"]),
            (
                "samples_delivered_total{transport=\"websocket\"}",
                &status["figures"]["delivered_websocket"],
            ),
            ("samples_rejected_total", &status["figures"]["rejected"]),
            ("samples_duplicate_total", &status["figures"]["duplicates"]),
            ("failures_total", &status["figures"]["failures"]),
            ("append_duration_seconds_count", &status["figures"]["append"]["count"]),
            ("append_duration_seconds_sum", &status["figures"]["append"]["sum_seconds"]),
            ("confirm_duration_seconds_count", &status["figures"]["confirm"]["count"]),
            ("queue_samples", &status["queue"]["pending"]),
            ("queue_sent_samples", &status["queue"]["sent"]),
            ("queue_disk_bytes", &status["queue"]["disk_bytes"]),
        ] {
            let found = value(&text, &format!("harborforge_connector_{series}"));
            assert_eq!(found, told.as_f64(), "{series}: {told} in {text}");
            assert!(found.is_some(), "{series} in {text}");
        }
        assert_eq!(value(&text, "harborforge_connector_samples_appended_total"), Some(1.0));
        assert_eq!(value(&text, "harborforge_connector_link_state{state=\"online\"}"), Some(1.0));
        daemon.stop().await;
        promtool_agrees(&text);
    });
}

fn promtool_agrees(text: &str) {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join("promtool").is_file())
    });
    if !found {
        eprintln!("SKIPPED: there is no promtool (Debian: prometheus) here");
        return;
    }
    let mut command = std::process::Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(&mut command);
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}

#[test]
fn clients_that_hold_every_place_hold_up_nothing_else() {
    run(async {
        let monitor = monitor(plain()).await;
        // Nobody else uses this address, so that its ports can be told to be closed.
        let (site, mut daemon, bridge) = bridged_on(&monitor, "127.0.9.1:0").await;
        let holders: Vec<TcpStream> = (0..2 * MOST_CLIENTS)
            .map(|n| {
                let mut stream = connect(bridge);
                // Half a head, half a body, or nothing at all.
                let half = [
                    "GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: ",
                    "POST /openclaw HTTP/1.1\r\nHost: localhost\r\n\
                     Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
                    "",
                ][n % 3];
                stream.write_all(half.as_bytes()).unwrap();
                stream
            })
            .collect();
        let last = daemon.appended() + 3;
        daemon.has_appended(last).await;
        has_all(&monitor, last).await;
        assert_eq!(status(&site)["bridge"]["listening"], bridge.to_string());
        // As soon as they go there is room, without waiting for any time limit.
        drop(holders);
        assert_eq!(get(bridge, "/health").status, 200);
        let _hanging = connect(bridge);
        daemon.stop().await;
        let refused = TcpStream::connect(bridge).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_port_that_is_taken_is_waited_for_and_a_reload_moves_the_bridge() {
    run(async {
        let monitor = monitor(plain()).await;
        // Nobody else uses this address, so that nobody else takes the port between two steps.
        let other = TcpListener::bind("127.0.9.2:0").unwrap();
        let taken = other.local_addr().unwrap();
        let mut site = Site::new(&monitor);
        site.set("bridge_listen", &taken.to_string());
        let (_, report, _) = outcome(site.command("check").arg("--offline"));
        let line = report.lines().find(|line| line.contains(" bridge: ")).unwrap();
        assert!(line.starts_with("warn") && line.contains("taken"), "{report}");

        let mut daemon = site.start();
        let line = daemon.says("the bridge cannot listen, it is tried again").await;
        assert!(line.names(&[&taken.to_string(), "ss -ltnp", "bridge_listen"]), "{line:?}");
        let told = &status(&site)["bridge"];
        assert_eq!(told["configured"], taken.to_string());
        assert_eq!(told["listening"], Value::Null);
        assert!(told["last_error"].as_str().unwrap().contains("in use"), "{told}");
        assert!(told["next_attempt_at"].is_string(), "{told}");
        let (_, report, _) = outcome(site.command("check").arg("--offline"));
        assert!(report.contains("warn bridge: the daemon cannot listen on"), "{report}");
        let appended = daemon.appended();
        has_all(&monitor, appended + 1).await;
        drop(other);
        assert_eq!(listens(&mut daemon).await, taken);
        assert_eq!(daemon.count("the bridge cannot listen, it is tried again"), 1);
        assert_eq!(get(taken, "/health").status, 200);

        let held = connect(taken);
        site.set("bridge_listen", "127.0.9.2:0");
        daemon.reload(&site);
        let moved = listens(&mut daemon).await;
        assert_eq!(get(moved, "/health").status, 200);
        assert_eq!((&held).read(&mut [0]).unwrap_or(0), 0, "the old connections are cut");
        assert_eq!(TcpStream::connect(taken).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let (_, report, _) = outcome(site.command("check").arg("--offline"));
        assert!(report.contains(&format!("the daemon listens on {moved}")), "{report}");

        site.set("bridge_listen", "off");
        daemon.reload(&site);
        daemon.says("the bridge is off").await;
        assert_eq!(TcpStream::connect(moved).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(status(&site)["bridge"], Value::Null);
        daemon.stop().await;
    });
}
