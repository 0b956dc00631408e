//! What an operator asks of a running group, and what becomes of it.
//!
//! A request may be given to any replica, over the client's wire or in its process: whoever is not primary says who
//! is. Each is carried out as a change of the [`Configuration`] through the group's authority, so it is safe whatever
//! fails meanwhile; a request whose answer is lost is *unknown*, and the next status tells.

use crate::id::{Configuration, MemberKind, ReplicaId};
use serde::{Deserialize, Serialize};

/// A request of an operator. Changes no data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Manage {
    /// The primary is to hand over to another member of the in-sync set: it takes no more writes, waits until
    /// everything it took is committed and the other has it, and steps down. No request fails of it.
    Handover {
        /// To whom; without a name, to the member that has most.
        to: Option<ReplicaId>,
    },
    /// A replica is to belong to the group from now on, or as another kind of member. It need not run yet; when it does, it
    /// is shipped to.
    Add {
        /// Which.
        id: ReplicaId,
        /// As what.
        kind: MemberKind,
    },
    /// A replica is to belong no more, dead or alive. The primary hands over first if it is asked itself.
    Remove(ReplicaId),
    /// A dead member's place goes to another replica, in one step. Refused while the old one lives.
    Replace {
        /// Which is dead.
        dead: ReplicaId,
        /// Which takes its place, as the same kind of member.
        by: ReplicaId,
    },
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Managed {
    /// Done (or it was so already); this configuration counts now.
    Done(Configuration),
    /// Not done, and why. Nothing was changed, unless the reason says so.
    Refused(String),
    /// Only the primary can. Nothing was changed.
    NotPrimary {
        /// Who it is, as far as this replica knows.
        primary: Option<ReplicaId>,
    },
    /// Whether it was, or will be, done is not known: this replica is not primary any more.
    Unknown,
    /// Something else must end first. Nothing was changed; retry a little later.
    Busy,
}
