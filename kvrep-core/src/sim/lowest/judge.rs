//! What was promised, held against every answer and every silence, by what each replica was told.

use super::cell::{Cell, Promise};
use super::world::World;
use crate::id::ReplicaId;
use crate::time::Time;

impl World {
    /// Writes down that a sign of life reached a replica.
    pub(super) fn note_heard(&mut self, (from, life): (usize, u32), to: usize) {
        let period = self.ticks.period;
        let node = &mut self.nodes[to];
        let local = node.clock.shows(self.now);
        let woke = node.seen.woke;
        let heard = &mut node.seen.heard[from];
        // Nothing is believed that waited during a sleep, and at the latest a period later everything is.
        if life >= heard.life_surely && woke.is_none_or(|woke| local > woke) {
            heard.perhaps = Some(local);
            heard.life_perhaps = heard.life_perhaps.max(life);
        }
        if life >= heard.life_perhaps && woke.is_none_or(|woke| local >= woke + period) {
            heard.surely = Some(local);
            heard.life_surely = heard.life_surely.max(life);
        }
    }

    /// A replica slept: what it had heard before is of no use.
    pub(super) fn note_woke(&mut self, n: usize, local: Time) {
        self.nodes[n].seen.woke = Some(local);
        self.nodes[n].seen.speaks_since = None;
        for heard in &mut self.nodes[n].seen.heard {
            (heard.surely, heard.perhaps) = (None, None);
        }
    }

    /// This replica answers.
    pub(super) fn judge_answer(&mut self, n: usize, request: u64) {
        let period = self.ticks.period;
        let node = &self.nodes[n];
        let (me, life, seen) = (node.id, node.life, &node.seen);
        let local = node.clock.shows(self.now);
        let listened = |since: Time| local - since >= period * 2;
        let broken = if !listened(seen.started) {
            Some("a replica listens for two periods before it answers")
        } else if seen.woke.is_some_and(|woke| !listened(woke)) {
            Some("a replica that slept listens for two periods before it answers")
        } else if local - seen.ticked > period * 2 {
            Some("who has not ticked for two periods answers nothing")
        } else if seen.speaks_since.is_none() {
            Some("who answers has said that it lives")
        } else {
            None
        };
        if let Some(rule) = broken {
            return self.fail(rule, format!("{me} answers request {request}"));
        }
        let counted = period * self.counted_for;
        let heard = seen.heard[..n].iter().position(|heard| {
            let surely = heard.surely;
            surely.is_some_and(|heard| local - heard <= counted)
        });
        let over = heard.or_else(|| (0..n).find(|lower| self.must_have_been_heard(*lower, n)));
        if let Some(lower) = over {
            let lower = self.nodes[lower].id;
            let detail = format!("{me} answers request {request}, and {lower} lives");
            return self.fail("nobody answers over one that lives", detail);
        }
        let one = self.cell.promise() == Promise::OneAnswer;
        let (speaks_since, delay_max) = (seen.speaks_since, self.delay_max);
        let asked = self.requests.entry(request).or_default();
        asked.met_a_returner |= speaks_since
            .is_some_and(|since| asked.at <= since + delay_max && since <= asked.at + delay_max);
        let answered = asked.answers.clone();
        asked.answers.push((n, life));
        if answered.contains(&(n, life)) {
            self.fail("a life answers a request once", format!("{me}, {request}"));
        } else if one && !answered.is_empty() && !asked.met_a_returner {
            let detail = format!("request {request}: {me}, and {answered:?} (from 0, and life)");
            self.fail("a request is answered once", detail);
        }
    }

    /// Where nothing is lost: whether `lower` has said for two periods that it lives, over a link without a fault.
    fn must_have_been_heard(&self, lower: usize, n: usize) -> bool {
        match self.cell {
            Cell::Crashes | Cell::Pauses | Cell::Partitions => {}
            Cell::Loss | Cell::All => return false,
        }
        let seen = &self.nodes[n].seen;
        // What was asked while it was stopped, for not so long that it could know.
        if seen.resumed == Some(self.nodes[n].clock.shows(self.now)) {
            return false;
        }
        let clear = self.clear_since[lower * self.nodes.len() + n];
        let lower = &self.nodes[lower].seen;
        let speaks = lower.runs_since.zip(lower.speaks_since);
        let speaks = speaks.map(|(runs, speaks)| runs.max(speaks));
        let since = clear.zip(speaks).map(|(clear, speaks)| clear.max(speaks));
        since.is_some_and(|since| self.now - since >= self.ticks.period * 2)
    }

    /// This replica does not answer, and names this one.
    pub(super) fn judge_silence(&mut self, n: usize, request: u64, expected: Option<ReplicaId>) {
        let given_up_after = self.ticks.period * (self.counted_for + 1);
        let node = &self.nodes[n];
        let (me, seen) = (node.id, &node.seen);
        let local = node.clock.shows(self.now);
        let may_live = |of: usize| {
            let perhaps = seen.heard[of].perhaps;
            perhaps.is_some_and(|heard| local - heard < given_up_after)
        };
        if let Some(expected) = expected {
            let at = self.nodes.iter().position(|node| node.id == expected);
            if at.is_none_or(|at| at >= n || !may_live(at)) {
                let detail = format!("{me} expects {expected} to answer request {request}");
                return self.fail("who is expected is lower and lives", detail);
            }
        }
        if expected.is_none() {
            let asked = self.requests.get(&request).map(|asked| asked.at);
            let speaks = seen.speaks_since.zip(asked);
            if speaks.is_some_and(|(since, asked)| since <= asked) {
                let detail = format!("others rely on {me}, and it does not answer {request}");
                return self.fail("who says that it lives answers", detail);
            }
        }
        // Two periods, and until the next tick.
        let long_enough = |since: Time| local - since >= self.ticks.period * 3;
        let runs = long_enough(seen.started) && seen.resumed.is_none_or(long_enough);
        if runs && !(0..n).any(may_live) {
            let detail = format!("{me} has heard nobody lower, and does not answer {request}");
            return self.fail("somebody takes over", detail);
        }
        let lowest = self.nodes.iter().find(|node| node.is_running());
        let lowest = lowest.map(|node| node.id);
        if self.is_quiet(request) && expected != lowest {
            let detail = format!("{me} expects {expected:?} to answer request {request}");
            self.fail("in the end all expect the lowest", detail);
        }
    }

    fn is_quiet(&self, request: u64) -> bool {
        let asked = self.requests.get(&request);
        let since = self.quiet_since;
        asked.is_some_and(|asked| since.is_some_and(|since| asked.at >= since))
    }

    pub(super) fn judge_the_end(&mut self) {
        let lowest = self.nodes.iter().position(|node| node.is_running());
        let expected: Vec<_> = lowest
            .map(|n| (n, self.nodes[n].life))
            .into_iter()
            .collect();
        let wrong = self.requests.iter().find(|(request, asked)| {
            let arrived = asked.at + self.delay_max <= self.now;
            self.is_quiet(**request) && arrived && asked.answers != expected
        });
        if let Some((request, asked)) = wrong {
            let detail = format!(
                "request {request}: {:?} instead of {expected:?} (from 0, and life)",
                asked.answers
            );
            self.fail("in the end the lowest answers, alone", detail);
        }
    }
}
