//! Doubt, agreement and dispute: what a replica does about the order that it is given.
//!
//! One that cannot be sure that it has everything *holds* its answers and publishes a mark; when all who serve have the same there, it goes
//! on. If they differ, one decision in the stream says which history counts. It is void if it is about a mark from before the last
//! decision, or lists nobody who serves; who is not listed has failed, and what it says to have answered since the last agreement
//! is answered again.

use super::item::{Decision, Item, Stamp};
use super::marks::{Agreement, Said};
use super::message::{Claim, Confirmed};
use super::mutation::Mutation;
use super::ring::Verdict;
use super::{Active, Doubt, Effect, Event, Fence};
use crate::id::{Index, ReplicaId};
use crate::time::Time;
use std::time::Duration;

#[derive(Debug, Default)]
pub(super) struct Healing {
    hold: Option<Hold>,
    /// The history that is here is known to be another one.
    pub(super) differs: bool,
    /// The genesis on which the history stands, if this replica wrote it.
    pub(super) genesis: Option<Stamp>,
    /// Items delivered since the last mark.
    pub(super) items: u64,
    last_mark: Time,
    mark_published: Option<Time>,
    decision_published: Option<Time>,
    /// Its own marks from this publication on are of after the state was put in place.
    pub(super) verified_by: u64,
    disputed_since: Option<Time>,
    /// Somebody who serves has said that this replica does not.
    pub(super) said_failed: Option<Time>,
    /// Behind this position something may be missing here: whoever announced itself up to there keeps more than this replica has delivered since.
    pub(super) missed_after: Option<Index>,
}

#[derive(Debug)]
struct Hold {
    /// Its own marks from this publication on are of after the doubt.
    from_seq: u64,
}

impl Healing {
    pub(super) fn holds(&self) -> bool {
        self.hold.is_some()
    }

    /// Whether it is a while since one was published.
    pub(super) fn mark_is_overdue(&self, now: Time, after: Duration) -> bool {
        self.mark_published
            .is_none_or(|published| now - published >= after)
    }

    /// A history begins with this replica alone.
    pub(super) fn began(&mut self) {
        *self = Self::default();
    }

    /// Another history is here.
    pub(super) fn replaced(&mut self) {
        *self = Self::default();
    }
}

impl Active {
    /// The stream may have lost something for this replica, here. A state that is given to one who announced itself before would not say how much of what it
    /// keeps is in that state: it announces itself again.
    pub(super) fn missed_something(&mut self) {
        self.healing.missed_after = self.history.as_ref().map(|history| history.at);
    }

    /// Whether a state that is given from here fits what one keeps that announced itself there.
    pub(super) fn counts_since(&self, announced: Index) -> bool {
        let missed = self.healing.missed_after;
        missed.is_none_or(|missed| announced > missed) || self.has(Mutation::GivenOverGap)
    }

    /// From now on answers wait until a mark agrees; so does one that is about to serve.
    pub(super) fn hold(&mut self, now: Time, why: Doubt, out: &mut Vec<Effect>) {
        if !self.counts_here() {
            return;
        }
        let from_seq = self.seq + 1;
        if self.healing.hold.is_none() {
            out.push(Effect::Event(Event::Holding { why }));
        }
        self.healing.hold = Some(Hold { from_seq });
        self.publish_mark(now, out);
    }

    pub(super) fn publish_mark(&mut self, now: Time, out: &mut Vec<Effect>) {
        let Some(history) = &self.history else {
            return;
        };
        let item = Item::Mark {
            decisions: history.ring.decisions,
            clock: self.clock,
        };
        self.healing.mark_published = Some(now);
        self.publish(item, out);
    }

    /// A mark was delivered.
    pub(super) fn on_mark(
        &mut self,
        now: Time,
        mark: Stamp,
        decisions: u64,
        out: &mut Vec<Effect>,
    ) {
        let Some(history) = &self.history else {
            return;
        };
        // (Where as many serve here as confirm an answer, one that does not serve here knows of decisions about another history.)
        let enough = self.group.confirmations > 1
            && history.ring.serving().count() >= self.group.confirmations;
        let serves_here = (history.ring.serving())
            .any(|(member, life)| (member, life.incarnation) == (mark.replica, mark.incarnation));
        if decisions > history.ring.decisions && self.counts_here() && (serves_here || !enough) {
            self.missed_a_decision(now, out);
            return;
        }
        let claim = Claim {
            mark,
            at: history.at,
            chain: history.chain,
            digest: self.machine.digest(),
        };
        self.marks.delivered(claim, decisions);
        self.healing.items = 0;
        self.healing.last_mark = now;
        if self.is_serving() || self.group.confirmations > 1 {
            self.beat(out);
        }
        self.judge_all(now, out);
    }

    /// Whether the history that is here is meant to be the one that counts.
    fn counts_here(&self) -> bool {
        self.is_serving() || self.is_verifying()
    }

