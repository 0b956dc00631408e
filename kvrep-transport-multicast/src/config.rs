//! Settings of a member's part in a multicast group. Group, and what must fit between members, are the same for all; the rest is a
//! process's own.

use crate::datagram::{Heading, PIECES_MAX};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// Which group, over which interface, and how much and how fast.
///
/// ```
/// use kvrep_transport_multicast::MulticastConfig;
/// use std::net::Ipv4Addr;
///
/// let config = MulticastConfig::new("239.255.0.7:7400".parse().unwrap()).interface(Ipv4Addr::LOCALHOST);
/// assert_eq!(config.validate(), Ok(()));
/// let config = MulticastConfig::new("192.0.2.7:7400".parse().unwrap());
/// assert!(config.validate().unwrap_err().contains("224.0.0.0"));
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MulticastConfig {
    /// Where all members listen: an address from 224.0.0.0 to 239.255.255.255, and a port.
    pub group: SocketAddrV4,
    /// The address of the interface over which the group is joined and sent to; without one the system's routes decide.
    pub interface: Option<Ipv4Addr>,
    /// Over how many routers a datagram may go: 1 stays in the local network. 2 by default.
    pub hops_max: u8,
    /// Whether processes on this machine hear what is sent here.
    pub own_host: OwnHost,
    /// See [`MulticastLimits`].
    pub limits: MulticastLimits,
    /// See [`MulticastTiming`].
    pub timing: MulticastTiming,
}

/// Whether other processes on the same machine hear a group's datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OwnHost {
    /// They do: several members may run on one machine.
    #[default]
    Hears,
    /// They do not.
    IsDeaf,
}

/// How much is held, and how much is sent at a time. Nothing is without a bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MulticastLimits {
    /// Largest datagram; what is larger goes in pieces. 1,400 by default, which passes an Ethernet whole; at most 65,507.
    pub datagram_bytes_max: usize,
    /// Largest frame, in both directions. One lost piece loses the frame, and a receiver's buffer holds some 200 KiB by default, so large frames
    /// seldom arrive at once. 64 KiB and a header by default.
    pub frame_bytes_max: usize,
    /// Frames of which pieces are here and others are not, at most; the oldest gives way. 64 by default.
    pub incomplete_max: usize,
    /// Bytes that wait until they may be sent; what does not fit is dropped, and counted. 4 MiB by default.
    pub queue_bytes_max: usize,
    /// Bytes a second that are sent, at most: there is nobody who says that he cannot follow. 125 MB by default, a gigabit a second.
    pub bytes_per_second_max: u64,
    /// Of it, bytes at a time. 128 KiB by default.
    pub burst_bytes_max: u64,
    /// What the system is asked to keep for this process to read; it may grant less. 4 MiB by default.
    pub receive_buffer_bytes: usize,
}

/// How long is waited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MulticastTiming {
    /// How often a member says where it reads what is for it alone. 500 ms by default.
    pub hello_every: Duration,
    /// For how long a member's address stays although another one is told in the name of the same life. A new frame from another one changes it at once.
    /// 3 s by default.
    pub address_kept: Duration,
    /// For how long pieces of a frame wait for the others; after that the next frame that begins to come in pieces ends their wait. 2 s by default.
    pub pieces_kept: Duration,
}

impl MulticastConfig {
    /// The group at this address.
    #[must_use]
    pub fn new(group: SocketAddrV4) -> Self {
        Self {
            group,
            interface: None,
            hops_max: 2,
            own_host: OwnHost::default(),
            limits: MulticastLimits::default(),
            timing: MulticastTiming::default(),
        }
    }

    /// Sets the interface, by its address.
    #[must_use]
    pub fn interface(mut self, address: Ipv4Addr) -> Self {
        self.interface = Some(address);
        self
    }

    /// Sets over how many routers datagrams go.
    #[must_use]
    pub fn hops_max(mut self, hops: u8) -> Self {
        self.hops_max = hops;
        self
    }

    /// Sets whether this machine's other processes hear.
    #[must_use]
    pub fn own_host(mut self, own_host: OwnHost) -> Self {
        self.own_host = own_host;
        self
    }

