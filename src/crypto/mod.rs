//! The Monitor's key document, its fingerprint, and the proof encrypted with it.
//!
//! Everything here is a function of its arguments and, for the proof, of the system's random
//! generator: no file, no socket, no clock.
//!
//! Invariants:
//! - A key that is accepted has 2048 to 4096 bits and an odd exponent of 3 or more; everything
//!   else is refused with an error that names what was found.
//! - The credentials in a proof are wiped from memory once they are encrypted, and no type here
//!   prints them.

mod document;
mod pem;
mod pin;
mod proof;
mod timestamp;

pub use document::{KeyDocument, KeyError};
pub use pin::{Fingerprint, FingerprintError, Verdict, judge};
pub use proof::{
    Credential, ProofError, check_identifier, proof_bytes, prove, room_for_identifier,
};
pub use timestamp::rfc3339;
