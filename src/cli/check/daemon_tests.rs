//! Who holds the queue, and who answers.

use super::*;
use crate::control::protocol::{Refusal, RefusalKind};

#[test]
fn the_holder_of_a_lock_is_found() {
    let locks = "1: POSIX  ADVISORY  WRITE 11 fe:01:42 0 EOF\n\
                 2: FLOCK  ADVISORY  READ 12 fe:01:42 0 EOF\n\
                 3: FLOCK  ADVISORY  WRITE 13 fe:01:421 0 EOF\n\
                 4: FLOCK  ADVISORY  WRITE 14 fe:01:42 0 EOF\n\
                 4: -> FLOCK  ADVISORY  WRITE 15 fe:01:43 0 EOF\n\
                 garbage\n";
    assert_eq!(lock_holder(locks, "fe:01:42"), Some(14));
    assert_eq!(lock_holder(locks, "fe:01:4"), None);
    assert_eq!(lock_holder("", "fe:01:42"), None);
}

#[test]
fn the_socket_is_compared_with_who_holds_the_queue() {
    let nobody = || Err(ClientError::NoDaemon { path: "/run/c.sock".into() });
    let says = |asked, holder| socket_line(asked, holder, "/run/c.sock").to_string();
    assert_eq!(says(Ok(Some(7)), Some(7)), "ok   control_socket: /run/c.sock, the daemon answers");
    assert_eq!(says(nobody(), None), "ok   control_socket: /run/c.sock, no daemon answers");
    assert_eq!(
        says(Ok(Some(7)), Some(8)),
        "warn control_socket: /run/c.sock: process 7 answers, but process 8 holds this data_dir; \
         give each daemon a control_socket of its own"
    );
    assert!(says(Ok(Some(7)), None).contains("works on another data_dir"));
    assert!(says(nobody(), Some(8)).contains("nobody answers, though process 8 holds"));
    let busy = ClientError::Refused(Refusal::new(RefusalKind::Busy, "try again"));
    assert_eq!(says(Err(busy), None), "warn control_socket: try again");
}
