//! Names to addresses, by the system's resolver.
//!
//! Invariant: at most one lookup of a host is under way. The system's resolver blocks, cannot be
//! called off and may hang for minutes; were each try to start its own, a network that is down
//! would fill the pool of blocking threads.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use url::Host;

use super::endpoint::Target;
use super::error::TransportError;
use crate::runtime;

type Answer = Result<Vec<SocketAddr>, Arc<io::Error>>;

/// Resolves one host.
#[derive(Debug)]
pub(super) struct Resolver {
    target: Target,
    running: Mutex<Option<Lookup>>,
}

#[derive(Debug)]
struct Lookup {
    /// Set once the resolver has answered: an answer nobody waited for is old news by the time
    /// of the next try, and is asked for again.
    over: Arc<AtomicBool>,
    answer: Shared<BoxFuture<'static, Answer>>,
}

impl Resolver {
    pub(super) fn new(target: Target) -> Self {
        Self { target, running: Mutex::new(None) }
    }

    /// The host's addresses, in the order the system prefers, at least one.
    ///
    /// # Errors
    /// [`TransportError::Dns`].
    pub(super) async fn addresses(&self) -> Result<Vec<SocketAddr>, TransportError> {
        let fixed = |address: IpAddr| Ok(vec![SocketAddr::new(address, self.target.port)]);
        let name = match &self.target.host {
            Host::Ipv4(address) => return fixed((*address).into()),
            Host::Ipv6(address) => return fixed((*address).into()),
            Host::Domain(name) => name,
        };
        let fail = |source| TransportError::Dns { host: name.clone(), source };
        match self.lookup(name).await {
            Ok(addresses) if addresses.is_empty() => Err(fail("the name has no address".into())),
            Ok(addresses) => Ok(addresses),
            Err(error) => Err(fail(Box::new(error))),
        }
    }

    fn lookup(&self, name: &str) -> Shared<BoxFuture<'static, Answer>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lookup) = running.as_ref().filter(|l| !l.over.load(Ordering::Acquire)) {
            return lookup.answer.clone();
        }
        let over = Arc::new(AtomicBool::new(false));
        let (name, port, flag) = (name.to_owned(), self.target.port, Arc::clone(&over));
        let answer = runtime::spawn_blocking(move || {
            let answer = (name.as_str(), port).to_socket_addrs();
            flag.store(true, Ordering::Release);
            answer.map(Iterator::collect).map_err(Arc::new)
        })
        .boxed()
        .shared();
        *running = Some(Lookup { over, answer: answer.clone() });
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver(host: Host<String>) -> Resolver {
        Resolver::new(Target { host, port: 7 })
    }

    #[test]
    fn addresses_are_not_looked_up() {
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let resolver = resolver(Host::Ipv4("192.0.2.1".parse().unwrap()));
        let found = runtime::block_on(resolver.addresses()).unwrap();
        assert_eq!(found, [SocketAddr::new(address, 7)]);
        assert!(resolver.running.lock().unwrap().is_none());
    }

    #[test]
    fn a_finished_lookup_is_not_served_again() {
        let resolver = resolver(Host::Domain("localhost".to_owned()));
        for _ in 0..2 {
            let found = runtime::block_on(resolver.addresses()).unwrap();
            assert!(found.iter().all(|a| a.ip().is_loopback() && a.port() == 7), "{found:?}");
            let running = resolver.running.lock().unwrap();
            assert!(running.as_ref().unwrap().over.load(Ordering::Acquire));
        }
    }

    #[test]
    fn a_running_lookup_is_shared() {
        let resolver = resolver(Host::Domain("m.example".to_owned()));
        let address = "192.0.2.9:7".parse().unwrap();
        *resolver.running.lock().unwrap() = Some(Lookup {
            over: Arc::new(AtomicBool::new(false)),
            answer: async move { Ok(vec![address]) }.boxed().shared(),
        });
        assert_eq!(runtime::block_on(resolver.addresses()).unwrap(), [address]);
        assert_eq!(runtime::block_on(resolver.addresses()).unwrap(), [address]);
    }

    #[test]
    fn a_name_that_cannot_exist_is_a_dns_error() {
        // No label may be longer than 63 bytes: no resolver is asked, none can answer.
        let resolver = resolver(Host::Domain("x".repeat(70)));
        let error = runtime::block_on(resolver.addresses()).unwrap_err();
        assert!(matches!(error, TransportError::Dns { .. }), "{error:?}");
    }
}
