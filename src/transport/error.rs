//! What can go wrong between the connector and the Monitor, told apart by phase.
//!
//! Invariants:
//! - A message says what failed and with whom, in words an operator can act on; the technical
//!   cause is in `source()` and is not repeated in the message.
//! - No message and no cause holds a secret: neither a proxy's password nor an API key nor a
//!   request's body.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// A cause of any type.
pub type Cause = Box<dyn Error + Send + Sync + 'static>;

/// A call on the network that came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The trust anchors for TLS cannot be had.
    #[error("{fault}")]
    TrustAnchors {
        /// What is wrong with them.
        fault: AnchorFault,
        /// The file system's or the certificate's own complaint.
        #[source]
        source: Option<Cause>,
    },
    /// The host's name has no address, or nobody answers for it.
    #[error("cannot resolve the name {host}: check the name and this machine's DNS servers")]
    Dns {
        /// The name that was asked for.
        host: String,
        /// The resolver's words.
        #[source]
        source: Cause,
    },
    /// No address of the host took the connection.
    #[error("cannot connect to {target}: {}", list(.tried))]
    Connect {
        /// Host and port.
        target: String,
        /// Every address tried, in order, at least one.
        tried: Vec<Tried>,
    },
    /// The proxy did not open the tunnel.
    #[error("the proxy {proxy} did not open a tunnel to {target}: {fault}")]
    Proxy {
        /// The proxy's host and port.
        proxy: String,
        /// The Monitor's host and port.
        target: String,
        /// What it did instead.
        fault: ProxyFault,
        /// The cause, where there is one.
        #[source]
        source: Option<Cause>,
    },
    /// TLS could not be agreed on, or the certificate is not acceptable.
    #[error("TLS with {host}: {fault}")]
    Tls {
        /// The name the certificate must be for.
        host: String,
        /// What is wrong.
        fault: TlsFault,
        /// The TLS library's words.
        #[source]
        source: Option<Cause>,
    },
    /// The time allowed ran out.
    #[error("{target} took longer than {} while {phase}", Seconds(.after))]
    Timeout {
        /// Host and port of the Monitor.
        target: String,
        /// What was being waited for.
        phase: Phase,
        /// The time that was allowed for the whole.
        after: Duration,
    },
    /// The connection ended too early.
    #[error("{target} closed the connection while {phase}")]
    Closed {
        /// Host and port of the Monitor.
        target: String,
        /// What was going on.
        phase: Phase,
        /// The cause, where there is one.
        #[source]
        source: Option<Cause>,
    },
    /// An answer is larger than allowed; the rest of it was not read.
    #[error("the answer of {target} is too large: its {part} takes more than {limit} bytes")]
    TooLarge {
        /// Host and port of the Monitor.
        target: String,
        /// Which part of it.
        part: AnswerPart,
        /// Bytes allowed.
        limit: usize,
    },
    /// What came back is not HTTP/1.1.
    #[error("what {target} answers is not proper HTTP: is backend_url right?")]
    Http {
        /// Host and port of the Monitor.
        target: String,
        /// Where it departs from HTTP.
        #[source]
        source: Option<Cause>,
    },
    /// The request cannot be put into HTTP; the Monitor has seen nothing of it.
    #[error("the request cannot be sent: {what}")]
    Request {
        /// What stands in the way.
        what: &'static str,
    },
}

/// What is wrong with the trust anchors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnchorFault {
    /// `ca_file` cannot be read.
    #[error("ca_file {} cannot be read", .0.display())]
    Unreadable(PathBuf),
    /// `ca_file` holds no usable certificate.
    #[error("ca_file {} holds no certificate that can serve as a trust anchor: a PEM file with BEGIN CERTIFICATE blocks is expected", .0.display())]
    Empty(PathBuf),
    /// The system has none and `ca_file` is not set.
    #[error(
        "this system has no trust anchors for TLS: install the package ca-certificates or set ca_file"
    )]
    NoneAtAll,
    /// The TLS library refused its own settings.
    #[error("TLS cannot be set up")]
    Unusable,
}

/// What a proxy did instead of opening the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyFault {
    /// It answered with this status.
    Status(u16),
    /// It closed the connection.
    Closed,
    /// It did not speak HTTP, or said more than an answer.
    NotHttp,
}

impl fmt::Display for ProxyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(407) => {
                f.write_str("it answered 407: it wants a user and a password in the proxy's URL")
            }
            Self::Status(status) => write!(f, "it answered {status}"),
            Self::Closed => f.write_str("it closed the connection"),
            Self::NotHttp => f.write_str("it does not answer as an HTTP proxy does"),
        }
    }
}

