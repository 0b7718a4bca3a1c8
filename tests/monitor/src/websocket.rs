//! The WebSocket's side of a Monitor (the protocol's section 4). Pings are answered by the
//! WebSocket library.

use std::sync::Arc;
use std::time::Duration;

use async_std::future::timeout;
use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use futures_util::{FutureExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::connection::Wire;
use crate::error::{Reason, Refusal};
use crate::events::{Link, Reply};
use crate::proof::Proof;

use crate::shared::Shared;

/// How long the first message may take.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);

/// Bytes a message may have.
const MAX_MESSAGE: usize = 1024 * 1024;

/// Samples dealt with before they are acknowledged although more are there to be read.
const MAX_UNACKNOWLEDGED: u32 = 128;

/// Serves an upgraded connection to its end; `read` is what came along with the upgrade.
pub(crate) async fn serve(shared: &Arc<Shared>, wire: Wire, read: Vec<u8>) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let mut socket =
        WebSocketStream::from_partially_read(wire, read, Role::Server, Some(config)).await;
    let Ok(Some(first)) = timeout(FIRST_MESSAGE, text(&mut socket)).await else { return };
    match accept(shared, &first) {
        Ok((link, acceptance)) => {
            if socket.send(Message::text(acceptance)).await.is_ok() {
                stream(shared, &mut socket, link).await;
            }
        }
        Err(refusal) => {
            shared.change(|state, _| state.rules.journal.refused(refusal.reason));
            let message = json!({"ok": false, "error": refusal.detail}).to_string();
            let _ = socket.send(Message::text(message)).await;
            let frame = CloseFrame { code: CloseCode::Policy, reason: "refused".into() };
            let _ = socket.close(Some(frame)).await;
            // The other side closes too; going away before it did could cost it our last words.
            let _ = timeout(FIRST_MESSAGE, text(&mut socket)).await;
        }
    }
}

fn accept(shared: &Shared, first: &str) -> Result<(Link, String), Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct First {
        encrypted_payload: String,
    }
    let first: First = serde_json::from_str(first).map_err(|_| {
        Refusal::new(Reason::NoProof, "the first message has to be {\"encrypted_payload\":...}")
    })?;
    let key = shared.look(|state| Arc::clone(&state.key));
    let proof = Proof::read(&key.open(&first.encrypted_payload)?)?;
    let token = Uuid::new_v4().to_string();
    shared.change(|state, now| state.rules.handshake(&proof, token, now))
}

/// The next text message; `None` at the end of the stream.
async fn text(socket: &mut WebSocketStream<Wire>) -> Option<String> {
    loop {
        let message = socket.next().await?.ok()?;
        if let Message::Text(text) = message {
            return Some(text.to_string());
        }
    }
}

/// Takes events until the stream ends. An acknowledgement is sent when nothing more is there to
/// be read, or after [`MAX_UNACKNOWLEDGED`] samples.
async fn stream(shared: &Arc<Shared>, socket: &mut WebSocketStream<Wire>, mut link: Link) {
    let mut stored = None;
    let mut since = 0;
    loop {
        let ready = if stored.is_some() && since < MAX_UNACKNOWLEDGED {
            socket.next().now_or_never()
        } else if stored.is_some() {
            None
        } else {
            Some(socket.next().await)
        };
        let Some(next) = ready else {
            since = 0;
            let ack =
                stored.take().and_then(|seq| shared.look(|state| state.rules.acknowledgement(seq)));
            if let Some(ack) = ack
                && socket.send(Message::text(ack)).await.is_err()
            {
                return;
            }
            continue;
        };
        let Some(Ok(message)) = next else { return };
        // Pings and Close are answered by the library, binary messages are ignored.
        let Message::Text(text) = message else { continue };
        let reply = shared.change(|state, now| {
            let changes = state.schedule.rejects();
            state.rules.event(&mut link, &text, &changes, now)
        });
        match reply {
            Reply::Quiet => {}
            Reply::Stored(seq) => {
                stored = Some(seq);
                since += 1;
            }
            Reply::Say(message) => {
                if socket.send(Message::text(message)).await.is_err() {
                    return;
                }
            }
        }
    }
}
