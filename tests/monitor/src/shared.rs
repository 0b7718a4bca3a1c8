//! What all connections of a Monitor share.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use crate::error::Reason;
use crate::journal::Accepted;
use crate::key::Key;
use crate::notify::{Notify, lock};
use crate::rules::Rules;
use crate::schedule::Schedule;
use crate::time::shifted;

/// Something worth telling as it happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// A sample was recorded.
    Accepted(&'a Accepted),
    /// Something was refused.
    Refused(Reason),
}

/// Is told of every [`Event`], on the task it happened on: quick work only.
pub type Observer = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// What changes.
pub(crate) struct State {
    pub rules: Rules,
    pub schedule: Schedule,
    pub key: Arc<Key>,
    /// Seconds by which the Monitor's clock is ahead of the machine's.
    pub clock_offset: i64,
}

/// What all connections share.
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Notify,
    observer: Option<Observer>,
    /// Begins with a slash and does not end with one; or empty.
    pub prefix: String,
}

impl Shared {
    pub fn new(state: State, observer: Option<Observer>, prefix: String) -> Self {
        Self { state: Mutex::new(state), changed: Notify::default(), observer, prefix }
    }

    /// Looks.
    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&lock(&self.state))
    }

    /// Changes something at the Monitor's time, then tells the observer and wakes those who wait.
    pub fn change<T>(&self, change: impl FnOnce(&mut State, SystemTime) -> T) -> T {
        let mut state = lock(&self.state);
        let now = shifted(SystemTime::now(), state.clock_offset);
        let before = self.observer.is_some().then(|| state.rules.journal.counts().clone());
        let result = change(&mut state, now);
        let mut accepted = Vec::new();
        let mut refused = Vec::new();
        if let Some(before) = before {
            let journal = &state.rules.journal;
            accepted = journal.last(journal.counts().unique - before.unique);
            for (reason, count) in &journal.counts().refused {
                if *count > before.refused(*reason) {
                    refused.push(*reason);
                }
            }
        }
        drop(state);
        self.changed.wake();
        if let Some(observer) = &self.observer {
            accepted.iter().for_each(|sample| observer(&Event::Accepted(sample)));
            refused.iter().for_each(|reason| observer(&Event::Refused(*reason)));
        }
        result
    }

    /// The Monitor's time.
    pub fn now(&self) -> SystemTime {
        self.look(|state| shifted(SystemTime::now(), state.clock_offset))
    }

    /// Waits until `holds`.
    pub async fn until(&self, mut holds: impl FnMut(&State) -> bool) {
        self.changed.until(|| self.look(&mut holds)).await;
    }
}
