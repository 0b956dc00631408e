//! Takes connections and finds out what they are: a member of the group, a client, or somebody else.
//!
//! The first bytes decide. Those of a kvrep frame lead to a handshake or a request, those of the members' own dialect to a
//! handshake; any others go to the foreign service, if there is one. A connection that has not said what it is counts against a limit of its own, and there the
//! oldest makes room for the newest: a crowd of silent connections cannot keep a healthy peer out.

use crate::client::serve_client;
use crate::codec::{Codec, Dialect, MemberFrame};
use crate::config::Unlisted;
use crate::greeting::{GREETING_BYTES_MAX, Greeting, PeerHello, Refusal};
use crate::peer::{End, carry};
use crate::queue::SendQueue;
use crate::reader::{FrameReader, Patience, ReadError};
use crate::shared::{OpenQueue, Peer, Shared};
use bytes::{Bytes, BytesMut};
use kvrep_core::transport::Hint;
use kvrep_core::wire::{FrameError, FrameKind, MAGIC, VERSION};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, warn};

/// Accepts and dials until told to stop; every task has ended when this returns.
pub(crate) async fn run(
    shared: Arc<Shared>,
    listener: TcpListener,
    mut stop: watch::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    let mut learned = shared.learned.subscribe();
    // Somebody may have been learned before this task began.
    learned.mark_changed();
    for peer in shared.peers.values() {
        if let Some(address) = peer.address.clone() {
            tasks.spawn(crate::dial::keep_connected(
                Arc::clone(&shared),
                Arc::clone(peer),
                address,
            ));
        }
    }
    loop {
        tokio::select! {
            biased;
            // An error means that the transport was dropped.
            () = told(&mut stop, |stop| *stop) => break,
            Some(_) = tasks.join_next() => {}
            Ok(()) = learned.changed() => {
                learned.borrow_and_update();
                for (peer, address) in shared.undialled() {
                    tasks.spawn(crate::dial::keep_connected(Arc::clone(&shared), peer, address));
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    tasks.spawn(greet(Arc::clone(&shared), stream, from));
                }
                Err(error) => {
                    if shared.complaints.opens() {
                        error!(me = %shared.me.replica, %error, "cannot accept connections; if it says that too many files are open, raise the limit (ulimit -n)");
                    }
                    sleep(ACCEPT_AGAIN).await;
                }
            },
        }
    }
    drop(listener);
    tasks.shutdown().await;
}

/// Waits until the watched value is as wanted, or nobody can change it any more.
async fn told<T>(watched: &mut watch::Receiver<T>, wanted: impl FnMut(&T) -> bool) {
    let _ = watched.wait_for(wanted).await;
}

/// What a connection turned out to be.
enum Caller {
    Peer(PeerHello),
    /// With its first request, if it did not introduce itself.
    Client(Option<Bytes>),
    Foreign,
}

async fn greet(shared: Arc<Shared>, mut stream: TcpStream, from: SocketAddr) {
    let (id, evicted) = shared.begin_greeting();
    let within = shared.config.timing.handshake_within;
    let known = tokio::select! {
        known = identify(&shared, &mut stream, within) => known,
        _ = evicted => None,
    };
    shared.end_greeting(id);
    let Some((caller, rest)) = known else {
        return;
    };
    match caller {
        Caller::Foreign => serve_foreign(&shared, stream, rest.freeze(), from).await,
        Caller::Client(first) => match Arc::clone(&shared.clients).try_acquire_owned() {
            Ok(permit) => {
                let welcome = Dialect::Kvrep.greeting(welcome(&shared));
                if first.is_some() || stream.write_all(&welcome).await.is_ok() {
                    serve_client(&shared, stream, rest, first).await;
                }
                drop(permit);
            }
            Err(_) => {
                let clients_max = shared.config.limits.clients_max as u64;
                let refusal = Refusal::TooManyClients { clients_max };
                refuse(&shared, stream, from, Dialect::Kvrep, refusal).await;
            }
        },
        Caller::Peer(hello) => match admit(&shared, &hello.seen_from(from)) {
            Ok(peer) => serve_peer(&shared, &peer, id, stream, rest).await,
            Err(refusal) => refuse(&shared, stream, from, shared.dialect(), refusal).await,
        },
    }
}

