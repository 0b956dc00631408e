//! Two processes under one number: who starts listens first, and who has the state keeps it until another one does.
//!
//! A number is one replica's, so of two processes the later one counts. Started by mistake beside one that lives it would end that one, and if nobody else
//! has the state, the state with it. So:
//!
//! * **Who starts listens** for two heartbeats before it says anything. If another process lives under its number, it ends, and
//!   nobody has heard of it. One that was killed says nothing more, but its last words may still be on their way: only signs of life that came at least half a
//!   heartbeat after one another count.
//! * **Who learns of a later life** of its number (it was stopped while that one listened) answers nothing from that moment on and publishes
//!   nothing, for nobody would take it. It keeps following the stream. When a member that serves is heard with the same history, it ends. While none is heard at all, it gives its state to
//!   those who join: they begin from it, as any holder of a state does that nobody serves.
//! * If those who serve have another history, its own counts for nothing: it is set aside and reported.
//!
//! Caveats: what has no state says nothing where one confirmation is enough, and is not heard; nothing is lost with it. The later life begins a history of
//! its own if it [may](super::Create) and hears nobody for as long as that takes: the earlier one's is then set aside when it goes on.

use super::item::Life;
use super::message::Heartbeat;
use super::mutation::Mutation;
use super::word::Word;
use super::{Active, Effect, End, Event};
use crate::id::{Incarnation, Index, ReplicaId};
use crate::time::Time;
use std::collections::BTreeMap;

/// Where a life is between its start and its end.
#[derive(Debug)]
pub(super) enum Stage {
    /// It says nothing yet.
    Listening(Listening),
    /// It takes part.
    Living,
    /// A later life of its number was started.
    Superseded(Superseded),
    /// It is to end.
    Over,
}

#[derive(Debug)]
pub(super) struct Listening {
    until: Time,
    /// Another life of this number, and when it was heard first.
    heard: Option<(Incarnation, Time)>,
}

#[derive(Debug)]
pub(super) struct Superseded {
    /// Whether it served until then.
    served: bool,
    /// When one who serves was heard last, or this began.
    silent_since: Time,
    /// Where those who serve said that they are, if this one has not come there yet.
    ahead: BTreeMap<ReplicaId, (Index, u64)>,
    /// Since when those who serve have something else.
    differs_since: Option<Time>,
    /// A history began from nothing since.
    anew: bool,
    /// Starts of members that have all of the state from here: they go on with it by themselves.
    given: BTreeMap<ReplicaId, Incarnation>,
    /// What those say to have who do not serve.
    words: BTreeMap<ReplicaId, (Life, Index, Word)>,
}

impl Active {
    /// Begins to listen.
    pub(super) fn listen(&mut self, now: Time, out: &mut Vec<Effect>) {
        if self.has(Mutation::StartsUnheard) {
            self.stage = Stage::Living;
            self.announce(now, out);
            return;
        }
        let wait = self.group.timing.heartbeat_every * HEARTBEATS;
        self.stage = Stage::Listening(Listening {
            until: now + wait,
            heard: None,
        });
        out.push(Effect::Event(Event::Listening { wait }));
    }

    /// Nobody was heard: it takes part.
    pub(super) fn listen_on_tick(&mut self, now: Time, out: &mut Vec<Effect>) {
        if let Stage::Listening(listening) = &self.stage
            && now >= listening.until
        {
            self.stage = Stage::Living;
            self.announce(now, out);
        }
    }

    /// Something of another life of this number was heard, or delivered.
    pub(super) fn on_namesake(&mut self, now: Time, other: Incarnation, out: &mut Vec<Effect>) {
        let period = self.group.timing.heartbeat_every;
        if other == self.life.incarnation {
            return;
        }
        match &mut self.stage {
            Stage::Listening(listening) => match listening.heard {
                Some((known, at)) if known == other => {
                    if now - at >= period / 2 {
                        self.stage = Stage::Over;
                        out.push(Effect::End(End::AlreadyRunning));
                    }
                }
                Some(_) | None => {
                    listening.heard = Some((other, now));
                    listening.until = listening.until.max(now + period * HEARTBEATS);
                }
            },
            Stage::Living if other > self.life.incarnation => self.give_way(now, out),
            Stage::Living | Stage::Superseded(_) | Stage::Over => {}
        }
    }

