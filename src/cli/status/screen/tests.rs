use super::*;
use crate::control::status::{Challenge, GapLine};
use crate::figures::Course;
use harborforge_storage::GapReason;

fn now() -> SystemTime {
    parse("2026-03-11T21:00:00Z").unwrap()
}

/// Something is wrong with everything.
fn worst() -> Status {
    let config = r#"{
        "running":true,"pid":4711,"version":"0.1.0","started_at":"2026-03-08T17:00:00Z",
        "identifier":"vps.t1","backend_url":"https://monitor.example/",
        "link":{"state":"refused","transport":null,"since":"2026-03-11T20:30:00Z",
            "last_error":"HTTP 401: challenge expired","last_error_at":"2026-03-11T20:59:00Z",
            "next_attempt_at":"2026-03-11T21:04:00Z","probing":true},
        "queue":{"pending":120,"in_memory":7,"dropped":2,"pending_bytes":61440,"disk_bytes":3145728,
            "oldest_at":"2026-03-11T20:00:00Z","oldest_age_seconds":3600,"next_seq":900,"sent":700,
            "rejected":3,"gaps":[],"quarantined":1},
        "last_success":{"at":"2026-03-11T20:00:00Z","transport":"websocket","seq":779,"payload":{}},
        "clock_skew_ms":-300000,
        "challenge":{"kind":"challenge","condition":"refused"},
        "data_dir":"/var/lib/harborforge-connector",
        "openclaw":{"version":"2026.3.13","agents":3},"figures":null}"#;
    let mut status: Status = serde_json::from_str(config).unwrap();
    status.course = Course {
        depth: (0..60).collect(),
        cpu_pct: (0..60).map(|n| (n != 55).then(|| f64::from(n))).collect(),
    };
    let gap = GapLine {
        from: 5,
        to: 9,
        reason: GapReason::QueueFull,
        maybe_delivered: false,
        at: String::new(),
        announced: true,
    };
    status.queue.as_mut().unwrap().gaps.push(gap);
    status
}

fn healthy() -> Status {
    let mut status = worst();
    let link = status.link.as_mut().unwrap();
    (link.state, link.transport, link.probing) =
        (LinkState::Online, Some("websocket".into()), false);
    let queue = status.queue.as_mut().unwrap();
    *queue = Queue { pending: 0, sent: 700, disk_bytes: 3_145_728, ..Queue::default() };
    status.clock_skew_ms = Some(120);
    status.challenge = Some(Challenge { kind: "challenge".into(), condition: Standing::Accepted });
    status
}

#[test]
fn a_healthy_screen_is_short_and_says_so_first() {
    let text = Screen { width: 80, colour: false, moves: true }.draw(&healthy(), now(), 24);
    assert_eq!(
        text,
        "harborforge-connector 0.1.0 on vps.t1, process 4711, up 3d 4h
to https://monitor.example/

DELIVERING   over the WebSocket since 2026-03-11T20:30:00Z (30m 0s)
waiting      nothing
last         sample 779 by WebSocket, 1h 0m ago
challenge    accepted
depth        ▁▁▁▂▂▂▂▂▂▂▃▃▃▃▃▃▃▃▄▄▄▄▄▄▄▅▅▅▅▅▅▅▆▆▆▆▆▆▆▆▇▇▇▇▇▇▇████████  most 59
cpu          ▁▁▁▁▁▁▁▁▂▂▂▂▂▂▂▂▂▂▂▂▂▃▃▃▃▃▃▃▃▃▃▃▃▄▄▄▄▄▄▄▄▄▄▄▄▄▅▅▅▅ ▅▅▅▅  59.0 %
kept         700 delivered; 3.0 MiB on disk
OpenClaw     2026.3.13, 3 agents
"
    );
}

