//! Each (client, number) is carried out once: however often a command is sent, and whichever replicas take it.

use super::{Invariant, Sight, World};

pub(super) struct CarriedOutOnce;

impl Invariant for CarriedOutOnce {
    fn rule(&self) -> &'static str {
        "a command is carried out once"
    }

    fn see(&mut self, sight: &Sight<'_>, _: &World<'_>) -> Result<(), String> {
        match sight {
            Sight::Applied {
                life,
                point,
                twice: Some(twice),
                ..
            } => Err(format!(
                "at {point:?} {life} has carried out {twice:?} twice"
            )),
            _ => Ok(()),
        }
    }
}
