//! Streams that spoil what is written to them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::io::{AsyncRead, AsyncWrite};

/// Writes one byte at a time; with Nagle's algorithm off each is a TCP segment of its own.
pub(crate) struct ByteByByte<S>(pub S);

impl<S: AsyncRead + Unpin> AsyncRead for ByteByByte<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ByteByByte<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf.get(..1).unwrap_or_default())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

/// Leaves the Pongs out of a WebSocket server's frames: the library answers every Ping by itself.
pub(crate) struct WithoutPongs<S> {
    inner: S,
    filter: PongFilter,
    /// Filtered and not yet written.
    pending: Vec<u8>,
}

impl<S: AsyncWrite + Unpin> WithoutPongs<S> {
    pub fn new(inner: S) -> Self {
        Self { inner, filter: PongFilter::default(), pending: Vec::new() }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            let count = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.pending))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pending.drain(..count.min(self.pending.len()));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WithoutPongs<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WithoutPongs<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(cx))?;
        let kept = self.filter.keep(buf);
        self.pending = kept;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// Follows unmasked frames (RFC 6455 section 5.2) through a stream of bytes.
#[derive(Debug, Default)]
struct PongFilter {
    head: Vec<u8>,
    /// Bytes of payload still to come.
    payload: u64,
    dropping: bool,
}

impl PongFilter {
    /// Opcode of a Pong.
    const PONG: u8 = 0xA;

    /// The bytes without those of Pongs.
    fn keep(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut kept = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if self.payload > 0 {
                self.payload -= 1;
                if !self.dropping {
                    kept.push(byte);
                }
                continue;
            }
            self.head.push(byte);
            let Some((opcode, length)) = head(&self.head) else { continue };
            self.payload = length;
            self.dropping = opcode == Self::PONG;
            if !self.dropping {
                kept.append(&mut self.head);
            }
            self.head.clear();
        }
        kept
    }
}

/// Opcode and length of the payload, once the head is whole.
fn head(bytes: &[u8]) -> Option<(u8, u64)> {
    let [first, second, extended @ ..] = bytes else { return None };
    let length = match second & 0x7f {
        126 => u64::from(u16::from_be_bytes(extended.try_into().ok()?)),
        127 => u64::from_be_bytes(extended.try_into().ok()?),
        short => u64::from(short),
    };
    Some((first & 0xf, length))
}

#[cfg(test)]
mod tests {
    use async_std::task::block_on;
    use futures_util::io::AsyncWriteExt;

    use super::*;

    #[test]
    fn bytes_go_one_by_one() {
        let mut wire = ByteByByte(Vec::new());
        block_on(async {
            assert_eq!(wire.write(b"abc").await.unwrap(), 1);
            assert_eq!(wire.write(b"").await.unwrap(), 0);
            wire.write_all(b"bc").await.unwrap();
        });
        assert_eq!(wire.0, b"abc");
    }

    #[test]
    fn pongs_are_left_out_however_the_bytes_are_cut() {
        let text = [&[0x81, 2][..], b"hi"].concat();
        let pong = [&[0x8a, 8][..], b"12345678"].concat();
        let long = [&[0x81, 126, 1, 0][..], &[b'x'; 256]].concat();
        let empty = vec![0x8a, 0];
        let huge = [&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &[b'y'; 65536]].concat();
        let all =
            [&pong, &text, &empty, &long, &pong, &huge, &pong, &text].map(|f| &f[..]).concat();
        let expected = [&text, &long, &huge, &text].map(|frame| &frame[..]).concat();
        for size in [1, 3, 7, 1000, all.len()] {
            let mut filter = PongFilter::default();
            let kept: Vec<u8> = all.chunks(size).flat_map(|part| filter.keep(part)).collect();
            assert!(kept == expected, "in pieces of {size}");
        }
    }
}
