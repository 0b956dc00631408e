//! What replicas (and the witness) of the passive scheme say to each other.
//!
//! A message is a postcard value; entries and snapshot pieces follow it as raw bytes, so that bulk data are never
//! copied through a serialiser. Messages that ask who is there, and the answers, may be sent to a life of the
//! addressee that is not known yet; all others name the life they mean and are dropped by any other.

use super::repair::Health;
use crate::entry::{Entry, EntryKind, Run};
use crate::id::{
    Configuration, Departed, Index, LogPoint, MemberKind, Nonce, ReplicaId, StoreId, Term, Version,
};
use crate::scratch::Scratch;
use crate::state_machine::Malformed;
use crate::storage::SnapshotMeta;
use crate::time::Timestamp;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What a replica says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its storage.
    pub store: StoreId,
    /// The highest term that it has promised.
    pub promised: Term,
    /// The newest configuration that it knows.
    pub configuration: Option<Configuration>,
    /// A change that it has begun and of which it knows no end.
    pub intent: Option<Configuration>,
    /// The end of its log.
    pub last: LogPoint,
    /// Its commit point.
    pub commit: Index,
    /// What it does.
    pub posture: Posture,
    /// A client has asked it for what only a primary does, since it lost its own.
    pub asked: bool,
    /// Hash of the founding members that it was started with.
    pub founders: u64,
    /// Whether anything that somebody wrote is in its log, or may be in its snapshot.
    pub writes: bool,
}

/// What a replica does, as far as others must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Posture {
    /// It has restarted and heard no primary since: it cannot tell what it missed.
    Restarting,
    /// It has been up since it last heard a primary.
    Following,
    /// It tries to become primary.
    Candidate,
    /// It is primary in the term that it has promised.
    Primary,
    /// The last primary chose it: it tries to become primary, and wins among equals.
    Successor,
    /// As primary its state differed from that of all others: it holds the log, but must not become primary again.
    Unfit,
}

/// In which reigns a log was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// The end of the log.
    pub last: Index,
    /// The latest reigns in it, at most [`Self::REIGNS_MAX`], the newest first; and the first entry of each that is there.
    pub reigns: Vec<(Term, Index)>,
}

