//! Whose history counts: where an answer needs k confirmations, so does the right to pass a history on.
//!
//! A replica that missed a part of the stream may find itself alone, while the others, who have that part and have confirmed it, are cut off or
//! stopped. Alone it agrees with itself. If it gave its state to newcomers then, they would throw away what was acknowledged.
//! So with k > 1 a state is given away, and a history begun, only on the *word* of enough members: what each has, and up to where it knows it to be
//! confirmed; or that it has nothing. Whatever was acknowledged is known to be confirmed by k, so one of any n − k + 1 who still have their
//! state knows it.
//!
//! * Those who serve give it by agreeing at a mark; those who join, by what they say about a mark after their announcement: from there on they confirm
//!   nothing any more. A newcomer's own word is always waited for, for the state that it gets replaces what it has.
//! * If somebody's word tells of something confirmed that is missing here, this replica steps aside ([`Fence::Behind`]), and whoever has it goes on. So does one that serves with
//!   fewer than k, where somebody serves with more, whose joining it has missed.
//! * Where k have nothing, more is lost than the promise allows, or nothing ever was: whoever has most goes on.
//!
//! With one confirmation nobody is asked: n − k + 1 would be all of them.
//!
//! Caveats: if more than n − k members are gone at once, the others wait for one of them, be it without its state: a replica cannot know by itself that it
//! has missed nothing. And where k members serve and agree, they ask nobody else; if 2k ≤ n, they may together have missed what k others confirmed. One
//! that has missed how the others joined knows of nothing that was confirmed, and says so: with one that comes back with nothing it may be k, and they go on, if those who know better are not
//! heard meanwhile.

use super::marks::Agreement;
use super::message::Confirmed;
use super::mutation::Mutation;
use super::{Active, Effect, Event, Fence};
use crate::id::{Index, ReplicaId};
use crate::time::Time;

/// What a replica says that it has, and up to where it knows it to be confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Word {
    /// Of its history; `None`: it has nothing, or nothing that was ever confirmed.
    pub(super) origin: Option<u64>,
    pub(super) confirmed: Confirmed,
}

/// Whether enough have said that this history may be passed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leave {
    Given,
    /// Too few have spoken.
    Open,
    /// Somebody knows more.
    Behind,
}

/// How many have spoken.
#[derive(Debug, Default)]
struct Tally {
    with: usize,
    without: usize,
}

/// What waits for somebody's word.
#[derive(Debug, Default)]
pub(super) struct Asking {
    /// A mark was published for those who announced themselves up to here.
    upto: Index,
    /// Somebody waits for a state, and too few have spoken.
    pub(super) open: bool,
    /// What was told of it.
    told: Vec<ReplicaId>,
}

impl Active {
    /// What this replica says of itself.
    pub(super) fn word(&self) -> Word {
        Word {
            origin: self.history.as_ref().and_then(super::History::origin),
            confirmed: self.confirmed,
        }
    }

