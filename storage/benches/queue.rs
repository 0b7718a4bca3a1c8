//! Benchmarks of the queue.

fn main() {}
