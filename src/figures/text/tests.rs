use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::figures::{Process, Registry};

fn status() -> Status {
    let registry = Registry::default();
    let begun = Instant::now();
    registry.appended(1..=2, Duration::from_micros(300), begun);
    registry.confirmed(1, begun + Duration::from_secs(2));
    let read = registry.read();
    let json = r#"{"running":true,"pid":1,"version":"0.1.0","started_at":"2026-03-11T21:00:00Z",
        "identifier":"a\"b\\c","backend_url":null,
        "link":{"state":"fallback","transport":"http","since":"2026-03-11T21:00:00Z",
            "last_error":null,"last_error_at":null,"next_attempt_at":null,"probing":false},
        "queue":{"pending":1,"in_memory":0,"dropped":0,"pending_bytes":300,"disk_bytes":8192,
            "oldest_at":null,"oldest_age_seconds":12,"next_seq":3,"sent":1,"rejected":0,"gaps":[],
            "quarantined":0},
        "last_success":null,"clock_skew_ms":-1500,"openclaw":{"version":null,"agents":0},
        "figures":{"appended":2,"delivered_websocket":0,"delivered_http":1,"rejected":0,
            "given_up":0,"corrupt":0,"links":0,"failures":3,"refusals":1}}"#;
    let mut status: Status = serde_json::from_str(json).unwrap();
    let figures = status.figures.as_mut().unwrap();
    (figures.append, figures.confirm) = (read.append, read.confirm);
    status.process = Some(Process { rss_bytes: Some(1 << 20), open_fds: Some(9), threads: None });
    status
}

/// What scrapers see, whole; `status.prom` is changed by hand, with a note in docs/CHANGELOG.md.
#[test]
fn the_whole_text_is_the_one_on_record() {
    let text = prometheus(&status());
    assert_eq!(text, include_str!("status.prom"), "now:\n{text}");
}

/// What the format asks of every family: HELP and TYPE once, before its lines, which stand
/// together; counters end in `_total` and nothing else does; buckets grow and end with all.
#[test]
fn names_and_histograms_keep_to_the_conventions() {
    let text = prometheus(&status());
    let mut family: Option<(&str, &str)> = None;
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    let mut histograms = 0;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(words.ends_with('.') && !words.contains('\\') || name.starts_with("process_"));
            let kind = lines.next().unwrap().strip_prefix("# TYPE ").unwrap();
            let (of, kind) = kind.split_once(' ').unwrap();
            assert_eq!(of, name);
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
            let plain = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.chars().all(plain) && !name.contains("milli"), "{name}");
            family = Some((name, kind));
            continue;
        }
        let (name, kind) = family.unwrap();
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        let own = series.split('{').next().unwrap();
        if kind != "histogram" {
            assert_eq!(own, name, "{line}");
        } else if own == format!("{name}_bucket") {
            let bound = series.split_once("le=\"").unwrap().1.trim_end_matches("\"}");
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
            let grows = buckets.last().is_none_or(|&(le, count)| le < bound && count <= value);
            assert!(grows, "{line}");
            buckets.push((bound, value));
        } else if own == format!("{name}_count") {
            assert_eq!(std::mem::take(&mut buckets).last(), Some(&(f64::INFINITY, value)));
            histograms += 1;
        } else {
            assert_eq!(own, format!("{name}_sum"), "{line}");
        }
    }
    assert_eq!(histograms, 2);
}

#[test]
fn the_text_is_as_it_is() {
    let text = prometheus(&status());
    for lines in [
        "# HELP harborforge_connector_samples_appended_total Samples made durable.\n\
         # TYPE harborforge_connector_samples_appended_total counter\n\
         harborforge_connector_samples_appended_total 2\n",
        "harborforge_connector_info{version=\"0.1.0\",identifier=\"a\\\"b\\\\c\"} 1\n",
        "harborforge_connector_samples_delivered_total{transport=\"websocket\"} 0\n\
         harborforge_connector_samples_delivered_total{transport=\"http\"} 1\n",
        "harborforge_connector_link_state{state=\"online\"} 0\n\
         harborforge_connector_link_state{state=\"fallback\"} 1\n",
        "# TYPE harborforge_connector_append_duration_seconds histogram\n\
         harborforge_connector_append_duration_seconds_bucket{le=\"0.00025\"} 0\n\
         harborforge_connector_append_duration_seconds_bucket{le=\"0.001\"} 1\n",
        "harborforge_connector_append_duration_seconds_bucket{le=\"+Inf\"} 1\n\
         harborforge_connector_append_duration_seconds_sum 0.0003\n\
         harborforge_connector_append_duration_seconds_count 1\n",
        "harborforge_connector_confirm_duration_seconds_sum 2\n",
        "harborforge_connector_clock_skew_seconds -1.5\n",
        "harborforge_connector_queue_oldest_age_seconds 12\n",
        "# TYPE process_open_fds gauge\nprocess_open_fds 9\n",
    ] {
        assert!(text.contains(lines), "{lines}\nis not in\n{text}");
    }
    assert!(!text.contains("process_threads") && !text.contains("last_success"), "not known");
    let mut names: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "each once");
}

#[test]
fn promtool_finds_nothing_to_complain_of() {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = promtool else {
        #[allow(clippy::print_stderr, reason = "a test that is left out says so")]
        {
            eprintln!("SKIPPED: there is no promtool (Debian: prometheus) here");
        }
        return;
    };
    child.stdin.take().unwrap().write_all(prometheus(&status()).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}
