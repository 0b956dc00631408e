//! One primary per term: in a term of a group one replica serves, in one life of it.

use super::{Invariant, Life, Sight, World};
use crate::id::{Origin, Term};
use crate::protocol::Role;
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct OnePrimaryPerTerm {
    primaries: BTreeMap<(Origin, Term), Life>,
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
        let known = status.configuration.as_ref();
        let origin = known.map(|known| known.origin).unwrap_or_default();
        let reign = (origin, status.term);
        let first = self.primaries.entry(reign).or_insert(*life);
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
