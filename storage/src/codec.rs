//! Payloads made smaller: an LZ4 block each, with a fixed dictionary.
//!
//! A packed body is 4 bytes length of the payload as it was given, little-endian, and the block: the
//! LZ4 block format, without a frame, its matches reaching back into [`DICTIONARY`] as if that came
//! right before the payload.
//!
//! - Each record is packed alone, so damage to one costs no other.
//! - The dictionary only decides how small things get: any bytes come back as they were given. It
//!   is the words in which most payloads agree, in their order.
//! - **A dictionary once used never changes**, not by a byte: records packed with it would be lost.
//!   A better one is a file of its own with a codec number of its own (`record.rs`), and a new version
//!   of the directory (`format.rs`): a program that does not know it must refuse the queue, not take
//!   its records for damage.
//! - What is read is not trusted: no memory is taken for more than a payload may have, and a block
//!   that does not come out at exactly the length it states is none.

use lz4_flex::block::{
    compress_into_with_dict, decompress_into_with_dict, get_maximum_output_size,
};

use crate::record::MAX_PAYLOAD;

/// Dictionary 1.
const DICTIONARY: &[u8] = include_bytes!("dictionary-1");

/// Length of the length before a block.
const LENGTH_LEN: usize = 4;

/// The packed body for this payload; none if it would not be smaller than the payload itself.
pub(crate) fn pack(payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() > MAX_PAYLOAD {
        return None;
    }
    let mut body = vec![0; LENGTH_LEN.checked_add(get_maximum_output_size(payload.len()))?];
    let (length, block) = body.split_first_chunk_mut::<LENGTH_LEN>()?;
    *length = u32::try_from(payload.len()).ok()?.to_le_bytes();
    let taken = compress_into_with_dict(payload, block, DICTIONARY).ok()?;
    let taken = LENGTH_LEN.checked_add(taken)?;
    body.truncate(taken);
    (taken < payload.len()).then_some(body)
}

/// A packed body, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packed<'a> {
    length: usize,
    block: &'a [u8],
}

impl<'a> Packed<'a> {
    /// Takes a body apart without unpacking it; none if it cannot be one.
    pub(crate) fn read(body: &'a [u8]) -> Option<Self> {
        let (length, block) = body.split_first_chunk::<LENGTH_LEN>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        (length <= MAX_PAYLOAD).then_some(Self { length, block })
    }

    /// Length of the payload in bytes, as the body states it.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// The payload; none if the block is not one of that length.
    pub(crate) fn unpack(&self) -> Option<Vec<u8>> {
        let mut payload = vec![0; self.length];
        let came = decompress_into_with_dict(self.block, &mut payload, DICTIONARY).ok()?;
        (came == self.length).then_some(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A sample as the connector writes it, of 400 bytes.
    const SAMPLE: &[u8] = br#"{"openclaw_version":"2026.3.13","cpu_pct":37.4,"mem_pct":68.9,"disk_pct":81.3,"swap_pct":2.7,"uptime_seconds":8630417,"load_avg":[1.53,0.97,0.86],"agents":[{"id":"main","name":"Assistant","status":"running"},{"id":"billing-desk","name":"Billing desk (EU)","status":"idle"},{"id":"night-watch","name":"Night watch","status":"idle"}],"last_seen_at":"2026-08-29T17:42:30Z","connector_version":"0.1.0"}"#;

    fn unpacked(body: &[u8]) -> Option<Vec<u8>> {
        Packed::read(body)?.unpack()
    }

    /// If this fails, what is stored cannot be read any more: put the dictionary back as it was.
    #[test]
    fn the_dictionary_is_the_one_that_was_used() {
        assert_eq!((DICTIONARY.len(), crc32c::crc32c(DICTIONARY)), (1051, 0xA31E_E03C));
    }

    #[test]
    fn a_sample_takes_less_than_half() {
        let body = pack(SAMPLE).unwrap();
        assert!(body.len() * 2 < SAMPLE.len(), "{} of {}", body.len(), SAMPLE.len());
        assert_eq!(unpacked(&body).as_deref(), Some(SAMPLE));
    }

    #[test]
    fn what_would_not_get_smaller_is_not_packed() {
        let noise: Vec<u8> =
            (0u32..200).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for payload in [&b""[..], b"{}", b"abcd", &noise] {
            assert_eq!(pack(payload), None, "{payload:?}");
        }
        assert_eq!(pack(&vec![0; MAX_PAYLOAD + 1]), None);
        let zeros = vec![0; MAX_PAYLOAD];
        assert!(unpacked(&pack(&zeros).unwrap()) == Some(zeros));
    }

    #[test]
    fn a_length_that_is_not_the_payloads_is_refused() {
        let body = pack(SAMPLE).unwrap();
        let stated = |length: usize| {
            let mut other = body.clone();
            other[..LENGTH_LEN].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
            other
        };
        for length in [0, 1, SAMPLE.len() - 1, SAMPLE.len() + 1, MAX_PAYLOAD] {
            assert_eq!(unpacked(&stated(length)), None, "{length}");
        }
        // Not even taken apart, so that nothing is allocated for it.
        for length in [MAX_PAYLOAD + 1, u32::MAX as usize] {
            assert_eq!(Packed::read(&stated(length)), None, "{length}");
        }
        assert_eq!(unpacked(&stated(SAMPLE.len())).as_deref(), Some(SAMPLE));
        for end in 0..body.len() {
            assert_eq!(unpacked(&body[..end]), None, "cut at {end}");
        }
    }

    /// Words of the dictionary among any other bytes, over and over.
    fn payloads() -> impl Strategy<Value = Vec<u8>> {
        let word = (any::<prop::sample::Index>(), 0usize..80).prop_map(|(from, length)| {
            let from = from.index(DICTIONARY.len());
            DICTIONARY[from..].iter().take(length).copied().collect::<Vec<_>>()
        });
        let noise = prop::collection::vec(any::<u8>(), 0..40);
        let run = (any::<u8>(), 0usize..300).prop_map(|(byte, length)| vec![byte; length]);
        prop::collection::vec(prop_oneof![word, noise, run], 0..24).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn any_payload_comes_back(payload in payloads()) {
            if let Some(body) = pack(&payload) {
                prop_assert!(body.len() < payload.len());
                prop_assert_eq!(Packed::read(&body).unwrap().len(), payload.len());
                prop_assert_eq!(unpacked(&body), Some(payload));
            }
        }

        /// Beyond the table for short payloads.
        #[test]
        fn a_long_payload_comes_back(seed in payloads(), times in 1usize..400) {
            let payload = seed.repeat(times);
            if let Some(body) = pack(&payload) {
                prop_assert!(unpacked(&body) == Some(payload));
            }
        }

        #[test]
        fn any_bytes_are_unpacked_or_refused(
            length in prop_oneof![0u32..600, any::<u32>()],
            block in prop::collection::vec(prop_oneof![Just(0u8), Just(0xFF), any::<u8>()], 0..200),
        ) {
            let body = [length.to_le_bytes().as_slice(), &block].concat();
            if let Some(payload) = unpacked(&body) {
                prop_assert_eq!(payload.len(), length as usize);
            }
        }

        #[test]
        fn a_changed_block_is_unpacked_or_refused(
            payload in payloads(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            if let Some(mut body) = pack(&payload) {
                for (at, byte) in changes {
                    let at = at.index(body.len());
                    body[at] = byte;
                }
                if let Some(other) = unpacked(&body) {
                    prop_assert!(other.len() <= MAX_PAYLOAD);
                }
            }
        }
    }
}
