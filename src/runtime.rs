//! The only file that names the async runtime.
//!
//! Everything that runs, waits or touches a socket goes through here, so that the runtime can be
//! replaced in one place.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{AbortHandle, Aborted, abortable};

/// A connected TCP socket of the runtime; reads and writes as `futures_util::io` has them.
pub type TcpStream = async_std::net::TcpStream;

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

/// Runs blocking work on the runtime's pool for it. Dropping the task lets the work run on: a
/// blocking call cannot be called off.
pub fn spawn_blocking<F, T>(work: F) -> Task<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    Task(async_std::task::spawn_blocking(work))
}

/// Waits.
pub async fn sleep(duration: Duration) {
    async_std::task::sleep(duration).await;
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
