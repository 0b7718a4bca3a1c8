//! `check`: what a user runs first when it does not work.
//!
//! Invariants:
//! - A check looks and changes nothing; it takes no lock and uses up no challenge.
//! - Each check stands alone: a function from [`Facts`] to lines, listed in [`CHECKS`].
//! - Every line that is not `ok` says what to do.

mod bridge;
pub(super) mod daemon;
mod local;
mod monitor;
pub(super) mod network;
mod openclaw;

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::time::SystemTime;

use super::args::CheckArgs;
use super::{CliError, Context, Exit, causes};
use crate::config::{self, Config, Loaded, Need, Sources};
use crate::runtime;
use crate::sender::classify::printable;
use crate::state;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but is probably not meant.
    Warn,
    /// It will not work.
    Fail,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// How it came out.
    pub verdict: Verdict,
    /// What was looked at, one or two words.
    pub name: &'static str,
    /// What was found and, unless it is well, what to do.
    pub text: String,
    /// How the command ends for it: [`Exit::Done`] unless it is a failure.
    pub exit: Exit,
    /// Causes that the text leaves out, the nearest first; shown with `-v`.
    pub causes: Vec<String>,
}

impl Line {
    pub(super) fn new(verdict: Verdict, name: &'static str, text: impl Into<String>) -> Self {
        let exit = if verdict == Verdict::Fail { Exit::Failed } else { Exit::Done };
        Self { verdict, name, text: text.into(), exit, causes: Vec::new() }
    }

    pub(super) fn fail(exit: Exit, name: &'static str, text: impl Into<String>) -> Self {
        Self { exit, ..Self::new(Verdict::Fail, name, text) }
    }

    /// With the causes of an error whose own words the text has already.
    pub(super) fn because(self, error: &(dyn Error + 'static)) -> Self {
        Self { causes: causes(error), ..self }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        write!(f, "{verdict:<4} {}: {}", self.name, self.text)
    }
}

/// What the checks look at beside the file system.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The configuration.
    pub loaded: &'a Loaded,
    /// The system's clock.
    pub now: SystemTime,
    /// Effective user id.
    pub uid: u32,
}

impl Facts<'_> {
    fn config(&self) -> &Config {
        &self.loaded.config
    }
}

/// The checks of this machine, in the order of the report; those of the network follow.
pub const CHECKS: &[fn(&Facts<'_>) -> Vec<Line>] = &[
    local::configuration,
    local::credential,
    local::identifier,
    local::ca_file,
    local::proxy,
    local::clock,
    local::data_dir,
    daemon::daemon,
    daemon::control_socket,
    bridge::bridge,
    local::disk,
    openclaw::openclaw,
];

/// Runs every check and prints a line each.
///
/// # Errors
/// The exit code of the first line that fails: 3 for the configuration, 4 for the data directory,
/// 5 when the Monitor is not reached, 6 when it or its key is refused; the lines have said why.
pub fn run(args: &CheckArgs, context: &Context) -> Result<(), CliError> {
    let sources = Sources::of_process(context.flags.clone());
    let loaded = match config::load(&sources, Need::Backend) {
        Ok(loaded) => loaded,
        Err(errors) => {
            let faults = errors.0.iter().map(ToString::to_string);
            let rest = "mend these first; the other checks need a configuration that holds";
            let lines: Vec<Line> = faults
                .chain([rest.to_owned()])
                .map(|text| Line::fail(Exit::Config, "configuration", text))
                .collect();
            print(&lines, context.verbose)?;
            return Err(CliError::quiet(Exit::Config));
        }
    };
    let facts = Facts { loaded: &loaded, now: SystemTime::now(), uid: sources.uid };
    let mut lines: Vec<Line> = CHECKS.iter().flat_map(|check| check(&facts)).collect();
    // What was found here may be read while the network is waited for.
    print(&lines, context.verbose)?;
    let network = if args.offline {
        vec![Line::new(Verdict::Ok, "network", "skipped: --offline")]
    } else {
        let config = &loaded.config;
        let remembered = config
            .backend_url
            .as_ref()
            .and_then(|url| state::remembered_key(&config.data_dir, url.as_str()));
        runtime::block_on(network::examine(config, remembered))
    };
    print(&network, context.verbose)?;
    lines.extend(network);
    match failure(&lines) {
        Some(exit) => Err(CliError::quiet(exit)),
        None => Ok(()),
    }
}

/// How the command ends for these lines, when one of them fails.
pub(super) fn failure(lines: &[Line]) -> Option<Exit> {
    lines.iter().find(|line| line.verdict == Verdict::Fail).map(|line| line.exit)
}

/// Prints lines, in colour on a terminal, and on request the causes below each.
///
/// # Errors
/// When they cannot be written.
pub(super) fn print(lines: &[Line], verbose: bool) -> Result<(), CliError> {
    write(lines, verbose).map_err(|error| CliError::of_output(&error))
}

fn write(lines: &[Line], verbose: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = out.is_terminal() && !no_colour;
    for line in lines {
        let (on, off) = match line.verdict {
            Verdict::Warn if colour => ("\u{1b}[33m", "\u{1b}[0m"),
            Verdict::Fail if colour => ("\u{1b}[31m", "\u{1b}[0m"),
            Verdict::Ok | Verdict::Warn | Verdict::Fail => ("", ""),
        };
        writeln!(out, "{on}{line}{off}")?;
        for cause in line.causes.iter().filter(|_| verbose) {
            writeln!(out, "     caused by: {}", printable(cause))?;
        }
    }
    out.flush()
}
