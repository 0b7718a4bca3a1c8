//! `check`: its lines, on a Monitor and on what may stand in its place.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use harborforge_monitor::{Fault, Monitor, Options, Tls};

use support::{Site, Tunnel, monitor, outcome, plain, real_time, run};

/// The lines that begin with one of these names, the Monitor's address as `ADDRESS`, and the exit
/// code.
fn lines(site: &Site, monitor: &Monitor, names: &[&str]) -> (Vec<String>, i32) {
    let (code, stdout, stderr) = outcome(&mut site.command("check"));
    assert_eq!(stderr, "");
    let mut lines = Vec::new();
    for line in stdout.lines() {
        let (name, _) = line[5..].split_once(": ").unwrap();
        if names.contains(&name) {
            let line = line.replace(&monitor.addr().to_string(), "ADDRESS");
            lines.push(line.replace(&monitor.fingerprint(), "FINGERPRINT"));
        }
    }
    (lines, code)
}

const NETWORK: &[&str] = &[
    "dns",
    "tcp",
    "tunnel",
    "tls",
    "monitor",
    "key document",
    "key",
    "clock skew",
    "capabilities",
    "proof",
    "network",
];

const GOOD: &str = "CN=harborforge-monitor, issued by CN=harborforge-monitor test CA, valid from \
                    1975-01-01T00:00:00Z to 4096-01-01T00:00:00Z";

#[test]
fn all_is_well_and_the_challenge_is_still_good() {
    run(async {
        let monitor = monitor(Options { tls: Tls::Good, ..real_time() }).await;
        let mut site = Site::real_time(&monitor);
        let (found, code) = lines(&site, &monitor, NETWORK);
        assert_eq!(
            found,
            [
                "ok   tcp: ADDRESS takes connections",
                &format!("ok   tls: version 1.3 (certificate of {GOOD})"),
                "ok   key document: comes, and is in order",
                "ok   key: RSA, 2048 bits, SHA-256 FINGERPRINT; to accept no other, set public_key_sha256",
                "ok   clock skew: this clock agrees with the Monitor's",
                "ok   capabilities: ack, resume",
                "ok   proof: the identifier takes 6 of the 56 bytes there are for it",
            ]
        );
        assert_eq!(code, 0);
        let counts = monitor.counts();
        assert_eq!((counts.requests, counts.key_fetches), (1, 1), "{counts:?}");
        // The daemon goes the same way with the challenge that is still unused.
        site.set("public_key_sha256", &monitor.fingerprint());
        let mut daemon = site.start();
        daemon.is_confirmed("websocket").await;
        let (found, code) = lines(&site, &monitor, &["daemon", "control_socket", "key"]);
        let (pid, socket) = (daemon.pid(), site.path("control.sock"));
        assert_eq!(
            found,
            [
                &format!("ok   daemon: runs as process {pid}"),
                &format!("ok   control_socket: {}, the daemon answers", socket.display()),
                "ok   key: RSA, 2048 bits, SHA-256 FINGERPRINT, the pinned one",
            ]
        );
        assert_eq!(code, 0);
        daemon.stop().await;
        let (found, _) = lines(&site, &monitor, &["network"]);
        assert_eq!(found, [""; 0]);
        let (code, stdout, _) = outcome(site.command("check").arg("--offline"));
        assert_eq!(code, 0);
        assert!(stdout.ends_with("ok   network: skipped: --offline\n"), "{stdout}");
    });
}

#[test]
fn faults_of_a_certificate_name_it_and_what_to_do() {
    run(async {
        for (tls, says) in [
            (
                Tls::Expired,
                "the certificate has expired (2021-01-01T00:00:00Z): renew it, or check this \
                 machine's clock (certificate of CN=harborforge-monitor, issued by \
                 CN=harborforge-monitor test CA, valid from 2020-01-01T00:00:00Z to \
                 2021-01-01T00:00:00Z)"
                    .to_owned(),
            ),
            (
                Tls::NotYetValid,
                "the certificate is not valid yet (4000-01-01T00:00:00Z): check this machine's \
                 clock (certificate of CN=harborforge-monitor, issued by CN=harborforge-monitor \
                 test CA, valid from 4000-01-01T00:00:00Z to 4096-01-01T00:00:00Z)"
                    .to_owned(),
            ),
            (
                Tls::WrongHost,
                format!(
                    "the certificate is for other names (elsewhere.example) (certificate of {GOOD})"
                ),
            ),
            (
                Tls::UnknownCa,
                format!(
                    "the certificate is not issued by an authority this machine trusts: if it \
                     comes from your own CA, name its certificate in ca_file (certificate of {})",
                    GOOD.replace("harborforge-monitor test CA", "some other CA")
                ),
            ),
            (
                Tls::SelfSigned,
                format!(
                    "the certificate is self-signed and nobody this machine trusts vouches for \
                     it: if it is your own, name it in ca_file (certificate of {})",
                    GOOD.replace("harborforge-monitor test CA", "harborforge-monitor")
                ),
            ),
        ] {
            let monitor = monitor(Options { tls, ..plain() }).await;
            let site = Site::new(&monitor);
            let (found, code) = lines(&site, &monitor, NETWORK);
            let said = format!("FAIL tls: TLS with 127.0.0.1: {says}");
            assert_eq!(found, ["ok   tcp: ADDRESS takes connections", &said]);
            assert_eq!(code, 5);
        }
        // https where http is spoken.
        let monitor = monitor(plain()).await;
        let mut site = Site::new(&monitor);
        site.set("backend_url", &monitor.url().replace("http:", "https:"));
        let (found, code) = lines(&site, &monitor, &["tls"]);
        assert!(found[0].contains("does not speak TLS"), "{found:?}");
        assert_eq!(code, 5);
    });
}

