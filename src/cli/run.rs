//! `run`: the daemon, in the foreground.

use super::args::RunArgs;
use super::{CliError, Context, Exit};
use crate::config::{Need, Sources, load};
use crate::daemon::{self, DaemonError};
use crate::store::{StartError, chain};

/// Runs the daemon until a signal stops it.
///
/// # Errors
/// Exit code 3 for the configuration, 4 for the queue as far as the interface names it, 1 for
/// the rest.
pub fn run(_args: &RunArgs, context: &Context) -> Result<(), CliError> {
    let loaded = context.load_own(Need::Backend)?;
    let log = context.start_logging(&loaded)?;
    let flags = context.flags.clone();
    let reload = Box::new(move || load(&Sources::of_process(flags.clone()), Need::Backend));
    daemon::run(loaded, reload, &log).map_err(|error| {
        let exit = exit_code(&error);
        if context.verbose {
            return CliError::from_error(exit, &error);
        }
        // With its causes all the same: nobody can ask a daemon that has ended for more.
        CliError::new(exit, chain(&error))
    })
}

/// The supervisor restarts what ends with 1 or 4 and gives up on 2 and 3.
fn exit_code(error: &DaemonError) -> Exit {
    match error {
        DaemonError::Store(StartError::Queue(_))
        | DaemonError::Queue(_)
        | DaemonError::Panicked => Exit::Storage,
        DaemonError::Link(_) => Exit::Config,
        DaemonError::DataDir { .. }
        | DaemonError::Store(StartError::Thread(_))
        | DaemonError::System { .. }
        | DaemonError::Part(_)
        | DaemonError::Unclean(_) => Exit::Failed,
    }
}
