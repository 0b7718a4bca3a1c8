//! Where samples come from: the host's figures and the schedule they are taken on.