#[test]
fn what_stands_in_the_monitors_place_is_told_apart() {
    run(async {
        let monitor = monitor(plain()).await;
        let mut site = Site::new(&monitor);
        let elsewhere = "https://elsewhere.example/".to_owned();
        let status = |status| Fault::Status { status, headers: Vec::new(), body: "no".to_owned() };
        for (fault, name, part, exit) in [
            (
                Fault::Redirect { location: elsewhere },
                "key document",
                "redirected to https://elsewhere.example/",
                5,
            ),
            (Fault::Portal, "key document", "a web page came instead", 5),
            (status(403), "key document", "HTTP 403: no; the key is public", 6),
            (status(500), "key document", "HTTP 500: no; the Monitor", 5),
            (Fault::Garbage, "monitor", "not proper HTTP", 5),
            (Fault::Disconnect, "monitor", "closed the connection", 5),
            (Fault::HugeHead { bytes: 1 << 20 }, "monitor", "too large", 5),
        ] {
            monitor.misbehave(fault.clone());
            let (found, code) = lines(&site, &monitor, NETWORK);
            monitor.heal();
            let last = found.last().unwrap();
            assert!(last.starts_with(&format!("FAIL {name}: ")), "{fault:?}: {found:?}");
            assert!(last.contains(part), "{fault:?}: {found:?}");
            assert_eq!((found.len(), code), (2, exit), "{fault:?}: {found:?}");
        }
        monitor.misbehave(Fault::DateSkew { seconds: -90 });
        let (found, code) = lines(&site, &monitor, &["clock skew"]);
        assert!(found[0].starts_with("warn clock skew: this clock is 9"), "{found:?}");
        assert!(found[0].contains(" s ahead of the Monitor's"), "{found:?}");
        assert_eq!(code, 0, "a warning is no failure");
        monitor.heal();

        site.set("public_key_sha256", &"0".repeat(64));
        let (found, code) = lines(&site, &monitor, &["key", "proof"]);
        let zeros = "0".repeat(64);
        let said = format!(
            "FAIL key: the Monitor's is FINGERPRINT, public_key_sha256 allows only {zeros}: ask \
             who runs the Monitor which one is right"
        );
        assert_eq!((found, code), (vec![said], 6));
        site.unset("public_key_sha256").set("identifier", &"x".repeat(57));
        let (found, code) = lines(&site, &monitor, &["proof"]);
        assert!(found[0].starts_with("FAIL proof: identifier takes 57 bytes"), "{found:?}");
        assert_eq!(code, 3);

        site.set("identifier", "vps.t1");
        monitor.pause().await;
        let (found, code) = lines(&site, &monitor, NETWORK);
        let said = "FAIL tcp: ADDRESS refuses connections: nothing listens there; is the port \
                    right, and does the Monitor run?";
        assert_eq!((found, code), (vec![said.to_owned()], 5));
        assert!(monitor.counts().refused.is_empty());
    });
}

#[test]
fn a_name_and_a_data_directory_that_cannot_be() {
    run(async {
        let monitor = monitor(plain()).await;
        let mut site = Site::new(&monitor);
        // No label may be so long: no resolver is asked for it.
        let name = "x".repeat(70);
        site.set("backend_url", &format!("http://{name}/"))
            .set("allow_insecure", "true")
            .set("public_key_sha256", &"0".repeat(64));
        let (found, code) = lines(&site, &monitor, NETWORK);
        let said = format!("FAIL dns: cannot resolve the name {name}: check the name");
        assert!(found[0].starts_with(&said), "{found:?}");
        assert_eq!((found.len(), code), (1, 5));
        let file = site.write("file", "in the way");
        site.set("data_dir", file.to_str().unwrap());
        let (found, code) = lines(&site, &monitor, &["data_dir"]);
        assert!(found[0].ends_with("is no directory; name another one in data_dir"), "{found:?}");
        assert_eq!(code, 4, "the first failure counts");
    });
}

