//! TLS: whom the transport trusts, and how it says that it does not.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use futures_rustls::rustls::server::WebPkiClientVerifier;
use futures_rustls::rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned, crypto::ring, version,
};
use harborforge_connector::runtime::block_on;
use harborforge_connector::transport::{
    AnchorFault, Answer, Deadlines, Endpoint, HttpTransport, Phase, TlsFault, TransportError,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::NamedTempFile;

use crate::server::{HURRIED, PATIENT, Script, Server, finish, hold};

pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntrue";

/// A certificate authority of our own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

impl Authority {
    pub fn new() -> Self {
        Self::named("authority of the tests")
    }

    fn named(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    pub fn file(&self) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(self.certificate.pem().as_bytes()).unwrap();
        file
    }

    /// A server's certificate for these names, valid between these years.
    fn leaf(&self, names: &[&str], years: (i32, i32)) -> Identity {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    /// A server on loopback that answers every request on a connection with [`OK`].
    pub fn config(&self) -> Arc<ServerConfig> {
        server_config(self.leaf(&["127.0.0.1", "localhost"], LONG))
    }
}

type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);
const LONG: (i32, i32) = (2020, 2120);

fn server_config(identity: Identity) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![identity.0], identity.1)
        .unwrap();
    Arc::new(config)
}

/// Speaks TLS and answers every request with `answer`.
pub fn answering(config: Arc<ServerConfig>, answer: &'static [u8]) -> Script {
    Box::new(move |stream| {
        let session = ServerConnection::new(config).unwrap();
        let mut tls = StreamOwned::new(session, stream);
        let mut text = Vec::new();
        let mut byte = [0];
        while matches!(tls.read(&mut byte), Ok(1)) {
            text.push(byte[0]);
            if text.ends_with(b"\r\n\r\n") {
                text.clear();
                let _ = tls.write_all(answer);
                let _ = tls.flush();
                if !answer.windows(15).any(|part| part == b"content-length:") {
                    // The answer ends with the connection, and without TLS's own goodbye.
                    break;
                }
            }
        }
        // An alert must not be lost to a reset.
        finish(tls.sock);
    })
}

fn endpoint(host: &str, server: &Server, ca_file: Option<&Path>) -> Endpoint {
    let url = format!("https://{host}:{}/", server.address.port());
    Endpoint::parse(&url)
        .unwrap()
        .with_ca_file(ca_file.map(Path::to_path_buf))
        .with_deadlines(PATIENT)
}

fn get(endpoint: Endpoint) -> Result<Answer, TransportError> {
    block_on(HttpTransport::new(endpoint)?.key_document())
}

/// The fault with which a server of this identity is refused.
fn fault(identity: Identity, ca_file: &Path) -> (TlsFault, String) {
    let server = Server::new(vec![answering(server_config(identity), OK)]);
    match get(endpoint("127.0.0.1", &server, Some(ca_file))) {
        Err(error) => {
            let text = error.to_string();
            let TransportError::Tls { fault, .. } = error else { panic!("{error:?}") };
            (fault, text)
        }
        Ok(answer) => panic!("accepted: {answer:?}"),
    }
}

#[test]
fn a_server_of_our_authority_is_trusted_by_address_and_by_name() {
    let authority = Authority::new();
    let ca = authority.file();
    for host in ["127.0.0.1", "localhost"] {
        let server = Server::new(vec![answering(authority.config(), OK)]);
        let transport = HttpTransport::new(endpoint(host, &server, Some(ca.path()))).unwrap();
        block_on(async {
            for _ in 0..3 {
                assert_eq!(transport.key_document().await.unwrap().body, b"true");
            }
        });
        assert_eq!(server.accepted(), 1, "the connection is used again");
    }
}

#[test]
fn both_versions_of_tls_are_spoken() {
    let authority = Authority::new();
    let ca = authority.file();
    for version in [&version::TLS12, &version::TLS13] {
        let (certificate, key) = authority.leaf(&["127.0.0.1"], LONG);
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let server = Server::new(vec![answering(Arc::new(config), OK)]);
        assert_eq!(get(endpoint("127.0.0.1", &server, Some(ca.path()))).unwrap().status, 200);
    }
}

#[test]
fn each_fault_of_a_certificate_has_its_own_words() {
    let authority = Authority::new();
    let ca = authority.file();
    let here: &[&str] = &["127.0.0.1"];

    let (fault_seen, text) = fault(Authority::named("another").leaf(here, LONG), ca.path());
    assert_eq!(fault_seen, TlsFault::UnknownIssuer);
    assert!(text.contains("ca_file"), "{text}");

    let (fault_seen, text) = fault(Authority::new().leaf(here, LONG), ca.path());
    assert_eq!(fault_seen, TlsFault::BadSignature);
    assert!(text.contains("made anew"), "{text}");

    let (fault_seen, text) = fault(authority.leaf(&["other.example"], LONG), ca.path());
    assert!(matches!(fault_seen, TlsFault::WrongHost { .. }), "{fault_seen:?}");
    assert!(text.contains("other.example") && text.contains("127.0.0.1"), "{text}");

    let (fault_seen, text) = fault(authority.leaf(here, (2020, 2021)), ca.path());
    assert!(matches!(fault_seen, TlsFault::Expired { ended: Some(_) }), "{fault_seen:?}");
    assert!(text.contains("expired (2021-01-01T00:00:00Z)"), "{text}");

    let (fault_seen, text) = fault(authority.leaf(here, (2110, 2120)), ca.path());
    assert!(matches!(fault_seen, TlsFault::NotYetValid { begins: Some(_) }), "{fault_seen:?}");
    assert!(text.contains("not valid yet (2110-01-01T00:00:00Z)"), "{text}");
    assert!(text.contains("clock"), "{text}");
}

