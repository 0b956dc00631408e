//! Planned handover: the primary makes room for a member of its choice, and no request fails.
//!
//! 1. The primary takes no more writes and linearizable reads (whoever comes is sent on to the successor; nothing was
//!    appended, so a client's retry is invisible). What it has taken goes on.
//! 2. When everything is committed, the successor has it durably, every read is answered and no change of the
//!    configuration is pending, it sends `TakeOver` and steps down. For a while it only answers: it neither asks around
//!    nor competes.
//! 3. The successor seeks like anybody whose primary is gone, through the same authority, but wins among equals.
//!
//! Invariants: `TakeOver` gives nobody a right: the successor becomes primary as in any takeover, or somebody else does.
//! So a crash at any point is an ordinary one. After `TakeOver` the former primary serves nothing.
//!
//! Caveat: when the successor dies between 2 and 3, the group is without a primary until its death is noticed or the
//! former primary's rest is over, whichever comes first.

use super::local::Local;
use super::message::Message;
#[cfg(feature = "sim")]
use super::mutation::Mutation;
use super::primary::Primary;
use super::succession::Rest;
use super::{Part, Passive};
use crate::id::{LogPoint, ReplicaId, Term, Ticket};
use crate::manage::Managed;
use crate::protocol::{Action, Event, Outbox};
use crate::time::Time;

/// A handover that the primary prepares.
#[derive(Debug)]
pub(super) struct Handover {
    pub(super) to: ReplicaId,
    asked_by: Ticket,
    then: Afterwards,
    /// Until then everything must be committed.
    pub(super) deadline: Time,
}

/// What a former primary remembers of its handover until somebody reigns.
#[derive(Debug)]
pub(super) struct Yielded {
    pub(super) to: ReplicaId,
    asked_by: Ticket,
    then: Afterwards,
}

/// What a primary does after its handover.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Afterwards {
    Stay,
    /// It leaves the group; who asked for that is answered when it has left.
    Leave,
}

impl Primary {
    /// Begins to hand over, or says why not.
    pub(super) fn begin_handover(
        &mut self,
        local: &Local,
        now: Time,
        (ticket, then): (Ticket, Afterwards),
        to: Option<ReplicaId>,
        out: &mut Outbox,
    ) {
        let outcome = match (to.or_else(|| self.most_caught_up(local)), &self.handover) {
            (Some(to), _) if to == local.me => Managed::Done((*self.configuration).clone()),
            _ if !self.serving(local) => Managed::Busy,
            (_, Some(under_way)) => {
                Managed::Refused(format!("a handover to {} is under way", under_way.to))
            }
            _ if local.home().is_some() => {
                Managed::Refused("the primary of this group is fixed: nobody else may serve".into())
            }
            (None, None) => Managed::Refused(
                "no other replica is in the in-sync set; one must catch up first".into(),
            ),
            (Some(to), None) if !self.is_ready(local, to) => Managed::Refused(format!(
                "{to} is not a live member of the in-sync set {:?}; it must catch up first",
                self.configuration
            )),
            (Some(to), None) => {
                self.handover = Some(Handover {
                    to,
                    asked_by: ticket,
                    then,
                    deadline: now + local.group.timing.suspect_after,
                });
                out.push(Action::Event(Event::HandingOver { to }));
                return;
            }
        };
        out.push(Action::Managed { ticket, outcome });
    }

    /// Whether it could take over at all: live, counted, with the storage it was counted with.
    fn is_ready(&self, local: &Local, id: ReplicaId) -> bool {
        let store = self.configuration.in_sync.get(&id);
        local.is_live(id)
            && self.peers.get(&id).is_some_and(|peer| {
                Some(&peer.store) == store && peer.incarnation == local.life(id)
            })
    }

    fn most_caught_up(&self, local: &Local) -> Option<ReplicaId> {
        let others = self.configuration.in_sync.keys().copied();
        others
            .filter(|id| *id != local.me && self.is_ready(local, *id))
            .max_by_key(|id| (self.peers[id].durable, std::cmp::Reverse(*id)))
    }

