//! Hearing the others: who lives, what they have answered, how far they are.

use super::item::{Item, Life};
use super::marks::Said;
use super::message::{Confirmed, Heartbeat, Message};
use super::mutation::Mutation;
use super::stage::Stage;
use super::word::Word;
use super::{Active, Doubt, Effect, Timing, Watch};
use crate::id::{Index, ReplicaId};
use crate::time::{Time, Timestamp};

/// What is known of another member.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) life: Life,
    heard: Time,
    heard_at: Timestamp,
    /// Up to here everything that it owed is answered.
    answered: Index,
    /// Up to here it has the same history.
    pub(super) at: Index,
    /// Up to here it knows that as many have it as an answer needs.
    pub(super) confirmed: Index,
    /// What it said of a position to which this replica has not come yet.
    ahead: Option<(Index, u64, Confirmed)>,
    /// What it said last that it has.
    word: Option<Word>,
    accused: Option<Time>,
    /// Whether it said last that it serves.
    serving: bool,
    /// Since when it says without a break that it serves in another ring than the one here.
    pub(super) apart_since: Option<Time>,
}

impl Peer {
    fn new(life: Life, now: Time, wall: Timestamp) -> Self {
        Self {
            life,
            heard: now,
            heard_at: wall,
            answered: Index::ZERO,
            at: Index::ZERO,
            confirmed: Index::ZERO,
            ahead: None,
            word: None,
            accused: None,
            serving: false,
            apart_since: None,
        }
    }

    /// Whether it has been silent for too long.
    pub(super) fn is_late(&self, now: Time, timing: Timing) -> bool {
        now - self.heard > timing.suspect_after
    }

    /// What it says that is confirmed of what it serves, if it serves and was heard lately.
    pub(super) fn serves_with(&self, now: Time, timing: Timing) -> Option<(Life, Word)> {
        let word = self
            .word
            .filter(|_| self.serving && !self.is_late(now, timing));
        word.map(|word| (self.life, word))
    }

    /// What it has, if it does not serve and was heard lately.
    pub(super) fn word_at(&self, now: Time, timing: Timing) -> Option<Word> {
        self.word
            .filter(|_| !self.serving && !self.is_late(now, timing))
    }
}

impl Active {
    /// Says where this replica is.
    pub(super) fn beat(&mut self, out: &mut Vec<Effect>) {
        // (Whoever hears nothing answers nothing: let others do it.)
        let deaf = self.echo.is_deaf() || self.hears_nothing(self.awake);
        if !matches!(self.stage, Stage::Living) || deaf {
            return;
        }
        self.settled();
        let serving = self.is_serving();
        let received_counts = self.has(Mutation::ReceivedForAnswered);
        let word = self.word();
        let Some(history) = &mut self.history else {
            self.beat_without_state(out);
            return;
        };
        let answered = if received_counts {
            history.at
        } else {
            self.answers.answered(history.at)
        };
        if serving {
            history.debts.discharge(self.me, answered);
        }
        out.push(Effect::Broadcast(Message::Heartbeat(Heartbeat {
            replica: self.me,
            life: self.life,
            serving,
            at: history.at,
            chain: history.chain,
            answered,
            confirmed: word.confirmed,
            origin: word.origin,
            holding: self.healing.holds(),
            view: history.ring.view(),
            failed: history.ring.failed().collect(),
            claims: if serving || self.group.confirmations > 1 {
                self.marks.own()
            } else {
                Vec::new()
            },
        })));
    }

    /// Where answers are confirmed, it counts who has nothing.
    fn beat_without_state(&self, out: &mut Vec<Effect>) {
        if self.group.confirmations == 1 {
            return;
        }
        out.push(Effect::Broadcast(Message::Heartbeat(Heartbeat {
            replica: self.me,
            life: self.life,
            serving: false,
            at: Index::ZERO,
            chain: 0,
            answered: Index::ZERO,
            confirmed: Confirmed::default(),
            origin: None,
            holding: false,
            view: 0,
            failed: Vec::new(),
            claims: self.marks.own(),
        })));
    }

