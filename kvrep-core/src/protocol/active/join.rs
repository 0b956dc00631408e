//! Getting in: announced in the stream, brought up to date beside it, ready in the stream again.
//!
//! A newcomer publishes `Announce` and drops what it delivers before that; from there on it keeps everything. It accepts a state
//! that was written at any position at or after its announcement, drops what that state has already, carries out the rest
//! without answering, and publishes a mark. When all who serve agree with it there, it publishes `Ready`; where that is delivered it serves.
//!
//! **Origin.** Where nobody answers, a history is begun: by one who has a state that nobody serves, else by one who has none. The
//! first `Genesis` in the stream wins; its author alone serves, all others announce themselves again. Somebody who serves and
//! delivers one *objects*, in the stream, and its author throws its beginning away.

use super::history::History;
use super::item::{Item, Life, Published, Stamp};
use super::message::{Confirmed, Message};
use super::mutation::Mutation;
use super::ring::{Ring, Standing};
use super::word::Asking;
use super::{Active, Create, Effect, Event, Fence};
use crate::id::{Index, ReplicaId};
use crate::time::Time;
use bytes::BytesMut;
use std::collections::VecDeque;

#[derive(Debug)]
pub(super) struct Join {
    /// Its announcement was delivered here.
    heard: bool,
    /// What was delivered behind it.
    kept: VecDeque<(Published, u64)>,
    kept_bytes: usize,
    incoming: Option<Incoming>,
    /// The state is here: only the others' word and `Ready` are missing.
    pub(super) installed: bool,
    /// When something was last heard of one who serves, or this began.
    pub(super) silent_since: Time,
    last_progress: Time,
    ready_published: Option<Time>,
    /// Its own genesis, if it has published one for this announcement.
    genesis: Option<Stamp>,
    /// Somebody's genesis was delivered since the announcement.
    beaten: bool,
}

#[derive(Debug)]
struct Incoming {
    from: ReplicaId,
    chain: u64,
    whole: u64,
    data: BytesMut,
}

impl Active {
    /// Announces this replica, as a life of its own.
    pub(super) fn announce(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.life.attempt += 1;
        let silent_since = self.join.as_ref().map_or(now, |join| join.silent_since);
        self.join = Some(Join {
            heard: false,
            kept: VecDeque::new(),
            kept_bytes: 0,
            incoming: None,
            installed: false,
            silent_since,
            last_progress: now,
            ready_published: None,
            genesis: None,
            beaten: false,
        });
        let item = Item::Announce {
            replica: self.me,
            life: self.life,
        };
        self.publish(item, out);
    }

    /// What this replica has missed may be another's beginning, or a part of what it keeps: it announces itself again, and what it has published for its last
    /// announcement counts for nothing.
    pub(super) fn join_behind_gap(&mut self, now: Time, out: &mut Vec<Effect>) {
        if self.join.is_some() && !self.has(Mutation::JoinsOverGap) {
            self.announce(now, out);
            if let Some(join) = &mut self.join {
                join.silent_since = now;
            }
        }
    }

    /// What was delivered is kept for when the state comes.
    pub(super) fn held_back(
        &mut self,
        now: Time,
        published: &Published,
        hash: u64,
        out: &mut Vec<Effect>,
    ) {
        let (me, life) = (self.me, self.life);
        let stateless = self.history.is_none() && self.group.confirmations > 1;
        let Some(join) = &mut self.join else {
            return;
        };
        if let Item::Mark { decisions, .. } = published.item
            && let Some(mark) = published.stamp.filter(|_| stateless && join.heard)
        {
            self.on_mark_without_state(mark, decisions, out);
        }
        let Some(join) = &mut self.join else {
            return;
        };
        if let Item::Genesis {
            replica,
            life: born,
            ..
        } = &published.item
        {
            let mine = *born == life && join.genesis == published.stamp;
            if mine || *replica != me {
                self.on_genesis(now, mine, out);
            }
            return;
        }
        if join.heard {
            if !join.installed {
                join.kept_bytes += 128 + published.item.payload_bytes();
                join.kept.push_back((published.clone(), hash));
                if join.kept_bytes > self.group.kept_bytes_max {
                    self.announce(now, out);
                }
            }
        } else if published.item == (Item::Announce { replica: me, life }) {
            join.heard = true;
            join.last_progress = now;
        }
    }

