//! Calls of replicas, and what they have done by them.

use super::happening::{Happening, Publisher};
use super::log::Log;
use super::world::{Answerer, Node, World};
use crate::protocol::active::{Active, Effect, End, Event, Item, Message, Standing};
use crate::time::{Time, Timestamp};
use crate::transport::Destination;
use bytes::Bytes;

impl World {
    pub(super) fn drive(
        &mut self,
        n: usize,
        call: impl FnOnce(&mut Active, Time, Timestamp, &mut Vec<Effect>),
    ) {
        let (now, wall) = (self.now, self.wall());
        let Some(active) = &mut self.nodes[n].active else {
            return;
        };
        let mut out = Vec::new();
        call(active, now, wall, &mut out);
        active.check_invariants();
        for effect in out {
            self.carry_out(n, effect);
        }
        self.watch(n);
        let Some(active) = &self.nodes[n].active else {
            return;
        };
        let at = active.next_deadline().max(now);
        let node = &mut self.nodes[n];
        if node.ticks_at != at || node.ticks_at <= now {
            node.ticks_at = at;
            node.tick += 1;
            let (life, number) = (node.life, node.tick);
            self.schedule_at(
                at,
                Happening::Tick {
                    node: n,
                    life,
                    number,
                },
            );
        }
    }

    fn carry_out(&mut self, n: usize, effect: Effect) {
        let life = self.nodes[n].life;
        match effect {
            Effect::Publish(published) => {
                if matches!(published.item, Item::Failed { .. }) {
                    self.check_accusation(n);
                }
                if self.trace.is_watched() {
                    self.say_of(n, format!("publishes {:?}", published.item));
                }
                if let Some(log) = &mut self.log {
                    log.publish(n, &published);
                    return;
                }
                let bytes = published.encode(self.name);
                let at = self.broker.arrival(self.now, n);
                let publisher = Publisher::Node { node: n, life };
                self.schedule_at(at, Happening::Arrive { publisher, bytes });
            }
            Effect::Broadcast(message) if self.log.is_some() => {
                if let Some(log) = &mut self.log {
                    log.send(n, Destination::Group, &message);
                }
            }
            Effect::Send { to, message } if self.log.is_some() => {
                if let Some(log) = &mut self.log {
                    log.send(n, Destination::One(to), &message);
                }
            }
            Effect::Broadcast(message) => {
                for to in (0..self.nodes.len()).filter(|to| *to != n) {
                    self.send(to, message.clone());
                }
            }
            Effect::Send { to, message } => self.send(to.0 as usize, message),
            Effect::Answer {
                number,
                reply_to,
                outcome,
                ..
            } => {
                self.check_answered(n, &reply_to);
                if let Some(log) = &mut self.log {
                    log.answer(n, number, &reply_to, &outcome);
                    return;
                }
                let after = self.broker.delay();
                let outcome = Box::new(outcome);
                self.schedule(
                    after,
                    Happening::Answer {
                        node: n,
                        life,
                        number,
                        reply_to,
                        outcome,
                    },
                );
            }
            Effect::SetAside { .. } => {}
            Effect::End(why) => self.on_end(n, why),
            Effect::Reconnect => {
                self.say_of(n, "connects anew".into());
                // (A log has no connection that could be another one.)
                if self.log.is_none() {
                    self.lose_connection(n);
                }
            }
            Effect::Event(event) => {
                self.say_of(n, format!("{event:?}"));
                match event {
                    Event::Fenced { .. } => self.stats.fenced += 1,
                    Event::Decided { .. } => self.stats.decisions += 1,
                    Event::HistoryLost { acknowledged, .. } => {
                        self.stats.losses += u64::from(acknowledged > 0);
                        self.reported_lost += acknowledged;
                    }
                    Event::Listening { .. }
                    | Event::ClockBehind { .. }
                    | Event::Superseded { .. }
                    | Event::LastStateGone { .. }
                    | Event::Serving { .. }
                    | Event::Holding { .. }
                    | Event::Agreed { .. }
                    | Event::Joined(_)
                    | Event::AwaitsWord { .. }
                    | Event::StateNotRead { .. }
                    | Event::Began { .. } => {}
                    Event::Failed(member) => {
                        let of = self.nodes.iter().find(|node| node.id == member);
                        self.accused |= of.is_some_and(Node::runs);
                    }
                    Event::Expired(requests) => self.expired += requests,
                }
            }
        }
    }

    /// A life is over by itself: only where another process has its number.
    fn on_end(&mut self, n: usize, why: End) {
        self.say_of(n, format!("ends: {why:?}"));
        self.fail(
            "who is alone under its number goes on",
            format!("n{n}: {why:?}"),
        );
    }

    /// One to whom nothing has come for long knows of nobody's silence but its own.
    fn check_accusation(&mut self, n: usize) {
        let since = self.nodes[n].deaf_since;
        let long = self.group.timing.suspect_after + self.group.timing.heartbeat_every;
        if since.is_some_and(|since| self.now - since > long) {
            let detail = format!("n{n} has heard nothing since {since:?}");
            self.fail("who hears nothing accuses nobody", detail);
        }
    }

    /// Two answer the same only if one of them takes the other for failed.
    fn check_answered(&mut self, n: usize, reply_to: &Bytes) {
        let Some(active) = self.nodes[n]
            .active
            .as_ref()
            .filter(|_| self.cell.is_whole())
        else {
            return;
        };
        let repeats = |log: &Log| log.may_repeat(reply_to);
        if self.log.as_ref().is_some_and(repeats) {
            return;
        }
        let (id, status) = (self.nodes[n].id, active.status());
        let alive: Vec<_> = (status.ring.iter())
            .filter_map(|(member, standing)| match standing {
                Standing::Serving { life, .. } | Standing::Joining { life, .. } => {
                    Some((*member, *life))
                }
                Standing::Absent | Standing::Failed { .. } => None,
            })
            .collect();
        let me = (id, status.life);
        let by = self.answered_by.entry(reply_to.clone()).or_default();
        let both_alive = |(first, knew): &&Answerer| alive.contains(first) && knew.contains(&me);
        let first = by.iter().find(both_alive).map(|(first, _)| *first);
        by.push((me, alive));
        if let Some((first, _)) = first {
            self.fail(
                "one answers",
                format!("{id} answers what {first} has answered, and neither has failed"),
            );
        }
    }

    fn send(&mut self, to: usize, message: Message) {
        let lossy = self.weather.lossy && !self.healed;
        if to >= self.nodes.len() || (lossy && self.rng.below(100) < 15) {
            return;
        }
        let life = self.nodes[to].life;
        let after = self.broker.delay() + self.weather.delay();
        let message = Box::new(message);
        self.schedule(
            after,
            Happening::Message {
                node: to,
                life,
                message,
            },
        );
    }

    /// Looks at what a call has changed.
    fn watch(&mut self, n: usize) {
        let Some(active) = &self.nodes[n].active else {
            return;
        };
        if let Some(id) = self.nodes[n].window.double() {
            self.fail(
                "a command is carried out once",
                format!("n{n} carried {id:?} out twice"),
            );
            return;
        }
        let status = active.status();
        if status.serving {
            self.opened.get_or_insert(self.now);
        }
        let whole = self.cell.is_whole() && !self.cell.drops();
        if whole
            && self.gaps == 0
            && status.serving
            && let Some(at) = status.at
        {
            let known = *self.chains.entry(at).or_insert(status.chain);
            if known != status.chain {
                let detail = format!("n{n} at {at}: {:x}, another: {known:x}", status.chain);
                self.fail("who serves has one history", detail);
            }
        }
    }
}
