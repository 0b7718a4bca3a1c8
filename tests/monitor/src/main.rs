//! `harborforge-monitor`: the reference Monitor as a program, to try a connector against.
//!
//! Standard output is JSON lines: first one with the event `ready`, which holds all a connector's
//! configuration needs, then one for every sample accepted and every refusal. What is for people
//! goes to standard error. It remembers nothing after it ends.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use harborforge_monitor::{Capability, Event, Mode, Monitor, Options, Tls};
use serde_json::{Value, json};

const USAGE: &str = "\
A reference HarborForge Monitor, to try harborforge-connector against.

Usage: harborforge-monitor [OPTIONS]

  --listen ADDR          where to listen [127.0.0.1:0: any free port]
  --control ADDR         where to listen for control requests; GET / there lists them
  --tls                  speak TLS, with certificates made at the start
  --ca-file PATH         write the CA's certificate there (the connector's ca_file)
  --path-prefix PREFIX   what comes before the endpoints' paths
  --capabilities LIST    extensions to offer, of ack,resume,batch [none]
  --api-key-file PATH    expect the API key in this file in place of challenges
  --lenient              check only the fields that identify a sample
  -h, --help             this text
  -V, --version          the version
";

/// What the arguments ask for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Arguments {
    listen: Option<SocketAddr>,
    control: Option<SocketAddr>,
    tls: bool,
    ca_file: Option<PathBuf>,
    path_prefix: String,
    capabilities: BTreeSet<Capability>,
    api_key_file: Option<PathBuf>,
    lenient: bool,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Serve(Arguments),
    Say(String),
}

/// Reads the arguments, the program's name left out. `--name value` and `--name=value` both work.
fn parse(words: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut arguments = Arguments::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let (name, mut inline) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word, None),
        };
        let mut value = || {
            let value = inline.take().or_else(|| words.next());
            value.ok_or_else(|| format!("{name} needs a value"))
        };
        let address = |text: String| {
            text.parse().map_err(|_| format!("{name}: {text:?} is not like 127.0.0.1:8443"))
        };
        match name.as_str() {
            "--listen" => arguments.listen = Some(address(value()?)?),
            "--control" => arguments.control = Some(address(value()?)?),
            "--tls" => arguments.tls = true,
            "--ca-file" => arguments.ca_file = Some(value()?.into()),
            "--path-prefix" => arguments.path_prefix = value()?,
            "--capabilities" => arguments.capabilities = capabilities(&value()?)?,
            "--api-key-file" => arguments.api_key_file = Some(value()?.into()),
            "--lenient" => arguments.lenient = true,
            "-h" | "--help" => return Ok(Command::Say(USAGE.to_owned())),
            "-V" | "--version" => {
                let version = env!("CARGO_PKG_VERSION");
                return Ok(Command::Say(format!("harborforge-monitor {version}\n")));
            }
            _ => return Err(format!("{name} is not known; --help lists what is")),
        }
        if inline.is_some() {
            return Err(format!("{name} takes no value"));
        }
    }
    if arguments.ca_file.is_some() && !arguments.tls {
        return Err("--ca-file needs --tls: without it there is no certificate".to_owned());
    }
    Ok(Command::Serve(arguments))
}

fn capabilities(list: &str) -> Result<BTreeSet<Capability>, String> {
    list.split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| match name {
            "ack" => Ok(Capability::Ack),
            "resume" => Ok(Capability::Resume),
            "batch" => Ok(Capability::Batch),
            _ => Err(format!("--capabilities: {name:?} is none of ack, resume, batch")),
        })
        .collect()
}

/// Writes one JSON line; who reads may have gone away, and the Monitor goes on.
fn line(value: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{value}");
    let _ = out.flush();
}

fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn observe(event: &Event<'_>) {
    match event {
        Event::Accepted(sample) => {
            let mut object = json!(sample);
            if let Some(object) = object.as_object_mut() {
                object.insert("event".to_owned(), "accepted".into());
            }
            line(&object);
        }
        Event::Refused(reason) => line(&json!({"event": "refused", "reason": reason})),
    }
}

async fn serve(arguments: Arguments) -> Result<(), String> {
    let mode = match &arguments.api_key_file {
        None => Mode::Challenge,
        Some(path) => {
            let key = std::fs::read_to_string(path)
                .map_err(|cause| format!("cannot read {}: {cause}", path.display()))?;
            match key.trim() {
                "" => return Err(format!("{} is empty", path.display())),
                key => Mode::ApiKey(key.to_owned()),
            }
        }
    };
    let challenges = mode == Mode::Challenge;
    let monitor = Monitor::start(Options {
        addr: arguments.listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        control: arguments.control,
        tls: if arguments.tls { Tls::Good } else { Tls::Off },
        path_prefix: arguments.path_prefix,
        mode,
        capabilities: arguments.capabilities,
        lenient: arguments.lenient,
        keep: 1000,
        observer: Some(Arc::new(observe)),
        ..Options::default()
    })
    .await
    .map_err(|cause| match std::error::Error::source(&cause) {
        Some(source) => format!("{cause}: {source}"),
        None => cause.to_string(),
    })?;
    if let (Some(path), Some(pem)) = (&arguments.ca_file, monitor.ca_pem()) {
        std::fs::write(path, pem)
            .map_err(|cause| format!("cannot write {}: {cause}", path.display()))?;
    }
    let challenge = challenges.then(|| monitor.issue_challenge());
    let fingerprint = challenges.then(|| monitor.fingerprint());
    let control = monitor.control_addr().map(|addr| format!("http://{addr}"));
    line(&json!({
        "event": "ready",
        "backend_url": monitor.url(),
        "challenge_uuid": challenge,
        "public_key_sha256": fingerprint,
        "ca_file": arguments.ca_file,
        "control": control,
    }));
    tell(&format!("listening on {}", monitor.url()));
    if challenges {
        tell(
            "the challenge has to be used within 10 minutes; a new start, or POST /_monitor/challenge at the control address, makes another",
        );
    }
    // Until the process is ended; nothing here is worth an orderly end.
    std::future::pending().await
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(Command::Serve(arguments)) => arguments,
        Ok(Command::Say(text)) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            tell(&format!("harborforge-monitor: {wrong}"));
            return ExitCode::from(2);
        }
    };
    match async_std::task::block_on(serve(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            tell(&format!("harborforge-monitor: {cause}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn arguments_are_read_in_both_spellings() {
        let Ok(Command::Serve(read)) =
            words("--listen 127.0.0.1:8443 --tls --ca-file=ca.pem --capabilities ack,batch")
        else {
            panic!("not read")
        };
        assert_eq!(read.listen, Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 8443))));
        assert!(read.tls && !read.lenient);
        assert_eq!(read.ca_file, Some("ca.pem".into()));
        assert_eq!(read.capabilities, BTreeSet::from([Capability::Ack, Capability::Batch]));
        assert_eq!(words(""), Ok(Command::Serve(Arguments::default())));
        assert_eq!(words("--listen=1.2.3.4:5 -h"), Ok(Command::Say(USAGE.to_owned())));
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (line, why) in [
            ("--lissten x", "--lissten is not known"),
            ("--listen", "--listen needs a value"),
            ("--listen here", "\"here\" is not like"),
            ("--tls=yes", "--tls takes no value"),
            ("--capabilities ack,nack", "\"nack\" is none of"),
            ("--ca-file x", "--ca-file needs --tls"),
        ] {
            let wrong = words(line).unwrap_err();
            assert!(wrong.contains(why), "{line}: {wrong}");
        }
    }
}
