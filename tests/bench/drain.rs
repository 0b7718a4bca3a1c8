//! How fast a backlog goes out, by each way there is, against a bare WebSocket sender of the same
//! bytes in the same run. A plain program (`cargo bench --bench drain`); it prints figures and
//! asserts none, since they are the machine's as much as the daemon's.
//!
//! The daemon is the real program on a queue filled beforehand; the Monitor (and the yardstick's
//! sink) is a process of its own, plain TCP on loopback. Time is taken at the receiver, from the
//! first sample to the last.

// A bench may say in one word what must hold; clippy only knows that inside `#[test]`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod samples;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::Message;
use async_tungstenite::tungstenite::protocol::Role;
use futures_util::{SinkExt as _, StreamExt as _};
use harborforge_connector::runtime::{self, block_on};
use harborforge_monitor::{Capability, Monitor, Options, test_key};
use harborforge_storage::{NewRecord, Options as QueueOptions, Queue, Stamp};

use samples::sample;

const SAMPLES: u64 = 200_000;
const PAYLOAD: usize = 500;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // `cargo test --benches` and `cargo bench -- --test` only want to know that it builds.
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    match arguments.iter().position(|argument| argument == "--monitor") {
        Some(at) => return monitor(&arguments[at + 1], arguments[at + 2].parse().unwrap()),
        None if arguments.iter().any(|argument| argument == "--sink") => return sink(),
        None => {}
    }
    println!("drain of waiting samples of {PAYLOAD} bytes over loopback\n");
    println!("{:<40} {:>9} {:>12} {:>8}", "", "samples", "samples/s", "of bare");
    let bare = bare();
    row("bare WebSocket sender (yardstick)", SAMPLES, bare, bare);
    for (what, capabilities, transport, samples) in [
        ("WebSocket with acks", "ack", "websocket", SAMPLES),
        ("WebSocket with the Ping barrier", "", "websocket", SAMPLES),
        ("heartbeats in batches", "batch", "http", SAMPLES),
        ("heartbeats one by one", "", "http", SAMPLES / 20),
    ] {
        row(what, samples, drain(capabilities, transport, samples, None), bare);
    }
    let line = Line::default();
    let passed = line.passed.clone();
    let began = Instant::now();
    drain("ack", "websocket", SLOW_SAMPLES, Some(line));
    // The fetch of the key, the handshake and the ramp are part of it.
    let used = passed.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64() / LINE;
    println!(
        "\nWebSocket with acks, a line of 1 Mbit/s and 300 ms: {:.0}% of it used, from the start \
         of the daemon to the last of {SLOW_SAMPLES} samples",
        used * 100.0
    );
}

/// A slow line: bytes a second, and half of its 300 ms each way.
const LINE: f64 = 125_000.0;
const DELAY: Duration = Duration::from_millis(150);
const SLOW_SAMPLES: u64 = 4_000;

/// What stands between the daemon and the Monitor, and how many bytes went through to the latter.
#[derive(Default)]
struct Line {
    passed: Arc<AtomicU64>,
}

impl Line {
    /// Opens the line to an address; gives the one to use instead.
    fn open(self, target: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let Ok(far) = TcpStream::connect(target) else { continue };
                let up = (near.try_clone().unwrap(), far.try_clone().unwrap());
                direction(up.0, up.1, Some(self.passed.clone()));
                direction(far, near, None);
            }
        });
        address
    }
}

