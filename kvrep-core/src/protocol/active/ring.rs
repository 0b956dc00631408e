//! Who owns what: a pure function of the delivered stream.
//!
//! A *slot* is a residue of the hash, owned at first by the member of that number. Its owner at a position is the first
//! *serving* member in ring order from the slot. Statuses change only by what the stream delivers, so replicas that have
//! delivered the same agree on every owner, without a message.
//!
//! Invariants: who serves goes on until the stream says otherwise; the last one serving never stops by somebody's word.

use super::item::{Decision, Life, Stamp};
use crate::id::{Incarnation, Index, ReplicaId};
use serde::{Deserialize, Serialize};

/// How a member stands, as far as the stream has told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Standing {
    /// Nothing was heard of it since the origin.
    Absent,
    /// It answers.
    Serving {
        /// Which join.
        life: Life,
        /// From which position on.
        since: Index,
    },
    /// It wants the state.
    Joining {
        /// Which join.
        life: Life,
        /// Where it announced itself.
        at: Index,
    },
    /// It was declared dead, or its history does not count.
    Failed {
        /// Which join.
        life: Life,
    },
}

/// What became of the word that somebody has failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fall {
    /// It serves no more.
    Now,
    /// It is the last one that serves: it goes on until somebody else is ready.
    Pending,
    /// Of an earlier life, or known.
    Void,
}

/// What became of a decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Those have failed.
    Counts(Vec<ReplicaId>),
    /// A decision that counts was missed.
    Missed,
    Void,
}

/// Where a stamped publication stands among those of its publisher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sequence {
    Next,
    /// It was there before: the publisher sent it again.
    Repeated,
    /// Something of the same publisher is missing before it.
    Gap,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Ring {
    members: Vec<ReplicaId>,
    standing: Vec<Standing>,
    /// The last publication of each member.
    last: Vec<(Incarnation, u64)>,
    pub(super) decisions: u64,
    /// The last one serving, declared dead.
    pending: Option<(ReplicaId, Life)>,
}

impl Ring {
    pub(super) fn new(members: impl IntoIterator<Item = ReplicaId>) -> Self {
        let members: Vec<_> = members.into_iter().collect();
        Self {
            standing: vec![Standing::Absent; members.len()],
            last: vec![(Incarnation(0), 0); members.len()],
            members,
            decisions: 0,
            pending: None,
        }
    }

    pub(super) fn members(&self) -> &[ReplicaId] {
        &self.members
    }

    fn place(&self, replica: ReplicaId) -> Option<usize> {
        self.members.iter().position(|member| *member == replica)
    }

    pub(super) fn standing(&self, replica: ReplicaId) -> Standing {
        self.place(replica)
            .map_or(Standing::Absent, |place| self.standing[place])
    }

    pub(super) fn slot_of(&self, hash: u64) -> usize {
        usize::try_from(hash % self.members.len() as u64).unwrap_or(0)
    }

    pub(super) fn slot_of_member(&self, replica: ReplicaId) -> Option<usize> {
        self.place(replica)
    }

    /// The first one serving, from the slot on.
    pub(super) fn owner(&self, slot: usize) -> Option<ReplicaId> {
        let members = self.members.len();
        (0..members)
            .map(|step| (slot + step) % members)
            .find(|place| matches!(self.standing[*place], Standing::Serving { .. }))
            .map(|place| self.members[place])
    }

    /// Who sends the state to a joining member.
    pub(super) fn substitute(&self, of: ReplicaId) -> Option<ReplicaId> {
        self.place(of).and_then(|place| self.owner(place))
    }

