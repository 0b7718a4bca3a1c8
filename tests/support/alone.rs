//! Why tests of one process that open queues and start programs must take turns: between fork and
//! exec a child has the files of the whole process, and with them the lock of a queue that another
//! test has open. The lock then outlives the closing of the queue for a moment.

#![allow(dead_code, reason = "each test file uses its own part of these helpers")]

use std::process::{Child, Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

static FORKS: Mutex<()> = Mutex::new(());

/// Held by whoever has a queue open.
pub fn alone() -> MutexGuard<'static, ()> {
    // A test that failed meanwhile leaves nothing half done.
    FORKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a process; it has replaced its image when this returns.
pub fn spawn(command: &mut Command) -> Child {
    let _alone = alone();
    command.spawn().unwrap()
}

/// What a program that ends by itself printed; its outputs must be piped.
pub fn output(command: &mut Command) -> Output {
    spawn(command).wait_with_output().unwrap()
}
