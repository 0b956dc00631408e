//! Where the primary is fixed, only that one serves: it alone acknowledges writes and says that it does.

use super::{Invariant, Sight, World};
use crate::id::ReplicaId;

pub(super) struct OnlyHomeServes(pub(super) ReplicaId);

impl Invariant for OnlyHomeServes {
    fn rule(&self) -> &'static str {
        "only the fixed primary serves"
    }

    fn see(&mut self, sight: &Sight<'_>, _: &World<'_>) -> Result<(), String> {
        match sight {
            Sight::Status { life, status, .. } if status.serving && life.replica != self.0 => {
                Err(format!("{life} serves in the place of {}", self.0))
            }
            Sight::Acknowledged { life, token, .. } if life.replica != self.0 => Err(format!(
                "{life} acknowledges {token:?} in the place of {}",
                self.0
            )),
            _ => Ok(()),
        }
    }
}
