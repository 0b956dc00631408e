//! Leases: linearizable reads without asking anybody (Gray, Cheriton: *Leases: An Efficient Fault-Tolerant Mechanism for
//! Distributed File Cache Consistency*, SOSP 1989; in a replicated log: Ongaro's dissertation, §6.4.1).
//!
//! Every append carries the newest round, and whoever takes an append grants: *for the length of a lease from now, on my
//! clock, I do not put anybody in this primary's place*. A primary whose round was answered by **every** required member holds
//! the lease from the moment at which it *began to send* that round, on its own clock, for a little less than the length: by
//! as much as the two clocks may differ over it, `length · (1 − d) / (1 + d)`. Heartbeats begin a round each, and so renew it.
//!
//! Why it is enough that a replica waits out **its own** grant before it promotes itself:
//!
//! * Only a member of the recorded set promotes itself. Recorded is what the primary has proposed: the set that it counts
//!   with, or a pending one; *required* are the members of both, at the time of the read. So whoever may promote itself has
//!   answered the round, and its grant began after the round was sent and ends, on any clock, after the lease.
//! * Who begins to promote itself has promised a higher term, so that it answers no later round of this primary.
//! * A member that a pending change adds is required from the proposal on, and one that is dropped until that is decided.
//! * A grant is not durable. A replica that restarted has forgotten what it granted, so it waits a whole length from its start.
//!   One that lost its storage is not a member.
//! * A primary that hands over answers no read after `TakeOver`, which voids the successor's grant; others wait theirs out.
//! * A forced start waits for nothing: it breaks this promise as it breaks the others.
//!
//! Invariants: rounds are remembered with the time at which they began, never with that of an answer; a lease that
//! cannot be shown to hold does not hold.
//!
//! Caveats: after a crash nobody takes over before the lease has run out. And the clocks must keep the bound. The driver's
//! (`std::time::Instant`; on Linux `CLOCK_MONOTONIC`) is never set, and goes on while a process is stopped (SIGSTOP) or starved.
//! It **stands still while its machine sleeps** (suspend to memory or disk), and may while a virtual machine is paused, saved
//! or moved: a primary that wakes up believes in its lease. Where machines do that, choose [`Confirm::Round`](crate::Confirm::Round).

use super::local::Local;
#[cfg(feature = "sim")]
use super::mutation::Mutation;
use super::primary::Primary;
use crate::id::Nonce;
use crate::time::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// When rounds began.
#[derive(Debug)]
pub(super) struct Leases {
    rounds: VecDeque<(Nonce, Time)>,
}

/// Rounds remembered. Forgetting old ones only shortens a lease.
const ROUNDS_MAX: usize = 256;

impl Leases {
    /// The first round of a term is number one.
    pub(super) fn begin(now: Time) -> Self {
        Self {
            rounds: [(Nonce(1), now)].into(),
        }
    }

    /// A round begins to be sent.
    pub(super) fn began(&mut self, round: Nonce, now: Time, length: Duration) {
        while let Some((_, at)) = self.rounds.front()
            && (*at + length <= now || self.rounds.len() >= ROUNDS_MAX)
        {
            self.rounds.pop_front();
        }
        self.rounds.push_back((round, now));
    }

    /// When the newest round up to `round` began.
    fn sent_at(&self, round: Nonce) -> Option<Time> {
        let known = |(number, _): &&(Nonce, Time)| *number <= round;
        self.rounds.iter().rev().find(known).map(|(_, at)| *at)
    }
}

impl Primary {
    /// Whether no other primary can have acknowledged anything by now.
    pub(super) fn holds_lease(&self, local: &Local, now: Time) -> bool {
        let Some((_, held)) = local.lease() else {
            return false;
        };
        #[cfg(feature = "sim")]
        if local.mutated(Mutation::LeaseFromAnswer) {
            return self.required(local).all(|(id, store)| {
                let peer = self.peers.get(&id).filter(|peer| peer.store == store);
                id == local.me || peer.is_some_and(|peer| now < peer.answered_at + held)
            });
        }
        let others = self.required(local);
        let mut answered: Vec<Nonce> = others
            .filter(|(id, _)| *id != local.me)
            .map(|(id, store)| {
                let peer = self.peers.get(&id).filter(|peer| peer.store == store);
                peer.map_or(Nonce(0), |peer| peer.round)
            })
            .collect();
        answered.sort_unstable();
        #[cfg(feature = "sim")]
        if local.mutated(Mutation::LeaseByAllButOne) && answered.len() > 1 {
            answered.remove(0);
        }
        let Some(round) = answered.first() else {
            return true; // it is the whole set
        };
        self.leases
            .sent_at(*round)
            .is_some_and(|sent| now < sent + held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Time {
        Time::ZERO + Duration::from_millis(n)
    }

    #[test]
    fn a_lease_counts_from_the_newest_round_that_was_answered_and_old_ones_are_forgotten() {
        let mut leases = Leases::begin(ms(0));
        let length = Duration::from_millis(100);
        leases.began(Nonce(2), ms(50), length);
        assert_eq!(leases.sent_at(Nonce(0)), None);
        assert_eq!(leases.sent_at(Nonce(1)), Some(ms(0)));
        assert_eq!(leases.sent_at(Nonce(2)), Some(ms(50)));
        leases.began(Nonce(3), ms(100), length);
        assert_eq!(leases.sent_at(Nonce(1)), None, "that lease is over");
        assert_eq!(leases.sent_at(Nonce(2)), Some(ms(50)));
    }

    #[test]
    fn the_rounds_remembered_are_bounded() {
        let mut leases = Leases::begin(ms(0));
        for n in 2..2_000 {
            leases.began(Nonce(n), ms(1), Duration::from_secs(1));
        }
        assert_eq!(leases.rounds.len(), ROUNDS_MAX);
        assert_eq!(leases.sent_at(Nonce(1)), None);
    }
}
