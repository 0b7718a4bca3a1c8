//! Who keeps what is known of OpenClaw up to date.
//!
//! It looks at files every [`TICK`], asks gateways every `ASK` (at every tick while one is
//! coming up or going down) and looks for new state directories every `DISCOVER`. Where there is
//! none, a tick is as long as `ASK`.
//!
//! Invariants:
//! - Each look has a thread of its own, which ends with it: a home directory on a dead network mount,
//!   a database that is busy or a gateway that does not answer hold up no sample, no delivery and no
//!   stop. The next look begins after the last one has come back, so there is one such thread.
//! - Each trouble is said once in the log when it begins and once when it is over; that OpenClaw's
//!   state may be hidden is said once.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::homes::Places;
use super::known::Known;
use super::probe;
use super::reader::{Reader, Report};
use crate::collector::clock::since_boot;
use crate::runtime::{self, TaskGuard, channel};

/// Between two looks at files.
pub const TICK: Duration = Duration::from_secs(5);
/// Between two questions to a gateway that is settled.
const ASK: Duration = Duration::from_secs(30);
/// Between two searches for state directories.
const DISCOVER: Duration = Duration::from_secs(60);

/// What of the configuration concerns OpenClaw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether it is looked for.
    pub look: bool,
    /// Its state directories; empty: found by themselves.
    pub homes: Vec<PathBuf>,
}

/// It goes on until this is dropped. A look that is under way is not waited for: it may be waiting
/// for a dead mount, and owns nothing that must be closed.
#[derive(Debug)]
pub struct Watcher {
    orders: channel::Sender<Settings>,
    /// Closed after the first look.
    looked: channel::Receiver<()>,
    _task: TaskGuard<()>,
}

/// Starts looking after OpenClaw.
#[must_use]
pub fn start(settings: Settings, known: Known) -> Watcher {
    let (orders, receiver) = channel::unbounded();
    let (looking, looked) = channel::bounded(1);
    let task = runtime::spawn_guarded(run(settings, known, receiver, looking));
    Watcher { orders, looked, _task: task }
}

impl Watcher {
    /// Waits until the files have been looked at once, gateways not asked, or are not to be.
    pub async fn has_looked(&self) {
        // Nothing is ever sent: it ends when the other side is dropped.
        let _ = self.looked.recv().await;
    }

    /// Takes up a reloaded configuration.
    pub fn reconfigure(&self, settings: Settings) {
        // It is listened to as long as this lives, and never full.
        let _ = self.orders.try_send(settings);
    }
}

/// Reads once, gateways asked: for `sample` and `check`. Takes up to 2 s for each gateway that
/// does not answer.
#[must_use]
pub fn once(settings: &Settings, places: Places) -> Report {
    if !settings.look {
        return Report::default();
    }
    let mut reader = Reader::new(places, settings.homes.clone());
    reader.discover();
    reader.look(SystemTime::now());
    ask(&mut reader);
    reader.report(SystemTime::now())
}

fn ask(reader: &mut Reader) {
    let questions = reader.questions();
    let asked = questions.iter().map(|(_, port)| probe::ask(*port));
    let answers = runtime::block_on(futures_util::future::join_all(asked));
    for ((number, _), answer) in questions.into_iter().zip(answers) {
        reader.answered(number, answer);
    }
}

async fn run(
    settings: Settings,
    known: Known,
    orders: channel::Receiver<Settings>,
    looking: channel::Sender<()>,
) {
    let mut watch = Watch::new(settings, Said::default());
    watch.looking = Some(looking);
    loop {
        if watch.settings.look {
            let known = known.clone();
            watch = runtime::spawn_blocking(move || {
                watch.turn(&known);
                watch
            })
            .await;
        } else {
            watch.said.tell(BTreeSet::new(), 0);
            known.note(Vec::new(), 0);
            known.forget_files(since_boot());
            watch.looking = None;
        }
        match runtime::timeout(watch.pace(), orders.recv()).await {
            Some(Ok(settings)) => watch = Watch::new(settings, watch.said),
            Some(Err(_)) => return,
            // What a plugin pushed lapses meanwhile.
            None => known.look(since_boot()),
        }
    }
}

/// One way of looking, from one reload to the next.
struct Watch {
    settings: Settings,
    reader: Reader,
    said: Said,
    discovered: Option<Duration>,
    asked: Option<Duration>,
    /// Until the first look is made known.
    looking: Option<channel::Sender<()>>,
}

