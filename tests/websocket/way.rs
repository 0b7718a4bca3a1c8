//! The way to the Monitor: TLS, a path prefix, a CONNECT proxy.

use futures_util::join;
use harborforge_monitor::{Options, Tls};

use crate::support::{Site, Tunnel, monitor, real_time, run};
use crate::{all_by_websocket, ends_well};

#[test]
fn over_tls_and_with_a_path_prefix() {
    run(async {
        let both = async |tls: Tls, prefix: &str| {
            let path_prefix = prefix.to_owned();
            let monitor = monitor(Options { tls, path_prefix, ..real_time() }).await;
            let site = Site::websocket(&monitor);
            site.fill(700);
            let mut daemon = site.start();
            daemon.has_appended(701).await;
            ends_well(&monitor, &site, daemon).await;
            assert!(all_by_websocket(&monitor));
            assert_eq!((monitor.counts().links, monitor.counts().heartbeats), (1, 0));
        };
        join!(both(Tls::Good, ""), both(Tls::Off, "/harbor"), both(Tls::Good, "/a/b/"));
    });
}

/// Keys and link go through the proxy, and nothing goes past it.
async fn through(tls: Tls, credentials: &str) {
    let monitor = monitor(Options { tls, path_prefix: "/harbor".to_owned(), ..real_time() }).await;
    let proxy = Tunnel::to(monitor.addr()).await;
    let mut site = Site::websocket(&monitor);
    site.set("proxy", &format!("http://{credentials}{}", proxy.address()));
    if !credentials.is_empty() {
        site.hide("p%40ss");
        site.hide("p@ss");
    }
    site.fill(300);
    let mut daemon = site.start();
    daemon.has_appended(302).await;
    ends_well(&monitor, &site, daemon).await;
    assert!(all_by_websocket(&monitor));
    let requests = proxy.requests();
    let host = monitor.addr();
    for request in &requests {
        assert!(request.starts_with(&format!("CONNECT {host} HTTP/1.1\r\n")), "{request}");
        assert_eq!(request.contains("proxy-authorization: Basic "), !credentials.is_empty());
    }
    assert_eq!(requests.len() as u64, monitor.counts().connections);
}

#[test]
fn through_a_connect_proxy() {
    run(async {
        join!(through(Tls::Off, ""), through(Tls::Good, ""), through(Tls::Good, "us:p%40ss@"),)
    });
}
