//! Where a node is, which is also who it is.
//!
//! A node is known by its `host:port`, so its replica id is made of that: the last two bytes of the address, then the
//! port. Three things follow. Ids are in the order of the addresses, so ties in a takeover go to the lowest
//! `host:port` (Decision A2.18). Two nodes of a group cannot have the same id, as long as all live in one network of 65,536
//! addresses (a /16, as is usual for a data centre's); whoever is to follow a leader elsewhere is told so at the start.
//! And an id tells the address, so that a node which restarts finds the others without a list.
//!
//! Only IPv4, for that is what the text's sockets are (AF_INET): a name that stands for several addresses is taken for its
//! first of those.

use crate::common::operator::with_names;
use kvrep_core::ReplicaId;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs as _};

/// Where a node listens, as the others reach it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place(SocketAddrV4);

impl Place {
    /// Finds `HOST:PORT`.
    ///
    /// # Errors
    /// When it is not of that form, or the host has no IPv4 address.
    pub fn find(text: &str) -> Result<Self, String> {
        let addresses = text
            .to_socket_addrs()
            .map_err(|e| format!("{text}: {e}; write HOST:PORT, such as localhost:8000"))?;
        // `localhost` is often ::1 first.
        let place = addresses.filter_map(|address| match address {
            SocketAddr::V4(address) => Some(Self(address)),
            SocketAddr::V6(_) => None,
        });
        let mut place = place;
        place
            .next()
            .ok_or_else(|| format!("{text} has no IPv4 address; this store speaks IPv4 only"))
    }

    /// `IP:PORT`, without asking the system for names.
    #[must_use]
    pub fn find_number(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }

    /// The replica there.
    ///
    /// # Errors
    /// When nobody can be reached there: an address that stands for all of a machine's, or port 0.
    pub fn replica(self) -> Result<ReplicaId, String> {
        if self.0.ip().is_unspecified() {
            return Err(format!(
                "{self} stands for all addresses of this machine: say with --advertise HOST:PORT under which one the others reach it"
            ));
        }
        if self.0.port() == 0 {
            return Err(format!(
                "{self}: choose a port, other nodes must find this one there"
            ));
        }
        let [_, _, high, low] = self.0.ip().octets();
        let [port_high, port_low] = self.0.port().to_be_bytes();
        let id = ReplicaId(u32::from_be_bytes([high, low, port_high, port_low]));
        if [ReplicaId::WITNESS, ReplicaId::NOBODY].contains(&id) {
            return Err(format!("{self}: choose a port below 65534 on this address"));
        }
        Ok(id)
    }

    /// Where a replica of this node's group is.
    #[must_use]
    pub fn of(self, replica: ReplicaId) -> Self {
        let [first, second, _, _] = self.0.ip().octets();
        let [third, fourth, port_high, port_low] = replica.0.to_be_bytes();
        let address = Ipv4Addr::new(first, second, third, fourth);
        Self(SocketAddrV4::new(
            address,
            u16::from_be_bytes([port_high, port_low]),
        ))
    }

    /// Checks that this node may belong to the group of a node there.
    ///
    /// # Errors
    /// Why not.
    pub fn may_follow(self, leader: Self) -> Result<(), String> {
        let network = |place: Self| [place.0.ip().octets()[0], place.0.ip().octets()[1]];
        if self == leader {
            Err(format!(
                "{self} cannot follow itself: leave the leader out to start as one"
            ))
        } else if self.0.ip().is_loopback() && !leader.0.ip().is_loopback() {
            Err(format!(
                "{leader} cannot reach {self}, which is this machine only: listen on an address that the leader can reach"
            ))
        } else if network(self) == network(leader) {
            Ok(())
        } else {
            Err(format!(
                "{self} and {leader} are not in one /16 network, as the nodes of a store must be (their ids are made of their addresses)"
            ))
        }
    }

    /// Its port.
    #[must_use]
    pub fn port(self) -> u16 {
        self.0.port()
    }

    /// A text in which replicas are called by their ids, with their addresses instead.
    #[must_use]
    pub fn named(self, text: &str) -> String {
        with_names(text, |id| self.of(id).to_string())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        Place::find(text).expect(text)
    }

    #[test]
    fn c2_10_localhost_is_an_ipv4_address() {
        assert_eq!(place("localhost:8000"), place("127.0.0.1:8000"));
        assert!(Place::find("[::1]:8000").is_err());
        for wrong in ["localhost", "localhost:99999", "no such host:1", ""] {
            let why = Place::find(wrong).expect_err(wrong);
            assert!(why.contains("HOST:PORT"), "{why}");
        }
    }

    #[test]
    fn a2_18_ids_are_in_the_order_of_addresses_and_tell_them() {
        let places = [
            "10.1.0.1:9000",
            "10.1.0.2:80",
            "10.1.0.2:8000",
            "10.1.2.0:1",
        ]
        .map(place);
        let ids = places.map(|place| place.replica().expect("an id"));
        assert!(ids.is_sorted(), "{ids:?}");
        for (place, id) in places.iter().zip(ids) {
            assert_eq!(places[0].of(id), *place);
        }
    }

    #[test]
    fn whoever_cannot_belong_to_a_group_is_told_why() {
        assert!(
            place("127.0.0.1:8001")
                .may_follow(place("127.0.0.1:8000"))
                .is_ok()
        );
        for (me, leader, why) in [
            ("127.0.0.1:8000", "localhost:8000", "itself"),
            ("127.0.0.1:8000", "10.0.0.1:8000", "this machine only"),
            ("10.1.0.1:8000", "10.2.0.1:8000", "/16"),
        ] {
            let told = place(me).may_follow(place(leader)).expect_err(why);
            assert!(told.contains(why), "{told}");
        }
        assert!(
            place("0.0.0.0:8000")
                .replica()
                .expect_err("nobody")
                .contains("--advertise")
        );
        assert!(
            place("127.0.0.1:0")
                .replica()
                .expect_err("no port")
                .contains("port")
        );
        assert!(
            place("10.0.255.255:65535").replica().is_err(),
            "that is the witness's"
        );
    }

    #[test]
    fn ids_in_a_sentence_become_addresses() {
        let id = place("127.0.0.1:8001").replica().expect("an id");
        let text = format!("{id} and n: running on n4x, un{}", id.0);
        let named = place("127.0.0.1:8000").named(&text);
        assert!(
            named.starts_with("127.0.0.1:8001 and n: running on "),
            "{named}"
        );
        assert!(named.ends_with(&format!("un{}", id.0)), "{named}");
    }
}