    pub(super) fn serving(&self) -> impl Iterator<Item = (ReplicaId, Life)> + '_ {
        (self.members.iter().zip(&self.standing)).filter_map(|(member, standing)| match standing {
            Standing::Serving { life, .. } => Some((*member, *life)),
            Standing::Absent | Standing::Joining { .. } | Standing::Failed { .. } => None,
        })
    }

    pub(super) fn joining(&self) -> impl Iterator<Item = (ReplicaId, Life, Index)> + '_ {
        (self.members.iter().zip(&self.standing)).filter_map(|(member, standing)| match standing {
            Standing::Joining { life, at } => Some((*member, *life, *at)),
            Standing::Absent | Standing::Serving { .. } | Standing::Failed { .. } => None,
        })
    }

    /// Differs when others serve.
    pub(super) fn view(&self) -> u64 {
        let serving: Vec<_> = self.serving().collect();
        xxhash_rust::xxh3::xxh3_64(&crate::state_machine::encode(&serving))
    }

    pub(super) fn failed(&self) -> impl Iterator<Item = (ReplicaId, Life)> + '_ {
        (self.members.iter().zip(&self.standing)).filter_map(|(member, standing)| match standing {
            Standing::Failed { life } => Some((*member, *life)),
            Standing::Absent | Standing::Joining { .. } | Standing::Serving { .. } => None,
        })
    }

    pub(super) fn serves(&self, replica: ReplicaId, life: Life) -> bool {
        matches!(self.standing(replica), Standing::Serving { life: served, .. } if served == life)
    }

    /// Whether this replica serves, and nobody else.
    pub(super) fn is_last(&self, replica: ReplicaId) -> bool {
        self.serving().map(|(member, _)| member).eq([replica])
    }

    /// Notes a publication of a member.
    pub(super) fn sequence(&mut self, stamp: Stamp) -> Sequence {
        let Some(place) = self.place(stamp.replica) else {
            return Sequence::Next;
        };
        let last = &mut self.last[place];
        let this = (stamp.incarnation, stamp.seq);
        if this <= *last {
            return Sequence::Repeated;
        }
        // The first one of a life that is delivered here need not be its first: what was before is not of this history.
        let follows = stamp.incarnation > last.0 || stamp.seq == last.1 + 1;
        *last = this;
        if follows {
            Sequence::Next
        } else {
            Sequence::Gap
        }
    }

    /// A member wants the state. Whether that is news.
    pub(super) fn announce(&mut self, at: Index, replica: ReplicaId, life: Life) -> bool {
        let Some(place) = self.place(replica) else {
            return false;
        };
        let known = match self.standing[place] {
            Standing::Absent => None,
            Standing::Serving { life, .. }
            | Standing::Joining { life, .. }
            | Standing::Failed { life } => Some(life),
        };
        if known >= Some(life) {
            return false;
        }
        self.standing[place] = Standing::Joining { life, at };
        self.pending = self.pending.filter(|(pending, _)| *pending != replica);
        true
    }

    /// A member has everything. Whether it serves now.
    pub(super) fn ready(&mut self, at: Index, replica: ReplicaId, life: Life) -> bool {
        let Some(place) = self.place(replica) else {
            return false;
        };
        if !matches!(self.standing[place], Standing::Joining { life: joins, .. } if joins == life) {
            return false;
        }
        self.standing[place] = Standing::Serving { life, since: at };
        if let Some((dead, life)) = self.pending.take() {
            self.fail(dead, Some(life));
        }
        true
    }

    /// A member is said to be dead.
    pub(super) fn fail(&mut self, replica: ReplicaId, said: Option<Life>) -> Fall {
        let Some(place) = self.place(replica) else {
            return Fall::Void;
        };
        let life = match self.standing[place] {
            Standing::Absent | Standing::Failed { .. } => return Fall::Void,
            Standing::Serving { life, .. } | Standing::Joining { life, .. } => life,
        };
        if said.is_some_and(|said| said != life) {
            return Fall::Void;
        }
        if self.is_last(replica) {
            self.pending = Some((replica, life));
            return Fall::Pending;
        }
        self.standing[place] = Standing::Failed { life };
        Fall::Now
    }

    /// Takes somebody out of service, the last one too: for a planted bug, and for one that knows that it is wrong.
    #[cfg(feature = "sim")]
    pub(super) fn fail_at_once(&mut self, replica: ReplicaId) {
        if let Some(place) = self.place(replica)
            && let Standing::Serving { life, .. } = self.standing[place]
        {
            self.standing[place] = Standing::Failed { life };
        }
    }

    /// Judges a decision.
    pub(super) fn decide(&mut self, decision: &Decision) -> Verdict {
        let next = self.decisions + 1;
        if decision.number > next {
            return Verdict::Missed;
        }
        if decision.number < next || decision.known != self.decisions {
            return Verdict::Void;
        }
        let listed = |member: ReplicaId, life: Life| decision.listed.contains(&(member, life));
        if !self.serving().any(|(member, life)| listed(member, life)) {
            return Verdict::Void;
        }
        self.decisions = decision.number;
        let unlisted: Vec<_> = (self.serving())
            .filter(|(member, life)| !listed(*member, *life))
            .map(|(member, _)| member)
            .collect();
        for member in &unlisted {
            self.fail(*member, None);
        }
        self.pending = None;
        Verdict::Counts(unlisted)
    }

    /// A history begins, or goes on, with one that serves; all others have failed.
    pub(super) fn begin(&mut self, at: Index, author: ReplicaId, life: Life) {
        for (place, member) in self.members.iter().enumerate() {
            self.standing[place] = match self.standing[place] {
                _ if *member == author => Standing::Serving { life, since: at },
                Standing::Absent => Standing::Absent,
                Standing::Serving { life, .. }
                | Standing::Joining { life, .. }
                | Standing::Failed { life } => Standing::Failed { life },
            };
        }
        self.pending = None;
    }
}
