//! Room for large requests: whoever holds it longest makes room for the newest.
//!
//! A request may have a megabyte, and there may be thousands of clients; so only so many large ones are received at a time. A
//! place is taken when the first [`LARGE_BYTES`](super::message::LARGE_BYTES) of a request have come, not when its length was announced:
//! announcing costs nothing. When all places are taken, the request that has held one longest is given up, and its
//! client told that it failed: an honest request takes no time to arrive, so however many stall, it gets through.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// Room for large frames that are not complete, shared by all conversations of a server.
#[derive(Clone, Debug)]
pub struct Room(Arc<Places>);

#[derive(Debug)]
struct Places {
    places_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// By when they were taken: whom to tell.
    by: BTreeMap<u64, Arc<Notify>>,
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Room,
    number: u64,
}

impl Room {
    /// For so many frames.
    #[must_use]
    pub fn for_frames(places_max: usize) -> Self {
        Self(Arc::new(Places {
            places_max,
            taken: Mutex::default(),
        }))
    }

    /// A place. `given_up` is notified when it is taken away again.
    pub(super) fn take(&self, given_up: &Arc<Notify>) -> Place {
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let number = taken.next;
        taken.next += 1;
        taken.by.insert(number, Arc::clone(given_up));
        if taken.by.len() > self.0.places_max
            && let Some((_, longest)) = taken.by.pop_first()
        {
            longest.notify_one();
        }
        Place {
            room: self.clone(),
            number,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let taken = self.room.0.taken.lock();
        taken
            .unwrap_or_else(PoisonError::into_inner)
            .by
            .remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test]
    async fn whoever_holds_a_place_longest_makes_room_and_a_place_given_back_disturbs_nobody() {
        let room = Room::for_frames(2);
        let told: Vec<Arc<Notify>> = (0..4).map(|_| Arc::default()).collect();
        let first = room.take(&told[0]);
        drop(room.take(&told[1]));
        let _third = room.take(&told[2]);
        let brief = Duration::from_millis(20);
        assert!(timeout(brief, told[0].notified()).await.is_err());
        let _fourth = room.take(&told[3]);
        assert!(timeout(brief, told[0].notified()).await.is_ok());
        drop(first);
        for other in &told[1..] {
            assert!(timeout(brief, other.notified()).await.is_err());
        }
        assert_eq!(room.0.taken.lock().expect("no panic").by.len(), 2);
    }
}
