//! What is known of OpenClaw at this moment, shared by who finds it out and who tells it.
//!
//! The watcher puts in what the files say, the bridge what a plugin pushed; samples, the status
//! and the sender's hint take out one view of both.
//!
//! Invariants:
//! - What a plugin pushed wins over the files for [`PUSHED_FOR`], member by member: what it left
//!   unsaid the files say. From then on it is forgotten as a whole.
//! - Taking the view waits for nobody: nothing is read and nothing is asked under the lock.
//! - Times are passed in, all by one clock (time since boot); one that runs backwards neither
//!   panics nor prolongs anything.
//! - A change of the view is signalled at most once until it has been looked at, so that a quick
//!   succession of changes costs one look.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::collector::OpenClawView;
use crate::runtime::channel;
use crate::sample::Agent;

/// How long what a plugin pushed counts (docs/PROTOCOL.md 9).
pub const PUSHED_FOR: Duration = Duration::from_secs(300);

/// What an OpenClaw plugin said of itself through the bridge. `None` is "not said".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pushed {
    /// OpenClaw's version.
    pub version: Option<String>,
    /// The plugin's own version.
    pub plugin_version: Option<String>,
    /// OpenClaw's agents; an empty list says that there are none.
    pub agents: Option<Vec<Agent>>,
}

/// Where a view comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Nothing was found out yet, or OpenClaw is not looked for.
    Nothing,
    /// OpenClaw's files.
    Files,
    /// A plugin, through the bridge.
    Plugin,
}

/// A view, where it comes from and how old it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// What samples say.
    pub view: OpenClawView,
    /// Where it comes from.
    pub source: Source,
    /// How long ago it was found out; zero for [`Source::Nothing`].
    pub age: Duration,
    /// How long ago the files said what the agents are; `None` where they did not: a plugin that
    /// pushes a version alone makes their word on the agents no younger.
    pub agents_of_files: Option<Duration>,
}

/// The handle. Clones share what they know.
#[derive(Debug, Clone)]
pub struct Known {
    inner: Arc<Mutex<Inner>>,
    signal: channel::Sender<()>,
    changed: channel::Receiver<()>,
}

#[derive(Debug, Default)]
struct Inner {
    files: Option<(OpenClawView, Duration)>,
    pushed: Option<(Pushed, Duration)>,
    /// The view that was signalled last.
    told: OpenClawView,
    /// What is wrong with the files.
    troubles: Vec<String>,
    /// Home directories that are closed while no state directory is seen.
    closed_homes: usize,
}

impl Default for Known {
    fn default() -> Self {
        Self::new()
    }
}

