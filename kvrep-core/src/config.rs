//! The knobs. Those of the group are the same on every replica and are hashed into the handshake; those of a node
//! may differ.
//!
//! The group's are in [`GroupConfig`]: replicas whose hashes differ refuse each other, because a group in which one waits
//! for all and another for some keeps neither promise. The call's is [`Read`]. Those of a node (queues, directories,
//! addresses) are where they are used: the node's builder, the transport, the storage.
//!
//! Caveat: changing a group's configuration means stopping the whole group and starting it with the new one.

use crate::id::ReplicaId;
pub use crate::policy::{Ack, Confirm, Takeover, Transfer, Visibility};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// Who decides who may be primary, and with which in-sync set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Authority {
    /// The group itself. Right when replicas crash and restart with their disks intact. **Not safe** under
    /// partitions, pauses and false suspicion: there may be two primaries then. When they meet again, what only one of
    /// them acknowledged is found, saved aside and reported.
    Alone,
    /// A witness: a tiny process with a durable register ([`ReplicaId::WITNESS`]). Safe under partitions too.
    Witness,
}

/// How fresh a read must be. Belongs to the call, not to the group.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Read {
    /// Whatever the asked replica has applied. May be stale; never shows what a crash could undo. Refused as
    /// [`Behind`](crate::error::ReadError::Behind) by one that does not belong (any more), or that lost its state and is only being given it. One that has
    /// heard of no group yet knows of neither, and shows the beginning: its token's index is 0.
    Local,
    /// At least as new as the token: one's own writes, and nothing older than what one has seen.
    AtLeast(Token),
    /// As if there were one copy. Answered by the primary, confirmed by every in-sync member.
    #[default]
    Linearizable,
}

/// What a client has seen: the position of a write's entry, or of the state a read was answered from. Tokens of
/// one client never go back.
///
/// A program that writes with one client and reads with another, in another process even, hands the token over:
///
/// ```
/// use kvrep_core::{Index, Read, ReplicaId, Term, Token};
///
/// let written = Token { term: Term::ZERO.next_for(ReplicaId(1)), index: Index(17) };
/// let read = Read::AtLeast(written); // by any replica that has come so far, or is about to
/// # let _ = read;
/// let seen_elsewhere = Token { index: Index(20), ..written };
/// assert_eq!(written.max(seen_elsewhere), seen_elsewhere); // to combine two, take the later one
/// ```
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct Token {
    /// Term of the entry.
    pub term: crate::id::Term,
    /// Its index.
    pub index: crate::id::Index,
}

/// How long things take. The group's: a replica with other values would suspect too early or too late.
///
/// The least time to notice a machine that vanishes is `suspect_after`; the end of a process is seen at once where the
/// transport can see it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Timing {
    /// How often the primary tells its backups that it lives. 50 ms by default.
    pub heartbeat_every: Duration,
    /// How long a silent peer is counted on. At least three heartbeats. 300 ms by default.
    pub suspect_after: Duration,
    /// How long a candidate waits for answers to its probe. 25 ms by default.
    pub probe_window: Duration,
    /// After how long an unanswered message is sent again. 100 ms by default.
    pub resend_every: Duration,
}

impl Default for Timing {
    /// For a LAN: heartbeats every 50 ms, suspicion after 300 ms.
    fn default() -> Self {
        Self {
            heartbeat_every: Duration::from_millis(50),
            suspect_after: Duration::from_millis(300),
            probe_window: Duration::from_millis(25),
            resend_every: Duration::from_millis(100),
        }
    }
}

