//! What a client is told when a protocol refuses.

use crate::client_wire::Outcome;
use crate::error::{ProposeError, ReadError};
use crate::manage::Managed;

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
