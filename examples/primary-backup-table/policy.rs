//! What the pair agrees on: the answers to the library's four questions, and its limits.

use super::message::Dialect;
use crate::common::conversation::Manners;
use kvrep_core::{
    Ack, Authority, Confirm, GroupConfig, Limits, ReplicaId, Takeover, Timing, Transfer, Visibility,
};
use std::time::Duration;

/// The group's name, for the witness too.
pub const GROUP: &str = "kvrep-table";

/// The server that is started with its port only.
pub const FIRST: ReplicaId = ReplicaId(1);

/// What both servers agree on. `members`: whom this one knows of.
#[must_use]
pub fn group(members: impl IntoIterator<Item = ReplicaId>, authority: Authority) -> GroupConfig {
    let mut group = GroupConfig::new(members, authority);
    // A write is acknowledged when both have it; a secondary that does not confirm is dropped first (R1.10, R1.12).
    group.ack = Ack::AllInSync;
    // A client that finds the primary dead asks the secondary (R1.20, R1.23).
    group.takeover = Takeover::OnClientRequest;
    // Requests wait while a returning server is brought up to date (R1.15).
    group.transfer = Transfer::WorldStopped;
    // Nobody reads what a crash could undo (C1.11).
    group.visibility = Visibility::OnCommit;
    // Reads are the primary's alone (R1.4, R1.7): it asks nobody while its lease lasts.
    group.confirm = Confirm::Lease {
        length: LEASE,
        drift_ppm_max: 1_000,
    };
    group.timing = Timing {
        suspect_after: SUSPECT_AFTER,
        ..Timing::default()
    };
    group.limits = Limits {
        // One primary and exactly one secondary (R1.2).
        members_max: 2,
        command_bytes_max: ANSWER_BYTES_MAX,
        frame_bytes_max: 2 * ANSWER_BYTES_MAX,
        ..Limits::default()
    };
    group
}

/// A silent server counts as `DOWN` after this (C1.4).
pub const SUSPECT_AFTER: Duration = Duration::from_secs(1);

/// How long a takeover waits, at most, for the last primary's right to answer reads to run out.
const LEASE: Duration = Duration::from_millis(500);

/// Largest request of a client.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;

/// Largest answer, as a list of all keys: beyond it the answer is a failure.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;

/// How long a client may be silent.
pub const CLIENT_IDLE_AFTER: Duration = Duration::from_secs(3_600);
/// Clients that are served at a time; one more is hung up on.
pub const CLIENTS_MAX: usize = 4_096;

/// Requests larger than [`LARGE_BYTES`](super::message::LARGE_BYTES) that are being received at a time.
pub const LARGE_REQUESTS_MAX: usize = 64;

/// How long a request may wait, as while a secondary is brought up to date, before its client is hung up on, whose `TIMEOUT` is this: a little
/// less, so that it hears of it instead of guessing.
#[must_use]
pub fn request_within(timeout: Duration) -> Duration {
    timeout * 9 / 10
}

/// How long a request is pursued whose client has said good-bye: it may have closed one direction only, as scripts do.
pub const AFTER_GOODBYE: Duration = Duration::from_secs(1);

/// How long a server waits for its clients.
#[must_use]
pub fn manners() -> Manners {
    Manners {
        idle: CLIENT_IDLE_AFTER,
        ..Manners::default()
    }
}

/// The dialect of this name.
///
/// # Errors
/// The names that there are.
pub fn dialect(name: &str) -> Result<Dialect, String> {
    match name {
        "simples" => Ok(Dialect::Plain),
        "c-prefixo" => Ok(Dialect::Prefixed),
        _ => Err("expected simples or c-prefixo".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primary_backup_table::network_client::TIMEOUT;

    /// A client that waits for `TIMEOUT` hears from the server before it gives up.
    #[test]
    fn nobody_is_held_for_longer_than_a_client_waits() {
        let within = request_within(TIMEOUT);
        assert!(within < TIMEOUT && AFTER_GOODBYE < within);
    }

    /// R1.2, R1.10, R1.15, R1.20: the policies, and that they fit each other.
    #[test]
    fn the_policies_fit_each_other() {
        for authority in [Authority::Alone, Authority::Witness] {
            let group = group([FIRST], authority);
            assert_eq!(group.validate(), Ok(()));
            assert_eq!(group.limits.members_max, 2);
            assert_eq!(group.takeover, Takeover::OnClientRequest);
            assert_eq!(group.transfer, Transfer::WorldStopped);
            assert_eq!(group.ack, Ack::AllInSync);
        }
    }
}
