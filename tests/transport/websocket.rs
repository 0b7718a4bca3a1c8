//! The WebSocket against the reference Monitor: over plain TCP, TLS and a proxy, with everything
//! the Monitor can do to a link.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::io::Write as _;
use std::time::Duration;

use harborforge_connector::crypto::{self, KeyDocument};
use harborforge_connector::protocol::{
    HandshakeAnswer, Hello, MAX_MESSAGE, WebSocketEvent as Event, metrics_message, read_event,
};
use harborforge_connector::runtime::{self, block_on};
use harborforge_connector::sample::{CONNECTOR_VERSION, Envelope};
use harborforge_connector::transport::{
    Deadlines, Endpoint, HttpTransport, Incoming, Phase, Reader, Socket, SocketError,
    TransportError, UpgradeError, WebSocketTransport, Writer,
};
use harborforge_monitor::{
    Capability, Fault, Mode, Monitor, Options, Route, Tls, Transport, test_key,
};
use secrecy::SecretString;
use tempfile::NamedTempFile;

use crate::proxied;
use crate::server::{HURRIED, PATIENT, hold};

const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough for what is not to come to have come.
const A_MOMENT: Duration = Duration::from_millis(100);
const IDENTIFIER: &str = "vps.t1";
const STORED: &[u8] = br#"{"openclaw_version":null,"cpu_pct":12.5,"mem_pct":41.2,"disk_pct":62.0,"swap_pct":0.0,"uptime_seconds":12345,"load_avg":[0.12,0.09,0.03],"agents":[],"last_seen_at":"2026-03-11T21:00:00Z","connector_version":"0.1.0"}"#;

/// A Monitor, and a way to it.
struct Bench {
    monitor: Monitor,
    http: HttpTransport,
    _ca: Option<NamedTempFile>,
}

impl Bench {
    fn new(capabilities: &[Capability]) -> Self {
        let capabilities: BTreeSet<_> = capabilities.iter().copied().collect();
        Self::with(Options { capabilities, ..Options::default() }, |endpoint| endpoint)
    }

    fn with(options: Options, change: impl FnOnce(Endpoint) -> Endpoint) -> Self {
        let options = Options { key: Some(test_key()), ..options };
        let monitor = block_on(Monitor::start(options)).unwrap();
        let ca = monitor.ca_pem().map(|pem| {
            let mut file = NamedTempFile::new().unwrap();
            file.write_all(pem.as_bytes()).unwrap();
            file
        });
        let endpoint = Endpoint::parse(&monitor.url())
            .unwrap()
            .with_deadlines(PATIENT)
            .with_ca_file(ca.as_ref().map(|file| file.path().to_path_buf()));
        let http = HttpTransport::new(change(endpoint)).unwrap();
        Self { monitor, http, _ca: ca }
    }

    async fn open(&self) -> Result<Socket, UpgradeError> {
        WebSocketTransport::new(&self.http).connect().await
    }

    async fn proof(&self, challenge: String) -> String {
        let document = self.http.key_document().await.unwrap();
        let key = KeyDocument::parse(&document.body).unwrap();
        let challenge = SecretString::from(challenge);
        let credential = crypto::Credential::Challenge(&challenge);
        crypto::prove(&key, IDENTIFIER, credential, std::time::SystemTime::now()).unwrap()
    }

    async fn fresh_proof(&self) -> String {
        self.proof(self.monitor.issue_challenge()).await
    }

    /// Shakes hands with a fresh challenge.
    async fn prove(&self) -> Result<HandshakeAnswer, SocketError> {
        let proof = self.fresh_proof().await;
        self.open().await.unwrap().prove_within(&proof, PATIENCE).await
    }

