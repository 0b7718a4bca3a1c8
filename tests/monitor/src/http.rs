//! Requests in, answers out: reads a request, has the rules judge it, and plays the faults asked
//! for.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_std::task;
use async_tungstenite::tungstenite::handshake::derive_accept_key;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, header};

use crate::answer::Answer;
use crate::connection::{After, TakenOver};
use crate::error::{Reason, Refusal};
use crate::fault::{Fault, Outcome, Route};
use crate::journal::Seen;
use crate::key::{Key, wrong_key};
use crate::notify::lock;
use crate::proof::Proof;
use crate::rules::{Heartbeat, Mode, Shown};
use crate::schedule::Met;
use crate::shared::Shared;
use crate::time::{http_date, shifted};

/// The key document's path.
pub(crate) const KEY_PATH: &str = "/monitor/public/server-public-key";
/// The heartbeat's path.
pub(crate) const HEARTBEAT_PATH: &str = "/monitor/server/heartbeat";
/// The WebSocket's path.
pub(crate) const WEBSOCKET_PATH: &str = "/monitor/server/ws";

/// Bytes of a body that are read although they are too many.
const MAX_WASTE: usize = 16 * 1024 * 1024;

/// What a path under `prefix` stands for.
fn route(path: &str, prefix: &str) -> Route {
    match path.strip_prefix(prefix) {
        Some(KEY_PATH) => Route::Key,
        Some(HEARTBEAT_PATH) => Route::Heartbeat,
        Some(WEBSOCKET_PATH) => Route::WebSocket,
        Some(_) | None => Route::Other,
    }
}

/// Serves one request.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    after: Arc<Mutex<After>>,
) -> Result<Response<Full<Bytes>>, TakenOver> {
    let route = route(request.uri().path(), &shared.prefix);
    let (met, limit) = shared.change(|state, now| {
        let user_agent = text(request.headers(), header::USER_AGENT.as_str());
        state.rules.journal.saw(Seen { route, at: now, user_agent });
        let met = state.schedule.request(route);
        state.rules.journal.counts_mut().faults += met.len();
        (met, state.rules.body_limit())
    });
    let upgrade = route == Route::WebSocket && met.answer.is_none();
    if upgrade && let Some(accept) = acceptable(request.headers(), &shared) {
        let faults = shared.change(|state, _| {
            let faults = state.schedule.link();
            state.rules.journal.counts_mut().faults += faults.len() as u64;
            faults
        });
        *lock(&after) = After::Upgrade(hyper::upgrade::on(request), faults);
        return Ok(response(dated(switching(&accept), &met, shared.now())));
    }
    let (head, body) = request.into_parts();
    // Read in any case, so that a fault meets a client that has finished speaking.
    let body = read(body, limit).await;
    let outcome = match met.answer.as_ref().and_then(Fault::instead) {
        Some(Outcome::Answer(answer)) => Outcome::Answer(dated(answer, &met, shared.now())),
        Some(outcome) => outcome,
        None => {
            let answer = match body {
                Ok(body) => answer(&shared, route, &head.method, &head.headers, body, &met).await,
                Err(refusal) => shared.change(|state, _| state.rules.refuse(&refusal)),
            };
            let answer = dated(answer, &met, shared.now());
            met.answer.as_ref().map_or_else(
                || Outcome::Answer(answer.clone()),
                |fault| fault.spoil(answer.clone()),
            )
        }
    };
    match outcome {
        Outcome::Answer(answer) => Ok(response(answer)),
        Outcome::Hang => std::future::pending().await,
        raw @ (Outcome::Bytes(_) | Outcome::Slow { .. } | Outcome::Endless { .. }) => {
            *lock(&after) = After::Raw(raw);
            Err(TakenOver)
        }
    }
}

/// Reads a body of at most `limit` bytes. What goes over is thrown away, up to [`MAX_WASTE`]: a
/// client that is answered while it still sends would see a broken connection in place of the
/// answer.
async fn read(mut body: Incoming, limit: usize) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let mut length = 0;
    while length < MAX_WASTE {
        match body.frame().await {
            None => break,
            Some(Err(_)) => {
                return Err(Refusal::new(Reason::BadRequest, "the body is incomplete"));
            }
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                length += data.len();
                if length <= limit {
                    bytes.extend_from_slice(&data);
                }
            }
        }
    }
    if length > limit {
        return Err(Refusal::new(Reason::TooLarge, format!("the body is over {limit} bytes")));
    }
    Ok(bytes)
}

