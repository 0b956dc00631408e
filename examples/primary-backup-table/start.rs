//! What a start is: the beginning of a table, joining the other server, going on from a log, or force.
//!
//! The decision is a pure function of what the directory remembers and what the arguments say:
//!
//! | directory | arguments | start |
//! |---|---|---|
//! | empty | port only | the table begins here: this server is primary |
//! | empty | the primary's address | asks that server who it is, and joins it |
//! | used | any | not by arguments: with a log it goes on from that; without, it joins the other server again and gets the table from there |
//! | used, no log, never a second server | any | refused: nobody has the table |
//!
//! A server that lost its table never begins an empty one by itself; `--force` says that nobody has it any more.

use super::policy::FIRST;
use super::state_dir::{Durability, Record};
use kvrep_core::ReplicaId;

/// What the arguments say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The server's port.
    pub port: u16,
    /// Where the primary is, for a secondary.
    pub primary: Option<String>,
    /// Whether there is a log.
    pub durability: Durability,
    /// Whether the operator says that whoever is missing never returns.
    pub force: Force,
}

/// Whether a server serves with what it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Force {
    /// It waits for those that its rules demand.
    #[default]
    No,
    /// It does not.
    Yes,
}

/// How a server starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// The table begins, with this server as the primary.
    Begin,
    /// It asks the server there who it is, and joins it. `replica` is who this one is, if it was drawn already.
    Meet {
        /// Where the other server is.
        address: String,
        /// Who this one is.
        replica: Option<ReplicaId>,
    },
    /// It joins a server that it knows; with a log, unless that was lost, it just goes on.
    Return {
        /// The other one.
        peer: (ReplicaId, String),
    },
    /// It goes on from its log, alone as it was.
    Resume,
    /// It serves with what it has.
    Force {
        /// The other one, if there was one.
        peer: Option<(ReplicaId, String)>,
    },
}

/// The plan of a start.
///
/// # Errors
/// Why there is none, and what to do.
pub fn plan(record: Option<&Record>, wanted: &Wanted) -> Result<Plan, String> {
    let Some(record) = record else {
        return match (&wanted.primary, wanted.force) {
            (None, _) => Ok(Plan::Begin),
            (Some(address), Force::No) => Ok(Plan::Meet {
                address: address.clone(),
                replica: None,
            }),
            (Some(_), Force::Yes) => Err(
                "--force makes a server go on alone; this one is new, and has nothing to go on with: leave --force out, or the primary's address".into(),
            ),
        };
    };
    if record.port != wanted.port {
        return Err(format!(
            "this directory belongs to the server on port {}; choose another with --data",
            record.port
        ));
    }
    if record.durable && wanted.durability == Durability::Memory {
        return Err(
            "this server keeps a log, which would be lost without --durable; add --durable, or choose another directory with --data".into(),
        );
    }
    let peer = record.peer.map(ReplicaId).zip(record.peer_address.clone());
    let replica = ReplicaId(record.replica);
    match (wanted.force, peer) {
        (Force::Yes, peer) => Ok(Plan::Force { peer }),
        (Force::No, Some(peer)) => Ok(Plan::Return { peer }),
        // The other one never answered, or nobody wrote down who it is.
        (Force::No, None) => match wanted.primary.clone().or(record.peer_address.clone()) {
            Some(address) => Ok(Plan::Meet {
                address,
                replica: Some(replica),
            }),
            None if record.durable => Ok(Plan::Resume),
            None => Err(
                "nobody has the table any more: it was in this server's memory, and there was no second server. Start it with --force to begin with an empty table".into(),
            ),
        },
    }
}

/// Who a server is that the directory does not know yet. The one that begins the table is always the same, unless there is a witness; the others
/// differ, so that two of them can be told apart.
///
/// A witness hears of all who were given its address, also of one that was to begin another table there. Two that call themselves the same are one to it, and
/// the later life ends the earlier: so with a witness nobody has a number that another one may have. Without one, nobody hears of a stranger but
/// those that know its address, and that the number is the same shows them that the server there began anew.
#[must_use]
pub fn draw(plan: &Plan, witness: Option<&str>) -> ReplicaId {
    use std::hash::{BuildHasher, RandomState};
    match (plan, witness) {
        (Plan::Begin, None) => FIRST,
        (Plan::Begin, Some(_))
        | (Plan::Meet { .. } | Plan::Return { .. } | Plan::Resume | Plan::Force { .. }, _) => {
            let drawn = RandomState::new().hash_one(0_u8) % u64::from(DRAWN_MAX - FIRST.0);
            ReplicaId(FIRST.0 + 1 + u32::try_from(drawn).unwrap_or_default())
        }
    }
}

/// Small enough to be read, and large enough that two that share a witness are not the same by chance.
const DRAWN_MAX: u32 = 999_999_999;

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(primary: Option<&str>) -> Wanted {
        Wanted {
            port: 5_000,
            primary: primary.map(str::to_owned),
            durability: Durability::Memory,
            force: Force::No,
        }
    }

    fn used(peer: Option<u32>) -> Record {
        let mut record = Record::new(5_000, FIRST, Durability::Memory);
        record.peer = peer;
        record.peer_address = peer.map(|_| "h:5001".into());
        record
    }

    /// R1.34, A1.3: the initial role comes from the arguments.
    #[test]
    fn arguments_decide_the_role_in_an_empty_directory() {
        assert_eq!(plan(None, &wanted(None)), Ok(Plan::Begin));
        let meet = Plan::Meet {
            address: "h:5000".into(),
            replica: None,
        };
        assert_eq!(plan(None, &wanted(Some("h:5000"))), Ok(meet.clone()));
        assert_eq!(draw(&Plan::Begin, None), FIRST);
        for _ in 0..1_000 {
            for (plan, witness) in [(&meet, None), (&Plan::Begin, Some("h:7000"))] {
                let drawn = draw(plan, witness);
                assert!(drawn > FIRST && drawn.0 <= DRAWN_MAX, "{drawn}");
            }
        }
    }

    /// A1.6, C1.7: and only there.
    #[test]
    fn arguments_make_no_primary_of_a_server_that_was_one_of_a_pair() {
        let back = Plan::Return {
            peer: (ReplicaId(9), "h:5001".into()),
        };
        for arguments in [None, Some("h:1")] {
            assert_eq!(
                plan(Some(&used(Some(9))), &wanted(arguments)),
                Ok(back.clone())
            );
        }
        let lost = plan(Some(&used(None)), &wanted(None)).expect_err("nobody has it");
        assert!(lost.contains("--force"), "{lost}");
        let mut log = used(None);
        log.durable = true;
        let mut durable = wanted(None);
        durable.durability = Durability::Log;
        assert_eq!(plan(Some(&log), &durable), Ok(Plan::Resume));
        let forgotten = plan(Some(&log), &wanted(None)).expect_err("the log");
        assert!(forgotten.contains("--durable"), "{forgotten}");
    }

    #[test]
    fn force_is_for_a_server_that_has_been_one_and_a_directory_is_of_one_port() {
        let mut forced = wanted(None);
        forced.force = Force::Yes;
        assert_eq!(
            plan(Some(&used(None)), &forced),
            Ok(Plan::Force { peer: None })
        );
        forced.primary = Some("h:1".into());
        assert!(plan(None, &forced).is_err());
        let mut elsewhere = wanted(None);
        elsewhere.port = 5_001;
        let other = plan(Some(&used(None)), &elsewhere).expect_err("another port");
        assert!(other.contains("port 5000"), "{other}");
    }
}
