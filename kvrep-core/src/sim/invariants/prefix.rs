//! Prefix agreement: what one replica applies at an index, every replica applies there, forever.

use super::{Invariant, Sight, World};

pub(super) struct PrefixAgreement;

impl Invariant for PrefixAgreement {
    fn rule(&self) -> &'static str {
        "prefix agreement"
    }

    fn see(&mut self, sight: &Sight<'_>, world: &World<'_>) -> Result<(), String> {
        let (life, point) = match sight {
            Sight::Applied { life, point, .. } | Sight::Restored { life, point } => (life, point),
            _ => return Ok(()),
        };
        match world.agreed.at(point.index) {
            Some(first) if first != *point => Err(format!(
                "{life} has {point:?} (hash {:016x}) where {first:?} (hash {:016x}) was applied",
                point.hash, first.hash
            )),
            Some(_) | None => Ok(()),
        }
    }
}
