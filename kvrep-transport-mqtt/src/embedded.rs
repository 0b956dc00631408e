//! A broker in this process: `rumqttd`, with what kvrep needs.

#[cfg(test)]
mod tests;

use crate::config::{MqttLimits, PAYLOAD_BYTES_MAX};
use bytes::{Bytes, BytesMut};
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::v5::V5;
use rumqttd::protocol::{self, Packet, Protocol};
use rumqttd::{ConnectionSettings, LinkType, Router, RouterConfig, Server, ServerSettings};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tokio::time::interval;
use tracing::warn;

/// An MQTT broker in this process, for tests, demos and trying things out without setting anything up. Speaks MQTT 5 and
/// 3.1.1 on one port.
///
/// ```
/// use kvrep_transport_mqtt::{EmbeddedBroker, MqttConfig};
///
/// # fn main() -> std::io::Result<()> {
/// let broker = EmbeddedBroker::start("127.0.0.1:0")?; // any free port
/// let config = MqttConfig::new(broker.address().to_string());
/// # let _ = config;
/// # Ok(())
/// # }
/// ```
///
/// When it is dropped, it stops listening and ends all connections.
///
/// # Caveats
/// - Everything is kept in memory: up to [`TOPIC_BYTES_MAX`](Self::TOPIC_BYTES_MAX) of the latest messages for each topic or
///   pattern that anybody ever subscribed or published to. A receiver that is further behind loses the older ones without
///   a word. Sessions and retained messages end with it.
/// - A client that says it will give no signs of life (a keep-alive of 0) is disconnected when it was silent for 27 hours. (One of MQTT 5 is told to give one every 18.)
/// - While more than 100 messages wait for a receiver under one of its subscriptions, nothing comes to it under its others: what it is to hear side by side, it
///   subscribes to with one pattern, as kvrep's own connections do.
/// - Who holds 100 unacknowledged deliveries is not answered meanwhile: neither are its publications acknowledged, nor its
///   signs of life.
/// - What is sent to a receiver a second time is not marked as such, and has another number.
/// - A receiver whose connection was cut again and again while much was under way to it has been seen to get nothing more after its
///   session was resumed (one test in eight; whether the fault is the broker's is not known).
/// - Packets are at most as large as those take whose settings are the default ones ([`PACKET_BYTES_MAX`](Self::PACKET_BYTES_MAX)): a larger one would reach every
///   subscriber and end its connection. Clients of MQTT 5 are told so when they connect; whoever publishes a larger packet nevertheless is disconnected, and nobody
///   gets anything of it. A group with larger payloads needs [`start_taking`](Self::start_taking).
/// - Names of topics do not begin with a character beyond ASCII: the library's router ends over such a name, and the broker with it. So whoever publishes there (or
///   leaves a last will there) is disconnected, with a warning.
/// - Should the library's router end all the same, so does the broker: see [`ended`](Self::ended).
/// - The library has no call to end its router: a thread that sleeps, and what it kept, stay until the process ends.
/// - It logs ended connections as errors (`tracing`, target `rumqttd`).
pub struct EmbeddedBroker {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    ended: watch::Receiver<Option<String>>,
    server: Option<JoinHandle<()>>,
}

impl EmbeddedBroker {
    /// Bytes of the latest messages that are kept for a topic. Large, for what does not fit is lost to slow receivers.
    pub const TOPIC_BYTES_MAX: usize = SEGMENT_BYTES * SEGMENTS;

    /// The largest packet that is taken, unless it is said otherwise: a payload of 4 MiB and 64 KiB, with what is around it.
    pub const PACKET_BYTES_MAX: usize = (4 << 20) + (64 << 10) + AROUND_BYTES;

