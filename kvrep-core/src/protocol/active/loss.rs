//! A history that does not count: what it takes with it is reported, and its state set aside.
//!
//! What two histories have in common is told by their chains: the state that a newcomer gets says what the chain was at some positions before it, ever
//! further apart, and the last of them at which the own chain was the same is where nothing is lost yet. An agreement does not tell that: those who
//! agreed may have missed the same part of the stream, and one that serves alone agrees with itself.

use super::history::{History, RECENT_MAX};
use super::{Active, Effect, Event};
use crate::id::Index;
use bytes::Bytes;
use std::collections::VecDeque;

/// The writes that a replica has acknowledged, as far as they may have to be counted as lost.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The positions of the last ones: as many as there are positions at which the own chain is known.
    last: VecDeque<Index>,
    /// Earlier ones that no other replica has agreed upon, and the last of their positions.
    earlier: (u64, Index),
    /// Up to here another one has agreed.
    shared: Index,
}

impl Told {
    pub(super) fn push(&mut self, write: Index) {
        if self.last.len() == RECENT_MAX
            && let Some(old) = self.last.pop_front()
            && old > self.shared
        {
            self.earlier = (self.earlier.0 + 1, self.earlier.1.max(old));
        }
        self.last.push_back(write);
    }

    /// Another one that serves has the same up to there.
    pub(super) fn agreed(&mut self, upto: Index) {
        self.shared = self.shared.max(upto);
        if self.earlier.1 <= self.shared {
            self.earlier = (0, Index::ZERO);
        }
    }

    /// What was acknowledged after that position.
    fn after(&self, common: Index) -> u64 {
        let last = self.last.iter().filter(|write| **write > common).count() as u64;
        let (earlier, upto) = self.earlier;
        last + if upto > common { earlier } else { 0 }
    }

    /// Another one's state is here now, which it has up to there; the first of the two positions is what it has in common with what was here.
    pub(super) fn replaced(&mut self, common: Index, upto: Index) {
        self.last.retain(|write| *write <= common);
        if self.earlier.1 > common {
            self.earlier = (0, Index::ZERO);
        }
        self.shared = upto;
    }
}

impl Active {
    /// What is here counts for nothing any more, but for what it has in common with that history, which takes its place: up to the position that is
    /// returned.
    pub(super) fn report_loss_to(&self, history: &History, out: &mut Vec<Effect>) -> Index {
        let Some(old) = &self.history else {
            return Index::ZERO;
        };
        // What began apart has nothing in common, whatever its own members had agreed upon.
        let together = old.began_with(history);
        let common = if self.has(super::Mutation::LossSinceAgreement) {
            Some(old.agreed)
        } else {
            together.then(|| old.common_with(history))
        };
        self.report_loss(common, out);
        common.unwrap_or(Index::ZERO)
    }

    /// What began together with another history and does not count counts for nothing after the last agreement with somebody else; what began
    /// apart from it, for nothing at all.
    pub(super) fn report_loss_to_unknown(&self, together: bool, out: &mut Vec<Effect>) {
        self.report_loss(together.then_some(self.told.shared), out);
    }

    fn report_loss(&self, common: Option<Index>, out: &mut Vec<Effect>) {
        let Some(old) = &self.history else {
            return;
        };
        out.push(Effect::Event(Event::HistoryLost {
            agreed: common.unwrap_or(Index::ZERO),
            upto: old.at,
            acknowledged: match common {
                Some(common) => self.told.after(common),
                // What was told long ago is not counted: each item may have been it.
                None => old.at.0,
            },
            apart: common.is_none(),
        }));
        let at = old.at;
        self.set_aside(at, out);
    }

    /// Has the state as it is here kept, for the operator.
    pub(super) fn set_aside(&self, at: Index, out: &mut Vec<Effect>) {
        let mut state = Vec::new();
        if self.machine.freeze()(&mut state).is_ok() {
            out.push(Effect::SetAside {
                at,
                state: Bytes::from(state),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_counted_from_where_histories_part_and_forgotten_when_another_one_has_them() {
        let mut told = Told::default();
        let many = RECENT_MAX as u64 + 10;
        (1..=many).for_each(|at| told.push(Index(at)));
        assert_eq!(told.last.len(), RECENT_MAX);
        assert_eq!(told.after(Index::ZERO), many);
        assert_eq!(told.after(Index(many - 3)), 3);
        told.agreed(Index(9));
        assert_eq!(
            told.after(Index::ZERO),
            many,
            "one of the first ten is not shared"
        );
        told.agreed(Index(10));
        assert_eq!(told.after(Index::ZERO), RECENT_MAX as u64);
        told.replaced(Index(12), Index(20));
        assert_eq!(
            told.after(Index::ZERO),
            2,
            "what both histories have may still be lost"
        );
        told.replaced(Index::ZERO, Index(30));
        assert_eq!(told.after(Index::ZERO), 0);
    }
}
