//! An HTTP answer as a value, and as the bytes of HTTP/1.1. Pure.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::error::{Reason, Refusal};

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Headers besides `Content-Length`, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A JSON answer.
    #[must_use]
    pub fn json(status: u16, body: &Value) -> Self {
        Self::typed(status, "application/json", body.to_string())
    }

    /// An answer of the given content type.
    #[must_use]
    pub fn typed(status: u16, content_type: &str, body: String) -> Self {
        Self {
            status,
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            body: body.into_bytes(),
        }
    }

    /// An error as HarborForge's backend words it: `{"detail": ...}`.
    #[must_use]
    pub fn detail(status: u16, detail: &str) -> Self {
        Self::json(status, &json!({ "detail": detail }))
    }

    /// The answer to something refused; faults of the body are a list with their place.
    #[must_use]
    pub fn refusal(refusal: &Refusal) -> Self {
        let status = refusal.reason.status();
        if refusal.reason == Reason::BadSample {
            let fault = json!({"loc": ["body"], "msg": refusal.detail, "type": "value_error"});
            return Self::json(status, &json!({ "detail": [fault] }));
        }
        Self::detail(status, &refusal.detail)
    }

    /// The same answer with one more header.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The head as HTTP/1.1 writes it, without the empty line that ends it.
    #[must_use]
    pub fn head(&self) -> String {
        let reason = StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Unknown");
        let mut head = format!("HTTP/1.1 {} {reason}\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head
    }

    /// The whole answer as HTTP/1.1 writes it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let head = format!("{}content-length: {}\r\n\r\n", self.head(), self.body.len());
        [head.as_bytes(), &self.body].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_http() {
        let answer = Answer::detail(503, "later").with("retry-after", "7");
        assert_eq!(
            String::from_utf8(answer.to_bytes()).unwrap(),
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
             retry-after: 7\r\ncontent-length: 18\r\n\r\n{\"detail\":\"later\"}"
        );
    }

    #[test]
    fn a_bad_sample_is_told_with_its_place() {
        let answer = Answer::refusal(&Refusal::new(Reason::BadSample, "seq: wrong"));
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer.status, 422);
        assert_eq!(body["detail"][0]["msg"], "seq: wrong");
    }
}
