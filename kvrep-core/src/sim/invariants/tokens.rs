//! Tokens of one client never go back (but for local reads, which may be of any age).

use super::super::client::goes_back;
use super::{Invariant, Sight, World};
use crate::sim::workload::Freshness;

pub(super) struct TokensNeverGoBack;

impl Invariant for TokensNeverGoBack {
    fn rule(&self) -> &'static str {
        "tokens never go back"
    }

    fn see(&mut self, sight: &Sight<'_>, _: &World<'_>) -> Result<(), String> {
        match sight {
            Sight::Answered {
                client,
                freshness,
                before,
                token,
                ..
            } if *freshness != Some(Freshness::Local) && goes_back(*before, *token) => Err(
                format!("client {client} had seen {before:?} and is given {token:?}"),
            ),
            _ => Ok(()),
        }
    }
}
