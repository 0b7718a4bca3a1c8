//! Names and numbers of groups.
//!
//! Invariant: `/etc/group` is all that is asked, so that no name service can hold anything up.

use std::fs;

fn all() -> Option<String> {
    fs::read_to_string("/etc/group").ok()
}

/// The number of a group.
#[must_use]
pub fn id(name: &str) -> Option<u32> {
    all()?.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// The name of a group.
#[must_use]
pub fn name(id: u32) -> Option<String> {
    all()?.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}
