//! Seeing early that a configuration leads nowhere.
//!
//! Some answers were possible in one state only (a read of 7 needs the 7). While such an operation is still to be
//! placed, that state must not be left for good: when nothing unplaced makes it again, everything that needs it has to
//! come first. Without this the search would find out only when it gets there, after trying every order of what lies
//! between.

use super::linearizable::Hint;
use std::collections::BTreeMap;

/// How often each state is still needed and can still be made.
pub(super) struct Demand<S> {
    states: BTreeMap<S, usize>,
    /// By state: unplaced completed operations that need it.
    needed: Vec<usize>,
    /// By state: unplaced operations that may make it.
    made: Vec<usize>,
    /// Unplaced operations that may make any state.
    wild: usize,
}

/// What an operation means for the demand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Role {
    pub(super) only_looks: bool,
    needs: Option<usize>,
    makes: Makes,
}

#[derive(Clone, Copy, Debug)]
enum Makes {
    Nothing,
    State(usize),
    AnyState,
}

impl<S: Ord> Demand<S> {
    pub(super) fn none() -> Self {
        Self {
            states: BTreeMap::new(),
            needed: Vec::new(),
            made: Vec::new(),
            wild: 0,
        }
    }

    /// Counts in an operation that is to be placed.
    pub(super) fn add(&mut self, hint: Hint<S>) -> Role {
        let Hint {
            only_looks,
            needs,
            makes,
        } = hint;
        let needs = needs.map(|state| self.number(state));
        let makes = match makes {
            _ if only_looks => Makes::Nothing,
            Some(state) => Makes::State(self.number(state)),
            None => Makes::AnyState,
        };
        let role = Role {
            only_looks,
            needs,
            makes,
        };
        self.unplace(role);
        role
    }

    fn number(&mut self, state: S) -> usize {
        let next = self.needed.len();
        let number = *self.states.entry(state).or_insert(next);
        if number == next {
            self.needed.push(0);
            self.made.push(0);
        }
        number
    }

    pub(super) fn place(&mut self, role: Role) {
        if let Some(state) = role.needs {
            self.needed[state] -= 1;
        }
        match role.makes {
            Makes::Nothing => {}
            Makes::State(state) => self.made[state] -= 1,
            Makes::AnyState => self.wild -= 1,
        }
    }

    pub(super) fn unplace(&mut self, role: Role) {
        if let Some(state) = role.needs {
            self.needed[state] += 1;
        }
        match role.makes {
            Makes::Nothing => {}
            Makes::State(state) => self.made[state] += 1,
            Makes::AnyState => self.wild += 1,
        }
    }

    /// Whether something is needed that is not there at the start and that nothing makes.
    pub(super) fn is_hopeless(&self, init: &S) -> bool {
        self.wild == 0
            && self.states.iter().any(|(state, &number)| {
                state != init && self.needed[number] > 0 && self.made[number] == 0
            })
    }

    /// `state`, if it must not be left except by an operation that itself meets the last need of it.
    pub(super) fn last_chance(&self, state: &S) -> Option<LastChance> {
        if self.wild > 0 {
            return None;
        }
        let &state = self.states.get(state)?;
        let needed = self.needed[state];
        (needed > 0 && self.made[state] == 0).then_some(LastChance { state, needed })
    }
}

/// A state that nothing unplaced makes again, and that is still needed.
#[derive(Clone, Copy)]
pub(super) struct LastChance {
    state: usize,
    needed: usize,
}

impl LastChance {
    /// Whether leaving the state by this operation leaves a need unmet.
    pub(super) fn is_missed_by(self, role: Role) -> bool {
        self.needed > usize::from(role.needs == Some(self.state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(needs: Option<char>, makes: Option<char>) -> Hint<char> {
        Hint {
            only_looks: makes.is_none(),
            needs,
            makes,
        }
    }

    #[test]
    fn a_state_is_not_left_while_it_is_needed_and_nothing_makes_it_again() {
        let mut demand = Demand::none();
        let read = demand.add(hint(Some('a'), None));
        let write = demand.add(hint(None, Some('b')));
        let again = demand.add(hint(None, Some('a')));
        assert!(demand.last_chance(&'a').is_none(), "it can be made again");
        demand.place(again);
        assert!(demand.last_chance(&'a').unwrap().is_missed_by(write));
        demand.place(read);
        assert!(
            demand.last_chance(&'a').is_none(),
            "nothing needs it any more"
        );
        demand.unplace(read);
        assert!(demand.last_chance(&'a').is_some());
    }

    #[test]
    fn an_operation_that_meets_the_last_need_may_leave_the_state() {
        let mut demand = Demand::none();
        let swap = demand.add(hint(Some('a'), Some('b')));
        assert!(!demand.last_chance(&'a').unwrap().is_missed_by(swap));
        demand.add(hint(Some('a'), None));
        assert!(demand.last_chance(&'a').unwrap().is_missed_by(swap));
    }

    #[test]
    fn an_operation_that_may_make_any_state_forbids_every_conclusion() {
        let mut demand = Demand::none();
        demand.add(hint(Some('z'), None));
        assert!(demand.is_hopeless(&'a'));
        assert!(!demand.is_hopeless(&'z'), "it is there at the start");
        demand.add(Hint::default());
        assert!(!demand.is_hopeless(&'a'));
        assert!(demand.last_chance(&'z').is_none());
    }
}
