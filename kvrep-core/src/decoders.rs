//! Every decoder by name, for fuzzers and for the tests that cut and flip valid bytes. Not part of the API.
//!
//! [`Decoder::decode`] must return whatever the bytes: without a panic, in little time and memory. It says whether the
//! bytes were accepted, and checks what must hold then (a value comes back as itself).

use crate::client_wire::{Op, Outcome, Reply, Request};
use crate::config::{Limits, Read, Token};
use crate::entry::{Entry, EntryKind};
use crate::id::{
    GroupId, Incarnation, Index, LogPoint, MemberKind, ReplicaId, Seq, SessionId, StoreId, Term,
    Version,
};
use crate::manage::Manage;
use crate::protocol::passive::decoders as passive;
use crate::protocol::witness::Witness;
use crate::protocol::{Outbox, Protocol, Role};
use crate::session::{Envelope as SessionEnvelope, Machine};
use crate::state_machine::{Typed, encode};
use crate::storage::wal::decoders as wal;
use crate::storage::{Storage, memory::MemoryStorage};
use crate::time::{Time, Timestamp};
use crate::wire::{self, Envelope, FrameKind};
use crate::{Configuration, Departed, Fold, Origin};
use bytes::{Bytes, BytesMut};

/// An example of every variant of an enum: one that is missing, also a new one, does not compile.
#[doc(hidden)]
#[macro_export]
macro_rules! one_of_each {
    ($enum:ident: $($variant:ident $fields:tt),* $(,)?) => {{
        let _complete = |value: &$enum| match value {
            $($enum::$variant { .. })|* => (),
        };
        vec![$($enum::$variant $fields),*]
    }};
}

/// One decoder.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    /// What it reads.
    pub name: &'static str,
    /// Reads; says whether the bytes were accepted.
    pub decode: fn(&[u8]) -> bool,
    /// Bytes that are accepted: where an attack starts.
    pub valid: fn() -> Vec<Vec<u8>>,
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Decoder> {
    let decoder = |name, decode, valid| Decoder {
        name,
        decode,
        valid,
    };
    vec![
        decoder("frame", frame, valid_frames),
        decoder("datagram", datagram, valid_frames),
        decoder("frames-of-a-message", split_frames, valid_frames),
        decoder("client-request", request, valid_requests),
        decoder("client-reply", reply, valid_replies),
        decoder("message", passive::message, passive::valid_messages),
        decoder("replica", passive::replica, passive::scripts),
        decoder("witness", witness, passive::valid_messages),
        decoder("entry", entry, valid_entries),
        decoder("session-command", session_command, valid_session_commands),
        decoder(
            "session-snapshot",
            session_snapshot,
            valid_session_snapshots,
        ),
        decoder(
            "hard-state",
            passive::hard_state,
            passive::valid_hard_states,
        ),
        decoder("register", register, valid_registers),
        decoder("wal-records", wal::records, wal::valid_records),
        decoder(
            "wal-segment-header",
            wal::segment_header,
            wal::valid_segment_headers,
        ),
        decoder(
            "wal-snapshot-header",
            wal::snapshot_header,
            wal::valid_snapshot_headers,
        ),
        decoder("wal-identity", wal::identity, wal::valid_identities),
        decoder("wal-aside", wal::aside, wal::valid_asides),
        decoder("wal-recovery", wal::recovery, wal::valid_segments),
        decoder(
            "wal-sound-records",
            wal::recovery_of_sound_records,
            wal::sound_record_scripts,
        ),
    ]
}

const BODY_BYTES_MAX: usize = 4 << 20;

/// A stream of frames, in two pieces.
fn frame(bytes: &[u8]) -> bool {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let mut stream = BytesMut::from(first);
    let mut frames = 0;
    for piece in [&b""[..], second] {
        stream.extend_from_slice(piece);
        loop {
            match wire::decode_frame(&mut stream, BODY_BYTES_MAX) {
                Ok(Some((kind, body))) => {
                    frames += 1;
                    opened(kind, body);
                }
                Ok(None) => break,
                Err(_) => return false,
            }
        }
    }
    frames > 0 && stream.is_empty()
}

fn split_frames(bytes: &[u8]) -> bool {
    let mut message = Bytes::copy_from_slice(bytes);
    while !message.is_empty() {
        let before = message.clone();
        match wire::split_frame(&mut message, BODY_BYTES_MAX) {
            Ok((kind, body)) => {
                let frame = before.slice(..before.len() - message.len());
                let alone = wire::decode_datagram(&frame, BODY_BYTES_MAX);
                assert_eq!(alone, Ok((kind, body)), "a frame in a message is one");
            }
            Err(_) => return false,
        }
    }
    !bytes.is_empty()
}

fn datagram(bytes: &[u8]) -> bool {
    let datagram = Bytes::copy_from_slice(bytes);
    let _ = wire::own_body(&datagram, FrameKind::Peer);
    match wire::decode_datagram(&datagram, BODY_BYTES_MAX) {
        Ok((kind, body)) => {
            // The reserved bytes are not looked at.
            let again = wire::encode_frame(kind, &body);
            assert!(
                bytes[6..8] != [0, 0] || again == datagram,
                "a frame comes back"
            );
            opened(kind, body);
            true
        }
        Err(_) => false,
    }
}

