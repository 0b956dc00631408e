//! The scheme's decoders for whoever attacks them, and a whole replica that is sent anything.

use super::hard_state::HardState;
use super::message::decode_entries;
use super::{Course, Health, Message, Options, Passive, Posture, Standing, describe};
use crate::config::{Authority, GroupConfig};
use crate::entry::{Entry, EntryKind};
use crate::id::{
    Configuration, Departed, GroupId, Incarnation, Index, LogPoint, MemberKind, Nonce, Origin,
    ReplicaId, StoreId, Term, Version,
};
use crate::one_of_each;
use crate::protocol::{Action, Outbox, Protocol};
use crate::storage::memory::MemoryStorage;
use crate::storage::{SnapshotMeta, Storage};
use crate::time::{Time, Timestamp};
use crate::wire::Envelope;
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;
use std::time::Duration;

const ME: ReplicaId = ReplicaId(1);
const LIFE: Incarnation = Incarnation(1);
const GROUP: GroupId = GroupId(7);

/// A message and what follows it.
pub(crate) fn message(bytes: &[u8]) -> bool {
    let mut body = Bytes::copy_from_slice(bytes);
    let _ = describe(&body);
    match Message::decode(&mut body) {
        Ok(Message::Append { prev, .. }) => decode_entries(body, prev).is_ok(),
        Ok(_) => true,
        Err(_) => false,
    }
}

pub(crate) fn hard_state(bytes: &[u8]) -> bool {
    let Ok(state) = HardState::from_bytes(&Bytes::copy_from_slice(bytes)) else {
        return false;
    };
    let again = HardState::from_bytes(&state.to_bytes());
    assert_eq!(again.ok(), Some(state), "a hard state comes back");
    true
}

pub(crate) fn valid_hard_states() -> Vec<Vec<u8>> {
    let state = HardState {
        promised: term(),
        configuration: Some(configuration()),
        intent: Some(configuration()),
        refuted: Some(Index(3)),
        renewed: Some(StoreId(7)),
    };
    vec![state.to_bytes().to_vec()]
}

pub(crate) fn valid_messages() -> Vec<Vec<u8>> {
    let encoded = |message: &Message, raw: &[u8]| {
        let mut out = BytesMut::new();
        message.encode(&mut out);
        out.put_slice(raw);
        out.to_vec()
    };
    let (one, mut raw) = (entry(), BytesMut::new());
    one.encode(&mut raw);
    let (term, configuration, nonce) = (term(), configuration(), Nonce(5));
    let at = one.point();
    let standing = Standing {
        store: StoreId(8),
        promised: term,
        configuration: Some(configuration.clone()),
        intent: Some(configuration.clone()),
        last: at,
        commit: Index(1),
        posture: Posture::Primary,
        asked: true,
        founders: 0,
        writes: true,
    };
    let meta = SnapshotMeta {
        last: LogPoint {
            index: Index(9),
            ..at
        },
        bytes: 3,
        digest: xxhash_rust::xxh3::xxh3_64(b"abc"),
    };
    let (from, shown) = (LogPoint::ZERO, || configuration.clone());
    let (one_up, kind, replaces) = (Index(1), MemberKind::Learner, Some(ReplicaId(2)));
    let mut all = one_of_each!(Message:
        Probe { nonce, standing: standing.clone() },
        Standing { nonce, standing: standing.clone() },
        Append { term, configuration: Arc::new(shown()), prev: from, last: one_up, commit: one_up, round: nonce },
        Appended { term, durable: one_up, matched: one_up, round: nonce },
        Mismatch { term, hint: one_up, round: nonce },
        Refused { promised: term },
        AskCommit { term },
        Chunk { term, configuration: shown(), meta, offset: 0 },
        ChunkTaken { term, index: one_up, upto: 3 },
        Propose { configuration: shown(), last: from },
        Accepted { term, version: Version(2) },
        ReadRegister { nonce },
        CompareAndSet { nonce, expected: Some((term, Version(1))), new: shown() },
        Register { nonce, configuration: Some(shown()) },
        TakeOver { term, last: from },
        Digest { term, at, digest: 6, health: Health::Fit },
        Repair { term, configuration: without_me(), round: nonce },
        Discarded { term, round: nonce },
        Join { kind, replaces },
        NotAdmitted { why: "no".into() },
        Members { configuration: without_me(), course: Course { last: Index(9), reigns: vec![(term, one_up)] } },
        Leave {},
    );
    let postures = one_of_each!(Posture:
        Restarting {},
        Following {},
        Candidate {},
        Primary {},
        Successor {},
        Unfit {},
    );
    all.extend(postures.into_iter().map(|posture| Message::Standing {
        nonce,
        standing: Standing {
            posture,
            intent: None,
            ..standing.clone()
        },
    }));
    let healths = one_of_each!(Health: Fit {}, Unfit {});
    all.extend(healths.into_iter().map(|health| Message::Digest {
        term,
        at,
        digest: 6,
        health,
    }));
    let kinds = one_of_each!(MemberKind: Full {}, Learner {});
    all.extend(kinds.into_iter().map(|kind| Message::Join {
        kind,
        replaces: None,
    }));
    let with_raw = |message: &Message| {
        if matches!(message, Message::Append { .. }) {
            encoded(message, &raw)
        } else if matches!(message, Message::Chunk { .. }) {
            encoded(message, b"abc")
        } else {
            encoded(message, b"")
        }
    };
    all.iter().map(with_raw).collect()
}

