//! Tests of the engine's wrapper, against real files.

use std::fs;

use super::*;
use crate::types::Stamp;
use uuid::Uuid;

const CACHE: u64 = 256 * 1024;

fn encoded(seq: u64, size: usize) -> Vec<u8> {
    let stamp = Stamp { wall_ms: seq, boot_ms: 0, boot_id: [0; 16] };
    record::encode_plain(seq, Uuid::nil(), stamp, &vec![seq as u8; size])
}

fn all(store: &Store) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    store
        .visit(0, u64::MAX, 0, &mut |seq, bytes| {
            found.push((seq, bytes.to_vec()));
            Visit::Continue
        })
        .unwrap();
    found
}

#[test]
fn records_of_all_sizes_come_back_and_no_value_is_stored_apart() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("g");
    let mut store = Store::create(&dir, CACHE).unwrap();
    let sizes = [0, 1, 827, 828, 829, 896, 5_000, 64 * 1024, 300_000];
    let mut expected = Vec::new();
    for seq in 1..=400u64 {
        let size = sizes[(seq % sizes.len() as u64) as usize];
        let size = if seq % 50 == 8 { size } else { size.min(2000) };
        let bytes = encoded(seq, size);
        store.put(seq, &bytes).unwrap();
        expected.push((seq, bytes));
    }
    store.sync().unwrap();
    assert_eq!(all(&store), expected);
    assert_eq!(store.get(8).unwrap().unwrap(), expected[7].1);
    assert_eq!(fs::read_dir(dir.join("blobs")).unwrap().count(), 0);
    drop(store);
    let store = Store::open(&dir, CACHE, &mut Repairs::default()).unwrap();
    assert_eq!(all(&store), expected);
    assert_eq!(fs::read_dir(dir.join("blobs")).unwrap().count(), 0);
}

#[test]
fn a_record_without_its_first_chunk_was_never_appended() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("g");
    let mut store = Store::create(&dir, CACHE).unwrap();
    store.put(1, &encoded(1, 10)).unwrap();
    // Record 2 as a kill leaves it before its first chunk is written.
    let bytes = encoded(2, 3000);
    for (index, chunk) in bytes.chunks(CHUNK).enumerate().skip(1) {
        store.db().unwrap().insert(key(2, index as u16), chunk).unwrap();
    }
    assert_eq!(all(&store).len(), 1);
    assert_eq!(store.get(2).unwrap(), None);
    // A shorter record under the same number is not mixed up with what is left over.
    let shorter = encoded(2, 1000);
    store.put(2, &shorter).unwrap();
    store.put(3, &encoded(3, 10)).unwrap();
    store.sync().unwrap();
    let found = all(&store);
    assert_eq!(found.len(), 3);
    assert_eq!(found[1], (2, shorter.clone()));
    assert_eq!(store.get(2).unwrap(), Some(shorter));
}

#[test]
fn a_record_that_lacks_a_chunk_is_shown_as_it_is() {
    let root = tempfile::tempdir().unwrap();
    let mut store = Store::create(&root.path().join("g"), CACHE).unwrap();
    for seq in 1..=3 {
        store.put(seq, &encoded(seq, 3000)).unwrap();
    }
    store.db().unwrap().remove(key(2, 1)).unwrap();
    store.db().unwrap().remove(key(3, 3)).unwrap();
    let found = all(&store);
    assert_eq!(found.iter().map(|f| f.0).collect::<Vec<_>>(), [1, 2, 3]);
    for (seq, bytes) in found {
        assert_eq!(record::decode(&bytes, seq).is_ok(), seq == 1, "{seq}");
    }
}

#[test]
fn half_written_snapshots_and_broken_settings_are_mended() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("g");
    let mut store = Store::create(&dir, CACHE).unwrap();
    for seq in 1..=100 {
        store.put(seq, &encoded(seq, 400)).unwrap();
    }
    store.sync().unwrap();
    drop(store);

    fs::write(dir.join("snap.FFFFFFFFFFFFFFFF.generating"), b"").unwrap();
    let mut repairs = Repairs::default();
    assert_eq!(all(&Store::open(&dir, CACHE, &mut repairs).unwrap()).len(), 100);
    assert_eq!(repairs.removed_snapshots.len(), 1);

    let conf = fs::read_to_string(dir.join("conf")).unwrap_or_default();
    fs::write(
        dir.join("conf"),
        b"segment_size: 1024\nuse_compression: false\nversion: 0.34\n\0\0\0\0",
    )
    .unwrap();
    let mut repairs = Repairs::default();
    assert_eq!(all(&Store::open(&dir, CACHE, &mut repairs).unwrap()).len(), 100, "{conf}");
    assert_eq!(repairs.moved_aside.len(), 1);

    let snapshot =
        files::names(&dir).unwrap().into_iter().find(|(n, _)| n.starts_with("snap.")).unwrap().1;
    fs::write(&snapshot, b"nonsense that is long enough").unwrap();
    let mut repairs = Repairs::default();
    assert_eq!(all(&Store::open(&dir, CACHE, &mut repairs).unwrap()).len(), 100);
    assert!(repairs.moved_aside.iter().any(|p| p.to_string_lossy().contains("aside.snap.")));
}

