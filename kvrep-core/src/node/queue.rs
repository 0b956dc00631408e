//! What waits for the runner: what peers say, what is asked, what other threads have finished. Three queues, so that a
//! crowd of clients never delays a heartbeat, behind one lock, so that the runner takes everything and waits for
//! anything at the cost of one.
//!
//! Invariants:
//! * the lock is held for a push or for a swap of whole queues, never longer;
//! * the runner is woken by the first thing that comes while it waits, not by each;
//! * peers and requests are bounded; a full queue gives back what it does not take, or makes its sender wait.

use super::StateDigest;
use super::answer::Reply;
use super::copy::CopyReply;
use super::runner::Control;
use crate::client_wire::Op;
use crate::config::Read;
use crate::id::ReplicaId;
use crate::state_machine::Look;
use crate::time::Time;
use crate::transport::{Hint, InboxEvent, InboxSink, ReplyTo, Shipment};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::sync::{Notify, oneshot};

/// What peers (and the transport about them) say.
pub(super) enum FromPeer {
    Frame(Bytes),
    Shipment(Shipment),
    Hint { peer: ReplicaId, hint: Hint },
}

/// What is asked of the node.
pub(super) enum Asked {
    Here {
        op: Op,
        deadline: Time,
        reply: Reply,
    },
    Remote {
        request: Bytes,
        reply: ReplyTo,
    },
    Look {
        read: Read,
        look: Look,
        reply: Reply,
    },
    Copy {
        directory: PathBuf,
        reply: CopyReply,
    },
    Digest(oneshot::Sender<StateDigest>),
}

/// Why something was not taken.
#[derive(Debug)]
pub(super) enum Refusal<T> {
    Full(T),
    /// The node has stopped, or takes no more of it.
    Closed(T),
}

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) peers_max: usize,
    pub(super) requests_max: usize,
}

/// The senders' end. Clones are the same queues; they do not keep the node alive.
#[derive(Clone)]
pub(super) struct Mailbox(Arc<Shared>);

/// The runner's end. Dropped, everything that waits is dropped, and nothing is taken any more.
pub(super) struct Mail {
    shared: Arc<Shared>,
    pub(super) taken: Taken,
}

/// What the runner has taken over and not used up yet.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) control: VecDeque<Control>,
    pub(super) peers: VecDeque<FromPeer>,
    pub(super) requests: VecDeque<Asked>,
}

struct Shared {
    room: Room,
    state: Mutex<State>,
    /// Told when there is room again after a queue was full.
    room_again: Notify,
}

#[derive(Default)]
struct State {
    /// At most one for each batch, snapshot or piece under way, so it needs no bound.
    control: VecDeque<Control>,
    peers: VecDeque<FromPeer>,
    requests: VecDeque<Asked>,
    /// The runner, while it waits.
    runner: Option<Waker>,
    /// Somebody waits for room.
    is_waited_for: bool,
    requests_closed: bool,
    closed: bool,
}

/// Makes the two ends.
pub(super) fn mailbox(room: Room) -> (Mailbox, Mail) {
    let shared = Arc::new(Shared {
        room,
        state: Mutex::default(),
        room_again: Notify::new(),
    });
    let mail = Mail {
        shared: Arc::clone(&shared),
        taken: Taken::default(),
    };
    (Mailbox(shared), mail)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was taken: there is room.
    fn let_in(&self, mut state: MutexGuard<'_, State>) {
        if std::mem::take(&mut state.is_waited_for) {
            drop(state);
            self.room_again.notify_waiters();
        }
    }
}

/// Lets go of the lock, and wakes the runner if it waits.
fn wake(mut state: MutexGuard<'_, State>) {
    let runner = state.runner.take();
    drop(state);
    if let Some(runner) = runner {
        runner.wake();
    }
}

impl Mailbox {
    /// Tells the runner something that is always taken while the node runs.
    pub(super) fn tell(&self, control: Control) {
        let mut state = self.0.lock();
        if !state.closed {
            state.control.push_back(control);
            wake(state);
        }
    }

    pub(super) fn try_ask(&self, asked: Asked) -> Result<(), Refusal<Asked>> {
        let mut state = self.0.lock();
        if state.closed || state.requests_closed {
            return Err(Refusal::Closed(asked));
        }
        if state.requests.len() >= self.0.room.requests_max {
            return Err(Refusal::Full(asked));
        }
        state.requests.push_back(asked);
        wake(state);
        Ok(())
    }

