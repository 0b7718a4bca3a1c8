//! `replay`: deliver what waits now; or what was delivered, or refused, once more.
//!
//! While a daemon has the queue it is asked, over its control socket; else this process is the
//! sender, by heartbeat alone, with the credential the daemon would use, and holds the queue as the
//! daemon would.
//!
//! Invariants: what was confirmed stays confirmed however it ends, so that the same command goes
//! on where it stopped; the last line on stdout is one JSON object in a pipe, one sentence on a
//! terminal; a dry run writes nothing below the data directory.

mod local;
mod owner;
mod pace;
mod screen;

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harborforge_storage::{Error, Set};
use signal_hook::consts::{SIGINT, SIGTERM};

use self::screen::Screen;
use super::args::{Moment, ReplayArgs};
use super::{CliError, Context, Exit, scratch};
use crate::config::{Config, Credential, Need};
use crate::control::client::{Answer, Client};
use crate::control::protocol::Request;
use crate::enrolled::{self, Enrolled, Standing};
use crate::replay::{Ended, Outcome, Plan, Progress, Replay, Replayed, Report, TRIES, WITHIN};

/// Delivers what the arguments name.
///
/// # Errors
/// Exit code 3 for the configuration, 4 for the queue, 5 when the Monitor cannot be reached, 6
/// when it refuses the credentials, 130 after Ctrl-C, 1 for the rest.
pub fn run(args: &ReplayArgs, context: &Context) -> Result<(), CliError> {
    let loaded = context.load(Need::DataDir)?;
    let config = &loaded.config;
    let replay = asked_for(args, SystemTime::now());
    let begun = Instant::now();
    let mut used = config.clone();
    let outcome = match context.daemon_of_queue(config)? {
        Some(daemon) => over_socket(daemon, &replay)?,
        None if replay.dry_run => Outcome::Plan(look(&replay, config)?),
        None => {
            // What is missing for sending is told before anything is opened.
            let config = context.load(Need::Backend)?.config;
            owner::become_owner(&config.data_dir, loaded.file.as_deref(), &config.control_socket)?;
            used = with_enrolled(&config);
            Outcome::Report(local::run(&replay, &used)?)
        }
    };
    let for_people = io::stdout().is_terminal();
    let text = match &outcome {
        Outcome::Plan(plan) => screen::plan(&replay, plan, for_people),
        Outcome::Report(report) => screen::report(&replay, report, begun.elapsed(), for_people),
    };
    writeln!(io::stdout(), "{text}").map_err(|error| CliError::of_output(&error))?;
    match outcome {
        Outcome::Plan(_) => Ok(()),
        Outcome::Report(report) => verdict(&replay, &report, &used),
    }
}

fn asked_for(args: &ReplayArgs, now: SystemTime) -> Replay {
    let millis = |moment: Moment| {
        let since = moment.resolve(now).duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    };
    Replay {
        what: match (args.sent, args.rejected) {
            (true, _) => Replayed::Sent,
            (false, true) => Replayed::Rejected,
            (false, false) => Replayed::Pending,
        },
        since_ms: args.since.map(millis),
        until_ms: args.until.map(millis),
        from: args.seq.map(|range| range.from),
        to: args.seq.map(|range| range.to),
        dry_run: args.dry_run,
    }
}

/// Has the daemon do it, and shows how it goes.
fn over_socket(daemon: Client, replay: &Replay) -> Result<Outcome, CliError> {
    let of_client = |error| CliError::of_client(&error);
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone()).map_err(|error| {
            CliError::new(Exit::Failed, format!("cannot listen for signals: {error}"))
        })?;
    }
    let mut answer: Answer<Progress, Outcome> =
        daemon.ask(&Request::Replay(replay.clone()), false).map_err(of_client)?;
    let mut screen = Screen::new();
    let mut last = Progress::default();
    while let Some(progress) = answer.next_item().map_err(of_client)? {
        screen.show(&progress);
        last = progress;
        if interrupted.load(Ordering::Relaxed) {
            // The daemon notices that nobody listens any more.
            return Ok(Outcome::Report(Report {
                progress: last,
                ended: Ended::Interrupted,
                reason: None,
            }));
        }
    }
    let cut_off = || Report {
        progress: last,
        ended: Ended::Failed,
        reason: Some("the daemon's answer has no end".to_owned()),
    };
    Ok(answer.end().unwrap_or_else(|| Outcome::Report(cut_off())))
}

