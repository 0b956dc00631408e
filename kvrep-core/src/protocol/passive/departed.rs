//! Those who were removed, and do not know it: one that was stopped meanwhile may take itself for a member still, and serve.
//!
//! Without a witness whoever reigns tells the latest of them now and then. One that hears it stays outside, whatever it has agreed on with itself since, and reports what it
//! took alone: it compares its own log with the [`Course`] of the other one.
//!
//! Caveat: it is told at the address that the transport knows. Where both sides have removed somebody meanwhile, the group has fallen into two.

use super::local::Local;
use super::message::{Course, Message};
use super::primary::Primary;
use super::{Part, Passive};
use crate::id::{Configuration, ReplicaId};
use crate::protocol::{Action, Event, Outbox};
use crate::time::Time;

impl Local {
    /// Whether `from`, who reigns in this configuration, belongs to what became of the group after this replica was removed, whatever this replica has agreed on with
    /// itself since: removals are counted, and here are more of them than it knows of. (Where it has removed others meanwhile, the group has fallen into two.)
    pub(super) fn is_outlived_by(&self, from: ReplicaId, shown: &Configuration) -> bool {
        self.is_alone()
            && from == shown.term.replica
            && shown.departed.latest.contains(&self.me)
            && !shown.members.contains_key(&self.me)
            && (self.hard.configuration.as_ref()).is_some_and(|known| {
                known.origin == shown.origin && known.departed.count < shown.departed.count
            })
    }
}

impl Primary {
    /// `Alone`: now and then, those who were removed last. One that was stopped at the time may take itself for a member still, and serve; and no message of
    /// anybody whom it knows would tell it better, once those are dead.
    pub(super) fn tell_departed(&mut self, local: &Local, now: Time, out: &mut Outbox) {
        let departed = &self.configuration.departed.latest;
        if !local.is_alone() || departed.is_empty() || now < self.departed_at {
            return;
        }
        self.departed_at = now + local.group.timing.suspect_after;
        for id in departed {
            self.tell_removed(local, *id, out);
        }
    }

    pub(super) fn tell_removed(&self, local: &Local, id: ReplicaId, out: &mut Outbox) {
        let message = Message::Members {
            configuration: (*self.configuration).clone(),
            course: local.log.course(),
        };
        local.send_to_any_life(id, &message, out);
    }
}

impl Passive {
    /// It hears that it was removed, from one whose log came about so: what it took for committed since, the group does not have.
    pub(super) fn report_what_was_taken_alone(&self, course: &Course, out: &mut Outbox) {
        if course.reigns.is_empty() || !self.local.may_lose() {
            return; // only the log of one that reigns tells
        }
        let (log, commit) = (&self.local.log, self.local.commit);
        let (from, writes) = match (log.parts_from(course), &self.role) {
            (Some(from), _) => (from, log.writes(from, commit)),
            (None, Part::Primary(primary)) => (primary.first, None),
            (None, Part::Seeking(_) | Part::Candidate(_) | Part::Backup(_)) => return,
        };
        if from <= commit && writes != Some(0) {
            out.push(Action::Event(Event::AcknowledgedWritesLost {
                from,
                commit,
                writes,
            }));
        }
    }
}
