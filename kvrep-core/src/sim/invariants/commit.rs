//! A commit point never goes back within a life; and what was decided is removed neither from the log of a member of the
//! in-sync set, nor from that of a replica that knew it to be decided. (A replica that was dropped may follow a
//! deposed primary for a while, and cut off what was decided after its time; it is not counted.)

use super::{Invariant, Life, Sight, World};
use crate::id::Index;
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct CommitNeverGoesBack {
    commit: BTreeMap<Life, Index>,
    repairs: Repairs,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Repairs {
    #[default]
    None,
    /// Whoever does not count may begin anew.
    OfTheDropped,
}

impl CommitNeverGoesBack {
    pub(super) fn under_repair() -> Self {
        Self {
            repairs: Repairs::OfTheDropped,
            ..Self::default()
        }
    }
}

impl Invariant for CommitNeverGoesBack {
    fn rule(&self) -> &'static str {
        "commit is never truncated"
    }

    fn see(&mut self, sight: &Sight<'_>, world: &World<'_>) -> Result<(), String> {
        match sight {
            Sight::Started(life) => {
                self.commit.retain(|old, _| old.replica != life.replica);
                self.commit.insert(*life, Index::ZERO);
                Ok(())
            }
            Sight::Status { life, status, .. } => {
                let before = self.commit.entry(*life).or_default();
                if status.commit < *before && self.repairs == Repairs::None {
                    return Err(format!(
                        "{life} goes back from commit {before} to {}",
                        status.commit
                    ));
                }
                *before = status.commit;
                Ok(())
            }
            Sight::Removed { life, point } if world.agreed.at(point.index) == Some(*point) => {
                let known = self.commit.get(life).copied().unwrap_or_default();
                let counted = world
                    .newest
                    .is_some_and(|c| c.has(life.replica, life.store));
                if counted || (point.index <= known && self.repairs == Repairs::None) {
                    Err(format!("{life} removes {point:?}, which was applied"))
                } else {
                    Ok(())
                }
            }
            _ => Ok(()),
        }
    }
}
