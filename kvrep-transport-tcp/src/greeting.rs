//! Who speaks to whom: the transport's own frames, the first ones of a connection in both directions.
//!
//! A peer or client says who it is and whom it means; the answer is a welcome, or a refusal that says why and what to
//! do. The version of the wire is in every frame's header. Afterwards the same kind of frame carries signs of life.

use kvrep_core::transport::LocalPeer;
use kvrep_core::{GroupId, Incarnation, ReplicaId};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Largest body of a frame of this kind.
pub(crate) const GREETING_BYTES_MAX: usize = 512;

/// Longest address that is told or learned: a host name of 253 bytes, and a port.
pub(crate) const ADDRESS_BYTES_MAX: usize = 260;

/// What the transport itself says over a connection: who speaks to whom, whether all fits, and signs of life.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Greeting {
    /// From a dialling replica or witness.
    Peer(PeerHello),
    /// From a client; optional, a request may come first.
    Client {
        /// The group it wants.
        group: GroupId,
    },
    /// The answer when all fits.
    Welcome {
        /// Who was reached.
        replica: ReplicaId,
        /// In which life.
        incarnation: Incarnation,
        /// Largest body of a request that is read.
        request_bytes_max: u64,
    },
    /// The answer when it does not. The connection ends.
    Refused(Refusal),
    /// Are you there?
    Ping,
    /// Yes.
    Pong,
    /// To a member: another one listens there.
    Knows {
        /// Who.
        replica: ReplicaId,
        /// Where: `HOST:PORT`.
        address: String,
    },
    /// To a member, over the connection that it made: it is heard, and cannot be reached where it says that it listens.
    Unreached {
        /// Where it was tried: `HOST:PORT`.
        address: String,
        /// What came of it.
        cause: Cause,
    },
}

/// Why somebody is not reached, as far as the one who tries can see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The machine there answers that nobody does.
    #[error("nobody listens there")]
    NobodyListens,
    /// Nothing came in time.
    #[error("no answer comes from there")]
    NoAnswer,
    /// Another replica, another group, or something else.
    #[error("somebody else listens there")]
    SomebodyElse,
    /// No connection was made: no such name, no way there.
    #[error("no connection leads there")]
    NoWay,
}

/// Who dials, and whom.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PeerHello {
    /// The group it belongs to.
    pub group: GroupId,
    /// Who it is.
    pub from: ReplicaId,
    /// In which life.
    pub incarnation: Incarnation,
    /// Hash of everything the group must agree on; 0 for a witness.
    pub config_hash: u64,
    /// Who is meant.
    pub to: ReplicaId,
    /// Where the others may dial it (`HOST:PORT`), if it knows; an unspecified host is the one that it dials from.
    pub listens: Option<String>,
}

/// Why a connection was refused, told to the refused one. Its text says what to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The address belongs to another group.
    #[error("{replica} there belongs to another group; correct the address, or the group's name")]
    OtherGroup {
        /// Who was reached.
        replica: ReplicaId,
    },
    /// The replicas do not agree on what the whole group must agree on.
    #[error(
        "{replica} there has another group configuration; give all replicas the same authority, ack, takeover, timing \
         and limits"
    )]
    OtherConfiguration {
        /// Who was reached.
        replica: ReplicaId,
        /// The refused one's hash.
        yours: u64,
        /// The refusing one's hash.
        theirs: u64,
    },
    /// The address belongs to another replica.
    #[error("{here} listens there, not {meant}; correct the address of {meant}")]
    WrongReplica {
        /// Who was meant.
        meant: ReplicaId,
        /// Who was reached.
        here: ReplicaId,
    },
    /// The refused one is not among the peers of the refusing one.
    #[error("{replica} there does not list {you} as a peer; add it to the peers of {replica}")]
    NotListed {
        /// Who was reached.
        replica: ReplicaId,
        /// The refused one.
        you: ReplicaId,
    },
    /// Another version of the wire.
    #[error("wire version {theirs} is spoken there; run the same kvrep version everywhere")]
    OtherVersion {
        /// The refusing one's version.
        theirs: u8,
    },
    /// As many clients as allowed are connected.
    #[error(
        "{clients_max} clients are connected there, as many as allowed; try another replica, or later"
    )]
    TooManyClients {
        /// The limit.
        clients_max: u64,
    },
    /// A later life of the refused one has been there.
    #[error(
        "{replica} there has heard a later life of {you}: either another process runs as {you} (stop one of the two; a replica of its own needs an id of its own), or this one's storage is a new one, and the clock here is behind its last start (set it right)"
    )]
    Superseded {
        /// Who was reached.
        replica: ReplicaId,
        /// The refused one.
        you: ReplicaId,
    },
    /// The members there speak another dialect than kvrep's own.
    #[error(
        "{replica} there speaks another dialect (TcpConfig::codec); give all replicas the same"
    )]
    OtherDialect {
        /// Who was reached.
        replica: ReplicaId,
    },
}

