//! Requests: carried out where they stand in the stream, owed by their owner, answered when enough have them.

use super::debts::Owed;
use super::item::{Call, Request};
use super::{Active, Effect, Mutation, Responder};
use crate::client_wire::Outcome;
use crate::config::Token;
use crate::engine::outcome_of;
use crate::id::{Index, Term};
use crate::session::Applied;
use crate::state_machine::Malformed;
use crate::time::Time;

impl Active {
    pub(super) fn on_request(&mut self, now: Time, request: Request, out: &mut Vec<Effect>) {
        let slot = self.slot_of(&request);
        let Some(history) = &mut self.history else {
            return;
        };
        let debtor = history.ring.owner(slot);
        let owed = match &request.call {
            Call::Read(query) => Owed::Read(query.clone()),
            Call::Write(payload) => {
                let token = Token {
                    term: Term::ZERO,
                    index: history.at,
                };
                let applied = self.machine.apply(&history.entry(payload.clone()));
                let applied = applied.unwrap_or(Applied::Closed);
                Owed::Write(outcome_of(applied, token, &self.group.limits))
            }
        };
        let at = history.at;
        history.debts.owe(at, slot, request, owed, debtor, now);
        if debtor == Some(self.me) {
            self.owe(&[at], out);
        } else if let Some(debtor) = debtor {
            self.discharge(debtor);
        }
    }

    pub(super) fn slot_of(&self, request: &Request) -> usize {
        let Some(history) = &self.history else {
            return 0;
        };
        match self.group.responder {
            Responder::KeyHash => history.ring.slot_of(request.hash),
            Responder::LowestLive => 0,
            Responder::Asked => (request.asked)
                .and_then(|asked| history.ring.slot_of_member(asked))
                .unwrap_or_else(|| history.ring.slot_of(request.hash)),
        }
    }

    /// These requests are this replica's to answer.
    pub(super) fn owe(&mut self, positions: &[Index], out: &mut Vec<Effect>) {
        if !self.is_serving() {
            return;
        }
        let Some(history) = &self.history else {
            return;
        };
        for position in positions {
            let Some(logged) = history.debts.get(*position) else {
                continue;
            };
            let outcome = match &logged.owed {
                Owed::Write(outcome) => outcome.clone(),
                Owed::Read(query) => {
                    let token = Token {
                        term: Term::ZERO,
                        index: history.at,
                    };
                    let applied = match self.machine.query(query) {
                        Ok(response) => Applied::Response(response),
                        Err(Malformed(why)) => Applied::Malformed(why),
                    };
                    outcome_of(applied, token, &self.group.limits)
                }
            };
            let reply_to = logged.reply_to.clone();
            if matches!(
                (&logged.owed, &outcome),
                (Owed::Write(_), Outcome::Done { .. })
            ) {
                self.told.push(*position);
            }
            let request = (*position, logged.since);
            self.answers.push(request, history.at, reply_to, outcome);
        }
        self.flush(out);
    }

    pub(super) fn flush(&mut self, out: &mut Vec<Effect>) {
        if self.healing.holds() && !self.has(Mutation::AnswersNotHeld) {
            return;
        }
        let settled = self.settled();
        self.answers.flush(settled, out);
    }

    /// Of debts that moved, those that are this replica's.
    pub(super) fn take_mine(&mut self, mut moved: Vec<Index>, out: &mut Vec<Effect>) {
        let Some(history) = &self.history else {
            return;
        };
        let is_mine = |at: &Index| {
            let logged = history.debts.get(*at);
            logged.is_some_and(|logged| logged.debtor == Some(self.me))
        };
        moved.retain(is_mine);
        self.owe(&moved, out);
    }
}