    /// Whether it has its state, and not yet found out whether it is the others'.
    pub(super) fn is_verifying(&self) -> bool {
        self.join.as_ref().is_some_and(|join| join.installed)
    }

    /// A mark was delivered to one that has no state: it came here, that is all.
    pub(super) fn on_mark_without_state(
        &mut self,
        mark: Stamp,
        decisions: u64,
        out: &mut Vec<Effect>,
    ) {
        let claim = Claim {
            mark,
            at: Index::ZERO,
            chain: 0,
            digest: None,
        };
        self.marks.delivered(claim, decisions);
        self.beat(out);
    }

    /// Compares what all have at the last marks.
    pub(super) fn judge_all(&mut self, now: Time, out: &mut Vec<Effect>) {
        let Some(history) = &self.history else {
            return;
        };
        if !self.counts_here() {
            return;
        }
        let serving: Vec<_> = history.ring.serving().collect();
        if serving.is_empty() {
            return;
        }
        let current = self.marks.current(history.ring.decisions);
        let (mut agreed, mut dispute) = (None, None);
        let joins = self.is_verifying();
        // One that joins has delivered an older mark perhaps before it lost something.
        let mut verified = false;
        for own in &current {
            match self.marks.compare(own, self.me, serving.iter().copied()) {
                Agreement::Yes => {
                    agreed.get_or_insert(*own);
                    let is_mine = own.mark.replica == self.me
                        && own.mark.incarnation == self.life.incarnation;
                    let releases = |hold: &Hold| is_mine && own.mark.seq >= hold.from_seq;
                    verified |= is_mine && own.mark.seq >= self.healing.verified_by;
                    if dispute.is_none() && self.healing.hold.as_ref().is_some_and(releases) {
                        self.healing.hold = None;
                        out.push(Effect::Event(Event::Agreed { at: own.at }));
                    }
                }
                Agreement::Open => {}
                Agreement::No { complete } => {
                    // The last mark about which everybody has spoken, or else the last one.
                    match dispute {
                        Some((_, true)) => {}
                        Some((_, false)) if !complete => {}
                        Some(_) | None => dispute = Some((*own, complete)),
                    }
                }
            }
        }
        if joins && self.has(Mutation::NotVerified) {
            self.ready_if_agreed(now, out);
            return;
        }
        if let Some((own, complete)) = dispute {
            self.on_dispute(now, &own, complete, out);
        } else if let Some(own) = agreed
            && (verified || !joins)
        {
            if serving.iter().any(|(member, _)| *member != self.me) {
                self.told.agreed(own.at);
            }
            self.on_agreement(now, own.at, out);
        }
    }

    fn on_agreement(&mut self, now: Time, at: Index, out: &mut Vec<Effect>) {
        self.healing.disputed_since = None;
        if let Some(history) = &mut self.history {
            history.agreed = history.agreed.max(at);
        }
        if self.join.is_some() {
            if !self.healing.holds() {
                self.ready_if_agreed(now, out);
            }
        } else {
            self.serve_newcomers(now, out);
            self.flush(out);
        }
    }

    fn on_dispute(&mut self, now: Time, own: &Claim, complete: bool, out: &mut Vec<Effect>) {
        if self.join.is_some() {
            // Somebody who serves has something else than this one: what it was given, or has delivered since, is not it.
            if complete {
                self.healing.differs = true;
                self.announce(now, out);
            }
            return;
        }
        let since = *self.healing.disputed_since.get_or_insert(now);
        if !self.healing.holds() {
            self.hold(now, Doubt::Differs, out);
        }
        if self.has(Mutation::DecidedAlone) {
            self.decide_alone(now, own, out);
            return;
        }
        if !complete {
            return;
        }
        let resend = self.group.timing.resend_every;
        let Some(history) = &self.history else {
            return;
        };
        let first = history.ring.serving().next().map(|(member, _)| member);
        let in_turn = first == Some(self.me) || now - since > 2 * resend;
        let published = self.healing.decision_published;
        let lately = published.is_some_and(|published| now - published < resend);
        if in_turn
            && !lately
            && let Some(decision) = self.proposed(own)
        {
            self.healing.decision_published = Some(now);
            self.publish(Item::Decision(decision), out);
        }
    }

    fn proposed(&self, own: &Claim) -> Option<Decision> {
        let ring = &self.history.as_ref()?.ring;
        let own = Said {
            life: self.life,
            claim: *own,
            holding: true,
            serving: true,
            word: self.word(),
            view: ring.view(),
        };
        let numbers = (self.group.members.len(), self.group.confirmations);
        (self.marks).propose((self.me, own), ring.serving(), ring.decisions, numbers)
    }

    /// The planted bug.
    fn decide_alone(&mut self, now: Time, own: &Claim, out: &mut Vec<Effect>) {
        let listed = |decision: Decision| decision.listed.contains(&(self.me, self.life));
        if !self.proposed(own).is_none_or(listed) {
            self.healing.differs = true;
            self.fence(now, Fence::Differs, out);
        }
    }

