//! Who gets a place among the clients of the control socket.
//!
//! Invariants: at most [`MOST_CLIENTS`] are served at once. The last [`KEPT`] places are for root
//! and the daemon's own user, and no other user has more than [`MOST_OF_ONE`], so that readers lock
//! neither one another out nor whoever has to change something. At most [`MOST_REFUSED`] are being
//! told that there is no place; what comes beyond is closed without a word, so that a flood holds a
//! bounded number of descriptors.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Clients served at once.
pub const MOST_CLIENTS: usize = 16;
/// Places that only root and the daemon's own user get.
pub const KEPT: usize = 4;
/// Places for one user that is neither.
pub const MOST_OF_ONE: usize = 8;
/// Clients that are told at once that there is no place.
pub const MOST_REFUSED: usize = 16;

/// The places there are.
#[derive(Debug, Clone)]
pub(super) struct Places {
    own_uid: u32,
    taken: Arc<Mutex<Taken>>,
}

/// The users who have a place each, and who is being refused.
#[derive(Debug, Default)]
struct Taken {
    served: Vec<u32>,
    refused: usize,
}

/// What a connection gets.
#[derive(Debug)]
pub(super) enum Given {
    /// A place.
    Place(Place),
    /// A refusal in these words.
    Refusal(Place, String),
    /// Nothing: too many are being refused already.
    Nothing,
}

/// One of the places; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    taken: Arc<Mutex<Taken>>,
    /// Who is served; `None` for one who is refused.
    served: Option<u32>,
}

impl Places {
    /// All free, for a daemon of this user.
    pub(super) fn new(own_uid: u32) -> Self {
        Self { own_uid, taken: Arc::default() }
    }

    /// What a connection of this user gets; `None` for one the kernel does not name.
    pub(super) fn give(&self, uid: Option<u32>) -> Given {
        // The kernel's "nobody at all", which no process has.
        let uid = uid.unwrap_or(u32::MAX);
        let mut taken = lock(&self.taken);
        let place = |served| Place { taken: self.taken.clone(), served };
        match self.full(&taken.served, uid) {
            None => {
                taken.served.push(uid);
                Given::Place(place(Some(uid)))
            }
            Some(text) if taken.refused < MOST_REFUSED => {
                taken.refused += 1;
                Given::Refusal(place(None), text)
            }
            Some(_) => Given::Nothing,
        }
    }

    /// Why there is no place for this user.
    fn full(&self, served: &[u32], uid: u32) -> Option<String> {
        let first = |uid: &u32| *uid == 0 || *uid == self.own_uid;
        let others = served.iter().filter(|uid| !first(uid)).count();
        let own = served.iter().filter(|one| **one == uid).count();
        if served.len() >= MOST_CLIENTS || (!first(&uid) && others >= MOST_CLIENTS - KEPT) {
            return Some("too many are asking at once: try again in a moment".to_owned());
        }
        (!first(&uid) && own >= MOST_OF_ONE).then(|| {
            format!(
                "user id {uid} is asking {MOST_OF_ONE} times at once, and one user may not more \
                 often: end one of them (dump --follow), or try again in a moment"
            )
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        match self.served {
            Some(uid) => {
                if let Some(at) = taken.served.iter().position(|one| *one == uid) {
                    taken.served.swap_remove(at);
                }
            }
            None => taken.refused = taken.refused.saturating_sub(1),
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    // Each change is one statement: a panic elsewhere leaves nothing half done.
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 997;

    /// Asks until there is no place: those given, and what was said then.
    fn fill(places: &Places, uid: u32) -> (Vec<Place>, String) {
        let mut given = Vec::new();
        loop {
            match places.give(Some(uid)) {
                Given::Place(place) => given.push(place),
                Given::Refusal(_, text) => return (given, text),
                Given::Nothing => panic!("nobody is being refused"),
            }
        }
    }

    #[test]
    fn readers_lock_neither_one_another_nor_root_out() {
        let places = Places::new(OWN);
        let (one, said) = fill(&places, 1000);
        assert_eq!(one.len(), MOST_OF_ONE);
        assert!(said.contains("user id 1000") && said.contains("dump --follow"), "{said}");
        let (two, said) = fill(&places, 1001);
        assert_eq!(two.len(), MOST_CLIENTS - KEPT - MOST_OF_ONE);
        assert!(said.contains("too many"), "{said}");
        assert!(matches!(places.give(None), Given::Refusal(..)), "whoever that is");
        let root = places.give(Some(0));
        let own = places.give(Some(OWN));
        assert!(matches!((&root, &own), (Given::Place(_), Given::Place(_))));
        drop(root);
        let (firsts, _) = fill(&places, 0);
        assert_eq!(firsts.len(), KEPT - 1);
        // What goes is free again, for whom it was.
        drop(two);
        assert_eq!(fill(&places, 1000).0.len(), 0);
        assert_eq!(fill(&places, 1002).0.len(), MOST_CLIENTS - KEPT - MOST_OF_ONE);
        drop((one, firsts, own));
        assert_eq!(fill(&places, OWN).0.len(), MOST_CLIENTS);
    }

    #[test]
    fn refusals_are_bounded_too() {
        let places = Places::new(OWN);
        let (given, _) = fill(&places, 1000);
        let refused: Vec<_> = (0..MOST_REFUSED).map(|_| places.give(Some(1000))).collect();
        assert!(refused.iter().all(|given| matches!(given, Given::Refusal(..))));
        assert!(matches!(places.give(Some(1000)), Given::Nothing));
        assert!(matches!(places.give(Some(0)), Given::Place(_)), "who has a place is not refused");
        drop(refused);
        assert!(matches!(places.give(Some(1000)), Given::Refusal(..)));
        drop(given);
        assert!(matches!(places.give(Some(1000)), Given::Place(_)));
    }
}
