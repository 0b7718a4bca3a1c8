//! The rules by themselves: batches under faults.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Heartbeat, Rules, Settings, Shown};
use crate::book::{Book, CHALLENGE_LIFETIME};
use crate::fault::Fault;
use crate::journal::Journal;
use crate::key::Capability;
use crate::proof::{Credential, Proof};

pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_773_262_800)
}

pub(crate) fn rules(capabilities: &[Capability]) -> Rules {
    let capabilities = capabilities.iter().copied().collect();
    let settings = Settings { capabilities, lenient: true, ..Settings::default() };
    let mut book = Book::new(CHALLENGE_LIFETIME);
    book.issue("c".to_owned(), now());
    Rules { settings, book, journal: Journal::new(100) }
}

pub(crate) fn proof(nonce: u32) -> Proof {
    let credential = Credential::Challenge("c".to_owned());
    Proof { identifier: "a".to_owned(), credential, nonce: nonce.to_string(), at: now() }
}

pub(crate) fn sample(seq: u64) -> Value {
    let id = format!("0198f0c2-0000-4000-8000-0000000000aa-{seq}");
    json!({"identifier": "a", "seq": seq, "sample_id": id})
}

/// Posts samples 1 to 4 as a batch under these faults: status, body, and what was recorded.
fn batch(faults: &[Fault]) -> (u16, Value, Vec<u64>) {
    let mut rules = rules(&[Capability::Batch]);
    let samples: Vec<Value> = (1..=4).map(sample).collect();
    let body = json!({"identifier": "a", "encrypted_payload": "", "samples": samples});
    let heartbeat = Heartbeat::read(body.to_string().into_bytes()).unwrap();
    let answer = rules.heartbeat(&heartbeat, &Shown::Proof(proof(1)), faults, now());
    let recorded = rules.journal.accepted().iter().map(|one| one.seq).collect();
    (answer.status, serde_json::from_slice(&answer.body).unwrap(), recorded)
}

#[test]
fn a_batch_answers_as_its_faults_ask() {
    assert_eq!(batch(&[]), (200, json!({"ok": true, "acked_seq": 4}), vec![1, 2, 3, 4]));
    let (_, body, recorded) = batch(&[Fault::PartOfBatch { samples: 2 }]);
    assert_eq!((body["acked_seq"].as_u64(), recorded), (Some(2), vec![1, 2]));
    let (_, body, recorded) = batch(&[Fault::PartOfBatch { samples: 0 }]);
    assert_eq!((body["acked_seq"].as_u64(), recorded), (Some(0), vec![]));
    let (_, body, recorded) = batch(&[Fault::WrongAckedSeq { seq: 99 }]);
    assert_eq!((body["acked_seq"].as_u64(), recorded), (Some(99), vec![1, 2, 3, 4]));
    let (_, body, recorded) = batch(&[Fault::reject([2, 4])]);
    assert_eq!(body["acked_seq"], 4);
    assert_eq!(body["rejected"][1], json!({"seq": 4, "error": "refused on request"}));
    assert_eq!(recorded, [1, 3]);
    let whole = Fault::Reject { seqs: BTreeSet::from([3]), status: 413, whole_batch: true };
    let (status, _, recorded) = batch(&[whole]);
    assert_eq!((status, recorded), (413, vec![]));
}
