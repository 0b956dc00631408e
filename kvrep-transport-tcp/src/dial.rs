//! Keeps a connection to one peer, to send over.
//!
//! Each member dials every other and sends over what it dialled only; so no two ends ever argue about which of two
//! connections stays. When a connection ends, the next attempt is made at once. If the peer's machine answers that
//! nobody listens there, the process is gone, and the node hears of it in the time of a round trip.
//!
//! Where a member says that it listens elsewhere than was listed (it came back on another machine), both are tried in turn;
//! the listed one stays in the play, for what a member believes of its own address may mean nothing to others.

use crate::codec::{Dialect, MemberFrame};
use crate::config::{Unreachable, Way};
use crate::greeting::{Cause, GREETING_BYTES_MAX, Greeting, PeerHello, Refusal};
use crate::peer::{End, carry};
use crate::reader::{FrameReader, Patience, ReadError};
use crate::shared::{OpenQueue, Peer, Shared};
use bytes::BytesMut;
use kvrep_core::ReplicaId;
use kvrep_core::backoff::Backoff;
use kvrep_core::transport::Hint;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

/// A connection that lasted for less counts as a failure to connect when it happens again and again.
const SHORT: Duration = Duration::from_secs(1);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("{0}")]
    Refused(Refusal),
    #[error(
        "something else than kvrep {here} listens there ({why}); correct the address of {here}"
    )]
    Stranger { here: ReplicaId, why: ReadError },
    #[error(
        "whoever listens there took the connection and said nothing for {0:?}: a replica that is starting or stopped, or no replica at all (then correct the address)"
    )]
    Silent(Duration),
}

impl DialError {
    /// What the one that is not reached is told of it; nothing where it has refused this one itself.
    fn cause(&self) -> Option<Cause> {
        match self {
            Self::Io(_) if nobody_listens(self) => Some(Cause::NobodyListens),
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Some(Cause::SomebodyElse)
            }
            Self::Io(_) => Some(Cause::NoWay),
            Self::Timeout(_) | Self::Silent(_) => Some(Cause::NoAnswer),
            Self::Stranger { .. }
            | Self::Refused(
                Refusal::WrongReplica { .. }
                | Refusal::OtherGroup { .. }
                | Refusal::OtherVersion { .. },
            ) => Some(Cause::SomebodyElse),
            Self::Refused(
                Refusal::OtherConfiguration { .. }
                | Refusal::NotListed { .. }
                | Refusal::TooManyClients { .. }
                | Refusal::OtherDialect { .. }
                | Refusal::Superseded { .. },
            ) => None,
        }
    }
}

/// Dials until the transport closes.
pub(crate) async fn keep_connected(shared: Arc<Shared>, peer: Arc<Peer>, address: String) {
    let mut retired = peer.retired.subscribe();
    tokio::select! {
        () = dial_on(shared, Arc::clone(&peer), address) => {}
        // An error means the same: nobody keeps the peer any more.
        _ = retired.wait_for(|retired| *retired) => {}
    }
}

async fn dial_on(shared: Arc<Shared>, peer: Arc<Peer>, address: String) {
    let timing = &shared.config.timing;
    let me = &shared.me;
    let seed =
        me.incarnation.0.rotate_left(17) ^ (u64::from(me.replica.0) << 32) ^ u64::from(peer.id.0);
    let mut backoff = Backoff::new(timing.backoff_min, timing.backoff_max, seed);
    let mut short_lives = 0_u32;
    let (listed, mut turn, mut absent) = (address, 0_usize, 0_usize);
    loop {
        let addresses: Vec<String> = [listed.clone()]
            .into_iter()
            .chain(peer.elsewhere())
            .collect();
        let address = &addresses[turn % addresses.len()];
        match dial(&shared, peer.id, address).await {
            Ok((stream, read_already)) => {
                backoff.reset();
                absent = 0;
                peer.reached_at(address);
                let began = Instant::now();
                let why = serve(&shared, &peer, stream, read_already).await;
                info!(me = %shared.me.replica, peer = %peer.id, %address, %why, "connection ended");
                if why.is_misconduct() {
                    shared.counters.refused();
                }
                short_lives = if began.elapsed() < SHORT {
                    short_lives + 1
                } else {
                    0
                };
                if short_lives > 3 {
                    sleep(backoff.nth(short_lives - 3)).await;
                }
            }
            Err(error) => {
                turn = turn.wrapping_add(1);
                // Of two addresses it can correct the one that it says itself.
                if let Some(cause) = error.cause().filter(|_| addresses.last() == Some(address)) {
                    peer.not_reached_at(address, cause);
                }
                if matches!(error, DialError::Refused(Refusal::Superseded { .. })) {
                    shared.hint(peer.id, Hint::Superseded).await;
                }
                let known_why = matches!(
                    error,
                    DialError::Refused(_) | DialError::Stranger { .. } | DialError::Silent(_)
                );
                if known_why && peer.complaints.opens() {
                    warn!(me = %shared.me.replica, peer = %peer.id, %address, "cannot connect: {error}");
                    if let Some(tell) = &shared.config.on_unreachable {
                        tell(&Unreachable {
                            peer: peer.id,
                            way: Way::There,
                            address: address.clone(),
                            why: error.to_string(),
                            refusal: match error {
                                DialError::Refused(ref refusal) => Some(refusal.clone()),
                                DialError::Io(_)
                                | DialError::Timeout(_)
                                | DialError::Stranger { .. }
                                | DialError::Silent(_) => None,
                            },
                        });
                    }
                }
                // One that is merely silent may be there soon.
                if known_why && !matches!(error, DialError::Silent(_)) {
                    sleep(backoff.longest()).await;
                    continue;
                }
                absent = if nobody_listens(&error) {
                    absent + 1
                } else {
                    0
                };
                if absent >= addresses.len() && peer.lose() {
                    info!(me = %shared.me.replica, peer = %peer.id, %address, "gone: nobody listens there any more");
                    shared.hint(peer.id, Hint::Gone).await;
                }
                debug!(me = %shared.me.replica, peer = %peer.id, %address, %error, "not connected");
                tokio::select! {
                    () = sleep(backoff.next()) => {}
                    () = peer.retry.notified() => {}
                }
            }
        }
    }
}