/// Reads the first bytes and, if they are kvrep's or a member's, the first frame. `None`: nobody to talk to.
async fn identify(
    shared: &Shared,
    stream: &mut TcpStream,
    within: Duration,
) -> Option<(Caller, BytesMut)> {
    let mut first = BytesMut::with_capacity(1_024);
    let codec = shared.config.codec.as_deref();
    let openings = [Some(&MAGIC[..]), codec.map(Codec::opening)];
    let undecided = |first: &[u8]| {
        let mut openings = openings.iter().flatten();
        openings.any(|opening| first.len() < opening.len() && opening.starts_with(first))
    };
    // Whoever speaks another wire may think before it says something; a client or member of kvrep says at once who it is.
    let patience = match shared.config.foreign {
        Some(_) => shared.config.timing.foreign_begins_within.max(within),
        None => within,
    };
    // Neither time nor the end of the stream is an error here: the bytes that came decide.
    let begun = timeout(patience, stream.read_buf(&mut first)).await;
    let _ = timeout(within, async {
        while matches!(begun, Ok(Ok(1..))) && undecided(&first) {
            if !matches!(stream.read_buf(&mut first).await, Ok(1..)) {
                break;
            }
        }
    })
    .await;
    if first.is_empty() {
        shared.counters.refused();
        return None;
    }
    let patience = Patience {
        idle: within,
        frame: within,
    };
    if let Some(codec) = codec.filter(|codec| first.starts_with(codec.opening())) {
        return identify_member(shared, codec, stream, first, patience).await;
    }
    if !first.starts_with(&MAGIC) {
        return Some((Caller::Foreign, first));
    }
    let request_bytes_max = shared.config.limits.request_bytes_max;
    let mut reader = FrameReader::new(&mut *stream, first, 1_024, patience);
    let frame = timeout(
        within,
        reader.next(|kind| {
            if kind == FrameKind::Request as u8 {
                request_bytes_max
            } else {
                GREETING_BYTES_MAX
            }
        }),
    );
    let caller = match frame.await {
        Ok(Ok((FrameKind::Request, body))) => Some(Caller::Client(Some(body))),
        Ok(Ok((FrameKind::Handshake, body))) => match Greeting::from_body(&body) {
            Some(Greeting::Peer(_)) if codec.is_some() => {
                let replica = shared.me.replica;
                let refusal = Refusal::OtherDialect { replica };
                say(shared, stream, Dialect::Kvrep, refusal).await;
                return None;
            }
            Some(Greeting::Peer(hello)) => Some(Caller::Peer(hello)),
            Some(Greeting::Client { group }) if group == shared.me.group => {
                Some(Caller::Client(None))
            }
            Some(Greeting::Client { .. }) => {
                let replica = shared.me.replica;
                let refusal = Refusal::OtherGroup { replica };
                say(shared, stream, Dialect::Kvrep, refusal).await;
                return None;
            }
            Some(
                Greeting::Welcome { .. }
                | Greeting::Refused(_)
                | Greeting::Ping
                | Greeting::Pong
                | Greeting::Knows { .. }
                | Greeting::Unreached { .. },
            )
            | None => None,
        },
        Ok(Ok((FrameKind::Peer | FrameKind::Reply, _))) => None,
        Ok(Err(ReadError::Frame(FrameError::Version { found }))) => {
            if shared.complaints.opens() {
                warn!(me = %shared.me.replica, found, ours = VERSION, "refused a connection of another wire version; run the same kvrep version everywhere");
            }
            let refusal = Refusal::OtherVersion { theirs: VERSION };
            say(shared, stream, Dialect::Kvrep, refusal).await;
            return None;
        }
        Ok(Err(error)) => {
            debug!(me = %shared.me.replica, %error, "refused a connection");
            None
        }
        Err(_) => None,
    };
    let Some(caller) = caller else {
        shared.counters.refused();
        return None;
    };
    let (_, rest) = reader.into_parts();
    Some((caller, rest))
}

