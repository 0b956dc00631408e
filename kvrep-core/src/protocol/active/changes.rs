//! What follows when somebody begins to serve, or serves no more.

use super::history::History;
use super::item::Life;
use super::ring::{Fall, Standing};
use super::stage::Stage;
use super::{Active, Effect, Event, Fence, Mutation};
use crate::id::{Index, ReplicaId};
use crate::time::Time;

impl Active {
    /// The ring changed: debts of those who serve no more move, newcomers without a substitute get one.
    pub(super) fn after_change(&mut self, now: Time, out: &mut Vec<Effect>) {
        let Some(history) = &mut self.history else {
            return;
        };
        let at = history.at;
        let mut mine = Vec::new();
        for debtor in history.debts.debtors() {
            let serves = debtor
                .is_some_and(|debtor| history.ring.serving().any(|(member, _)| member == debtor));
            if !serves {
                #[cfg(feature = "sim")]
                match self.mutation {
                    Some(Mutation::DebtsNotInherited) => {
                        history
                            .debts
                            .forget(debtor, |logged| logged.since == logged.at);
                    }
                    Some(Mutation::ReplayRecentOnly) => {
                        let window = self.group.timing.suspect_after;
                        (history.debts).forget(debtor, |logged| now - logged.received <= window);
                    }
                    Some(_) | None => {}
                }
                let History { debts, ring, .. } = history;
                let moved = debts.move_on(debtor, at, |slot| ring.owner(slot));
                mine.extend(moved);
            }
        }
        mine.sort_unstable();
        self.take_mine(mine, out);
        self.drop_if_not_serving();
        self.serve_newcomers(now, out);
        self.judge_all(now, out);
    }

    pub(super) fn drop_if_not_serving(&mut self) {
        if !self.is_serving() {
            self.answers.clear();
            self.transfers.clear();
        }
    }

    pub(super) fn on_ready(
        &mut self,
        now: Time,
        replica: ReplicaId,
        life: Life,
        out: &mut Vec<Effect>,
    ) {
        self.transfers.remove(&replica);
        self.watch_one_anew(now, replica);
        if replica == self.me && life == self.life {
            self.join = None;
            let from = self
                .history
                .as_ref()
                .map_or(Index::ZERO, |history| history.at);
            out.push(Effect::Event(Event::Serving { life, from }));
        } else {
            out.push(Effect::Event(Event::Joined(replica)));
        }
        self.after_change(now, out);
        // The one whose failure waited for somebody else.
        self.fence_if_failed(now, Fence::DeclaredDead, out);
    }

    pub(super) fn on_failed(
        &mut self,
        now: Time,
        replica: ReplicaId,
        life: Option<Life>,
        out: &mut Vec<Effect>,
    ) {
        let Some(history) = &mut self.history else {
            return;
        };
        #[cfg(feature = "sim")]
        if self.mutation == Some(Mutation::LastFencedAtOnce) && history.ring.is_last(replica) {
            history.ring.fail_at_once(replica);
            self.after_change(now, out);
            self.fence_if_failed(now, Fence::DeclaredDead, out);
            return;
        }
        match history.ring.fail(replica, life) {
            Fall::Void | Fall::Pending => {}
            Fall::Now => {
                self.transfers.remove(&replica);
                if replica != self.me {
                    out.push(Effect::Event(Event::Failed(replica)));
                }
                self.after_change(now, out);
                self.fence_if_failed(now, Fence::DeclaredDead, out);
            }
        }
    }

    /// This replica does not serve any more by the stream's word: it joins again.
    pub(super) fn fence_if_failed(&mut self, now: Time, why: Fence, out: &mut Vec<Effect>) {
        let Some(history) = &self.history else {
            return;
        };
        let standing = history.ring.standing(self.me);
        let failed = matches!(standing, Standing::Failed { life } if life == self.life);
        if failed && !self.has(Mutation::OwnFailureIgnored) {
            self.fence(now, why, out);
        }
    }

    pub(super) fn fence(&mut self, now: Time, why: Fence, out: &mut Vec<Effect>) {
        if !matches!(self.stage, Stage::Living) {
            return;
        }
        out.push(Effect::Event(Event::Fenced { why }));
        self.answers.clear();
        self.transfers.clear();
        self.healing.said_failed = None;
        self.announce(now, out);
    }
}
