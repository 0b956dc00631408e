//! A commit point never goes back within a life, and what was decided is never removed from a log.

use super::{Invariant, Life, Sight, World};
use crate::id::Index;
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct CommitNeverGoesBack {
    commit: BTreeMap<Life, Index>,
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
                if status.commit < *before {
                    return Err(format!(
                        "{life} goes back from commit {before} to {}",
                        status.commit
                    ));
                }
                *before = status.commit;
                Ok(())
            }
            Sight::Removed { life, point } if world.agreed.at(point.index) == Some(*point) => {
                Err(format!("{life} removes {point:?}, which was applied"))
            }
            _ => Ok(()),
        }
    }
}
