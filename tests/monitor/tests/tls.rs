//! TLS: the good certificate, and each wrong one refused by a client for its own reason.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]
// Reason: a test says in one word what must hold, and is no one's interface.
// The helpers are shared by several test programs, none of which uses all of them.
#[allow(dead_code)]
mod common;

use std::io::Error;
use std::sync::Arc;

use async_std::net::TcpStream;
use common::{options, parse, request, run};
use futures_rustls::TlsConnector;
use futures_rustls::rustls::crypto::ring;
use futures_rustls::rustls::{ClientConfig, RootCertStore};
use futures_util::io::{AsyncReadExt, AsyncWriteExt};
use harborforge_monitor::{Monitor, Options, Tls};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

async fn start(tls: Tls) -> Monitor {
    Monitor::start(Options { tls, ..options() }).await.unwrap()
}

/// Asks for the key, trusting the Monitor's CA.
async fn ask(monitor: &Monitor, name: &str) -> Result<Vec<u8>, Error> {
    let mut roots = RootCertStore::empty();
    let pem = monitor.ca_pem().unwrap();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(monitor.addr()).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    stream.write_all(&request("GET", "/monitor/public/server-public-key", "", b"")).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

#[test]
fn the_good_one_serves_by_name_and_by_address() {
    run(async {
        let monitor = start(Tls::Good).await;
        assert!(monitor.url().starts_with("https://127.0.0.1:"));
        for name in ["localhost", "127.0.0.1"] {
            assert_eq!(parse(&ask(&monitor, name).await.unwrap()).status, 200);
        }
    });
}

#[test]
fn each_wrong_one_is_refused_for_its_own_reason() {
    run(async {
        for (tls, why) in [
            (Tls::Expired, "Expired"),
            (Tls::NotYetValid, "NotValidYet"),
            (Tls::WrongHost, "NotValidForName"),
            (Tls::UnknownCa, "UnknownIssuer"),
            (Tls::SelfSigned, "UnknownIssuer"),
        ] {
            let monitor = start(tls).await;
            let refused = ask(&monitor, "localhost").await.unwrap_err();
            let said = format!("{refused:?}");
            assert!(said.contains(why), "{tls:?}: {said}");
            assert_eq!(monitor.counts().requests, 0);
        }
    });
}

#[test]
fn faults_and_outages_work_under_tls_as_well() {
    run(async {
        let monitor = start(Tls::Good).await;
        monitor.misbehave(harborforge_monitor::Fault::CutAnswer { after: 30 }.once());
        assert_eq!(ask(&monitor, "localhost").await.unwrap().len(), 30);
        monitor.pause().await;
        assert!(ask(&monitor, "localhost").await.is_err());
        monitor.resume().await.unwrap();
        assert_eq!(parse(&ask(&monitor, "localhost").await.unwrap()).status, 200);
    });
}