    /// A later life of this number was started: from here on that one answers.
    fn give_way(&mut self, now: Time, out: &mut Vec<Effect>) {
        let served = self.is_serving();
        let keeps = !self.has(Mutation::EndsWithTheState);
        let Some(history) = self.history.as_mut().filter(|_| keeps) else {
            self.end_superseded(out);
            return;
        };
        if served {
            // What is answered is not to be answered again.
            let answered = self.answers.answered(history.at);
            history.debts.discharge(self.me, answered);
        }
        let at = history.at;
        self.answers.clear();
        self.transfers.clear();
        self.join = None;
        self.healing.began();
        self.stage = Stage::Superseded(Superseded {
            served,
            silent_since: now,
            ahead: BTreeMap::new(),
            differs_since: None,
            anew: false,
            given: BTreeMap::new(),
            words: BTreeMap::new(),
        });
        out.push(Effect::Event(Event::Superseded { at }));
    }

    /// Those who serve remember a later life of this number, which has failed: nothing of an earlier one counts with them. Who has no state yet goes on as a later
    /// one still. (A machine without a clock of its own knows no better time at its start.)
    pub(super) fn outlive(
        &mut self,
        now: Time,
        failed: &[(ReplicaId, Life)],
        out: &mut Vec<Effect>,
    ) {
        let own = self.life.incarnation;
        let mine = failed.iter().filter(|(replica, _)| *replica == self.me);
        let known = mine.map(|(_, life)| life.incarnation).max();
        let Some(known) = known.filter(|known| *known > own) else {
            return;
        };
        // Of two processes that are told the same, each becomes another life.
        let later = Incarnation(known.0.saturating_add(1 + own.0 % APART));
        let begins = matches!(self.stage, Stage::Listening(_) | Stage::Living);
        if self.history.is_some() || !begins || later <= known {
            return;
        }
        self.life = Life {
            incarnation: later,
            attempt: 0,
        };
        out.push(Effect::Event(Event::ClockBehind {
            by: known.0 - own.0,
        }));
        // What was published before does not count.
        self.echo.restart(now);
        if self.join.is_some() {
            self.announce(now, out);
        }
    }

    fn end_superseded(&mut self, out: &mut Vec<Effect>) {
        self.answers.clear();
        self.transfers.clear();
        self.join = None;
        self.stage = Stage::Over;
        out.push(Effect::End(End::Superseded));
    }

    /// This replica did not run, or did not hear, for a while: others may have spoken.
    pub(super) fn listen_anew(&mut self, now: Time) {
        let wait = self.group.timing.heartbeat_every * HEARTBEATS;
        match &mut self.stage {
            Stage::Listening(listening) => {
                *listening = Listening {
                    until: now + wait,
                    heard: None,
                };
            }
            Stage::Superseded(superseded) => superseded.silent_since = now,
            Stage::Living | Stage::Over => {}
        }
    }

    /// One whose number has a later life hears what the others have.
    pub(super) fn heard_by_superseded(
        &mut self,
        now: Time,
        heard: &Heartbeat,
        out: &mut Vec<Effect>,
    ) {
        let Stage::Superseded(superseded) = &mut self.stage else {
            return;
        };
        if heard.replica == self.me && heard.life.incarnation <= self.life.incarnation {
            return;
        }
        if heard.serving {
            superseded.silent_since = now;
            superseded.words.remove(&heard.replica);
            if !heard.holding {
                // The first of what it says stays until this one has come there: one that has missed something would never come where they are now.
                (superseded.ahead.entry(heard.replica)).or_insert((heard.at, heard.chain));
            }
        } else {
            let word = Word {
                origin: heard.origin,
                confirmed: heard.confirmed,
            };
            let said = (heard.life, heard.at, word);
            superseded.words.insert(heard.replica, said);
        }
        self.compare_with_serving(now, out);
    }

