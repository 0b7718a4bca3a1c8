//! A request in, an answer out.
//!
//! Invariants: every refusal says in JSON what is wrong; a request that is refused for its `Host`
//! learns nothing else; nothing is kept of a push that is refused, and nothing of it is quoted.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;

use super::body::{self, BodyError};
use super::host;
use super::push::{self, MAX_BODY};
use super::refusals::Refusals;
use crate::collector::clock::since_boot;
use crate::collector::openclaw::known::Known;
use crate::control::report::look;
use crate::control::server::Daemon;
use crate::figures::prometheus;
use crate::runtime;
use crate::sample::with_identifier;
use crate::sampler::Newest;
use crate::sender::classify::printable;

/// How long a body may take to come.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// How long the queue may take to tell its figures: it may hang in its disk.
const FIGURES_WITHIN: Duration = Duration::from_secs(5);

/// What the bridge's answers are made from.
pub struct Answers {
    daemon: Arc<Daemon>,
    known: Known,
    newest: Newest,
    refusals: Mutex<Refusals>,
}

impl Answers {
    /// `known` takes up what is pushed.
    #[must_use]
    pub fn new(daemon: Arc<Daemon>, known: Known, newest: Newest) -> Self {
        Self { daemon, known, newest, refusals: Mutex::default() }
    }

    pub(super) fn standing(&self) -> &super::Standing {
        &self.daemon.bridge
    }

    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let answer = match self.routed(&head, body).await {
            Ok(answer) | Err(answer) => answer,
        };
        Ok(answer.response())
    }

    async fn routed(&self, head: &request::Parts, body: Incoming) -> Result<Answer, Answer> {
        meant_for_us(head)?;
        match head.uri.path() {
            "/health" => {
                only(READ, head)?;
                Ok(Answer::json(StatusCode::OK, &json!({"status": "ok"})))
            }
            "/telemetry" => {
                only(READ, head)?;
                self.telemetry()
            }
            "/metrics" => {
                only(READ, head)?;
                self.metrics().await
            }
            "/openclaw" => {
                only("POST", head)?;
                let pushed = self.pushed(&head.headers, body).await;
                self.note(pushed.as_ref().err());
                pushed
            }
            _ => Err(Answer::error(
                StatusCode::NOT_FOUND,
                "there are GET /health, GET /telemetry, GET /metrics and POST /openclaw",
            )),
        }
    }

    fn telemetry(&self) -> Result<Answer, Answer> {
        let Some(stored) = self.newest.get() else {
            let text = "no sample was taken yet: try again in a second";
            return Err(Answer::error(StatusCode::SERVICE_UNAVAILABLE, text));
        };
        let identifier = &self.daemon.config().identifier;
        let sample = with_identifier(&stored, identifier).map_err(|error| {
            Answer::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
        })?;
        Ok(Answer::new(StatusCode::OK, JSON, sample))
    }

    async fn metrics(&self) -> Result<Answer, Answer> {
        match runtime::timeout(FIGURES_WITHIN, look(&self.daemon)).await {
            Some(status) => Ok(Answer::new(StatusCode::OK, PROMETHEUS, prometheus(&status))),
            None => Err(Answer::error(
                StatusCode::SERVICE_UNAVAILABLE,
                "the queue does not tell its figures: its disk may hang, look at data_dir",
            )),
        }
    }

    async fn pushed(&self, headers: &HeaderMap, body: Incoming) -> Result<Answer, Answer> {
        if headers.contains_key(header::ORIGIN) {
            let text = "a request with Origin comes from a web page: those are refused";
            return Err(Answer::error(StatusCode::FORBIDDEN, text));
        }
        if !is_plain_json(headers) {
            let text = "Content-Type has to be application/json, without Content-Encoding";
            return Err(Answer::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
        }
        let body = body::read(body, MAX_BODY, BODY_WITHIN).await.map_err(|fault| {
            let status = match fault {
                BodyError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
                BodyError::TooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
                BodyError::Incomplete => StatusCode::BAD_REQUEST,
            };
            Answer::error(status, &fault.to_string())
        })?;
        let pushed = push::read(&body).map_err(|error| {
            Answer::error(StatusCode::BAD_REQUEST, &printable(&error.to_string()))
        })?;
        tracing::debug!(
            version = pushed.version.as_deref(),
            plugin_version = pushed.plugin_version.as_deref(),
            agents = pushed.agents.as_ref().map(Vec::len),
            "a plugin reported"
        );
        self.known.pushed(pushed, since_boot());
        Ok(Answer::new(StatusCode::NO_CONTENT, "", Vec::new()))
    }

    /// Says when pushes are refused, and when that is over.
    fn note(&self, refused: Option<&Answer>) {
        // Plain numbers: a panic elsewhere leaves nothing half done.
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        match refused {
            Some(answer) => {
                let Some(count) = refusals.refused(since_boot()) else { return };
                tracing::warn!(
                    status = answer.status.as_u16(),
                    reason = %printable(&String::from_utf8_lossy(&answer.body)),
                    count,
                    "what a plugin reported over the bridge was refused"
                );
            }
            None if refusals.accepted(since_boot()) => {
                tracing::info!("a plugin's reports are accepted again");
            }
            None => {}
        }
    }
}

const READ: &str = "GET, HEAD";
const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Refuses what is not addressed to this machine's loopback: each `Host`, of which HTTP/1.1 asks
/// for exactly one, and the target where it names a host too.
fn meant_for_us(head: &request::Parts) -> Result<(), Answer> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Answer::error(StatusCode::BAD_REQUEST, "exactly one Host is asked for"));
    };
    let host = host.to_str().is_ok_and(host::is_loopback);
    let target = head.uri.authority().is_none_or(|named| host::is_loopback(named.as_str()));
    if host && target {
        return Ok(());
    }
    let text = "Host has to be localhost or a loopback address";
    Err(Answer::error(StatusCode::MISDIRECTED_REQUEST, text))
}

fn only(methods: &'static str, head: &request::Parts) -> Result<(), Answer> {
    let known = match head.method {
        Method::GET | Method::HEAD => methods == READ,
        Method::POST => methods != READ,
        _ => false,
    };
    if known {
        return Ok(());
    }
    let mut answer = Answer::error(
        StatusCode::METHOD_NOT_ALLOWED,
        &format!("{} takes {methods}", head.uri.path()),
    );
    answer.allow = Some(methods);
    Err(answer)
}

fn is_plain_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|value| value.split(';').next()).map(str::trim);
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(JSON))
        && !headers.contains_key(header::CONTENT_ENCODING)
}

/// An answer before it is one of the library's.
struct Answer {
    status: StatusCode,
    kind: &'static str,
    body: Vec<u8>,
    allow: Option<&'static str>,
}

impl Answer {
    fn new(status: StatusCode, kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, kind, body: body.into(), allow: None }
    }

    fn json(status: StatusCode, body: &serde_json::Value) -> Self {
        Self::new(status, JSON, body.to_string())
    }

    fn error(status: StatusCode, text: &str) -> Self {
        Self::json(status, &json!({"error": text}))
    }

    fn response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() = self.status;
        let mut set = |name: HeaderName, value: &'static str| {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        };
        if !self.kind.is_empty() {
            set(header::CONTENT_TYPE, self.kind);
        }
        if let Some(methods) = self.allow {
            set(header::ALLOW, methods);
        }
        // Each answer is of its moment, and no page may take it for a script.
        set(header::CACHE_CONTROL, "no-store");
        set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        response
    }
}
