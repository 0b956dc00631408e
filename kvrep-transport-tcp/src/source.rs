//! Which of the machine's addresses a connection to a peer comes from.
//!
//! A replica that listens on one address of several also dials from it, so that the others, and their firewalls, see
//! one address per replica. [`TcpConfig::dial_from`](crate::TcpConfig::dial_from) says another.

use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::net::{TcpSocket, TcpStream, lookup_host};

/// The address to dial from, and how strictly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// The system chooses.
    Any,
    /// Follows from where the transport listens: right where it can be used at all.
    Listener(IpAddr),
    /// The operator's word.
    Given(IpAddr),
}

impl Source {
    pub(crate) fn new(given: Option<IpAddr>, listener: Option<SocketAddr>) -> Self {
        match (given, listener.map(|listener| listener.ip())) {
            (Some(given), _) => Self::Given(given),
            (None, Some(listener)) if !listener.is_unspecified() => Self::Listener(listener),
            (None, Some(_) | None) => Self::Any,
        }
    }

    /// Checks that the machine has this address.
    pub(crate) fn check(self) -> io::Result<()> {
        match self {
            Self::Given(from) => socket(from).map(drop),
            Self::Any | Self::Listener(_) => Ok(()),
        }
    }

    /// Connects to `address` (`HOST:PORT`), trying all that it stands for in turn.
    pub(crate) async fn connect(self, address: &str) -> io::Result<TcpStream> {
        let mut failed = None;
        for to in lookup_host(address).await? {
            let connected = match self.towards(to.ip()) {
                Towards::From(from) => match socket(from) {
                    Ok(socket) => socket.connect(to).await,
                    Err(error) => Err(error),
                },
                Towards::FromAny => TcpStream::connect(to).await,
                Towards::Unreachable(from) => Err(io::Error::new(
                    io::ErrorKind::AddrNotAvailable,
                    format!(
                        "{to} cannot be dialled from {from}: they are not both IPv4 or both IPv6"
                    ),
                )),
            };
            match connected {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "the name stands for no address")
        }))
    }

    fn towards(self, to: IpAddr) -> Towards {
        match self {
            Self::Any => Towards::FromAny,
            Self::Given(from) if from.is_ipv4() == to.is_ipv4() => Towards::From(from),
            Self::Given(from) => Towards::Unreachable(from),
            // What only this machine can reach answers nobody else.
            Self::Listener(from)
                if from.is_ipv4() == to.is_ipv4() && from.is_loopback() == to.is_loopback() =>
            {
                Towards::From(from)
            }
            Self::Listener(_) => Towards::FromAny,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Towards {
    From(IpAddr),
    FromAny,
    Unreachable(IpAddr),
}

fn socket(from: IpAddr) -> io::Result<TcpSocket> {
    let socket = match from {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind((from, 0).into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_listeners_address_is_dialled_from_where_it_can_be() {
        let source = |listener: &str| Source::new(None, Some(listener.parse().unwrap()));
        assert_eq!(source("0.0.0.0:1"), Source::Any);
        assert_eq!(source("[::]:1"), Source::Any);
        let listener = source("10.0.0.1:1");
        assert_eq!(
            listener.towards(ip("10.0.0.2")),
            Towards::From(ip("10.0.0.1"))
        );
        assert_eq!(listener.towards(ip("127.0.0.1")), Towards::FromAny);
        assert_eq!(listener.towards(ip("fd00::2")), Towards::FromAny);
        assert_eq!(
            source("127.0.0.1:1").towards(ip("10.0.0.2")),
            Towards::FromAny
        );
    }

    #[tokio::test]
    async fn an_address_that_was_given_is_never_left_out() {
        let source = Source::new(Some(ip("::1")), Some("10.0.0.1:1".parse().unwrap()));
        assert_eq!(source, Source::Given(ip("::1")));
        let error = source.connect("127.0.0.1:1").await.unwrap_err();
        assert!(error.to_string().contains("not both IPv4"), "{error}");
    }
}
