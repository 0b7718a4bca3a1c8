//! `demo`: the whole thing on one machine, with nothing to configure.
//!
//! A Monitor inside this process, the real daemon as a child process on a temporary directory;
//! then the Monitor goes away, the daemon is killed with SIGKILL and started again, the Monitor
//! comes back, and in the end the Monitor's books are compared with the queue's.
//!
//! Invariants: success means that every number the queue ever gave out was accepted by the
//! Monitor, and nothing else; nothing is left behind, neither a process nor a file, however the
//! demo ends.

mod child;
mod screen;

use std::io;
use std::path::Path;
use std::time::Duration;

use futures_util::future::FutureExt as _;
use futures_util::select_biased;
use harborforge_monitor::{Capability, Fault, Monitor, Options, Route, Transport};
use harborforge_storage::Queue;

use self::child::Child;
use self::screen::{Screen, Verdict};
use super::args::DemoArgs;
use super::{CliError, Context, Exit};
use crate::collector::clock;
use crate::runtime::{self, Clock, channel};
use crate::signals::{self, Signal};
use crate::store;

/// What happens when, in seconds since the start.
const SCRIPT: [(u64, Scene); 7] = [
    (4, Scene::WebsocketRefused),
    (9, Scene::WebsocketBack),
    (13, Scene::MonitorDown),
    (18, Scene::DaemonKilled),
    (20, Scene::DaemonBack),
    (25, Scene::MonitorBack),
    (30, Scene::Curtain),
];

/// How long the end waits for the queue to run empty.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    WebsocketRefused,
    WebsocketBack,
    MonitorDown,
    DaemonKilled,
    DaemonBack,
    MonitorBack,
    Curtain,
}

impl Scene {
    fn title(self) -> &'static str {
        match self {
            Self::WebsocketRefused => {
                "the WebSocket breaks and is not let in again: heartbeats take over"
            }
            Self::WebsocketBack => "the WebSocket is let in again: heartbeats end",
            Self::MonitorDown => "the Monitor goes down: samples wait in the queue on disk",
            Self::DaemonKilled => "kill -9: the daemon dies in the middle of the outage",
            Self::DaemonBack => "the daemon starts again and finds its queue",
            Self::MonitorBack => "the Monitor comes back: the backlog goes out, oldest first",
            Self::Curtain => "sampling ends (a reload), and the books are compared",
        }
    }
}

/// Why the demo did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A file, a process or a signal handler was refused.
    #[error("the demo cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The embedded Monitor does not work.
    #[error("the embedded Monitor does not work")]
    Monitor(#[from] harborforge_monitor::Error),
    /// The daemon ended by itself.
    #[error("the daemon ended by itself ({status}); its last words:\n{words}")]
    Ended {
        /// How.
        status: String,
        /// Its last log lines.
        words: String,
    },
    /// The queue cannot be read afterwards.
    #[error("the demo's queue cannot be read afterwards")]
    Queue(#[from] harborforge_storage::Error),
    /// The books do not agree.
    #[error(
        "not every sample was accepted exactly once in effect: this is a fault, please report it with the table above"
    )]
    Lost,
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> DemoError {
    move |source| DemoError::System { what, source }
}

/// Plays the demo and prints it to `out`.
///
/// # Errors
/// See [`DemoError`].
pub fn play(out: &mut dyn io::Write) -> Result<(), DemoError> {
    runtime::start();
    runtime::block_on(async {
        let signals = signals::listen().map_err(system("listen for signals"))?;
        let dir = tempfile::Builder::new()
            .prefix("harborforge-demo-")
            .tempdir()
            .map_err(system("make a temporary directory"))?;
        let options = Options {
            capabilities: [Capability::Ack, Capability::Resume].into(),
            ..Options::default()
        };
        let monitor = Monitor::start(options).await?;
        let mut screen = Screen::new(out);
        let stage = Stage {
            dir: dir.path(),
            monitor,
            signals,
            clock: Clock::start(),
            monitor_up: true,
            next_second: 0,
        };
        stage.play(&mut screen).await
    })
}

struct Stage<'a> {
    dir: &'a Path,
    monitor: Monitor,
    signals: channel::Receiver<Signal>,
    clock: Clock,
    monitor_up: bool,
    next_second: u64,
}

