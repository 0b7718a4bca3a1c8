//! The only place that wires the parts; start and shutdown order.