    /// A genesis is delivered while this replica does not serve.
    fn on_genesis(&mut self, now: Time, mine: bool, out: &mut Vec<Effect>) {
        let first_wins = !self.has(Mutation::GenesisNotFirst);
        let Some(join) = &mut self.join else {
            return;
        };
        join.silent_since = now;
        if !join.heard && !mine {
            // Before the announcement: whoever began that history will answer it.
            return;
        }
        if join.beaten && first_wins {
            return;
        }
        if !mine {
            if !first_wins {
                return;
            }
            join.beaten = true;
            if join.installed {
                return;
            }
            self.announce(now, out);
            return;
        }
        let history = match self.history.take() {
            Some(mut history) => {
                // The item itself is advanced over by the caller.
                history.ring.begin(history.at.next(), self.me, self.life);
                history
            }
            None => {
                let mut history = History::new(Ring::new(self.group.members.iter().copied()));
                history.ring.begin(Index(1), self.me, self.life);
                history
            }
        };
        let from = history.at;
        self.history = Some(history);
        self.join = None;
        self.marks.forget();
        self.healing.began();
        self.asking = Asking::default();
        self.watch_anew(now);
        out.push(Effect::Event(Event::Began { from }));
        let life = self.life;
        out.push(Effect::Event(Event::Serving { life, from }));
    }

    /// A genesis is delivered in a history that is here.
    pub(super) fn on_rival_genesis(
        &mut self,
        stamp: Option<Stamp>,
        (author, life): (ReplicaId, Life),
        from: Index,
        out: &mut Vec<Effect>,
    ) {
        if author == self.me && life == self.life {
            // This one's own: it has just begun to serve.
            let now = self.awake;
            self.healing.genesis = stamp;
            self.after_change(now, out);
        } else if self.is_serving()
            && let Some(genesis) = stamp
        {
            self.publish(Item::Objection { genesis }, out);
        } else {
            self.begun_by_another((author, life), from);
        }
    }

    /// Somebody serves an older history than the one that began there.
    pub(super) fn on_objection(&mut self, now: Time, genesis: Stamp, out: &mut Vec<Effect>) {
        if self.healing.genesis == Some(genesis) && self.join.is_none() {
            if self.has(Mutation::ObjectionIgnored) {
                return;
            }
            self.healing.genesis = None;
            self.healing.differs = true;
            self.fence(now, Fence::OlderHistoryServed, out);
        }
    }

    /// A piece of a state.
    pub(super) fn on_piece(&mut self, now: Time, message: Message, out: &mut Vec<Effect>) {
        let Message::Piece {
            life,
            from,
            chain,
            offset,
            whole,
            data,
            ..
        } = message
        else {
            return;
        };
        let me = self.me;
        let max = self.group.piece_bytes;
        let Some(join) = self.join.as_mut().filter(|_| life == self.life) else {
            return;
        };
        if join.installed || !join.heard || data.len() > max || whole == 0 {
            return;
        }
        join.silent_since = now;
        let another = (join.incoming.as_ref()).is_none_or(|incoming| {
            (incoming.from, incoming.chain, incoming.whole) != (from, chain, whole)
        });
        if another {
            if offset != 0 {
                return;
            }
            join.incoming = Some(Incoming {
                from,
                chain,
                whole,
                data: BytesMut::new(),
            });
        }
        let Some(incoming) = &mut join.incoming else {
            return;
        };
        let have = incoming.data.len() as u64;
        if offset == have && have + data.len() as u64 <= whole {
            incoming.data.extend_from_slice(&data);
            join.last_progress = now;
        }
        let bytes = incoming.data.len() as u64;
        let message = Message::Got {
            by: me,
            life,
            chain,
            bytes,
        };
        out.push(Effect::Send { to: from, message });
        self.install_if_complete(now, out);
    }

    /// Puts the state in place, once all of it and all that it has of the stream is here.
    pub(super) fn install_if_complete(&mut self, now: Time, out: &mut Vec<Effect>) {
        let me = self.me;
        let forgets_debts = self.has(Mutation::DebtsNotHandedOver);
        let Some(join) = &mut self.join else {
            return;
        };
        let Some(incoming) = &join.incoming else {
            return;
        };
        if incoming.data.len() as u64 != incoming.whole {
            return;
        }
        let bytes = incoming.data.clone().freeze();
        let Some((mut history, confirmed, machine)) = History::read(&bytes, now) else {
            join.incoming = None;
            return;
        };
        let Standing::Joining { life, at } = history.ring.standing(me) else {
            join.incoming = None;
            return;
        };
        let have = join.kept.len() as u64;
        let skip = history.at.0.saturating_sub(at.0);
        if life != self.life || history.ring.members().len() != self.group.members.len() {
            join.incoming = None;
            return;
        }
        if have < skip {
            return;
        }
        if forgets_debts {
            history.debts = super::debts::Debts::default();
        }
        let from = incoming.from;
        join.incoming = None;
        join.last_progress = now;
        if let Err(why) = self.replace(now, (history, confirmed), machine, out) {
            // It announces itself again after a while, and not at once: each time somebody would write a whole state for it.
            if !std::mem::replace(&mut self.unread, true) {
                out.push(Effect::Event(Event::StateNotRead { from, why }));
            }
            return;
        }
        self.unread = false;
        let Some(join) = &mut self.join else {
            return;
        };
        join.installed = true;
        let mut kept = std::mem::take(&mut join.kept);
        kept.drain(..usize::try_from(skip).unwrap_or(usize::MAX));
        for (published, hash) in kept {
            self.advance(now, published, hash, out);
        }
        self.verify(now, out);
    }