#[test]
fn a_ca_certificate_in_the_servers_place_is_named_as_such() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    let mut ca = NamedTempFile::new().unwrap();
    ca.write_all(certificate.pem().as_bytes()).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let (fault, text) = fault((certificate.der().clone(), key), ca.path());
    assert_eq!(fault, TlsFault::CaAsServer);
    assert!(text.contains("CA:TRUE"), "{text}");
}

#[test]
fn a_changed_ca_file_is_read_again_after_a_refusal() {
    let (old, new) = (Authority::new(), Authority::named("new"));
    let ca = old.file();
    let server = Server::new((0..4).map(|_| answering(new.config(), OK)).collect());
    let transport = HttpTransport::new(endpoint("127.0.0.1", &server, Some(ca.path()))).unwrap();
    block_on(async {
        let unknown =
            |error| matches!(error, TransportError::Tls { fault: TlsFault::UnknownIssuer, .. });
        assert!(unknown(transport.key_document().await.unwrap_err()));
        // A file that is gone leaves the old anchors.
        let kept = std::fs::read(ca.path()).unwrap();
        std::fs::write(ca.path(), "").unwrap();
        assert!(unknown(transport.key_document().await.unwrap_err()));
        std::fs::write(ca.path(), [kept, new.certificate.pem().into_bytes()].concat()).unwrap();
        assert_eq!(transport.key_document().await.unwrap().status, 200);
    });
}

#[test]
fn what_does_not_speak_tls_is_said_not_to() {
    let ca = Authority::new().file();
    for greeting in ["HTTP/1.1 400 Bad Request\r\n\r\n", "SSH-2.0-OpenSSH_9.6\r\n"] {
        let server = Server::once(move |mut stream| {
            stream.write_all(greeting.as_bytes()).unwrap();
            finish(stream);
        });
        let error = get(endpoint("127.0.0.1", &server, Some(ca.path()))).unwrap_err();
        let not_tls = matches!(&error, TransportError::Tls { fault: TlsFault::NotTls, .. });
        assert!(not_tls, "{error:?}");
    }
}

#[test]
fn a_hang_in_the_handshake_ends_at_the_dial_deadline() {
    let ca = Authority::new().file();
    let server = Server::once(hold);
    // The request's own time is far away.
    let deadlines = Deadlines { dial: HURRIED.dial, ..PATIENT };
    let endpoint = endpoint("127.0.0.1", &server, Some(ca.path())).with_deadlines(deadlines);
    let error = get(endpoint).unwrap_err();
    let TransportError::Timeout { phase, after, .. } = error else { panic!("{error:?}") };
    assert_eq!((phase, after), (Phase::Tls, HURRIED.dial));
}

#[test]
fn a_hangup_in_the_handshake_is_a_closed_connection() {
    let ca = Authority::new().file();
    let server = Server::once(|mut stream: TcpStream| {
        let mut some = [0; 64];
        stream.read_exact(&mut some).unwrap();
        finish(stream);
    });
    let error = get(endpoint("127.0.0.1", &server, Some(ca.path()))).unwrap_err();
    assert!(matches!(error, TransportError::Closed { phase: Phase::Tls, .. }), "{error:?}");
}

#[test]
fn a_server_that_wants_a_certificate_of_ours_is_an_alert() {
    let authority = Authority::new();
    let ca = authority.file();
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.der().clone()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
    let (certificate, key) = authority.leaf(&["127.0.0.1"], LONG);
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let server = Server::new(vec![answering(Arc::new(config), OK)]);
    let error = get(endpoint("127.0.0.1", &server, Some(ca.path()))).unwrap_err();
    assert!(matches!(&error, TransportError::Tls { fault: TlsFault::Alert, .. }), "{error:?}");
}

#[test]
fn a_body_that_ends_without_tls_saying_so_is_cut() {
    let authority = Authority::new();
    let ca = authority.file();
    let cut = b"HTTP/1.1 200 OK\r\n\r\n{\"ok\":true}";
    let server = Server::new(vec![answering(authority.config(), cut)]);
    let error = get(endpoint("127.0.0.1", &server, Some(ca.path()))).unwrap_err();
    assert!(matches!(error, TransportError::Closed { phase: Phase::Body, .. }), "{error:?}");
}

#[test]
fn unusable_ca_files_are_errors_that_name_the_file() {
    let server = Server::new(Vec::new());
    let empty = NamedTempFile::new().unwrap();
    let garbage = NamedTempFile::new().unwrap();
    std::fs::write(
        garbage.path(),
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let gone = Path::new("/nonexistent/ca.pem");
    for (path, expected) in [
        (gone, AnchorFault::Unreadable(gone.to_path_buf())),
        (empty.path(), AnchorFault::Empty(empty.path().to_path_buf())),
        (garbage.path(), AnchorFault::Empty(garbage.path().to_path_buf())),
    ] {
        let error = HttpTransport::new(endpoint("127.0.0.1", &server, Some(path))).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        let TransportError::TrustAnchors { fault, .. } = error else { panic!("{error:?}") };
        assert_eq!(fault, expected);
    }
}