fn opened(kind: FrameKind, mut body: Bytes) {
    match kind {
        FrameKind::Peer => {
            if Envelope::decode(&mut body).is_ok() {
                passive::message(&body);
            }
        }
        FrameKind::Request => drop(Request::from_body(&body)),
        FrameKind::Reply => drop(Reply::from_body(&body)),
        FrameKind::Handshake => {}
    }
}

fn valid_frames() -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for body in passive::valid_messages() {
        let mut framed = BytesMut::new();
        Envelope {
            group: GroupId(7),
            from: ReplicaId(2),
            incarnation: Incarnation(1),
            to_incarnation: Incarnation(1),
        }
        .encode(&mut framed);
        framed.extend_from_slice(&body);
        frames.push(wire::encode_frame(FrameKind::Peer, &framed).to_vec());
    }
    for (kind, bodies) in [
        (FrameKind::Request, valid_requests()),
        (FrameKind::Reply, valid_replies()),
    ] {
        frames.extend(bodies.iter().map(|b| wire::encode_frame(kind, b).to_vec()));
    }
    frames
}

fn request(bytes: &[u8]) -> bool {
    let Ok(request) = Request::from_body(bytes) else {
        return false;
    };
    let body = wire::own_body(&request.to_frame(), FrameKind::Request);
    let again = body.and_then(|body| Request::from_body(&body).ok());
    assert_eq!(again, Some(request), "a request comes back");
    true
}

fn valid_requests() -> Vec<Vec<u8>> {
    let mut ops = one_of_each!(Op:
        OpenSession {},
        Command {
            session: SessionId(1),
            seq: Seq(2),
            done_below: Seq(1),
            command: Bytes::from_static(b"command"),
        },
        Plain(Bytes::from_static(b"plain")),
        Query {
            read: Read::default(),
            query: Bytes::from_static(b"query"),
        },
        Status {},
        CloseSession(SessionId(1)),
        Manage(Manage::Remove(ReplicaId(2))),
    );
    let reads = one_of_each!(Read: Local {}, AtLeast(Token::default()), Linearizable {});
    ops.extend(reads.into_iter().map(|read| Op::Query {
        read,
        query: Bytes::from_static(b"query"),
    }));
    let (kind, to) = (MemberKind::Learner, Some(ReplicaId(2)));
    let (dead, by) = (ReplicaId(2), ReplicaId(4));
    let manage = one_of_each!(Manage:
        Handover { to },
        Add { id: by, kind },
        Remove(dead),
        Replace { dead, by },
    );
    ops.extend(manage.into_iter().map(Op::Manage));
    let encoded = ops.into_iter().map(|op| encode(&Request { id: 300, op }));
    encoded.map(|bytes| bytes.to_vec()).collect()
}

fn reply(bytes: &[u8]) -> bool {
    let Ok(reply) = Reply::from_body(bytes) else {
        return false;
    };
    let body = wire::own_body(&reply.to_frame(), FrameKind::Reply);
    let again = body.and_then(|body| Reply::from_body(&body).ok());
    assert_eq!(again, Some(reply), "a reply comes back");
    true
}

fn valid_replies() -> Vec<Vec<u8>> {
    let token = Token::default();
    let session = SessionId(1);
    let status = || Box::new(empty_witness().status());
    let mut outcomes = one_of_each!(Outcome:
        Done { response: Bytes::from_static(b"response"), token },
        Opened { session, token },
        Closed {},
        SessionExpired {},
        OutOfWindow {},
        Malformed("no command".into()),
        TooLarge { bytes: 300, bytes_max: 200 },
        ResponseTooLarge { bytes: 300 },
        NotPrimary { primary: Some(ReplicaId(2)), address: Some("127.0.0.1:7000".into()) },
        Busy {},
        Behind {},
        Unknown {},
        Status(status()),
        Managed(Box::new(configuration())),
        Refused("it lives".into()),
    );
    let roles = one_of_each!(Role: Seeking {}, Candidate {}, Primary {}, Backup {}, Witness {});
    outcomes.extend(roles.into_iter().map(|role| {
        let mut status = status();
        status.role = role;
        status.configuration = Some(configuration());
        Outcome::Status(status)
    }));
    let encoded = outcomes
        .into_iter()
        .map(|outcome| encode(&Reply { id: 1, outcome }));
    encoded.map(|bytes| bytes.to_vec()).collect()
}

