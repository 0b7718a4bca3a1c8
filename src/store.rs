//! The one thread that owns the queue.
