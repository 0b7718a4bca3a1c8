//! Samples as the messages of one order, behind one another in one buffer.
//!
//! Invariants: numbers ascend; the first sample goes whatever its size, and alone carries the gaps;
//! what finds no room behind it, or cannot be encoded, stays for the next order, of which it will
//! be the first. There is no block of memory for each message: an allocator that gives every block
//! back at once (musl's) spends most of a drain on that.

use bytes::Bytes;
use harborforge_storage::Record;

use super::load::Load;
use crate::sample::Gap;

/// Messages, ready to be sent.
pub(super) struct Bundle {
    /// Number and size of each.
    items: Vec<(u64, usize)>,
    text: Vec<u8>,
}

impl Bundle {
    /// The messages of these samples, as many as `bytes` allow. `encode` writes one behind what is
    /// there, or leaves it as it is; `buffer` is one to use again.
    ///
    /// # Errors
    /// Why the first sample cannot be sent, in words.
    pub(super) fn of(
        load: &Load,
        bytes: usize,
        mut buffer: Vec<u8>,
        mut encode: impl FnMut(&mut Vec<u8>, &Record, &[Gap]) -> Result<(), serde_json::Error>,
    ) -> Result<Self, String> {
        buffer.clear();
        let mut items = Vec::with_capacity(load.records.len());
        for (place, record) in load.records.iter().enumerate() {
            let begin = buffer.len();
            match encode(&mut buffer, record, &load.gaps_for(place)) {
                Ok(()) => {}
                Err(_) if place > 0 => break,
                Err(error) => return Err(format!("sample {} cannot be sent: {error}", record.seq)),
            }
            if buffer.len() > bytes && place > 0 {
                buffer.truncate(begin);
                break;
            }
            items.push((record.seq, buffer.len().saturating_sub(begin)));
        }
        Ok(Self { items, text: buffer })
    }

    /// Number and size of each message, in order.
    pub(super) fn items(&self) -> &[(u64, usize)] {
        &self.items
    }

    /// The messages in order, and the buffer that they share: whoever has let go of the messages
    /// has it for himself, see [`buffer_again`].
    pub(super) fn into_messages(self) -> (impl Iterator<Item = Bytes>, Bytes) {
        let text = Bytes::from(self.text);
        let mut rest = text.clone();
        let cut = move |(_, length): (u64, usize)| rest.split_to(length.min(rest.len()));
        (self.items.into_iter().map(cut), text)
    }
}

/// An empty buffer out of one that was sent; without a copy when nobody else has it.
pub(super) fn buffer_again(text: Bytes) -> Vec<u8> {
    let mut buffer = Vec::from(text);
    buffer.clear();
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sender::load::tests::loaded;

    /// What goes with so much room: number, size, and the messages. One is its payload behind the
    /// number of gaps it tells; a payload of `!` cannot be encoded.
    fn made(payloads: &[&str], bytes: usize) -> Result<(Vec<(u64, usize)>, String), String> {
        let load = loaded(5, payloads, &[(1, 4)]);
        let bundle = Bundle::of(&load, bytes, b"old".to_vec(), |out, record, gaps| {
            if record.payload == b"!" {
                return Err(serde::de::Error::custom("no sample"));
            }
            out.extend(gaps.len().to_string().into_bytes());
            out.extend(&record.payload);
            Ok(())
        })?;
        let items = bundle.items().to_vec();
        let messages: Vec<Bytes> = bundle.into_messages().0.collect();
        Ok((items, String::from_utf8(messages.concat()).unwrap()))
    }

    #[test]
    fn as_many_go_as_there_is_room_for_and_the_first_in_any_case() {
        let went = |items: &[(u64, usize)], text: &str| Ok((items.to_vec(), text.to_owned()));
        let three = ["ab", "c", "d"];
        assert_eq!(made(&three, 7), went(&[(5, 3), (6, 2), (7, 2)], "1ab0c0d"));
        assert_eq!(made(&three, 6), went(&[(5, 3), (6, 2)], "1ab0c"));
        assert_eq!(made(&three, 0), went(&[(5, 3)], "1ab"));
        // The next order begins with it, and is told why.
        assert_eq!(made(&["ab", "!", "d"], 9), went(&[(5, 3)], "1ab"));
        assert_eq!(made(&["!", "d"], 9), Err("sample 5 cannot be sent: no sample".to_owned()));
        assert_eq!(made(&[], 9), went(&[], ""));
    }

    #[test]
    fn messages_are_cut_where_they_end_and_the_buffer_comes_back() {
        let bundle = Bundle { items: vec![(7, 3), (9, 1), (10, 2)], text: b"abcdef".to_vec() };
        let (address, capacity) = (bundle.text.as_ptr(), bundle.text.capacity());
        let (messages, text) = bundle.into_messages();
        let messages: Vec<Bytes> = messages.collect();
        assert_eq!(messages, ["abc", "d", "ef"]);
        drop(messages);
        let buffer = buffer_again(text);
        assert_eq!((buffer.len(), buffer.as_ptr(), buffer.capacity()), (0, address, capacity));
    }
}
