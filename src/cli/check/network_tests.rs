//! What the lines say, on answers of the tests' own; tests/check.rs has the real ones.

use crate::transport::{Answer, Target};

use super::super::monitor::skew_line;
use super::*;
use crate::config::{DiskFiles, Flags, Need, Sources, load};

fn shown(lines: &[Line]) -> Vec<String> {
    lines.iter().map(ToString::to_string).collect()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn tried(address: &str, kind: io::ErrorKind) -> Tried {
    Tried { address: at(address), error: kind.into() }
}

#[test]
fn each_address_has_its_own_fault() {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    let closed = [
        tried("192.0.2.1:443", ConnectionRefused),
        tried("192.0.2.2:443", TimedOut),
        tried("[2001:db8::1]:443", NetworkUnreachable),
        tried("192.0.2.3:443", HostUnreachable),
    ];
    assert_eq!(
        shown(&tcp(&[], &closed, false)),
        [
            "FAIL tcp: 192.0.2.1:443 refuses connections: nothing listens there; is the port \
             right, and does the Monitor run?",
            "FAIL tcp: 192.0.2.2:443 does not answer: the host is down, or a firewall on the way \
             drops packets",
            "FAIL tcp: no route to the network of [2001:db8::1]:443: look at this machine's \
             addresses and routes (ip addr, ip route)",
            "FAIL tcp: 192.0.2.3:443 is unreachable: look at this machine's addresses and routes \
             (ip addr, ip route)",
        ]
    );
    assert_eq!(
        shown(&tcp(&[at("192.0.2.9:443")], &closed[1..3], false)),
        [
            "ok   tcp: 192.0.2.9:443 takes connections",
            "warn tcp: 192.0.2.2:443 does not answer, so tries may lose time on it: the host is \
             down, or a firewall on the way drops packets",
            "ok   tcp: no route to the network of [2001:db8::1]:443, which does no harm",
        ]
    );
}

#[test]
fn a_dead_proxy_is_not_the_monitors_fault() {
    use io::ErrorKind::{ConnectionRefused, TimedOut};
    let closed = [tried("192.0.2.1:3128", ConnectionRefused), tried("192.0.2.2:3128", TimedOut)];
    for line in shown(&tcp(&[], &closed, true)) {
        assert!(!line.contains("Monitor"), "{line}");
        assert!(line.ends_with(" (`proxy`, HTTPS_PROXY or HTTP_PROXY names it)"), "{line}");
    }
    let error = TransportError::Dns { host: "proxy.example".to_owned(), source: "no".into() };
    let target = Target { host: Host::Domain("proxy.example".to_owned()), port: 3128 };
    let said = unresolved(Some(&Proxy::new(target, None)), &error);
    assert!(said.starts_with("the proxy proxy.example:3128 (`proxy`, HTTPS_PROXY"), "{said}");
    assert!(unresolved(None, &error).starts_with("cannot resolve the name proxy.example"));
}

fn config(key: &str, secret: &str) -> Config {
    config_at("https://monitor.example", key, secret)
}

fn config_at(url: &str, key: &str, secret: &str) -> Config {
    let env = [
        ("HARBORFORGE_CONFIG", "/dev/null"),
        ("HARBORFORGE_BACKEND_URL", url),
        ("HARBORFORGE_IDENTIFIER", "vps.t1"),
        (key, secret),
        ("HOME", "/nonexistent"),
    ];
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    let sources =
        Sources { flags: Flags::default(), env, host_name: None, uid: 1, files: &DiskFiles };
    (*load(&sources, Need::Backend).unwrap().config).clone()
}

/// What is said of an answer, and the exit code.
fn says(config: &Config, status: u16, body: &str, location: Option<&str>) -> (Vec<String>, Exit) {
    let answer = Answer {
        status,
        body: body.as_bytes().to_vec(),
        retry_after: None,
        date: None,
        location: location.map(str::to_owned),
        resent: false,
    };
    let mut report = Report { lines: Vec::new(), step: "monitor" };
    judge(config, None, &answer, SystemTime::UNIX_EPOCH, &mut report);
    let exit = super::super::failure(&report.lines).unwrap_or(Exit::Done);
    (shown(&report.lines), exit)
}

#[test]
fn what_comes_instead_of_the_key_is_named() {
    let config = config("HARBORFORGE_CHALLENGE_UUID", "8f14e45f-ceea-467f-9575-1d2f3a4b5c6d");
    for (status, body, location, part, exit) in [
        (
            307,
            "",
            Some("https://new.example/\u{1b}"),
            "redirected to https://new.example/\\u{1b}; a redirect is not followed",
            Exit::Unreachable,
        ),
        (200, "<!DOCTYPE html><p>Sign in", None, "a web page came instead", Exit::Unreachable),
        (
            404,
            "<html>no",
            None,
            "HTTP 404 with a web page; is backend_url right",
            Exit::Unreachable,
        ),
        (502, "bad gateway\n", None, "HTTP 502: bad gateway; the Monitor", Exit::Unreachable),
        (403, "", None, "HTTP 403; the key is public, so something before", Exit::Refused),
        (200, "{}", None, "has no key", Exit::Unreachable),
        (
            200,
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
            None,
            "PRIVATE key",
            Exit::Refused,
        ),
        (
            200,
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
            None,
            "well-formed",
            Exit::Refused,
        ),
    ] {
        let (lines, code) = says(&config, status, body, location);
        assert_eq!((lines.len(), code), (1, exit), "{lines:?}");
        assert!(
            lines[0].starts_with("FAIL key document: ") && lines[0].contains(part),
            "{lines:?}"
        );
    }
}

#[test]
fn with_an_api_key_any_answer_of_the_monitor_will_do() {
    let config = config("HARBORFORGE_API_KEY", "geheim");
    let (lines, code) = says(&config, 404, "", None);
    assert_eq!(code, Exit::Done);
    assert_eq!(
        lines,
        [
            "ok   monitor: answers (HTTP 404); the API key itself can only be tried with the first heartbeat",
            "ok   clock skew: skipped: the answer does not tell the Monitor's time",
        ]
    );
    for (status, location) in [(302, Some("https://elsewhere.example/")), (500, None)] {
        let (lines, code) = says(&config, status, "", location);
        assert_eq!((lines.len(), code), (1, Exit::Unreachable), "{lines:?}");
    }
}

#[test]
fn a_clock_that_is_off_is_told_by_how_much_and_which_way() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let line = |date| {
        let answer = Answer {
            status: 200,
            body: Vec::new(),
            retry_after: None,
            date,
            location: None,
            resent: false,
        };
        skew_line(&answer, now).to_string()
    };
    assert_eq!(
        line(Some(now + Duration::from_secs(3))),
        "ok   clock skew: this clock agrees with the Monitor's"
    );
    assert!(
        line(Some(now + Duration::from_secs(61)))
            .starts_with("warn clock skew: this clock is 61 s behind the Monitor's")
    );
    assert!(line(Some(now - Duration::from_secs(61))).contains("is 61 s ahead of the Monitor's"));
}

#[test]
fn all_of_it_ends_in_time() {
    // Takes connections and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let uuid = "8f14e45f-ceea-467f-9575-1d2f3a4b5c6d";
    let config = config_at(&url, "HARBORFORGE_CHALLENGE_UUID", uuid);
    let mut report = Report { lines: Vec::new(), step: "network" };
    runtime::block_on(within(Duration::from_millis(200), &config, None, &mut report));
    let lines = shown(&report.lines);
    assert_eq!(super::super::failure(&report.lines), Some(Exit::Unreachable));
    assert!(lines.last().unwrap().starts_with("FAIL monitor: no end after 0.2 s"), "{lines:?}");
}