impl Watch {
    fn new(settings: Settings, said: Said) -> Self {
        let reader = Reader::new(Places::of_this_host(), settings.homes.clone());
        Self { settings, reader, said, discovered: None, asked: None, looking: None }
    }

    /// How long until the next look.
    fn pace(&self) -> Duration {
        if self.settings.look && (self.reader.sees_any() || self.reader.restless()) {
            TICK
        } else {
            ASK
        }
    }

    /// One look, and what follows from it.
    fn turn(&mut self, known: &Known) {
        let now = since_boot();
        let due = |last: Option<Duration>, every: Duration| {
            last.is_none_or(|last| now.saturating_sub(last) >= every)
        };
        if due(self.discovered, DISCOVER) {
            self.reader.discover();
            self.discovered = Some(now);
        }
        self.reader.look(SystemTime::now());
        if self.asked.is_none() {
            // The first sample shall not wait for a gateway.
            publish(&self.reader.report(SystemTime::now()), known);
            self.looking = None;
        }
        if self.reader.restless() || due(self.asked, ASK) {
            ask(&mut self.reader);
            self.asked = Some(now);
        }
        let report = self.reader.report(SystemTime::now());
        publish(&report, known);
        let closed_homes = report.closed_homes();
        self.said.tell(report.troubles, closed_homes);
    }
}

fn publish(report: &Report, known: &Known) {
    known.note(report.troubles.iter().cloned().collect(), report.closed_homes());
    known.read(report.view.clone(), since_boot());
}

/// What has been said in the log.
#[derive(Debug, Default)]
struct Said {
    troubles: BTreeSet<String>,
    closed_homes: bool,
}

impl Said {
    fn tell(&mut self, troubles: BTreeSet<String>, closed_homes: usize) {
        if closed_homes > 0 && !std::mem::replace(&mut self.closed_homes, true) {
            tracing::info!(
                closed_homes,
                "no state directory of OpenClaw is seen, and some home directories are closed to this user"
            );
        }
        for trouble in troubles.difference(&self.troubles) {
            tracing::warn!(%trouble, "OpenClaw cannot be read as a whole");
        }
        for trouble in self.troubles.difference(&troubles) {
            tracing::info!(%trouble, "OpenClaw: this is over");
        }
        self.troubles = troubles;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::testing::with_subscriber;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_trouble_is_said_once_and_so_is_its_end() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        with_subscriber(subscriber, || {
            let lines = || {
                let bytes = std::mem::take(&mut *log.0.lock().unwrap());
                String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
            };
            let mut said = Said::default();
            said.tell(BTreeSet::new(), 0);
            assert_eq!(lines(), [""; 0], "nothing there, nothing said");
            let one: BTreeSet<String> = ["/a: permission denied".to_owned()].into();
            said.tell(one.clone(), 0);
            let begin = lines();
            assert!(begin.len() == 1 && begin[0].contains("WARN"), "{begin:?}");
            assert!(begin[0].contains("/a: permission denied"), "{begin:?}");
            said.tell(one, 0);
            assert_eq!(lines(), [""; 0]);
            said.tell(BTreeSet::new(), 0);
            let end = lines();
            assert!(end.len() == 1 && end[0].contains("INFO"), "{end:?}");
            for closed_homes in [2, 2, 0, 3] {
                said.tell(BTreeSet::new(), closed_homes);
            }
            let hidden = lines();
            assert!(hidden.len() == 1 && hidden[0].contains("closed_homes=2"), "{hidden:?}");
            assert!(hidden[0].contains("INFO"), "{hidden:?}");
        });
    }

    #[test]
    fn turned_off_it_looks_at_nothing_and_forgets_what_it_knew() {
        let dir = tempfile::tempdir().unwrap();
        let off = Settings { look: false, homes: vec![dir.path().to_owned()] };
        let places = crate::collector::openclaw::homes::of_test(dir.path());
        assert_eq!(once(&off, places), Report::default());
    }

    /// Whoever waits for it goes on, with what there is to know known by then.
    #[test]
    fn the_first_look_is_told_after_what_it_found_and_also_when_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("openclaw.json"), "{}").unwrap();
        for look in [true, false] {
            let known = Known::new();
            let settings = Settings { look, homes: vec![dir.path().to_owned()] };
            let watcher = start(settings, known.clone());
            runtime::block_on(watcher.has_looked());
            let source = known.current(since_boot()).source;
            assert_eq!(source == crate::collector::openclaw::known::Source::Files, look);
        }
    }
}
