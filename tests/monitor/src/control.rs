//! The side door of the standalone program: what was accepted, and misbehaviour on request, as
//! HTTP and JSON. It has an address of its own, so that it works while the Monitor does not.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use serde::Deserialize;
use serde_json::json;

use crate::answer::Answer;
use crate::fault::Fault;
use crate::http::response;
use crate::monitor::Inner;
use crate::schedule::Plan;

/// Bytes a request's body may have.
const MAX_BODY: usize = 1024 * 1024;

/// What there is, for people.
pub(crate) const HELP: &str = "\
GET  /_monitor/accepted   the newest accepted samples
GET  /_monitor/counts     figures since the start
GET  /_monitor/requests   the newest requests
POST /_monitor/challenge  a fresh challenge
POST /_monitor/fault      misbehave: {\"kind\":\"status\",\"status\":503} or
                          {\"fault\":{\"kind\":\"hang\"},\"at\":\"heartbeat\",\"times\":2,\"after\":1}
                          or, for the next WebSocket, {\"kind\":\"cut\",\"messages\":50}
POST /_monitor/heal       stop misbehaving
POST /_monitor/pause      stop listening and close every connection
POST /_monitor/resume     listen again on the same port
POST /_monitor/clock      move the Monitor's clock: {\"offset_seconds\":-300}
";

#[derive(Deserialize)]
#[serde(untagged)]
enum FaultRequest {
    Plan(Plan),
    Fault(Fault),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Clock {
    offset_seconds: i64,
}

/// Serves one request.
pub(crate) async fn serve(inner: Arc<Inner>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return response(Answer::detail(413, "the body is too large or incomplete"));
    };
    response(answer(&inner, &head.method, head.uri.path(), &body.to_bytes()).await)
}

async fn answer(inner: &Arc<Inner>, method: &Method, path: &str, body: &[u8]) -> Answer {
    let done = || Answer::json(200, &json!({"ok": true}));
    let shared = &inner.shared;
    match (method, path) {
        (&Method::GET, "/_monitor/accepted") => {
            Answer::json(200, &json!(shared.look(|state| state.rules.journal.accepted())))
        }
        (&Method::GET, "/_monitor/counts") => {
            Answer::json(200, &json!(shared.look(|state| state.rules.journal.counts().clone())))
        }
        (&Method::GET, "/_monitor/requests") => {
            Answer::json(200, &json!(shared.look(|state| state.rules.journal.seen())))
        }
        (&Method::POST, "/_monitor/challenge") => {
            Answer::json(200, &json!({"challenge_uuid": inner.issue_challenge()}))
        }
        (&Method::POST, "/_monitor/fault") => match serde_json::from_slice(body) {
            Ok(FaultRequest::Plan(plan)) => {
                inner.misbehave(plan);
                done()
            }
            Ok(FaultRequest::Fault(fault)) => {
                inner.misbehave(fault.into());
                done()
            }
            Err(_) => Answer::detail(422, "not a fault; GET / shows how they look"),
        },
        (&Method::POST, "/_monitor/heal") => {
            inner.heal();
            done()
        }
        (&Method::POST, "/_monitor/pause") => {
            inner.pause().await;
            done()
        }
        (&Method::POST, "/_monitor/resume") => match inner.resume().await {
            Ok(()) => done(),
            Err(cause) => Answer::detail(500, &cause.to_string()),
        },
        (&Method::POST, "/_monitor/clock") => match serde_json::from_slice::<Clock>(body) {
            Ok(clock) => {
                shared.change(|state, _| state.clock_offset = clock.offset_seconds);
                done()
            }
            Err(cause) => Answer::detail(422, &cause.to_string()),
        },
        (&Method::GET, "/") => Answer::typed(200, "text/plain", HELP.to_owned()),
        _ => Answer::detail(404, "Not Found; GET / shows what there is"),
    }
}