#[test]
fn a_refusal_of_the_system_is_not_damage() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("g");
    drop(Store::create(&dir, CACHE).unwrap());
    // A directory in place of the settings file: reading it is EISDIR, whoever asks.
    fs::remove_file(dir.join("conf")).unwrap();
    fs::create_dir(dir.join("conf")).unwrap();
    match Store::open(&dir, CACHE, &mut Repairs::default()).err() {
        Some(Fault::Io(_)) => {}
        other => panic!("{other:?}"),
    }
    assert!(dir.join("conf").is_dir());
}

#[test]
fn a_leftover_lock_of_this_process_is_got_around() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("g");
    let mut store = Store::create(&dir, CACHE).unwrap();
    store.put(1, &encoded(1, 10)).unwrap();
    store.sync().unwrap();
    // As an opening that panicked leaves it: nobody will ever let go of the first handle.
    let again = Store::open(&dir, CACHE, &mut Repairs::default()).unwrap();
    assert_eq!(all(&again).len(), 1);
    drop(store);
    assert_eq!(all(&again).len(), 1);
}

#[test]
fn only_the_death_of_the_shared_threads_breaks_the_engine() {
    let bug = |text: &str| Fault::from(sled::Error::ReportableBug(text.to_owned()));
    // Word for word as sled 0.34.7 has them.
    for text in [
        "IO thread unexpectedly panicked. please report this bug on the sled github repo.",
        "threadpool failed to complete action before shutdown",
    ] {
        assert!(matches!(bug(text), Fault::PoolBroken(_)), "{text}");
    }
    for text in [
        "failed to retrieve META page which should always be present",
        "failed to retrieve counter page which should always be present",
        "replacing the META page has failed because the pagecache does not think it currently \
         exists.",
        "non-link/replace found in pull of pid 7",
    ] {
        assert!(bug(text).is_damage(), "{text}");
    }
    assert!(Fault::from(sled::Error::Unsupported(String::new())).is_damage());
    assert!(Fault::from(sled::Error::Corruption { at: None, bt: () }).is_damage());
    let refused = sled::Error::Io(io::Error::from(io::ErrorKind::PermissionDenied));
    assert!(matches!(Fault::from(refused), Fault::Io(_)));
    let cut = sled::Error::Io(io::Error::from(io::ErrorKind::UnexpectedEof));
    assert!(Fault::from(cut).is_damage());
}

#[test]
fn a_panic_over_a_refusal_is_no_damage() {
    let refused =
        guarded::<()>(|| Err(io::Error::from_raw_os_error(28)).map_err(|e| panic!("{e:?}")));
    match refused {
        Err(Fault::Io(error)) => assert_eq!(error.kind(), io::ErrorKind::StorageFull),
        other => panic!("{other:?}"),
    }
    let other = guarded::<()>(|| panic!("duplicate segment"));
    assert!(other.is_err_and(|fault| fault.is_damage()));
}

/// Both find the copy of the log; only this process knows that its opening came back.
#[test]
fn an_opening_that_was_refused_is_tried_again_and_one_that_was_cut_off_is_not() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("g");
    let mut store = Store::create(&dir, CACHE).unwrap();
    for seq in 1..=20 {
        store.put(seq, &encoded(seq, 300)).unwrap();
        store.sync().unwrap();
    }
    drop(store);
    // Opening would erase what follows this, so the log is copied first.
    let log = dir.join("db");
    let mut bytes = fs::read(&log).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    bytes[end / 2] ^= 1;
    fs::write(&log, &bytes).unwrap();
    let mut repairs = Repairs::default();
    keep_log_unless_harmless(&dir, &mut repairs).unwrap();
    assert!(repairs.kept_log);
    // Refused after it had erased something.
    fs::write(&log, &bytes[..SEGMENT.min(bytes.len()) / 2]).unwrap();
    undo_opening(&dir).unwrap();
    assert_eq!(fs::read(&log).unwrap(), bytes);
    assert!(!dir.join(crate::mend::KEPT_LOG).exists());
    // A process that was killed meanwhile left the same.
    fs::copy(&log, dir.join(crate::mend::KEPT_LOG)).unwrap();
    let cut_off = Store::open(&dir, CACHE, &mut Repairs::default());
    assert!(matches!(cut_off, Err(Fault::Damaged(text)) if text.contains("cut off")));
}