    /// The successor, once nothing is left to be done here.
    fn may_yield(&self, local: &Local) -> Option<ReplicaId> {
        let to = self.handover.as_ref()?.to;
        let last = local.log.last().index;
        #[cfg(feature = "sim")]
        if local.mutated(Mutation::HandoverNotCommitted) {
            return Some(to);
        }
        let has_all = self
            .peers
            .get(&to)
            .is_some_and(|peer| peer.durable >= last && self.is_ready(local, to));
        let settled = local.commit == last && local.applied == last;
        (has_all && settled && self.changes.is_empty() && self.reads.is_empty()).then_some(to)
    }

    /// It came to nothing, and this primary reigns on (or somebody else does).
    pub(super) fn end_handover(&mut self, why: &str, out: &mut Outbox) {
        let Some(Handover { to, asked_by, .. }) = self.handover.take() else {
            return;
        };
        let why = format!("the handover to {to} failed: {why}");
        out.push(Action::Event(Event::HandoverFailed {
            to,
            why: why.clone(),
        }));
        out.push(Action::Managed {
            ticket: asked_by,
            outcome: Managed::Refused(why),
        });
    }
}

impl Passive {
    /// Steps down when everything is ready for the successor, or gives up when it takes too long.
    pub(super) fn pump_handover(&mut self, now: Time, out: &mut Outbox) {
        let Part::Primary(primary) = &mut self.role else {
            return;
        };
        let Some(deadline) = primary.handover.as_ref().map(|h| h.deadline) else {
            return;
        };
        if let Some(to) = primary.may_yield(&self.local) {
            let message = Message::TakeOver {
                term: primary.term,
                last: self.local.log.last(),
            };
            self.local.send(to, &message, out);
            self.local.yielded = primary.handover.take().map(|h| Yielded {
                to,
                asked_by: h.asked_by,
                then: h.then,
            });
            out.push(Action::Event(Event::HandedOver { to }));
            self.seek(now, Rest::AfterHandover, out);
        } else if now >= deadline {
            let to = primary.handover.as_ref().map(|h| h.to);
            let why = match to {
                Some(to) if !primary.is_ready(&self.local, to) => "it left the in-sync set",
                Some(_) | None => "not everything was committed in time",
            };
            primary.end_handover(why, out);
        }
    }

    /// The primary says: take over.
    pub(super) fn on_take_over(
        &mut self,
        now: Time,
        from: ReplicaId,
        (term, last): (Term, LogPoint),
        out: &mut Outbox,
    ) {
        let local = &mut self.local;
        let follows = matches!(&self.role, Part::Backup(b) if b.term == term && b.primary == from);
        let has_all = local.log.last() == last && local.durable.index() == last.index;
        if !follows || !has_all || local.restoring {
            // Nothing is lost: whoever is most advanced takes over when the former primary's rest is over.
            local.dropped += 1;
            return;
        }
        local.chosen = true;
        // Who steps down has given its lease up.
        local.granted_until = Time::ZERO;
        #[cfg(feature = "sim")]
        if local.mutated(Mutation::SuccessorAsksNobody)
            && let Some(mut configuration) = local.hard.configuration.clone()
        {
            configuration.term = local.hard.promised.next_for(local.me);
            configuration.version = configuration.version.next();
            local.hard.promised = configuration.term;
            self.reign(configuration, &std::collections::BTreeMap::new(), now, out);
            return;
        }
        self.seek(now, Rest::None, out);
    }

    /// Somebody reigns: a handover, of this replica or to it, has ended.
    pub(super) fn handover_ends(&mut self, primary: ReplicaId, out: &mut Outbox) {
        self.local.chosen = false;
        let Some(Yielded { to, asked_by, then }) = self.local.yielded.take() else {
            return;
        };
        if primary != self.local.me && then == Afterwards::Leave {
            self.local.leaving = Some(asked_by);
            return;
        }
        let outcome = match &self.local.hard.configuration {
            Some(configuration) if primary == to => Managed::Done(configuration.clone()),
            Some(_) | None => Managed::Refused(format!(
                "{primary} is primary now, for {to} did not take over in time"
            )),
        };
        out.push(Action::Managed {
            ticket: asked_by,
            outcome,
        });
    }
}
