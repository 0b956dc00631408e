//! Noticing that this replica did not run for a while: its process was stopped, its machine was suspended, its thread was
//! not given the processor.
//!
//! Whoever wakes finds all its timers long overdue, and what its peers have said meanwhile still unread. If the timers came
//! first it would take everybody for dead who was only not listened to; with [`Authority::Alone`](crate::Authority::Alone) a
//! primary would then drop all its backups and acknowledge what waits at it, though another one may reign. So a replica that
//! sleeps past a time at which it wanted to be called, by more than half of `suspect_after`, **listens first**: those on whom
//! it counted when it fell asleep get a fresh `suspect_after`, a round of questions begins anew, and a primary asks whether
//! it still is one: by its heartbeat, which is due, and with a witness by reading the register.
//!
//! Invariants:
//! * it only ever delays a suspicion: nobody who was not counted on before is counted on after it;
//! * a peer that is seen to be gone ([`Hint::Gone`](crate::transport::Hint::Gone)) gets nothing;
//! * it delays no suspicion for ever: after so many fresh periods in which a peer was not heard at all it gets no other, so that a
//!   replica that is always short of time does notice that somebody is dead.
//!
//! Caveat: with `Authority::Alone` a primary that cannot be told by anybody within that period (it was stopped, *and* is cut
//! off) goes on alone as ever.

#[cfg(feature = "sim")]
use super::mutation::Mutation;
use super::{Part, Passive};
use crate::id::ReplicaId;
use crate::protocol::{Outbox, Protocol as _};
use crate::time::Time;
use std::collections::BTreeMap;

/// When this replica ran last, and what it has given to whom for having slept.
#[derive(Debug, Default)]
pub(super) struct Awake {
    ran_at: Time,
    /// Fresh periods since the peer was last heard.
    fresh: BTreeMap<ReplicaId, u32>,
}

impl Awake {
    pub(super) fn begin(&mut self, now: Time) {
        self.ran_at = now;
    }

    pub(super) fn heard(&mut self, peer: ReplicaId) {
        self.fresh.remove(&peer);
    }
}

impl Passive {
    /// To be called before anything else whenever something happens.
    pub(super) fn notice_sleep(&mut self, now: Time, out: &mut Outbox) {
        let before = self.local.awake.ran_at;
        self.local.awake.ran_at = before.max(now);
        let tolerated = self.local.group.timing.suspect_after / 2;
        if now - before <= tolerated {
            return;
        }
        // It may also be that nothing was to be done.
        let Some(wanted) = self.next_deadline(before) else {
            return;
        };
        if now - wanted.max(before) > tolerated {
            self.listen_first(before, now, out);
        }
    }

    fn listen_first(&mut self, before: Time, now: Time, out: &mut Outbox) {
        #[cfg(feature = "sim")]
        if self.local.mutated(Mutation::SleepNotNoticed) {
            return;
        }
        for peer in self.local.others() {
            if !self.local.detector.verdict(before, peer).is_live() {
                continue;
            }
            let given = self.local.awake.fresh.entry(peer).or_default();
            if *given < FRESH_PERIODS_MAX {
                *given += 1;
                self.local.detector.watch(now, peer);
            }
        }
        match &mut self.role {
            Part::Primary(primary) => primary.doubt(&self.local, now),
            Part::Seeking(seeking) if !self.local.stopped && now >= seeking.deadline => {
                // The answers to it are among what is still unread, and may be as old as it is.
                self.ask_around(now, out);
            }
            Part::Seeking(_) | Part::Candidate(_) | Part::Backup(_) => {}
        }
    }
}

/// Fresh periods that a peer gets without having been heard between them.
const FRESH_PERIODS_MAX: u32 = 3;
