//! Payloads that tell their number: one half of them like samples, which are stored packed, the
//! other half noise, which cannot be.

use super::random::Random;

/// A payload of `size` bytes that tells its number. Three numbers in a row are of one kind, so that
/// sizes which go by the number come in both.
pub fn payload(number: u64, size: usize) -> Vec<u8> {
    if is_noise(number) { noise(number, size) } else { samples(number, size) }
}

/// Whether the payload of this number is one that no packing makes smaller.
pub fn is_noise(number: u64) -> bool {
    (number / 3).is_multiple_of(2)
}

/// A payload of `size` bytes that no packing makes smaller.
pub fn noise(number: u64, size: usize) -> Vec<u8> {
    let mut bytes = format!("{number}:").into_bytes();
    let mut random = Random(number);
    bytes.extend((bytes.len()..size).map(|_| random.next() as u8));
    bytes
}

/// A payload of `size` bytes that packing makes less than half as long, if it is as long as a sample.
pub fn samples(number: u64, size: usize) -> Vec<u8> {
    let mut bytes = format!("{number}:").into_bytes();
    let most = size.max(bytes.len());
    let mut random = Random(number);
    while bytes.len() < size {
        let mut figure = || random.below(1000) as f64 / 10.0;
        let (cpu, mem, disk, load) = (figure(), figure(), figure(), figure());
        let (agent, minute) = (random.below(50), random.below(60));
        let sample = format!(
            "{{\"openclaw_version\":\"2026.3.{agent}\",\"cpu_pct\":{cpu},\"mem_pct\":{mem},\
             \"disk_pct\":{disk},\"swap_pct\":0.0,\"uptime_seconds\":{number},\
             \"load_avg\":[{load},0.1,0.05],\"agents\":[{{\"id\":\"agent-{agent}\",\
             \"name\":\"Agent {agent}\",\"status\":\"idle\"}}],\
             \"last_seen_at\":\"2026-03-11T21:{minute:02}:00Z\",\"connector_version\":\"0.1.0\"}}"
        );
        bytes.extend(sample.into_bytes());
    }
    bytes.truncate(most);
    bytes
}
