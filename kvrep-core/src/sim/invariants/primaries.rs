//! One primary per term: in a term one replica serves, in one life of it.

use super::{Invariant, Life, Sight, World};
use crate::id::Term;
use crate::protocol::Role;
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct OnePrimaryPerTerm {
    primaries: BTreeMap<Term, Life>,
}

impl Invariant for OnePrimaryPerTerm {
    fn rule(&self) -> &'static str {
        "one primary per term"
    }

    fn see(&mut self, sight: &Sight<'_>, _: &World<'_>) -> Result<(), String> {
        let Sight::Status { life, status, .. } = sight else {
            return Ok(());
        };
        if status.role != Role::Primary {
            return Ok(());
        }
        let first = self.primaries.entry(status.term).or_insert(*life);
        if first == life {
            Ok(())
        } else {
            Err(format!(
                "{life} is primary in term {}, in which {first} was",
                status.term
            ))
        }
    }
}