impl Stage<'_> {
    async fn play(mut self, screen: &mut Screen<'_>) -> Result<(), DemoError> {
        let data_dir = self.dir.join("data");
        let config = self.write_config("1s")?;
        screen.opening(&self.monitor.url(), self.dir);
        let mut child = Child::start(&config)?;
        for (second, scene) in SCRIPT {
            self.watch_until(second, &mut child, screen).await?;
            screen.scene(scene.title());
            match scene {
                Scene::WebsocketRefused => {
                    self.monitor.misbehave(Fault::status(500).at(Route::WebSocket));
                    // Ends the link there is.
                    self.monitor.pause().await;
                    self.monitor.resume().await?;
                }
                Scene::WebsocketBack => self.monitor.heal(),
                Scene::MonitorDown => {
                    self.monitor.pause().await;
                    self.monitor_up = false;
                }
                Scene::DaemonKilled => child.kill()?,
                Scene::DaemonBack => child = child.start_again(&config)?,
                Scene::MonitorBack => {
                    self.monitor.resume().await?;
                    self.monitor_up = true;
                }
                Scene::Curtain => {
                    self.write_config("1h")?;
                    child.reload()?;
                }
            }
        }
        self.drain(&mut child, screen).await?;
        child.stop(PATIENCE).await?;
        self.compare(&data_dir, screen)
    }

    /// Shows each second until `second`.
    async fn watch_until(
        &mut self,
        second: u64,
        child: &mut Child,
        screen: &mut Screen<'_>,
    ) -> Result<(), DemoError> {
        while self.next_second < second {
            let at = Duration::from_secs(self.next_second + 1);
            self.rest(at.saturating_sub(self.clock.mono())).await?;
            self.next_second += 1;
            child.check()?;
            screen.second(
                self.next_second,
                self.monitor_up,
                child.runs(),
                child.appended(),
                self.monitor.counts().unique,
                self.way(),
            );
        }
        Ok(())
    }

    /// The way by which the newest sample came; empty while nothing can.
    fn way(&self) -> &'static str {
        let newest = self.monitor.journal(|books| books.newest().map(|sample| sample.transport));
        match newest.filter(|_| self.monitor_up) {
            Some(Transport::WebSocket) => "WebSocket",
            Some(Transport::Heartbeat | Transport::Batch) => "heartbeat",
            None => "",
        }
    }

    async fn rest(&self, duration: Duration) -> Result<(), DemoError> {
        let mut rest = Box::pin(runtime::sleep(duration).fuse());
        loop {
            select_biased! {
                signal = self.signals.recv().fuse() => match signal {
                    Ok(Signal::Stop) | Err(_) => return Err(DemoError::Interrupted),
                    Ok(Signal::Reload | Signal::TryNow) => {}
                },
                () = rest => return Ok(()),
            }
        }
    }

    /// Goes on until the Monitor has everything, or patience ends.
    async fn drain(&mut self, child: &mut Child, screen: &mut Screen<'_>) -> Result<(), DemoError> {
        // One second more for a sample that was being taken when the reload came.
        let earliest = self.next_second + 2;
        let latest = earliest + PATIENCE.as_secs();
        while self.next_second < latest {
            self.watch_until(self.next_second + 1, child, screen).await?;
            let drained = self.monitor.counts().unique >= child.appended();
            if drained && self.next_second >= earliest {
                return Ok(());
            }
        }
        Ok(())
    }

    fn compare(&self, data_dir: &Path, screen: &mut Screen<'_>) -> Result<(), DemoError> {
        let clock = store::stamp(clock::Clock::new().stamp());
        let (queue, _) = Queue::open(data_dir, harborforge_storage::Options::default(), clock)?;
        let stats = queue.stats();
        let sampled = stats.next_seq - 1;
        let counts = self.monitor.counts();
        let missing =
            self.monitor.journal(|books| (1..=sampled).filter(|seq| !books.has_seq(*seq)).count());
        let verdict = Verdict {
            sampled,
            delivered: counts.unique,
            duplicates: counts.duplicates,
            gaps: queue.gaps().len() as u64,
            lost: missing as u64,
        };
        queue.close()?;
        screen.verdict(&verdict);
        if verdict.holds() { Ok(()) } else { Err(DemoError::Lost) }
    }

    fn write_config(&self, interval: &str) -> Result<std::path::PathBuf, DemoError> {
        let path = self.dir.join("config.toml");
        let challenge = match interval {
            // The same challenge for the whole of the demo: it is bound by its first proof.
            "1s" => self.monitor.issue_challenge(),
            _ => child::challenge_in(&path)?,
        };
        let text = format!(
            "backend_url = {url:?}\n\
             identifier = \"demo\"\n\
             challenge_uuid = {challenge:?}\n\
             report_interval = {interval:?}\n\
             http_fallback_interval = \"1s\"\n\
             backoff_cap = \"2s\"\n\
             data_dir = {data:?}\n\
             control_socket = {socket:?}\n\
             log_level = \"harborforge_connector=debug\"\n\
             log_format = \"json\"\n",
            url = self.monitor.url(),
            data = self.dir.join("data"),
            socket = self.dir.join("control.sock"),
        );
        child::write_private(&path, &text).map_err(system("write its configuration"))?;
        Ok(path)
    }
}