    /// Starts a broker that listens here (`HOST:PORT`; port 0 takes a free one) and takes everybody.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn start(listen: &str) -> io::Result<Self> {
        Self::start_with(listen, None::<(String, String)>)
    }

    /// Starts a broker that takes these users only, with these passwords.
    ///
    /// ```
    /// use kvrep_transport_mqtt::{EmbeddedBroker, MqttConfig};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let broker = EmbeddedBroker::start_with("127.0.0.1:0", [("replica", "secret")])?;
    /// let config = MqttConfig::new(broker.address().to_string()).login("replica", "secret");
    /// # let _ = config;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn start_with<U: Into<String>, P: Into<String>>(
        listen: &str,
        users: impl IntoIterator<Item = (U, P)>,
    ) -> io::Result<Self> {
        let payload_bytes_max = MqttLimits::default().payload_bytes_max;
        Self::start_taking(listen, users, payload_bytes_max)
    }

    /// The same, for payloads of up to this size, which whoever reads them must be set to take, too ([`MqttLimits::payload_bytes_max`]): 1 KiB to 128 MiB.
    ///
    /// # Errors
    /// When the address cannot be listened on, or the size is another one.
    pub fn start_taking<U: Into<String>, P: Into<String>>(
        listen: &str,
        users: impl IntoIterator<Item = (U, P)>,
        payload_bytes_max: usize,
    ) -> io::Result<Self> {
        if !(1_024..=PAYLOAD_BYTES_MAX).contains(&payload_bytes_max) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "payloads have at most 1 KiB to 128 MiB",
            ));
        }
        let packet_bytes_max = payload_bytes_max + AROUND_BYTES;
        let listen = listen.to_socket_addrs()?.next().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "write the address as HOST:PORT",
            )
        })?;
        let users: HashMap<String, String> = users
            .into_iter()
            .map(|(user, password)| (user.into(), password.into()))
            .collect();
        // The library binds by itself and does not say where: a port that was free may be taken meanwhile.
        let attempts = if listen.port() == 0 { 16 } else { 1 };
        let mut failed = None;
        for _ in 0..attempts {
            let probe = TcpListener::bind(listen)?;
            let address = probe.local_addr()?;
            drop(probe);
            match Self::serve(address, users.clone(), packet_bytes_max, routable) {
                Ok(broker) => return Ok(broker),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
    }

    fn serve(
        address: SocketAddr,
        users: HashMap<String, String>,
        packet_bytes_max: usize,
        admit: Admit,
    ) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (failed, failure) = mpsc::channel();
        let (end, ended) = watch::channel(None);
        let server = thread::Builder::new()
            .name("mqtt-broker".into())
            .spawn(move || {
                let served = listen(address, users, (packet_bytes_max, admit), stopped);
                end.send_replace(served.as_ref().err().map(ToString::to_string));
                let _ = failed.send(served);
            })?;
        let broker = Self {
            address,
            stop: Some(stop),
            ended,
            server: Some(server),
        };
        let deadline = Instant::now() + START_WITHIN;
        loop {
            match failure.try_recv() {
                Ok(Err(error)) => return Err(error),
                Ok(Ok(())) | Err(mpsc::TryRecvError::Disconnected) => {
                    return Err(io::Error::other(
                        "the broker ended as soon as it was started",
                    ));
                }
                Err(mpsc::TryRecvError::Empty) => {}
            }
            if TcpStream::connect_timeout(&reachable(address), Duration::from_millis(200)).is_ok() {
                return Ok(broker);
            }
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns when the broker has ended by itself, which it does by a mistake in it only: all connections are closed, and what it kept is gone. A program that is
    /// nothing but a broker ends then, and is started again by whoever watches it.
    ///
    /// # Errors
    /// Always: why it ended, as far as is known.
    pub async fn ended(&self) -> io::Result<()> {
        let mut ended = self.ended.clone();
        let why = ended.wait_for(Option::is_some).await;
        let why = why.ok().and_then(|why| why.clone());
        Err(io::Error::other(
            why.unwrap_or_else(|| "its server panicked".into()),
        ))
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(server) = self.server.take() {
            // Its panic would be a bug that was reported already.
            let _ = server.join();
        }
    }
}

impl std::fmt::Debug for EmbeddedBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EmbeddedBroker({})", self.address)
    }
}

