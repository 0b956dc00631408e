//! What a client is told.

use crate::client_wire::Outcome;
use crate::config::{Limits, Token};
use crate::error::{ProposeError, ReadError};
use crate::manage::Managed;
use crate::session::Applied;

pub(super) fn refusal(error: &ProposeError) -> Outcome {
    match *error {
        ProposeError::NotPrimary { primary } => Outcome::NotPrimary {
            primary,
            address: None,
        },
        ProposeError::Busy => Outcome::Busy,
        ProposeError::TooLarge { bytes, bytes_max } => Outcome::TooLarge {
            bytes: bytes as u64,
            bytes_max: bytes_max as u64,
        },
    }
}

pub(super) fn managed(outcome: Managed) -> Outcome {
    match outcome {
        Managed::Done(configuration) => Outcome::Managed(Box::new(configuration)),
        Managed::Refused(why) => Outcome::Refused(why),
        Managed::NotPrimary { primary } => Outcome::NotPrimary {
            primary,
            address: None,
        },
        Managed::Unknown => Outcome::Unknown,
        Managed::Busy => Outcome::Busy,
    }
}

pub(super) fn unreadable(error: &ReadError) -> Outcome {
    match *error {
        ReadError::NotPrimary { primary } => Outcome::NotPrimary {
            primary,
            address: None,
        },
        ReadError::Busy => Outcome::Busy,
        ReadError::Behind => Outcome::Behind,
        ReadError::NotPromised => Outcome::Refused(error.to_string()),
    }
}

/// What became of a command that was applied, or of a query that was answered.
pub(crate) fn of_applied(applied: Applied, token: Token, limits: &Limits) -> Outcome {
    match applied {
        Applied::Response(response) if response.len() > limits.command_bytes_max => {
            Outcome::ResponseTooLarge {
                bytes: response.len() as u64,
            }
        }
        Applied::Response(response) => Outcome::Done { response, token },
        Applied::Opened(session) => Outcome::Opened { session, token },
        Applied::Closed => Outcome::Closed,
        Applied::Expired => Outcome::SessionExpired,
        Applied::OutOfWindow => Outcome::OutOfWindow,
        Applied::Malformed(why) => Outcome::Malformed(why),
    }
}
