//! Why an operation was not carried out; each says what it did to the state.
//!
//! The rule for every error of kvrep: the one who gets it must know whether he may simply try again. Errors of a client
//! are in `node` (`ClientError`), those of a storage in [`crate::storage`].
//!
//! ```
//! use kvrep_core::{ProposeError, ReplicaId};
//!
//! fn where_to_go(error: &ProposeError) -> Option<ReplicaId> {
//!     match error {
//!         ProposeError::NotPrimary { primary } => *primary, // nothing was appended: ask that one
//!         _ => None,
//!     }
//! }
//! let error = ProposeError::NotPrimary { primary: Some(ReplicaId(2)) };
//! assert_eq!(where_to_go(&error), Some(ReplicaId(2)));
//! ```

use crate::id::ReplicaId;

/// Why a command was not appended. Nothing was, in every case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Only the primary takes commands.
    #[error("not the primary{}", hint(.primary))]
    NotPrimary {
        /// Who is, as far as this replica knows.
        primary: Option<ReplicaId>,
    },
    /// Too much is in flight. Retry a little later.
    #[error("busy: too many commands in flight; retry")]
    Busy,
    /// The command is larger than `Limits::command_bytes_max`.
    #[error("a command of {bytes} bytes; at most {bytes_max} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
}

/// Why a query was not answered. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Only the primary answers linearizable reads.
    #[error("not the primary{}", hint(.primary))]
    NotPrimary {
        /// Who is, as far as this replica knows.
        primary: Option<ReplicaId>,
    },
    /// Too many reads wait. Retry a little later.
    #[error("busy: too many reads wait; retry")]
    Busy,
    /// The group does not promise such reads, here or elsewhere: with
    /// [`Visibility::OnAppend`](crate::Visibility::OnAppend) there are no linearizable ones.
    #[error("{NOT_PROMISED}")]
    NotPromised,
    /// This replica has not caught up with the token. Ask another one, or later.
    #[error(
        "this replica has not caught up with what was seen, or does not belong to the group (any more); ask another one, or later"
    )]
    Behind,
}

const NOT_PROMISED: &str = "this group shows writes before they are acknowledged (Visibility::OnAppend), so it has no linearizable reads; ask with a token (Read::AtLeast)";

fn hint(primary: &Option<ReplicaId>) -> String {
    primary.map(|p| format!("; {p} is")).unwrap_or_default()
}
