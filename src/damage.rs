//! What may have become of a small file.

/// The file with each of its bits flipped, then cut off before each of its bytes.
pub(crate) fn every_kind(good: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let flips = (0..good.len()).flat_map(|at| (0..8).map(move |bit| (at, 1u8 << bit)));
    let flipped = flips.map(|(at, bit)| {
        let mut bytes = good.to_vec();
        bytes[at] ^= bit;
        bytes
    });
    flipped.chain((0..good.len()).map(|end| good[..end].to_vec()))
}
