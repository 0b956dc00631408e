//! Acknowledged means durable: at the moment of the acknowledgement the entry is on the disk of every member of the
//! in-sync set, as the acknowledging primary knows it and as the witness's register says. And nobody ever reports
//! that acknowledged writes were lost.
//!
//! (That every acknowledged write is in the final history, once, is checked in the end.)

use super::{Invariant, Life, Sight, World};
use crate::config::Token;
use crate::id::Configuration;
use crate::protocol::Event;

pub(super) struct AcknowledgedMeansDurable;

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
                let sets = [*configuration, world.register];
                for set in sets.into_iter().flatten() {
                    everybody_has(*life, *token, set, world)?;
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