    pub(super) fn on_heartbeat(&mut self, now: Time, heard: &Heartbeat, out: &mut Vec<Effect>) {
        let (replica, life) = (heard.replica, heard.life);
        if replica == self.me {
            self.on_namesake(now, life.incarnation, out);
        }
        if !self.group.members.contains(&replica) {
            return;
        }
        self.heard_by_superseded(now, heard, out);
        if replica == self.me {
            return;
        }
        if heard.serving {
            self.outlive(now, &heard.failed, out);
        }
        let wall = self.clock;
        let apart = self.serves_apart(heard);
        let peer = self
            .peers
            .entry(replica)
            .or_insert_with(|| Peer::new(life, now, wall));
        if life < peer.life {
            return;
        }
        if life > peer.life {
            *peer = Peer::new(life, now, wall);
        }
        (peer.heard, peer.heard_at, peer.accused) = (now, wall, None);
        let word = Word {
            origin: heard.origin,
            confirmed: heard.confirmed,
        };
        peer.word = Some(word);
        peer.serving = heard.serving;
        peer.apart_since = apart.then(|| peer.apart_since.unwrap_or(now));
        if let Some(join) = self.join.as_mut().filter(|_| heard.serving) {
            // One who serves will send the state: no history is to be begun.
            join.silent_since = now;
        }
        if heard.serving && heard.failed.contains(&(self.me, self.life)) {
            self.healing.said_failed.get_or_insert(now);
        }
        let Some(history) = &mut self.history else {
            return;
        };
        let serves_here = history.ring.serves(replica, life);
        if serves_here && heard.serving && !heard.holding {
            // (The positions of one that holds may be others than here.)
            peer.answered = peer.answered.max(heard.answered);
            history.debts.discharge(replica, peer.answered);
            peer.ahead = Some((heard.at, heard.chain, heard.confirmed));
        }
        for claim in &heard.claims {
            let said = Said {
                life,
                claim: *claim,
                serving: heard.serving,
                holding: heard.holding,
                word,
                view: heard.view,
            };
            self.marks.claimed(replica, said);
        }
        if heard.serving && !serves_here {
            return;
        }
        self.check_ahead(now, out);
        self.judge_all(now, out);
        self.flush(out);
    }

    /// Compares what the others said of positions to which this replica has come.
    pub(super) fn check_ahead(&mut self, now: Time, out: &mut Vec<Effect>) {
        let anything = self.has(Mutation::ConfirmedByAnything);
        let Some(history) = &self.history else {
            return;
        };
        let (mut differs, mut learnt) = (false, self.confirmed);
        for (replica, peer) in &mut self.peers {
            let Some((at, chain, confirmed)) = peer.ahead else {
                continue;
            };
            if at > history.at {
                continue;
            }
            peer.ahead = None;
            if !history.ring.serves(*replica, peer.life) {
                continue;
            }
            match history.chain_at(at) {
                Some(own) if own == chain || anything => {
                    peer.at = peer.at.max(at);
                    peer.confirmed = peer.confirmed.max(confirmed.at.min(at));
                    if confirmed.at > learnt.at {
                        learnt = confirmed;
                    }
                }
                Some(_) => differs = true,
                // Too long ago to be told.
                None => {}
            }
        }
        self.learn_confirmed(learnt);
        if differs && !self.healing.holds() {
            self.hold(now, Doubt::Differs, out);
        }
    }

    /// What the debtor has said to have answered counts for what it owes since.
    pub(super) fn discharge(&mut self, debtor: ReplicaId) {
        if let (Some(history), Some(peer)) = (&mut self.history, self.peers.get(&debtor))
            && history.ring.serves(debtor, peer.life)
        {
            history.debts.discharge(debtor, peer.answered);
        }
    }

    /// Who was heard lately and says that it serves.
    pub(super) fn heard_serving(&self) -> Vec<ReplicaId> {
        let (now, timing) = (self.awake, self.group.timing);
        let serving =
            (self.peers.iter()).filter(|(_, peer)| peer.serving && !peer.is_late(now, timing));
        serving.map(|(replica, _)| *replica).collect()
    }

    /// This replica did not hear for a while, or is new: nobody is late yet.
    pub(super) fn watch_anew(&mut self, now: Time) {
        for peer in self.peers.values_mut() {
            (peer.heard, peer.accused) = (now, None);
        }
        let serving: Vec<_> = (self.history.iter())
            .flat_map(|history| history.ring.serving())
            .collect();
        for (member, life) in serving {
            let wall = self.clock;
            let peer = self
                .peers
                .entry(member)
                .or_insert_with(|| Peer::new(life, now, wall));
            // What it said was said of another history.
            (peer.at, peer.confirmed, peer.ahead) = (Index::ZERO, Index::ZERO, None);
        }
    }

    /// One joins, or serves now: it has not been silent.
    pub(super) fn watch_one_anew(&mut self, now: Time, replica: ReplicaId) {
        let wall = self.clock;
        let standing = self
            .history
            .as_ref()
            .map(|history| history.ring.standing(replica));
        if let Some(super::Standing::Serving { life, .. } | super::Standing::Joining { life, .. }) =
            standing
        {
            let peer = self
                .peers
                .entry(replica)
                .or_insert_with(|| Peer::new(life, now, wall));
            if peer.life < life {
                *peer = Peer::new(life, now, wall);
            }
            (peer.heard, peer.accused) = (now, None);
        }
    }