/// Reads the greeting of a connection that began as one of a member, in the dialect of `codec`.
async fn identify_member(
    shared: &Shared,
    codec: &dyn Codec,
    stream: &mut TcpStream,
    first: BytesMut,
    patience: Patience,
) -> Option<(Caller, BytesMut)> {
    let mut reader = FrameReader::new(&mut *stream, first, 1_024, patience);
    let frame = reader.next_of_member(Dialect::Own(codec), GREETING_BYTES_MAX);
    let why = match timeout(patience.frame, frame).await {
        Ok(Ok(MemberFrame::Greeting(Greeting::Peer(hello)))) => {
            let (_, rest) = reader.into_parts();
            return Some((Caller::Peer(hello), rest));
        }
        Ok(Ok(MemberFrame::Greeting(_) | MemberFrame::Message(_))) => ReadError::Unexpected,
        Ok(Err(error)) => error,
        Err(_) => ReadError::Half(patience.frame),
    };
    debug!(me = %shared.me.replica, %why, "refused a connection that began as a member's");
    shared.counters.refused();
    None
}

fn welcome(shared: &Shared) -> Greeting {
    Greeting::Welcome {
        replica: shared.me.replica,
        incarnation: shared.me.incarnation,
        request_bytes_max: shared.config.limits.request_bytes_max as u64,
    }
}

/// Who says hello, if it may: not one of whom a later life was here. What it says of where it listens is tried from now on.
fn admit(shared: &Shared, hello: &PeerHello) -> Result<Arc<Peer>, Refusal> {
    hello.check(&shared.me)?;
    // Before anything that it says is taken over.
    if !shared.is_latest(hello.from, hello.incarnation) {
        return Err(Refusal::Superseded {
            replica: shared.me.replica,
            you: hello.from,
        });
    }
    let peer = member(shared, hello)?;
    if shared.config.unlisted == Unlisted::Learn
        && let Some(address) = &hello.listens
    {
        peer.told(address);
    }
    Ok(peer)
}

fn member(shared: &Shared, hello: &PeerHello) -> Result<Arc<Peer>, Refusal> {
    let not_listed = || Refusal::NotListed {
        replica: shared.me.replica,
        you: hello.from,
    };
    match (shared.peers.get(&hello.from), shared.config.unlisted) {
        (Some(peer), _) => Ok(Arc::clone(peer)),
        (None, Unlisted::Refuse) => Err(not_listed()),
        (None, Unlisted::Learn) => {
            if let Some(address) = &hello.listens {
                shared.learn(hello.from, address);
            }
            match shared.learned(hello.from) {
                Some(peer) => Ok(peer),
                None => shared.welcome_guest(hello.from).ok_or_else(not_listed),
            }
        }
        (None, Unlisted::Answer) => shared.welcome_guest(hello.from).ok_or_else(not_listed),
    }
}

/// Reads from a peer until its connection ends or it makes a newer one.
async fn serve_peer(shared: &Shared, peer: &Peer, id: u64, mut stream: TcpStream, rest: BytesMut) {
    // Whatever this peer had connected before is of an earlier life, or dead: it ends first, so that frames stay in
    // order.
    let newer = peer.arrivals.newest.send_if_modified(|newest| {
        let newer = id > *newest;
        *newest = id.max(*newest);
        newer
    });
    if !newer {
        return;
    }
    let mut newest = peer.arrivals.newest.subscribe();
    let replaced = told(&mut newest, |newest| *newest != id);
    let serving = async {
        let _turn = peer.arrivals.turn.lock().await;
        if stream.set_nodelay(true).is_err() {
            return ReadError::Ended;
        }
        if let Err(error) = stream
            .write_all(&shared.dialect().greeting(welcome(shared)))
            .await
        {
            return error.into();
        }
        peer.see();
        // It is there: if we were waiting to dial it, the wait is over.
        peer.retry.notify_one();
        serve_connected(shared, peer, stream, rest).await
    };
    let why = tokio::select! {
        why = serving => why,
        () = replaced => ReadError::Ended,
    };
    if why.is_misconduct() {
        shared.counters.refused();
        if peer.complaints.opens() {
            warn!(me = %shared.me.replica, peer = %peer.id, %why, "closed a connection that sent what it must not");
        }
    }
    debug!(me = %shared.me.replica, peer = %peer.id, %why, "connection from it ended");
    peer.retry.notify_one();
}

