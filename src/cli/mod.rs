//! The command line: one file per subcommand.
//!
//! Invariants:
//! - Data goes to stdout, everything else to stderr.
//! - Every way to end is an [`Exit`]; its numbers are part of the interface.
//! - A reader that closes its pipe ends the command quietly with success.

pub mod args;
pub mod check;
pub mod completions;
#[cfg(feature = "demo")]
pub mod demo;
pub mod dump;
pub mod enroll;
pub mod man;
pub mod purge;
pub mod replay;
pub mod run;
pub mod sample;
mod scratch;
pub mod status;
mod terminal;
mod texts;
pub mod verify;

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser as _;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::config::{self, Config, ConfigErrors, Flags, Loaded, Need, Sources};
use crate::control::client::{Client, ClientError};
use crate::control::protocol::RefusalKind;
use crate::logging::{self, LogHandle};
use args::{Args, Command};

/// How a command ended; the numbers are what scripts depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed while running.
    Failed = 1,
    /// The command line was wrong.
    Usage = 2,
    /// The configuration was wrong.
    Config = 3,
    /// The queue could not be opened.
    Storage = 4,
    /// The Monitor could not be reached.
    Unreachable = 5,
    /// The Monitor refused the challenge or the key.
    Refused = 6,
    /// Ctrl-C.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub struct CliError {
    /// The exit code.
    pub exit: Exit,
    /// What failed, where, and what to do; empty when there is nothing left to say, since the
    /// command has said it itself.
    pub message: String,
    /// The causes, the nearest first; shown with `-v`.
    pub chain: Vec<String>,
}

impl CliError {
    /// An error without a cause.
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), chain: Vec::new() }
    }

    /// An error as its own text says it, with its sources as the chain.
    #[must_use]
    pub fn from_error(exit: Exit, error: &(dyn Error + 'static)) -> Self {
        Self { exit, message: error.to_string(), chain: causes(error) }
    }

    /// An end with nothing more to say.
    #[must_use]
    pub fn quiet(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// What a failed write to stdout means: a closed pipe is the reader's way to say "enough".
    #[must_use]
    pub fn of_output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::quiet(Exit::Done)
        } else {
            Self::new(Exit::Failed, format!("cannot write to standard output: {error}"))
        }
    }

    /// The same on a terminal, which is gone once it has been closed.
    #[must_use]
    pub fn of_terminal(error: &io::Error) -> Self {
        if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) {
            return Self::quiet(Exit::Done);
        }
        Self::of_output(error)
    }

    /// What the daemon's refusal, or its silence, means for the exit code.
    #[must_use]
    pub fn of_client(error: &ClientError) -> Self {
        let exit = match error {
            ClientError::Refused(refusal) => match refusal.kind {
                RefusalKind::Storage => Exit::Storage,
                RefusalKind::Unreachable => Exit::Unreachable,
                RefusalKind::Refused => Exit::Refused,
                RefusalKind::Request
                | RefusalKind::Denied
                | RefusalKind::Busy
                | RefusalKind::Failed => Exit::Failed,
            },
            ClientError::NoDaemon { .. }
            | ClientError::Denied { .. }
            | ClientError::Cut { .. }
            | ClientError::Answer(_)
            | ClientError::Io { .. } => Exit::Failed,
        };
        Self::from_error(exit, error)
    }

    /// Why the queue's files cannot be used; `socket` is where a daemon was looked for.
    #[must_use]
    pub fn of_queue(error: &harborforge_storage::Error, socket: &Path) -> Self {
        if let harborforge_storage::Error::Locked { path, pid } = error {
            let holder =
                pid.map_or_else(|| "another process".to_owned(), |p| format!("process {p}"));
            let text = format!(
                "{holder} has this queue open ({}), and no daemon that does answers on {}: if it is \
                 the daemon, say with --config which configuration it was started with (its \
                 control_socket is another one), or look into its log; if not, wait for its end",
                path.display(),
                socket.display()
            );
            return Self::new(Exit::Storage, text);
        }
        Self::from_error(Exit::Storage, error)
    }

    pub(crate) fn of_config(errors: &ConfigErrors) -> Self {
        let message = match errors.0.as_slice() {
            [only] => format!("configuration: {only}"),
            several => {
                let mut message = format!("configuration, {} faults:", several.len());
                for error in several {
                    message.push_str("\n  ");
                    message.push_str(&error.to_string());
                }
                message
            }
        };
        Self::new(Exit::Config, message)
    }
}

