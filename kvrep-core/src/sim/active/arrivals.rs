//! What reaches the broker, and what reaches a client.

use super::super::ledger::Ledger;
use super::broker::Passage;
use super::cell::Promise;
use super::client::client_of;
use super::happening::{Happening, Publisher};
use super::world::World;
use crate::client_wire::Outcome;
use crate::protocol::active::{Item, Published, Standing};
use bytes::Bytes;

impl World {
    /// The broker drops this for a stopped replica. If it is the only one that serves, nobody will know that a request was made.
    pub(super) fn drop_for(&mut self, node: usize, bytes: &[u8]) {
        // (Whoever was declared dead and does not know it yet does not count.)
        let ring = self.nodes[node].active.as_ref().map(|of| of.status().ring);
        let ring = ring.unwrap_or_default();
        let serving = ring
            .iter()
            .filter(|(_, of)| matches!(of, Standing::Serving { .. }));
        let alone = serving.eq(ring.iter().filter(|(id, _)| *id == self.nodes[node].id));
        if alone
            && let Item::Request(request) = Published::decode(self.name, bytes).item
            && let Some(client) = self.clients.get_mut(client_of(&request.reply_to))
        {
            client.excuse(&request.reply_to);
        }
    }

    pub(super) fn on_arrive(&mut self, publisher: Publisher, bytes: &Bytes) {
        if let Publisher::Node { node, life } = publisher {
            // What a dying process had written may have left it, or not.
            if self.nodes[node].life != life || self.nodes[node].active.is_none() {
                let lost = self.rng.one_in(2);
                if lost {
                    return;
                }
            }
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].active.is_none() {
                continue;
            }
            let (life, epoch) = (self.nodes[node].life, self.nodes[node].epoch);
            let deliver = || Happening::Deliver {
                node,
                life,
                epoch,
                bytes: bytes.clone(),
            };
            match self.broker.passage(self.now, node) {
                Passage::Lost => self.say(format!("the broker loses something for n{node}")),
                Passage::Once(at) => self.schedule_at(at, deliver()),
                Passage::Twice(at, again) => {
                    self.say(format!("the broker delivers something twice to n{node}"));
                    self.schedule_at(at, deliver());
                    self.schedule_at(again, deliver());
                }
            }
        }
    }

    pub(super) fn on_answer(&mut self, reply_to: &[u8], outcome: Outcome) {
        let client = client_of(reply_to);
        if client >= self.clients.len() {
            return;
        }
        if let Outcome::Done { response, .. } = &outcome
            && let Some((id, _)) = Ledger::unwrap_answer(response)
            && id.client as usize == client
        {
            self.acknowledged.push(id);
        }
        let mut wishes = Vec::new();
        let Self {
            clients,
            workload,
            now,
            ..
        } = self;
        let judged =
            clients[client].on_answer(*now, reply_to, outcome, workload.as_mut(), &mut wishes);
        if let Err(why) = judged
            && self.cell.promise() == Promise::Everything
        {
            self.fail("answers are right", why);
        }
        self.grant(client, wishes);
    }
}
