//! A queue is written as the user it belongs to.
//!
//! What root writes there the daemon's own user could not open afterwards. So root starts this
//! program once more as that user, with the same arguments; whoever is neither is refused by the
//! files themselves.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use super::screen::Screen;
use crate::cli::{CliError, Exit};

/// Goes on as the owner of the data directory; returns when that is who this is already.
///
/// # Errors
/// When the program cannot be started as that user, with what to type instead.
pub fn become_owner(data_dir: &Path, config: Option<&Path>, socket: &Path) -> Result<(), CliError> {
    let Ok(owner) = fs::metadata(data_dir) else {
        // Opening it says why.
        return Ok(());
    };
    if !rustix::process::geteuid().is_root() || owner.uid() == 0 {
        return Ok(());
    }
    // What goes wrong from here on is told to that user, though it is root who reads it.
    Screen::note(&format!(
        "{} belongs to user id {}: going on as that user",
        data_dir.display(),
        owner.uid()
    ));
    let error = Command::new("/proc/self/exe")
        .args(arguments(data_dir, config, socket))
        .uid(owner.uid())
        .gid(owner.gid())
        .exec();
    Err(refused(data_dir, owner.uid(), &error))
}

/// The arguments of this process; what root finds elsewhere than others is named.
fn arguments(data_dir: &Path, config: Option<&Path>, socket: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut set = |key: &str, path: &Path| {
        let mut value = OsString::from(format!("{key}="));
        value.push(path);
        arguments.extend([OsString::from("--set"), value]);
    };
    set("data_dir", data_dir);
    set("control_socket", socket);
    // Given on the command line it stands there already, and may not stand twice.
    if let Some(config) = config
        && !arguments.iter().any(|argument| {
            argument == "--config" || argument.to_string_lossy().starts_with("--config=")
        })
    {
        arguments.extend([OsString::from("--config"), config.into()]);
    }
    arguments
}

fn refused(data_dir: &Path, uid: u32, error: &io::Error) -> CliError {
    let dir = data_dir.display();
    let text = format!(
        "{dir} belongs to user {uid}, and this program cannot be started as that user ({error}): \
         run it as that user (sudo -u '#{uid}' harborforge-connector replay)"
    );
    CliError::new(Exit::Failed, text)
}