    /// An accepted link that has said hello.
    async fn link(&self) -> (Reader, Writer) {
        let proof = self.fresh_proof().await;
        let mut socket = self.open().await.unwrap();
        let answer = socket.prove_within(&proof, PATIENCE).await.unwrap();
        assert!(matches!(answer, HandshakeAnswer::Accepted { .. }), "{answer:?}");
        let (reader, mut writer) = socket.split();
        let hello = Hello {
            identifier: IDENTIFIER,
            openclaw_version: None,
            agents: &[],
            connector_version: CONNECTOR_VERSION,
        };
        writer.send(hello.message()).await.unwrap();
        (reader, writer)
    }
}

fn metrics(seq: u64) -> Vec<u8> {
    let envelope = Envelope {
        identifier: IDENTIFIER,
        seq,
        epoch: "0198f0c2-0000-4000-8000-0000000000aa",
        replayed: false,
        gaps: &[],
        encrypted_payload: None,
    };
    metrics_message(STORED, &envelope).unwrap()
}

/// What comes next and says something.
async fn next(reader: &mut Reader) -> Result<Incoming, SocketError> {
    loop {
        let incoming = runtime::timeout(PATIENCE, reader.next()).await.expect("something comes");
        if !matches!(incoming, Ok(Incoming::Alive)) {
            return incoming;
        }
    }
}

