use super::*;
use crate::id::{LogPoint, ReplicaId, Term};
use crate::state_machine::{StateMachine, Typed};

#[derive(Default)]
struct Adder(u64);

impl StateMachine for Adder {
    type Command = u64;
    type Query = ();
    type Response = u64;
    type Snapshot = u64;

    fn apply(&mut self, _: &mut ApplyContext, by: u64) -> u64 {
        self.0 += by;
        self.0
    }
    fn query(&self, (): ()) -> u64 {
        self.0
    }
    fn snapshot(&self) -> u64 {
        self.0
    }
    fn restore(&mut self, state: u64) {
        self.0 = state;
    }
}

struct Log {
    machine: Machine,
    last: LogPoint,
    now: Timestamp,
}

impl Log {
    fn new(limits: &Limits) -> Self {
        Self {
            machine: Machine::new(Box::new(Typed(Adder::default())), limits).unwrap(),
            last: LogPoint::ZERO,
            now: Timestamp(0),
        }
    }

    fn apply(&mut self, envelope: &Envelope) -> Applied {
        let entry = Entry::following(
            self.last,
            Term::ZERO.next_for(ReplicaId(1)),
            self.now,
            0,
            EntryKind::Command,
            envelope.encode(),
        );
        self.last = entry.point();
        self.machine.apply(&entry).unwrap()
    }

    fn open(&mut self) -> SessionId {
        match self.apply(&Envelope::Open) {
            Applied::Opened(id) => id,
            other => panic!("{other:?}"),
        }
    }

    fn add(&mut self, session: SessionId, seq: u64, done_below: u64, by: u64) -> Applied {
        self.apply(&Envelope::Command {
            session,
            seq: Seq(seq),
            done_below: Seq(done_below),
            command: crate::state_machine::encode(&by),
        })
    }
}

fn answer(n: u64) -> Applied {
    Applied::Response(crate::state_machine::encode(&n))
}

#[test]
fn a_repeated_request_gets_the_first_answer_and_changes_nothing() {
    let mut log = Log::new(&Limits::default());
    let s = log.open();
    assert_eq!(log.add(s, 1, 1, 5), answer(5));
    assert_eq!(log.add(s, 2, 1, 5), answer(10));
    assert_eq!(log.add(s, 1, 1, 5), answer(5));
    assert_eq!(log.add(s, 3, 3, 1), answer(11));
}

#[test]
fn sessions_survive_a_snapshot() {
    let mut log = Log::new(&Limits::default());
    let s = log.open();
    log.add(s, 1, 1, 5);
    let mut bytes = Vec::new();
    log.machine.freeze()(&mut bytes).unwrap();
    let mut other = Log::new(&Limits::default());
    other.machine.restore(&mut bytes.as_slice()).unwrap();
    other.last = log.last;
    assert_eq!(other.machine.full_digest(), log.machine.full_digest());
    assert_eq!(other.add(s, 1, 1, 5), answer(5));
}

#[test]
fn an_expired_session_is_an_error_and_never_a_second_execution() {
    let limits = Limits {
        sessions_max: 2,
        ..Limits::default()
    };
    let mut log = Log::new(&limits);
    let first = log.open();
    assert_eq!(log.add(first, 1, 1, 5), answer(5));
    let _second = log.open();
    let third = log.open(); // the least recently used one goes
    assert_eq!(log.add(first, 1, 1, 5), Applied::Expired);
    assert_eq!(log.add(third, 1, 1, 1), answer(6));
}

#[test]
fn a_session_unused_for_its_time_to_live_is_expired_by_the_logs_time() {
    let mut log = Log::new(&Limits::default());
    let s = log.open();
    log.now = Timestamp(u64::try_from(Limits::default().session_ttl.as_micros()).unwrap() + 1);
    assert_eq!(log.add(s, 1, 1, 5), Applied::Expired);
}

#[test]
fn what_the_client_is_done_with_is_forgotten_and_refused() {
    let mut log = Log::new(&Limits::default());
    let s = log.open();
    log.add(s, 1, 1, 5);
    log.add(s, 2, 2, 5);
    assert_eq!(log.add(s, 1, 1, 5), Applied::OutOfWindow);
    let window = Limits::default().session_window;
    assert_eq!(log.add(s, 2 + window, 2, 5), Applied::OutOfWindow);
}

#[test]
fn kept_answers_are_bounded_in_bytes() {
    let limits = Limits {
        session_answer_bytes_max: 3,
        ..Limits::default()
    };
    let mut log = Log::new(&limits);
    let a = log.open();
    let b = log.open();
    for seq in 1..=3 {
        log.add(a, seq, 1, 1);
    }
    assert_eq!(log.add(b, 1, 1, 1), answer(4)); // one byte too many: the oldest session goes
    assert_eq!(log.add(a, 3, 1, 1), Applied::Expired);
}

#[test]
fn garbage_is_malformed_and_changes_nothing() {
    let mut log = Log::new(&Limits::default());
    let before = log.machine.full_digest();
    for bytes in [&b""[..], b"\x02abc", b"\x09", b"\x00\xff\xff"] {
        let entry = Entry::following(
            log.last,
            Term::ZERO,
            Timestamp(0),
            0,
            EntryKind::Command,
            Bytes::from_static(bytes),
        );
        assert!(matches!(
            log.machine.apply(&entry),
            Some(Applied::Malformed(_))
        ));
    }
    assert_eq!(log.machine.full_digest(), before);
}
