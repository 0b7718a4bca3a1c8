//! One state directory: what is known of its OpenClaw from look to look.
//!
//! Invariants:
//! - A file is read again only when it has changed; a look at a directory where nothing has opens
//!   no database and parses no configuration.
//! - A configuration that cannot be used keeps the agents that were known before, and is a
//!   trouble that is named with its file.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs;

use super::database::Database;
use super::file::{self, FileError};
use super::homes::{Places, StateDir, configs};
use super::include::{self, IncludeError, Looked, Why};
use super::lock::{Held, Whose, held};
use super::process::Processes;
use super::roster::{KEEP, MAX_AGENTS, Roster, is_newer};
use super::sessions::{Activity, Sessions, Unreadable};
use super::sight::Sight;
use super::status::{self, Gateway, Probe};
use crate::sample::Agent;

/// The port a gateway listens on unless something else is said.
pub const USUAL_PORT: u16 = 18789;

/// One state directory.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    /// Its configuration, where that has a path of its own.
    config_path: Option<PathBuf>,
    config: Config,
    agents: HashMap<String, Agents>,
    held: Held,
    present: bool,
}

#[derive(Debug, Default)]
struct Config {
    /// The last one that could be used.
    roster: Option<Roster>,
    /// Why the present one cannot, or what of it is left out.
    trouble: Option<String>,
    looked: Vec<Looked>,
    settled: bool,
}

/// What is remembered of one agent's sessions.
#[derive(Debug, Default)]
struct Agents {
    sessions: Sessions,
    database: Database,
}

/// What one look found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its agents.
    pub agents: Vec<Agent>,
    /// What is wrong, each with its path.
    pub troubles: Vec<String>,
}

impl Home {
    /// A state directory that was not looked at yet.
    #[must_use]
    pub fn new(place: StateDir) -> Self {
        Self {
            path: place.path,
            config_path: place.config,
            config: Config::default(),
            agents: HashMap::new(),
            held: Held::Nobody,
            present: false,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was there at the last look.
    #[must_use]
    pub fn present(&self) -> bool {
        self.present
    }

    /// Who held its gateway's lock at the last look.
    #[must_use]
    pub fn held(&self) -> Held {
        self.held
    }

    /// The port its gateway listens on, by its lock, by its configuration, or by habit.
    #[must_use]
    pub fn port(&self) -> u16 {
        let locked = match self.held {
            Held::By { port, .. } => port,
            Held::Nobody | Held::Unseen | Held::Unknown { .. } => None,
        };
        let configured = self.config.roster.as_ref().and_then(|roster| roster.port);
        locked.or(configured).unwrap_or(USUAL_PORT)
    }

    /// The version that wrote its configuration last.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.config.roster.as_ref()?.version.as_deref()
    }

    /// Looks at the configuration and at the gateway's lock.
    pub fn look(&mut self, places: &Places, sight: &Sight, now: SystemTime) {
        let own = self.config_path.as_ref();
        let configs = own.map_or_else(|| configs(&self.path), |own| vec![own.clone()]);
        // Before its first start OpenClaw may have a configuration and no state directory.
        let stat = fs::stat(&self.path).or_else(|errno| own.map_or(Err(errno), fs::stat));
        let owner = match stat {
            Ok(stat) => stat.st_uid,
            Err(errno) => {
                self.present = FileError::from(errno) == FileError::Denied;
                self.held = if self.present { Held::Unknown { since: None } } else { Held::Nobody };
                self.config.trouble = self.present.then(|| denied(&self.path));
                return;
            }
        };
        self.present = true;
        self.config.look(&configs, now);
        let processes = Processes::under(&places.proc);
        let whose = Whose {
            home: &self.path,
            configs: &configs,
            uid: owner,
            newer: self.version().is_some_and(is_newer),
            hidden: sight.hidden(&self.path),
        };
        self.held = held(&whose, &places.temporary, &processes);
    }

    /// Looks at the sessions and puts everything together. `probe` is what the gateway's port
    /// answered.
    pub fn see(&mut self, probe: &Probe, places: &Places, now: SystemTime) -> Seen {
        if !self.present {
            return Seen::default();
        }
        let milliseconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let milliseconds = u64::try_from(milliseconds.as_millis()).unwrap_or(u64::MAX);
        let gateway = status::gateway(self.held, probe, milliseconds);
        let processes = Processes::under(&places.proc);
        let mut seen = Seen::default();
        seen.troubles.extend(self.config.trouble.clone());
        let roster = self.config.roster.as_ref().map_or(&[][..], |roster| &roster.agents);
        let known: HashSet<&String> = roster.iter().map(|(id, _)| id).collect();
        self.agents.retain(|id, _| known.contains(id));
        let mut unread = Unread::default();
        for (id, name) in roster {
            let known = self.agents.entry(id.clone()).or_default();
            let directory = self.path.join("agents").join(id);
            let sessions = known.look(&directory, gateway, &processes, now);
            let status = status::agent(gateway, &sessions);
            seen.agents.push(Agent { id: id.clone(), name: name.clone(), status });
            if let (Err(why), Gateway::Runs { .. }) = (&sessions, gateway) {
                unread.note(&directory, why);
            }
        }
        seen.troubles.extend(unread.told());
        seen
    }
}

/// Agents whose sessions cannot be read: one that stands for all with the same cause. How many
/// there are is not told, since each change of a trouble is a line in the log.
#[derive(Debug, Default)]
struct Unread(BTreeMap<String, (PathBuf, bool)>);

impl Unread {
    /// Causes that are told of one state directory; some name a line of a file.
    const MOST: usize = 10;

