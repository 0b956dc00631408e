//! What clients want, and what they are told.

use super::client::Wish;
use super::invariants::Sight;
use super::queue::Happening;
use super::trace::Line;
use super::world::World;
use crate::client_wire::{Op, Outcome};
use crate::manage::Manage;

/// Who asks for changes; not one of the clients.
pub(super) const OPERATOR: u32 = u32::MAX;

impl World {
    /// The operator asks this node for something; once, whatever becomes of it.
    pub(super) fn manage(&mut self, node: usize, manage: Manage) {
        self.note(node, format!("is asked for {manage:?}"));
        let request = Happening::Request {
            client: OPERATOR,
            node,
            attempt: 0,
            op: Op::Manage(manage),
        };
        self.queue.push(self.now + self.network.delay(), request);
    }

    pub(super) fn on_reply(&mut self, client: u32, node: usize, attempt: u64, outcome: Outcome) {
        let text = || {
            let from = self.nodes[node].id;
            format!("#{attempt} ← {from} {}", brief(&outcome))
        };
        let line = Line::Client {
            client,
            text: text(),
        };
        self.trace.line(self.now, line);
        let Self {
            clients,
            workload,
            wishes,
            now,
            ..
        } = self;
        let answer =
            clients[client as usize].on_reply(*now, attempt, outcome, workload.as_mut(), wishes);
        match answer {
            Ok(None) => {}
            Ok(Some(answer)) => {
                self.stats.answered += 1;
                if let Some(command) = answer.command {
                    self.acknowledged.push((command, answer.token));
                }
                self.show(&Sight::Answered {
                    client: answer.client,
                    command: answer.command,
                    freshness: answer.freshness,
                    before: answer.before,
                    token: answer.token,
                });
            }
            Err(why) => self.fail("answers make sense", why),
        }
        self.grant(client);
    }

    /// Where a client's request goes: to nobody who has never run, and in the end to nobody who is outside.
    fn reachable(&self, node: usize) -> usize {
        let pointless = self.nodes[node].absent || (self.healed && !self.belongs(node));
        match self.primary() {
            Some(primary) if pointless => primary,
            Some(_) | None => node,
        }
    }

    /// Carries out what a client wants.
    pub(super) fn grant(&mut self, client: u32) {
        for wish in std::mem::take(&mut self.wishes) {
            match wish {
                Wish::Send { node, attempt, op } => {
                    let node = self.reachable(node);
                    let text = format!(
                        "#{attempt} → {} {}",
                        self.nodes[node].id,
                        self.clients[client as usize].describe()
                    );
                    self.trace.line(self.now, Line::Client { client, text });
                    if self.rng.one_in(200) && self.requests_get_lost {
                        continue;
                    }
                    let at = self.now + self.network.delay();
                    let request = Happening::Request {
                        client,
                        node,
                        attempt,
                        op,
                    };
                    self.queue.push(at, request);
                }
                Wish::Wake { after, timer, verb } => {
                    let wake = Happening::Client {
                        client,
                        timer,
                        verb,
                    };
                    self.queue.push(self.now + after, wake);
                }
            }
        }
    }

    pub(super) fn answer_later(
        &mut self,
        client: u32,
        node: usize,
        attempt: u64,
        outcome: Outcome,
    ) {
        if client == OPERATOR {
            self.note(node, format!("tells the operator {}", brief(&outcome)));
            return;
        }
        if self.rng.one_in(200) && self.requests_get_lost {
            return;
        }
        let at = self.now + self.network.delay();
        let reply = Happening::Reply {
            client,
            node,
            attempt,
            outcome: Box::new(outcome),
        };
        self.queue.push(at, reply);
    }
}

fn brief(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { token, .. } => format!("done at {}{}", token.term, token.index),
        Outcome::Opened { session, .. } => format!("opened {session}"),
        other @ (Outcome::Closed
        | Outcome::SessionExpired
        | Outcome::OutOfWindow
        | Outcome::Malformed(_)
        | Outcome::TooLarge { .. }
        | Outcome::ResponseTooLarge { .. }
        | Outcome::NotPrimary { .. }
        | Outcome::Busy
        | Outcome::Behind
        | Outcome::Unknown
        | Outcome::Status(_)
        | Outcome::Managed(_)
        | Outcome::Refused(_)) => format!("{other:?}"),
    }
}