async fn serve(
    shared: &Shared,
    peer: &Peer,
    stream: TcpStream,
    read_already: BytesMut,
) -> ReadError {
    debug!(me = %shared.me.replica, peer = %peer.id, "connected");
    peer.see();
    let _open = OpenQueue::new(&peer.queue, &shared.counters);
    // Told beside carrying: a node that is slow to take the hint does not keep frames waiting.
    let carrying = carry(
        shared,
        stream,
        read_already,
        &peer.queue,
        End::Dialled(peer),
    );
    tokio::pin!(carrying);
    tokio::select! {
        why = &mut carrying => return why,
        () = shared.hint(peer.id, Hint::Connected) => {}
    }
    carrying.await
}

async fn dial(
    shared: &Shared,
    to: ReplicaId,
    address: &str,
) -> Result<(TcpStream, BytesMut), DialError> {
    let timing = &shared.config.timing;
    let connected = timeout(timing.connect_within, shared.source.connect(address)).await;
    let mut stream = connected.map_err(|_| DialError::Timeout(timing.connect_within))??;
    let within = timing.handshake_within;
    let greeted = timeout(within, async {
        if stream.local_addr()? == stream.peer_addr()? {
            // TCP lets a port without listener connect to itself, if the system chooses it as our own.
            return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
        }
        stream.set_nodelay(true)?;
        let hello = Greeting::Peer(PeerHello::new(&shared.me, to, shared.listens.clone()));
        let dialect = shared.dialect();
        stream.write_all(&dialect.greeting(hello)).await?;
        hear_answer(stream, to, dialect, within).await
    });
    greeted.await.unwrap_or(Err(DialError::Timeout(within)))
}

async fn hear_answer(
    stream: TcpStream,
    to: ReplicaId,
    dialect: Dialect<'_>,
    within: Duration,
) -> Result<(TcpStream, BytesMut), DialError> {
    let patience = Patience {
        idle: within,
        frame: within,
    };
    let mut reader = FrameReader::new(stream, BytesMut::new(), 1_024, patience);
    let answer = match reader.next_of_member(dialect, GREETING_BYTES_MAX).await {
        Ok(MemberFrame::Greeting(greeting)) => Some(greeting),
        Ok(MemberFrame::Message(_)) => None,
        Err(ReadError::Io(error)) => return Err(DialError::Io(error)),
        Err(ReadError::Ended) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        Err(ReadError::Idle(within)) => return Err(DialError::Silent(within)),
        Err(why) => return Err(DialError::Stranger { here: to, why }),
    };
    match answer {
        Some(Greeting::Welcome { replica, .. }) if replica == to => Ok(reader.into_parts()),
        Some(Greeting::Welcome { replica, .. }) => Err(DialError::Refused(Refusal::WrongReplica {
            meant: to,
            here: replica,
        })),
        Some(Greeting::Refused(refusal)) => Err(DialError::Refused(refusal)),
        Some(
            Greeting::Peer(_)
            | Greeting::Client { .. }
            | Greeting::Ping
            | Greeting::Pong
            | Greeting::Knows { .. }
            | Greeting::Unreached { .. },
        )
        | None => Err(DialError::Stranger {
            here: to,
            why: ReadError::Unexpected,
        }),
    }
}

fn nobody_listens(error: &DialError) -> bool {
    matches!(error, DialError::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}