    fn note(&mut self, directory: &Path, why: &Unreadable) {
        let (cause, path) = match why {
            Unreadable::File(FileError::Denied) => {
                let parent = directory.parent().filter(|_| fs::stat(directory).is_err());
                (String::new(), parent.unwrap_or(directory))
            }
            Unreadable::File(_) | Unreadable::Format(_) => (why.to_string(), directory),
        };
        if let Some((first, more)) = self.0.get_mut(&cause) {
            *more |= first != path;
        } else if self.0.len() < Self::MOST {
            self.0.insert(cause, (path.to_owned(), false));
        }
    }

    fn told(self) -> impl Iterator<Item = String> {
        self.0.into_iter().map(|(cause, (path, more))| {
            let more = if more { "; so it is with other agents" } else { "" };
            if cause.is_empty() {
                return format!("{}{more}", denied(&path));
            }
            format!("{}: the agent's sessions cannot be read: {cause}{more}", path.display())
        })
    }
}

impl Agents {
    fn look(
        &mut self,
        directory: &Path,
        gateway: Gateway,
        processes: &Processes,
        now: SystemTime,
    ) -> Result<Activity, Unreadable> {
        let database = directory.join("agent").join("openclaw-agent.sqlite");
        match file::look(&database) {
            Err(FileError::Missing) => {
                self.sessions.look(&directory.join("sessions"), processes, now)
            }
            Err(error) => Err(error.into()),
            // What a gateway that is down left in it says nothing.
            Ok(_) if !matches!(gateway, Gateway::Runs { .. }) => Ok(Activity::default()),
            Ok(_) => {
                let marked = self.database.look(&database, now)?;
                Ok(Activity { held: false, marked })
            }
        }
    }
}

impl Config {
    fn look(&mut self, names: &[PathBuf], now: SystemTime) {
        let same = |(path, stamp): &Looked| file::look(path).ok() == *stamp;
        if self.settled && !self.looked.is_empty() && self.looked.iter().all(same) {
            return;
        }
        let mut looked = Vec::new();
        let mut read = None;
        let left_out = Cell::new(0);
        for name in names {
            match include::read(name, &KEEP, &mut looked, &left_out) {
                Err(IncludeError { path, why: Why::File(FileError::Missing) }) if path == *name => {
                }
                other => {
                    read = Some((name, other));
                    break;
                }
            }
        }
        self.settled = looked.iter().all(|(_, stamp)| stamp.is_none_or(|stamp| stamp.settled(now)));
        self.looked = looked;
        match read {
            // OpenClaw does with its defaults.
            None => {
                self.roster = Some(Roster::of(&super::node::Node::Other));
                self.trouble = None;
            }
            Some((name, Ok(node))) => {
                self.roster = Some(Roster::of(&node));
                self.trouble = (left_out.get() > 0).then(|| {
                    let (path, left_out) = (name.display(), left_out.get());
                    format!("{path}: {left_out} agents beyond the first {MAX_AGENTS} are left out")
                });
            }
            Some((_, Err(IncludeError { path, why: Why::File(FileError::Denied) }))) => {
                self.trouble = Some(denied(&path));
            }
            Some((_, Err(error))) => {
                let kept =
                    if self.roster.is_some() { ", the agents known before stay" } else { "" };
                self.trouble = Some(format!("{error}{kept}"));
            }
        }
    }
}

fn denied(path: &Path) -> String {
    let uid = rustix::process::geteuid().as_raw();
    format!(
        "{}: the user with uid {uid} may not read it (docs/OPERATIONS.md, OpenClaw)",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_that_cannot_be_read_are_told_together() {
        let dir = tempfile::tempdir().unwrap();
        let agents = dir.path().join("agents");
        let mut unread = Unread::default();
        // What lies in a closed directory cannot be looked at.
        for number in 0..1000 {
            let directory = agents.join(format!("a{number}"));
            unread.note(&directory, &Unreadable::File(FileError::Denied));
        }
        assert_eq!(unread.told().collect::<Vec<_>>(), [denied(&agents)]);

        let mut unread = Unread::default();
        for name in ["b", "c"] {
            let directory = agents.join(name);
            std::fs::create_dir_all(&directory).unwrap();
            unread.note(&directory, &Unreadable::File(FileError::Denied));
            unread.note(&directory, &Unreadable::Format("torn".to_owned()));
        }
        unread.note(&agents.join("d"), &Unreadable::Format("not JSON".to_owned()));
        let others = "; so it is with other agents";
        let (b, d) = (agents.join("b"), agents.join("d"));
        let expected = [
            format!("{}{others}", denied(&b)),
            format!("{}: the agent's sessions cannot be read: not JSON", d.display()),
            format!("{}: the agent's sessions cannot be read: torn{others}", b.display()),
        ];
        assert_eq!(unread.told().collect::<Vec<_>>(), expected);

        let mut unread = Unread::default();
        for line in 0..1000 {
            unread.note(&agents, &Unreadable::Format(format!("line {line}")));
        }
        assert_eq!(unread.told().count(), Unread::MOST);
    }
}