/// How much. The group's, because every replica must be able to hold what another sends.
///
/// The defaults suit commands of up to some kilobytes. Raise `command_bytes_max` and `frame_bytes_max` together; see
/// [`GroupConfig::validate`].
///
/// # How much memory and disk follow
///
/// A snapshot is due after `snapshot_log_bytes` or `snapshot_log_entries`, whichever is first. Let *W* be what is proposed
/// while a snapshot is being written. An entry counts with its encoding, the command and some 60 bytes.
///
/// * The log in memory holds at most `snapshot_log_bytes` + `retained_bytes` + *W* + `uncommitted_bytes_max`, and about 100
///   bytes beside each entry. While a snapshot is being sent to a peer, the primary keeps what follows it: up to 4 × `snapshot_log_bytes` in all.
///   A newer one is taken meanwhile only when the log has grown to 3 × its limits.
/// * The directory of a write-ahead log holds the same, rounded up to whole segments (`WalOptions::segment_bytes`) plus
///   two segments, one snapshot, and a second one while it is being written or received.
/// * The state machine's own memory comes on top, twice while a snapshot is written if `snapshot` clones it; and
///   `session_answer_bytes_max` for kept answers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Largest command, query or response in bytes. 1 MiB by default.
    pub command_bytes_max: usize,
    /// Largest frame body in bytes. 4 MiB by default; below 2 GiB, and at least 4 KiB above `command_bytes_max`.
    pub frame_bytes_max: usize,
    /// Entries at the primary that are not committed (under [`Ack::Primary`]: that some in-sync member lacks); beyond it
    /// proposals are answered *busy*. 65,536 by default.
    pub uncommitted_entries_max: usize,
    /// The same in bytes; beyond it proposals are answered *busy*.
    /// 64 MiB by default; at least `command_bytes_max`.
    pub uncommitted_bytes_max: usize,
    /// Bytes in flight to one backup before the sender waits for its acknowledgement. 8 MiB by default.
    pub inflight_bytes_max: usize,
    /// A snapshot is taken when the log behind the last one is larger than this. 64 MiB by default.
    pub snapshot_log_bytes: usize,
    /// A snapshot is taken when the log behind the last one has more entries than this. A million by default.
    pub snapshot_log_entries: u64,
    /// Entries kept before the last snapshot, so that a backup that was away for a moment needs no snapshot.
    /// 10,000 by default; fewer if they exceed `retained_bytes`.
    pub retained_entries: u64,
    /// Bytes of entries kept before the last snapshot, at most. 16 MiB by default.
    pub retained_bytes: usize,
    /// Entries after which replicas compare the digests of their states, where the state machine has one
    /// ([`StateMachine::digest`](crate::StateMachine::digest)); a replica that differs is repaired (a fixed primary,
    /// [`Takeover::Never`], only reported). The table of sessions is not part of it: `Node::digest` has that.
    /// 10,000 by default; 0: never.
    pub digest_every_entries: u64,
    /// Reads waiting for a confirmation or for the log. 65,536 by default.
    pub pending_reads_max: usize,
    /// Sessions of clients; the least recently used goes when one more is opened. 65,536 by default.
    pub sessions_max: usize,
    /// Requests of one session whose answers are kept. 1,024 by default.
    pub session_window: u64,
    /// Bytes of kept answers of all sessions; beyond it the least recently used sessions expire. 64 MiB by default.
    pub session_answer_bytes_max: usize,
    /// A session unused for this long (by the log's timestamps) is expired. An hour by default.
    pub session_ttl: Duration,
    /// Members of the group; one that would be one too many is not let in. 64 by default, which is also the most: every one
    /// must acknowledge every write. A pair, for instance, stays one with 2: whoever joins takes the place of a dead member
    /// ([`Join::in_place_of`](crate::protocol::passive::Join::in_place_of)).
    pub members_max: usize,
}

impl Limits {
    /// These, for a transport whose frames have at most so many bytes, header included: with smaller frames, and smaller commands in them, where they would
    /// not fit. Unchanged where nothing sensible would fit.
    ///
    /// ```
    /// use kvrep_core::Limits;
    ///
    /// let limits = Limits::default().within_frames(64 << 10);
    /// assert_eq!((limits.frame_bytes_max, limits.command_bytes_max), (65_520, 61_424));
    /// assert_eq!(Limits::default().within_frames(64 << 20), Limits::default());
    /// ```
    #[must_use]
    pub fn within_frames(mut self, frame_bytes: usize) -> Self {
        let body = frame_bytes.saturating_sub(crate::wire::HEADER_BYTES);
        let command = body.saturating_sub(COMMAND_MARGIN);
        if command > 0 {
            self.frame_bytes_max = self.frame_bytes_max.min(body);
            self.command_bytes_max = self.command_bytes_max.min(command);
        }
        self
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            command_bytes_max: 1 << 20,
            frame_bytes_max: 4 << 20,
            uncommitted_entries_max: 65_536,
            uncommitted_bytes_max: 64 << 20,
            inflight_bytes_max: 8 << 20,
            snapshot_log_bytes: 64 << 20,
            snapshot_log_entries: 1_000_000,
            retained_entries: 10_000,
            retained_bytes: 16 << 20,
            digest_every_entries: 10_000,
            pending_reads_max: 65_536,
            sessions_max: 65_536,
            session_window: 1_024,
            session_answer_bytes_max: 64 << 20,
            session_ttl: Duration::from_secs(3_600),
            members_max: MEMBERS_MAX,
        }
    }
}

/// Members of a group, at most.
pub(crate) const MEMBERS_MAX: usize = 64;

