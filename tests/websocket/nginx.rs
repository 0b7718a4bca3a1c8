//! Through nginx as it stands in front of most Monitors: TLS and WebSocket proxy, real process.