/// The configuration with the credential that the daemon would use: one that was enrolled may stand
/// in for the configured one. What is to become of that is the daemon's to decide.
fn with_enrolled(configured: &Arc<Config>) -> Arc<Config> {
    match Enrolled::weigh(configured, &configured.data_dir) {
        Ok((config, Some(Standing::Elsewhere))) => {
            Screen::note(
                "a credential was enrolled for another backend_url, it is not used for this one",
            );
            config
        }
        Ok((config, _)) => config,
        Err(error) => {
            let path = enrolled::path(&configured.data_dir);
            Screen::note(&format!(
                "{}: what was enrolled is not usable ({error}), the configured credential counts",
                path.display()
            ));
            configured.clone()
        }
    }
}

/// What would go, from the files.
fn look(replay: &Replay, config: &Config) -> Result<Plan, CliError> {
    scratch::ready()?;
    let mut inspector =
        scratch::open(&config.data_dir).map_err(|error| of_queue(&error, config))?;
    let set = match replay.what {
        Replayed::Pending => Set::Pending,
        Replayed::Sent => Set::Sent,
        Replayed::Rejected => Set::Rejected,
    };
    let (from, mut to) = replay.numbers();
    if set == Set::Rejected {
        // Those it has not passed are not tried yet.
        to = to.min(inspector.cursor());
    }
    let mut plan = Plan::default();
    for entry in inspector.records(&[set], from..=to) {
        let record = entry.map_err(|error| of_queue(&error, config))?.record;
        if replay.takes(record.stamp.wall_ms) {
            plan.add(&record);
        }
    }
    inspector.problems().iter().for_each(scratch::tell);
    Ok(plan)
}

/// A queue somebody else holds while nobody answers on the socket.
fn of_queue(error: &Error, config: &Config) -> CliError {
    let mut of_queue = CliError::from_error(Exit::Storage, error);
    if matches!(error, Error::Locked { .. }) {
        let socket = config.control_socket.display();
        of_queue.message = format!("{error} (no daemon answers on {socket})");
    }
    of_queue
}

/// The exit code, and what is to be said beside the summary.
fn verdict(replay: &Replay, report: &Report, config: &Config) -> Result<(), CliError> {
    let reason = report.reason.as_deref().unwrap_or("no reason was given");
    let left = report.progress.left;
    let stay = match replay.what {
        Replayed::Pending => format!("{left} samples stay queued: nothing is lost"),
        Replayed::Sent | Replayed::Rejected => match report.progress.next {
            Some(next) => format!("{left} samples are left: go on with --seq {next}.."),
            None => format!("{left} samples are left"),
        },
    };
    let (exit, text) = match report.ended {
        Ended::Done => return Ok(()),
        Ended::Interrupted => (Exit::Interrupted, format!("interrupted, {stay}")),
        Ended::Unreachable => {
            let within = WITHIN.as_secs();
            let text = format!(
                "the Monitor cannot be reached ({TRIES} failures in a row, or {within} s without \
                 progress): {reason}\n  {stay}; run `harborforge-connector check`"
            );
            (Exit::Unreachable, text)
        }
        Ended::Refused => {
            let (credential, option) = match config.credential {
                Some(Credential::ApiKey(_)) => ("API key", " --api-key"),
                Some(Credential::Challenge(_)) | None => ("challenge", ""),
            };
            let text = format!(
                "the Monitor does not accept this server: {reason}\n  {stay}; have it issue a new \
                 {credential} and run `harborforge-connector enroll{option}`"
            );
            (Exit::Refused, text)
        }
        Ended::Unacceptable => {
            let text = format!(
                "the Monitor refuses one sample after the other, so the fault is not theirs: \
                 {reason}\n  {stay}"
            );
            (Exit::Failed, text)
        }
        Ended::Storage => (Exit::Storage, format!("the queue fails: {reason}\n  {stay}")),
        Ended::Failed => (Exit::Failed, format!("cannot go on: {reason}\n  {stay}")),
    };
    Err(CliError::new(exit, text))
}
