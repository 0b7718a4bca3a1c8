//! The Monitor's key document, its fingerprint, and the proof encrypted with it.