    /// Sets the limits.
    #[must_use]
    pub fn limits(mut self, limits: MulticastLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the waits.
    #[must_use]
    pub fn timing(mut self, timing: MulticastTiming) -> Self {
        self.timing = timing;
        self
    }

    /// Checks that the values make sense.
    ///
    /// # Errors
    /// A sentence that says what to change.
    pub fn validate(&self) -> Result<(), String> {
        let (l, t) = (&self.limits, &self.timing);
        let group = self.group.ip();
        if !group.is_multicast() {
            return Err(format!(
                "{group} is no multicast address: take one from 224.0.0.0 to 239.255.255.255, such as 239.255.0.1"
            ));
        }
        if self.group.port() == 0 {
            return Err("the group's port must not be 0: all members listen on the same".into());
        }
        if l.datagram_bytes_max < 256 || l.datagram_bytes_max > DATAGRAM_BYTES_MAX {
            return Err(format!(
                "datagram_bytes_max must be from 256 to {DATAGRAM_BYTES_MAX}"
            ));
        }
        let frame_max = self.piece_bytes_max() * usize::from(PIECES_MAX);
        if l.frame_bytes_max < 1_280 || l.frame_bytes_max > frame_max.min(FRAME_BYTES_MAX) {
            let most = frame_max.min(FRAME_BYTES_MAX);
            return Err(format!("frame_bytes_max must be from 1,280 to {most}"));
        }
        if l.incomplete_max == 0 || l.bytes_per_second_max == 0 {
            return Err("incomplete_max and bytes_per_second_max must not be 0".into());
        }
        if l.queue_bytes_max < 2 * l.frame_bytes_max {
            return Err("queue_bytes_max must hold two frames of the largest size".into());
        }
        if l.burst_bytes_max < 2 * l.datagram_bytes_max as u64 {
            return Err("burst_bytes_max must hold two datagrams of the largest size".into());
        }
        if t.hello_every.is_zero() || t.pieces_kept.is_zero() {
            return Err("hello_every and pieces_kept must not be zero".into());
        }
        Ok(())
    }

    /// Bytes of a frame that one datagram carries.
    pub(crate) fn piece_bytes_max(&self) -> usize {
        self.limits
            .datagram_bytes_max
            .saturating_sub(Heading::BYTES)
    }
}

impl Default for MulticastLimits {
    fn default() -> Self {
        Self {
            datagram_bytes_max: 1_400,
            frame_bytes_max: (64 << 10) + kvrep_core::wire::HEADER_BYTES,
            incomplete_max: 64,
            queue_bytes_max: 4 << 20,
            bytes_per_second_max: 125_000_000,
            burst_bytes_max: 128 << 10,
            receive_buffer_bytes: 4 << 20,
        }
    }
}

impl Default for MulticastTiming {
    fn default() -> Self {
        Self {
            hello_every: Duration::from_millis(500),
            address_kept: Duration::from_secs(3),
            pieces_kept: Duration::from_secs(2),
        }
    }
}

/// What fits into a UDP datagram over IPv4.
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// So that [`MulticastLimits::incomplete_max`] bounds memory.
const FRAME_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> MulticastConfig {
        MulticastConfig::new("239.1.2.3:4567".parse().unwrap())
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_reason() {
        assert_eq!(config().validate(), Ok(()));
        let mut zero = config();
        zero.group.set_port(0);
        assert!(zero.validate().unwrap_err().contains("port"));
        for (change, word) in [
            (
                (|l| l.datagram_bytes_max = 70_000) as fn(&mut MulticastLimits),
                "65507",
            ),
            (|l| l.frame_bytes_max = 100, "frame_bytes_max"),
            (|l| l.frame_bytes_max = 2 << 20, "frame_bytes_max"),
            (|l| l.queue_bytes_max = 64 << 10, "two frames"),
            (|l| l.burst_bytes_max = 1_400, "two datagrams"),
            (|l| l.incomplete_max = 0, "incomplete_max"),
        ] {
            let mut wrong = config();
            change(&mut wrong.limits);
            let why = wrong.validate().unwrap_err();
            assert!(why.contains(word), "{why}");
        }
    }
}
