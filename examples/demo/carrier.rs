//! What carries the demo's messages between its processes, and where on it they find each other: a line for each transport.

use super::pair::Over;
use kvrep_core::ReplicaId;
use kvrep_core::node::ClientLink;
use kvrep_core::transport::Transport;
use kvrep_transport_mqtt::{EmbeddedBroker, MqttConfig, MqttGroupLink, MqttTransport};
use kvrep_transport_multicast::{MulticastConfig, MulticastGroupLink, MulticastTransport};
use kvrep_transport_tcp::{TcpConfig, TcpGroupLink, TcpTransport, Unlisted};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::Arc;

/// Where everybody is found.
#[derive(Clone, Debug)]
pub enum Carrier {
    /// Each member at an address of its own.
    Tcp(BTreeMap<ReplicaId, String>),
    /// All at a broker.
    Mqtt(String),
    /// All in a group of the loopback interface.
    Multicast(SocketAddrV4),
}

impl Carrier {
    /// Takes places that nobody else has, for these members; and starts a broker where one is needed, which serves as long as it is held.
    ///
    /// # Errors
    /// What was tried, and what the system said.
    pub fn prepare(
        over: Over,
        members: &[ReplicaId],
    ) -> Result<(Self, Option<EmbeddedBroker>), (String, io::Error)> {
        match over {
            Over::Tcp => Ok((Self::Tcp(free_addresses(members)?), None)),
            Over::Mqtt => {
                let broker = EmbeddedBroker::start("127.0.0.1:0")
                    .map_err(|source| ("cannot start a broker".to_owned(), source))?;
                Ok((Self::Mqtt(broker.address().to_string()), Some(broker)))
            }
            Over::Multicast => Ok((Self::Multicast(free_group()?), None)),
        }
    }

    /// The transport of member `me`.
    ///
    /// # Errors
    /// When nobody said where it is.
    pub fn transport(&self, me: ReplicaId) -> Result<Arc<dyn Transport>, String> {
        Ok(match self {
            Self::Tcp(listed) => Arc::new(TcpTransport::new(tcp(listed, me)?)),
            Self::Mqtt(broker) => Arc::new(MqttTransport::new(MqttConfig::new(broker))),
            Self::Multicast(group) => Arc::new(MulticastTransport::new(multicast(*group))),
        })
    }

    /// A client's way to the passive group of this name.
    #[must_use]
    pub fn link(&self, group: &str) -> Arc<dyn ClientLink> {
        match self {
            Self::Tcp(listed) => Arc::new(TcpGroupLink::new(group, replicas(listed))),
            Self::Mqtt(broker) => Arc::new(MqttGroupLink::new(group, MqttConfig::new(broker))),
            Self::Multicast(at) => Arc::new(MulticastGroupLink::new(group, multicast(*at))),
        }
    }

    /// The address from and at which this member alone speaks, if there is one.
    #[must_use]
    pub fn address_of(&self, member: ReplicaId) -> Option<IpAddr> {
        match self {
            Self::Tcp(listed) => listed
                .get(&member)?
                .parse()
                .ok()
                .map(|at: SocketAddr| at.ip()),
            Self::Mqtt(_) | Self::Multicast(_) => None,
        }
    }

    /// What a process of these members is told of it, on its command line.
    #[must_use]
    pub fn arguments(&self, members: &[ReplicaId]) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut flag = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        for member in members {
            let id = member.0;
            flag(
                "--peer",
                match self {
                    Self::Tcp(listed) => format!("{id}={}", listed[member]),
                    Self::Mqtt(_) | Self::Multicast(_) => id.to_string(),
                },
            );
        }
        match self {
            Self::Tcp(_) => {}
            Self::Mqtt(broker) => flag("--broker", broker.clone()),
            Self::Multicast(group) => flag("--multicast", group.to_string()),
        }
        arguments
    }
}

fn tcp(listed: &BTreeMap<ReplicaId, String>, me: ReplicaId) -> Result<TcpConfig, String> {
    let listen = listed.get(&me).cloned();
    let listen = listen.ok_or("a --peer must say where this process listens")?;
    let config = TcpConfig::new(listen).peers(listed.clone());
    Ok(if me == ReplicaId::WITNESS {
        config.unlisted(Unlisted::Answer)
    } else {
        config
    })
}

/// Clients ask no witness.
fn replicas(listed: &BTreeMap<ReplicaId, String>) -> Vec<String> {
    let replicas = listed.iter().filter(|(id, _)| **id != ReplicaId::WITNESS);
    replicas.map(|(_, address)| address.clone()).collect()
}

fn multicast(group: SocketAddrV4) -> MulticastConfig {
    MulticastConfig::new(group).interface(Ipv4Addr::LOCALHOST)
}

/// A free port for each, every one on a loopback address of its own so that it can be cut off by its address.
fn free_addresses(ids: &[ReplicaId]) -> Result<BTreeMap<ReplicaId, String>, (String, io::Error)> {
    let mut listeners = BTreeMap::new();
    for (at, id) in (1..=250_u8).zip(ids) {
        let host = Ipv4Addr::new(127, 0, 77, at);
        let listener = TcpListener::bind((host, 0))
            .map_err(|source| (format!("cannot listen on {host}"), source))?;
        listeners.insert(*id, listener);
    }
    // Only when all are chosen are they given back, so that no two are equal.
    listeners
        .into_iter()
        .map(|(id, listener)| {
            let address = listener.local_addr();
            let address = address.map_err(|source| ("cannot read a port".to_owned(), source))?;
            Ok((id, address.to_string()))
        })
        .collect()
}

/// A group that nobody else has: its port was free a moment ago.
fn free_group() -> Result<SocketAddrV4, (String, io::Error)> {
    let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    let free = free.map_err(|source| ("no free UDP port".to_owned(), source))?;
    let [a, b, ..] = std::process::id().to_le_bytes();
    Ok(SocketAddrV4::new(
        Ipv4Addr::new(239, 255, a, b),
        free.port(),
    ))
}