    fn try_hear(&self, said: FromPeer) -> Result<(), Refusal<FromPeer>> {
        let mut state = self.0.lock();
        if state.closed {
            return Err(Refusal::Closed(said));
        }
        if state.peers.len() >= self.0.room.peers_max {
            return Err(Refusal::Full(said));
        }
        state.peers.push_back(said);
        wake(state);
        Ok(())
    }

    /// Waits for room. `None` when the node has stopped, or takes no more requests.
    pub(super) async fn ask(&self, asked: Asked) -> Option<()> {
        self.wait(asked, Self::try_ask).await
    }

    async fn wait<T>(
        &self,
        mut what: T,
        attempt: impl Fn(&Self, T) -> Result<(), Refusal<T>>,
    ) -> Option<()> {
        loop {
            what = match attempt(self, what) {
                Ok(()) => return Some(()),
                Err(Refusal::Closed(_)) => return None,
                Err(Refusal::Full(what)) => what,
            };
            let mut room_again = std::pin::pin!(self.0.room_again.notified());
            room_again.as_mut().enable();
            self.0.lock().is_waited_for = true;
            // It may have come before this one listened.
            what = match attempt(self, what) {
                Ok(()) => return Some(()),
                Err(Refusal::Closed(_)) => return None,
                Err(Refusal::Full(what)) => what,
            };
            room_again.await;
        }
    }
}

impl Mail {
    /// Takes over what came, behind what was taken before and not yet used up; waits if there is nothing at all.
    pub(super) fn poll_take(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.shared.lock();
        self.taken.take_from(&mut state);
        if self.taken.is_empty() {
            // The same task polls again and again.
            if !(state.runner.as_ref()).is_some_and(|runner| runner.will_wake(context.waker())) {
                state.runner = Some(context.waker().clone());
            }
            return Poll::Pending;
        }
        state.runner = None;
        self.shared.let_in(state);
        Poll::Ready(())
    }

    /// Takes over requests that came meanwhile, up to `count` in all, and what else came; does not wait.
    pub(super) fn take_more_requests(&mut self, count: usize) {
        let mut state = self.shared.lock();
        self.taken.take_from(&mut state);
        let more = count
            .saturating_sub(self.taken.requests.len())
            .min(state.requests.len());
        self.taken.requests.extend(state.requests.drain(..more));
        self.shared.let_in(state);
    }

    /// Takes no more requests. Those that wait are still there.
    pub(super) fn close_requests(&mut self) {
        let mut state = self.shared.lock();
        state.requests_closed = true;
        self.taken.requests.append(&mut state.requests);
        drop(state);
        self.shared.room_again.notify_waiters();
    }
}

impl Taken {
    /// What was taken and not used up keeps its place; that which is shared is then left where it is bounded.
    fn take_from(&mut self, state: &mut State) {
        fn take<T>(into: &mut VecDeque<T>, from: &mut VecDeque<T>) {
            if into.is_empty() {
                std::mem::swap(into, from);
            }
        }
        take(&mut self.control, &mut state.control);
        take(&mut self.peers, &mut state.peers);
        take(&mut self.requests, &mut state.requests);
    }

    fn is_empty(&self) -> bool {
        self.control.is_empty() && self.peers.is_empty() && self.requests.is_empty()
    }
}

impl Drop for Mail {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut *state);
        state.closed = true;
        drop(state);
        // Outside the lock: what is dropped wakes others.
        drop(waiting);
        self.shared.room_again.notify_waiters();
    }
}

#[async_trait]
impl InboxSink for Mailbox {
    fn try_deliver(&self, event: InboxEvent) -> Result<(), InboxEvent> {
        match sort(event) {
            Sorted::Peer(said) => self.try_hear(said).map_err(|refusal| match refusal {
                Refusal::Full(FromPeer::Frame(body)) | Refusal::Closed(FromPeer::Frame(body)) => {
                    InboxEvent::Peer(body)
                }
                Refusal::Full(FromPeer::Shipment(shipment))
                | Refusal::Closed(FromPeer::Shipment(shipment)) => InboxEvent::Shipment(shipment),
                Refusal::Full(FromPeer::Hint { peer, hint })
                | Refusal::Closed(FromPeer::Hint { peer, hint }) => InboxEvent::Hint { peer, hint },
            }),
            Sorted::Request(asked) => self.try_ask(asked).map_err(|refusal| match refusal {
                Refusal::Full(Asked::Remote { request, reply })
                | Refusal::Closed(Asked::Remote { request, reply }) => {
                    InboxEvent::Client { request, reply }
                }
                Refusal::Full(_) | Refusal::Closed(_) => {
                    unreachable!("what is given back is what was put in, a remote request")
                }
            }),
        }
    }