    /// Another history takes the place of the one that is here; there is none if the state machine cannot read its state.
    fn replace(
        &mut self,
        now: Time,
        (history, confirmed): (History, Confirmed),
        machine: &[u8],
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let mut known = confirmed;
        let mut common = Index::ZERO;
        if let Some(old) = &self.history {
            let same = match old.chain_at(history.at) {
                Some(chain) => chain == history.chain,
                None => !self.healing.differs && !old.parts_from(&history),
            };
            if same && old.origin() == history.origin() && self.confirmed.at > known.at {
                known = self.confirmed;
            }
            common = if same {
                history.at
            } else {
                self.report_loss_to(&history, out)
            };
        }
        self.confirmed = known;
        self.asking = Asking::default();
        self.told.replaced(common, history.at);
        self.healing.replaced();
        self.marks.forget();
        let mut machine = machine;
        if let Err(why) = self.machine.restore(&mut machine) {
            // Not the same state machine, or damaged on its way: from the beginning again.
            let _ = self.machine.reset();
            self.history = None;
            self.confirmed = Confirmed::default();
            return Err(why.to_string());
        }
        self.history = Some(history);
        self.watch_anew(now);
        Ok(())
    }

    /// Asks whether the others have the same.
    fn verify(&mut self, now: Time, out: &mut Vec<Effect>) {
        if self.is_verifying() {
            self.healing.verified_by = self.seq + 1;
            self.publish_mark(now, out);
        }
    }

    /// All who serve agree with this one, which has the state: it is ready.
    pub(super) fn ready_if_agreed(&mut self, now: Time, out: &mut Vec<Effect>) {
        let resend = self.group.timing.resend_every;
        let Some(join) = self.join.as_mut().filter(|join| join.installed) else {
            return;
        };
        if join.ready_published.is_some_and(|at| now - at < resend) {
            return;
        }
        join.ready_published = Some(now);
        join.last_progress = now;
        let (replica, life) = (self.me, self.life);
        // Whoever watches hears of this life before it serves: if it dies at once, somebody misses it.
        self.beat(out);
        self.publish(Item::Ready { replica, life }, out);
        if self.has(Mutation::ReadyOutOfBand)
            && let Some(history) = &mut self.history
            && history.ring.ready(history.at, replica, life)
        {
            self.on_ready(now, replica, life, out);
        }
    }

    pub(super) fn join_on_tick(&mut self, now: Time, out: &mut Vec<Effect>) {
        let timing = self.group.timing;
        let (create, has_state) = (self.create, self.history.is_some());
        let place = self
            .group
            .members
            .iter()
            .position(|member| *member == self.me);
        let Some(join) = &self.join else {
            return;
        };
        let patience = if has_state {
            timing.genesis_after
        } else {
            2 * timing.genesis_after
        };
        // Those who wait for the same do not begin at the same moment.
        let patience =
            patience + timing.heartbeat_every * u32::try_from(place.unwrap_or(0)).unwrap_or(0);
        let may_begin = has_state || create == Create::Allowed;
        let silent = now - join.silent_since >= patience;
        let may_begin = may_begin && join.heard && join.genesis.is_none() && !join.beaten;
        let stuck = now - join.last_progress >= 3 * timing.resend_every + timing.suspect_after;
        if silent && may_begin && self.may_begin(now, out) {
            let item = Item::Genesis {
                replica: self.me,
                life: self.life,
                from: self
                    .history
                    .as_ref()
                    .map_or(Index::ZERO, |history| history.at),
            };
            let stamp = self.publish(item, out);
            if let Some(join) = &mut self.join {
                join.genesis = Some(stamp);
                join.last_progress = now;
            }
            return;
        }
        if stuck {
            self.announce(now, out);
        }
    }
}

impl Item {
    /// Bytes of what it carries.
    pub(super) fn payload_bytes(&self) -> usize {
        match self {
            Self::Request(request) => {
                let call = match &request.call {
                    super::Call::Write(bytes) | super::Call::Read(bytes) => bytes.len(),
                };
                call + request.reply_to.len()
            }
            Self::Decision(decision) => decision.listed.len() * 32,
            Self::Announce { .. }
            | Self::Ready { .. }
            | Self::Failed { .. }
            | Self::Genesis { .. }
            | Self::Objection { .. }
            | Self::Mark { .. }
            | Self::Unreadable => 0,
        }
    }
}
