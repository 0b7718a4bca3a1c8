//! Through nginx as it stands in front of most Monitors: TLS and WebSocket proxy, a real process.
//! Skipped, and said so, where there is none.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use async_std::net::TcpStream;
use async_std::task::sleep;
use harborforge_monitor::{Monitor, Options};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{PATIENCE, Site, monitor, real_time, run, spawn};
use crate::{all_by_websocket, ends_well};

/// nginx in front of a Monitor, on a port that stays its own while it is down.
struct Nginx {
    dir: TempDir,
    program: PathBuf,
    addr: SocketAddr,
    _reserved: OwnedFd,
    ca_pem: String,
    process: Option<Child>,
}

/// The program, if it is installed.
fn installed() -> Option<PathBuf> {
    let places = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&places).chain(more).map(|at| at.join("nginx")).find(|at| at.is_file())
}

/// The configuration that docs/OPERATIONS.md shows, with this test's addresses and certificates.
fn documented(at: &str, listen: SocketAddr, upstream: SocketAddr) -> String {
    let text = include_str!("../../docs/OPERATIONS.md");
    let (_, block) = text.split_once("```nginx\n").unwrap();
    let mut block = block.split_once("```").unwrap().0.to_owned();
    for (shown, ours) in [
        ("listen 443 ssl;", format!("listen {listen} ssl;")),
        (
            "# ssl_certificate, ssl_certificate_key",
            format!("ssl_certificate {at}/leaf.pem; ssl_certificate_key {at}/key.pem;"),
        ),
        ("http://127.0.0.1:8080/", format!("http://{upstream}/")),
    ] {
        assert_eq!(block.matches(shown).count(), 1, "{shown} in {block}");
        block = block.replace(shown, &ours);
    }
    block
}

impl Nginx {
    /// In front of `monitor`; not yet running.
    fn before(program: PathBuf, monitor: &Monitor) -> Self {
        let flags = SocketFlags::CLOEXEC;
        let reserved = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
        // nginx sets it too, so both may have the port.
        sockopt::set_socket_reuseaddr(&reserved, true).unwrap();
        bind(&reserved, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let addr = SocketAddr::try_from(getsockname(&reserved).unwrap()).unwrap();

        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &ca).unwrap();

        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("leaf.pem", &leaf.pem());
        write("key.pem", &key.serialize_pem());
        let at = dir.path().display();
        let documented = documented(&at.to_string(), addr, monitor.addr());
        write(
            "nginx.conf",
            &format!(
                "daemon off;
                 master_process off;
                 pid {at}/pid;
                 error_log {at}/error.log;
                 events {{ worker_connections 64; }}
                 http {{
                     access_log off;
                     client_body_temp_path {at}/body;
                     proxy_temp_path {at}/proxy;
                     fastcgi_temp_path {at}/fastcgi;
                     uwsgi_temp_path {at}/uwsgi;
                     scgi_temp_path {at}/scgi;
                     {documented}
                 }}\n"
            ),
        );
        Self { program, addr, _reserved: reserved, ca_pem: ca.pem(), dir, process: None }
    }

    /// Starts it, and waits until it listens.
    async fn start(&mut self) {
        let mut command = Command::new(&self.program);
        command.arg("-p").arg(self.dir.path()).arg("-e").arg(self.dir.path().join("error.log"));
        command.arg("-c").arg(self.dir.path().join("nginx.conf"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = spawn(&mut command);
        let begun = std::time::Instant::now();
        while TcpStream::connect(self.addr).await.is_err() {
            let ended = process.try_wait().unwrap();
            let log = || fs::read_to_string(self.dir.path().join("error.log"));
            assert!(ended.is_none() && begun.elapsed() < PATIENCE, "{ended:?}: {:?}", log());
            sleep(std::time::Duration::from_millis(20)).await;
        }
        self.process = Some(process);
    }

    /// Ends it, with all its connections.
    fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let pid = Pid::from_raw(i32::try_from(process.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        process.wait().unwrap();
    }

    /// A daemon's place behind it.
    fn site(&self, monitor: &Monitor) -> Site {
        let mut site = Site::websocket(monitor);
        let ca = site.write("nginx-ca.pem", &self.ca_pem);
        site.set("ca_file", ca.to_str().unwrap());
        site.set("backend_url", &format!("https://{}/harbor", self.addr));
        site
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // Gone already is as good.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

#[test]
fn through_nginx() {
    let Some(program) = installed() else {
        eprintln!("SKIPPED: nginx is not installed, its part was not tested");
        return;
    };
    run(async {
        let monitor = monitor(Options { ..real_time() }).await;
        let mut nginx = Nginx::before(program, &monitor);
        nginx.start().await;
        let site = nginx.site(&monitor);
        site.fill(1500);
        let mut daemon = site.start();
        daemon.has_appended(1502).await;
        daemon.is_confirmed("websocket").await;
        assert!(all_by_websocket(&monitor));
        assert_eq!((monitor.counts().links, monitor.counts().heartbeats), (1, 0));

        // The proxy is restarted, as at each of its updates.
        nginx.stop();
        let durable = daemon.appended();
        daemon.has_appended(durable + 2).await;
        nginx.start().await;
        daemon.is_confirmed("websocket").await;

        // The Monitor goes, the proxy stays and answers for it.
        monitor.pause().await;
        daemon.complains(&["502"]).await;
        let durable = daemon.appended();
        daemon.has_appended(durable + 2).await;
        monitor.resume().await.unwrap();
        ends_well(&monitor, &site, daemon).await;
        assert!(monitor.counts().links >= 3);
    });
}
