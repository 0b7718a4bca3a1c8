//! All state directories of this host together.
//!
//! Agents of several state directories stand side by side in one list. An id that an earlier one
//! has already is followed by `@` and the name of the directory the later one lies in, so that
//! two users' `main` stay two agents: `main` and `main@bob`.
//!
//! Invariants:
//! - Looking changes nothing on the host and waits for nothing but its files; the only question over
//!   a socket is a [`Probe`], which the caller asks.
//! - What is known without a state directory is told without one: home directories may be closed to
//!   this user while the gateway answers and its package is there to be read.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::home::Home;
use super::homes::{Found, MAX_HOMES, Places, StateDir, find};
use super::lock::Held;
use super::sight::Sight;
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

impl Report {
    /// How many home directories may have OpenClaw's state and are closed to this user; 0 once any
    /// state directory is seen.
    #[must_use]
    pub fn closed_homes(&self) -> usize {
        if self.homes.is_empty() { self.hidden } else { 0 }
    }
}

/// Reads all state directories; remembers what has not changed.
#[derive(Debug)]
pub struct Reader {
    places: Places,
    configured: Vec<PathBuf>,
    found: Found,
    homes: Vec<(Home, Probe)>,
    /// What the usual port answered, while no state directory is seen.
    unseen: Probe,
    sight: Sight,
    package: Package,
    /// The installed package's version.
    installed: Option<String>,
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
            unseen: Probe::NotAsked,
            sight: Sight::default(),
            package: Package::default(),
            installed: None,
        }
    }

    /// Looks for state directories and for the installed package. Those that are known stay known,
    /// in their order.
    pub fn discover(&mut self) {
        let places = if self.configured.is_empty() {
            self.found = find(&self.places);
            self.found.homes.clone()
        } else {
            self.configured.iter().cloned().map(StateDir::usual).collect()
        };
        for place in places {
            let new = self.homes.iter().all(|(home, _)| *home.path() != place.path);
            if new && self.homes.len() < MAX_HOMES {
                self.homes.push((Home::new(place), Probe::NotAsked));
            }
        }
        if !self.homes.is_empty() {
            self.sight = Sight::of(&self.places.proc, &self.places.temporary);
        }
        let mut path = self.places.path.clone();
        for user in self.homes.iter().filter_map(|(home, _)| home.path().parent()) {
            path.extend([".local/bin", ".npm-global/bin"].map(|bin| user.join(bin)));
        }
        self.installed = self.package.version(&path);
    }

    /// Looks at configurations and locks.
    pub fn look(&mut self, now: SystemTime) {
        for (home, probe) in &mut self.homes {
            let before = home.held();
            home.look(&self.places, &self.sight, now);
            let doubtful = matches!(home.held(), Held::Unknown { .. });
            if home.held() != before && !doubtful {
                // Another gateway, or none: what the one before said is of no use. A lock that is
                // half written says neither.
                *probe = Probe::NotAsked;
            }
        }
        if !self.sees_none() {
            self.unseen = Probe::NotAsked;
        }
    }

    fn sees_none(&self) -> bool {
        !self.homes.iter().any(|(home, _)| home.present())
    }

    /// The ports to ask, each with the number of its state directory for [`Reader::answered`].
    /// A port that a living gateway holds is not asked on behalf of another directory. Without any
    /// directory the usual port is asked, on behalf of one that is not seen.
    #[must_use]
    pub fn questions(&self) -> Vec<(Option<usize>, u16)> {
        if self.sees_none() {
            let usual = Some(self.places.port).filter(|port| *port != 0);
            return usual.map(|port| (None, port)).into_iter().collect();
        }
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
                questions.push((Some(number), home.port()));
            }
        }
        questions
    }

    /// Takes up what a port answered.
    pub fn answered(&mut self, number: Option<usize>, answer: Probe) {
        match number {
            None => self.unseen = answer,
            Some(number) => {
                if let Some((_, probe)) = self.homes.get_mut(number) {
                    *probe = answer;
                }
            }
        }
    }

    /// Whether there is a state directory to look at.
    #[must_use]
    pub fn sees_any(&self) -> bool {
        !self.homes.is_empty()
    }

    /// Whether a gateway is coming up, which is worth asking again soon.
    #[must_use]
    pub fn restless(&self) -> bool {
        matches!(self.unseen, Probe::Starting(_) | Probe::Draining(_))
            || self.homes.iter().any(|(home, probe)| {
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
        report.view.version = self.version();
        report
    }

    /// What a gateway says, else the installed package's, else what wrote a configuration.
    fn version(&self) -> Option<String> {
        let probes = self.homes.iter().map(|(_, probe)| probe).chain([&self.unseen]);
        let said = probes.filter_map(Probe::version).next();
        let written = || self.homes.iter().find_map(|(home, _)| home.version());
        said.or(self.installed.as_deref()).or_else(written).map(str::to_owned)
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
