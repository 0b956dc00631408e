//! A primary asks the witness now and then whether it still knows what it has recorded.
//!
//! Writes do not need the witness, so one that has lost its register (started with an empty directory, or an old copy of it)
//! would not be noticed before a member fails or returns, which is when it is too late: nothing can be recorded any more, and nobody can take
//! over. So the question is asked all the time, and an operator hears of it while everything still works.
//!
//! Invariant: an answer is compared with what was known to be recorded *when it was asked for*, so a late one accuses
//! nobody.
//!
//! Caveat: nothing is repaired. Whether a register that is empty may be filled again cannot be known by one replica: another
//! one may reign by now, as the lost register would have said.

use super::local::Local;
use super::message::Message;
use super::primary::Primary;
use crate::id::{Configuration, Nonce, ReplicaId, Term, Version};
use crate::protocol::{Action, Event, Outbox};
use crate::time::Time;

/// What a primary knows of the witness's memory.
#[derive(Debug)]
pub(super) struct Register {
    pub(super) ask_at: Time,
    /// The last question, and what was recorded when it was asked.
    asked: Option<(Nonce, (Term, Version))>,
    lost: Option<String>,
}

impl Register {
    pub(super) fn begin(now: Time) -> Self {
        Self {
            ask_at: now,
            asked: None,
            lost: None,
        }
    }

    /// What an operator must know of it, if it has lost what it had.
    pub(super) fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }
}

impl Primary {
    /// Asks, when it is time to.
    pub(super) fn ask_register(&mut self, local: &mut Local, now: Time, out: &mut Outbox) {
        if local.is_alone() || now < self.register.ask_at {
            return;
        }
        self.register.ask_at = now + local.group.timing.suspect_after * ASKED_EVERY;
        let nonce = local.next_nonce();
        self.register.asked = Some((nonce, self.configuration.rank()));
        local.send_to_any_life(ReplicaId::WITNESS, &Message::ReadRegister { nonce }, out);
    }

    /// What it answered.
    pub(super) fn judge_register(
        &mut self,
        local: &mut Local,
        nonce: Nonce,
        register: Option<&Configuration>,
        out: &mut Outbox,
    ) {
        let Some((_, recorded)) = self.register.asked.filter(|(asked, _)| *asked == nonce) else {
            return;
        };
        if register.map(Configuration::rank) >= Some(recorded) {
            if self.register.lost.take().is_some() {
                local.waiting_for.clear();
            }
        } else if self.register.lost.is_none() {
            let found = match register {
                None => "its register is empty",
                Some(_) => "its register is an old one",
            };
            self.register.lost = Some(format!("{found}, {LOST}"));
            out.push(Action::Event(Event::RegisterLost));
        }
    }

    /// It does not know whether it still reigns: it asks at once.
    pub(super) fn doubt(&mut self, local: &Local, now: Time) {
        self.heartbeat_at = self.heartbeat_at.min(now);
        if !local.is_alone() {
            self.register.ask_at = now;
        }
        // That nothing went on while it slept is nobody's fault.
        self.blocked.restart(now);
    }
}

/// What is said of a witness that has forgotten, behind what was found.
const LOST: &str = "so THE WITNESS HAS LOST WHAT THIS GROUP RECORDED: it was started with another directory than before. Writes go on, but when a replica fails or \
     returns nothing can be recorded, and nobody can take over. Start it with the directory that it had; if that is lost, stop all replicas when it suits, start this one with force, \
     and then the others";
/// In times of `suspect_after`.
const ASKED_EVERY: u32 = 4;