async fn serve_connected(
    shared: &Shared,
    peer: &Peer,
    stream: TcpStream,
    rest: BytesMut,
) -> ReadError {
    if peer.address.is_some() {
        let answers = SendQueue::new(ANSWERS_MAX, usize::MAX);
        answers.open();
        for (replica, address) in shared.addresses(peer.id) {
            // It fits: there are fewer members than answers.
            let knows = Greeting::Knows { replica, address };
            let _ = answers.push(shared.dialect().greeting(knows));
        }
        let carrying = carry(shared, stream, rest, &answers, End::Accepted);
        return tokio::select! {
            why = carrying => why,
            () = tell_of_silence(shared, peer, &answers) => ReadError::Ended,
        };
    }
    // A guest is answered over its own connection.
    let _open = OpenQueue::new(&peer.queue, &shared.counters);
    shared.hint(peer.id, Hint::Connected).await;
    carry(shared, stream, rest, &peer.queue, End::Accepted).await
}

/// Tells a member that it is heard, and cannot be reached to be answered, while that lasts: it cannot know otherwise. Ends when nobody dials any more.
async fn tell_of_silence(shared: &Shared, peer: &Peer, answers: &SendQueue) {
    let mut unreached = peer.unreached.subscribe();
    while unreached.wait_for(Option::is_some).await.is_ok() {
        // Whoever has just started may listen in a moment.
        sleep(UNREACHED_AFTER).await;
        let known = unreached.borrow().clone();
        let Some((address, cause)) = known else {
            continue;
        };
        // One that does not read is not told.
        let _ = answers.push(
            shared
                .dialect()
                .greeting(Greeting::Unreached { address, cause }),
        );
        sleep(UNREACHED_AGAIN).await;
    }
}

async fn serve_foreign(shared: &Shared, stream: TcpStream, first: Bytes, from: SocketAddr) {
    let Some(service) = &shared.config.foreign else {
        shared.counters.refused();
        debug!(me = %shared.me.replica, %from, "closed a connection that does not speak kvrep");
        return;
    };
    match Arc::clone(&shared.foreigners).try_acquire_owned() {
        Ok(permit) => {
            // Replies are small and waited for.
            let _ = stream.set_nodelay(true);
            service.serve(stream, first, from).await;
            drop(permit);
        }
        Err(_) => {
            shared.counters.refused();
            if shared.complaints.opens() {
                warn!(me = %shared.me.replica, %from, "closed a foreign connection: as many as allowed (foreign_max) are served");
            }
        }
    }
}

async fn refuse(
    shared: &Shared,
    mut stream: TcpStream,
    from: SocketAddr,
    dialect: Dialect<'_>,
    refusal: Refusal,
) {
    if shared.complaints.opens() {
        warn!(me = %shared.me.replica, %from, "refused a connection, telling it: {refusal}");
    }
    say(shared, &mut stream, dialect, refusal).await;
}

/// Tells why, and gives the other side time to read it: closing with unread bytes would take the words back.
async fn say(shared: &Shared, stream: &mut TcpStream, dialect: Dialect<'_>, refusal: Refusal) {
    shared.counters.refused();
    let frame = dialect.greeting(Greeting::Refused(refusal));
    let within = shared.config.timing.handshake_within.min(SAY_WITHIN);
    let _ = timeout(within, async {
        stream.write_all(&frame).await?;
        stream.shutdown().await?;
        let mut rest = [0; 4_096];
        let mut left = 1_024;
        while left > 0 && stream.read(&mut rest).await? > 0 {
            left -= 1;
        }
        std::io::Result::Ok(())
    })
    .await;
}

const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
const SAY_WITHIN: Duration = Duration::from_secs(1);
const ANSWERS_MAX: usize = 192;
/// Before a member is told that it is not reached, and before it is told again.
const UNREACHED_AFTER: Duration = Duration::from_secs(1);
const UNREACHED_AGAIN: Duration = Duration::from_secs(10);
