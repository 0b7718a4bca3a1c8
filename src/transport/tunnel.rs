//! CONNECT: a tunnel through an HTTP proxy (RFC 9110 section 9.3.6).
//!
//! Invariant: after [`open`] the socket stands exactly behind the proxy's answer; a proxy that
//! sends more than its answer before anything was asked of the Monitor is refused.

use std::pin::pin;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http_body_util::Full;
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::{Method, Request, Uri};

use super::codec;
use super::dialer::Stream;
use super::endpoint::Target;
use super::error::{Cause, ProxyFault, TransportError};
use super::proxy::Proxy;
use crate::runtime::TcpStream;

/// Asks the proxy at the other end of `stream` for a tunnel to `target`.
///
/// # Errors
/// [`TransportError::Proxy`].
pub(super) async fn open(
    stream: TcpStream,
    proxy: &Proxy,
    target: &Target,
) -> Result<TcpStream, TransportError> {
    let fail = |fault, source| TransportError::Proxy {
        proxy: proxy.to_string(),
        target: target.to_string(),
        fault,
        source,
    };
    let broken = |error: hyper::Error| {
        let fault = if error.is_parse() { ProxyFault::NotHttp } else { ProxyFault::Closed };
        fail(fault, Some(Box::new(error) as Cause))
    };
    let request = request(proxy, target)
        .ok_or(TransportError::Request { what: "the proxy's user or password is unusable" })?;
    let (mut sender, connection, _) = codec::start(Stream::Plain(stream)).await.map_err(broken)?;
    let ask = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        match answer.status() {
            status if status.is_success() => hyper::upgrade::on(answer).await.map_err(broken),
            status => Err(fail(ProxyFault::Status(status.as_u16()), None)),
        }
    };
    // The connection does the work; it is done as soon as the socket is handed out.
    let upgraded = match select(pin!(ask), pin!(connection.with_upgrades())).await {
        Either::Left((answer, _)) => answer,
        Either::Right((_, ask)) => ask.await,
    }?;
    match codec::taken_over(upgraded) {
        Some((Stream::Plain(stream), begun)) if begun.is_empty() => Ok(stream),
        _ => Err(fail(ProxyFault::NotHttp, None)),
    }
}

fn request(proxy: &Proxy, target: &Target) -> Option<Request<Full<Bytes>>> {
    let authority = target.to_string();
    let mut request = Request::new(Full::default());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = Uri::builder().authority(authority.as_str()).build().ok()?;
    request.headers_mut().insert(HOST, HeaderValue::from_str(&authority).ok()?);
    if let Some(value) = proxy.authorization() {
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        request.headers_mut().insert(PROXY_AUTHORIZATION, value);
    }
    Some(request)
}
