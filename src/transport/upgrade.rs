//! The request that turns a connection into a WebSocket (RFC 6455 section 4), made with the codec
//! of the HTTP transport, so that answers of any kind are held to the same limits.
//!
//! Invariants:
//! - Connecting and upgrading together end within [`Deadlines::dial`].
//! - An answer with a status counts whatever becomes of its body, of which at most [`SAID_BYTES`]
//!   are read, within the same time.
//! - What came behind a 101 is handed on with the stream, not lost.
//!
//! [`Deadlines::dial`]: super::Deadlines::dial

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
    SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use hyper::{Request, Response};
use url::Url;

use super::codec::{self, MAX_HEAD_BYTES};
use super::dialer::{Dialer, Progress, Stream};
use super::error::{AnswerPart, Phase, TransportError};
use super::http::host_header;
use super::tls;
use crate::runtime;
use crate::sample::CONNECTOR_VERSION;

/// Bytes of a refusal's body that are kept for the log.
const SAID_BYTES: usize = 4 * 1024;

/// Why no WebSocket came about.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// 401 or 403: the Monitor, or a gate before it, does not let this server in.
    #[error("the WebSocket is refused with HTTP {status}")]
    Refused {
        /// The status.
        status: u16,
        /// The body's beginning, as it came: not fit for a log or a terminal yet.
        said: String,
    },
    /// 429 or 503: come again later.
    #[error("the Monitor is busy (HTTP {status})")]
    Busy {
        /// The status.
        status: u16,
        /// `Retry-After` as it stands: seconds or a date.
        retry_after: Option<String>,
        /// The body's beginning, as it came.
        said: String,
    },
    /// Any other answer that does not open a WebSocket.
    #[error("no WebSocket is opened: HTTP {status}")]
    Answered {
        /// The status.
        status: u16,
        /// `Location`: where a redirect points. It is not followed.
        location: Option<String>,
        /// The body's beginning, as it came.
        said: String,
    },
    /// A 101 that breaks the rules for one: something between here and the Monitor does not know
    /// WebSockets.
    #[error("the answer does not open a WebSocket: {0}")]
    Improper(&'static str),
    /// No answer came, or none that can be read.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// An opened connection, and the bytes that came along with the upgrade.
pub(super) type Upgraded = (Stream, Vec<u8>);

/// Opens a connection and upgrades it. `key` and `accept` are the request's `Sec-WebSocket-Key`
/// and what the answer has to make of it.
pub(super) async fn open(
    dialer: &Dialer,
    url: &Url,
    deadline: Duration,
    key: &str,
    accept: &str,
) -> Result<Upgraded, UpgradeError> {
    let begun = Instant::now();
    let progress = Progress::new(Phase::Dns);
    let request = request(url, key)?;
    let answer = async {
        let stream = dialer.connect_with(&progress).await?;
        progress.set(Phase::Answer);
        ask(dialer, stream, request, accept).await
    };
    match runtime::timeout(deadline, answer).await {
        Some(Ok(Asked::Open(upgraded))) => Ok(upgraded),
        Some(Ok(Asked::Answer(response, _connection))) => {
            let left = deadline.saturating_sub(begun.elapsed());
            Err(judge(response, left).await)
        }
        Some(Err(error)) => Err(error),
        None => Err(dialer.too_slow(&progress, deadline).into()),
    }
}

/// An answer, whose body the connection's task brings as long as it is kept.
enum Asked {
    Open(Upgraded),
    Answer(Response<Incoming>, runtime::TaskGuard<hyper::Result<()>>),
}

async fn ask(
    dialer: &Dialer,
    stream: Stream,
    request: Request<Full<Bytes>>,
    accept: &str,
) -> Result<Asked, UpgradeError> {
    let failed = |error| failed(dialer, error);
    let (mut sender, connection, _) = codec::start(stream).await.map_err(failed)?;
    let connection = runtime::spawn_guarded(connection.with_upgrades());
    let response = match sender.send_request(request).await {
        Ok(response) => response,
        Err(mut error) => {
            // A connection that ended before the request reached it knows better why.
            if error.is_canceled()
                && let Err(cause) = connection.await
            {
                error = cause;
            }
            return Err(failed(error).into());
        }
    };
    if response.status() != hyper::StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Asked::Answer(response, connection));
    }
    proper(response.headers(), accept).map_err(UpgradeError::Improper)?;
    let upgraded = hyper::upgrade::on(response).await.map_err(failed)?;
    let (stream, begun) = codec::taken_over(upgraded)
        .ok_or(UpgradeError::Improper("the connection cannot be taken over"))?;
    Ok(Asked::Open((stream, begun.to_vec())))
}

