//! What happens to a node, for whoever wants to hear of it; and that it has ended. Shared by the drivers.

use super::NodeError;
use std::sync::Mutex;
use tokio::sync::{broadcast, watch};

/// The events of a node. Who asks first gets those since the start, for else the first ones could be missed.
pub(super) struct Events<E> {
    sender: broadcast::Sender<E>,
    from_start: Mutex<Option<broadcast::Receiver<E>>>,
}

impl<E: Clone> Events<E> {
    /// And where they are sent.
    pub(super) fn channel() -> (broadcast::Sender<E>, Self) {
        let (sender, from_start) = broadcast::channel(EVENTS_MAX);
        let events = Self {
            sender: sender.clone(),
            from_start: Mutex::new(Some(from_start)),
        };
        (sender, events)
    }

    pub(super) fn receiver(&self) -> broadcast::Receiver<E> {
        let mut first = self.from_start.lock();
        let first = first.as_mut().ok().and_then(|first| first.take());
        first.unwrap_or_else(|| self.sender.subscribe())
    }
}

/// How a node has ended, once it has.
pub(super) struct Ended(watch::Receiver<Option<Result<(), NodeError>>>);

impl Ended {
    /// And where it is told.
    pub(super) fn channel() -> (watch::Sender<Option<Result<(), NodeError>>>, Self) {
        let (sender, seen) = watch::channel(None);
        (sender, Self(seen))
    }

    pub(super) async fn wait(&self) -> Result<(), NodeError> {
        let mut ended = self.0.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Ok(())),
            Err(_) => Err(NodeError::Panicked("its runtime was shut down".into())),
        }
    }
}

/// Who falls further behind misses some, and is told so.
const EVENTS_MAX: usize = 1_024;