async fn acked(reader: &mut Reader) -> u64 {
    match next(reader).await.unwrap() {
        Incoming::Text(text) => match read_event(&text) {
            Event::Ack { seq } => seq,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// A whole link: handshake, samples, acknowledgements, a Ping, the goodbye on both sides.
fn whole_link(bench: &Bench) {
    const SAMPLES: u64 = 300;
    block_on(async {
        let (mut reader, mut writer) = bench.link().await;
        for seq in 1..=SAMPLES {
            writer.feed(metrics(seq)).await.unwrap();
        }
        writer.flush().await.unwrap();
        while acked(&mut reader).await < SAMPLES {}
        writer.ping(*b"window 7").await.unwrap();
        assert_eq!(next(&mut reader).await.unwrap(), Incoming::Pong(*b"window 7"));
        writer.close(1000, "done").await.unwrap();
        let goodbye = Incoming::Closed { code: Some(1000), reason: "done".to_owned() };
        assert_eq!(next(&mut reader).await.unwrap(), goodbye);
        assert!(writer.send(metrics(1)).await.is_err(), "nothing after the goodbye");
        assert!(reader.next().await.is_err());
        drop((reader, writer));
    });
    let counts = bench.monitor.counts();
    assert_eq!((counts.unique, counts.duplicates, counts.out_of_order), (SAMPLES, 0, 0));
    assert_eq!((counts.hellos, counts.refused.len()), (1, 0));
    let accepted = bench.monitor.accepted();
    assert!(accepted.iter().all(|one| one.transport == Transport::WebSocket));
    let mut requests = bench.monitor.requests().into_iter();
    let upgrade = requests.find(|seen| seen.route == Route::WebSocket).unwrap();
    let agent = format!("harborforge-connector/{CONNECTOR_VERSION}");
    assert_eq!(upgrade.user_agent.as_deref(), Some(agent.as_str()));
}

fn acknowledging(tls: Tls) -> Options {
    let capabilities = [Capability::Ack, Capability::Resume].into();
    Options { tls, capabilities, path_prefix: "/harbor".into(), ..Options::default() }
}

#[test]
fn a_whole_link_over_plain_tcp() {
    whole_link(&Bench::with(acknowledging(Tls::Off), |endpoint| endpoint));
}

#[test]
fn a_whole_link_over_tls() {
    whole_link(&Bench::with(acknowledging(Tls::Good), |endpoint| endpoint));
}

#[test]
fn a_whole_link_through_a_proxy_with_and_without_tls() {
    for tls in [Tls::Off, Tls::Good] {
        let direct = Bench::with(acknowledging(tls), |endpoint| endpoint);
        let answer = "HTTP/1.1 200 OK\r\n\r\n";
        // One tunnel each for the key document and the WebSocket.
        let key = direct.http.endpoint().clone();
        let (proxy, asked) = proxied::tunnelling(direct.monitor.addr(), answer);
        let through = key.with_proxy(Some(proxied::at(proxy.address, Some(("us", "p@ss")))));
        block_on(async {
            let proof = direct.fresh_proof().await;
            let http = HttpTransport::new(through).unwrap();
            let mut socket = WebSocketTransport::new(&http).connect().await.unwrap();
            let answer = socket.prove_within(&proof, PATIENCE).await.unwrap();
            assert!(matches!(answer, HandshakeAnswer::Accepted { resume_token: Some(_) }));
        });
        let asked = asked.recv().unwrap();
        let target = direct.monitor.addr();
        assert!(asked.starts_with(&format!("CONNECT {target} HTTP/1.1\r\n")), "{asked}");
        assert!(asked.contains("proxy-authorization: Basic "), "{asked}");
    }
}

#[test]
fn a_whole_link_in_segments_of_one_byte_and_in_fragments() {
    for tls in [Tls::Off, Tls::Good] {
        let bench = Bench::with(acknowledging(tls), |endpoint| endpoint);
        bench.monitor.misbehave(Fault::ByteByByte.always());
        bench.monitor.misbehave(Fault::Fragments { bytes: 1 }.always());
        whole_link(&bench);
    }
}

#[test]
fn an_upgrade_answered_otherwise_is_told_apart() {
    let bench = Bench::new(&[]);
    block_on(async {
        let answer = |status, headers: &[(&str, &str)]| {
            let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            bench.monitor.misbehave(
                Fault::Status { status, headers, body: "\u{1b}[31mwhy".into() }
                    .once()
                    .at(Route::WebSocket),
            );
            bench.open()
        };
        for expected in [401, 403] {
            let error = answer(expected, &[]).await.unwrap_err();
            let UpgradeError::Refused { status, said } = error else { panic!("{error:?}") };
            assert_eq!((status, said.as_str()), (expected, "\u{1b}[31mwhy"));
        }
        for (expected, wait) in [(429, Some("120")), (503, None)] {
            let headers: Vec<_> = wait.iter().map(|wait| ("retry-after", *wait)).collect();
            let error = answer(expected, &headers).await.unwrap_err();
            let UpgradeError::Busy { status, retry_after, .. } = error else { panic!("{error:?}") };
            assert_eq!((status, retry_after.as_deref()), (expected, wait));
        }
        for expected in [200, 204, 302, 400, 404, 426, 500, 502, 599] {
            let error = answer(expected, &[("location", "/elsewhere")]).await.unwrap_err();
            let UpgradeError::Answered { status, location, .. } = error else {
                panic!("{error:?}")
            };
            assert_eq!((status, location.as_deref()), (expected, Some("/elsewhere")));
        }
        bench.monitor.configure(|settings| settings.mode = Mode::ApiKey("k".into()));
        let error = bench.open().await.unwrap_err();
        assert!(matches!(error, UpgradeError::Refused { status: 403, .. }), "{error:?}");
        assert!(error.to_string().contains("403"), "{error}");
    });
}

#[test]
fn an_upgrade_that_comes_to_nothing_is_a_transport_error() {
    let bench = Bench::new(&[]);
    block_on(async {
        let after = |fault: Fault| {
            bench.monitor.misbehave(fault.once());
            async {
                match bench.open().await.unwrap_err() {
                    UpgradeError::Transport(error) => error,
                    other => panic!("{other:?}"),
                }
            }
        };
        let error = after(Fault::Garbage).await;
        assert!(matches!(error, TransportError::Http { .. }), "{error:?}");
        let error = after(Fault::HugeHead { bytes: 1 << 20 }).await;
        assert!(matches!(error, TransportError::TooLarge { .. }), "{error:?}");
        for fault in [Fault::Disconnect, Fault::CloseConnection, Fault::ResetConnection] {
            let error = after(fault.clone()).await;
            assert!(matches!(error, TransportError::Closed { .. }), "{fault:?}: {error:?}");
        }
        bench.monitor.pause().await;
        let error = bench.open().await.unwrap_err();
        let refused = matches!(error, UpgradeError::Transport(TransportError::Connect { .. }));
        assert!(refused, "{error:?}");
    });
}

#[test]
fn one_deadline_covers_connecting_and_upgrading() {
    // Enough for a handshake of TLS on a busy machine; the three wait side by side.
    const DIAL: Duration = Duration::from_secs(3);
    let late = |tls, fault: Fault, phase| {
        let deadlines = Deadlines { dial: DIAL, ..PATIENT };
        let bench = Bench::with(Options { tls, ..Options::default() }, |endpoint| {
            endpoint.with_deadlines(deadlines)
        });
        bench.monitor.misbehave(fault.always());
        let error = block_on(bench.open()).unwrap_err();
        let UpgradeError::Transport(TransportError::Timeout { phase: seen, after, .. }) = error
        else {
            panic!("{error:?}")
        };
        assert_eq!((seen, after), (phase, DIAL));
    };
    std::thread::scope(|scope| {
        scope.spawn(|| late(Tls::Off, Fault::Hang, Phase::Answer));
        scope.spawn(|| late(Tls::Good, Fault::Hang, Phase::Answer));
        scope.spawn(|| late(Tls::Good, Fault::IgnoreConnection, Phase::Tls));
    });
}

#[test]
fn a_refusal_counts_though_its_body_never_ends() {
    let deadlines = Deadlines { dial: HURRIED.dial, ..PATIENT };
    let server = crate::server::Server::once(|mut stream| {
        crate::server::read_request(&mut stream);
        let head = b"HTTP/1.1 403 No\r\ncontent-length: 100\r\n\r\nnot you";
        stream.write_all(head).unwrap();
        hold(stream);
    });
    let http = server.transport(deadlines);
    let error = block_on(WebSocketTransport::new(&http).connect()).unwrap_err();
    let UpgradeError::Refused { status: 403, said } = error else { panic!("{error:?}") };
    assert_eq!(said, "not you");
}

#[test]
fn a_proof_is_accepted_refused_or_the_link_is_broken() {
    let bench = Bench::new(&[Capability::Resume]);
    let monitor = &bench.monitor;
    block_on(async {
        let challenge = monitor.issue_challenge();
        for accepted in [true, false] {
            let proof = bench.proof(challenge.clone()).await;
            let answer = bench.open().await.unwrap().prove(&proof).await.unwrap();
            match answer {
                HandshakeAnswer::Accepted { resume_token: Some(token) } => {
                    assert!(accepted && token.len() == 36, "{token}");
                }
                HandshakeAnswer::Refused { said } => assert!(!accepted && !said.is_empty()),
                other => panic!("{other:?}"),
            }
        }
        for (code, words) in [(1008, "policy"), (4000, ""), (4499, "")] {
            let reason = words.to_owned();
            monitor.misbehave(Fault::Close { messages: 1, code, reason }.once());
            let answer = bench.prove().await.unwrap();
            let HandshakeAnswer::Refused { said } = answer else { panic!("{answer:?}") };
            assert!(said == words || said.contains(&code.to_string()), "{said}");
            // The same before the proof was even read.
            monitor.misbehave(Fault::close(0, code).once());
            let answer = bench.prove().await.unwrap();
            assert!(matches!(answer, HandshakeAnswer::Refused { .. }), "{answer:?}");
        }
        for code in [1000, 1001, 1011, 1013, 3000, 4500] {
            monitor.misbehave(Fault::close(1, code).once());
            let error = bench.prove().await.unwrap_err();
            assert!(error.to_string().contains(&code.to_string()), "{error}");
            let SocketError::Closed { code: seen, .. } = error else { panic!("{error:?}") };
            assert_eq!(seen, Some(code));
        }
        for text in ["hello", "[]", "{}", r#"{"event":"ack","seq":1}"#] {
            monitor.misbehave(Fault::Say { messages: 1, text: text.into() }.once());
            assert_eq!(bench.prove().await.unwrap(), HandshakeAnswer::Broken, "{text}");
        }
        monitor.misbehave(Fault::Cut { messages: 1 }.once());
        let error = bench.prove().await.unwrap_err();
        assert!(matches!(error, SocketError::Lost { .. }), "{error:?}");
        monitor.misbehave(Fault::Binary { messages: 1, bytes: 10 }.once());
        let answer = bench.prove().await.unwrap();
        assert!(matches!(answer, HandshakeAnswer::Accepted { .. }), "{answer:?}");
        for silence in [Fault::Silent, Fault::HalfOpen { messages: 0 }] {
            monitor.misbehave(silence.once());
            let proof = bench.fresh_proof().await;
            let error =
                bench.open().await.unwrap().prove_within(&proof, A_MOMENT).await.unwrap_err();
            assert!(matches!(error, SocketError::Silent { after, .. } if after == A_MOMENT));
        }
    });
}

#[test]
fn what_is_no_event_of_ours_is_handed_on_or_skipped() {
    let bench = Bench::new(&[Capability::Ack]);
    block_on(async {
        bench.monitor.misbehave(Fault::Say { messages: 3, text: "\u{0} garbage".into() }.once());
        bench.monitor.misbehave(Fault::Binary { messages: 3, bytes: 100_000 }.once());
        let most = Fault::HugeMessage { messages: 3, bytes: MAX_MESSAGE, fragments: None };
        bench.monitor.misbehave(most.once());
        let (mut reader, mut writer) = bench.link().await;
        writer.send(metrics(1)).await.unwrap();
        assert_eq!(next(&mut reader).await.unwrap(), Incoming::Text("\u{0} garbage".to_owned()));
        assert_eq!(
            runtime::timeout(PATIENCE, reader.next()).await.unwrap().unwrap(),
            Incoming::Alive
        );
        let Incoming::Text(text) = next(&mut reader).await.unwrap() else { panic!() };
        assert_eq!((text.len(), read_event(&text)), (MAX_MESSAGE, Event::Ignored));
        assert_eq!(acked(&mut reader).await, 1);
    });
}

#[test]
fn messages_over_a_mebibyte_end_the_link() {
    let bench = Bench::new(&[Capability::Ack]);
    block_on(async {
        for fragments in [None, Some(1000), Some(MAX_MESSAGE)] {
            let bytes = MAX_MESSAGE + 1;
            bench.monitor.misbehave(Fault::HugeMessage { messages: 2, bytes, fragments }.once());
            let (mut reader, _writer) = bench.link().await;
            let error = next(&mut reader).await.unwrap_err();
            let too_large = matches!(error, SocketError::TooLarge { limit: MAX_MESSAGE, .. });
            assert!(too_large, "{fragments:?}: {error:?}");
            assert!(reader.next().await.is_err(), "and it stays ended");
        }
    });
}

#[test]
fn a_lost_link_is_noticed_by_both_halves() {
    for tls in [Tls::Off, Tls::Good] {
        let bench = Bench::with(Options { tls, ..Options::default() }, |endpoint| endpoint);
        block_on(async {
            bench.monitor.misbehave(Fault::Cut { messages: 3 }.once());
            let (mut reader, mut writer) = bench.link().await;
            writer.send(metrics(1)).await.unwrap();
            let error = next(&mut reader).await.unwrap_err();
            assert!(matches!(error, SocketError::Lost { .. }), "{error:?}");
            let gone = async { while writer.send(metrics(2)).await.is_ok() {} };
            runtime::timeout(PATIENCE, gone).await.expect("the writer notices");
        });
    }
}

/// The words stand in a log: what ended, and no way to somebody's documentation.
#[test]
fn a_link_that_ends_without_the_goodbye_of_tls_is_lost_in_few_words() {
    let bench = Bench::with(acknowledging(Tls::Good), |endpoint| endpoint);
    block_on(async {
        let (mut reader, _writer) = bench.link().await;
        // With something unread, the system would reset the connection instead.
        bench.monitor.wait_for(|books| books.counts().hellos == 1, PATIENCE).await.unwrap();
        bench.monitor.pause().await;
        let error = next(&mut reader).await.unwrap_err();
        assert!(matches!(error, SocketError::Lost { .. }), "{error:?}");
        let cause = error.source().unwrap();
        assert_eq!(cause.to_string(), "without TLS's goodbye");
    });
}

#[test]
fn a_close_in_mid_stream_is_told_with_its_code() {
    let bench = Bench::new(&[Capability::Ack]);
    block_on(async {
        let reason = "restarting".to_owned();
        let close = Fault::Close { messages: 3, code: 1012, reason: reason.clone() };
        bench.monitor.misbehave(close.once());
        let (mut reader, mut writer) = bench.link().await;
        writer.send(metrics(1)).await.unwrap();
        let told = Incoming::Closed { code: Some(1012), reason };
        assert_eq!(next(&mut reader).await.unwrap(), told);
        // The goodbye in return has gone out, although nothing was written or read since: the
        // Monitor waits for it before it lets the connection go.
        let closed = bench.monitor.wait_for(|journal| journal.counts().open <= 1, A_MOMENT * 50);
        closed.await.unwrap();
        assert!(reader.next().await.is_err());
    });
}

#[test]
fn a_peer_that_does_not_read_makes_the_writer_wait_in_bounded_memory() {
    for tls in [Tls::Off, Tls::Good] {
        let bench = Bench::with(Options { tls, ..Options::default() }, |endpoint| endpoint);
        block_on(async {
            bench.monitor.misbehave(Fault::HalfOpen { messages: 2 }.once());
            let (mut reader, mut writer) = bench.link().await;
            let message = vec![b' '; 60_000];
            let mut bytes = 0;
            while let Some(fed) = runtime::timeout(A_MOMENT * 3, writer.feed(message.clone())).await
            {
                fed.unwrap();
                bytes += message.len();
                // The kernel's buffers on both sides take some MiB; ours no more than their limit.
                assert!(bytes < 64 << 20, "it is kept somewhere");
            }
            // Nobody is harmed by the wait: reading goes on.
            assert!(runtime::timeout(A_MOMENT, reader.next()).await.is_none());
            drop((reader, writer));
        });
    }
}

#[test]
fn unanswered_pings_and_acknowledgements_are_simply_missing() {
    let bench = Bench::new(&[Capability::Ack]);
    block_on(async {
        bench.monitor.misbehave(Fault::NeverPong.once());
        let (mut reader, mut writer) = bench.link().await;
        writer.ping(*b"12345678").await.unwrap();
        writer.send(metrics(1)).await.unwrap();
        assert_eq!(acked(&mut reader).await, 1);
        assert!(runtime::timeout(A_MOMENT, reader.next()).await.is_none());
        bench.monitor.misbehave(Fault::AckTwice.once());
        bench.monitor.misbehave(Fault::AckBeyond { by: 1000 }.once());
        let (mut reader, mut writer) = bench.link().await;
        writer.send(metrics(2)).await.unwrap();
        for _ in 0..2 {
            assert_eq!(acked(&mut reader).await, 1002);
        }
    });
}

#[test]
fn messages_that_cannot_be_sent_leave_the_link_alone() {
    let bench = Bench::new(&[Capability::Ack]);
    block_on(async {
        let (mut reader, mut writer) = bench.link().await;
        for bad in [vec![b' '; MAX_MESSAGE + 1], vec![b'"', 0xff, b'"']] {
            let error = writer.send(bad).await.unwrap_err();
            assert!(matches!(error, SocketError::Unsendable { .. }), "{error:?}");
        }
        writer.send(metrics(1)).await.unwrap();
        assert_eq!(acked(&mut reader).await, 1);
    });
}

#[test]
fn dropping_both_halves_closes_the_connection() {
    let bench = Bench::new(&[]);
    block_on(async {
        let (reader, writer) = bench.link().await;
        drop(reader);
        let open = bench.monitor.counts().open;
        drop(writer);
        let closed = bench.monitor.wait_for(|journal| journal.counts().open < open, PATIENCE);
        closed.await.unwrap();
    });
}
