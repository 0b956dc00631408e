//! Equal histories give equal states: what two replicas have carried out and answered up to the same place is the same.

use super::{Invariant, Life, Sight, World};
use crate::id::LogPoint;
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct EqualDigests {
    /// By the place's hash, which names its whole history.
    chained: BTreeMap<(u64, u64), (u64, Life)>,
    whole: BTreeMap<(u64, u64), (u64, Life)>,
}

impl Invariant for EqualDigests {
    fn rule(&self) -> &'static str {
        "equal digests at equal positions"
    }

    fn see(&mut self, sight: &Sight<'_>, _: &World<'_>) -> Result<(), String> {
        match sight {
            Sight::Applied {
                life,
                point,
                digest,
                ..
            } => compare(&mut self.chained, *life, *point, *digest),
            Sight::Digested {
                life,
                point,
                digest,
            } => compare(&mut self.whole, *life, *point, *digest),
            _ => Ok(()),
        }
    }
}

fn compare(
    known: &mut BTreeMap<(u64, u64), (u64, Life)>,
    life: Life,
    point: LogPoint,
    digest: u64,
) -> Result<(), String> {
    let (first, whose) = known
        .entry((point.index.0, point.hash))
        .or_insert((digest, life));
    if *first == digest {
        Ok(())
    } else {
        Err(format!(
            "at {point:?} the state of {life} ({digest:016x}) is not that of {whose} ({first:016x})"
        ))
    }
}
