//! What a replica must never forget: the highest term it has promised, the newest configuration it knows, and the
//! change it has begun.

use crate::id::{Configuration, Index, StoreId, Term};
use crate::state_machine::{Malformed, decode, encode};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HardState {
    pub(super) promised: Term,
    pub(super) configuration: Option<Configuration>,
    pub(super) intent: Option<Configuration>,
    /// Histories differ from here on, though this one was acknowledged; the operator has not said yet to give it up.
    pub(super) refuted: Option<Index>,
    /// Who the storage is since a history in it was thrown away: not the member that was counted with that history. `None`:
    /// its own identity still holds.
    pub(super) renewed: Option<StoreId>,
}

impl HardState {
    pub(super) fn to_bytes(&self) -> Bytes {
        encode(self)
    }

    pub(super) fn from_bytes(bytes: &Bytes) -> Result<Self, Malformed> {
        decode(bytes)
    }

    /// Takes over a configuration if it is newer; an intent that it overtakes is settled. Returns whether anything
    /// changed.
    pub(super) fn learn(&mut self, newer: &Configuration) -> bool {
        if self
            .configuration
            .as_ref()
            .is_some_and(|c| c.rank() >= newer.rank())
        {
            return false;
        }
        self.configuration = Some(newer.clone());
        if self
            .intent
            .as_ref()
            .is_some_and(|i| i.rank() <= newer.rank() || i.origin != newer.origin)
        {
            self.intent = None;
        }
        true
    }
}

/// The one with the higher rank.
pub(super) fn newest<'a>(
    a: Option<&'a Configuration>,
    b: Option<&'a Configuration>,
) -> Option<&'a Configuration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.rank() > a.rank() { b } else { a }),
        (a, b) => a.or(b),
    }
}