impl Known {
    /// A handle that knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let (signal, changed) = channel::bounded(1);
        Self { inner: Arc::default(), signal, changed }
    }

    /// Takes up what a plugin pushed at `now` (time since boot), in place of what one pushed
    /// before.
    pub fn pushed(&self, report: Pushed, now: Duration) {
        let mut inner = self.lock();
        inner.pushed = Some((report, now));
        self.settle(&mut inner, now);
    }

    /// Takes up what the files said at `now` (time since boot).
    pub fn read(&self, view: OpenClawView, now: Duration) {
        let mut inner = self.lock();
        inner.files = Some((view, now));
        self.settle(&mut inner, now);
    }

    /// Forgets what the files said: OpenClaw is not looked for any more.
    pub fn forget_files(&self, now: Duration) {
        let mut inner = self.lock();
        inner.files = None;
        self.settle(&mut inner, now);
    }

    /// Notes what is wrong with the files and what is hidden, for the status.
    pub fn note(&self, troubles: Vec<String>, closed_homes: usize) {
        let mut inner = self.lock();
        inner.troubles = troubles;
        inner.closed_homes = closed_homes;
    }

    /// What is wrong with the files, each with its path.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        self.lock().troubles.clone()
    }

    /// How many home directories are closed to this user, while no state directory is seen.
    #[must_use]
    pub fn closed_homes(&self) -> usize {
        self.lock().closed_homes
    }

    /// The view as of `now` (time since boot).
    #[must_use]
    pub fn current(&self, now: Duration) -> Current {
        self.lock().current(now)
    }

    /// Looks whether the passing of time has changed the view (what was pushed lapses), and
    /// signals it.
    pub fn look(&self, now: Duration) {
        let mut inner = self.lock();
        self.settle(&mut inner, now);
    }

    /// Gives a message after the view has changed; [`Known::current`] then has the new one.
    #[must_use]
    pub fn changed(&self) -> &channel::Receiver<()> {
        &self.changed
    }

    fn settle(&self, inner: &mut Inner, now: Duration) {
        inner.forget_lapsed(now);
        let view = inner.current(now).view;
        if view != inner.told {
            inner.told = view;
            // Full: the change before has not been looked at yet, one look will do for both.
            let _ = self.signal.try_send(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whole values are put in, so a panic elsewhere leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn forget_lapsed(&mut self, now: Duration) {
        if self.pushed.as_ref().is_some_and(|(_, at)| lapsed(*at, now)) {
            self.pushed = None;
        }
    }

    fn current(&self, now: Duration) -> Current {
        let (files, read_at) = match &self.files {
            Some((view, at)) => (view.clone(), Some(*at)),
            None => (OpenClawView::default(), None),
        };
        let agents_of_files = read_at.map(|at| now.saturating_sub(at));
        match &self.pushed {
            Some((pushed, at)) if !lapsed(*at, now) => Current {
                view: OpenClawView {
                    version: pushed.version.clone().or(files.version),
                    agents: pushed.agents.clone().unwrap_or(files.agents),
                    plugin_version: pushed.plugin_version.clone(),
                },
                source: Source::Plugin,
                age: now.saturating_sub(*at),
                agents_of_files: agents_of_files.filter(|_| pushed.agents.is_none()),
            },
            _ => Current {
                view: files,
                source: read_at.map_or(Source::Nothing, |_| Source::Files),
                age: agents_of_files.unwrap_or_default(),
                agents_of_files,
            },
        }
    }
}

fn lapsed(at: Duration, now: Duration) -> bool {
    now.saturating_sub(at) >= PUSHED_FOR
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::AgentStatus;

    fn agents(id: &str) -> Vec<Agent> {
        vec![Agent { id: id.to_owned(), name: id.to_owned(), status: AgentStatus::Idle }]
    }

    fn files() -> OpenClawView {
        OpenClawView {
            version: Some("2026.3.13".to_owned()),
            agents: agents("of-files"),
            plugin_version: None,
        }
    }

    fn whole() -> Pushed {
        Pushed {
            version: Some("2026.8.1".to_owned()),
            plugin_version: Some("0.4.0".to_owned()),
            agents: Some(agents("of-plugin")),
        }
    }

    const START: Duration = Duration::from_secs(1000);

    fn at(seconds: u64) -> Duration {
        START + Duration::from_secs(seconds)
    }

    #[test]
    fn nothing_is_known_at_first() {
        let current = Known::new().current(START);
        assert_eq!(current.view, OpenClawView::default());
        assert_eq!((current.source, current.age), (Source::Nothing, Duration::ZERO));
    }

    #[test]
    fn what_was_pushed_wins_over_the_files_for_five_minutes() {
        let known = Known::new();
        known.read(files(), START);
        known.pushed(whole(), at(10));
        // The files are read again meanwhile; that changes nothing.
        known.read(files(), at(20));
        for seconds in [20, 309] {
            let current = known.current(at(seconds));
            assert_eq!(current.source, Source::Plugin);
            assert_eq!(current.view.version.as_deref(), Some("2026.8.1"));
            assert_eq!(current.view.plugin_version.as_deref(), Some("0.4.0"));
            assert_eq!(current.view.agents, agents("of-plugin"));
            assert_eq!(current.age, Duration::from_secs(seconds - 10));
        }
        let current = known.current(at(310));
        assert_eq!((current.source, current.age), (Source::Files, Duration::from_secs(290)));
        assert_eq!(current.view, files());
    }

    #[test]
    fn what_a_plugin_left_unsaid_the_files_say() {
        let known = Known::new();
        known.read(files(), START);
        known.pushed(Pushed { agents: Some(Vec::new()), ..Pushed::default() }, START);
        let view = known.current(START).view;
        assert_eq!(view.version.as_deref(), Some("2026.3.13"));
        assert_eq!(view.agents, [], "an empty list is said, not left unsaid");
        known.pushed(Pushed { version: Some("1".to_owned()), ..Pushed::default() }, START);
        assert_eq!(known.current(START).view.agents, agents("of-files"));
        known.forget_files(START);
        assert_eq!(known.current(START).view.agents, []);
    }

    #[test]
    fn a_version_that_was_pushed_makes_the_agents_of_the_files_no_younger() {
        use crate::collector::openclaw::{STALE_AFTER, view};
        let known = Known::new();
        known.read(files(), START);
        let later = START + STALE_AFTER + Duration::from_secs(1);
        known.pushed(Pushed { version: Some("1".to_owned()), ..Pushed::default() }, later);
        let unknown = |view: &OpenClawView| view.agents[0].status == AgentStatus::Unknown;
        assert!(unknown(&view(&known, later)));
        assert!(!unknown(&view(&known, START + STALE_AFTER)));
        known.pushed(whole(), later);
        assert_eq!(view(&known, later + STALE_AFTER).agents, agents("of-plugin"));
    }

    #[test]
    fn each_change_is_signalled_and_the_lapse_of_a_push_too() {
        let known = Known::new();
        let signalled = |known: &Known| known.changed().try_recv().is_ok();
        assert!(!signalled(&known));
        known.read(files(), START);
        assert!(signalled(&known) && !signalled(&known));
        known.read(files(), at(1));
        assert!(!signalled(&known), "the same again is no change");
        known.pushed(whole(), at(2));
        known.pushed(Pushed { agents: Some(Vec::new()), ..whole() }, at(3));
        assert!(signalled(&known) && !signalled(&known), "two changes, one look");
        known.look(at(302));
        assert!(!signalled(&known));
        known.look(at(303));
        assert!(signalled(&known));
    }

    #[test]
    fn a_clock_that_runs_backwards_prolongs_nothing() {
        let known = Known::new();
        known.pushed(whole(), at(100));
        assert_eq!(known.current(START).age, Duration::ZERO);
        assert_eq!(known.current(at(400)).source, Source::Nothing);
    }
}
