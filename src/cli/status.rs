//! `status`: how delivery is doing.

use std::io::Write as _;

use super::args::StatusArgs;
use super::{CliError, Context, Exit};
use crate::config::Need;
use crate::control::client::Answer;
use crate::control::protocol::Request;
use crate::control::status::Status;

/// Prints what the daemon says of itself.
///
/// # Errors
/// Exit code 1 when no daemon answers, 3 for the configuration.
pub fn run(_args: &StatusArgs, context: &Context) -> Result<(), CliError> {
    let config = context.load(Need::Nothing)?.config;
    let Some(daemon) = context.daemon(&config)? else {
        let text = format!("no daemon answers on {}", config.control_socket.display());
        return Err(CliError::new(Exit::Failed, text));
    };
    let of_client = |error| CliError::of_client(&error);
    let mut answer: Answer<Status, serde_json::Value> =
        daemon.ask(&Request::Status, false).map_err(of_client)?;
    while let Some(status) = answer.next_item().map_err(of_client)? {
        let text =
            serde_json::to_string(&status).map_err(|e| CliError::from_error(Exit::Failed, &e))?;
        writeln!(std::io::stdout(), "{text}").map_err(|error| CliError::of_output(&error))?;
    }
    Ok(())
}
