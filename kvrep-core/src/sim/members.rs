//! Members that come and go while everything else goes on: joins, learners, leaves, removals, replacements, handovers.
//!
//! Every request is remembered when it is made, so that a change of the members that nobody asked for is seen.
//! Where two primaries are possible nobody is removed: two halves of a group that dismiss each other are two groups for
//! good, which [`Authority::Alone`](crate::Authority::Alone) does not promise to survive without loss.

use super::cell::{AuthorityKind, Medium, Promise};
use super::faults::Kind;
use super::queue::Happening;
use super::world::World;
use crate::id::{Configuration, MemberKind, ReplicaId};
use crate::manage::Manage;
use crate::protocol::passive::{Join, Start};
use std::collections::BTreeSet;

/// What was asked for.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    inside: BTreeSet<ReplicaId>,
    outside: BTreeSet<ReplicaId>,
}

impl World {
    /// Causes one change of the members, if it is allowed now.
    pub(super) fn change_members(&mut self, kind: Kind, some: usize, primary: usize) {
        let some_id = self.nodes[some].id;
        self.weather.unrest(self.now);
        match kind {
            Kind::Handover => {
                let to = self.weather.rng.one_in(2).then_some(some_id);
                self.manage(primary, Manage::Handover { to });
            }
            Kind::Join => self.join(some),
            Kind::Leave if self.may_dismiss(some) => {
                self.wanted.outside.insert(some_id);
                self.manage(some, Manage::Remove(some_id));
            }
            Kind::Remove if self.may_dismiss(some) => {
                self.wanted.outside.insert(some_id);
                self.manage(primary, Manage::Remove(some_id));
            }
            Kind::MakeLearner if self.may_dismiss(some) && self.belongs(some) => {
                let kind = MemberKind::Learner;
                self.manage(primary, Manage::Add { id: some_id, kind });
            }
            Kind::MakeFull if self.belongs(some) => {
                let kind = MemberKind::Full;
                self.wanted.inside.insert(some_id);
                self.manage(primary, Manage::Add { id: some_id, kind });
            }
            _ => {}
        }
    }

    /// A spare that has never run starts, and asks to join.
    fn join(&mut self, some: usize) {
        let Some(spare) = (0..self.plan.members).find(|n| self.nodes[*n].absent) else {
            return;
        };
        let mut join = match self.weather.rng.below(4) {
            0 => Join::learner(),
            _ => Join::full(),
        };
        if self.weather.rng.one_in(3) && self.may_dismiss(some) {
            join = join.in_place_of(self.nodes[some].id);
            self.wanted.outside.insert(self.nodes[some].id);
        }
        self.wanted.inside.insert(self.nodes[spare].id);
        self.note(spare, format!("wants to {join:?}"));
        self.nodes[spare].absent = false;
        self.nodes[spare].start = Start::Join(join);
        self.nodes[spare].starting = true;
        self.queue.push(self.now, Happening::Start { node: spare });
    }

    /// Whether losing this member leaves what is promised possible.
    fn may_dismiss(&self, n: usize) -> bool {
        // In memory a removed founder forgets that it was removed: with all of them it could begin anew.
        let founder = self.cell.authority == AuthorityKind::Alone && n == 0;
        let memory = self.cell.medium == Medium::Memory;
        self.cell.promise() == Promise::Everything && !(memory && (founder || !self.is_calm()))
    }

    /// Whether the newest configuration names it.
    pub(super) fn belongs(&self, n: usize) -> bool {
        let names = |c: &Configuration| c.members.contains_key(&self.nodes[n].id);
        self.newest.as_ref().is_some_and(names)
    }

    /// A configuration follows another: who came and went must have been asked to.
    pub(super) fn check_members(&self, old: &Configuration, new: &Configuration) -> Option<String> {
        let came = new
            .members
            .keys()
            .filter(|id| !old.members.contains_key(id));
        let mut came = came.filter(|id| !self.wanted.inside.contains(id));
        let went = old
            .members
            .keys()
            .filter(|id| !new.members.contains_key(id));
        let mut went = went.filter(|id| !self.wanted.outside.contains(id));
        if let Some(id) = came.next() {
            return Some(format!(
                "{id} belongs after {old:?} and did not ask to: {new:?}"
            ));
        }
        let gone = went.next()?;
        Some(format!(
            "{gone} does not belong after {old:?} and nobody asked: {new:?}"
        ))
    }
}
