//! [`GroupSocket`]: the two sockets of a member of a multicast group. Below the transport, and for systems with datagrams of their own.

use crate::config::{MulticastConfig, OwnHost};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use tokio::net::UdpSocket;

/// Hears a group, and hears and sends as itself.
///
/// One socket is bound to the group's address and port, which any number of processes share; datagrams for other groups do not reach it. The
/// other one is this process's alone: it sends, to the group or to one, and hears what is for it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kvrep_transport_multicast::{GroupSocket, MulticastConfig};
/// use std::net::Ipv4Addr;
///
/// let config = MulticastConfig::new("239.255.0.7:47811".parse()?).interface(Ipv4Addr::LOCALHOST);
/// let (one, other) = (GroupSocket::open(&config)?, GroupSocket::open(&config)?);
/// one.own().send_to(b"hello", config.group).await?;
/// let mut buffer = [0; 16];
/// let (bytes, from) = other.group().recv_from(&mut buffer).await?;
/// assert_eq!((&buffer[..bytes], from), (b"hello".as_slice(), one.own().local_addr()?));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct GroupSocket {
    group: UdpSocket,
    own: UdpSocket,
}

impl GroupSocket {
    /// Opens both, and joins the group. Within a tokio runtime.
    ///
    /// # Errors
    /// When the system refuses: no such interface, or the group's port is another program's that does not share it.
    pub fn open(config: &MulticastConfig) -> io::Result<Self> {
        let interface = config.interface.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let group = socket(config)?;
        group.set_reuse_address(true)?;
        group.bind(&SockAddr::from(config.group))?;
        group.join_multicast_v4(config.group.ip(), &interface)?;
        Ok(Self {
            group: UdpSocket::from_std(group.into())?,
            own: own_socket(config)?,
        })
    }

    /// Only the second one: for a client, which sends to a group and hears what is for it alone. Within a tokio runtime.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn open_own(config: &MulticastConfig) -> io::Result<UdpSocket> {
        own_socket(config)
    }

    /// The socket at the group's address. What is sent over it has the group's port, and this machine's address.
    #[must_use]
    pub fn group(&self) -> &UdpSocket {
        &self.group
    }

    /// The socket at an address of its own.
    #[must_use]
    pub fn own(&self) -> &UdpSocket {
        &self.own
    }

    /// The next datagram at either; `turns` says at which one looks first, so that neither waits for the other.
    pub(crate) async fn receive(
        &self,
        buffer: &mut [u8],
        turns: u32,
    ) -> io::Result<(usize, SocketAddr)> {
        let both = [&self.own, &self.group];
        loop {
            // What is there is taken without asking whether it is.
            let first = (turns % 2) as usize;
            for socket in [both[first], both[1 - first]] {
                match socket.try_recv_from(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    received => return received,
                }
            }
            tokio::select! {
                ready = self.own.readable() => ready?,
                ready = self.group.readable() => ready?,
            }
        }
    }
}

/// One that reads at an address of its own, and hears no group.
pub(crate) fn own_socket(config: &MulticastConfig) -> io::Result<UdpSocket> {
    let own = socket(config)?;
    let interface = config.interface.unwrap_or(Ipv4Addr::UNSPECIFIED);
    own.bind(&SockAddr::from(SocketAddrV4::new(interface, 0)))?;
    UdpSocket::from_std(own.into())
}

fn socket(config: &MulticastConfig) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_multicast_ttl_v4(u32::from(config.hops_max))?;
    socket.set_multicast_loop_v4(config.own_host == OwnHost::Hears)?;
    if let Some(interface) = &config.interface {
        socket.set_multicast_if_v4(interface)?;
    }
    // The system grants what it allows.
    let _ = socket.set_recv_buffer_size(config.limits.receive_buffer_bytes);
    let _ = socket.set_send_buffer_size(config.limits.receive_buffer_bytes);
    Ok(socket)
}
