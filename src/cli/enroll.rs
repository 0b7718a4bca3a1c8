//! `enroll`: writes Monitor, name, challenge or key into the configuration, and tells a running
//! daemon.
//!
//! Invariants:
//! - Nothing is written before the configuration it leads to holds as a whole and, unless
//!   `--no-verify` says otherwise, the Monitor has been reached with it.
//! - Asking the Monitor uses nothing up: only its key is fetched.
//! - Whatever was written is said, also when the rest fails. What nobody listens to is done all
//!   the same: a closed pipe ends other commands, but must not leave this one half done.

mod secret;

use std::io::{self, IsTerminal as _};
use std::os::unix::fs::MetadataExt as _;

use secrecy::ExposeSecret as _;

use super::args::EnrollArgs;
use super::check::{Line, Verdict, daemon, failure, network, print};
use super::{CliError, Context, Exit};
use crate::config::{
    self, Config, ConfigErrors, Credential, Key, Plan, PlannedFile, Sources, Wish,
};
use crate::control::client::{Answer, Client, ClientError};
use crate::control::protocol::{CredentialFrom, Enroll, Enrolled, Request};
use crate::replace::{self, Before, New, Replaced};
use crate::{runtime, state};
use secret::Kind;

/// Changes the configuration, asks the Monitor, tells the daemon; prints a line for each.
///
/// # Errors
/// Exit code 3 for the configuration as it would be, 5 when the Monitor is not reached, 6 when it
/// or its key is refused (nothing is written then), 1 when a file cannot be written or the daemon
/// cannot be told.
pub fn run(args: &EnrollArgs, context: &Context) -> Result<(), CliError> {
    let sources = Sources::of_process(context.flags.clone());
    let wish = wish(args)?;
    let (plan, wish) = planned(&sources, wish, args)?;
    let config = &plan.loaded.config;
    for warning in &plan.overridden {
        say(&[Line::new(Verdict::Warn, "configuration", warning.to_string())]);
    }
    verify(args, config, context.verbose)?;
    for file in &plan.files {
        say(&[write(file, config)?]);
    }
    let moved = |file: &PlannedFile| {
        let changed = [Key::Identifier, Key::BackendUrl].iter().any(|key| file.set.contains(key));
        changed && file.before.is_some()
    };
    if wish.credential.is_none()
        && matches!(config.credential, Some(Credential::Challenge(_)))
        && plan.files.iter().any(moved)
    {
        let text = "it stays; a challenge that has been used is bound to the name and the Monitor \
                    it was used with: if it is refused, enroll a new one";
        say(&[Line::new(Verdict::Warn, "credential", text)]);
    }
    if plan.files.is_empty() {
        say(&[Line::new(Verdict::Ok, "configuration", "says that already, nothing is written")]);
    }
    tell_daemon(config, wish.credential.as_ref())
}

/// Prints lines for who listens.
fn say(lines: &[Line]) {
    // See the invariants: the work counts, and the exit code tells how it went.
    let _ = print(lines, false);
}

/// What the arguments ask for. A secret is asked for on the terminal when nothing else is.
fn wish(args: &EnrollArgs) -> Result<Wish, CliError> {
    let kind = if args.api_key { Kind::ApiKey } else { Kind::Challenge };
    let nothing_else = args.backend_url.is_none() && args.identifier.is_none();
    let credential = match (&args.challenge_file, &args.api_key_file) {
        (Some(path), _) => Some(secret::from_file(path, Kind::Challenge)?),
        (None, Some(path)) => Some(secret::from_file(path, Kind::ApiKey)?),
        (None, None) if args.stdin => Some(secret::from_stdin(kind)?),
        (None, None) if args.api_key || nothing_else => {
            if !io::stdin().is_terminal() {
                let text = "nothing to change: name --backend-url, --identifier, --challenge-file, \
                            --api-key-file or --stdin; the secret is asked for on a terminal only";
                return Err(CliError::new(Exit::Usage, text));
            }
            Some(secret::prompt(kind)?)
        }
        (None, None) => None,
    };
    Ok(Wish {
        backend_url: args.backend_url.clone(),
        identifier: args.identifier.clone(),
        credential,
    })
}

/// The plan. When all that is missing is the secret, it is asked for on the terminal.
fn planned(sources: &Sources<'_>, wish: Wish, args: &EnrollArgs) -> Result<(Plan, Wish), CliError> {
    let errors = match config::plan(sources, &wish) {
        Ok(plan) => return Ok((plan, wish)),
        Err(errors) => errors,
    };
    if wish.credential.is_some()
        || !only_the_secret_is_missing(&errors)
        || !io::stdin().is_terminal()
    {
        return Err(CliError::of_config(&errors));
    }
    let kind = if args.api_key { Kind::ApiKey } else { Kind::Challenge };
    let wish = Wish { credential: Some(secret::prompt(kind)?), ..wish };
    match config::plan(sources, &wish) {
        Ok(plan) => Ok((plan, wish)),
        Err(errors) => Err(CliError::of_config(&errors)),
    }
}

fn only_the_secret_is_missing(errors: &ConfigErrors) -> bool {
    let [error] = errors.0.as_slice() else { return false };
    matches!(error.problem, config::Problem::Missing { .. })
        && error.key.as_deref() == Some(Key::ChallengeUuid.name())
}

