//! A crowd at the door: many connections wait for their request, and none may keep the others out.
//!
//! A connection that has sent its first bytes and not the rest costs a place. Places are bounded; when all are taken, the
//! connection that has waited longest makes room for the newest. An honest client's request arrives in one piece and
//! keeps its place for no time, so however many dawdle, it gets through.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::oneshot;

/// Those who wait.
#[derive(Debug)]
pub struct Crowd {
    places_max: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// By when they came. Dropping an entry sends its connection away.
    places: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Crowd {
    /// A crowd of at most so many.
    #[must_use]
    pub fn new(places_max: usize) -> Self {
        Self {
            places_max,
            waiting: Mutex::default(),
        }
    }

    /// Waits for `request`, unless so many come meanwhile that this one must go: then `None`.
    pub async fn wait<T>(&self, request: impl Future<Output = T>) -> Option<T> {
        let (place, sent_away) = self.take_place();
        let place = Place { crowd: self, place };
        let came = tokio::select! {
            biased;
            came = request => Some(came),
            _ = sent_away => None,
        };
        drop(place);
        came
    }

    fn take_place(&self) -> (u64, oneshot::Receiver<()>) {
        let (keep, sent_away) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let place = waiting.next;
        waiting.next += 1;
        waiting.places.insert(place, keep);
        if waiting.places.len() > self.places_max {
            waiting.places.pop_first();
        }
        (place, sent_away)
    }
}

/// A place that is given back, however the wait ends.
struct Place<'a> {
    crowd: &'a Crowd,
    place: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let waiting = self.crowd.waiting.lock();
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        waiting.places.remove(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::sync::Arc;

    #[tokio::test]
    async fn whoever_has_waited_longest_makes_room() {
        let crowd = Arc::new(Crowd::new(2));
        let dawdle = || {
            let crowd = Arc::clone(&crowd);
            tokio::spawn(async move { crowd.wait(pending::<()>()).await })
        };
        let first = dawdle();
        tokio::task::yield_now().await;
        let _second = dawdle();
        tokio::task::yield_now().await;
        assert_eq!(crowd.wait(ready("request")).await, Some("request"));
        assert_eq!(first.await.expect("it ends"), None);
        assert_eq!(crowd.waiting.lock().expect("no panic").places.len(), 1);
    }
}