impl Course {
    /// So many reigns are told of.
    pub const REIGNS_MAX: usize = 16;
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Who are you? This is who I am.
    Probe {
        /// Echoed in the answer.
        nonce: Nonce,
        /// The sender's.
        standing: Standing,
    },
    /// The answer to a probe.
    Standing {
        /// The probe's.
        nonce: Nonce,
        /// The sender's.
        standing: Standing,
    },
    /// Entries (raw, behind the message), or none as a heartbeat.
    Append {
        /// The primary's term.
        term: Term,
        /// The configuration that counts.
        configuration: Arc<Configuration>,
        /// The place before the first entry.
        prev: LogPoint,
        /// The end of the primary's log.
        last: Index,
        /// The primary's commit point.
        commit: Index,
        /// The read round; echoed.
        round: Nonce,
    },
    /// The log is durable and equal to the primary's up to here.
    Appended {
        /// The primary's term.
        term: Term,
        /// Durable and equal up to and including this.
        durable: Index,
        /// Equal, though perhaps not durable, up to and including this.
        matched: Index,
        /// The newest round seen.
        round: Nonce,
    },
    /// The entries do not follow the log.
    Mismatch {
        /// The primary's term.
        term: Term,
        /// Try from behind this.
        hint: Index,
        /// The newest round seen.
        round: Nonce,
    },
    /// A higher term is known.
    Refused {
        /// That term.
        promised: Term,
    },
    /// Tell me the commit point: a read waits for it.
    AskCommit {
        /// The primary's term.
        term: Term,
    },
    /// A piece of a snapshot (raw, behind the message).
    Chunk {
        /// The primary's term.
        term: Term,
        /// The configuration that counts.
        configuration: Configuration,
        /// Of which snapshot.
        meta: SnapshotMeta,
        /// Where it goes.
        offset: u64,
    },
    /// Pieces are durable up to here.
    ChunkTaken {
        /// The primary's term.
        term: Term,
        /// The snapshot's.
        index: Index,
        /// End of what is taken.
        upto: u64,
    },
    /// `Alone`: make this configuration durable.
    Propose {
        /// The new configuration.
        configuration: Configuration,
        /// End of the proposer's log.
        last: LogPoint,
    },
    /// `Alone`: it is durable.
    Accepted {
        /// Of the configuration.
        term: Term,
        /// Of the configuration.
        version: Version,
    },
    /// To the witness: what does the register hold?
    ReadRegister {
        /// Echoed.
        nonce: Nonce,
    },
    /// To the witness: if the register holds `expected`, make it `new`.
    CompareAndSet {
        /// Echoed.
        nonce: Nonce,
        /// Term and version; `None` for the empty register.
        expected: Option<(Term, Version)>,
        /// The new value.
        new: Configuration,
    },
    /// From the witness: what the register holds now, durably.
    Register {
        /// The request's.
        nonce: Nonce,
        /// Its value.
        configuration: Option<Configuration>,
    },
    /// From a primary that steps down: take over. Gives no right, only precedence among equals.
    TakeOver {
        /// The primary's term, in which it serves no more.
        term: Term,
        /// The end of its log; everything up to there is committed.
        last: LogPoint,
    },
    /// The digest of a backup's state, and where it was taken.
    Digest {
        /// The primary's term.
        term: Term,
        /// After this entry.
        at: LogPoint,
        /// The state machine's digest.
        digest: u64,
        /// Whether the sender believes in it.
        health: Health,
    },
    /// To one whose state is wrong, and who does not count any more: throw it away.
    Repair {
        /// The primary's term.
        term: Term,
        /// The configuration that counts, without the addressee.
        configuration: Configuration,
        /// The newest read round: an order older than what the addressee has seen is void.
        round: Nonce,
    },
    /// State and log are thrown away, durably.
    Discarded {
        /// The primary's term.
        term: Term,
        /// The order's round.
        round: Nonce,
    },
    /// From a replica that does not belong to the group, or not as it wants to: let me.
    Join {
        /// As what.
        kind: MemberKind,
        /// In whose place.
        replaces: Option<ReplicaId>,
    },
    /// To one who asked to join: not now, and why.
    NotAdmitted {
        /// For its operator.
        why: String,
    },
    /// This is who belongs: to one who does not, and to those who may not know, for they are silent or were removed.
    Members {
        /// The newest that the sender knows.
        configuration: Configuration,
        /// If the sender reigns, how its log came about: so one that was removed can tell what it has taken alone. Else empty.
        course: Course,
    },
    /// To the primary: I want to leave.
    Leave,
}

impl Message {
    /// Whether it may go to a life of the addressee that the sender does not know.
    pub(crate) fn may_be_unaddressed(&self) -> bool {
        match self {
            Self::Probe { .. }
            | Self::Standing { .. }
            | Self::ReadRegister { .. }
            | Self::CompareAndSet { .. }
            | Self::Join { .. }
            | Self::Members { .. } => true,
            Self::Register { .. }
            | Self::Refused { .. }
            | Self::Append { .. }
            | Self::Appended { .. }
            | Self::Mismatch { .. }
            | Self::AskCommit { .. }
            | Self::Chunk { .. }
            | Self::ChunkTaken { .. }
            | Self::Propose { .. }
            | Self::Accepted { .. }
            | Self::TakeOver { .. }
            | Self::Digest { .. }
            | Self::Repair { .. }
            | Self::Discarded { .. }
            | Self::NotAdmitted { .. }
            | Self::Leave => false,
        }
    }