/// Serves until it is told to stop; all connections end with its runtime.
fn listen(
    address: SocketAddr,
    users: HashMap<String, String>,
    (packet_bytes_max, admit): (usize, Admit),
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let router = Router::new(
        0,
        RouterConfig {
            max_connections: CONNECTIONS_MAX,
            max_outgoing_packet_count: 1_024,
            max_segment_size: SEGMENT_BYTES,
            max_segment_count: SEGMENTS,
            ..RouterConfig::default()
        },
    );
    let settings = ServerSettings {
        name: "kvrep".into(),
        listen: address,
        tls: None,
        next_connection_delay_ms: 0,
        connections: ConnectionSettings {
            connection_timeout_ms: 10_000,
            // (Of a packet without its first bytes.)
            max_payload_size: packet_bytes_max - FIRST_BYTES,
            max_inflight_count: 1_024,
            auth: (!users.is_empty()).then_some(users),
            external_auth: None,
            // Without it, who publishes where nobody listens is disconnected.
            dynamic_filters: true,
        },
    };
    let versions = EitherVersion {
        version: None,
        packet_bytes_max: u32::try_from(packet_bytes_max).unwrap_or(u32::MAX),
        signs: Signs::Timed,
        admit,
    };
    let events = router.spawn();
    let to_router = events.clone();
    let mut server = Server::new(settings, events, versions);
    runtime.block_on(async {
        // Its thread is the library's, and tells nobody when it panics.
        let router_ended = async {
            let mut looked = interval(LOOKED_EVERY);
            while !to_router.is_disconnected() {
                looked.tick().await;
            }
        };
        tokio::select! {
            () = router_ended => Err(io::Error::other("its router panicked")),
            served = server.start(LinkType::Remote) => match served {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(io::ErrorKind::AddrInUse, error.to_string())),
            },
            _ = stopped => Ok(()),
        }
    })
}

/// Where this process reaches an address that it listens on.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut reachable = address;
    if address.ip().is_unspecified() {
        reachable.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    reachable
}

/// MQTT 3.1.1 or 5, as the connection's first packet says.
#[derive(Clone)]
struct EitherVersion {
    version: Option<Version>,
    packet_bytes_max: u32,
    signs: Signs,
    admit: Admit,
}

/// Which packets get through.
type Admit = fn(Packet) -> Result<Packet, protocol::Error>;

/// What a client said of its signs of life.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Signs {
    /// How often they come.
    Timed,
    /// That there are none, which the broker's library does not take.
    None,
}

#[derive(Clone, Copy)]
enum Version {
    V4,
    V5,
}

impl Protocol for EitherVersion {
    fn read_mut(
        &mut self,
        stream: &mut BytesMut,
        max_size: usize,
    ) -> Result<Packet, protocol::Error> {
        let version = match self.version {
            Some(version) => version,
            None => {
                let version = version_of(stream)?;
                self.version = Some(version);
                version
            }
        };
        let packet = match version {
            Version::V4 => V4.read_mut(stream, max_size),
            Version::V5 => V5.read_mut(stream, max_size),
        };
        packet
            .and_then(self.admit)
            .map(|packet| self.patient(packet))
    }

    fn write(&self, packet: Packet, write: &mut BytesMut) -> Result<usize, protocol::Error> {
        match self.version {
            Some(Version::V5) => V5.write(self.limited(packet), write),
            Some(Version::V4) | None => V4.write(packet, write),
        }
    }
}

impl EitherVersion {
    /// A client that will give no signs of life is waited for as long as can be said.
    fn patient(&mut self, packet: Packet) -> Packet {
        match packet {
            Packet::Connect(mut connect, properties, will, will_properties, login) => {
                if connect.keep_alive == 0 {
                    self.signs = Signs::None;
                    connect.keep_alive = u16::MAX;
                }
                Packet::Connect(connect, properties, will, will_properties, login)
            }
            other => other,
        }
    }

