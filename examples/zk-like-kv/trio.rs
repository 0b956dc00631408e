//! The three servers and their ids.
//!
//! A follower's id is made of its address, so whoever knows where the three are knows who is who, also after one of them was replaced or the
//! leader was started again; and an id in a sentence of the library can be said as the address that its operator typed.
//!
//! Invariant: the three differ in address and in id.

use crate::common::operator::with_names;
use kvrep_core::ReplicaId;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// How many servers there are.
pub const SERVERS: usize = 3;

/// The leader's id in its group.
pub const LEADER: ReplicaId = ReplicaId(1);

/// The three servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trio {
    /// The leader, and the two others by their addresses.
    servers: [SocketAddr; SERVERS],
}

impl Trio {
    /// The leader and its two followers.
    ///
    /// # Errors
    /// When they are not three different ones.
    pub fn new(
        leader: SocketAddr,
        followers: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<Self, String> {
        let followers: BTreeSet<SocketAddr> = followers.into_iter().collect();
        let servers: Vec<SocketAddr> = [leader].into_iter().chain(followers).collect();
        let distinct = !servers[1..].contains(&leader);
        let servers = <[SocketAddr; SERVERS]>::try_from(servers).ok();
        let trio = servers
            .filter(|_| distinct)
            .map(|servers| Self { servers })
            .ok_or("são um líder e dois outros servidores, em três endereços")?;
        let [_, one, other] = trio.servers;
        if id_at(one) == id_at(other) {
            return Err(format!(
                "os endereços {one} e {other} dão o mesmo número: escolha outra porta para um deles"
            ));
        }
        Ok(trio)
    }

    /// With another server in the place of a follower.
    ///
    /// # Errors
    /// When that is not one of the followers, or the other one belongs already.
    pub fn with(&self, instead_of: SocketAddr, server: SocketAddr) -> Result<Self, String> {
        let [leader, followers @ ..] = self.servers;
        if !followers.contains(&instead_of) {
            return Err(format!(
                "{instead_of} não é um dos seguidores, que são {} e {}",
                followers[0], followers[1]
            ));
        }
        let others = followers.into_iter().filter(|at| *at != instead_of);
        Self::new(leader, others.chain([server]))
    }

    /// All of them, the leader first.
    #[must_use]
    pub fn servers(&self) -> [SocketAddr; SERVERS] {
        self.servers
    }

    /// Each with its id in the group.
    pub fn members(&self) -> impl Iterator<Item = (ReplicaId, SocketAddr)> {
        let [leader, followers @ ..] = self.servers;
        let followers = followers.map(|at| (id_at(at), at));
        [(LEADER, leader)].into_iter().chain(followers)
    }

    /// The id of the server at this address.
    #[must_use]
    pub fn id_of(&self, address: SocketAddr) -> Option<ReplicaId> {
        let mut members = self.members();
        members.find_map(|(id, at)| (at == address).then_some(id))
    }

    /// What its operator calls the server with this id.
    #[must_use]
    pub fn name_of(&self, id: ReplicaId) -> String {
        let mut members = self.members();
        let found = members.find_map(|(of, at)| (of == id).then_some(at));
        found.map_or_else(|| id.to_string(), |at| at.to_string())
    }

    /// A text in which servers are called by their ids, with their addresses instead.
    #[must_use]
    pub fn named(&self, text: &str) -> String {
        with_names(text, |id| self.name_of(id))
    }
}

/// The id of the follower at this address: neither the leader's nor one that the library keeps for itself.
fn id_at(address: SocketAddr) -> ReplicaId {
    let hash = crc32fast::hash(address.to_string().as_bytes());
    ReplicaId(LEADER.0 + 1 + hash % (ReplicaId::NOBODY.0 - LEADER.0 - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn c3_7_the_leader_is_the_first_whatever_its_port_and_all_agree_on_the_rest() {
        let trio = Trio::new(at(10_098), [at(10_099), at(10_097)]).unwrap();
        assert_eq!(trio.servers(), [at(10_098), at(10_097), at(10_099)]);
        assert_eq!(trio.id_of(at(10_098)), Some(LEADER));
        assert_eq!(
            trio,
            Trio::new(at(10_098), [at(10_097), at(10_099)]).unwrap()
        );
        assert_eq!(trio.id_of(at(1)), None);
        assert!(Trio::new(at(1), [at(2)]).is_err());
        assert!(Trio::new(at(1), [at(1), at(2)]).is_err());
        assert!(Trio::new(at(1), [at(2), at(3), at(4)]).is_err());
    }

    #[test]
    fn ids_are_of_addresses_so_they_stay_when_another_server_takes_a_place() {
        let mut ids = BTreeSet::new();
        for port in 1..=u16::MAX {
            ids.insert(id_at(at(port)));
        }
        assert_eq!(ids.len(), usize::from(u16::MAX));
        let reserved = [LEADER, ReplicaId::WITNESS, ReplicaId::NOBODY];
        assert!(reserved.iter().all(|id| !ids.contains(id)));
        let before = Trio::new(at(1), [at(2), at(3)]).unwrap();
        let after = before.with(at(3), at(4)).unwrap();
        assert_eq!(after.servers(), [at(1), at(2), at(4)]);
        assert_eq!(after.id_of(at(2)), before.id_of(at(2)));
        for (dead, by) in [
            (at(1), at(4)),
            (at(5), at(4)),
            (at(3), at(2)),
            (at(3), at(1)),
        ] {
            assert!(before.with(dead, by).is_err(), "{by} instead of {dead}");
        }
    }

    #[test]
    fn ids_in_a_sentence_become_addresses() {
        let trio = Trio::new(at(1), [at(2), at(3)]).unwrap();
        let (id, stranger) = (trio.id_of(at(3)).unwrap(), ReplicaId(77));
        let text = format!("{LEADER} waits for [{id}] and {stranger}");
        assert_eq!(
            trio.named(&text),
            "127.0.0.1:1 waits for [127.0.0.1:3] and n77"
        );
    }
}