/// What the whole group agrees on under the passive scheme.
///
/// ```
/// use kvrep_core::{Authority, GroupConfig, ReplicaId};
/// use std::time::Duration;
///
/// let mut group = GroupConfig::new([1, 2, 3].map(ReplicaId), Authority::Witness);
/// let usual = group.hash();
/// group.timing.heartbeat_every = Duration::from_millis(20);
/// group.timing.suspect_after = Duration::from_millis(100);
/// assert_eq!(group.validate(), Ok(()));
/// assert_ne!(group.hash(), usual); // replicas with the usual times would refuse this one
///
/// group.timing.suspect_after = Duration::from_millis(30);
/// assert!(group.validate().unwrap_err().contains("three times heartbeat_every"));
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupConfig {
    /// The founders: who belongs to the group when it begins (without the witness). 1 to 64. Who belongs later is agreed
    /// upon in the [`Configuration`](crate::Configuration); to a replica that joins, they are whom it asks.
    pub members: BTreeSet<ReplicaId>,
    /// See [`Authority`].
    pub authority: Authority,
    /// See [`Ack`].
    pub ack: Ack,
    /// See [`Takeover`].
    pub takeover: Takeover,
    /// See [`Visibility`].
    pub visibility: Visibility,
    /// See [`Transfer`].
    pub transfer: Transfer,
    /// See [`Confirm`].
    pub confirm: Confirm,
    /// See [`Timing`].
    pub timing: Timing,
    /// See [`Limits`].
    pub limits: Limits,
}

impl GroupConfig {
    /// A group of these members with defaults for everything else.
    pub fn new(members: impl IntoIterator<Item = ReplicaId>, authority: Authority) -> Self {
        Self {
            members: members.into_iter().collect(),
            authority,
            ack: Ack::AllInSync,
            takeover: Takeover::MostAdvanced,
            visibility: Visibility::OnCommit,
            transfer: Transfer::Concurrent,
            confirm: Confirm::Round,
            timing: Timing::default(),
            limits: Limits::default(),
        }
    }

    /// What replicas compare in the handshake: everything but the members.
    ///
    /// # Panics
    /// Never: the configuration is plain data.
    #[must_use]
    pub fn hash(&self) -> u64 {
        // Members come and go: a newcomer knows others than a founder.
        let without = Self {
            members: BTreeSet::new(),
            ..self.clone()
        };
        let bytes = postcard::to_stdvec(&without).expect("plain data serialises");
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }

    /// What founders compare before they begin a group.
    pub(crate) fn founders(&self) -> u64 {
        let ids = self.members.iter().flat_map(|id| id.0.to_le_bytes());
        xxhash_rust::xxh3::xxh3_64(&ids.collect::<Vec<u8>>())
    }

    /// Checks that the values fit each other.
    ///
    /// # Errors
    /// A sentence that says what to change.
    pub fn validate(&self) -> Result<(), String> {
        let (t, l) = (&self.timing, &self.limits);
        if self.members.is_empty() {
            return Err("a group needs at least one member".into());
        }
        if !(1..=MEMBERS_MAX).contains(&l.members_max) {
            return Err(format!(
                "Limits::members_max must be 1 to {MEMBERS_MAX}: every member must acknowledge every write"
            ));
        }
        if self.members.len() > l.members_max {
            return Err(format!(
                "at most {} members (Limits::members_max): every one must acknowledge every write",
                l.members_max
            ));
        }
        for reserved in [ReplicaId::WITNESS, ReplicaId::NOBODY] {
            if self.members.contains(&reserved) {
                return Err(format!("replica id {} is reserved", reserved.0));
            }
        }
        if t.heartbeat_every.is_zero() || t.probe_window.is_zero() || t.resend_every.is_zero() {
            return Err("heartbeat_every, probe_window and resend_every must not be zero".into());
        }
        if t.suspect_after < t.heartbeat_every.saturating_mul(3) {
            return Err("suspect_after must be at least three times heartbeat_every".into());
        }
        self.validate_policies()?;
        let zero = [
            ("command_bytes_max", l.command_bytes_max == 0),
            ("uncommitted_entries_max", l.uncommitted_entries_max == 0),
            ("inflight_bytes_max", l.inflight_bytes_max == 0),
            ("pending_reads_max", l.pending_reads_max == 0),
            ("sessions_max", l.sessions_max == 0),
            ("session_window", l.session_window == 0),
            ("session_ttl", l.session_ttl.is_zero()),
            ("session_answer_bytes_max", l.session_answer_bytes_max == 0),
            ("snapshot_log_entries", l.snapshot_log_entries == 0),
            ("snapshot_log_bytes", l.snapshot_log_bytes == 0),
        ];
        if let Some((name, _)) = zero.into_iter().find(|(_, is_zero)| *is_zero) {
            return Err(format!("Limits::{name} must not be zero"));
        }
        if l.frame_bytes_max < l.command_bytes_max.saturating_add(COMMAND_MARGIN) {
            return Err("frame_bytes_max must exceed command_bytes_max by 4096 bytes".into());
        }
        if l.frame_bytes_max > u32::MAX as usize / 2 {
            return Err("frame_bytes_max must be below 2 GiB".into());
        }
        if l.uncommitted_bytes_max < l.command_bytes_max {
            return Err("uncommitted_bytes_max must hold a command".into());
        }
        Ok(())
    }
}

/// What a frame holds beside a command, at most.
const COMMAND_MARGIN: usize = 4_096;
