//! Decides what is sent when, over which transport.
