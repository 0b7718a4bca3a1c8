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