impl PeerHello {
    /// One that fits nobody.
    pub(crate) fn sample() -> Self {
        Self {
            group: GroupId(u64::MAX),
            from: ReplicaId::NOBODY,
            incarnation: Incarnation(u64::MAX),
            config_hash: u64::MAX,
            to: ReplicaId::NOBODY,
            listens: Some("a \"quoted\" name:1".into()),
        }
    }

    /// The same as it is heard from there: one who says only that it listens on all its addresses does so on that one, too.
    pub(crate) fn seen_from(mut self, from: SocketAddr) -> Self {
        if let Some(listens) = &mut self.listens
            && let Ok(all) = listens.parse::<SocketAddr>()
            && all.ip().is_unspecified()
        {
            *listens = SocketAddr::new(from.ip(), all.port()).to_string();
        }
        self
    }

    pub(crate) fn new(me: &LocalPeer, to: ReplicaId, listens: Option<String>) -> Self {
        Self {
            group: me.group,
            from: me.replica,
            incarnation: me.incarnation,
            config_hash: me.config_hash,
            to,
            listens,
        }
    }

    /// Whether `me` talks to the one who says this.
    pub(crate) fn check(&self, me: &LocalPeer) -> Result<(), Refusal> {
        let replica = me.replica;
        if self.group != me.group {
            return Err(Refusal::OtherGroup { replica });
        }
        if self.to != replica {
            return Err(Refusal::WrongReplica {
                meant: self.to,
                here: replica,
            });
        }
        if self.from == replica || self.from == ReplicaId::NOBODY {
            return Err(Refusal::NotListed {
                replica,
                you: self.from,
            });
        }
        let (yours, theirs) = (self.config_hash, me.config_hash);
        if yours != theirs && yours != 0 && theirs != 0 {
            return Err(Refusal::OtherConfiguration {
                replica,
                yours,
                theirs,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvrep_core::wire::{self, FrameKind};

    fn me(replica: ReplicaId, config_hash: u64) -> LocalPeer {
        LocalPeer {
            group: GroupId(1),
            replica,
            incarnation: Incarnation(1),
            config_hash,
        }
    }

    #[test]
    fn a_witness_takes_any_configuration_and_is_taken_by_all() {
        let (witness, replica) = (me(ReplicaId::WITNESS, 0), me(ReplicaId(1), 7));
        assert_eq!(
            PeerHello::new(&witness, ReplicaId(1), None).check(&replica),
            Ok(())
        );
        assert_eq!(
            PeerHello::new(&replica, ReplicaId::WITNESS, None).check(&witness),
            Ok(())
        );
    }

    #[test]
    fn each_refusal_names_what_to_do() {
        let (one, two) = (me(ReplicaId(1), 7), me(ReplicaId(2), 8));
        let refused = |hello: PeerHello| hello.check(&two).unwrap_err().to_string();
        let hello = PeerHello::new(&one, ReplicaId(2), None);
        assert!(refused(hello.clone()).contains("the same authority"));
        let wrong = PeerHello {
            to: ReplicaId(3),
            ..hello.clone()
        };
        assert_eq!(
            refused(wrong),
            "n2 listens there, not n3; correct the address of n3"
        );
        let other = PeerHello {
            group: GroupId(2),
            ..hello
        };
        assert!(refused(other).contains("another group"));
    }

    #[test]
    fn greetings_survive_the_wire_and_fit_their_limit() {
        let refusal = Refusal::OtherConfiguration {
            replica: ReplicaId(1),
            yours: u64::MAX,
            theirs: 1,
        };
        for greeting in [
            Greeting::Ping,
            Greeting::Pong,
            Greeting::Refused(refusal),
            Greeting::Knows {
                replica: ReplicaId(7),
                address: "a".repeat(ADDRESS_BYTES_MAX),
            },
            Greeting::Unreached {
                address: "a".repeat(ADDRESS_BYTES_MAX),
                cause: Cause::NoWay,
            },
        ] {
            let body = wire::own_body(&greeting.to_frame(), FrameKind::Handshake).unwrap();
            assert!(body.len() <= GREETING_BYTES_MAX);
            assert_eq!(Greeting::from_body(&body), Some(greeting));
        }
        assert_eq!(Greeting::from_body(b"\xff\xff"), None);
    }

    #[test]
    fn a_ping_has_these_bytes() {
        let hex: String = Greeting::Ping
            .to_frame()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert!(hex.starts_with("4b565250020400000000000"), "{hex}");
        assert!(hex.ends_with("04"), "{hex}");
    }

    #[test]
    fn who_listens_on_all_its_addresses_is_dialled_at_the_one_it_came_from() {
        let from = "10.1.2.3:54321".parse().unwrap();
        let seen = |listens: &str| {
            let hello = PeerHello::new(&me(ReplicaId(1), 7), ReplicaId(2), Some(listens.into()));
            hello.seen_from(from).listens.unwrap()
        };
        assert_eq!(seen("0.0.0.0:7001"), "10.1.2.3:7001");
        assert_eq!(seen("[::]:7001"), "10.1.2.3:7001");
        assert_eq!(seen("10.9.9.9:7001"), "10.9.9.9:7001");
        assert_eq!(seen("n1.example:7001"), "n1.example:7001");
    }
}
