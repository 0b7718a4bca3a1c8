//! The Monitor's HTTP calls, made with surf over our own transport. The only file that names
//! surf.
//!
//! Invariants:
//! - surf gets no middleware: it follows no redirect and logs nothing. A redirect is an answer
//!   like any other, with its target in [`Answer::location`].
//! - Limits and deadlines are those of `exchange`; an answer handed to surf is already complete.
//! - An API key is marked sensitive for the codec and is in no error.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::io::AsyncReadExt as _;
use http_body_util::Full;
use http_client::http_types::headers::{HeaderName, HeaderValue, HeaderValues};
use http_client::http_types::{self, Method, StatusCode};
use http_client::{Config, HttpClient, async_trait};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::dialer::Dialer;
use super::endpoint::Endpoint;
use super::error::TransportError;
use super::exchange;
use crate::sample::CONNECTOR_VERSION;

/// An answer of the Monitor, or of whatever stands in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code, 200 to 999.
    pub status: u16,
    /// The body, at most 64 KiB; cut there when there is more and the status is not 2xx.
    pub body: Vec<u8>,
    /// `Retry-After` as it stands: seconds or a date .
    pub retry_after: Option<String>,
    /// The sender's clock, from `Date`; `None` when the answer comes from a cache (`Age` over 0).
    pub date: Option<SystemTime>,
    /// `Location`: where a redirect points.
    pub location: Option<String>,
    /// The request went out twice, since a kept connection died under it before any answer. The
    /// Monitor may have seen its proof's nonce already, so a refusal may be no verdict on the
    /// credentials.
    pub resent: bool,
}

/// The HTTP transport to one endpoint. Clones share connections.
#[derive(Debug, Clone)]
pub struct HttpTransport {
    client: surf::Client,
    endpoint: Arc<Endpoint>,
    dialer: Dialer,
}

impl HttpTransport {
    /// A transport for an endpoint. Reads the trust anchors from files; opens no connection.
    ///
    /// # Errors
    /// See [`Dialer::new`].
    pub fn new(endpoint: Endpoint) -> Result<Self, TransportError> {
        let dialer = Dialer::new(&endpoint)?;
        let client = exchange::Client::new(dialer.clone(), endpoint.deadlines());
        let backend = Backend { client, config: Config::new() };
        let client = surf::Client::with_http_client(backend);
        Ok(Self { client, endpoint: Arc::new(endpoint), dialer })
    }

    /// The endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The dialer, for the transport that does without HTTP requests.
    #[must_use]
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Fetches the key document (docs/PROTOCOL.md 2). Any status is an answer.
    ///
    /// # Errors
    /// No answer came, or none that can be read: see [`TransportError`].
    pub async fn key_document(&self) -> Result<Answer, TransportError> {
        self.send(surf::Request::new(Method::Get, self.endpoint.key_url())).await
    }

    /// Asks an OpenClaw gateway at this endpoint how far its start has come. Any status is an
    /// answer.
    ///
    /// # Errors
    /// No answer came, or none that can be read: see [`TransportError`].
    pub async fn startup_probe(&self) -> Result<Answer, TransportError> {
        self.send(surf::Request::new(Method::Get, self.endpoint.startup_url())).await
    }

    /// Posts a heartbeat (docs/PROTOCOL.md 5): `body` is the JSON to send. Any status is an
    /// answer.
    ///
    /// # Errors
    /// No answer came, or none that can be read, or the API key cannot stand in a header: see
    /// [`TransportError`].
    pub async fn heartbeat(
        &self,
        body: Vec<u8>,
        api_key: Option<&SecretString>,
    ) -> Result<Answer, TransportError> {
        let mut request = surf::Request::new(Method::Post, self.endpoint.heartbeat_url());
        request.set_body(body);
        request.insert_header("content-type", "application/json");
        if let Some(key) = api_key {
            let key = HeaderValue::from_bytes(key.expose_secret().as_bytes().to_vec())
                .map_err(|_| TransportError::Request { what: "the API key is not plain ASCII" })?;
            request.insert_header(API_KEY, key);
        }
        self.send(request).await
    }

