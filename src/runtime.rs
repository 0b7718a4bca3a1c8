//! The only file that names the async runtime.
//!
//! Everything that runs, waits or touches a socket goes through here, so that the runtime can be
//! replaced in one place.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{AbortHandle, Aborted, FutureExt as _, abortable};

/// A connected TCP socket of the runtime; reads and writes as `futures_util::io` has them.
pub type TcpStream = async_std::net::TcpStream;

/// A listening TCP socket of the runtime.
pub type TcpListener = async_std::net::TcpListener;

/// Runs a future on this thread until it is done. For `main` and tests.
pub fn block_on<F: Future>(future: F) -> F::Output {
    async_std::task::block_on(future)
}

/// A spawned task. Dropping it lets the task run on.
#[derive(Debug)]
pub struct Task<T>(async_std::task::JoinHandle<T>);

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(cx)
    }
}

/// Starts a task that runs on its own.
pub fn spawn<F>(future: F) -> Task<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    Task(async_std::task::spawn(future))
}

/// A task that ends when this is dropped. Waiting for it gives its output.
#[derive(Debug)]
pub struct TaskGuard<T> {
    task: Task<Result<T, Aborted>>,
    abort: AbortHandle,
}

impl<T> Future for TaskGuard<T> {
    /// `None` cannot come about while the guard lives.
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.task).poll(cx).map(Result::ok)
    }
}

impl<T> Drop for TaskGuard<T> {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// Starts a task that lives no longer than the returned guard.
pub fn spawn_guarded<F>(future: F) -> TaskGuard<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (future, abort) = abortable(future);
    TaskGuard { task: spawn(future), abort }
}

/// Starts a task whose panic is told instead of being lost: true when it ended by one.
pub fn spawn_watched<F>(future: F) -> Task<bool>
where
    F: Future<Output = ()> + Send + 'static,
{
    spawn(async move { AssertUnwindSafe(future).catch_unwind().await.is_err() })
}

/// Runs blocking work on a thread of its own. Dropping the task lets the work run on: a blocking
/// call cannot be called off.
///
/// The runtime has a pool for this, but its thread stays for ever and wakes up twice a second,
/// where the daemon has such work a few times a day.
pub fn spawn_blocking<F, T>(work: F) -> Task<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let (sender, result) = channel::bounded(1);
    let work = move || {
        // Room for the one result; whoever waited for it may have gone.
        let _ = sender.try_send(std::panic::catch_unwind(AssertUnwindSafe(work)));
    };
    let work = Arc::new(Mutex::new(Some(work)));
    let own = Arc::clone(&work);
    let started = std::thread::Builder::new().name("hf-blocking".to_owned()).spawn(move || {
        if let Some(work) = take(&own) {
            work();
        }
    });
    if started.is_err()
        && let Some(work) = take(&work)
    {
        // No thread is to be had now; the pool waits until there is one.
        drop(async_std::task::spawn_blocking(work));
    }
    spawn(async move {
        match result.recv().await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            // Only when the pool could not run it either.
            Err(gone) => std::panic::resume_unwind(Box::new(gone)),
        }
    })
}

fn take<W>(work: &Mutex<Option<W>>) -> Option<W> {
    work.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Waits.
pub async fn sleep(duration: Duration) {
    async_std::task::sleep(duration).await;
}

/// Lets the other tasks have their turn.
pub async fn yield_now() {
    async_std::task::yield_now().await;
}

/// The future's output, or `None` when it took longer; the future is dropped then.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Option<F::Output> {
    async_std::future::timeout(duration, future).await.ok()
}

/// Opens a TCP connection to one address.
///
/// # Errors
/// What the operating system says (refused, unreachable, ...).
pub async fn connect_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect(address).await
}

/// Listens on one address.
///
/// # Errors
/// What the operating system says (in use, not permitted, not there, ...).
pub async fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Channels between tasks; senders also work from plain threads.
pub mod channel {
    pub use async_std::channel::{Receiver, Sender, TrySendError, bounded, unbounded};
}

/// A local stream socket: what a signal handler writes to, and a client of the control socket.
pub type UnixStream = async_std::os::unix::net::UnixStream;

/// A listening local socket.
pub type UnixListener = async_std::os::unix::net::UnixListener;

/// Keeps the runtime to one worker thread: the daemon waits far more than it works. To be called
/// before anything else of this module; later it has no effect.
pub fn start() {
    async_global_executor::init_with_config(
        async_global_executor::GlobalExecutorConfig::default()
            .with_min_threads(1)
            .with_max_threads(2)
            .with_thread_name_fn(|| "hf-runtime".to_owned()),
    );
}

/// The clocks: a monotonic one that starts with the process, and the host's date.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// A clock whose monotonic time is 0 now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: std::time::Instant::now() }
    }

    /// Time since the start; never goes backwards.
    #[must_use]
    pub fn mono(&self) -> Duration {
        self.start.elapsed()
    }

    /// The host's date, right or wrong.
    #[must_use]
    pub fn wall(&self) -> std::time::SystemTime {
        std::time::SystemTime::now()
    }
}

/// 64 random bits for jitter. Should the system generator fail, the clock's nanoseconds serve:
/// jitter needs to differ between hosts, not to be secret.
#[must_use]
pub fn seed() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        std::time::SystemTime::now()
            .duration_since(std::time::SystemTime::UNIX_EPOCH)
            .map_or(0, |since| u64::from(since.subsec_nanos()) ^ since.as_secs())
    })
}
