//! Reads a request's body within limits.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};

use crate::runtime;

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// It is, or says it will be, too large.
    #[error("a body has at most {most} bytes")]
    TooLarge {
        /// What it may have.
        most: usize,
    },
    /// It did not come in time.
    #[error("the body did not come within {within:?}")]
    TooSlow {
        /// How long it may take.
        within: Duration,
    },
    /// The client went away, or its framing is broken.
    #[error("the body is incomplete")]
    Incomplete,
}

/// The whole body: at most so many bytes, within so long.
pub(super) async fn read(
    body: Incoming,
    most: usize,
    within: Duration,
) -> Result<Bytes, BodyError> {
    // One that says so itself is not even begun.
    if body.size_hint().lower() > most as u64 {
        return Err(BodyError::TooLarge { most });
    }
    match runtime::timeout(within, Limited::new(body, most).collect()).await {
        Some(Ok(body)) => Ok(body.to_bytes()),
        Some(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge { most }),
        Some(Err(_)) => Err(BodyError::Incomplete),
        None => Err(BodyError::TooSlow { within }),
    }
}
