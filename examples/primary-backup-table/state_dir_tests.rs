//! What is read again, what is refused, and what is forgotten.

use super::*;
use kvrep_core::{Departed, MemberKind, Origin, StoreId, Term, Version};

/// A1.6: peer, term and in-sync set are kept.
#[test]
fn what_was_written_is_read_again_and_a_damaged_file_is_named() {
    let temporary = tempfile::tempdir().expect("a directory");
    let dir = StateDir::open(temporary.path().join("a/b")).expect("made");
    assert_eq!(dir.read().expect("nothing yet"), None);
    let mut record = Record::new(5_000, ReplicaId(1), Durability::Log);
    let configuration = Configuration {
        origin: Origin(1),
        term: Term::ZERO.next_for(ReplicaId(1)),
        version: Version(2),
        in_sync: [(ReplicaId(1), StoreId(7))].into(),
        members: [1, 9].map(|id| (ReplicaId(id), MemberKind::Full)).into(),
        departed: Departed::default(),
    };
    assert!(record.learn(&configuration, |_| Some("h:1".into())));
    assert!(
        !record.learn(&configuration, |_| None),
        "the address is kept"
    );
    assert_eq!(record.peer, Some(9));
    assert_eq!(record.peer_address.as_deref(), Some("h:1"));
    assert_eq!(record.in_sync, [1]);
    dir.write(&record).expect("written");
    assert_eq!(dir.read().expect("readable"), Some(record));
    let of_before = r#"{"port":5000,"replica":1,"durable":false,"peer":null,"peer_address":null,"term":"","in_sync":[]}"#;
    fs::write(dir.file(), of_before).expect("writable");
    assert!(dir.read().is_ok(), "a file of an older version");
    fs::write(dir.file(), "{").expect("writable");
    let damaged = dir.read().expect_err("damaged").to_string();
    assert!(damaged.contains("server.json is damaged"), "{damaged}");
}

/// A1.6: a directory that took no later record says so, until it takes one.
#[test]
fn a_record_that_no_later_one_could_follow_is_known_to_be_outdated() {
    let temporary = tempfile::tempdir().expect("a directory");
    let dir = StateDir::open(temporary.path()).expect("made");
    let record = Record::new(5_000, ReplicaId(1), Durability::Memory);
    dir.write(&record).expect("written");
    dir.mark_outdated().expect("marked");
    dir.mark_outdated().expect("it is");
    let read = || dir.read().expect("readable").expect("there");
    // A start that only repeats it makes it no newer.
    dir.write(&read()).expect("written");
    assert!(read().outdated);
    dir.write(&record).expect("written");
    assert_eq!(read(), record);
}

#[test]
fn the_witness_is_remembered_and_another_one_is_refused_with_what_to_do() {
    let mut record = Record::new(5_000, ReplicaId(1), Durability::Log);
    let file = Path::new("d/server.json");
    let now = Some("w:7000".to_owned());
    assert_eq!(record.witness(None, file), Ok(None));
    assert_eq!(record.witness(Some("w:7000"), file), Ok(now.clone()));
    record.witness.clone_from(&now);
    for said in [None, Some("w:7000")] {
        assert_eq!(record.witness(said, file), Ok(now.clone()), "{said:?}");
    }
    let why = record.witness(Some("v:7000"), file).expect_err("another");
    for part in ["w:7000", "--witness v:7000", "d/server.json"] {
        assert!(why.contains(part), "{part}: {why}");
    }
}

#[test]
fn the_log_of_a_beginning_that_came_to_nothing_is_forgotten_and_no_other_one() {
    let temporary = tempfile::tempdir().expect("a directory");
    let dir = StateDir::open(temporary.path()).expect("made");
    fs::create_dir(dir.log()).expect("a log");
    dir.forget_vain_beginning().expect("looked");
    assert!(dir.log().exists(), "nothing says that it began in vain");
    dir.mark_beginning().expect("marked");
    dir.forget_vain_beginning().expect("forgotten");
    assert!(!dir.log().exists());
    fs::create_dir(dir.log()).expect("a log");
    dir.mark_beginning().expect("marked");
    let record = Record::new(5_000, ReplicaId(1), Durability::Log);
    dir.write(&record).expect("it has begun");
    dir.forget_vain_beginning().expect("looked");
    assert!(dir.log().exists());
}

#[test]
fn a_directory_is_one_process_s_at_a_time() {
    let temporary = tempfile::tempdir().expect("a directory");
    let dir = StateDir::open(temporary.path()).expect("free");
    let same = dir.clone();
    drop(dir);
    let refused = StateDir::open(temporary.path()).expect_err("in use");
    assert!(refused.to_string().contains("runs with it already"));
    drop(same);
    StateDir::open(temporary.path()).expect("free again");
}

/// Three servers: the third took the second's place, and is not taken to be where that one is.
#[test]
fn whoever_lost_its_place_is_remembered_and_its_address_is_nobody_elses() {
    let pair = |other: u32| Configuration {
        origin: Origin(1),
        term: Term::ZERO.next_for(ReplicaId(1)),
        version: Version(2),
        in_sync: [(ReplicaId(1), StoreId(7))].into(),
        members: [1, other]
            .map(|id| (ReplicaId(id), MemberKind::Full))
            .into(),
        departed: Departed::default(),
    };
    let mut record = Record::new(5_000, ReplicaId(1), Durability::Memory);
    record.learn(&pair(9), |_| Some("h:5001".into()));
    record.learn(&pair(10), |_| None);
    assert_eq!((record.peer, &record.peer_address), (Some(10), &None));
    record.learn(&pair(10), |_| Some("h:5002".into()));
    let known = record.known().into_values();
    assert_eq!(known.collect::<Vec<_>>(), ["h:5001", "h:5002"]);
    for id in 100..200 {
        record.hear_of(ReplicaId(id), "h:6000");
    }
    record.hear_of(ReplicaId(1), "h:5000");
    assert_eq!(record.others.len(), OTHERS_MAX);
    assert_eq!(record.known().len(), OTHERS_MAX + 1, "the peer, too");
}