    async fn deliver(&self, event: InboxEvent) -> bool {
        let taken = match sort(event) {
            Sorted::Peer(said) => self.wait(said, Self::try_hear).await,
            Sorted::Request(asked) => self.wait(asked, Self::try_ask).await,
        };
        taken.is_some()
    }

    fn takes_shipments(&self) -> bool {
        true
    }
}

enum Sorted {
    Peer(FromPeer),
    Request(Asked),
}

fn sort(event: InboxEvent) -> Sorted {
    match event {
        InboxEvent::Peer(body) => Sorted::Peer(FromPeer::Frame(body)),
        InboxEvent::Shipment(shipment) => Sorted::Peer(FromPeer::Shipment(shipment)),
        InboxEvent::Hint { peer, hint } => Sorted::Peer(FromPeer::Hint { peer, hint }),
        InboxEvent::Client { request, reply } => Sorted::Request(Asked::Remote { request, reply }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    const ROOM: Room = Room {
        peers_max: 2,
        requests_max: 1,
    };

    fn frame(byte: u8) -> InboxEvent {
        InboxEvent::Peer(Bytes::copy_from_slice(&[byte]))
    }

    fn request() -> Asked {
        Asked::Digest(oneshot::channel().0)
    }

    async fn next(mail: &mut Mail) {
        poll_fn(|context| mail.poll_take(context)).await;
    }

    fn heard(mail: &mut Mail) -> Vec<u8> {
        let heard = mail.taken.peers.drain(..).map(|said| match said {
            FromPeer::Frame(body) => body[0],
            FromPeer::Shipment(_) | FromPeer::Hint { .. } => {
                unreachable!("only frames were sent")
            }
        });
        heard.collect()
    }

    #[tokio::test]
    async fn a_full_queue_gives_back_and_the_other_is_not_in_its_way() {
        let (mailbox, mut mail) = mailbox(ROOM);
        assert!(mailbox.try_deliver(frame(1)).is_ok());
        assert!(mailbox.try_deliver(frame(2)).is_ok());
        assert!(
            matches!(mailbox.try_deliver(frame(3)), Err(InboxEvent::Peer(body)) if body[..] == [3])
        );
        assert!(mailbox.try_ask(request()).is_ok());
        assert!(matches!(mailbox.try_ask(request()), Err(Refusal::Full(_))));
        next(&mut mail).await;
        assert_eq!(
            (heard(&mut mail), mail.taken.requests.len()),
            (vec![1, 2], 1)
        );
    }

    #[tokio::test]
    async fn who_waits_for_room_gets_it_in_order_once_something_is_taken() {
        let (mailbox, mut mail) = mailbox(ROOM);
        let sender = tokio::spawn(async move {
            for byte in 0..100 {
                assert!(mailbox.deliver(frame(byte)).await);
            }
            mailbox
        });
        let mut all = Vec::new();
        while all.len() < 100 {
            next(&mut mail).await;
            let new = heard(&mut mail);
            assert!(new.len() <= ROOM.peers_max);
            all.extend(new);
        }
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        let mailbox = sender.await.unwrap();
        drop(mail);
        assert!(!mailbox.deliver(frame(0)).await, "nobody is there any more");
    }

    #[tokio::test]
    async fn whoever_waits_for_room_hears_of_the_end() {
        let (mailbox, mut mail) = mailbox(ROOM);
        assert!(mailbox.try_ask(request()).is_ok());
        let waiting = tokio::spawn({
            let mailbox = mailbox.clone();
            async move { mailbox.ask(request()).await }
        });
        while !mail.shared.lock().is_waited_for {
            tokio::task::yield_now().await;
        }
        mail.close_requests();
        assert_eq!(waiting.await.unwrap(), None);
        assert_eq!(mail.taken.requests.len(), 1, "what came before is answered");
        assert!(
            mailbox.try_deliver(frame(1)).is_ok(),
            "peers are still heard"
        );
    }
}
