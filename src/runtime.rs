//! The only file that names the async runtime.
//!
//! Everything that runs, waits or touches a socket goes through here, so that the runtime can be
//! replaced in one place.

use std::any::Any;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{AbortHandle, FutureExt as _, abortable};

use crate::oneshot;

/// A connected TCP socket of the runtime; reads and writes as `futures_util::io` has them.
pub type TcpStream = async_std::net::TcpStream;

/// A listening TCP socket of the runtime.
pub type TcpListener = async_std::net::TcpListener;

/// What is spawned, as the runtime sees it: of one kind, since everything of a task is compiled anew
/// for each kind of future, some kilobytes for each place that starts one.
type Erased = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs a future on this thread until it is done. For `main` and tests.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let future: Pin<Box<dyn Future<Output = F::Output>>> = Box::pin(future);
    async_std::task::block_on(future)
}

/// A spawned task. Dropping it lets the task run on; waiting for one that panicked panics too.
#[derive(Debug)]
pub struct Task<T>(oneshot::Receiver<Result<T, Panic>>);

/// What a panic carries.
type Panic = Box<dyn Any + Send>;

impl<T: 'static> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(cx).map(|result| match result {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            // The runtime has let it go, or no thread could be had for it.
            None => std::panic::resume_unwind(Box::new("a task did not run to its end")),
        })
    }
}

/// Starts a task that runs on its own.
pub fn spawn<F>(future: F) -> Task<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (future, task) = erased(future);
    drop(async_std::task::spawn(future));
    task
}

/// The future as the runtime gets it, and where its result comes.
fn erased<F>(future: F) -> (Erased, Task<F::Output>)
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (sender, result) = oneshot::oneshot();
    let future = AssertUnwindSafe(future).catch_unwind().map(|result| sender.send(result));
    (Box::pin(future), Task(result))
}

/// A task that ends when this is dropped. Waiting for it gives its output.
#[derive(Debug)]
pub struct TaskGuard<T> {
    task: Task<T>,
    abort: AbortHandle,
}

impl<T: 'static> Future for TaskGuard<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.task).poll(cx)
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
    let (future, task) = erased(future);
    let (future, abort) = abortable(future);
    // Whether it came to its end is for who waits for the task.
    let future: Erased = Box::pin(future.map(drop));
    drop(async_std::task::spawn(future));
    TaskGuard { task, abort }
}

/// Starts a task whose panic is told instead of being lost: true when it ended by one.
pub fn spawn_watched<F>(future: F) -> Task<bool>
where
    F: Future<Output = ()> + Send + 'static,
{
    spawn(AssertUnwindSafe(future).catch_unwind().map(|ended| ended.is_err()))
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
    let (sender, result) = oneshot::oneshot();
    on_a_thread(Box::new(move || {
        sender.send(std::panic::catch_unwind(AssertUnwindSafe(work)));
    }));
    Task(result)
}

/// Blocking work that tells its result itself.
type Work = Box<dyn FnOnce() + Send>;

fn on_a_thread(work: Work) {
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
}

fn take(work: &Mutex<Option<Work>>) -> Option<Work> {
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