    /// The configuration that it is sent under, if it shows one.
    pub(crate) fn configuration(&self) -> Option<&Configuration> {
        match self {
            Self::Probe { standing, .. } | Self::Standing { standing, .. } => {
                standing.configuration.as_ref()
            }
            Self::Append { configuration, .. } => Some(configuration),
            Self::Chunk { configuration, .. }
            | Self::Propose { configuration, .. }
            | Self::Members { configuration, .. } => Some(configuration),
            Self::Register { .. }
            | Self::ReadRegister { .. }
            | Self::CompareAndSet { .. }
            | Self::Appended { .. }
            | Self::Mismatch { .. }
            | Self::Refused { .. }
            | Self::AskCommit { .. }
            | Self::ChunkTaken { .. }
            | Self::Accepted { .. }
            | Self::TakeOver { .. }
            | Self::Join { .. }
            | Self::NotAdmitted { .. }
            | Self::Digest { .. }
            | Self::Repair { .. }
            | Self::Discarded { .. }
            | Self::Leave => None,
        }
    }

    /// The configuration that tells of which group it is, whoever sends it.
    pub(super) fn shown(&self) -> Option<&Configuration> {
        if let Self::Repair { configuration, .. } = self {
            return Some(configuration);
        }
        self.configuration()
    }

    /// Appends its encoding: length u16, postcard, then whatever the caller adds.
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use kvrep_core::protocol::passive::Message;
    ///
    /// let mut out = BytesMut::new();
    /// Message::Leave.encode(&mut out);
    /// out.extend_from_slice(b"raw");
    /// let mut body = out.freeze();
    /// assert_eq!(Message::decode(&mut body), Ok(Message::Leave));
    /// assert_eq!(body, "raw");
    /// ```
    ///
    /// # Panics
    /// When a configuration in it has more members than a group may have (64).
    pub fn encode(&self, out: &mut BytesMut) {
        let bytes = Scratch::of(self);
        let bytes = bytes.as_slice();
        let length = u16::try_from(bytes.len()).expect("a configuration has at most 64 members");
        out.put_u16(length);
        out.put_slice(bytes);
    }

    /// Takes a message off the front of what follows a peer frame's envelope; what is left is its raw part: the entries of an
    /// append, or a piece of a snapshot.
    ///
    /// # Errors
    /// [`Malformed`] when it is none. `body` is then unspecified.
    pub fn decode(body: &mut Bytes) -> Result<Self, Malformed> {
        crate::state_machine::decode(&Self::split_head(body)?)
    }

    /// Takes a message off the front without reading it.
    pub(super) fn split_head(body: &mut Bytes) -> Result<Bytes, Malformed> {
        let short = || Malformed("a message shorter than its length".into());
        if body.len() < 2 {
            return Err(short());
        }
        let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
        if body.len() < 2 + length {
            return Err(short());
        }
        body.advance(2);
        Ok(body.split_to(length))
    }
}

/// Decodes the entries behind an append. They must be consecutive and follow `prev`.
pub(crate) fn decode_entries(mut raw: Bytes, prev: LogPoint) -> Result<Run, Malformed> {
    let (mut at, mut failed) = (prev, None);
    // Of a known length, the run is made where it stays.
    let run: Run = (0..count_entries(&raw))
        .map(|_| {
            if failed.is_none() {
                match decode_next(&mut raw, at) {
                    Ok(entry) => {
                        at = entry.point();
                        return entry;
                    }
                    Err(error) => failed = Some(error),
                }
            }
            filler()
        })
        .collect();
    match failed {
        Some(error) => Err(error),
        None if !raw.is_empty() => Err(Malformed("an entry that is cut short".into())),
        None => Ok(run),
    }
}

/// Takes the place of what cannot be read, in a run that nobody will see.
fn filler() -> Entry {
    let (term, kind) = (Term::ZERO, EntryKind::Noop);
    Entry::following(LogPoint::ZERO, term, Timestamp(0), 0, kind, Bytes::new())
}

