//! The Monitor in a process of its own, and a counted way to it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harborforge_connector::runtime::block_on;
use harborforge_monitor::{Capability, Monitor, Options, Tls, test_key};

const PATIENCE: Duration = Duration::from_secs(600);

/// The process: it does what its standard input says, line by line, and answers each with a line.
pub fn serve() {
    let options = Options {
        key: Some(test_key()),
        capabilities: [Capability::Ack, Capability::Resume, Capability::Batch].into(),
        tls: Tls::Good,
        lenient: true,
        keep: 16,
        ..Options::default()
    };
    let monitor = block_on(Monitor::start(options)).unwrap();
    let unique = || monitor.counts().unique;
    let reaches = |count| {
        block_on(monitor.wait_for(|books| books.counts().unique >= count, PATIENCE)).unwrap();
    };
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (word, count) = line.split_once(' ').unwrap_or((&line, "0"));
        let count: u64 = count.parse().unwrap();
        match word {
            "url" => println!("{}", monitor.url()),
            "ca" => println!("{:?}", monitor.ca_pem().unwrap()),
            "challenge" => println!("{}", monitor.issue_challenge()),
            "pause" => {
                block_on(monitor.pause());
                println!("done");
            }
            "unique" => println!("{}", unique()),
            "reaches" => {
                reaches(count);
                println!("done");
            }
            // Seconds from the first new sample to the last of so many; to be back means not to be
            // paused any more.
            "takes" | "back" => {
                let before = unique();
                if word == "back" {
                    block_on(monitor.resume()).unwrap();
                }
                println!("ready");
                reaches(before + 1);
                let began = Instant::now();
                reaches(before + count);
                println!("{}", began.elapsed().as_secs_f64());
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The process as the bench holds it.
pub struct Remote {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Where it is.
    pub url: String,
    /// What to trust, PEM.
    pub ca: String,
}

impl Remote {
    /// Starts it.
    pub fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("--monitor")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut remote = Self { child, orders, answers, url: String::new(), ca: String::new() };
        remote.url = remote.ask("url");
        remote.ca = serde_json::from_str(&remote.ask("ca")).unwrap();
        remote
    }

    /// Gives an order and waits for its answer.
    pub fn ask(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").unwrap();
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        assert!(self.answers.read_line(&mut line).unwrap() > 0, "the Monitor's process has ended");
        line.trim().to_owned()
    }

    /// How many samples it has.
    pub fn unique(&mut self) -> u64 {
        self.ask("unique").parse().unwrap()
    }

    /// Seconds that so many samples take from the first to the last, once `begin` has made them
    /// come.
    pub fn takes<T>(&mut self, samples: u64, begin: impl FnOnce() -> T) -> (f64, T) {
        self.times("takes", samples, begin)
    }

    /// The same for a Monitor that was paused.
    pub fn takes_again(&mut self, samples: u64, begin: impl FnOnce()) -> f64 {
        self.times("back", samples, begin).0
    }

    fn times<T>(&mut self, order: &str, samples: u64, begin: impl FnOnce() -> T) -> (f64, T) {
        assert_eq!(self.ask(&format!("{order} {samples}")), "ready");
        let begun = begin();
        (self.answer().parse().unwrap(), begun)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A way to the Monitor that counts the bytes of both directions, TLS included.
pub struct Counted {
    /// Where it begins.
    pub url: String,
    bytes: Arc<[AtomicU64; 2]>,
}

impl Counted {
    /// Opens one to where this URL leads.
    pub fn open(url: &str) -> Self {
        let target: SocketAddr =
            url.trim_start_matches("https://").trim_end_matches('/').parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap());
        let bytes = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let counts = Arc::clone(&bytes);
        std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let Ok(far) = TcpStream::connect(target) else { continue };
                let (up, down) = (Arc::clone(&counts), Arc::clone(&counts));
                let (from, to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                std::thread::spawn(move || carry(from, to, &up[0]));
                std::thread::spawn(move || carry(far, near, &down[1]));
            }
        });
        Self { url, bytes }
    }

    /// Bytes to the Monitor, and from it.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes[0].load(Ordering::Relaxed), self.bytes[1].load(Ordering::Relaxed))
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, bytes: &AtomicU64) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        bytes.fetch_add(count as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}