/// What an error comes from, the nearest first.
fn causes(error: &(dyn Error + 'static)) -> Vec<String> {
    std::iter::successors(error.source(), |&error| error.source())
        .map(|it| it.to_string())
        .collect()
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for CliError {}

/// What every command gets beside its own arguments.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// What the command line says about the configuration.
    pub flags: Flags,
    /// `-v`: show the chain of causes.
    pub verbose: bool,
}

impl Context {
    /// Loads the configuration as far as a command needs it. Warnings are not shown: `run`
    /// logs them, `check` lists them, and they are no concern of the other commands.
    ///
    /// # Errors
    /// All faults of the configuration, with [`Exit::Config`].
    pub fn load(&self, need: Need) -> Result<Loaded, CliError> {
        let mut loaded = self.load_own(need)?;
        let uid = rustix::process::geteuid().as_raw();
        // What may not be looked at may well be there.
        loaded.reach_system_daemon(uid, |path| {
            std::fs::symlink_metadata(path)
                .map_or_else(|e| e.kind() == io::ErrorKind::PermissionDenied, |_| true)
        });
        Ok(loaded)
    }

    /// The same for what is a daemon itself: it has its own socket.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_own(&self, need: Need) -> Result<Loaded, CliError> {
        config::load(&Sources::of_process(self.flags.clone()), need)
            .map_err(|errors| CliError::of_config(&errors))
    }

    /// Connects to the daemon; `None` when none runs.
    ///
    /// # Errors
    /// When there may be one and it cannot be asked, with [`Exit::Failed`].
    pub fn daemon(&self, config: &Config) -> Result<Option<Client>, CliError> {
        match Client::connect(&config.control_socket) {
            Ok(client) => Ok(Some(client)),
            Err(ClientError::NoDaemon { .. }) => Ok(None),
            Err(error) => Err(CliError::of_client(&error)),
        }
    }

    /// Connects to the daemon that has the queue of this configuration; `None` when the files can
    /// be read without it, since none runs or the one that answers has another queue.
    ///
    /// # Errors
    /// As for [`daemon`](Self::daemon).
    pub fn daemon_of_queue(&self, config: &Config) -> Result<Option<Client>, CliError> {
        let daemon = self.daemon(config)?;
        Ok(daemon.filter(|_| !harborforge_storage::is_free(&config.data_dir)))
    }

    /// Sets up logging as configured and logs the configuration's warnings. For commands that
    /// work in the background; the others speak on stderr by themselves.
    ///
    /// # Errors
    /// When logging was set up before.
    pub fn start_logging(&self, loaded: &Loaded) -> Result<LogHandle, CliError> {
        let config = &loaded.config;
        let handle = logging::init(&config.log_level, config.log_format)
            .map_err(|error| CliError::new(Exit::Failed, format!("cannot set up logs: {error}")))?;
        for warning in &loaded.warnings {
            tracing::warn!(%warning, "configuration");
        }
        Ok(handle)
    }
}

/// The whole program: parses, runs, reports an error on stderr and gives the exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    end_with_the_engine();
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => {
            // Help and version count as errors to clap; it knows where each one goes. A closed
            // pipe leaves nobody to tell.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    let context =
        Context { flags: Flags { config: args.config, set: args.set }, verbose: args.verbose };
    let done = dispatch(&args.command, &context);
    scratch::end_if_interrupted();
    match done {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            report(&error, context.verbose);
            error.exit.into()
        }
    }
}

fn dispatch(command: &Command, context: &Context) -> Result<(), CliError> {
    match command {
        Command::Check(args) => check::run(args, context),
        Command::Enroll(args) => enroll::run(args, context),
        Command::Status(args) => status::run(args, context),
        Command::Run(args) => run::run(args, context),
        Command::Sample(args) => sample::run(args, context),
        #[cfg(feature = "demo")]
        Command::Demo(args) => demo::run(args, context),
        Command::Dump(args) => dump::run(args, context),
        Command::Purge(args) => purge::run(args, context),
        Command::Verify(args) => verify::run(args, context),
        Command::Replay(args) => replay::run(args, context),
        Command::Completions(args) => completions::run(args, context),
        Command::Man(args) => man::run(args, context),
    }
}

/// SIGINT and SIGTERM end the process at once, with [`Exit::Interrupted`]: for a command that has
/// nothing but connections.
fn end_at_once() -> Result<(), CliError> {
    let always = Arc::new(AtomicBool::new(true));
    for signal in [SIGINT, SIGTERM] {
        let code = Exit::Interrupted as i32;
        signal_hook::flag::register_conditional_shutdown(signal, code, always.clone()).map_err(
            |error| CliError::new(Exit::Failed, format!("cannot listen for signals: {error}")),
        )?;
    }
    Ok(())
}

/// When one of the database engine's own threads panics, whoever waits for it would wait for ever:
/// the process ends at once, and the supervisor starts it again into recovery.
fn end_with_the_engine() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        usual(info);
        let thread = std::thread::current();
        if thread.name().is_some_and(harborforge_storage::is_engine_thread) {
            std::process::exit(Exit::Storage as i32);
        }
    }));
}

fn report(error: &CliError, verbose: bool) {
    if error.message.is_empty() {
        return;
    }
    let mut text = format!("harborforge-connector: {error}\n");
    if verbose {
        for cause in &error.chain {
            text.push_str(&format!("  caused by: {cause}\n"));
        }
    }
    // A closed stderr leaves nobody to tell.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the outer one")]
    struct Outer(#[source] io::Error);

    #[test]
    fn the_chain_of_causes_leaves_out_the_error_itself() {
        let error = Outer(io::Error::other("the inner one"));
        let error = CliError::from_error(Exit::Storage, &error);
        assert_eq!(error.to_string(), "the outer one");
        assert_eq!(error.chain, ["the inner one"]);
    }

    #[test]
    fn a_closed_pipe_or_terminal_is_a_quiet_success() {
        let hung_up = io::Error::from_raw_os_error(5);
        assert_eq!(CliError::of_terminal(&hung_up).message, "");
        assert_ne!(CliError::of_output(&hung_up).message, "", "a file's disk says the same");
        let error = CliError::of_output(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((error.exit, error.message.as_str()), (Exit::Done, ""));
        let error = CliError::of_output(&io::Error::other("disk full"));
        assert_eq!(error.exit, Exit::Failed);
        assert_eq!(error.to_string(), "cannot write to standard output: disk full");
    }
}