/// Asks the Monitor for its key, and prints what that shows.
fn verify(args: &EnrollArgs, config: &Config, verbose: bool) -> Result<(), CliError> {
    if args.no_verify {
        say(&[Line::new(Verdict::Ok, "monitor", "not asked: --no-verify")]);
        return Ok(());
    }
    let url = config.backend_url.as_ref();
    let remembered = url.and_then(|url| state::remembered_key(&config.data_dir, url.as_str()));
    let lines = runtime::block_on(network::examine(config, remembered));
    // As with `say`: who has stopped listening has not called it off.
    let _ = print(&lines, verbose);
    match failure(&lines) {
        None => Ok(()),
        Some(exit) => {
            let text = "nothing was written: mend this first, or write it all the same with \
                        --no-verify";
            Err(CliError::new(exit, text))
        }
    }
}

/// Whom a secret in a file of its own is for: the user the data directory belongs to, which is the
/// daemon's. Only root can make a file for somebody else.
fn daemon_user(config: &Config) -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let data_dir = std::fs::metadata(&config.data_dir).ok()?;
    Some((data_dir.uid(), data_dir.gid()))
}

/// Writes a planned file, and says what was done.
fn write(file: &PlannedFile, config: &Config) -> Result<Line, CliError> {
    let before = match &file.before {
        Some(text) => Before::Text(text.as_bytes()),
        None => Before::Absent,
    };
    let owner = file.secret.then(|| daemon_user(config)).flatten();
    let new =
        New { text: file.after.as_bytes(), before: Some(before), private: file.private, owner };
    let Replaced { path, mode_before, mode, owner } = replace::replace(&file.path, new)
        .map_err(|error| CliError::from_error(Exit::Failed, &error))?;
    let names = |keys: &[Key]| keys.iter().map(|key| key.name()).collect::<Vec<_>>().join(", ");
    let mut text = format!("{}: {} set", path.display(), names(&file.set));
    if !file.unset.is_empty() {
        text.push_str(&format!(", {} commented out", names(&file.unset)));
    }
    match mode_before {
        None => text.push_str(&format!(
            "; made with mode {mode:04o} for user id {owner}, which the daemon must be able to read"
        )),
        Some(before) if before != mode => {
            text.push_str(&format!(
                "; mode {mode:04o} instead of {before:04o}, since it holds a secret"
            ));
        }
        Some(_) => {}
    }
    Ok(Line::new(Verdict::Ok, "written", text))
}

/// Tells the daemon, if one runs.
fn tell_daemon(config: &Config, credential: Option<&Credential>) -> Result<(), CliError> {
    const NAME: &str = "daemon";
    let socket = config.control_socket.display();
    let secret = |credential: &Credential| credential.secret().expose_secret().to_owned();
    let (challenge_uuid, api_key) = match credential {
        Some(it @ Credential::Challenge(_)) => (Some(secret(it)), None),
        Some(it @ Credential::ApiKey(_)) => (None, Some(secret(it))),
        None => (None, None),
    };
    let backend_url = config.backend_url.as_ref().map(ToString::to_string).unwrap_or_default();
    let identifier = config.identifier.clone();
    let request = Request::Enroll(Enroll { backend_url, identifier, challenge_uuid, api_key });
    let line = match ask(config, &request) {
        Ok(Enrolled { pid, from, not_reloaded }) => {
            let mut text = match from {
                CredentialFrom::Configuration => {
                    format!("process {pid} uses it from now on, as its configuration has it")
                }
                CredentialFrom::DataDir => format!(
                    "process {pid} uses it from now on, and keeps it in {} until its configured \
                     credential changes",
                    crate::enrolled::path(&config.data_dir).display()
                ),
                CredentialFrom::Other => format!("process {pid} uses it from now on"),
            };
            match not_reloaded {
                Some(why) => {
                    text.push_str(&format!("; it cannot read its configuration again: {why}"));
                    Line::new(Verdict::Warn, NAME, text)
                }
                None => Line::new(Verdict::Ok, NAME, text),
            }
        }
        Err(ClientError::NoDaemon { .. }) => {
            match daemon::queue_holder(&config.data_dir).ok().flatten() {
                Some(pid) => {
                    let text = format!(
                        "process {pid} holds {}, but nobody answers on {socket}: have it read its \
                         configuration again (kill -HUP {pid}), or restart it",
                        config.data_dir.display()
                    );
                    Line::new(Verdict::Warn, NAME, text)
                }
                None => {
                    let text = format!("none answers on {socket}; the next start uses it");
                    Line::new(Verdict::Ok, NAME, text)
                }
            }
        }
        Err(error) => {
            let error = CliError::of_client(&error);
            let text = format!(
                "the configuration says it now, but the daemon that runs has not taken it up: \
                 {error}"
            );
            return Err(CliError { message: text, ..error });
        }
    };
    say(&[line]);
    Ok(())
}

fn ask(config: &Config, request: &Request) -> Result<Enrolled, ClientError> {
    let client = Client::connect(&config.control_socket)?;
    let mut answer: Answer<serde_json::Value, Enrolled> = client.ask(request, false)?;
    while answer.next_item()?.is_some() {}
    answer.end().ok_or_else(|| ClientError::Answer("it says nothing".to_owned()))
}