    /// Whether everything is here that the other knows to be confirmed.
    pub(super) fn has_all_of(&self, other: &Word) -> bool {
        let own = self.word();
        match (own.origin, other.origin) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(own), Some(origin)) if own != origin => true,
            (Some(_), Some(_)) => {
                let chain = (self.history.as_ref())
                    .and_then(|history| history.chain_at(other.confirmed.at));
                // (What is confirmed is confirmed of one and the same history.)
                own.confirmed.at >= other.confirmed.at || chain == Some(other.confirmed.chain)
            }
        }
    }

    /// Somebody knows a part of this history to be confirmed.
    pub(super) fn learn_confirmed(&mut self, confirmed: Confirmed) {
        let Some(history) = &mut self.history else {
            return;
        };
        if confirmed.at > self.confirmed.at
            && history.chain_at(confirmed.at) == Some(confirmed.chain)
        {
            self.confirmed = confirmed;
            history.unconfirmed = false;
        }
    }

    fn count(&self, tally: &mut Tally, word: &Word) {
        // One of another history knows nothing of this one.
        if word.origin.is_some() && word.origin == self.word().origin {
            tally.with += 1;
        } else {
            tally.without += 1;
        }
    }

    fn suffices(&self, tally: &Tally) -> bool {
        let (n, k) = (self.group.members.len(), self.group.confirmations);
        tally.with > n - k || tally.without >= k
    }

    /// Whether the state may be given to this newcomer, which announced itself there.
    pub(super) fn may_give(&self, newcomer: ReplicaId, announced: Index) -> Leave {
        if self.group.confirmations == 1 || self.has(Mutation::GivenUnasked) {
            return Leave::Given;
        }
        let Some(history) = &self.history else {
            return Leave::Open;
        };
        let serving: Vec<_> = history.ring.serving().collect();
        let most = serving.len() >= self.group.confirmations;
        if !most && let Some(leave) = self.leave_of_those_apart() {
            return leave;
        }
        for own in self.marks.current(history.ring.decisions) {
            let compared = self.marks.compare(&own, self.me, serving.iter().copied());
            if own.at <= announced || compared != Agreement::Yes {
                continue;
            }
            let mut tally = Tally::default();
            for _ in &serving {
                self.count(&mut tally, &self.word());
            }
            let mut heard = false;
            for (member, life, at) in history.ring.joining().filter(|(.., at)| *at < own.at) {
                let said = self.marks.said(own.mark, member);
                let Some(said) = said.filter(|said| said.life == life && !said.serving) else {
                    continue;
                };
                if !most && !self.has_all_of(&said.word) {
                    return Leave::Behind;
                }
                heard |= member == newcomer && at == announced;
                self.count(&mut tally, &said.word);
            }
            if heard && (most || self.suffices(&tally)) {
                return Leave::Given;
            }
        }
        Leave::Open
    }

    /// What those say who serve, and of whom this history does not know that: it may be this replica that has missed something, their joining too. Their
    /// silence about the newcomers is no word that there is nothing. `None`: nothing that is missing here.
    fn leave_of_those_apart(&self) -> Option<Leave> {
        let history = self.history.as_ref()?;
        let apart = self.peers.iter().filter_map(|(replica, peer)| {
            let (life, word) = peer.serves_with(self.awake, self.group.timing)?;
            (!history.ring.serves(*replica, life)).then_some(word)
        });
        let mut leave = None;
        for word in apart {
            let rivals = history.origin().is_some() && history.origin() != word.origin;
            let Confirmed { at, chain } = word.confirmed;
            if word.origin.is_none() || rivals || history.chain_at(at) == Some(chain) {
                continue;
            }
            if at <= history.at {
                return Some(Leave::Behind);
            }
            // It may be on its way.
            leave = Some(Leave::Open);
        }
        leave
    }

    /// Whether this replica, which serves nobody, may begin a history with what it has.
    pub(super) fn may_begin(&mut self, now: Time, out: &mut Vec<Effect>) -> bool {
        if self.group.confirmations == 1 {
            return true;
        }
        let mut tally = Tally::default();
        let own = self.word();
        self.count(&mut tally, &own);
        let mut best = true;
        let mut missing = Vec::new();
        for member in &self.group.members {
            let word = self
                .peers
                .get(member)
                .and_then(|peer| peer.word_at(now, self.group.timing));
            let Some(word) = word else {
                missing.extend((*member != self.me).then_some(*member));
                continue;
            };
            // Of two histories that began separately, the one of which more is confirmed.
            let rivals = word.origin.is_some() && own.origin.is_some() && word.origin != own.origin;
            let rank = |word: &Word, member| (word.confirmed.at, std::cmp::Reverse(member));
            best &=
                self.has_all_of(&word) && !(rivals && rank(&word, *member) > rank(&own, self.me));
            self.count(&mut tally, &word);
        }
        let enough = self.suffices(&tally);
        if enough {
            missing.clear();
        }
        self.tell_of_waiting(missing, out);
        enough && best
    }

    /// Newcomers wait, and too few have said what they have: marks make them speak.
    pub(super) fn ask_for_words(
        &mut self,
        now: Time,
        open: &[(ReplicaId, Index)],
        out: &mut Vec<Effect>,
    ) {
        self.asking.open = !open.is_empty();
        let Some(last) = open.iter().map(|(_, announced)| *announced).max() else {
            self.asking.told.clear();
            return;
        };
        if last > self.asking.upto {
            self.asking.upto = last;
            self.publish_mark(now, out);
            return;
        }
        let Some(history) = &self.history else {
            return;
        };
        let heard = |member: ReplicaId| {
            let peer = self.peers.get(&member);
            peer.is_some_and(|peer| !peer.is_late(now, self.group.timing))
        };
        let missing = (history.ring.members().iter().copied())
            .filter(|member| *member != self.me && !heard(*member))
            .collect();
        self.tell_of_waiting(missing, out);
    }

    fn tell_of_waiting(&mut self, missing: Vec<ReplicaId>, out: &mut Vec<Effect>) {
        if !missing.is_empty() && missing != self.asking.told {
            let missing = missing.clone();
            out.push(Effect::Event(Event::AwaitsWord { missing }));
        }
        self.asking.told = missing;
    }

    /// Somebody who joins knows something to be confirmed that is missing here.
    pub(super) fn step_aside(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.healing.differs = true;
        self.fence(now, Fence::Behind, out);
    }
}