/// A replica, its two peers and the witness. The input is a script: a byte that says who speaks (or that time passes,
/// or that a client does), a length (u16), and the message.
pub(crate) fn replica(bytes: &[u8]) -> bool {
    let (authority, mut rest) = match bytes {
        [first, rest @ ..] if first & 1 == 1 => (Authority::Witness, rest),
        [_, rest @ ..] => (Authority::Alone, rest),
        [] => return false,
    };
    let group = GroupConfig::new([1, 2, 3].map(ReplicaId), authority);
    let found = MemoryStorage::new(StoreId(7), LIFE).open();
    let found = found.expect("a new storage in memory opens");
    let mut passive = Passive::new(Options::new(ME, group, 7), found).expect("it is empty");
    let mut out = Outbox::new(GROUP, ME, LIFE);
    let mut now = Time::ZERO;
    passive.start(now, &mut out);
    run(&mut passive, now, &mut out);
    while let [what, high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (body, behind) = tail.split_at(tail.len().min(length));
        rest = behind;
        match what % 8 {
            0 => {
                now = passive.next_deadline(now).unwrap_or(now).max(now);
                passive.on_tick(now, &mut out);
            }
            1 => {
                now = now + Duration::from_millis(u64::from(*low));
                passive.on_tick(now, &mut out);
            }
            2 => {
                let command = vec![Bytes::copy_from_slice(body)];
                let _ = passive.propose(now, Timestamp(0), command, &mut out);
            }
            speaker => {
                let envelope = Envelope {
                    group: GROUP,
                    from: match speaker {
                        3 => ReplicaId::WITNESS,
                        4 | 5 => ReplicaId(2),
                        _ => ReplicaId(3),
                    },
                    incarnation: Incarnation(u64::from(what / 128) + 1),
                    to_incarnation: LIFE,
                };
                passive.on_message(now, &envelope, Bytes::copy_from_slice(body), &mut out);
            }
        }
        run(&mut passive, now, &mut out);
        passive.check_invariants();
        let _ = passive.status();
    }
    true
}

/// Every message in a script of its own, and all in one; with and without a witness.
pub(crate) fn scripts() -> Vec<Vec<u8>> {
    let line = |what: u8, body: &[u8]| {
        let mut line = vec![what];
        line.extend_from_slice(&u16::try_from(body.len()).unwrap_or(0).to_be_bytes());
        line.extend_from_slice(&body[..body.len().min(usize::from(u16::MAX))]);
        line
    };
    let messages = valid_messages();
    let mut scripts = Vec::new();
    for first in [0, 1] {
        let mut all = vec![first];
        for message in &messages {
            let mut one = vec![first];
            one.extend(line(4, message));
            one.extend(line(0, b""));
            scripts.push(one);
            all.extend(line(4, message));
            all.extend(line(3, message));
            all.extend(line(0, b""));
        }
        scripts.push(all);
    }
    scripts
}

/// A driver without disk, peers or state machine: everything is done at once.
fn run(passive: &mut Passive, now: Time, out: &mut Outbox) {
    // Deciding may lead to more that is to be done, but never without end.
    for _ in 0..1_000 {
        if out.is_empty() {
            return;
        }
        for action in out.take() {
            match action {
                Action::Persist { token, .. } => passive.on_persisted(now, token, out),
                Action::Apply(entries) => {
                    let last = entries.last().map_or(Index::ZERO, |entry| entry.index);
                    passive.on_applied(now, last, out);
                }
                Action::TakeSnapshot => passive.on_snapshot_dropped(now, out),
                Action::ReadSnapshot { peer, .. } => {
                    passive.on_snapshot_piece(now, peer, None, out);
                }
                Action::Restore(meta) => passive.on_restored(now, meta, out),
                Action::Send { .. }
                | Action::Ship { .. }
                | Action::Release(_)
                | Action::ReadReady { .. }
                | Action::ReadFailed { .. }
                | Action::Managed { .. }
                | Action::Abandon
                | Action::ResetMachine
                | Action::Event(_) => {}
            }
        }
    }
    panic!("a replica does not keep itself busy for ever");
}

fn term() -> Term {
    Term::ZERO.next_for(ReplicaId(2))
}

fn configuration() -> Configuration {
    Configuration {
        origin: Origin(1),
        term: term(),
        version: Version(2),
        in_sync: [(ME, StoreId(7)), (ReplicaId(2), StoreId(8))].into(),
        members: [ME, ReplicaId(2), ReplicaId(3)]
            .map(|id| (id, MemberKind::Full))
            .into(),
        departed: Departed {
            count: 3,
            latest: vec![ReplicaId(5), ReplicaId(6)],
        },
    }
}

/// The same without this replica: of who is to throw everything away, or to go.
fn without_me() -> Configuration {
    let mut configuration = configuration();
    configuration.in_sync.remove(&ME);
    configuration.members.remove(&ME);
    configuration
}

fn entry() -> Entry {
    let payload = Bytes::from_static(b"\x00abc");
    Entry::following(
        LogPoint::ZERO,
        term(),
        Timestamp(3),
        4,
        EntryKind::Command,
        payload,
    )
}
