//! What survives a restart beside the queue.
