//! A node's inbox without the node: bounded, read by a test.

use crate::transport::{Inbox, InboxEvent, InboxSink};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

/// A bounded queue as a node has one, for tests of transports.
///
/// ```
/// use kvrep_core::testing::mailbox::Mailbox;
/// use kvrep_core::transport::InboxEvent;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let mailbox = Mailbox::new(1);
/// let inbox = mailbox.inbox(); // give it to the transport
/// assert!(inbox.try_deliver(InboxEvent::Peer("one".into())).is_ok());
/// assert!(inbox.try_deliver(InboxEvent::Peer("two".into())).is_err()); // full: given back
/// let Some(InboxEvent::Peer(body)) = mailbox.next(Duration::from_secs(1)).await else { unreachable!() };
/// assert_eq!(body, "one");
/// # }
/// ```
pub struct Mailbox {
    sender: mpsc::Sender<InboxEvent>,
    receiver: Mutex<mpsc::Receiver<InboxEvent>>,
}

impl Mailbox {
    /// With room for this many events.
    #[must_use]
    pub fn new(room: usize) -> Self {
        let (sender, receiver) = mpsc::channel(room);
        Self {
            sender,
            receiver: Mutex::new(receiver),
        }
    }

    /// Where a transport delivers to.
    #[must_use]
    pub fn inbox(&self) -> Inbox {
        Inbox::new(Arc::new(Door(self.sender.clone())))
    }

    /// The next event, unless none comes for `patience`.
    pub async fn next(&self, patience: Duration) -> Option<InboxEvent> {
        let mut receiver = self.receiver.lock().await;
        timeout(patience, receiver.recv()).await.ok().flatten()
    }
}

struct Door(mpsc::Sender<InboxEvent>);

#[async_trait]
impl InboxSink for Door {
    fn try_deliver(&self, event: InboxEvent) -> Result<(), InboxEvent> {
        self.0.try_send(event).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(event) | mpsc::error::TrySendError::Closed(event) => {
                event
            }
        })
    }

    async fn deliver(&self, event: InboxEvent) -> bool {
        self.0.send(event).await.is_ok()
    }
}
