//! The control socket of a daemon that runs.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(dead_code, reason = "the support module serves several tests")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use harborforge_connector::control::server::{MOST_CLIENTS, MOST_REFUSED};
use serde_json::Value;

use support::{PATIENCE, Site, monitor, outcome, real_time, run};

/// Sends a line and reads the answer to its end.
fn ask(site: &Site, line: &str) -> Vec<Value> {
    let mut stream = UnixStream::connect(site.path("control.sock")).unwrap();
    stream.write_all(line.as_bytes()).unwrap();
    stream.write_all(b"\n").unwrap();
    BufReader::new(stream)
        .lines()
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect()
}

/// Asks for the status until the answer contains this.
fn asked_until(site: &Site, wanted: &str) -> String {
    let begun = Instant::now();
    loop {
        let mut answer = String::new();
        let mut stream = UnixStream::connect(site.path("control.sock")).unwrap();
        // A connection that is refused before it was read may be reset.
        let asked = stream.write_all(b"{\"v\":1,\"do\":\"status\"}\n");
        let read = asked.and_then(|()| stream.read_to_string(&mut answer));
        if read.is_ok() && answer.contains(wanted) {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "no {wanted} in {answer}");
    }
}

#[test]
fn status_and_dump_are_answered_while_it_works() {
    run(async {
        let monitor = monitor(real_time()).await;
        monitor.pause().await;
        let site = Site::websocket(&monitor);
        site.fill(1000);
        let mut daemon = site.start();
        daemon.has_appended(1001).await;
        let mode = std::fs::metadata(site.path("control.sock")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);

        let lines = ask(&site, r#"{"v":1,"do":"dump","pending":true,"from":1,"to":1000}"#);
        assert_eq!(lines.len(), 1001);
        let seqs = lines.iter().filter_map(|line| line["item"]["sample"]["seq"].as_u64());
        assert!(seqs.eq(1..=1000));
        assert_eq!(lines[1000]["end"]["gaps"], Value::Array(vec![]));
        assert!(lines[0]["item"]["sample"]["payload"]["uptime_seconds"].is_number());

        monitor.resume().await.unwrap();
        let last = daemon.is_confirmed("websocket").await;
        let lines = ask(&site, r#"{"v":1,"do":"status"}"#);
        let status = &lines[0]["item"];
        assert_eq!(status["running"], true);
        assert_eq!(status["link"]["state"], "online");
        assert_eq!(status["link"]["transport"], "websocket");
        assert_eq!(status["identifier"], "vps.t1");
        assert!(status["queue"]["next_seq"].as_u64().unwrap() > last);
        assert!(status["last_success"]["seq"].as_u64().unwrap() >= last);
        assert_eq!(status["last_success"]["payload"]["identifier"], "vps.t1");
        assert!(status["figures"]["delivered_websocket"].as_u64().unwrap() >= last);
        let (code, stdout, stderr) = outcome(&mut {
            let mut command = site.command("status");
            command.arg("--json");
            command
        });
        assert_eq!((code, stderr.as_str()), (0, ""));
        let status: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(status["running"], true);
        daemon.stop().await;
        assert!(!site.path("control.sock").exists(), "it goes with the daemon");
        let (code, _, _) = outcome(&mut site.command("status"));
        assert_eq!(code, 1);
    });
}

#[test]
fn what_is_no_request_is_refused_and_hurts_nobody() {
    run(async {
        let monitor = monitor(real_time()).await;
        let site = Site::websocket(&monitor);
        let mut daemon = site.start();
        daemon.has_appended(1).await;
        for (line, says) in [
            ("", "not a request"),
            ("{}", "not a request"),
            ("\u{0}\u{1}", "not a request"),
            (r#"{"v":1,"do":"fly"}"#, "not a request"),
            (r#"{"v":2,"do":"status"}"#, "speaks version 1"),
            (r#"{"v":1,"do":"dump"}"#, "not a request"),
            (&"x".repeat(70_000), "at most 65536 bytes"),
        ] {
            let lines = ask(&site, line);
            assert_eq!(lines.len(), 1, "{line:.40}");
            assert_eq!(lines[0]["error"]["kind"], "request", "{line:.40}");
            let message = lines[0]["error"]["message"].as_str().unwrap();
            assert!(message.contains(says), "{line:.40}: {message}");
        }
        // Clients that say nothing take their places and no more.
        let path = site.path("control.sock");
        let silent: Vec<_> =
            (0..MOST_CLIENTS).map(|_| UnixStream::connect(&path).unwrap()).collect();
        let busy = asked_until(&site, "busy");
        assert!(busy.contains("try again"), "{busy}");
        let before = daemon.is_confirmed("websocket").await;
        daemon.has_appended(before + 1).await;
        assert!(daemon.is_confirmed("websocket").await > before, "it goes on delivering");
        drop(silent);
        daemon.stop().await;
    });
}

#[test]
fn a_flood_costs_a_bounded_number_of_descriptors_and_delays_nothing() {
    run(async {
        const FLOOD: usize = 300;
        let monitor = monitor(real_time()).await;
        let site = Site::websocket(&monitor);
        let mut daemon = site.start();
        daemon.is_confirmed("websocket").await;
        let directory = format!("/proc/{}/fd", daemon.pid());
        let descriptors = || std::fs::read_dir(&directory).unwrap().count();
        let (before, mut most) = (descriptors(), 0);
        let flood: Vec<_> = (0..FLOOD)
            .map(|_| {
                let stream = UnixStream::connect(site.path("control.sock")).unwrap();
                most = most.max(descriptors());
                stream
            })
            .collect();
        // The queue and the link open and close some of their own meanwhile.
        let bound = MOST_CLIENTS + MOST_REFUSED + 32;
        assert!(most <= before + bound, "{most} after {before}");
        let last = daemon.appended();
        daemon.has_appended(last + 1).await;
        assert!(daemon.is_confirmed("websocket").await > last, "it goes on delivering");
        // Their places are free again once the daemon has noticed.
        drop(flood);
        asked_until(&site, "\"running\":true");
        daemon.stop().await;
    });
}

#[test]
fn the_status_tells_the_directory_in_use() {
    run(async {
        let monitor = monitor(real_time()).await;
        let mut site = Site::websocket(&monitor);
        let mut daemon = site.start();
        daemon.has_appended(1).await;
        let elsewhere = site.path("elsewhere");
        site.set("data_dir", elsewhere.to_str().unwrap());
        daemon.reload(&site);
        daemon.says("changed, takes effect at the next start").await;
        // The reload is over when the next one is.
        daemon.reload(&site);
        daemon.says("configuration reloaded, nothing has changed").await;
        let lines = ask(&site, r#"{"v":1,"do":"status"}"#);
        assert_eq!(lines[0]["item"]["data_dir"], site.data_dir().to_str().unwrap());
        daemon.stop().await;
    });
}
