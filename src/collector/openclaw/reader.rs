//! All state directories of this host together.
//!
//! Agents of several state directories stand side by side in one list. An id that an earlier one
//! has already is followed by `@` and the name of the directory the later one lies in, so that
//! two users' `main` stay two agents: `main` and `main@bob`.
//!
//! Invariant: looking changes nothing on the host and waits for nothing but its files; the only
//! question over a socket is a [`Probe`], which the caller asks.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::home::Home;
use super::homes::{Found, MAX_HOMES, Places, find};
use super::lock::Held;
use super::status::Probe;
use super::version::Package;
use crate::collector::OpenClawView;
use crate::sample::Agent;

/// What one look found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What samples say.
    pub view: OpenClawView,
    /// What is wrong, each with its path.
    pub troubles: BTreeSet<String>,
    /// The state directories that are there.
    pub homes: Vec<PathBuf>,
    /// Home directories this user may not look into.
    pub hidden: usize,
}

/// Reads all state directories; remembers what has not changed.
#[derive(Debug)]
pub struct Reader {
    places: Places,
    configured: Vec<PathBuf>,
    found: Found,
    homes: Vec<(Home, Probe)>,
    package: Package,
}

impl Reader {
    /// A reader of the configured state directories, or of those that are found when none is
    /// configured.
    #[must_use]
    pub fn new(places: Places, configured: Vec<PathBuf>) -> Self {
        Self {
            places,
            configured,
            found: Found::default(),
            homes: Vec::new(),
            package: Package::default(),
        }
    }

    /// Looks for state directories. Those that are known stay known, in their order.
    pub fn discover(&mut self) {
        if self.configured.is_empty() {
            self.found = find(&self.places);
        }
        let paths = if self.configured.is_empty() { &self.found.homes } else { &self.configured };
        for path in paths {
            if self.homes.len() < MAX_HOMES && self.homes.iter().all(|(h, _)| h.path() != path) {
                self.homes.push((Home::new(path.clone()), Probe::NotAsked));
            }
        }
    }

    /// Looks at configurations and locks.
    pub fn look(&mut self, now: SystemTime) {
        for (home, probe) in &mut self.homes {
            let before = home.held();
            home.look(&self.places, now);
            if home.held() != before {
                // Another gateway, or none: what the one before said is of no use.
                *probe = Probe::NotAsked;
            }
        }
    }

    /// The ports to ask, each with the number of its state directory for [`Reader::answered`].
    /// A port that a living gateway holds is not asked on behalf of another directory.
    #[must_use]
    pub fn questions(&self) -> Vec<(usize, u16)> {
        let lives = |home: &Home| matches!(home.held(), Held::By { .. });
        let mut taken: HashSet<u16> = self
            .homes
            .iter()
            .filter(|(home, _)| lives(home))
            .map(|(home, _)| home.port())
            .collect();
        let mut questions = Vec::new();
        for (number, (home, _)) in self.homes.iter().enumerate() {
            let mine = lives(home) || taken.insert(home.port());
            if home.present() && mine {
                questions.push((number, home.port()));
            }
        }
        questions
    }

    /// Takes up what a port answered.
    pub fn answered(&mut self, number: usize, answer: Probe) {
        if let Some((_, probe)) = self.homes.get_mut(number) {
            *probe = answer;
        }
    }

    /// Whether a gateway is coming up, which is worth asking again soon.
    #[must_use]
    pub fn restless(&self) -> bool {
        self.homes.iter().any(|(home, probe)| {
            let lives = matches!(home.held(), Held::By { .. });
            match probe {
                Probe::Starting(_) | Probe::Draining(_) => true,
                Probe::NotAsked | Probe::Refused | Probe::Silent => lives,
                Probe::Started(_) | Probe::NoAnswer => false,
            }
        })
    }

    /// Puts together what was looked at and answered.
    pub fn report(&mut self, now: SystemTime) -> Report {
        let mut report = Report { hidden: self.found.hidden, ..Report::default() };
        let mut ids = HashSet::new();
        for (home, probe) in &mut self.homes {
            let seen = home.see(probe, &self.places, now);
            report.troubles.extend(seen.troubles.iter().map(|trouble| printable(trouble)));
            if !home.present() {
                if self.configured.iter().any(|path| path == home.path()) {
                    let path = home.path().display();
                    report
                        .troubles
                        .insert(printable(&format!("{path}: openclaw_home is not there")));
                }
                continue;
            }
            report.homes.push(home.path().to_owned());
            let whose = owner_name(home.path());
            for agent in seen.agents {
                let id = distinct(&agent.id, &whose, &mut ids);
                report.view.agents.push(Agent { id, ..agent });
            }
        }
        if !report.homes.is_empty() {
            report.view.version = self.version();
        }
        report
    }

    /// What a gateway says, else the installed package's, else what wrote a configuration.
    fn version(&mut self) -> Option<String> {
        let said = self.homes.iter().find_map(|(_, probe)| probe.version().map(str::to_owned));
        said.or_else(|| {
            let mut path = self.places.path.clone();
            let users = self.homes.iter().filter_map(|(home, _)| home.path().parent());
            for user in users {
                path.extend([".local/bin", ".npm-global/bin"].map(|bin| user.join(bin)));
            }
            self.package.version(&path)
        })
        .or_else(|| self.homes.iter().find_map(|(home, _)| home.version().map(str::to_owned)))
    }
}

/// A trouble as it may stand in a log and on a terminal: names of files are whatever their owner
/// likes.
fn printable(trouble: &str) -> String {
    const MAX: usize = 500;
    trouble.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(MAX).collect()
}

/// The name of the directory a state directory lies in: usually its user's.
fn owner_name(home: &Path) -> String {
    let name = home.parent().and_then(Path::file_name).unwrap_or_default();
    let name: String =
        name.to_string_lossy().chars().filter(|c| !c.is_control()).take(64).collect();
    if name.is_empty() { "root".to_owned() } else { name }
}

fn distinct(id: &str, whose: &str, taken: &mut HashSet<String>) -> String {
    let mut distinct = id.to_owned();
    let mut number = 1_usize;
    while !taken.insert(distinct.clone()) {
        distinct = match number {
            1 => format!("{id}@{whose}"),
            _ => format!("{id}@{whose}-{number}"),
        };
        number = number.saturating_add(1);
    }
    distinct
}
