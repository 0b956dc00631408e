//! Bugs planted in how snapshots are taken and answers withheld.

use crate::protocol::passive::Mutation;
use crate::session::Machine;
use crate::state_machine::FrozenState;

#[derive(Default)]
pub(super) struct Planted {
    pub(super) mutation: Option<Mutation>,
    early: Option<FrozenState>,
}

impl Planted {
    pub(super) fn releases_early(&self) -> bool {
        self.mutation == Some(Mutation::ReleasedEarly)
    }

    pub(super) fn drops_sessions(&self) -> bool {
        self.mutation == Some(Mutation::SessionsNotInSnapshot)
    }

    pub(super) fn before_apply(&mut self, machine: &Machine) {
        if self.mutation == Some(Mutation::SnapshotOffByOne) {
            self.early = Some(machine.freeze());
        }
    }

    pub(super) fn take_early(&mut self) -> Option<FrozenState> {
        self.early.take()
    }
}
