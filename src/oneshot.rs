//! One value on its way from a task or thread to another.
//!
//! Invariants:
//! - At most one value is sent. Who waits learns when none will come: the sender was dropped, also
//!   by a panic.
//! - Sending never blocks and never fails: a value that nobody waits for any more is dropped.
//! - All but the two ends is compiled once, whatever is sent: the program has dozens of kinds of
//!   answers, and channels of std and of the runtime are made anew for each, some kilobytes a kind.

use std::any::Any;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A place for one value, and the end to wait at.
#[must_use]
pub fn oneshot<T: Send + 'static>() -> (Sender<T>, Receiver<T>) {
    let place = Arc::new(Place::default());
    let sender = Sender { end: End(Arc::clone(&place)), kind: PhantomData };
    (sender, Receiver { place, kind: PhantomData })
}

/// Where the value is given. Dropping it says that none will come.
#[derive(Debug)]
pub struct Sender<T> {
    end: End,
    kind: PhantomData<fn(T)>,
}

impl<T: Send + 'static> Sender<T> {
    /// Gives the value to whoever waits.
    pub fn send(self, value: T) {
        self.end.give(Box::new(value));
    }
}

/// Where the value is waited for: by a task with `.await`, which gives `None` when none will come, or
/// by a thread with [`Receiver::wait`].
#[derive(Debug)]
pub struct Receiver<T> {
    place: Arc<Place>,
    kind: PhantomData<fn() -> T>,
}

impl<T: 'static> Receiver<T> {
    /// Has this thread wait for the value.
    ///
    /// # Errors
    /// [`Missing::Yet`] after `patience`, and [`Missing::Forever`] when none will come, also because
    /// it was taken before.
    pub fn wait(&self, patience: Duration) -> Result<T, Missing> {
        own(self.place.wait(patience)?).ok_or(Missing::Forever)
    }
}

impl<T: 'static> Future for Receiver<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.place.poll(cx).map(|value| value.and_then(own))
    }
}

/// Why there is no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It may come.
    Yet,
    /// It will not come.
    Forever,
}

type Value = Box<dyn Any + Send>;

/// The value as what it is: both ends are of one kind, so that it always is.
fn own<T: 'static>(value: Value) -> Option<T> {
    value.downcast().ok().map(|value| *value)
}

#[derive(Debug, Default)]
struct Place {
    state: Mutex<State>,
    /// Wakes a thread; a task has its waker.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    value: Option<Value>,
    /// Nothing comes any more.
    over: bool,
    waiting: Option<Waker>,
}

impl Place {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing of others runs under the lock, so that nothing is half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, patience: Duration) -> Result<Value, Missing> {
        let (mut state, _) = self
            .changed
            .wait_timeout_while(self.state(), patience, |state| {
                state.value.is_none() && !state.over
            })
            .unwrap_or_else(PoisonError::into_inner);
        let missing = if state.over { Missing::Forever } else { Missing::Yet };
        state.value.take().ok_or(missing)
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Option<Value>> {
        let mut state = self.state();
        match state.value.take() {
            Some(value) => Poll::Ready(Some(value)),
            None if state.over => Poll::Ready(None),
            None => {
                let waker = Some(cx.waker().clone());
                let before = std::mem::replace(&mut state.waiting, waker);
                drop(state);
                drop(before);
                Poll::Pending
            }
        }
    }
}

/// The sender's end of the place.
#[derive(Debug)]
struct End(Arc<Place>);

impl End {
    fn give(self, value: Value) {
        self.0.state().value = Some(value);
        // Being dropped says the rest.
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.over = true;
        let waiting = state.waiting.take();
        drop(state);
        self.0.changed.notify_all();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::runtime::block_on;

    #[test]
    fn a_value_sent_before_or_after_is_received_once() {
        let (sender, mut receiver) = oneshot();
        assert_eq!((&mut receiver).now_or_never(), None);
        assert_eq!(receiver.wait(Duration::ZERO), Err(Missing::Yet));
        sender.send("a sample".to_owned());
        assert_eq!(receiver.wait(Duration::ZERO).as_deref(), Ok("a sample"));
        assert_eq!(receiver.wait(Duration::MAX), Err(Missing::Forever));
        assert_eq!(receiver.now_or_never(), Some(None));
    }

    #[test]
    fn threads_and_tasks_are_woken_by_a_value_and_by_its_sender_s_end() {
        for value in [Some(7), None] {
            let (sender, receiver) = oneshot();
            let (other, waited) = oneshot();
            let sending = std::thread::spawn(move || {
                if let Some(value) = value {
                    sender.send(value);
                    other.send(value);
                }
            });
            assert_eq!(block_on(receiver), value);
            assert_eq!(waited.wait(Duration::MAX), value.ok_or(Missing::Forever));
            sending.join().unwrap();
        }
    }

    #[test]
    fn a_sender_that_panics_sends_nothing() {
        let (sender, receiver) = oneshot::<u8>();
        let panicking = std::thread::spawn(move || {
            let _sender = sender;
            std::panic::resume_unwind(Box::new("on the way"));
        });
        assert_eq!(receiver.wait(Duration::MAX), Err(Missing::Forever));
        assert!(panicking.join().is_err());
    }

    #[test]
    fn what_nobody_waits_for_is_dropped() {
        let value = Arc::new(());
        let seen: Weak<()> = Arc::downgrade(&value);
        let (sender, receiver) = oneshot();
        drop(receiver);
        sender.send(value);
        assert_eq!(seen.strong_count(), 0);
    }

    #[test]
    fn the_last_to_poll_is_woken() {
        let (sender, mut receiver) = oneshot();
        // Polled by one task, then by another, as `select` does.
        assert_eq!((&mut receiver).now_or_never(), None);
        let sending = std::thread::spawn(move || sender.send(1));
        assert_eq!(block_on(receiver), Some(1));
        sending.join().unwrap();
    }
}