/// Carries bytes one way: no faster than the line, and late.
fn direction(mut from: TcpStream, mut to: TcpStream, passed: Option<Arc<AtomicU64>>) {
    // As much as a router's buffer: beyond it the sender waits.
    let (sender, receiver) = mpsc::sync_channel::<(Instant, Vec<u8>)>(64);
    std::thread::spawn(move || {
        let mut free = Instant::now();
        let mut buffer = [0; 1_400];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            free = free.max(Instant::now()) + Duration::from_secs_f64(count as f64 / LINE);
            if sender.send((free + DELAY, buffer[..count].to_vec())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        while let Ok((due, bytes)) = receiver.recv() {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                return;
            }
            if let Some(passed) = &passed {
                passed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
}

fn row(what: &str, samples: u64, rate: f64, bare: f64) {
    println!("{what:<40} {samples:>9} {rate:>12.0} {:>7.0}%", rate / bare * 100.0);
}

fn myself(arguments: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

fn said(out: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// The Monitor's process: says where it is, and in the end the rate at which samples came.
fn monitor(capabilities: &str, samples: u64) {
    let offered = match capabilities {
        "ack" => vec![Capability::Ack],
        "batch" => vec![Capability::Batch],
        _ => vec![],
    };
    let options = Options {
        key: Some(test_key()),
        capabilities: offered.into_iter().collect(),
        lenient: true,
        keep: 16,
        ..Options::default()
    };
    block_on(async {
        let monitor = Monitor::start(options).await.unwrap();
        println!("{} {}", monitor.url(), monitor.issue_challenge());
        let patience = Duration::from_secs(600);
        monitor.wait_for(|books| books.counts().unique > 0, patience).await.unwrap();
        let began = Instant::now();
        monitor.wait_for(|books| books.counts().unique >= samples, patience).await.unwrap();
        println!("{}", samples as f64 / began.elapsed().as_secs_f64());
    });
}

fn drain(capabilities: &str, transport: &str, samples: u64, line: Option<Line>) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    fill(&dir.path().join("data"), samples);
    let (mut monitor, mut out) = myself(&["--monitor", capabilities, &samples.to_string()]);
    let place = said(&mut out);
    let (url, challenge) = place.split_once(' ').unwrap();
    let url = match line {
        Some(line) => {
            let target = url.trim_start_matches("http://").trim_end_matches('/');
            format!("http://{}", line.open(target.parse().unwrap()))
        }
        None => url.to_owned(),
    };
    let mut daemon = daemon(dir.path(), &url, challenge, transport);
    let rate = said(&mut out).parse().unwrap();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    monitor.wait().unwrap();
    rate
}

fn fill(data_dir: &Path, samples: u64) {
    fs::create_dir_all(data_dir).unwrap();
    let stamp = Stamp { wall_ms: 1_773_262_800_000, boot_ms: 1, boot_id: [1; 16] };
    let (mut queue, _) = Queue::open(data_dir, QueueOptions::default(), stamp).unwrap();
    for batch in 0..samples / 500 {
        let payloads: Vec<_> = (0..500).map(|n| sample(batch * 500 + n, PAYLOAD)).collect();
        let records: Vec<_> = payloads.iter().map(|payload| NewRecord { stamp, payload }).collect();
        queue.append(&records).unwrap();
        queue.maintain(stamp).unwrap();
    }
    queue.close().unwrap();
}

fn daemon(dir: &Path, url: &str, challenge: &str, transport: &str) -> Child {
    let config = dir.join("config.toml");
    let text = format!(
        "backend_url = {url:?}\nidentifier = \"bench\"\nchallenge_uuid = {challenge:?}\n\
         report_interval = \"1h\"\ntransport = {transport:?}\ndata_dir = {:?}\n\
         control_socket = {:?}\nlog_level = \"error\"\nretain_sent = \"0s\"\n",
        dir.join("data"),
        dir.join("control.sock"),
    );
    fs::write(&config, text).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    Command::new(env!("CARGO_BIN_EXE_harborforge-connector"))
        .arg("--config")
        .arg(config)
        .arg("run")
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

/// The yardstick's receiver: counts messages, and says the rate in the end.
fn sink() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    let (stream, _) = listener.accept().unwrap();
    block_on(async {
        let stream = runtime::TcpStream::from(stream);
        let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
        let mut began = None;
        let mut count = 0;
        while count < SAMPLES {
            let message = socket.next().await.unwrap().unwrap();
            began.get_or_insert_with(Instant::now);
            count += u64::from(message.is_text());
        }
        println!("{}", SAMPLES as f64 / began.unwrap().elapsed().as_secs_f64());
    });
}

/// Messages of the same bytes, made anew each like the daemon's, and nothing else.
fn bare() -> f64 {
    let (mut child, mut out) = myself(&["--sink"]);
    let stream = TcpStream::connect(said(&mut out)).unwrap();
    stream.set_nodelay(true).unwrap();
    let text = String::from_utf8(sample(1, PAYLOAD)).unwrap();
    let rate = block_on(async {
        let stream = runtime::TcpStream::from(stream);
        let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        for seq in 0..SAMPLES {
            let message = format!(
                r#"{{"event":"server.metrics","seq":{seq},"payload":{{"identifier":"bench","seq":{seq},"sample_id":"0198f0c2-0000-4000-8000-000000000000-{seq}",{}}}"#,
                &text[1..]
            );
            socket.feed(Message::from(message)).await.unwrap();
        }
        socket.flush().await.unwrap();
        said(&mut out).parse().unwrap()
    });
    child.wait().unwrap();
    rate
}
