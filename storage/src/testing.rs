//! What the tests of the modules share with those in `tests/`.

#[path = "../tests/support/payloads.rs"]
pub(crate) mod payloads;
#[path = "../tests/support/random.rs"]
pub(crate) mod random;
