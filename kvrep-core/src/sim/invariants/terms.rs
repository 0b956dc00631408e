//! A term never goes back: not within a life, and not over a restart once it was durable.

use super::{Invariant, Sight, World};
use crate::id::{Incarnation, ReplicaId, StoreId, Term};
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct TermNeverGoesBack {
    of: BTreeMap<(ReplicaId, StoreId), Terms>,
}

#[derive(Default)]
struct Terms {
    life: Incarnation,
    seen: Term,
    durable: Term,
}

impl Invariant for TermNeverGoesBack {
    fn rule(&self) -> &'static str {
        "a term never goes back"
    }

    fn see(&mut self, sight: &Sight<'_>, _: &World<'_>) -> Result<(), String> {
        let Sight::Status {
            life,
            settled,
            status,
        } = sight
        else {
            return Ok(());
        };
        let terms = self.of.entry((life.replica, life.store)).or_default();
        if terms.life != life.incarnation {
            // What was not durable yet may be gone.
            terms.life = life.incarnation;
            terms.seen = terms.durable;
        }
        if status.term < terms.seen {
            return Err(format!(
                "{life} goes back from term {} to {}",
                terms.seen, status.term
            ));
        }
        terms.seen = status.term;
        if *settled {
            terms.durable = status.term;
        }
        Ok(())
    }
}
