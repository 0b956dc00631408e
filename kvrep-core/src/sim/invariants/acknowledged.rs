//! Acknowledged means durable: at the moment of the acknowledgement the entry is on the disk of everybody whom the group's
//! [`Ack`] names: every member of the in-sync set, as the acknowledging primary knows it and as the witness's register
//! says; every full member of the group; or the primary alone. And nobody ever reports that acknowledged writes were lost.
//!
//! (That every acknowledged write is in the final history, once, is checked in the end.)

use super::{Invariant, Life, Sight, World};
use crate::config::{Ack, Token};
use crate::id::{Configuration, StoreId};
use crate::protocol::Event;
use std::collections::BTreeSet;

#[derive(Default)]
pub(super) struct AcknowledgedMeansDurable {
    /// Storages that were ever counted. (One that was lost is not the member any more that acknowledged.)
    counted: BTreeSet<StoreId>,
}

impl Invariant for AcknowledgedMeansDurable {
    fn rule(&self) -> &'static str {
        "acknowledged means durable"
    }

    fn see(&mut self, sight: &Sight<'_>, world: &World<'_>) -> Result<(), String> {
        match sight {
            Sight::Acknowledged {
                life,
                token,
                configuration,
            } => {
                let sets = || [*configuration, world.register].into_iter().flatten();
                for set in sets() {
                    self.counted.extend(set.in_sync.values());
                }
                match world.ack {
                    Ack::AllInSync => {
                        for set in sets() {
                            everybody_has(*life, *token, set, world)?;
                        }
                    }
                    Ack::All => {
                        if let Some(configuration) = configuration {
                            self.all_have(*life, *token, configuration, world)?;
                        }
                    }
                    Ack::Primary => {
                        let own = (world.holds)(life.replica, token.index, token.term);
                        if own.is_some_and(|(_, has)| !has) {
                            return Err(format!(
                                "{life} acknowledges {}{}, which is not durable there",
                                token.term, token.index
                            ));
                        }
                    }
                }
                Ok(())
            }
            Sight::Reported {
                life,
                event: event @ Event::AcknowledgedWritesLost { .. },
            } => Err(format!("{life} reports {event:?}")),
            _ => Ok(()),
        }
    }
}

impl AcknowledgedMeansDurable {
    fn all_have(
        &self,
        life: Life,
        token: Token,
        configuration: &Configuration,
        world: &World<'_>,
    ) -> Result<(), String> {
        let members = configuration.members.keys();
        for member in members.filter(|id| configuration.is_full(**id)) {
            if let Some((store, false)) = (world.holds)(*member, token.index, token.term)
                && self.counted.contains(&store)
            {
                return Err(format!(
                    "{life} acknowledges {}{}, which is not durable at {member}",
                    token.term, token.index
                ));
            }
        }
        Ok(())
    }
}

fn everybody_has(
    life: Life,
    token: Token,
    configuration: &Configuration,
    world: &World<'_>,
) -> Result<(), String> {
    for (member, store) in &configuration.in_sync {
        // A member that lost its storage is not the member that was counted.
        if let Some((current, has)) = (world.holds)(*member, token.index, token.term)
            && current == *store
            && !has
        {
            return Err(format!(
                "{life} acknowledges {}{}, which is not durable at {member}, a member of {configuration:?}",
                token.term, token.index
            ));
        }
    }
    Ok(())
}
