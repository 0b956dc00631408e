//! A planned handover fails nobody: when a primary has stepped down for its successor, everything that it took is
//! committed. (What is not would end *unknown*.)

use super::{Invariant, Life, Sight, World};
use crate::protocol::Event;

#[derive(Default)]
pub(super) struct HandoverFailsNobody {
    /// Who has stepped down just now.
    stepped_down: Option<Life>,
}

impl Invariant for HandoverFailsNobody {
    fn rule(&self) -> &'static str {
        "a handover fails no request"
    }

    fn see(&mut self, sight: &Sight<'_>, _: &World<'_>) -> Result<(), String> {
        match sight {
            Sight::Reported {
                life,
                event: Event::HandedOver { .. },
            } => {
                self.stepped_down = Some(*life);
                Ok(())
            }
            Sight::Status { life, status, .. } if self.stepped_down == Some(*life) => {
                self.stepped_down = None;
                if status.commit < status.last.index {
                    return Err(format!(
                        "{life} steps down with its log at {} and {} committed",
                        status.last.index, status.commit
                    ));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
