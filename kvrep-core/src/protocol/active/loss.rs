//! A history that does not count: what it takes with it is reported, and its state set aside.

use super::{Active, Effect, Event};
use crate::id::Index;
use bytes::Bytes;

impl Active {
    /// What this replica has counts for nothing any more, but for what was agreed up to there; `None`: nothing of it.
    pub(super) fn report_loss(&self, agreed: Option<Index>, out: &mut Vec<Effect>) {
        let Some(old) = &self.history else {
            return;
        };
        let acknowledged = match agreed {
            Some(agreed) => {
                let lost = self.answered_writes.iter().filter(|at| **at > agreed);
                lost.count() as u64
            }
            // What was agreed is not counted: each item may have been one.
            None => old.at.0,
        };
        out.push(Effect::Event(Event::HistoryLost {
            agreed: agreed.unwrap_or(Index::ZERO),
            upto: old.at,
            acknowledged,
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
