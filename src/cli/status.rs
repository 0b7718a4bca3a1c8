//! `status`: how delivery is doing, on a screen for people and as JSON in a pipe.
//!
//! Invariants: it changes nothing; without a daemon it says what the files say, in constant memory
//! and without reading what the manifest tells, and ends with 1; `--watch` never touches the
//! files, so it is in no daemon's way that wants to start.

mod advice;
mod files;
mod screen;

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use self::screen::Screen;
use super::args::StatusArgs;
use super::terminal::Look;
use super::{CliError, Context, Exit, end_at_once, scratch};
use crate::config::{Config, Need};
use crate::control::client::{Answer, Client, ClientError};
use crate::control::protocol::Request;
use crate::control::status::Status;

/// Between two drawings of `--watch`.
const EVERY: Duration = Duration::from_secs(1);

/// Prints what the daemon says of itself.
///
/// # Errors
/// Exit code 1 when no daemon answers, 3 for the configuration, 130 for Ctrl-C.
pub fn run(args: &StatusArgs, context: &Context) -> Result<(), CliError> {
    let config = context.load(Need::Nothing)?.config;
    let look = Look::of_stdout();
    // A screen where people look, JSON everywhere else.
    let screen = look.width.filter(|_| !args.json).map(|width| Screen::new(width, look.colour));
    if args.watch {
        return watch(screen.as_ref(), &config);
    }
    let socket = config.control_socket.as_path();
    if let Some(daemon) = context.daemon(&config)? {
        let status = ask(daemon).map_err(|error| CliError::of_client(&error))?;
        return show(screen.as_ref(), &status).map_err(|error| CliError::of_output(&error));
    }
    let text = format!("no daemon answers on {}", socket.display());
    scratch::ready()?;
    let (status, trouble) = match files::look(&config) {
        Ok(status) => (status, None),
        Err(error) => (files::nothing(&config), Some(error)),
    };
    show(screen.as_ref(), &status).map_err(|error| CliError::of_output(&error))?;
    let Some(trouble) = trouble else { return Err(CliError::new(Exit::Failed, text)) };
    let error = CliError::of_queue(&trouble, socket);
    // No daemon answers: that is what the exit code says, whatever keeps the files closed.
    let message = format!("{text}, and the files cannot be read: {}", error.message);
    Err(CliError { exit: Exit::Failed, message, chain: error.chain })
}

fn ask(daemon: Client) -> Result<Status, ClientError> {
    let mut answer: Answer<Status, Value> = daemon.ask(&Request::Status, false)?;
    let status = answer.next_item()?;
    status.ok_or_else(|| ClientError::Answer("it ends before the status".to_owned()))
}

fn show(screen: Option<&Screen>, status: &Status) -> io::Result<()> {
    let text = match screen {
        Some(screen) => screen.draw(status, SystemTime::now(), usize::MAX),
        None => json(status)?,
    };
    io::stdout().write_all(text.as_bytes())
}

fn json(status: &Status) -> io::Result<String> {
    Ok(serde_json::to_string(status)? + "\n")
}

/// Draws it every second, until an interrupt or until nobody reads. A daemon that has gone is
/// waited for.
fn watch(screen: Option<&Screen>, config: &Config) -> Result<(), CliError> {
    end_at_once()?;
    let mut stdout = io::stdout();
    let mut gone: Option<SystemTime> = None;
    let mut first = true;
    loop {
        let now = SystemTime::now();
        let status = match Client::connect(&config.control_socket).and_then(ask) {
            Ok(status) => {
                gone = None;
                Ok(status)
            }
            Err(error @ (ClientError::NoDaemon { .. } | ClientError::Cut { .. })) => Err(error),
            Err(ClientError::Io { source, .. }) if source.kind() == io::ErrorKind::Interrupted => {
                continue;
            }
            Err(error @ ClientError::Io { .. }) => Err(error),
            Err(
                error @ (ClientError::Denied { .. }
                | ClientError::Refused(_)
                | ClientError::Answer(_)),
            ) => return Err(CliError::of_client(&error)),
        };
        let rows = rows();
        let text = match (screen, &status) {
            (Some(screen), Ok(status)) => {
                screen.frame(&screen.draw(status, now, rows), first, rows)
            }
            (Some(screen), Err(_)) => {
                let since = *gone.get_or_insert(now);
                screen.frame(&screen.waiting(&config.control_socket, since, now), first, rows)
            }
            (None, Ok(status)) => json(status).map_err(|error| CliError::of_output(&error))?,
            (None, Err(_)) => {
                let nothing = files::nothing(config);
                json(&nothing).map_err(|error| CliError::of_output(&error))?
            }
        };
        first = false;
        let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        written.map_err(|error| match screen {
            Some(_) => CliError::of_terminal(&error),
            None => CliError::of_output(&error),
        })?;
        std::thread::sleep(EVERY);
    }
}

/// Rows of the terminal, asked for each time: it may be resized.
fn rows() -> usize {
    const USUAL: usize = 24;
    let told = rustix::termios::tcgetwinsize(io::stdout()).ok();
    told.map(|size| usize::from(size.ws_row)).filter(|rows| *rows > 0).unwrap_or(USUAL)
}

/// Where the daemon was looked for, for a message.
fn place(path: &Path) -> String {
    path.display().to_string()
}
