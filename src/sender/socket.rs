//! An open WebSocket as the driver holds it: one task that reads, one that writes.
//!
//! Invariants: what is about to be written is told before its first byte is on the wire; orders
//! are carried out one after the other, so a Ping stands behind the samples before it; both tasks
//! end with the handle, and a link that is at its end says so once, as [`LinkEvent::Lost`] or
//! [`LinkEvent::Refused`].

use std::sync::Arc;
use std::time::Duration;

use harborforge_storage::{Limits, Record};

use super::bundle::{Bundle, buffer_again};
use super::classify::printable;
use super::link::Link;
use super::load::Load;
use super::machine::{Attempt, LinkEvent};
use crate::protocol::{WebSocketEvent, read_event, refuses};
use crate::runtime::{self, Task, TaskGuard, channel};
use crate::sample::Gap;
use crate::store::{Store, chain};
use crate::transport::{Incoming, Reader, Socket, SocketError, Writer};

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_millis(300);

/// Hints are dropped while this many orders wait.
const HINTS_UP_TO: usize = 8;

/// Close code of a link that is not needed any more (RFC 6455, 7.4.1).
const NORMAL_CLOSURE: u16 = 1000;

/// Where events of a link go.
pub(super) type Events = channel::Sender<(Attempt, LinkEvent)>;

enum Order {
    Text(Vec<u8>),
    Samples { from: u64, limits: Limits },
    Ping([u8; 8]),
    Close,
}

/// An open link. Dropping it ends it without a goodbye.
pub(super) struct OpenLink {
    pub(super) name: Attempt,
    orders: channel::Sender<Order>,
    _reader: TaskGuard<()>,
    writer: TaskGuard<()>,
    done: channel::Receiver<()>,
}

impl OpenLink {
    /// Takes over an accepted socket.
    pub(super) fn new(
        name: Attempt,
        socket: Socket,
        link: Arc<Link>,
        store: Store,
        events: &Events,
    ) -> Self {
        let (reader, writer) = socket.split();
        // The machine has no more under way than a Hello, samples, a Ping and a goodbye.
        let (orders, received) = channel::bounded(16);
        let (finished, done) = channel::bounded(1);
        let reading = read(name, reader, events.clone());
        let events_too = events.clone();
        let writing = Writing { name, writer, link, store, events: events_too, buffer: Vec::new() };
        let writing = async move {
            writing.run(&received).await;
            drop(finished);
        };
        Self {
            name,
            orders,
            _reader: runtime::spawn_guarded(reading),
            writer: runtime::spawn_guarded(writing),
            done,
        }
    }

    /// Sends a text message.
    pub(super) fn text(&self, message: Vec<u8>) {
        self.order(Order::Text(message));
    }

    /// Sends a text message that may be lost: it does not take the place of what must go.
    pub(super) fn hint(&self, message: Vec<u8>) {
        if self.orders.len() < HINTS_UP_TO {
            self.order(Order::Text(message));
        }
    }

    /// Sends pending samples from `from` on.
    pub(super) fn samples(&self, from: u64, records: usize, bytes: usize) {
        self.order(Order::Samples { from, limits: Limits { records, bytes } });
    }

    /// Sends a Ping.
    pub(super) fn ping(&self, payload: [u8; 8]) {
        self.order(Order::Ping(payload));
    }

    /// A link that does not take its orders is silent as well: its death is found that way.
    fn order(&self, order: Order) {
        let _ = self.orders.try_send(order);
    }

    /// Says goodbye behind what is being written, as long as that takes no longer than a moment.
    pub(super) fn close(self) -> Task<()> {
        runtime::spawn(async move {
            let _ = self.orders.try_send(Order::Close);
            // The channel closes when the writer is through.
            let _ = runtime::timeout(GOODBYE, self.done.recv()).await;
            drop(self.writer);
        })
    }
}