fn request(url: &Url, key: &str) -> Result<Request<Full<Bytes>>, TransportError> {
    let unusable = |what| TransportError::Request { what };
    let mut request = Request::new(Full::default());
    *request.uri_mut() = url.path().parse().map_err(|_| unusable("its path is unusable"))?;
    let headers = request.headers_mut();
    let agent = format!("harborforge-connector/{CONNECTOR_VERSION}");
    for (name, value) in [
        (HOST, host_header(url).as_str()),
        (USER_AGENT, agent.as_str()),
        (CONNECTION, "Upgrade"),
        (UPGRADE, "websocket"),
        (SEC_WEBSOCKET_VERSION, "13"),
        (SEC_WEBSOCKET_KEY, key),
    ] {
        let value = HeaderValue::from_str(value).map_err(|_| unusable("its host is unusable"))?;
        headers.insert(name, value);
    }
    Ok(request)
}

/// Whether a 101 keeps to RFC 6455 section 4.1; what is wrong if not.
fn proper(headers: &HeaderMap, accept: &str) -> Result<(), &'static str> {
    let names = |name: &HeaderName, word: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    let accepted = headers.get(SEC_WEBSOCKET_ACCEPT).and_then(|value| value.to_str().ok());
    if !names(&UPGRADE, "websocket") || !names(&CONNECTION, "upgrade") {
        Err("it does not switch to WebSocket")
    } else if accepted.map(str::trim) != Some(accept) {
        Err("its Sec-WebSocket-Accept does not fit our key")
    } else if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS)
        || headers.contains_key(SEC_WEBSOCKET_PROTOCOL)
    {
        Err("it switches on an extension or subprotocol that was not asked for")
    } else {
        Ok(())
    }
}

/// What an answer other than 101 means (docs/PROTOCOL.md 4, step 1).
async fn judge(response: Response<Incoming>, left: Duration) -> UpgradeError {
    let (head, mut body) = response.into_parts();
    let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    let status = head.status.as_u16();
    let location = header(LOCATION).map(str::to_owned);
    let retry_after = header(RETRY_AFTER).map(str::to_owned);
    let mut said = Vec::new();
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            let data = frame.into_data().unwrap_or_default();
            let room = SAID_BYTES.saturating_sub(said.len());
            said.extend(data.iter().take(room));
            if said.len() == SAID_BYTES {
                break;
            }
        }
    };
    // What has come when the time is over has to do.
    let _ = runtime::timeout(left, read).await;
    let said = String::from_utf8_lossy(&said).into_owned();
    match status {
        401 | 403 => UpgradeError::Refused { status, said },
        429 | 503 => UpgradeError::Busy { status, retry_after, said },
        _ => UpgradeError::Answered { status, location, said },
    }
}

/// What a failure of the codec means.
fn failed(dialer: &Dialer, error: hyper::Error) -> TransportError {
    let target = dialer.target().to_string();
    if let Some(fault) = tls::fault_in(&error) {
        let host = dialer.target().host.to_string();
        return TransportError::Tls { host, fault, source: Some(Box::new(error)) };
    }
    if error.is_parse_too_large() {
        return TransportError::TooLarge { target, part: AnswerPart::Head, limit: MAX_HEAD_BYTES };
    }
    if error.is_parse() {
        return TransportError::Http { target, source: Some(Box::new(error)) };
    }
    TransportError::Closed { target, phase: Phase::Answer, source: Some(Box::new(error)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_101_has_to_keep_the_rules() {
        let good = [
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-accept", "fits"),
        ];
        assert_eq!(proper(&headers(&good), "fits"), Ok(()));
        let [upgrade, connection, accept] = good;
        for (lines, word) in [
            (vec![], "switch"),
            (vec![connection, accept], "switch"),
            (vec![upgrade, accept], "switch"),
            (vec![upgrade, ("connection", "close"), accept], "switch"),
            (vec![("upgrade", "h2c"), connection, accept], "switch"),
            (vec![upgrade, connection], "Accept"),
            (vec![upgrade, connection, ("sec-websocket-accept", "other")], "Accept"),
            ([&good[..], &[("sec-websocket-extensions", "permessage-deflate")]].concat(), "extens"),
            ([&good[..], &[("sec-websocket-protocol", "chat")]].concat(), "subprotocol"),
        ] {
            let error = proper(&headers(&lines), "fits").unwrap_err();
            assert!(error.contains(word), "{lines:?}: {error}");
        }
    }
}