    async fn send(&self, mut request: surf::Request) -> Result<Answer, TransportError> {
        let agent = format!("harborforge-connector/{CONNECTOR_VERSION}");
        request.insert_header("user-agent", agent);
        let mut response = self.client.send(request).await.map_err(into_transport_error)?;
        let body = response.body_bytes().await.map_err(into_transport_error)?;
        let header = |name: &str| response.header(name).map(|values| values.last().as_str());
        // An Age that cannot be read is still the mark of a cache.
        let fresh = header("age").is_none_or(|age| age.trim() == "0");
        let seen = response.ext::<Seen>().copied();
        Ok(Answer {
            status: seen.map_or_else(|| u16::from(response.status()), |seen| seen.status),
            retry_after: header("retry-after").map(str::to_owned),
            date: header("date")
                .filter(|_| fresh)
                .and_then(|date| httpdate::parse_http_date(date).ok()),
            location: header("location").map(str::to_owned),
            resent: seen.is_some_and(|seen| seen.resent),
            body,
        })
    }
}

/// The header of mode `api_key` (docs/PROTOCOL.md 3).
const API_KEY: &str = "x-api-key";

/// surf's error type wraps ours.
fn into_transport_error(error: surf::Error) -> TransportError {
    match error.downcast::<TransportError>() {
        Ok(error) => error,
        Err(_) => TransportError::Request { what: "the HTTP client refused it" },
    }
}

/// What surf's response type cannot carry.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// surf knows the registered codes only; a CDN's 520 is none of them.
    status: u16,
    resent: bool,
}

/// Our client in surf's terms.
#[derive(Debug)]
struct Backend {
    client: exchange::Client,
    config: Config,
}

#[async_trait]
impl HttpClient for Backend {
    async fn send(
        &self,
        request: http_client::Request,
    ) -> Result<http_client::Response, http_client::Error> {
        let reply = self.client.call(outgoing(request).await?).await?;
        Ok(incoming(reply))
    }

    fn set_config(&mut self, _config: Config) -> http_types::Result<()> {
        let what = "the HTTP client's limits are the protocol's and cannot be set";
        Err(TransportError::Request { what }.into())
    }

    fn config(&self) -> &Config {
        &self.config
    }
}

/// surf's request for the codec.
async fn outgoing(
    mut request: http_client::Request,
) -> Result<hyper::Request<Full<Bytes>>, TransportError> {
    let unusable = |what| TransportError::Request { what };
    let mut source = request.take_body();
    let mut body = Vec::with_capacity(source.len().unwrap_or(0));
    source.read_to_end(&mut body).await.map_err(|_| unusable("its body cannot be read"))?;
    let mut out = hyper::Request::new(Full::new(Bytes::from(body)));
    *out.method_mut() = hyper::Method::from_bytes(request.method().as_ref().as_bytes())
        .map_err(|_| unusable("its method is unusable"))?;
    let url = request.url();
    *out.uri_mut() = url.path().parse().map_err(|_| unusable("its path is unusable"))?;
    let headers = out.headers_mut();
    for (name, values) in request.iter() {
        let name = hyper::header::HeaderName::from_bytes(name.as_str().as_bytes())
            .map_err(|_| unusable("a header's name is unusable"))?;
        for value in values {
            let mut value = hyper::header::HeaderValue::from_str(value.as_str())
                .map_err(|_| unusable("a header's value (the API key?) is unusable"))?;
            value.set_sensitive(name == API_KEY);
            headers.append(&name, value);
        }
    }
    let host = host_header(url).parse().map_err(|_| unusable("its host is unusable"))?;
    headers.insert(hyper::header::HOST, host);
    Ok(out)
}

/// Host and, unless it is the scheme's own, port.
pub(super) fn host_header(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The codec's answer for surf.
fn incoming(reply: exchange::Reply) -> http_client::Response {
    // Where the code is not a registered one, its class stands for it; `Seen` has the code.
    let status = StatusCode::try_from(reply.status)
        .or_else(|_| StatusCode::try_from(reply.status / 100 * 100))
        .unwrap_or(StatusCode::InternalServerError);
    let mut response = http_types::Response::new(status);
    for (name, value) in &reply.headers {
        // surf wants ASCII; a header that is not says nothing to us.
        let name = HeaderName::from_bytes(name.as_str().as_bytes().to_vec());
        let value = HeaderValue::from_bytes(value.as_bytes().to_vec());
        if let (Ok(name), Ok(value)) = (name, value) {
            response.append_header(name, &HeaderValues::from_iter([value]));
        }
    }
    response.set_body(reply.body.as_ref());
    response.ext_mut().insert(Seen { status: reply.status, resent: reply.resent });
    response
}