    /// Whether what this replica published lately has come back. If it published nothing, a mark will tell.
    fn hears_itself(&mut self, now: Time, out: &mut Vec<Effect>) -> bool {
        let timing = self.group.timing;
        if self.echo.heard_within(now, timing.suspect_after) {
            return true;
        }
        if !self.echo.asked_within(now, timing.resend_every) {
            self.publish_mark(now, out);
        }
        false
    }

    /// Where it is almost too long since somebody was heard, or nothing came for long, this replica finds out whether it hears at all. (One that serves
    /// alone would never miss anything.)
    fn ask_in_time(&mut self, now: Time, out: &mut Vec<Effect>) {
        let almost = self.group.timing.suspect_after * 3 / 4;
        let Some(history) = self.history.as_ref().filter(|_| self.is_serving()) else {
            return;
        };
        let silent = |member: ReplicaId| {
            let peer = self.peers.get(&member);
            member != self.me && peer.is_some_and(|peer| now - peer.heard > almost)
        };
        let nothing = self.echo.silent_for(now) > self.group.timing.suspect_after * SILENT_AFTER;
        if nothing || history.ring.serving().any(|(member, _)| silent(member)) {
            self.hears_itself(now, out);
        }
    }

    /// Whether the stream has carried nothing here for so long, not even what this replica published, that it must be taken for failed. Else others would leave to it what
    /// it never hears of, until that expires. (Where a broker is only behind, something comes.)
    pub(super) fn hears_nothing(&self, now: Time) -> bool {
        let patience = self.group.timing.suspect_after * UNHEARD_AFTER;
        self.echo.silent_for(now) > patience && self.echo.missing_for(now) > patience
    }

    /// One who does not hear itself for long gets another connection.
    pub(super) fn reconnect_if_deaf(&mut self, now: Time, out: &mut Vec<Effect>) {
        if self.echo.missing_for(now) > self.group.timing.suspect_after * DEAF_AFTER {
            self.echo.gives_up(now);
            out.push(Effect::Reconnect);
        }
    }

    /// Says who has been silent for too long.
    pub(super) fn watch_on_tick(&mut self, now: Time, out: &mut Vec<Effect>) {
        let timing = self.group.timing;
        self.ask_in_time(now, out);
        if self.group.watch != Watch::Members || !self.is_serving() {
            return;
        }
        let Some(history) = &self.history else {
            return;
        };
        let silent_for = |member: ReplicaId| {
            let peer = self.peers.get(&member);
            peer.map_or(timing.suspect_after, |peer| now - peer.heard)
        };
        let is_late =
            |member: ReplicaId| member != self.me && silent_for(member) > timing.suspect_after;
        // The first of those that are not late says so; the others if it does not.
        let live = history
            .ring
            .serving()
            .filter(|(member, _)| !is_late(*member));
        let turn = live.take_while(|(member, _)| *member != self.me).count();
        let turn = timing.heartbeat_every * 2 * u32::try_from(turn).unwrap_or(0);
        let late: Vec<_> = (history.ring.serving())
            .filter(|(member, _)| is_late(*member))
            .filter(|(member, _)| silent_for(*member) > timing.suspect_after + turn)
            .collect();
        if !late.is_empty() && !self.hears_itself(now, out) && !self.has(Mutation::AccusesUnheard) {
            return;
        }
        for (replica, life) in late {
            let wall = self.clock;
            let peer = self
                .peers
                .entry(replica)
                .or_insert_with(|| Peer::new(life, now, wall));
            if peer
                .accused
                .is_some_and(|at| now - at < timing.suspect_after)
            {
                continue;
            }
            peer.accused = Some(now);
            let seen_at = peer.heard_at;
            let life = Some(life);
            let item = Item::Failed {
                replica,
                life,
                seen_at,
            };
            self.publish(item, out);
        }
    }
}

/// So many times [`Timing::suspect_after`](super::Timing::suspect_after) in which the stream carries nothing make a replica ask whether it does.
const SILENT_AFTER: u32 = 5;

/// So many times [`Timing::suspect_after`](super::Timing::suspect_after) without hearing itself makes a replica deaf. Large: a stream
/// that is behind, because there is much to deliver, is not broken.
const DEAF_AFTER: u32 = 10;

/// So many times [`Timing::suspect_after`](super::Timing::suspect_after) without hearing anything at all make it say nothing more. Few: what it owes expires meanwhile.
const UNHEARD_AFTER: u32 = 3;
