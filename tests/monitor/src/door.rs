//! An address that is listened on, or kept from others while it is not.
//!
//! Invariant: from [`Door::reserve`] on the port is this door's. A socket bound to it that never
//! listens holds it while the door is shut, so that nobody else is given the port and connections
//! to it are refused, as with a Monitor that is down.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use async_std::net::{TcpListener, TcpStream};
use async_std::task;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt,
};

use crate::tasks::Tasks;

/// An address with its listener and connections.
pub(crate) struct Door {
    addr: SocketAddr,
    _reserved: OwnedFd,
    tasks: Arc<Tasks>,
}

impl Door {
    /// Takes an address without listening on it; port 0 for any free one.
    pub fn reserve(addr: SocketAddr) -> io::Result<Self> {
        let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let reserved = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // With it on both sockets the listener may share the port with the one that reserves it.
        sockopt::set_socket_reuseaddr(&reserved, true)?;
        bind(&reserved, &addr)?;
        let addr = SocketAddr::try_from(getsockname(&reserved)?)?;
        Ok(Self { addr, _reserved: reserved, tasks: Arc::new(Tasks::default()) })
    }

    /// The address, with the port that was given.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Listens, and runs `serve` for every connection.
    pub async fn open<F, C>(&self, serve: F) -> io::Result<()>
    where
        F: Fn(TcpStream) -> C + Send + 'static,
        C: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(self.addr).await?;
        self.tasks.open();
        let tasks = Arc::clone(&self.tasks);
        self.tasks.spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => tasks.spawn(serve(stream)),
                    // Out of file descriptors, mostly: they come back as connections end.
                    Err(_) => task::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        Ok(())
    }

    /// Stops listening and ends every connection, without waiting.
    pub fn shut(&self) {
        self.tasks.close();
    }

    /// Waits until everything that [`Door::shut`] ends has ended.
    pub async fn ended(&self) {
        self.tasks.ended().await;
    }
}