/// The command: plays the demo on stdout.
///
/// # Errors
/// Exit code 130 for Ctrl-C, 1 for the rest.
pub fn run(_args: &DemoArgs, _context: &Context) -> Result<(), CliError> {
    play(&mut io::stdout().lock()).map_err(|error| {
        let exit = match error {
            DemoError::Interrupted => Exit::Interrupted,
            DemoError::System { .. }
            | DemoError::Monitor(_)
            | DemoError::Ended { .. }
            | DemoError::Queue(_)
            | DemoError::Lost => Exit::Failed,
        };
        CliError::from_error(exit, &error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run as it was seen: at each second the number appended, the number delivered, and the
    /// way by which the newest came.
    const SEEN: [(u64, u64, &str); 32] = [
        (1, 1, "WebSocket"),
        (2, 2, "WebSocket"),
        (3, 3, "WebSocket"),
        (4, 4, "WebSocket"),
        (5, 4, "WebSocket"),
        (6, 4, "WebSocket"),
        (7, 6, "heartbeat"),
        (8, 7, "heartbeat"),
        (9, 8, "heartbeat"),
        (10, 10, "WebSocket"),
        (11, 11, "WebSocket"),
        (12, 12, "WebSocket"),
        (13, 13, "WebSocket"),
        (14, 13, ""),
        (15, 13, ""),
        (16, 13, ""),
        (17, 13, ""),
        (18, 13, ""),
        (18, 13, ""),
        (18, 13, ""),
        (19, 13, ""),
        (20, 13, ""),
        (21, 13, ""),
        (22, 13, ""),
        (23, 13, ""),
        (24, 24, "WebSocket"),
        (25, 25, "WebSocket"),
        (26, 26, "WebSocket"),
        (27, 27, "WebSocket"),
        (28, 28, "WebSocket"),
        (28, 28, "WebSocket"),
        (28, 28, "WebSocket"),
    ];

    fn shown() -> String {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out);
        screen.opening("http://127.0.0.1:43257", Path::new("/tmp/harborforge-demo-Dnu2fR"));
        let mut scenes = SCRIPT.iter().peekable();
        let (mut monitor, mut daemon) = (true, true);
        for (second, (appended, delivered, way)) in (1..).zip(SEEN) {
            screen.second(second, monitor, daemon, appended, delivered, way);
            while let Some((_, scene)) = scenes.next_if(|(at, _)| *at == second) {
                screen.scene(scene.title());
                match scene {
                    Scene::MonitorDown => monitor = false,
                    Scene::MonitorBack => monitor = true,
                    Scene::DaemonKilled => daemon = false,
                    Scene::DaemonBack => daemon = true,
                    Scene::WebsocketRefused | Scene::WebsocketBack | Scene::Curtain => {}
                }
            }
        }
        let sampled = SEEN.last().map_or(0, |(appended, _, _)| *appended);
        screen.verdict(&Verdict { sampled, delivered: sampled, duplicates: 0, gaps: 0, lost: 0 });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_documents_show_what_the_demo_prints() {
        let readme = include_str!("../../../README.md");
        let block = readme
            .split_once("<!-- demo -->\n```text\n")
            .and_then(|(_, rest)| rest.split_once("```\n<!-- /demo -->"))
            .map(|(block, _)| block)
            .unwrap();
        let trimmed: String =
            shown().lines().map(|line| format!("{}\n", line.trim_end())).collect();
        assert_eq!(block, trimmed, "README.md's picture of the demo, between the markers");

        let handbook = include_str!("../../../docs/OPERATIONS.md");
        let command = "```text\n$ harborforge-connector demo | tail -n 6\n";
        let block = handbook.split_once(command).and_then(|(_, rest)| rest.split_once("```"));
        let lines: Vec<_> = trimmed.lines().collect();
        let last = lines.last_chunk::<6>().unwrap().join("\n");
        assert_eq!(block.map(|(block, _)| block.trim_end()), Some(last.as_str()));
    }
}