/// The proper answer.
async fn answer(
    shared: &Shared,
    route: Route,
    method: &Method,
    headers: &HeaderMap,
    body: Vec<u8>,
    met: &Met,
) -> Answer {
    match (route, method) {
        (Route::Key, &Method::GET) => key_document(shared, met).await,
        (Route::Heartbeat, &Method::POST) => heartbeat(shared, headers, body, met).await,
        (Route::WebSocket, &Method::GET) => websocket_refused(shared),
        (Route::Other, _) => Answer::detail(404, "Not Found"),
        (Route::Key | Route::Heartbeat | Route::WebSocket, _) => {
            Answer::detail(405, "Method Not Allowed")
        }
    }
}

async fn key_document(shared: &Shared, met: &Met) -> Answer {
    let settings = shared.look(|state| state.rules.settings.clone());
    if settings.mode != Mode::Challenge {
        return Answer::detail(404, "Not Found");
    }
    let key = if met.wrong_key() {
        match task::spawn_blocking(|| wrong_key().and_then(Key::new)).await {
            Ok(key) => Arc::new(key),
            Err(cause) => return Answer::detail(500, &cause.to_string()),
        }
    } else {
        shared.look(|state| Arc::clone(&state.key))
    };
    let (content_type, body) = key.document(&settings.key_shape, &settings.capabilities);
    Answer::typed(200, &content_type, body)
}

async fn heartbeat(shared: &Shared, headers: &HeaderMap, body: Vec<u8>, met: &Met) -> Answer {
    let content_type = text(headers, header::CONTENT_TYPE.as_str()).unwrap_or_default();
    let judged =
        if content_type.split(';').next().is_some_and(|kind| kind.trim() == "application/json") {
            Heartbeat::read(body)
                .and_then(|heartbeat| Ok((show(shared, headers, &heartbeat)?, heartbeat)))
        } else {
            Err(Refusal::new(Reason::BadRequest, "Content-Type has to be application/json"))
        };
    shared.change(|state, now| match &judged {
        Ok((shown, heartbeat)) => state.rules.heartbeat(heartbeat, shown, &met.changes, now),
        Err(refusal) => state.rules.refuse(refusal),
    })
}

/// What a heartbeat shows at the door; opens its proof.
fn show(shared: &Shared, headers: &HeaderMap, heartbeat: &Heartbeat) -> Result<Shown, Refusal> {
    let (mode, key) =
        shared.look(|state| (state.rules.settings.mode.clone(), Arc::clone(&state.key)));
    match mode {
        Mode::ApiKey(_) => Ok(text(headers, "x-api-key").map_or(Shown::Nothing, Shown::ApiKey)),
        Mode::Challenge => match heartbeat.encrypted_payload() {
            None => Ok(Shown::Nothing),
            Some(payload) => Ok(Shown::Proof(Proof::read(&key.open(payload)?)?)),
        },
    }
}

/// The `Sec-WebSocket-Accept` for an upgrade that may go on.
fn acceptable(headers: &HeaderMap, shared: &Shared) -> Option<String> {
    let challenge = shared.look(|state| state.rules.settings.mode == Mode::Challenge);
    let names = |name: &str, word: &str| {
        text(headers, name).is_some_and(|value| {
            value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word))
        })
    };
    let proper = names("upgrade", "websocket")
        && names("connection", "upgrade")
        && names("sec-websocket-version", "13");
    let key = headers.get("sec-websocket-key").filter(|key| key.len() == 24)?;
    (challenge && proper).then(|| derive_accept_key(key.as_bytes()))
}

fn switching(accept: &str) -> Answer {
    Answer { status: 101, headers: Vec::new(), body: Vec::new() }
        .with("connection", "Upgrade")
        .with("upgrade", "websocket")
        .with("sec-websocket-accept", accept)
}

fn websocket_refused(shared: &Shared) -> Answer {
    let api_key = shared.look(|state| state.rules.settings.mode != Mode::Challenge);
    if api_key {
        let refusal = Refusal::new(Reason::NotOffered, "no WebSocket with API keys");
        shared.change(|state, _| state.rules.refuse(&refusal));
        return Answer::detail(403, "no WebSocket with API keys");
    }
    Answer::detail(426, "this is a WebSocket (version 13)").with("upgrade", "websocket")
}

/// The answer with the headers that tell the time, as the faults met have them.
fn dated(mut answer: Answer, met: &Met, now: SystemTime) -> Answer {
    let mut date = Some(now);
    for change in &met.changes {
        if let Fault::DateSkew { seconds } = change {
            date = date.map(|date| shifted(date, *seconds));
        }
        if let Fault::Age { seconds } = change {
            answer = answer.with("age", seconds.to_string());
        }
        if matches!(change, Fault::NoDate) {
            date = None;
        }
    }
    match date {
        Some(date) => answer.with("date", http_date(date)),
        None => answer,
    }
}

/// The answer as the HTTP library takes it. Headers it would not write are left out.
pub(crate) fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    if let Ok(status) = StatusCode::from_u16(answer.status) {
        *response.status_mut() = status;
    }
    for (name, value) in answer.headers {
        let name = header::HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value.parse()) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}
