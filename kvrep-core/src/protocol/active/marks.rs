//! Comparing histories at marks.
//!
//! A broker may lose, repeat or swap messages for one subscriber without a word. So marks are published into the stream; each
//! replica that serves tells all others what it has there ([`Claim`]: position, chain, digest of the state). Equal claims of all who serve
//! are an agreement: everything before the mark is the same everywhere. Different ones are a dispute, which a decision in the stream ends.
//!
//! Caveat: between two marks a replica may answer from a state that lacks what was lost for it alone.

use super::item::{Decision, Life, Stamp};
use super::message::Claim;
use crate::id::{Index, ReplicaId};
use std::collections::{BTreeMap, VecDeque};

/// What the claims about one mark say.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Agreement {
    /// All that serve have the same.
    Yes,
    /// Somebody's is missing; nobody has something else.
    Open,
    /// Somebody has something else; `complete` if everybody's is there.
    No { complete: bool },
}

#[derive(Debug, Default)]
pub(super) struct Marks {
    /// The last marks delivered here, with what this replica has there, and how many decisions its publisher knew.
    mine: VecDeque<(Claim, u64)>,
    /// What others say.
    claims: BTreeMap<Stamp, BTreeMap<ReplicaId, (Life, Claim)>>,
    order: VecDeque<Stamp>,
}

impl Marks {
    /// A mark was delivered.
    pub(super) fn delivered(&mut self, claim: Claim, known: u64) {
        if self.mine.len() == MARKS_MAX {
            self.mine.pop_front();
        }
        self.mine.push_back((claim, known));
    }

    /// Another one says what it has at a mark.
    pub(super) fn claimed(&mut self, replica: ReplicaId, life: Life, claim: Claim) {
        if !self.claims.contains_key(&claim.mark) {
            if self.order.len() == 2 * MARKS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.claims.remove(&oldest);
            }
            self.order.push_back(claim.mark);
        }
        let claims = self.claims.entry(claim.mark).or_default();
        claims.insert(replica, (life, claim));
    }

    /// The last claims of this replica, for its heartbeats.
    pub(super) fn own(&self) -> Vec<Claim> {
        let last = self.mine.iter().rev().take(CLAIMS_TOLD);
        last.map(|(claim, _)| *claim).collect()
    }

    /// Marks delivered here that count for the current decision, the last first.
    pub(super) fn current(&self, decisions: u64) -> Vec<Claim> {
        let mine = self.mine.iter().rev();
        mine.filter(|(_, known)| *known == decisions)
            .map(|(claim, _)| *claim)
            .collect()
    }

    /// How those who serve compare with this replica at this mark.
    pub(super) fn compare(
        &self,
        own: &Claim,
        me: ReplicaId,
        serving: impl Iterator<Item = (ReplicaId, Life)>,
    ) -> Agreement {
        let said = self.claims.get(&own.mark);
        let (mut differs, mut complete) = (false, true);
        for (replica, life) in serving.filter(|(replica, _)| *replica != me) {
            match said.and_then(|said| said.get(&replica)) {
                Some((claimed, claim)) if *claimed == life => differs |= !is_same(claim, own),
                Some(_) | None => complete = false,
            }
        }
        match (differs, complete) {
            (true, complete) => Agreement::No { complete },
            (false, true) => Agreement::Yes,
            (false, false) => Agreement::Open,
        }
    }

    /// What is to be decided about a mark at which claims differ. Where more than one confirmation is needed, the history of which most was
    /// confirmed counts; otherwise (and among equals) the one that most have, then the longest, then the lowest id's.
    pub(super) fn propose(
        &self,
        (me, life): (ReplicaId, Life),
        own: &Claim,
        serving: impl Iterator<Item = (ReplicaId, Life)>,
        (known, confirmations): (u64, usize),
    ) -> Decision {
        let mut candidates = vec![(me, life, *own)];
        if let Some(said) = self.claims.get(&own.mark) {
            let others = serving.filter(|(replica, _)| *replica != me);
            candidates.extend(others.filter_map(|(replica, life)| {
                let (claimed, claim) = said.get(&replica)?;
                (*claimed == life).then_some((replica, life, *claim))
            }));
        }
        let sharing = |claim: &Claim| {
            let same = candidates
                .iter()
                .filter(|(_, _, other)| is_same(other, claim));
            same.count()
        };
        let rank = |(replica, _, claim): &(ReplicaId, Life, Claim)| {
            let confirmed = if confirmations > 1 {
                claim.confirmed
            } else {
                Index::ZERO
            };
            (
                confirmed,
                sharing(claim),
                claim.at,
                std::cmp::Reverse(*replica),
            )
        };
        let best = candidates.iter().max_by_key(|candidate| rank(candidate));
        let best = best.map_or(*own, |(_, _, claim)| *claim);
        Decision {
            number: known + 1,
            mark: own.mark,
            known,
            at: best.at,
            chain: best.chain,
            listed: (candidates.iter())
                .filter(|(_, _, claim)| is_same(claim, &best))
                .map(|(replica, life, _)| (*replica, *life))
                .collect(),
        }
    }

    /// What this replica has at a mark.
    pub(super) fn mine(&self, mark: Stamp) -> Option<&Claim> {
        let mut mine = self.mine.iter().map(|(claim, _)| claim);
        mine.find(|claim| claim.mark == mark)
    }

    /// Another history: what was compared means nothing.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

fn is_same(one: &Claim, other: &Claim) -> bool {
    (one.at, one.chain, one.digest) == (other.at, other.chain, other.digest)
}

/// Marks that are remembered.
const MARKS_MAX: usize = 16;

/// Marks that a heartbeat speaks of.
const CLAIMS_TOLD: usize = 4;
