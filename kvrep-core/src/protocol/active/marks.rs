//! Comparing histories at marks.
//!
//! A broker may lose, repeat or swap messages for one subscriber without a word. So marks are published into the stream; each
//! replica that serves tells all others what it has there ([`Claim`]: position, chain, digest of the state). Equal claims of all who serve
//! are an agreement: everything before the mark is the same everywhere. Different ones are a dispute, which a decision in the stream ends.
//!
//! Caveat: between two marks a replica may answer from a state that lacks what was lost for it alone.

use super::item::{Decision, Life, Stamp};
use super::message::Claim;
use super::word::Word;
use crate::id::{Index, ReplicaId};
use std::collections::{BTreeMap, VecDeque};

/// What the claims about one mark say.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Agreement {
    /// All that serve have the same.
    Yes,
    /// Somebody's is missing; nobody has something else.
    Open,
    /// Somebody has something else; `complete` if everybody's is there, and everybody holds.
    No { complete: bool },
}

/// A claim, with what else its replica said in the same breath.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    pub(super) life: Life,
    pub(super) claim: Claim,
    pub(super) serving: bool,
    pub(super) holding: bool,
    pub(super) word: Word,
    /// Who serves, as far as it knows.
    pub(super) view: u64,
}

#[derive(Debug, Default)]
pub(super) struct Marks {
    /// The last marks delivered here, with what this replica has there, and how many decisions its publisher knew.
    mine: VecDeque<(Claim, u64)>,
    /// What others say.
    claims: BTreeMap<Stamp, BTreeMap<ReplicaId, Said>>,
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
    pub(super) fn claimed(&mut self, replica: ReplicaId, said: Said) {
        let claim = said.claim;
        if !self.claims.contains_key(&claim.mark) {
            if self.order.len() == 2 * MARKS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.claims.remove(&oldest);
            }
            self.order.push_back(claim.mark);
        }
        let claims = self.claims.entry(claim.mark).or_default();
        claims.insert(replica, said);
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
        let (mut differs, mut complete, mut all_hold) = (false, true, true);
        for (replica, life) in serving.filter(|(replica, _)| *replica != me) {
            match said.and_then(|said| said.get(&replica)) {
                // (What it said while it joined was of what it had before.)
                Some(said) if said.life == life && said.serving => {
                    differs |= said.claim != *own;
                    all_hold &= said.holding;
                }
                Some(_) | None => complete = false,
            }
        }
        match (differs, complete) {
            (true, complete) => Agreement::No {
                complete: complete && all_hold,
            },
            (false, true) => Agreement::Yes,
            (false, false) => Agreement::Open,
        }
    }

    /// What is to be decided about a mark at which claims differ; `None` while too few have said something. Where more than one confirmation is
    /// needed, the history of which most was confirmed counts; otherwise (and among equals) the one that most have, then the longest,
    /// then the lowest id's.
    ///
    /// With k of n confirmations, n − k + 1 of those who hold are enough to know: whatever was answered was known to be confirmed by k, and one of
    /// them is among these. Fewer are enough if they agree that nobody else serves: nobody else has confirmed anything that they have not.
    pub(super) fn propose(
        &self,
        (me, own): (ReplicaId, Said),
        serving: impl Iterator<Item = (ReplicaId, Life)>,
        known: u64,
        (members, confirmations): (usize, usize),
    ) -> Option<Decision> {
        let mark = own.claim.mark;
        let mut candidates = vec![(me, own)];
        if let Some(claims) = self.claims.get(&mark) {
            let others = serving.filter(|(replica, _)| *replica != me);
            candidates.extend(others.filter_map(|(replica, life)| {
                let said = claims.get(&replica)?;
                (said.life == life && said.serving).then_some((replica, *said))
            }));
        }
        let one_view = candidates.iter().all(|(_, said)| said.view == own.view);
        if confirmations > 1 && !one_view && candidates.len() + confirmations <= members {
            return None;
        }
        let sharing = |claim: &Claim| {
            let same = candidates.iter().filter(|(_, other)| other.claim == *claim);
            same.count()
        };
        let rank = |(replica, said): &(ReplicaId, Said)| {
            let confirmed = if confirmations > 1 {
                said.word.confirmed.at
            } else {
                Index::ZERO
            };
            let lowest = std::cmp::Reverse(*replica);
            (confirmed, sharing(&said.claim), said.claim.at, lowest)
        };
        let (_, best) = candidates.iter().max_by_key(|candidate| rank(candidate))?;
        Some(Decision {
            number: known + 1,
            mark,
            known,
            at: best.claim.at,
            chain: best.claim.chain,
            listed: (candidates.iter())
                .filter(|(_, said)| said.claim == best.claim)
                .map(|(replica, said)| (*replica, said.life))
                .collect(),
        })
    }

    /// What another one said about a mark.
    pub(super) fn said(&self, mark: Stamp, replica: ReplicaId) -> Option<&Said> {
        self.claims.get(&mark)?.get(&replica)
    }

    /// What this replica has at the last marks, the last first.
    pub(super) fn all_mine(&self) -> impl Iterator<Item = &Claim> {
        self.mine.iter().rev().map(|(claim, _)| claim)
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

/// Marks that are remembered.
const MARKS_MAX: usize = 16;

/// Marks that a heartbeat speaks of.
const CLAIMS_TOLD: usize = 4;