/// Why TLS failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsFault {
    /// The certificate's issuer is not among the trust anchors.
    UnknownIssuer,
    /// A signature does not match: mostly the issuer has the name of a trust anchor and another
    /// key, since a home-made CA was made anew under its old name.
    BadSignature,
    /// The certificate is for other names.
    WrongHost {
        /// Names it is for, as it gives them.
        presented: Vec<String>,
    },
    /// The certificate is over.
    Expired {
        /// When it ended, where the library tells.
        ended: Option<SystemTime>,
    },
    /// The certificate is not valid yet, or this machine's clock is behind.
    NotYetValid {
        /// When it begins, where the library tells.
        begins: Option<SystemTime>,
    },
    /// The server presents a CA certificate (`CA:TRUE`) as its own.
    CaAsServer,
    /// The issuer has called the certificate back.
    Revoked,
    /// The certificate is unusable in another way.
    BadCertificate,
    /// What answers does not speak TLS.
    NotTls,
    /// The server ended the handshake with an alert.
    Alert,
    /// Version, cipher or message that the two sides do not share.
    Incompatible,
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownIssuer => f.write_str(
                "the certificate is not issued by an authority this machine trusts: if it comes from your own CA, name its certificate in ca_file",
            ),
            Self::BadSignature => f.write_str(
                "the certificate's signature does not match: if your own CA was made anew under its old name, put its new certificate into ca_file",
            ),
            Self::WrongHost { presented } if presented.is_empty() => {
                f.write_str("the certificate is for another name")
            }
            Self::WrongHost { presented } => {
                write!(f, "the certificate is for other names ({})", presented.join(", "))
            }
            Self::Expired { ended } => {
                f.write_str("the certificate has expired")?;
                when(f, *ended)?;
                f.write_str(": renew it, or check this machine's clock")
            }
            Self::NotYetValid { begins } => {
                f.write_str("the certificate is not valid yet")?;
                when(f, *begins)?;
                f.write_str(": check this machine's clock")
            }
            Self::CaAsServer => f.write_str(
                "the server presents a CA certificate (CA:TRUE) as its own: issue it a certificate signed by that CA, and name the CA's in ca_file",
            ),
            Self::Revoked => f.write_str("the certificate has been revoked"),
            Self::BadCertificate => f.write_str("the certificate is not usable"),
            Self::NotTls => f.write_str(
                "what answers does not speak TLS: is this the right port, and https in backend_url right?",
            ),
            Self::Alert => f.write_str("the server refused the handshake"),
            Self::Incompatible => f.write_str("the two sides have no TLS version and cipher in common, or the server breaks the protocol"),
        }
    }
}

/// Writes a certificate's date where it is known and can be written.
fn when(f: &mut fmt::Formatter<'_>, at: Option<SystemTime>) -> fmt::Result {
    match at.and_then(crate::crypto::rfc3339) {
        Some(at) => write!(f, " ({at})"),
        None => Ok(()),
    }
}

/// What was going on when a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Asking for the host's addresses.
    Dns,
    /// Opening the TCP connection.
    Connect,
    /// Asking the proxy for a tunnel.
    Proxy,
    /// Agreeing on TLS.
    Tls,
    /// Sending the request and waiting for the first of the answer.
    Answer,
    /// Reading the answer's body.
    Body,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dns => "its name was being resolved",
            Self::Connect => "the TCP connection was being opened",
            Self::Proxy => "the proxy was being asked for a tunnel",
            Self::Tls => "TLS was being agreed on",
            Self::Answer => "its answer was awaited",
            Self::Body => "its answer was being read",
        })
    }
}

/// The part of an answer that is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerPart {
    /// Status line and headers.
    Head,
    /// What follows them.
    Body,
}

impl fmt::Display for AnswerPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Head => "head",
            Self::Body => "body",
        })
    }
}

/// One address that did not take the connection.
#[derive(Debug)]
pub struct Tried {
    /// The address.
    pub address: SocketAddr,
    /// What the operating system said; of kind `TimedOut` when its share of the time ran out.
    pub error: io::Error,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Kinds first: their words do not depend on the system's language.
        #[allow(
            clippy::wildcard_enum_match_arm,
            reason = "std's list is open; the rest speak for themselves"
        )]
        match self.error.kind() {
            io::ErrorKind::ConnectionRefused => write!(f, "{} refuses connections", self.address),
            io::ErrorKind::NetworkUnreachable => {
                write!(f, "no route to the network of {}", self.address)
            }
            io::ErrorKind::HostUnreachable => write!(f, "{} is unreachable", self.address),
            io::ErrorKind::TimedOut => write!(f, "{} does not answer", self.address),
            _ => write!(f, "{}: {}", self.address, self.error),
        }
    }
}

/// The addresses tried, in one line.
fn list(tried: &[Tried]) -> String {
    tried.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A duration in seconds with as few decimals as it needs.
struct Seconds<'a>(&'a Duration);

impl fmt::Display for Seconds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0.as_secs_f64())
    }
}