#[test]
fn the_worst_fits_a_screen_and_says_the_gravest_first() {
    for width in [80, 60] {
        let screen = Screen { width, colour: false, moves: true };
        let text = screen.draw(&worst(), now(), 24);
        assert!(text.lines().count() < 24, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
        let (first, rest) = text.split_once("\n! ").unwrap();
        assert!(first.contains("REFUSED") && first.contains("next try     in 4m 0s"), "{text}");
        assert!(rest.starts_with("the Monitor refuses the proof"), "{text}");
    }
    let narrow = Screen { width: 40, colour: false, moves: true }.draw(&worst(), now(), 24);
    assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
    assert!(narrow.contains("and 7 more:") || narrow.contains(" more:"), "{narrow}");
    let coloured = Screen { width: 80, colour: true, moves: true }.draw(&worst(), now(), 24);
    assert!(coloured.contains("\u{1b}[1;31mREFUSED\u{1b}[0m  "), "{coloured}");
    let plain = Screen { width: 80, colour: false, moves: true }.draw(&worst(), now(), 24);
    assert!(!plain.contains('\u{1b}'));
}

#[test]
fn closed_homes_are_one_line_beside_what_is_known() {
    let screen = Screen { width: 80, colour: false, moves: true };
    let mut status = healthy();
    status.openclaw.closed_homes = 2;
    let text = screen.draw(&status, now(), 24);
    let closed = "no state directory seen; homes closed to the daemon: 2\n";
    assert!(text.contains(&format!("3 agents\n             {closed}")), "{text}");
    status.openclaw.version = None;
    let text = screen.draw(&status, now(), 24);
    assert!(text.contains(&format!("OpenClaw     {closed}")), "{text}");
    status.openclaw.troubles = vec!["openclaw_home is not there".to_owned()];
    let text = screen.draw(&status, now(), 24);
    assert!(!text.contains("closed"), "a trouble is graver: {text}");
    assert!(text.contains("OpenClaw     openclaw_home is not there\n"), "{text}");
}

#[test]
fn where_the_bridge_listens_or_why_not_is_one_line() {
    let mut status = healthy();
    let mut line = |bridge: Bridge| {
        status.bridge = Some(bridge);
        let text = Screen { width: 80, colour: false, moves: true }.draw(&status, now(), 24);
        text.lines().skip_while(|line| !line.starts_with("bridge")).collect::<Vec<_>>().join("\n")
    };
    let opening = Bridge {
        configured: "127.0.0.1:9100".to_owned(),
        listening: None,
        last_error: None,
        next_attempt_at: None,
    };
    assert_eq!(line(opening.clone()), "bridge       begins to listen on 127.0.0.1:9100");
    let address = Some("127.0.0.1:9100".to_owned());
    let listening = Bridge { listening: address, ..opening.clone() };
    assert_eq!(line(listening), "bridge       on 127.0.0.1:9100");
    let failing = Bridge {
        last_error: Some("Address already in use (os error 98)".to_owned()),
        next_attempt_at: Some("2026-03-11T21:00:08Z".to_owned()),
        ..opening
    };
    assert_eq!(
        line(failing),
        "bridge       not on 127.0.0.1:9100: Address already in use (os error 98), next\n\
         \x20            try in 8s"
    );
}

/// Six digits waiting, as after a day without a Monitor, leave less room for the bars.
#[test]
fn large_figures_do_not_make_lines_too_long() {
    let mut status = worst();
    status.course.depth = (0..60).map(|n| u64::MAX - n).collect();
    for width in [40, 80, 200] {
        let text = Screen { width, colour: false, moves: true }.draw(&status, now(), 60);
        assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
        assert!(text.contains("  most 18446744073709551615\n"), "{text}");
    }
}

/// What a Monitor or a configuration says must not steer the terminal.
#[test]
fn no_text_from_outside_moves_the_cursor() {
    let mut status = worst();
    status.identifier = "\u{1b}[2J".to_owned();
    status.link.as_mut().unwrap().last_error = Some("\u{1b}]0;x\u{7}".to_owned());
    let text = Screen { width: 80, colour: false, moves: true }.draw(&status, now(), 24);
    assert!(!text.contains(['\u{1b}', '\u{7}']), "{text:?}");
}

#[test]
fn every_fault_has_something_to_type() {
    let said: Vec<String> = advice(&worst()).into_iter().map(|advice| advice.text).collect();
    for part in [
        "timedatectl",
        "df /var/lib",
        "dump --summary",
        "dump --state rejected",
        "verify",
        "are lost",
    ] {
        assert!(said.iter().any(|text| text.contains(part)), "{part}: {said:?}");
    }
    assert_eq!(advice(&healthy()), []);
    let mut refused = worst();
    refused.clock_skew_ms = Some(0);
    assert!(advice(&refused)[0].text.contains("enroll"), "the challenge itself");
}

#[test]
fn frames_stand_in_the_same_place_unless_the_terminal_is_dumb() {
    let screen = Screen { width: 80, colour: false, moves: true };
    assert_eq!(screen.frame("a\nb\n", false, 24), "\u{1b}[Ha\u{1b}[K\nb\u{1b}[K\n\u{1b}[J");
    let dumb = Screen { moves: false, ..screen };
    assert_eq!(dumb.frame("a\n", true, 1), "a\n\n");
    // A line more would scroll the terminal at each drawing.
    let all = screen.draw(&worst(), now(), 8);
    for rows in [1, 2, 5, 8] {
        let frame = screen.frame(&all, false, rows);
        assert!(frame.matches('\n').count() <= rows.saturating_sub(1).max(1), "{rows}: {frame}");
    }
}