fn decode_next(raw: &mut Bytes, at: LogPoint) -> Result<Entry, Malformed> {
    let entry = Entry::decode(raw, at.hash).map_err(|e| Malformed(e.to_string()))?;
    if entry.index.0.checked_sub(1) != Some(at.index.0) || entry.term < at.term {
        return Err(Malformed("entries that do not follow each other".into()));
    }
    Ok(entry)
}

/// How many entries stand in `raw`, by their lengths alone: so many are allocated at once.
fn count_entries(mut raw: &[u8]) -> usize {
    let mut count = 0;
    while let Some(bytes) = Entry::peek_encoded_bytes(raw)
        && let Some(rest) = raw.get(bytes..)
    {
        count += 1;
        raw = rest;
    }
    count
}

pub(super) use crate::config::MEMBERS_MAX;

/// Whether a configuration that came from outside is one that a correct peer could have made.
pub(crate) fn is_plausible(configuration: &Configuration) -> bool {
    (1..=MEMBERS_MAX).contains(&configuration.members.len())
        && configuration
            .in_sync
            .contains_key(&configuration.term.replica)
        && configuration
            .in_sync
            .keys()
            .all(|id| configuration.is_full(*id))
        && configuration.departed.latest.len() <= Departed::LATEST_MAX
        && configuration.term.number < u64::MAX / 2
        && configuration.version.0 < u64::MAX / 2
}

/// A peer frame's message in words, for traces.
///
/// `body` is what follows the envelope.
#[must_use]
pub fn describe(body: &Bytes) -> String {
    let mut rest = body.clone();
    match Message::decode(&mut rest) {
        Ok(Message::Append {
            term,
            configuration,
            prev,
            last,
            commit,
            round,
        }) => {
            let entries = decode_entries(rest, prev).map_or(0, |e| e.len());
            format!(
                "Append {term} {configuration:?} after {prev:?} [{entries}] of {last} commit {commit} {round}"
            )
        }
        Ok(Message::Probe { nonce, standing }) => format!("Probe {nonce} {}", words(&standing)),
        Ok(Message::Standing { nonce, standing }) => {
            format!("Standing {nonce} {}", words(&standing))
        }
        Ok(other) => format!("{other:?} [{} bytes]", rest.len()),
        Err(e) => e.to_string(),
    }
}

fn words(s: &Standing) -> String {
    format!(
        "{:?} {} promised {} knows {:?} intends {:?} last {:?} commit {}",
        s.posture, s.store, s.promised, s.configuration, s.intent, s.last, s.commit
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Origin;

    fn configuration() -> Configuration {
        Configuration {
            origin: Origin(1),
            term: Term::ZERO.next_for(ReplicaId(2)),
            version: Version(3),
            in_sync: [(ReplicaId(1), StoreId(7)), (ReplicaId(2), StoreId(8))].into(),
            members: [1, 2].map(|id| (ReplicaId(id), MemberKind::Full)).into(),
            departed: Departed::default(),
        }
    }

    #[test]
    fn an_append_has_these_bytes() {
        let mut out = BytesMut::new();
        Message::Append {
            term: Term::ZERO.next_for(ReplicaId(2)),
            configuration: Arc::new(configuration()),
            prev: LogPoint::ZERO,
            last: Index(6),
            commit: Index(4),
            round: Nonce(5),
        }
        .encode(&mut out);
        let hex: String = out.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "001a0201020101020302010702080201000200000000000000060405"
        );
    }

    #[test]
    fn every_truncation_is_malformed_and_no_flipped_bit_panics() {
        let mut out = BytesMut::new();
        Message::Propose {
            configuration: configuration(),
            last: LogPoint::ZERO,
        }
        .encode(&mut out);
        let whole = out.freeze();
        for cut in 0..whole.len() {
            assert!(Message::decode(&mut whole.slice(..cut)).is_err(), "{cut}");
        }
        for bit in 0..whole.len() * 8 {
            let mut bytes = BytesMut::from(&whole[..]);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let _ = Message::decode(&mut bytes.freeze());
        }
    }
}