#[test]
fn a_proxy_is_a_step_of_its_own() {
    run(async {
        let monitor = monitor(Options { tls: Tls::Good, ..plain() }).await;
        let mut site = Site::new(&monitor);
        let tunnel = Tunnel::to(monitor.addr()).await;
        let proxy = tunnel.address().to_string();
        site.set("proxy", &format!("http://{proxy}"));
        let (found, code) = lines(&site, &monitor, &["tcp", "tunnel", "key document"]);
        assert_eq!(
            found,
            [
                &format!("ok   tcp: {proxy} takes connections"),
                &format!("ok   tunnel: the proxy {proxy} opens one to ADDRESS"),
                "ok   key document: comes, and is in order",
            ]
        );
        assert_eq!(code, 0);
        for (answer, says) in [
            (
                "407 Proxy Authentication Required",
                "it answered 407: it wants a user and a password",
            ),
            ("403 Forbidden", "it answered 403"),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let proxy = listener.local_addr().unwrap().to_string();
            let served = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                    head.push(byte[0]);
                }
                stream
                    .write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes())
            });
            site.set("proxy", &format!("http://{proxy}"));
            let (found, code) = lines(&site, &monitor, &["tunnel", "tls"]);
            served.join().unwrap().unwrap();
            let said =
                format!("FAIL tunnel: the proxy {proxy} did not open a tunnel to ADDRESS: {says}");
            assert!(found[0].starts_with(&said), "{found:?}");
            assert_eq!((found.len(), code), (1, 5));
        }
    });
}

#[test]
fn the_screens_of_the_documentation_are_real_ones() {
    run(async {
        let monitor = monitor(Options { tls: Tls::Good, ..real_time() }).await;
        let mut site = Site::real_time(&monitor);
        let mut daemon = site.start();
        daemon.is_confirmed("websocket").await;
        let screen = |site: &Site| {
            let (code, stdout, _) = outcome(&mut site.command("check"));
            let pid = daemon.pid().to_string();
            let port = monitor.addr().port();
            let inside = |name: &str| site.path(name).to_str().unwrap().to_owned();
            let stdout = stdout
                .replace(&inside("config.toml"), "/etc/harborforge-connector/config.toml")
                .replace(&inside("ca.pem"), "/etc/harborforge-connector/ca.pem")
                .replace(&inside("control.sock"), "/run/harborforge-connector/control.sock")
                .replace(&inside("data"), "/var/lib/harborforge-connector")
                .replace(
                    &monitor.fingerprint(),
                    "63681e6009e756d85b9320f5d2ef22286217974e14f5357375cb0cb4dc5637d4",
                )
                .replace(&format!("127.0.0.1:{port}/"), "monitor.example/")
                .replace(&format!("127.0.0.1:{port}"), "192.0.2.10:443")
                .replace("with 127.0.0.1:", "with monitor.example:")
                .replace(&format!("process {pid}"), "process 4711")
                .replace(&format!("uid {}", rustix::process::geteuid()), "uid 997");
            (code, without_figures(&stdout))
        };
        assert_eq!(screen(&site), (0, without_figures(&documented("check"))));
        // A certificate of somebody else's, as a company's proxy presents it.
        let other = support::monitor(Options { tls: Tls::UnknownCa, ..plain() }).await;
        site.set("backend_url", &other.url());
        let (code, stdout, _) = outcome(&mut site.command("check"));
        let said = stdout.lines().last().unwrap().replace("127.0.0.1", "monitor.example");
        assert_eq!((code, format!("{said}\n")), (5, documented("check, TLS")));
        daemon.stop().await;
    });
}

/// The block of docs/OPERATIONS.md behind the mark of this name.
fn documented(name: &str) -> String {
    let text = include_str!("../docs/OPERATIONS.md");
    let mark = format!("<!-- screen: {name} -->\n```text\n");
    let (_, block) = text.split_once(&mark).unwrap_or_else(|| panic!("{mark} is not there"));
    let (block, _) = block.split_once("```").unwrap();
    // The first line is what is typed.
    block.lines().skip(1).map(|line| format!("{line}\n")).collect()
}

/// A screen without what differs from run to run: the time, and how much disk there is.
fn without_figures(screen: &str) -> String {
    let mut out = String::new();
    for line in screen.lines() {
        let clock = line.starts_with("ok   clock: ");
        // Each host has an OpenClaw of its own, or none.
        let line = if line.starts_with("ok   openclaw: ") {
            "ok   openclaw: none on this host"
        } else {
            line
        };
        let (line, differs) = match line.split_once(" MiB; ") {
            // A test's machine may be short of disk: that line goes on with what to do.
            Some((figures, _)) => (format!("{figures} MiB").replacen("warn", "ok  ", 1), true),
            None => (line.to_owned(), clock || line.ends_with(" MiB")),
        };
        let digit = |c: char| if c.is_ascii_digit() { '#' } else { c };
        let line = if differs { line.chars().map(digit).collect() } else { line };
        // As many digits as it takes.
        let mut before = ' ';
        out.extend(line.chars().filter(|c| std::mem::replace(&mut before, *c) != '#' || *c != '#'));
        out.push('\n');
    }
    out
}
