//! The WebSocket's side of a Monitor (the protocol's section 4), and how it is spoilt on request.
//! Pings are answered by the WebSocket library.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_std::future::timeout;
use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::frame::Frame;
use async_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use async_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use futures_util::{FutureExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::connection::Wire;
use crate::error::{Reason, Refusal};
use crate::events::{Link, Reply};
use crate::fault::Fault;
use crate::play::{Deed, Play};
use crate::proof::Proof;
use crate::shared::Shared;
use crate::wire::WithoutPongs;

/// How long the first message may take.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);

/// Bytes a message may have.
const MAX_MESSAGE: usize = 1024 * 1024;

/// Samples dealt with before they are acknowledged although more are there to be read.
const MAX_UNACKNOWLEDGED: u32 = 128;

/// The link is over, by the client's will, by its fault or as asked for.
struct Over;

/// Serves an upgraded connection to its end; `read` is what came along with the upgrade.
pub(crate) async fn serve(shared: &Arc<Shared>, wire: Wire, read: Vec<u8>, faults: Vec<Fault>) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let play = Play::new(faults);
    let wire = if play.never_pong { Box::new(WithoutPongs::new(wire)) } else { wire };
    let socket = WebSocketStream::from_partially_read(wire, read, Role::Server, Some(config)).await;
    // How it ended is for the client to find out.
    let _ = Line { shared, socket, play, messages: 0, late: VecDeque::new() }.serve().await;
}

/// One link.
struct Line<'a> {
    shared: &'a Arc<Shared>,
    socket: WebSocketStream<Wire>,
    play: Play,
    /// Text messages dealt with.
    messages: u64,
    /// Acknowledgements to come, and when.
    late: VecDeque<(Instant, String)>,
}

impl Line<'_> {
    async fn serve(mut self) -> Result<(), Over> {
        self.misbehave().await?;
        let first = timeout(FIRST_MESSAGE, self.text()).await.map_err(|_| Over)??;
        match accept(self.shared, &first) {
            Ok((link, acceptance)) => {
                self.dealt_with().await?;
                self.say(acceptance).await?;
                self.stream(link).await
            }
            Err(refusal) => {
                self.shared.change(|state, _| state.rules.journal.refused(refusal.reason));
                self.dealt_with().await?;
                self.say(json!({"ok": false, "error": refusal.detail}).to_string()).await?;
                self.close(CloseCode::Policy.into(), "refused".to_owned()).await
            }
        }
    }

    /// The next text message.
    async fn text(&mut self) -> Result<String, Over> {
        loop {
            let message = self.socket.next().await.ok_or(Over)?.map_err(|_| Over)?;
            if let Message::Text(text) = message {
                return Ok(text.to_string());
            }
        }
    }

    /// Takes events until the stream ends. An acknowledgement is sent when nothing more is there
    /// to be read, or after [`MAX_UNACKNOWLEDGED`] samples.
    async fn stream(&mut self, mut link: Link) -> Result<(), Over> {
        let mut stored = None;
        let mut since = 0;
        loop {
            let ready = if stored.is_none() {
                self.wait().await?
            } else if since < MAX_UNACKNOWLEDGED {
                self.socket.next().now_or_never()
            } else {
                None
            };
            let Some(next) = ready else {
                since = 0;
                if let Some(stored) = stored.take() {
                    self.acknowledge(stored).await?;
                }
                continue;
            };
            let message = next.ok_or(Over)?.map_err(|_| Over)?;
            // Pings and Close are answered by the library, binary messages are ignored.
            let Message::Text(text) = message else { continue };
            let reply = self.shared.change(|state, now| {
                let changes = state.schedule.rejects();
                state.rules.event(&mut link, &text, &changes, now)
            });
            self.dealt_with().await?;
            match reply {
                Reply::Quiet => {}
                Reply::Stored(seq) => {
                    stored = Some(seq);
                    since += 1;
                }
                Reply::Say(message) => self.say(message).await?,
            }
        }
    }

    /// Waits for the next message, or until an acknowledgement that is late is due, and sends it.
    async fn wait(&mut self) -> Result<Option<Next>, Over> {
        let Some((due, _)) = self.late.front() else { return Ok(Some(self.socket.next().await)) };
        let left = due.saturating_duration_since(Instant::now());
        if let Ok(next) = timeout(left, self.socket.next()).await {
            return Ok(Some(next));
        }
        if let Some((_, ack)) = self.late.pop_front() {
            self.say(ack).await?;
        }
        Ok(None)
    }

    async fn acknowledge(&mut self, stored: u64) -> Result<(), Over> {
        let (seq, times) = self.play.acknowledged(stored);
        let ack = self.shared.look(|state| state.rules.acknowledgement(seq));
        for ack in ack.into_iter().flat_map(|ack| std::iter::repeat_n(ack, times)) {
            if self.play.ack_late.is_zero() {
                self.say(ack).await?;
            } else {
                self.late.push_back((Instant::now() + self.play.ack_late, ack));
            }
        }
        Ok(())
    }

    async fn dealt_with(&mut self) -> Result<(), Over> {
        self.messages += 1;
        self.misbehave().await
    }

    /// Does what was asked for at this place.
    async fn misbehave(&mut self) -> Result<(), Over> {
        for deed in self.play.deeds(self.messages) {
            match deed {
                Deed::Cut => return Err(Over),
                Deed::Freeze => std::future::pending().await,
                Deed::Close { code, reason } => self.close(code, reason).await?,
                Deed::Say(text) => self.send(text, self.play.fragments).await?,
                Deed::Huge { bytes, fragments } => {
                    self.send("x".repeat(bytes), fragments.or(self.play.fragments)).await?;
                }
                Deed::Binary(bytes) => {
                    let message = Message::binary(vec![0; bytes]);
                    self.socket.send(message).await.map_err(|_| Over)?;
                }
            }
        }
        Ok(())
    }

    /// Says what is to be said, unless nothing is.
    async fn say(&mut self, text: String) -> Result<(), Over> {
        if self.play.silent {
            return Ok(());
        }
        self.send(text, self.play.fragments).await
    }

    async fn send(&mut self, text: String, fragments: Option<usize>) -> Result<(), Over> {
        let Some(size) = fragments else {
            return self.socket.send(Message::text(text)).await.map_err(|_| Over);
        };
        let parts = text.len().div_ceil(size.max(1)).max(1);
        for (place, part) in text.as_bytes().chunks(size.max(1)).enumerate() {
            let kind = if place == 0 { Data::Text } else { Data::Continue };
            let last = place + 1 == parts;
            let frame = Frame::message(part.to_vec(), OpCode::Data(kind), last);
            self.socket.send(Message::Frame(frame)).await.map_err(|_| Over)?;
            // Control frames may come between fragments (RFC 6455 section 5.4).
            self.socket.send(Message::Ping(Vec::new().into())).await.map_err(|_| Over)?;
        }
        Ok(())
    }

    /// Closes the link and waits for the other side to do so too: going away before it did could
    /// cost it our last words.
    async fn close(&mut self, code: u16, reason: String) -> Result<(), Over> {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        self.socket.close(Some(frame)).await.map_err(|_| Over)?;
        let _ = timeout(FIRST_MESSAGE, async { while self.text().await.is_ok() {} }).await;
        Err(Over)
    }
}

type Next = Option<Result<Message, async_tungstenite::tungstenite::Error>>;

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