    /// If one who serves has what this one has, this life is over; if they have something else, what it has counts for nothing.
    pub(super) fn compare_with_serving(&mut self, now: Time, out: &mut Vec<Effect>) {
        let patience = self.group.timing.suspect_after * 2;
        let (Stage::Superseded(superseded), Some(history)) = (&mut self.stage, &self.history)
        else {
            return;
        };
        let (mut same, mut differs) = (false, false);
        superseded.ahead.retain(|_, (at, chain)| {
            if *at > history.at {
                return true;
            }
            let equal = history.chain_at(*at) == Some(*chain);
            same |= equal;
            differs |= !equal;
            false
        });
        if same {
            self.end_superseded(out);
        } else if differs {
            // (A single one of them may have something else for a moment, and be healed.)
            let since = *superseded.differs_since.get_or_insert(now);
            if now - since >= patience {
                let together = !superseded.anew;
                self.report_loss_to_unknown(together, out);
                self.end_superseded(out);
            }
        }
    }

    /// While nobody who serves is heard, those who join get the state that is here.
    pub(super) fn give_state_on(&mut self, now: Time, out: &mut Vec<Effect>) {
        let (Stage::Superseded(superseded), Some(history)) = (&self.stage, &self.history) else {
            return;
        };
        if now - superseded.silent_since < self.group.timing.suspect_after {
            self.transfers.clear();
            return;
        }
        let wanted: Vec<_> = (history.ring.joining())
            .filter(|(member, life, _)| {
                let under_way = self.transfers.get(member);
                under_way.is_none_or(|transfer| !transfer.is_of(*life))
            })
            .filter(|(.., announced)| self.counts_since(*announced))
            .filter(|(member, life, _)| superseded.given.get(member) != Some(&life.incarnation))
            .filter(|(member, life, _)| self.may_replace(superseded, *member, *life))
            .collect();
        for (member, life, _) in wanted {
            self.begin_transfer(now, member, life);
        }
        self.send_all_pieces(out);
    }

    /// A newcomer has all of the state.
    pub(super) fn is_given(&mut self, member: ReplicaId, life: Life) {
        if let Stage::Superseded(superseded) = &mut self.stage {
            superseded.given.insert(member, life.incarnation);
        }
    }

    /// A history begins, with what was given here or with something else.
    pub(super) fn begun_by_another(&mut self, (author, life): (ReplicaId, Life), from: Index) {
        let (Stage::Superseded(superseded), Some(history)) = (&mut self.stage, &mut self.history)
        else {
            return;
        };
        superseded.anew |= from == Index::ZERO;
        if history.ring.serving().next().is_none() {
            history.ring.begin(history.at, author, life);
        }
    }

    /// Whether what a newcomer has may give way to what is here.
    fn may_replace(&self, superseded: &Superseded, member: ReplicaId, life: Life) -> bool {
        let said = superseded.words.get(&member);
        let said = said.filter(|(of, ..)| *of == life);
        if self.group.confirmations == 1 {
            // One that has nothing says nothing. What was served counts for more than what was not.
            let has_nothing = said.is_none_or(|(_, at, _)| *at == Index::ZERO);
            return superseded.served || has_nothing;
        }
        // Only its own word tells that nothing confirmed is lost with what it has.
        said.is_some_and(|(_, _, word)| {
            let origin = self.word().origin;
            word.origin.is_none() || (word.origin == origin && self.has_all_of(word))
        })
    }

    /// It is to end, by whomever's will. If it keeps a state that nobody else was heard with, it says so, and sets it aside.
    pub fn stop(&mut self, out: &mut Vec<Effect>) {
        if matches!(self.stage, Stage::Superseded(_))
            && let Some(history) = &self.history
        {
            let at = history.at;
            self.stage = Stage::Over;
            out.push(Effect::Event(Event::LastStateGone { at }));
            self.set_aside(at, out);
        }
    }
}

/// For so many heartbeats one that starts listens: a living one is heard in any of them.
const HEARTBEATS: u32 = 2;
/// Within so many lives after the known one, by its own number.
const APART: u64 = 1_000_000;
