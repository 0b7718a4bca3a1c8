//! What the real daemon tells a service manager, which is a socket of the test's here.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(dead_code, reason = "the support module serves several tests")]

mod support;

use std::os::unix::net::UnixDatagram;

use rustix::process::Signal;
use support::{Daemon, PATIENCE, Site, monitor, plain, run};

/// The service manager's end.
struct Manager(UnixDatagram);

impl Manager {
    fn new(site: &Site) -> Self {
        let socket = UnixDatagram::bind(site.path("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// The next message.
    fn hears(&self) -> Vec<String> {
        let mut bytes = [0; 4096];
        let length = self.0.recv(&mut bytes).expect("nothing more is told");
        let text = std::str::from_utf8(&bytes[..length]).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// The next message that has this line.
    fn hears_line(&self, line: &str) -> Vec<String> {
        loop {
            let message = self.hears();
            if message.iter().any(|have| have == line) {
                return message;
            }
        }
    }
}

#[test]
fn the_service_manager_is_told_of_start_life_reload_and_stop() {
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        let manager = Manager::new(&site);
        let socket = site.path("notify");
        let variables = [("NOTIFY_SOCKET", socket.to_str().unwrap()), ("WATCHDOG_USEC", "400000")];
        let daemon = Daemon::start_in(&site, &variables);
        let mut status = None;
        loop {
            let message = manager.hears();
            for line in &message {
                status = line.strip_prefix("STATUS=").map(str::to_owned).or(status);
            }
            if message.iter().any(|line| line == "READY=1") {
                break;
            }
        }
        let status = status.expect("the first message tells how it stands");
        assert!(status.starts_with("Connecting, ") || status.starts_with("Delivering"), "{status}");
        assert!(site.data_dir().join("queue/FORMAT").exists(), "ready before the queue was open");
        for _ in 0..3 {
            manager.hears_line("WATCHDOG=1");
        }
        daemon.signal(Signal::HUP);
        let reloading = manager.hears_line("RELOADING=1");
        assert!(reloading.iter().any(|line| line.starts_with("MONOTONIC_USEC=")), "{reloading:?}");
        manager.hears_line("READY=1");
        manager.hears_line("WATCHDOG=1");
        let stop = std::thread::spawn(move || run(daemon.stop()));
        manager.hears_line("STOPPING=1");
        stop.join().unwrap();
    });
}

/// A service manager that has gone away costs a line in the log and nothing else.
#[test]
fn one_that_does_not_listen_holds_nothing_up() {
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        let nowhere = site.path("nowhere");
        let variables = [("NOTIFY_SOCKET", nowhere.to_str().unwrap()), ("WATCHDOG_USEC", "400000")];
        let mut daemon = Daemon::start_in(&site, &variables);
        let told = "the service manager cannot be told anything (NOTIFY_SOCKET)";
        daemon.says(told).await;
        daemon.has_appended(2).await;
        daemon.is_confirmed("http").await;
        assert_eq!(daemon.count(told), 1);
        daemon.stop().await;
    });
}