    /// Tells who connects how large a packet may be, and that a sign of life is wanted now and then.
    fn limited(&self, packet: Packet) -> Packet {
        match packet {
            Packet::ConnAck(connack, properties) => {
                let mut properties = properties.unwrap_or_default();
                properties.max_packet_size = Some(self.packet_bytes_max);
                if self.signs == Signs::None {
                    properties.server_keep_alive = Some(u16::MAX);
                }
                Packet::ConnAck(connack, Some(properties))
            }
            other => other,
        }
    }
}

/// Keeps from the library's router what it would end over: the name of a topic whose first character has several bytes (it looks at the first byte as if it were a text). What
/// is published there goes, emptied, to a topic that nobody hears: so it is acknowledged, and its publisher, who would publish it again on every connection, goes on.
fn routable(mut packet: Packet) -> Result<Packet, protocol::Error> {
    let named = match &mut packet {
        Packet::Publish(publish, _) => Some((
            &mut publish.topic,
            &mut publish.payload,
            &mut publish.retain,
        )),
        Packet::Connect(_, _, Some(will), _, _) => {
            Some((&mut will.topic, &mut will.message, &mut will.retain))
        }
        _ => None,
    };
    if let Some((topic, payload, retain)) = named
        && topic.first().is_some_and(|byte| !byte.is_ascii())
    {
        let shown = String::from_utf8_lossy(&topic[..topic.len().min(SHOWN_BYTES)]);
        warn!(topic = %shown, "the embedded broker takes no topic that begins so: what is published there is dropped");
        (*topic, *payload, *retain) = (Bytes::from_static(UNHEARD), Bytes::new(), false);
    }
    Ok(packet)
}

/// A connection begins with CONNECT: type, length (1 to 4 bytes), 4 as two bytes, "MQTT", the version.
fn version_of(stream: &[u8]) -> Result<Version, protocol::Error> {
    let Some(kind) = stream.first() else {
        return Err(protocol::Error::InsufficientBytes(2));
    };
    if *kind != 0x10 {
        return Err(protocol::Error::InvalidProtocol);
    }
    let length = stream[1..].iter().take(4).position(|byte| byte & 0x80 == 0);
    let Some(length) = length else {
        return Err(if stream.len() >= 5 {
            protocol::Error::InvalidRemainingLength(stream.len())
        } else {
            protocol::Error::InsufficientBytes(1)
        });
    };
    let name = 1 + length + 1;
    let Some(head) = stream.get(name..name + 7) else {
        return Err(protocol::Error::InsufficientBytes(name + 7 - stream.len()));
    };
    match head {
        [0, 4, b'M', b'Q', b'T', b'T', 4] => Ok(Version::V4),
        [0, 4, b'M', b'Q', b'T', b'T', 5] => Ok(Version::V5),
        [.., level] => Err(protocol::Error::InvalidProtocolLevel(*level)),
        [] => Err(protocol::Error::InvalidProtocol),
    }
}

const SEGMENT_BYTES: usize = 32 << 20;
const SEGMENTS: usize = 8;
const CONNECTIONS_MAX: usize = 10_000;
/// What is around a payload in a packet: less than readers take around it, for it may grow by some bytes on its way to them.
const AROUND_BYTES: usize = 4_000;
/// Kind and length of a packet.
const FIRST_BYTES: usize = 5;
const START_WITHIN: Duration = Duration::from_secs(10);
/// How soon it is noticed that the library's router has ended.
const LOOKED_EVERY: Duration = Duration::from_millis(100);
/// No pattern stands for it but one that begins so, too [MQTT 5, 4.7.2].
const UNHEARD: &[u8] = b"$unroutable";
/// Of a name that is told.
const SHOWN_BYTES: usize = 60;