async fn read(name: Attempt, mut reader: Reader, events: Events) {
    loop {
        let event = match reader.next().await {
            Ok(Incoming::Text(text)) => match read_event(&text) {
                WebSocketEvent::Ack { seq } => LinkEvent::Ack(seq),
                WebSocketEvent::Reject(rejection) => {
                    LinkEvent::Reject(rejection.seq, printable(&rejection.error))
                }
                WebSocketEvent::NotOk { said } => LinkEvent::NotOk(printable(&said)),
                WebSocketEvent::Ignored => LinkEvent::Frame,
            },
            Ok(Incoming::Pong(payload)) => LinkEvent::Pong(payload),
            Ok(Incoming::Alive) => LinkEvent::Frame,
            Ok(Incoming::Closed { code, reason }) => ended(code, &reason),
            Err(error) => lost(&error),
        };
        let last = matches!(event, LinkEvent::Lost(_) | LinkEvent::Refused(_));
        if events.send((name, event)).await.is_err() || last {
            return;
        }
    }
}

fn ended(code: Option<u16>, reason: &str) -> LinkEvent {
    let code_text = code.map_or_else(String::new, |code| format!(" with code {code}"));
    let said = format!("the Monitor closed the WebSocket{code_text}: {}", printable(reason));
    if code.is_some_and(refuses) { LinkEvent::Refused(said) } else { LinkEvent::Lost(said) }
}

fn lost(error: &SocketError) -> LinkEvent {
    LinkEvent::Lost(chain(error))
}

struct Writing {
    name: Attempt,
    writer: Writer,
    link: Arc<Link>,
    store: Store,
    events: Events,
    /// Of the last samples sent, as long as there is a backlog.
    buffer: Vec<u8>,
}

impl Writing {
    async fn run(mut self, orders: &channel::Receiver<Order>) {
        while let Ok(order) = orders.recv().await {
            let done = match order {
                Order::Text(message) => self.writer.send(message).await,
                Order::Samples { from, limits } => self.samples(from, limits).await,
                Order::Ping(payload) => self.writer.ping(payload).await,
                Order::Close => {
                    // Whoever is gone needs no goodbye.
                    let _ = self.writer.close(NORMAL_CLOSURE, "").await;
                    return;
                }
            };
            if let Err(error) = done {
                self.tell(lost(&error)).await;
                return;
            }
        }
    }

    async fn tell(&self, event: LinkEvent) {
        // Only a driver that has ended does not listen any more.
        let _ = self.events.send((self.name, event)).await;
    }

    async fn samples(&mut self, from: u64, limits: Limits) -> Result<(), SocketError> {
        let load = match Load::read(&self.store, from, limits).await {
            Ok(load) => load,
            Err(error) => {
                self.tell(LinkEvent::Lost(format!("the queue cannot be read: {}", chain(&error))))
                    .await;
                return Ok(());
            }
        };
        let nothing = load.records.is_empty();
        let buffer = std::mem::take(&mut self.buffer);
        let encode = |out: &mut Vec<u8>, record: &Record, gaps: &[Gap]| {
            self.link.metrics_into(out, record, gaps)
        };
        let bundle = match Bundle::of(&load, limits.bytes, buffer, encode) {
            Ok(bundle) => bundle,
            Err(reason) => {
                // The heartbeat takes over in time, and judges the sample for what it is.
                self.tell(LinkEvent::Lost(reason)).await;
                return Ok(());
            }
        };
        if !nothing {
            self.link.told().note(&load);
            // Read, and not needed any more: not to be held while the socket takes its time.
            drop(load);
            let backlog = bundle.items().len() == limits.records && limits.records > 1;
            self.tell(LinkEvent::Sending(bundle.items().to_vec())).await;
            let (messages, text) = bundle.into_messages();
            for message in messages {
                self.writer.feed(message).await?;
            }
            self.writer.flush().await?;
            if backlog {
                self.buffer = buffer_again(text);
            }
        }
        self.tell(LinkEvent::Written { nothing }).await;
        Ok(())
    }
}
