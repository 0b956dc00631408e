//! Two histories that are served side by side: one yields.
//!
//! The stream and a member die together; the member comes back first, hears nobody and begins from nothing; the others reach the stream later, and what came
//! meanwhile it does not have for them. Nobody objected to that beginning, and no decision can be about both histories: each names the other's servers
//! nowhere, or in a life that is over, and who waits for the agreement of such a life waits for ever.
//!
//! **Of two histories the one that has delivered more counts.** All deliver one stream from then on, so the difference stays, and at a mark that both
//! have delivered both sides compare the same two numbers ([`Claim`]): exactly one side has less. Whoever has it steps aside
//! ([`Fence::LongerHistoryServed`]) and joins the others; what it loses is reported, and its state set aside. With more than one confirmation the history
//! that so many serve counts: the other one can answer nothing. If neither has so many, the longer one counts: whoever steps aside keeps what it has until enough
//! have been asked for what they know to be confirmed (`word`), and is one of those. Else each might wait for ever, for the other one serves and is not asked.
//!
//! Caveat: more is not newer. A history begun later that has delivered more, while those of the older one were away, takes its place.

use super::item::Life;
use super::message::{Claim, Heartbeat};
use super::mutation::Mutation;
use super::ring::Standing;
use super::{Active, Effect, Fence};
use crate::id::ReplicaId;
use crate::time::Time;
use std::cmp::Ordering;

impl Active {
    /// Whether this one says that it serves in another ring than the one here, and nothing here says that it is about to learn that it does not.
    pub(super) fn serves_apart(&self, heard: &Heartbeat) -> bool {
        let Some(history) = self.history.as_ref().filter(|_| heard.serving) else {
            return false;
        };
        match history.ring.standing(heard.replica) {
            // It announced itself where both histories heard it, and serves in the other one, where nobody waits for this replica's agreement.
            Standing::Serving { life, .. } if life == heard.life => {
                self.healing.holds() && !heard.holding && heard.view != history.ring.view()
            }
            Standing::Serving { life, .. } => life < heard.life,
            Standing::Failed { life } => life < heard.life,
            Standing::Absent | Standing::Joining { .. } => true,
        }
    }

    /// What two histories side by side make this replica do.
    pub(super) fn rivals_on_tick(&mut self, now: Time, out: &mut Vec<Effect>) {
        if !self.is_serving() {
            return;
        }
        let resend = self.group.timing.resend_every;
        match self.rival_at_a_mark(now) {
            Rival::Longer if !self.has(Mutation::RivalIgnored) => {
                self.healing.differs = true;
                self.fence(now, Fence::LongerHistoryServed, out);
            }
            Rival::Uncompared if self.healing.mark_is_overdue(now, resend) => {
                self.publish_mark(now, out);
            }
            Rival::Longer | Rival::Uncompared | Rival::None => {}
        }
    }

    /// Whether those who have served apart from this one for long have another history, and which one counts.
    fn rival_at_a_mark(&self, now: Time) -> Rival {
        let timing = self.group.timing;
        let apart: Vec<(ReplicaId, Life)> = (self.peers.iter())
            .filter(|(_, peer)| !peer.is_late(now, timing))
            .filter(|(_, peer)| {
                (peer.apart_since).is_some_and(|since| now - since > timing.suspect_after)
            })
            .map(|(replica, peer)| (*replica, peer.life))
            .collect();
        let needed = self.group.confirmations;
        let unanswered = self.history.as_ref().is_some_and(|history| {
            history.origin().is_none() || history.ring.serving().count() < needed
        });
        let mut found = if apart.is_empty() {
            Rival::None
        } else {
            Rival::Uncompared
        };
        for own in self.marks.all_mine() {
            let theirs: Vec<_> = (apart.iter())
                .filter_map(|(replica, life)| {
                    let said = self.marks.said(own.mark, *replica)?;
                    (said.life == *life && said.serving).then_some(said.claim)
                })
                .collect();
            let Some(best) = theirs.iter().max_by(|a, b| by_length(a, b)) else {
                continue;
            };
            found = Rival::None;
            let alike = theirs.iter().filter(|claim| *claim == best).count();
            let counts = match needed {
                1 => by_length(best, own) == Ordering::Greater,
                needed if alike >= needed => by_length(best, own) != Ordering::Equal,
                // Neither can answer anything, and what was confirmed of the shorter one is kept until enough have been asked.
                _ => unanswered && by_length(best, own) == Ordering::Greater,
            };
            if counts {
                return Rival::Longer;
            }
        }
        found
    }
}

/// What is known of another history.
enum Rival {
    None,
    /// No mark was delivered to both.
    Uncompared,
    /// It counts more than the own one.
    Longer,
}

/// The same wherever two claims about one mark are compared.
fn by_length(one: &Claim, other: &Claim) -> Ordering {
    (one.at, one.chain).cmp(&(other.at, other.chain))
}
