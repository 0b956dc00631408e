//! The end of a run: everything heals, then all serve the same and every publication is answered exactly once.

use super::super::ledger::{CommandId, Ledger};
use super::super::workload::Ending;
use super::cell::{Confirmed, Faults, Order, Promise};
use super::happening::Happening;
use super::log::Log;
use super::world::World;
use crate::id::Index;
use bytes::Bytes;
use std::time::Duration;

impl World {
    pub(super) fn heal(&mut self) {
        self.say("heals".into());
        self.healed = true;
        self.weather.lossy = false;
        self.broker.lies_one_in = 0;
        if let Some(log) = &mut self.log {
            log.heal();
        }
        for n in 0..self.nodes.len() {
            // What was dropped for a stopped one is noticed only if it is stopped for long: it goes on when it was to.
            if !self.cell.drops() && self.log.is_none() {
                self.resume(n);
            }
            let after = Duration::from_millis(10 + 10 * n as u64);
            self.schedule(after, Happening::Start { node: n });
        }
        let now = self.now;
        for client in &mut self.clients {
            client.be_patient(now);
        }
        self.schedule(LOOK_EVERY, Happening::Look);
    }

    pub(super) fn look(&mut self) {
        match (self.unfinished(), self.quiet_since) {
            (None, None) => {
                self.say("quiet".into());
                self.quiet_since = Some(self.now);
                self.unrest_before = self.unrest();
                for client in 0..self.clients.len() {
                    let mut wishes = Vec::new();
                    self.clients[client].begin_quiet(8, &mut wishes);
                    self.grant(client, wishes);
                }
                self.schedule(LOOK_EVERY, Happening::Look);
            }
            // What comes twice comes soon.
            (None, Some(since)) if self.now - since >= Duration::from_secs(3) => {
                self.over = true;
                self.judge();
            }
            (Some(why), _) if self.now - self.heal_at >= self.converges_within() => {
                let statuses: Vec<_> = (self.nodes.iter())
                    .map(|node| format!("{:?}", node.active.as_ref().map(|active| active.status())))
                    .collect();
                let log = self.log.as_ref().map(|log| log.statuses());
                let detail = format!(
                    "{:?} after the faults: {why}\n{}\n{}",
                    self.converges_within(),
                    statuses.join("\n"),
                    log.unwrap_or_default()
                );
                self.fail("all serve and agree", detail);
            }
            (Some(_), _) | (None, Some(_)) => self.schedule(LOOK_EVERY, Happening::Look),
        }
    }

    /// How often a member has missed something or was taken for dead, which a log never excludes: a node of it is given a snapshot, or a writer waits while
    /// others are served.
    fn unrest(&self) -> u64 {
        match self.cell.order {
            Order::Broker => 0,
            Order::Log => self.gaps + self.stats.fenced,
        }
    }

    fn converges_within(&self) -> Duration {
        match self.cell.order {
            Order::Broker => CONVERGES_WITHIN,
            Order::Log => CONVERGES_WITHIN * 2,
        }
    }

    fn unfinished(&self) -> Option<String> {
        if let Some(client) = self.clients.iter().find(|client| !client.is_done()) {
            return Some(client.describe());
        }
        let mut first = None;
        for node in &self.nodes {
            let Some(active) = &node.active else {
                return Some(format!("{} is down", node.id));
            };
            let status = active.status();
            if !status.serving || status.holding {
                return Some(format!("{} does not serve", node.id));
            }
            if status.owed > 0 {
                return Some(format!("{} owes answers", node.id));
            }
            let has = (status.at, status.chain);
            if *first.get_or_insert(has) != has {
                return Some(format!("{} is elsewhere", node.id));
            }
        }
        None
    }

    fn judge(&mut self) {
        let digests: Vec<_> = (self.nodes.iter())
            .filter_map(|node| node.active.as_ref())
            .map(|active| active.machine().full_digest())
            .collect();
        if digests.windows(2).any(|two| two[0] != two[1]) {
            self.fail("equal positions, equal states", format!("{digests:x?}"));
            return;
        }
        for client in 0..self.clients.len() {
            let wrong = self.clients[client].not_answered_once();
            if !wrong.is_empty() && self.unrest() == self.unrest_before {
                let detail = format!("client {client}: publications {wrong:?}");
                self.fail("in quiet times each publication is answered once", detail);
                return;
            }
        }
        // A decision may choose a history that lacks what nobody was told of; and where too few are up to confirm, requests expire.
        let few = self.cell.confirmed == Confirmed::ByMost && self.expired > 0;
        // (And what stood in a log may be what all that served have missed.)
        if self.cell.is_whole() && self.stats().decisions == 0 && !few && self.gaps == 0 {
            // (Before somebody served there was no history to be in.)
            let since = self.opened.unwrap_or(self.heal_at);
            for client in 0..self.clients.len() {
                let unanswered = self.clients[client].unanswered(since);
                if !unanswered.is_empty() {
                    let detail = format!("client {client}: {unanswered:?}");
                    self.fail("what reaches the stream is answered", detail);
                    return;
                }
            }
        }
        let Some(active) = self.nodes.iter().find_map(|node| node.active.as_ref()) else {
            return;
        };
        let ask = |query: &[u8]| {
            let query = Ledger::wrap_query(query);
            active
                .machine()
                .query(&query)
                .unwrap_or_else(|_| Bytes::new())
        };
        let page = active
            .machine()
            .query(&Ledger::ASK)
            .expect("the ledger answers");
        let page = Ledger::page(&page).expect("the ledger's own answer");
        let mut executed: Vec<(Index, CommandId)> = Vec::new();
        for (client, numbers) in &page {
            for (number, at) in numbers.iter().enumerate().filter(|(_, at)| **at > 0) {
                let number = u32::try_from(number).unwrap_or(u32::MAX);
                let id = CommandId {
                    client: *client,
                    number,
                };
                executed.push((Index(*at), id));
            }
        }
        executed.sort_unstable_by_key(|(at, id)| (*at, *id));
        let mut lost: Vec<_> = (self.acknowledged.iter())
            .filter(|id| !executed.iter().any(|(_, done)| done == *id))
            .copied()
            .collect();
        lost.sort_unstable();
        lost.dedup();
        // One whose entries stick at a node of the log that has stopped is away, too: then two are at once, and one word is not enough.
        let two_away = self.log.is_some()
            && self.cell.confirmed == Confirmed::ByOne
            && self.cell.faults == Faults::SlowSubscriber
            && self.gaps > 0
            && self.accused;
        if self.cell.promise() == Promise::Everything && !two_away {
            if !lost.is_empty() {
                self.fail("what is acknowledged is there", format!("{lost:?}"));
                return;
            }
            let ending = Ending {
                executed: &executed,
                ask: &ask,
            };
            if let Err(why) = self.workload.finish(&ending) {
                self.fail("clients saw one history", why);
            }
        } else if !self.cell.crashes()
            && lost.len() as u64 > self.reported_lost
            && !self.log.as_ref().is_some_and(Log::reports_losses)
        {
            let detail = format!("{} reported, lost: {lost:?}", self.reported_lost);
            self.fail("what is lost is reported", detail);
        }
    }
}

/// How long after the faults the group may take until all serve.
const CONVERGES_WITHIN: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(50);
