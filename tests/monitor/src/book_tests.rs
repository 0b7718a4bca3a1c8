//! The book's rules, each at its edge.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Book, CHALLENGE_LIFETIME, Channel};
use crate::error::Reason;
use crate::proof::{Credential, Proof};
use crate::time::shifted;

fn start() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_773_262_800)
}

/// A book in which the challenge "c" was issued at [`start`].
fn book() -> Book {
    let mut book = Book::new(CHALLENGE_LIFETIME);
    book.issue("c".to_owned(), start());
    book
}

fn proof(identifier: &str, credential: Credential, nonce: u32, at: SystemTime) -> Proof {
    Proof { identifier: identifier.to_owned(), credential, nonce: nonce.to_string(), at }
}

fn challenge(identifier: &str, nonce: u32, at: SystemTime) -> Proof {
    proof(identifier, Credential::Challenge("c".to_owned()), nonce, at)
}

fn token(token: &str, nonce: u32) -> Proof {
    proof("a", Credential::Token(token.to_owned()), nonce, start())
}

fn reason(result: Result<(), crate::error::Refusal>) -> Reason {
    result.unwrap_err().reason
}

#[test]
fn the_clock_may_be_two_minutes_off_either_way() {
    for off in [-120, 120] {
        let proof = challenge("a", 1, shifted(start(), off));
        assert_eq!(book().admit(&proof, Channel::Heartbeat, start()), Ok(()));
    }
    for off in [-121, 121] {
        let proof = challenge("a", 1, shifted(start(), off));
        assert_eq!(reason(book().admit(&proof, Channel::Heartbeat, start())), Reason::Clock);
    }
}

#[test]
fn a_nonce_is_good_once_in_four_minutes() {
    let mut book = book();
    let admit = |book: &mut Book, after: i64| {
        let now = shifted(start(), after);
        book.admit(&challenge("a", 1, now), Channel::Heartbeat, now)
    };
    assert_eq!(admit(&mut book, 0), Ok(()));
    assert_eq!(reason(admit(&mut book, 0)), Reason::Nonce);
    assert_eq!(reason(admit(&mut book, 240)), Reason::Nonce);
    assert_eq!(admit(&mut book, 241), Ok(()));
    assert_eq!(book.nonces.len(), 1);
}

#[test]
fn an_unused_challenge_expires_and_a_bound_one_does_not() {
    let late = shifted(start(), 601);
    let mut unused = book();
    let proof = challenge("a", 1, late);
    assert_eq!(reason(unused.admit(&proof, Channel::Heartbeat, late)), Reason::ExpiredChallenge);

    let mut bound = book();
    let last_moment = shifted(start(), 600);
    let first = challenge("a", 1, last_moment);
    assert_eq!(bound.admit(&first, Channel::Heartbeat, last_moment), Ok(()));
    let much_later = shifted(start(), 86_400);
    let second = challenge("a", 2, much_later);
    assert_eq!(bound.admit(&second, Channel::Heartbeat, much_later), Ok(()));
    let third = challenge("a", 3, much_later);
    assert_eq!(bound.admit(&third, Channel::WebSocket, much_later), Ok(()));
}

#[test]
fn the_first_accepted_proof_binds_the_identifier() {
    let mut book = book();
    assert_eq!(book.admit(&challenge("a", 1, start()), Channel::Heartbeat, start()), Ok(()));
    let other = challenge("b", 2, start());
    assert_eq!(reason(book.admit(&other, Channel::Heartbeat, start())), Reason::OtherIdentifier);
}

#[test]
fn one_websocket_for_a_challenge() {
    let mut book = book();
    assert_eq!(book.admit(&challenge("a", 1, start()), Channel::WebSocket, start()), Ok(()));
    let again = challenge("a", 2, start());
    assert_eq!(reason(book.admit(&again, Channel::WebSocket, start())), Reason::UsedChallenge);
    assert_eq!(book.admit(&challenge("a", 3, start()), Channel::Heartbeat, start()), Ok(()));
}

#[test]
fn an_unknown_challenge_is_said_to_be_unknown() {
    let mut book = Book::new(CHALLENGE_LIFETIME);
    let proof = challenge("a", 1, start());
    assert_eq!(reason(book.admit(&proof, Channel::Heartbeat, start())), Reason::UnknownChallenge);
}

#[test]
fn the_previous_token_is_honoured_until_the_new_one_was_proved() {
    let mut book = book();
    let by_challenge = Credential::Challenge("c".to_owned());
    book.hand_out("a", &by_challenge, "t1".to_owned());
    assert_eq!(book.admit(&token("t1", 1), Channel::WebSocket, start()), Ok(()));
    book.hand_out("a", &Credential::Token("t1".to_owned()), "t2".to_owned());
    // The acceptance with t2 was lost on the way: t1 still opens the door, and replaces t2.
    assert_eq!(book.admit(&token("t1", 2), Channel::WebSocket, start()), Ok(()));
    book.hand_out("a", &Credential::Token("t1".to_owned()), "t3".to_owned());
    assert_eq!(
        reason(book.admit(&token("t2", 3), Channel::WebSocket, start())),
        Reason::UnknownToken
    );
    assert_eq!(book.admit(&token("t3", 4), Channel::Heartbeat, start()), Ok(()));
    assert_eq!(
        reason(book.admit(&token("t1", 5), Channel::Heartbeat, start())),
        Reason::UnknownToken
    );
    // Heartbeats do not use a token up.
    assert_eq!(book.admit(&token("t3", 6), Channel::Heartbeat, start()), Ok(()));
}

#[test]
fn tokens_belong_to_one_identifier() {
    let mut book = book();
    book.hand_out("a", &Credential::Challenge("c".to_owned()), "t1".to_owned());
    let stranger = proof("b", Credential::Token("t1".to_owned()), 1, start());
    assert_eq!(reason(book.admit(&stranger, Channel::WebSocket, start())), Reason::UnknownToken);
}