    /// A decision was delivered.
    pub(super) fn on_decision(&mut self, now: Time, decision: &Decision, out: &mut Vec<Effect>) {
        let (me, life, served) = (self.me, self.life, self.is_serving());
        let counted = self.counts_here();
        let believes = self.has(Mutation::UnlistedBelieved);
        let any_mark = self.has(Mutation::DecisionOnOldMark);
        let Some(history) = &mut self.history else {
            return;
        };
        let mut decision = decision.clone();
        if any_mark {
            (decision.known, decision.number) =
                (history.ring.decisions, history.ring.decisions + 1);
        }
        let unlisted = match history.ring.decide(&decision) {
            Verdict::Void => return,
            Verdict::Missed => {
                if counted {
                    self.healing.differs = true;
                    self.fence(now, Fence::DecisionMissed, out);
                }
                return;
            }
            Verdict::Counts(unlisted) => unlisted,
        };
        out.push(Effect::Event(Event::Decided {
            number: decision.number,
            listed: decision.listed.iter().map(|(member, _)| *member).collect(),
        }));
        let (at, agreed) = (history.at, history.agreed);
        let mut moved = Vec::new();
        for member in unlisted {
            self.transfers.remove(&member);
            if !believes {
                let super::History { debts, ring, .. } = history;
                moved.extend(debts.reopen(member, agreed, at, |slot| ring.owner(slot)));
            }
            if member != me {
                out.push(Effect::Event(Event::Failed(member)));
            }
        }
        moved.sort_unstable();
        self.healing.disputed_since = None;
        self.healing.decision_published = None;
        if served {
            let has_it = (self.marks.mine(decision.mark))
                .is_some_and(|own| (own.at, own.chain) == (decision.at, decision.chain));
            if !decision.listed.contains(&(me, life)) || !has_it {
                self.healing.differs = true;
                self.fence(now, Fence::NotChosen, out);
            }
        }
        self.take_mine(moved, out);
        self.after_change(now, out);
        if self.healing.holds() {
            self.hold(now, Doubt::Decided, out);
        }
    }

    /// Which history counts was decided without this replica.
    fn missed_a_decision(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.healing.differs = true;
        self.fence(now, Fence::DecisionMissed, out);
    }

    pub(super) fn heal_on_tick(&mut self, now: Time, out: &mut Vec<Effect>) {
        let timing = self.group.timing;
        let Some(history) = &self.history else {
            return;
        };
        if !self.counts_here() {
            return;
        }
        let serves = self.is_serving();
        let said_failed = self.healing.said_failed;
        if serves && said_failed.is_some_and(|said| now - said >= timing.resend_every) {
            self.healing.differs = true;
            self.fence(now, Fence::SaidNotToServe, out);
            return;
        }
        let overdue = self.healing.mark_is_overdue(now, timing.resend_every);
        let turns = if history.ring.serving().next().map(|(first, _)| first) == Some(self.me) {
            1
        } else {
            2
        };
        let paced = self.healing.items > 0
            && (now - self.healing.last_mark >= timing.mark_every * turns
                || self.healing.items >= timing.mark_items * u64::from(turns));
        let asked = self.asking.open;
        if overdue && (self.healing.holds() || self.is_verifying() || (serves && (paced || asked)))
        {
            self.publish_mark(now, out);
        }
        self.judge_all(now, out);
    }

    /// Up to where as many have this history as an answer needs, and are known to know.
    pub(super) fn settled(&mut self) -> Index {
        let (serves, needed) = (self.is_serving(), self.group.confirmations);
        let Some(history) = &self.history else {
            return Index::ZERO;
        };
        if needed == 1 {
            let (at, chain) = (history.at, history.chain);
            self.confirmed = Confirmed { at, chain };
            return at;
        }
        let serving: Vec<(ReplicaId, _)> = history.ring.serving().collect();
        let peers = || {
            let others = serving.iter().filter(|(member, _)| *member != self.me);
            others.filter_map(|(member, life)| {
                self.peers.get(member).filter(|peer| peer.life == *life)
            })
        };
        let have: Vec<_> = peers().map(|peer| peer.at).chain([history.at]).collect();
        let known = |own| peers().map(|peer| peer.confirmed).chain([own]).collect();
        let mut own = self.confirmed.at;
        let reached = nth_highest(have, needed);
        // One that does not serve confirms nothing: it may have announced itself, and what it said then must stay true.
        if serves
            && !self.healing.holds()
            && reached > own
            && let Some(chain) = history.chain_at(reached)
        {
            own = reached;
            let known = nth_highest(known(own), needed);
            self.learn_confirmed(Confirmed { at: own, chain });
            return known;
        }
        nth_highest(known(own), needed)
    }
}

/// The highest that `needed` of them have reached.
fn nth_highest(mut reached: Vec<Index>, needed: usize) -> Index {
    reached.sort_unstable_by(|a, b| b.cmp(a));
    reached.get(needed - 1).copied().unwrap_or(Index::ZERO)
}
