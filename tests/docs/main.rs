//! The documentation, held to what the program does: every block of an example is run, compared or
//! named as one that cannot be, every reference leads somewhere, and the completions and manual
//! pages are what their readers accept.
//!
//! Invariant: a block that nothing here knows fails `every_block_is_held`, with what to do.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stderr, reason = "a test that cannot run here says so")]

mod blocks;
mod cargo;
mod commands;
mod links;
mod markdown;
mod names;
mod pages;
mod protocol;
mod session;
mod settings;
#[path = "../support/mod.rs"]
mod support;
