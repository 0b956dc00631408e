//! The end of a run: heal everything, then the group must serve, converge, and have kept its promises.

use super::cell::{Medium, Promise};
use super::disk::Death;
use super::ledger::{CommandId, Ledger};
use super::policy::TakeoverKind;
use super::queue::Happening;
use super::workload::Ending;
use super::world::World;
use crate::client_wire::Op;
use crate::config::{Read, Token};
use crate::engine::Engine;
use crate::id::{Index, LogPoint, MemberKind, Term};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long after the faults the group may take to serve everybody and to converge.
const CONVERGES_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl World {
    /// The faults are over.
    pub(super) fn heal(&mut self) {
        self.say("heals");
        self.healed = true;
        self.end_faults();
        for node in 0..self.nodes.len() {
            self.resume(node);
        }
        // Half of the runs end with a night without power: what was promised must be on the disks.
        if self.cell.medium == Medium::Wal && self.plan.menu & 1 == 1 {
            for node in 0..self.nodes.len() {
                self.kill(node, Death::PowerLost);
            }
        }
        self.start_all();
        self.queue.push(self.now + LOOK_EVERY, Happening::Look);
    }

    /// Whoever is dead starts, and clients give nothing up any more.
    pub(super) fn start_all(&mut self) {
        for node in 0..self.nodes.len() {
            if !self.nodes[node].is_up() && !self.nodes[node].absent {
                self.nodes[node].starting = true;
                let after = Duration::from_millis(10 + 10 * node as u64);
                self.queue.push(self.now + after, Happening::Start { node });
            }
        }
        for client in &mut self.clients {
            client.be_patient();
        }
    }

    /// Has the group converged?
    pub(super) fn look(&mut self) {
        match self.unfinished() {
            None => {
                self.over = true;
                self.judge();
            }
            Some(why) if self.now >= self.heal_at + CONVERGES_WITHIN => {
                let statuses = self.statuses();
                let register = &self.register;
                let detail = format!(
                    "{CONVERGES_WITHIN:?} after the faults: {why}\n{statuses}register: {register:?}"
                );
                self.fail("the group serves and converges", detail);
            }
            Some(_) => {
                self.queue.push(self.now + LOOK_EVERY, Happening::Look);
                self.ask_for_a_primary();
            }
        }
    }

    /// Where nobody takes over unasked, somebody must ask, also when every client is done.
    fn ask_for_a_primary(&mut self) {
        // (While somebody serves, more questions would only take the room of a client's.)
        if self.cell.policy.takeover != TakeoverKind::OnClientRequest || self.server().is_some() {
            return;
        }
        let nobody = 0; // the number of an attempt that no client has made: its answer is nobody's
        let query = Bytes::from_static(&Ledger::ASK);
        let read = Read::Linearizable;
        for n in 0..self.plan.members {
            if self.nodes[n].is_up() {
                let query = query.clone();
                self.take_in(n, vec![(0, nobody, Op::Query { read, query })]);
            }
        }
    }

    /// What is still to come, if anything.
    fn unfinished(&self) -> Option<String> {
        if let Some(n) = self
            .nodes
            .iter()
            .position(|node| !node.is_up() && !node.absent)
        {
            return Some(format!("{} is down", self.nodes[n].id));
        }
        if let Some(n) = self.clients.iter().position(|client| !client.is_done()) {
            return Some(format!("client {n} waits: {}", self.clients[n].describe()));
        }
        let Some(primary) = self.server().map(Engine::status) else {
            return Some("nobody serves".into());
        };
        let Some(configuration) = &primary.configuration else {
            return Some("nobody serves in a configuration".into());
        };
        if self.newest.as_ref() != Some(configuration) {
            return Some("the primary has not heard yet how the last change ended".into());
        }
        for node in &self.nodes[..self.plan.members] {
            // Who was removed, or could not be let in, is outside.
            let (Some(engine), Some(kind)) = (&node.engine, configuration.members.get(&node.id))
            else {
                continue;
            };
            let status = engine.status();
            let counts = configuration.has(node.id, node.store());
            if *kind == MemberKind::Full && !counts {
                return Some(format!("{} is not in the in-sync set", node.id));
            }
            if status.last != primary.last || status.applied != primary.last.index {
                return Some(format!("{} has not caught up", node.id));
            }
        }
        None
    }

    fn judge(&mut self) {
        if let Err((rule, detail)) = self.verdict() {
            self.fail(rule, detail);
        }
    }

    fn verdict(&mut self) -> Result<(), (&'static str, String)> {
        self.one_history()?;
        let log = self.final_log();
        let mut executed: Vec<(Index, CommandId)> = Vec::new();
        for (client, numbers) in &log {
            let ids = numbers.iter().zip(0..).filter(|(at, _)| **at > 0);
            executed.extend(ids.map(|(at, number)| {
                let client = *client;
                (Index(*at), CommandId { client, number })
            }));
        }
        executed.sort_unstable();
        self.nothing_lost(&log)?;
        if self.cell.loses() {
            return Ok(());
        }
        let members = self.nodes[..self.plan.members].iter();
        let server = members
            .filter_map(|node| node.engine.as_ref())
            .find(|engine| engine.status().serving);
        let machine = server.expect("somebody serves").machine();
        let ending = Ending {
            executed: &executed,
            ask: &|query| {
                let answer = machine.query(&Ledger::wrap_query(query));
                answer.unwrap_or_else(|_| Bytes::new())
            },
        };
        self.workload
            .finish(&ending)
            .map_err(|why| ("what the clients saw makes sense", why))
    }

    /// Every replica ends with the same log and the same state.
    fn one_history(&self) -> Result<(), (&'static str, String)> {
        let ends: Vec<(LogPoint, u64)> = (0..self.plan.members)
            .filter(|n| self.belongs(*n))
            .filter_map(|n| self.nodes[n].engine.as_ref())
            .map(|engine| (engine.applied(), engine.machine().full_digest()))
            .collect();
        match ends.iter().find(|end| **end != ends[0]) {
            None => Ok(()),
            Some(other) => Err((
                "equal digests in the end",
                format!("{:?} and {other:?}", ends[0]),
            )),
        }
    }

    /// Every acknowledged command is in the final history, where it was said to be or before; or its loss was reported,
    /// where that is what is promised.
    fn nothing_lost(&self, log: &BTreeMap<u32, Vec<u64>>) -> Result<(), (&'static str, String)> {
        let (mut lost, mut kept) = (Vec::new(), Vec::new());
        for (id, token) in &self.acknowledged {
            let at = log
                .get(&id.client)
                .and_then(|numbers| numbers.get(id.number as usize))
                .copied()
                .unwrap_or(0);
            let covers = |(from, last): &(Index, Index)| (*from..=*last).contains(&token.index);
            let reported = || self.reported_lost.iter().any(covers);
            match self.cell.promise() {
                Promise::Everything | Promise::Sessions if at == 0 || at > token.index.0 => {
                    return Err((
                        "what was acknowledged is there",
                        format!("{id:?} was acknowledged at {token:?}; in the end it is at {at}"),
                    ));
                }
                Promise::DivergenceReported | Promise::BoundedLoss if at == 0 && !reported() => {
                    return Err((
                        "lost writes are reported",
                        format!("{id:?} was acknowledged at {token:?} and is gone without a word"),
                    ));
                }
                Promise::BoundedLoss if at == 0 || at > token.index.0 => lost.push(*token),
                Promise::BoundedLoss if self.ends_with(*token) => kept.push(*token),
                Promise::BoundedLoss
                | Promise::Everything
                | Promise::Sessions
                | Promise::DivergenceReported => {}
            }
        }
        self.within_the_window(&lost, &kept)
    }

    /// Whether the very entry is in the final log. (A command that was sent twice may be there in another place.)
    fn ends_with(&self, token: Token) -> bool {
        let shadow = self.nodes[0].disk.shadow();
        let there = shadow.at(token.index);
        there.is_some_and(|point| point.term == token.term)
    }

    /// What takeovers have lost is, for each of them, the newest that had been acknowledged, and not more than the window has
    /// room for.
    fn within_the_window(
        &self,
        lost: &[Token],
        kept: &[Token],
    ) -> Result<(), (&'static str, String)> {
        const RULE: &str = "a takeover loses at most the window";
        let window = self.plan.group.limits.uncommitted_entries_max;
        let mut by_reign: BTreeMap<Term, usize> = BTreeMap::new();
        for token in lost {
            if let Some(newer) = kept
                .iter()
                .find(|k| k.term == token.term && k.index > token.index)
            {
                return Err((RULE, format!("{token:?} is lost and {newer:?} is not")));
            }
            let culprit = self
                .reigns
                .iter()
                .filter(|(term, first)| *term > token.term && *first <= token.index)
                .min();
            let Some((term, _)) = culprit else {
                return Err((RULE, format!("{token:?} is lost, and nobody took over")));
            };
            let count = by_reign.entry(*term).or_default();
            *count += 1;
            if *count > window {
                let text = format!("more than {window} writes are lost to the primary of {term}");
                return Err((RULE, text));
            }
        }
        Ok(())
    }
}
