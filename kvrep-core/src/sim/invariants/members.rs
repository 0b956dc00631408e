//! Only full members count, and only who counts serves: a learner or a replica that was removed never does.

use super::{Invariant, Sight, World};

pub(super) struct OnlyFullMembersCount;

impl Invariant for OnlyFullMembersCount {
    fn rule(&self) -> &'static str {
        "only full members count"
    }

    fn see(&mut self, sight: &Sight<'_>, _: &World<'_>) -> Result<(), String> {
        let Sight::Status { life, status, .. } = sight else {
            return Ok(());
        };
        let Some(configuration) = &status.configuration else {
            return Ok(());
        };
        if let Some(id) = configuration
            .in_sync
            .keys()
            .find(|id| !configuration.is_full(**id))
        {
            return Err(format!(
                "{life} knows {configuration:?}, in which {id} counts"
            ));
        }
        if status.serving && !configuration.is_full(life.replica) {
            return Err(format!("{life} serves in {configuration:?}"));
        }
        Ok(())
    }
}