/// A witness that is sent one message.
fn witness(bytes: &[u8]) -> bool {
    let mut witness = empty_witness();
    let mut out = Outbox::new(GroupId(7), ReplicaId::WITNESS, Incarnation(1));
    let envelope = Envelope {
        group: GroupId(7),
        from: ReplicaId(2),
        incarnation: Incarnation(1),
        to_incarnation: Incarnation(1),
    };
    witness.on_message(
        Time::ZERO,
        &envelope,
        Bytes::copy_from_slice(bytes),
        &mut out,
    );
    let answered = !out.is_empty();
    assert_eq!(
        answered,
        witness.status().dropped == 0,
        "answered or counted"
    );
    // Read, though perhaps not for a witness.
    answered || passive::message(bytes)
}

fn empty_witness() -> Witness {
    let found = MemoryStorage::new(StoreId(1), Incarnation(1)).open();
    Witness::new(&found.expect("a new storage in memory opens")).expect("it is empty")
}

fn register(bytes: &[u8]) -> bool {
    let found = MemoryStorage::new(StoreId(1), Incarnation(1)).open();
    let mut found = found.expect("a new storage in memory opens");
    found.hard_state = Some(Bytes::copy_from_slice(bytes));
    Witness::new(&found).is_ok_and(|witness| witness.status().configuration.is_some())
}

fn valid_registers() -> Vec<Vec<u8>> {
    vec![encode(&configuration()).to_vec()]
}

fn configuration() -> Configuration {
    let kinds = one_of_each!(MemberKind: Full {}, Learner {});
    let members = (2..).map(ReplicaId).zip(kinds);
    Configuration {
        origin: Origin(1),
        term: Term::ZERO.next_for(ReplicaId(2)),
        version: Version(3),
        in_sync: [(ReplicaId(1), StoreId(7)), (ReplicaId(2), StoreId(8))].into(),
        members: [(ReplicaId(1), MemberKind::Full)]
            .into_iter()
            .chain(members)
            .collect(),
        departed: Departed {
            count: 3,
            latest: vec![ReplicaId(5), ReplicaId(6)],
        },
    }
}

fn entry(bytes: &[u8]) -> bool {
    let whole = Bytes::copy_from_slice(bytes);
    let mut rest = whole.clone();
    let Ok(entry) = Entry::decode(&mut rest, 0) else {
        return false;
    };
    let mut again = BytesMut::new();
    entry.encode(&mut again);
    assert_eq!(
        again,
        whole[..whole.len() - rest.len()],
        "an entry comes back"
    );
    rest.is_empty()
}

fn valid_entries() -> Vec<Vec<u8>> {
    let kinds = one_of_each!(EntryKind: Noop {}, Command {});
    let made = kinds.into_iter().map(|kind| {
        let (mut out, payload) = (BytesMut::new(), SessionEnvelope::Open.encode());
        let term = Term::ZERO.next_for(ReplicaId(1));
        Entry::following(LogPoint::ZERO, term, Timestamp(3), 4, kind, payload).encode(&mut out);
        out.to_vec()
    });
    made.collect()
}

fn session_command(bytes: &[u8]) -> bool {
    let Ok(command) = SessionEnvelope::decode(Bytes::copy_from_slice(bytes)) else {
        return false;
    };
    assert_eq!(command.encode(), bytes, "a command comes back");
    true
}

fn valid_session_commands() -> Vec<Vec<u8>> {
    session_commands()
        .iter()
        .map(|c| c.encode().to_vec())
        .collect()
}

fn session_commands() -> Vec<SessionEnvelope> {
    one_of_each!(SessionEnvelope:
        Plain(encode(&3_i64)),
        Open {},
        Command {
            session: SessionId(command(&SessionEnvelope::Open, LogPoint::ZERO).hash),
            seq: Seq(1),
            done_below: Seq(0),
            command: encode(&2_i64),
        },
        Close(SessionId(1)),
    )
}

/// Restores state and sessions, and goes on with them.
fn session_snapshot(bytes: &[u8]) -> bool {
    let mut machine = machine();
    if machine.restore(&mut &*bytes).is_err() {
        return false;
    }
    let mut prev = LogPoint::ZERO;
    for envelope in session_commands() {
        let entry = command(&envelope, prev);
        machine.apply(&entry);
        prev = entry.point();
    }
    let _ = machine.full_digest();
    true
}

fn valid_session_snapshots() -> Vec<Vec<u8>> {
    let mut machine = machine();
    for envelope in [&session_commands()[1], &session_commands()[2]] {
        machine.apply(&command(envelope, LogPoint::ZERO));
    }
    let mut bytes = Vec::new();
    let written = machine.freeze()(&mut bytes);
    written.expect("a state can be written to memory");
    vec![bytes]
}

fn machine() -> Machine {
    let sum = Fold::new(0_i64, |sum: &mut i64, by: i64| *sum = sum.wrapping_add(by));
    Machine::new(Box::new(Typed(sum)), &Limits::default()).expect("a number can be written")
}

fn command(envelope: &SessionEnvelope, prev: LogPoint) -> Entry {
    let term = Term::ZERO.next_for(ReplicaId(1));
    let payload = envelope.encode();
    let made = Entry::following(prev, term, Timestamp(3), 4, EntryKind::Command, payload);
    assert!(made.index > Index::ZERO, "an entry has an index");
    made
}
