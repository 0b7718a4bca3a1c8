//! A group of tasks that ends together.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};

use async_std::task;
use futures_util::future::{AbortHandle, Abortable};

use crate::notify::{Notify, lock};

/// Tasks that can be ended together; none starts while the group is closed.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    group: Mutex<Group>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct Group {
    closed: bool,
    next: u64,
    running: HashMap<u64, AbortHandle>,
}

/// Leaves the group when the task is over, however it ends.
struct Membership {
    tasks: Arc<Tasks>,
    number: u64,
}

impl Drop for Membership {
    fn drop(&mut self) {
        lock(&self.tasks.group).running.remove(&self.number);
        self.tasks.ended.wake();
    }
}

impl Tasks {
    /// Runs a task in the group; does nothing, and drops it, when the group is closed.
    pub fn spawn(self: &Arc<Self>, future: impl Future<Output = ()> + Send + 'static) {
        let (handle, registration) = AbortHandle::new_pair();
        let mut group = lock(&self.group);
        if group.closed {
            return;
        }
        let number = group.next;
        group.next += 1;
        group.running.insert(number, handle);
        drop(group);
        let membership = Membership { tasks: Arc::clone(self), number };
        task::spawn(async move {
            // Field order of an async block is not its drop order: the membership has to outlive
            // the future, so that "ended" means that its sockets are closed.
            let _membership = membership;
            let _ = Abortable::new(future, registration).await;
        });
    }

    /// Closes the group and tells every task to end.
    pub fn close(&self) {
        let mut group = lock(&self.group);
        group.closed = true;
        for handle in group.running.values() {
            handle.abort();
        }
    }

    /// Lets tasks start again.
    pub fn open(&self) {
        lock(&self.group).closed = false;
    }

    /// Waits until no task of the group runs.
    pub async fn ended(&self) {
        self.ended.until(|| lock(&self.group).running.is_empty()).await;
    }
}
